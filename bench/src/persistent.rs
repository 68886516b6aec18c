//! What the comparisons of durability have in common. Owns their options, the servers with their
//! flags for keeping data, and the data directories, which end with the run; measures nothing.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::options::{Opt, Options, opt};
use crate::server::{Flags, ServerSpec};
use crate::wire::Protocol;
use crate::{Result, cleanup, median};

/// The options of every comparison of durability; `workers` is each one's own.
pub const OPTIONS: &[Opt] = &[
    opt("server", "NAME=PROGRAM", "", "distcached with its own flags if any; may be repeated"),
    opt("redis", "PROGRAM", "redis-server", "Redis beside it; none: leave it out"),
    opt("data", "DIR", "", "where data directories are made; the system's for temporary files"),
    opt("memory", "MIB", "2048", "-m of distcached"),
    opt("server-cores", "LIST", "", "pin the servers (taskset -c)"),
    opt("load-cores", "LIST", "", "pin the load thread"),
    opt("rounds", "N", "5", "rounds, in each of which every server takes its turn"),
    opt("seed", "N", "1", "seed of the request streams"),
    opt("out", "DIR", "bench/results", "where the tables go"),
    opt("name", "NAME", "", "file name of the tables, if not the subcommand's"),
];

const SERVER_DEFAULT: &str = "distcached=target/release/distcached";
const CONNECTIONS_MAX: usize = 1024;
const SYNCS: usize = 200;

/// What a run needs beside what it measures.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Each distcached, then Redis unless it is left out.
    pub servers: Vec<ServerSpec>,
    /// Parent of the data directories.
    pub data: PathBuf,
    /// Flags of the servers, with one worker.
    pub flags: Flags,
    /// Cores for the load thread.
    pub load_cores: Vec<usize>,
    /// How often each server is measured.
    pub rounds: usize,
    /// Seed of the streams.
    pub seed: u64,
    /// Directory for the results.
    pub out: PathBuf,
    /// File name of the results without its extension.
    pub name: String,
}

impl Setup {
    /// Reads the common options.
    pub fn new(options: &Options, name: &str) -> Result<Self> {
        let mut servers = Vec::new();
        for text in options.all("server") {
            servers.push(text.parse::<ServerSpec>()?);
        }
        if servers.is_empty() {
            servers.push(SERVER_DEFAULT.parse()?);
        }
        match options.text("redis") {
            "none" => {}
            program => servers.push(ServerSpec::redis(program)),
        }
        let data = match options.text("data") {
            "" => std::env::temp_dir(),
            given => PathBuf::from(given),
        };
        let given_name = options.text("name");
        Ok(Self {
            servers,
            data,
            flags: Flags {
                workers: 1,
                memory_mib: options.get("memory")?,
                connections_max: CONNECTIONS_MAX,
                cores: options.text("server-cores").to_owned(),
            },
            load_cores: options.list("load-cores")?,
            rounds: options.get::<usize>("rounds")?.max(1),
            seed: options.get("seed")?,
            out: options.get("out")?,
            name: if given_name.is_empty() { name } else { given_name }.to_owned(),
        })
    }
}

/// When a server hands its log to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// When the kernel likes.
    No,
    /// Once a second.
    EverySecond,
    /// Before each reply.
    Always,
}

impl Fsync {
    /// The word for it in options of both servers.
    pub fn word(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::EverySecond => "everysec",
            Self::Always => "always",
        }
    }
}

impl std::str::FromStr for Fsync {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let all = [Self::No, Self::EverySecond, Self::Always];
        let found = all.into_iter().find(|fsync| fsync.word() == text);
        found.ok_or_else(|| format!("fsync \"{text}\": say no, everysec or always"))
    }
}

/// The server with a log in `directory`, and snapshots only when asked for.
pub fn with_log(spec: &ServerSpec, directory: &Path, fsync: Fsync) -> ServerSpec {
    let directory = directory.to_string_lossy();
    match spec.protocol {
        Protocol::Text => spec
            .with(["--data-dir", &directory, "--fsync", fsync.word()])
            .with(["--snapshot-interval", "0"]),
        Protocol::Resp => spec
            .with(["--dir", &directory, "--appendonly", "yes", "--appendfsync", fsync.word()])
            .with(["--auto-aof-rewrite-percentage", "0"]),
    }
}

/// The server with a snapshot at its end, and alone where it can do without a log: Redis.
pub fn with_snapshots(spec: &ServerSpec, directory: &Path, fsync: Fsync) -> ServerSpec {
    match spec.protocol {
        Protocol::Text => with_log(spec, directory, fsync).with(["--snapshot-on-exit"]),
        Protocol::Resp => spec.with(["--dir", &directory.to_string_lossy(), "--appendonly", "no"]),
    }
}

/// An empty directory, removed when dropped.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
}

impl DataDirectory {
    /// A new directory under `parent`.
    pub fn new(parent: &Path) -> Result<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("bench-data-{}-{number}", std::process::id()));
        fs::create_dir_all(parent).map_err(|e| format!("--data {}: {e}", parent.display()))?;
        fs::create_dir(&path).map_err(|e| format!("creating {}: {e}", path.display()))?;
        cleanup::add_directory(&path);
        Ok(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of all files in it.
    pub fn bytes(&self) -> Result<u64> {
        bytes_below(&self.path)
    }
}

impl Drop for DataDirectory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("{} is left over: {error}", self.path.display());
        }
        cleanup::forget_directory(&self.path);
    }
}

fn bytes_below(directory: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        sum += if metadata.is_dir() { bytes_below(&entry.path())? } else { metadata.len() };
    }
    Ok(sum)
}

/// What the device needs for an fdatasync after a small append: median and highest of some.
pub fn sync_time(parent: &Path) -> Result<(Duration, Duration)> {
    let directory = DataDirectory::new(parent)?;
    let mut file = File::create(directory.path().join("probe"))?;
    let mut seconds = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        file.write_all(&[0; 100])?;
        let begin = Instant::now();
        file.sync_data()?;
        seconds.push(begin.elapsed().as_secs_f64());
    }
    let highest = seconds.iter().copied().fold(0.0, f64::max);
    Ok((Duration::from_secs_f64(median(seconds)), Duration::from_secs_f64(highest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_counted_and_removed() {
        let directory = DataDirectory::new(&std::env::temp_dir()).unwrap();
        let path = directory.path().to_owned();
        fs::write(path.join("a"), [0; 10]).unwrap();
        fs::create_dir(path.join("sub")).unwrap();
        fs::write(path.join("sub/b"), [0; 7]).unwrap();
        assert_eq!(directory.bytes().unwrap(), 17);
        let other = DataDirectory::new(&std::env::temp_dir()).unwrap();
        assert_ne!(other.path(), path);
        drop(directory);
        assert!(!path.exists());
    }

    #[test]
    fn fsync_words() {
        for fsync in [Fsync::No, Fsync::EverySecond, Fsync::Always] {
            assert_eq!(fsync.word().parse(), Ok(fsync));
        }
        assert!("never".parse::<Fsync>().is_err());
    }

    #[test]
    fn a_server_is_told_where_and_when() {
        let ours: ServerSpec = "d=prog".parse().unwrap();
        let log = with_log(&ours, Path::new("/d"), Fsync::Always);
        assert_eq!(
            log,
            "d=prog --data-dir /d --fsync always --snapshot-interval 0".parse().unwrap()
        );
        let with_end = log.with(["--snapshot-on-exit"]);
        assert_eq!(with_snapshots(&ours, Path::new("/d"), Fsync::Always), with_end);
        let redis = ServerSpec::redis("r");
        assert_eq!(
            with_log(&redis, Path::new("/d"), Fsync::No),
            redis.with(
                "--dir /d --appendonly yes --appendfsync no --auto-aof-rewrite-percentage 0"
                    .split(' ')
            )
        );
        let snapshots = with_snapshots(&redis, Path::new("/d"), Fsync::No);
        assert_eq!(snapshots, redis.with("--dir /d --appendonly no".split(' ')));
    }
}
