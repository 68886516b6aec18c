//! A slow function behind a cache: eight threads ask at once, one computes.
//! `cargo run --example look_aside`

use distcache::client::Client;
use distcache::server::Server;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

static COMPUTED: AtomicU32 = AtomicU32::new(0);

/// What takes long.
fn slow_square(number: u64) -> u64 {
    COMPUTED.fetch_add(1, Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(300));
    number * number
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::bind("127.0.0.1:0")?;
    let client = Client::connect([server.addresses()[0].to_string()])?;
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let minute = Duration::from_secs(60);
                match client.get_or_compute("square:12", minute, || slow_square(12)) {
                    Ok(square) => println!("{square} after {:?}", start.elapsed()),
                    Err(error) => eprintln!("{error}"),
                }
            });
        }
    });
    println!("computed {} time(s)", COMPUTED.load(Ordering::Relaxed));
    Ok(())
}
