//! Sessions that programs in PHP, Python and Rust share, as JSON in plain text: every client of
//! every language stores a string in the same way. `cargo run --example sessions`
//!
//! In PHP: `$session = json_decode($memcached->get("session:7"));`, and
//! `$memcached->set("session:7", json_encode($session), 1800);` to store it.
//!
//! In Python: `json.loads(client.get("session:7"))`, and
//! `client.set("session:7", json.dumps(session), expire=1800)`.

use distcache::client::{Client, Error};
use distcache::server::Server;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long a session lives after its last use.
const HALF_AN_HOUR: Duration = Duration::from_secs(1800);

#[derive(Debug, Serialize, Deserialize)]
struct Session {
    user: String,
    cart: Vec<u32>,
    /// What other programs add, kept as it is.
    #[serde(flatten)]
    others: serde_json::Map<String, serde_json::Value>,
}

fn load(client: &Client, id: u64) -> Result<Option<Session>, Error> {
    // A string that is no `Session` itself is read as JSON.
    client.get_and_touch(format!("session:{id}"), HALF_AN_HOUR)
}

fn store(client: &Client, id: u64, session: &Session) -> Result<(), Box<dyn std::error::Error>> {
    let text = serde_json::to_string(session)?;
    Ok(client.set_with(format!("session:{id}"), text, HALF_AN_HOUR)?)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::bind("127.0.0.1:0")?;
    let client = Client::connect([server.addresses()[0].to_string()])?;
    // As PHP's json_encode writes it, with its slashes.
    let from_php = br#"{"user":"Pel\u00e9","cart":[10],"seen":"\/shirts\/10"}"#;
    client.set_raw("session:7", from_php, 0)?;
    let mut session = load(&client, 7)?.ok_or("no session")?;
    println!("from PHP: {session:?}");
    session.cart.push(11);
    store(&client, 7, &session)?;
    let raw = client.get_raw("session:7")?.ok_or("no session")?;
    println!("for all: {} (flags {})", String::from_utf8(raw.bytes)?, raw.flags);
    Ok(())
}
