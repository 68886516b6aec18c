//! Memory of idle connections. Owns the sockets that do nothing and the table of what they cost.

use std::net::TcpStream;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::Result;
use crate::client::{Client, stat};
use crate::options::{Opt, Options, opt};
use crate::report::{Report, Table};
use crate::server::Server;
use crate::trial::Trial;

/// Options beside the common ones.
pub const OPTIONS: &[Opt] = &[
    opt("connections", "N", "10000", "idle connections"),
    opt("connections-max", "N", "12000", "-c of the servers"),
];

/// Descriptors of the bench itself.
const DESCRIPTORS_SPARE: u64 = 64;
/// Memory is read when it has held still for this long.
const SETTLE: std::time::Duration = std::time::Duration::from_secs(2);

/// Measures each server and writes the report.
pub fn run(options: &Options) -> Result<()> {
    let connections: usize = options.get("connections")?;
    let trial = Trial::new(options, "idle", options.get("connections-max")?)?;
    raise_descriptors(connections as u64 + DESCRIPTORS_SPARE)?;
    let mut table = Table::new(&["server", "bytes per connection", "RSS before", "RSS after"]);
    let mut versions = Vec::new();
    for spec in &trial.servers {
        let server = Server::start(spec, &trial.flags)?;
        let (before, after) = measure(&server, connections)?;
        versions.push((server.name.clone(), server.version.clone()));
        let per_connection = (after as f64 - before as f64) / connections as f64;
        table.push(vec![
            spec.name.clone(),
            format!("{per_connection:.0}"),
            before.to_string(),
            after.to_string(),
        ]);
    }
    let mut report = Report::new(&format!("Memory of {connections} idle connections"), &versions);
    report.paragraph(
        "Growth of the server's resident memory (bytes), divided by the number of connections. \
         Each connection asked for the version once and is idle since.",
    );
    report.table(&table);
    report.save(&trial.out, &trial.name)
}

/// Resident bytes before and after opening the connections.
fn measure(server: &Server, connections: usize) -> Result<(u64, u64)> {
    let mut watcher = Client::connect(server.address)?;
    watcher.version()?;
    std::thread::sleep(SETTLE);
    let before = server.resident_bytes()?;
    let mut idle: Vec<TcpStream> = Vec::with_capacity(connections);
    for index in 0..connections {
        let mut client = Client::connect(server.address)?;
        client.version().map_err(|e| format!("{}, connection {index}: {e}", server.name))?;
        idle.push(client.into_stream());
    }
    std::thread::sleep(SETTLE);
    let open = stat(&watcher.stats()?, "curr_connections")?;
    if open <= connections as u64 {
        return Err(format!("{} holds {open} connections only", server.name).into());
    }
    let after = server.resident_bytes()?;
    drop(idle);
    Ok((before, after))
}

/// Raises the soft limit on open files, which the servers inherit, as far as needed.
fn raise_descriptors(needed: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if needed > hard {
        return Err(format!("{needed} open files are needed, the limit is {hard}").into());
    }
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(())
}
