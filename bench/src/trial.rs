//! What all comparisons of servers have in common. Owns the options for it and the order in which
//! servers take turns; knows nothing of what is measured.

use std::path::PathBuf;
use std::time::Duration;

use crate::Result;
use crate::options::{Opt, Options, opt};
use crate::server::{Flags, ServerSpec};

/// The options of every subcommand that starts servers.
pub const OPTIONS: &[Opt] = &[
    opt("server", "NAME=PROGRAM", "", "a server with its own flags if any; first is the reference"),
    opt("workers", "N", "1", "-t of the servers"),
    opt("memory", "MIB", "1024", "-m of the servers"),
    opt("server-cores", "LIST", "", "pin the servers (taskset -c)"),
    opt("load-cores", "LIST", "", "pin the load threads, one core each"),
    opt("rounds", "N", "9", "rounds, in each of which every server takes its turn"),
    opt("seconds", "S", "0.7", "length of one measurement"),
    opt("seed", "N", "1", "seed of the request streams"),
    opt("out", "DIR", "bench/results", "where the tables go"),
    opt("name", "NAME", "", "file name of the tables, if not the subcommand's"),
];

/// The servers to compare, and how.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The first is what the others are divided by.
    pub servers: Vec<ServerSpec>,
    /// Flags of all of them.
    pub flags: Flags,
    /// Cores for the load threads.
    pub load_cores: Vec<usize>,
    /// How often each server is measured.
    pub rounds: usize,
    /// For how long each time.
    pub time: Duration,
    /// Seed of the streams.
    pub seed: u64,
    /// Directory for the results.
    pub out: PathBuf,
    /// File name of the results without its extension.
    pub name: String,
}

impl Trial {
    /// Reads the common options.
    pub fn new(options: &Options, name: &str, connections_max: usize) -> Result<Self> {
        let servers = options.all("server").iter().map(|text| text.parse());
        let servers: Vec<ServerSpec> = servers.collect::<std::result::Result<_, _>>()?;
        if servers.is_empty() {
            return Err("name at least one server: --server NAME=PROGRAM".into());
        }
        let given_name = options.text("name");
        Ok(Self {
            servers,
            flags: Flags {
                workers: options.get("workers")?,
                memory_mib: options.get("memory")?,
                connections_max,
                cores: options.text("server-cores").to_owned(),
            },
            load_cores: options.list("load-cores")?,
            rounds: options.get::<usize>("rounds")?.max(1),
            time: Duration::try_from_secs_f64(options.get("seconds")?)?,
            seed: options.get("seed")?,
            out: options.get("out")?,
            name: if given_name.is_empty() { name } else { given_name }.to_owned(),
        })
    }
}
