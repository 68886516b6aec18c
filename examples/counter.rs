//! Numbers that many callers count up: visits, and user ids of which none is given twice.
//! `cargo run --example counter`

use distcache::client::Client;
use distcache::server::Server;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::bind("127.0.0.1:0")?;
    let client = Client::connect([server.addresses()[0].to_string()])?;
    let ids = std::thread::scope(|scope| {
        let work = || -> Result<Vec<u64>, distcache::client::Error> {
            let mut ids = Vec::new();
            for _ in 0..1000 {
                client.incr_or("visits", 1, 1)?;
                ids.push(client.unique_id("user")?);
            }
            Ok(ids)
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect::<Result<Vec<_>, _>>()
    })?;
    let mut ids = ids.concat();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    println!(
        "{} visits, {count} user ids, {} different",
        client.get::<u64>("visits")?.unwrap_or(0),
        ids.len()
    );
    Ok(())
}
