//! The command line that all rigs share. Owns the names of the options, their defaults and the
//! help; no rig reads the arguments itself.

use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};

use crate::Result;
use crate::server::Policy;

pub(crate) const HELP: &str = "\
Options of every rig (a rig ignores those that it has no use for):
  --server PATH      the server; a name with \"redis\" in it is driven as Redis [distcached]
  --beside PATH      run this server as well, with the same loads
  --without-data-dir start distcached without its durability flags: the rig must then fail
  --arg WORD         one more argument for the server; may be repeated
  --policy LIST      of always,everysec,no [everysec]
  --rounds N         rounds, for each policy [20]
  --seconds S        length of a run, for rigs that have one [20]
  --seed N           of the schedules [1]
  --clients N        writers [4]
  --keys N           keys of each writer [400]
  --items N          snapshot-cut: items of all writers together [200000]
  --threads N        -t of the server [2]
  --memory MB        -m of the server [256]
  --snapshot S       --snapshot-interval of the server [60]
  --work DIR         where directories and images are made [a temporary folder]
  --at-call CALL:K   kill: at the K-th call, e.g. fdatasync:3; K may be A..B
  --power            snapshot-cut: cut the power instead of killing
  --calls LIST       calls: system calls to fail, counted from a start on nothing;
                     \"start:\" before one: from a start on existing data,
                     \"load:\": from the beginning of the load [all that matter]
  --errors LIST      calls: errors to return [EIO,ENOSPC,EINTR,EDQUOT]
  --k LIST           calls: which call of its kind [1,2,3,5,8,13,21]
  --delay-ms LIST    slow: delays of each sync [300,5000]
  --kill-every S     soak: between kills [30]
  --verbose          say more on standard error
";

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    pub server: PathBuf,
    pub beside: Option<PathBuf>,
    pub without_data_dir: bool,
    pub arguments: Vec<String>,
    pub policies: Vec<Policy>,
    pub rounds: u32,
    pub seconds: u64,
    pub seed: u64,
    pub clients: usize,
    pub keys: usize,
    pub items: usize,
    pub threads: usize,
    pub memory_mb: u64,
    pub snapshot_s: u64,
    pub work: PathBuf,
    pub at_call: Option<String>,
    pub power: bool,
    pub calls: Vec<String>,
    pub errors: Vec<String>,
    pub k: Vec<u32>,
    pub delays: Vec<Duration>,
    pub kill_every: Duration,
    pub verbose: bool,
}

impl Default for Options {
    fn default() -> Self {
        let words = |list: &str| list.split(',').map(str::to_owned).collect();
        Self {
            server: PathBuf::from("distcached"),
            beside: None,
            without_data_dir: false,
            arguments: Vec::new(),
            policies: vec![Policy::Everysec],
            rounds: 20,
            seconds: 20,
            seed: 1,
            clients: 4,
            keys: 400,
            items: 200_000,
            threads: 2,
            memory_mb: 256,
            snapshot_s: 60,
            work: std::env::temp_dir(),
            at_call: None,
            power: false,
            calls: words(
                "write,pwrite64,writev,pwritev,pwritev2,fdatasync,fsync,openat,rename,renameat,\
                 renameat2,ftruncate,fallocate,close,start:openat,start:read,start:pread64,\
                 load:write,load:pwrite64,load:writev,load:fdatasync,load:fsync,load:openat,\
                 load:rename,load:ftruncate",
            ),
            errors: words("EIO,ENOSPC,EINTR,EDQUOT"),
            k: vec![1, 2, 3, 5, 8, 13, 21],
            delays: vec![Duration::from_millis(300), Duration::from_secs(5)],
            kill_every: Duration::from_secs(30),
            verbose: false,
        }
    }
}

impl Options {
    /// Reads the rest of the command line.
    pub fn parse(parser: &mut Parser) -> Result<Self> {
        let mut options = Self::default();
        while let Some(argument) = parser.next()? {
            let Arg::Long(name) = argument else { return Err(argument.unexpected().into()) };
            let name = name.to_owned();
            match name.as_str() {
                "without-data-dir" => options.without_data_dir = true,
                "power" => options.power = true,
                "verbose" => options.verbose = true,
                _ => {
                    let value = parser.value()?.string()?;
                    options.take(&name, &value).map_err(|e| format!("--{name} {value}: {e}"))?;
                }
            }
        }
        Ok(options)
    }

    fn take(&mut self, name: &str, value: &str) -> Result<()> {
        let words = || value.split(',').map(str::to_owned);
        match name {
            "server" => self.server = value.into(),
            "beside" => self.beside = Some(value.into()),
            "arg" => self.arguments.push(value.to_owned()),
            "policy" => self.policies = words().map(|w| w.parse()).collect::<Result<_>>()?,
            "rounds" => self.rounds = value.parse()?,
            "seconds" => self.seconds = value.parse()?,
            "seed" => self.seed = value.parse()?,
            "clients" => self.clients = value.parse()?,
            "keys" => self.keys = value.parse()?,
            "items" => self.items = value.parse()?,
            "threads" => self.threads = value.parse()?,
            "memory" => self.memory_mb = value.parse()?,
            "snapshot" => self.snapshot_s = value.parse()?,
            "work" => self.work = value.into(),
            "at-call" => self.at_call = Some(value.to_owned()),
            "calls" => self.calls = words().collect(),
            "errors" => self.errors = words().collect(),
            "k" => self.k = words().map(|w| Ok(w.parse()?)).collect::<Result<_>>()?,
            "delay-ms" => {
                let delay = |w: String| Ok(Duration::from_millis(w.parse()?));
                self.delays = words().map(delay).collect::<Result<_>>()?;
            }
            "kill-every" => self.kill_every = Duration::from_secs(value.parse()?),
            _ => return Err("no such option; see --help".into()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_and_mistakes() {
        let parse = |words: &[&str]| Options::parse(&mut Parser::from_args(words.iter()));
        let options = parse(&["--policy", "always,no", "--rounds=3", "--k", "1,4"]).unwrap();
        assert_eq!(options.policies, [Policy::Always, Policy::No]);
        assert_eq!((options.rounds, options.k), (3, vec![1, 4]));
        for words in [&["--policy", "often"][..], &["--rounds", "x"], &["--what", "1"], &["x"]] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }
}
