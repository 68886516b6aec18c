//! A server dies and comes back: its keys go to the next one meanwhile, and nothing that is out of
//! date is read afterwards. `cargo run --example failover`

use distcache::client::{Client, Config, Event, Listener, State, WhenDown};
use distcache::server::Server;
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut servers = (0..3).map(|_| Server::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    let addresses: Vec<String> =
        servers.iter().map(|server| server.addresses()[0].to_string()).collect();
    let config = Config {
        when_down: WhenDown::NextServer { expiry_seconds_max: 10 },
        listener: Some(Listener::new(|event: &Event| println!("  event: {event:?}"))),
        ..Config::default()
    };
    let client = Client::with_config(&addresses, config)?;
    let key = "user:7";
    client.set(key, "before")?;
    let owner = client.server_of(key).ok_or("no servers")?;
    println!("{owner} owns {key}; it dies");
    let at = addresses.iter().position(|one| *one == owner.address()).ok_or("no such server")?;
    servers.remove(at).stop();
    // Failures count until the server is ejected; then the next one stands in.
    while client.set(key, "meanwhile").is_err() {}
    println!("read elsewhere: {:?}", client.get::<String>(key)?);
    let _again = Server::bind(owner.address())?;
    println!("it is back");
    while client.servers()[at].state != State::Healthy {
        client.get::<String>(key)?;
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("read from its owner again: {:?}", client.get::<String>(key)?);
    println!("{:?}", client.counters());
    Ok(())
}
