//! The shortest program: `cargo run --example quick_start -- localhost:2050`, with a server there,
//! or without an argument, with one of its own.

use distcache::client::{Client, Error};
use distcache::server::Server;

fn run(address: &str) -> Result<(), Error> {
    let client = Client::connect([address])?;
    client.set("brazil", "football")?;
    client.set(1, 2)?;
    client.set(3, 6)?;
    let x: Option<String> = client.get("hey")?;
    println!("hey: {x:?}");
    println!("brazil: {:?}", client.get::<String>("brazil")?);
    println!("1: {:?}", client.get::<u32>(1)?);
    client.delete(3)?;
    println!("3: {:?}", client.get::<u32>(3)?);
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if let Some(address) = std::env::args().nth(1) {
        return Ok(run(&address)?);
    }
    let server = Server::bind("127.0.0.1:0")?;
    Ok(run(&server.addresses()[0].to_string())?)
}
