//! Files as values, byte for byte: `cargo run --example images -- a.png b.pdf`, or without
//! arguments a small image made here.

use distcache::client::Client;
use distcache::server::Server;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::bind("127.0.0.1:0")?;
    let client = Client::connect([server.addresses()[0].to_string()])?;
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for path in std::env::args().skip(1) {
        files.push((path.clone(), std::fs::read(path)?));
    }
    if files.is_empty() {
        // A picture of 64 by 64 grey points, in the format PGM.
        let points = (0..64u8).flat_map(|row| (0..64u8).map(move |column| row * 2 + column * 2));
        files.push(("grey.pgm".into(), b"P5 64 64 255\n".iter().copied().chain(points).collect()));
    }
    for (name, bytes) in &files {
        client.set_raw(name, bytes, 0)?;
        let stored = client.get_raw(name)?.ok_or("evicted already")?;
        println!("{name}: {} bytes, the same: {}", stored.bytes.len(), stored.bytes == *bytes);
    }
    Ok(())
}
