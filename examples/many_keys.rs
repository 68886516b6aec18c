//! A thousand keys in one call while one of four servers dies: its keys are missing, all others are
//! there, and nobody waits. `cargo run --example many_keys`

use distcache::client::{Client, Config, WhenDown};
use distcache::server::Server;
use std::collections::HashMap;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut servers = (0..4).map(|_| Server::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    let addresses: Vec<String> =
        servers.iter().map(|server| server.addresses()[0].to_string()).collect();
    // Copies would be there: `replicas: 2`. Without them a server that is away is one that holds
    // nothing.
    let config = Config { when_down: WhenDown::Miss, ..Config::default() };
    let client = Client::with_config(&addresses, config)?;
    client.set_many((0..1000u32).map(|id| (id, format!("user {id}")))).all()?;
    for round in 0..3 {
        let start = Instant::now();
        let users: HashMap<u32, String> = client.get_map(0..1000)?;
        println!("{} of 1000 keys in {:?}", users.len(), start.elapsed());
        if round == 0 {
            servers.remove(1).stop();
            println!("a server dies");
        }
    }
    println!("{:?}", client.counters());
    Ok(())
}
