//! A slow query behind a cache, structs as values: eight threads ask at once, one computes.
//! `cargo run --example look_aside`

use distcache::client::Client;
use distcache::server::Server;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

static COMPUTED: AtomicU32 = AtomicU32::new(0);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct User {
    id: u64,
    name: String,
    born: Option<u16>,
    roles: BTreeMap<String, Vec<Role>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Role {
    Reader,
    Editor { since: u16 },
}

/// What takes long.
fn user_of_database(id: u64) -> User {
    COMPUTED.fetch_add(1, Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(300));
    let roles = vec![Role::Reader, Role::Editor { since: 1958 }];
    let (name, roles) = ("Pel\u{e9}".into(), BTreeMap::from([("blog".into(), roles)]));
    User { id, name, born: Some(1940), roles }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::bind("127.0.0.1:0")?;
    let client = Client::connect([server.addresses()[0].to_string()])?;
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let minute = Duration::from_secs(60);
                match client.get_or_compute("user:10", minute, || user_of_database(10)) {
                    Ok(user) => println!("{user:?} after {:?}", start.elapsed()),
                    Err(error) => eprintln!("{error}"),
                }
            });
        }
    });
    // Somebody changes it: the next reader computes it anew.
    client.delete("user:10")?;
    assert_eq!(client.get::<User>("user:10")?, None);
    println!("computed {} time(s)", COMPUTED.load(Ordering::Relaxed));
    Ok(())
}
