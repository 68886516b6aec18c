//! A working set that fits, changed without pause, on servers: does all of it stay, what does that
//! cost, and how much memory does it take? Owns the requests and the table; `churn` does the same
//! to distcached's store in this process.
//!
//! Each connection has a part of the keys of its own and sends batches: a get of one key and a
//! change of another, by turns, both chosen evenly. All connections have a batch under way at a
//! time. What is missing is counted and stored again with the next batch. Meta commands, so that
//! every answer is one short line.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use crate::Result;
use crate::churn::{Change, ITEM_BYTES, KEY_BYTES, Kind, LIFETIME_SECONDS, spread};
use crate::client::{Client, stat};
use crate::options::{Opt, Options, opt};
use crate::random::Random;
use crate::report::{Report, Table};
use crate::server::{Flags, Server};
use crate::trial::Trial;

/// Options beside the common ones.
pub const OPTIONS: &[Opt] = &[
    opt("value-size", "LIST", "100,1000,10000,100000", "sizes of values in bytes"),
    opt("live", "LIST", "40,80,85", "what the working set takes of the memory, in percent"),
    opt("changes", "LIST", "set,mix", "kinds of change: set, resize, touch, mix"),
    opt("threads", "LIST", "1,2,8", "numbers of threads (-t)"),
    opt("times", "N", "10", "changes for each key"),
];

const CONNECTIONS: u64 = 8;
const CONNECTIONS_MAX: usize = 64;
/// A batch ends with so many requests, or with so many bytes.
const BATCH_REQUESTS_MAX: usize = 32;
const BATCH_BYTES_MAX: usize = 256 << 10;
const MIB: u64 = 1 << 20;

/// A working set and what is done to it.
#[derive(Clone, Copy)]
struct Case {
    change: Change,
    value_bytes: usize,
    live: u64,
    /// Keys of each connection.
    keys: u64,
    /// Changes, and as many gets, for each key.
    times: u64,
}

/// What became of it.
#[derive(Default)]
struct Played {
    requests: u64,
    missed: u64,
    refused: u64,
    cpu_us: f64,
}

/// Plays each case to each server with each number of threads.
pub fn run(options: &Options) -> Result<()> {
    let trial = Trial::new(options, "working-set", CONNECTIONS_MAX)?;
    let memory_bytes = trial.flags.memory_mib * MIB;
    let mut table = Table::new(&[
        "values",
        "change",
        "live %",
        "-t",
        "server",
        "evicted",
        "missed",
        "refused",
        "CPU us/op",
        "ratio",
        "bytes %",
        "RSS %",
    ]);
    let mut versions = Vec::new();
    for value_bytes in options.list::<usize>("value-size")? {
        let item_bytes = (KEY_BYTES + value_bytes) as u64 + ITEM_BYTES;
        for change in options.list::<Change>("changes")? {
            for live in options.list::<u64>("live")? {
                let keys = (memory_bytes / 100 * live / item_bytes / CONNECTIONS).max(1);
                let times = options.get("times")?;
                let case = Case { change, value_bytes, live, keys, times };
                for workers in options.list::<usize>("threads")? {
                    let flags = Flags { workers, ..trial.flags.clone() };
                    versions = measure(&trial, &flags, case, &mut table)?;
                }
            }
        }
    }
    let title =
        format!("A working set that fits, changed without pause, -m {}", memory_bytes / MIB);
    let mut report = Report::new(&title, &versions);
    report.paragraph(
        "A get of one key and a change of another by turns, both chosen evenly. Live is keys, \
         values and 24 bytes an item, as a share of -m. CPU is that of the server process for each \
         request, beside it its ratio to the first server's. Bytes are the statistic `bytes`, RSS \
         is the peak, as shares of -m.",
    );
    report.table(&table);
    report.save(&trial.out, &trial.name)
}

/// One row for each server. Answers their versions.
fn measure(
    trial: &Trial,
    flags: &Flags,
    case: Case,
    table: &mut Table,
) -> Result<Vec<(String, String)>> {
    let (mut versions, mut first_cpu_us) = (Vec::new(), None);
    let limit_bytes = flags.memory_mib * MIB;
    for spec in &trial.servers {
        let server = Server::start(spec, flags)?;
        let played = Player::connect(&server, case, trial.seed)?.play(&server)?;
        let stats = Client::connect(server.address)?.stats()?;
        let percent = |bytes: u64| format!("{:.1}", bytes as f64 * 100.0 / limit_bytes as f64);
        let first_cpu_us = *first_cpu_us.get_or_insert(played.cpu_us);
        let row = vec![
            case.value_bytes.to_string(),
            format!("{:?}", case.change),
            case.live.to_string(),
            flags.workers.to_string(),
            spec.name.clone(),
            stat(&stats, "evictions")?.to_string(),
            played.missed.to_string(),
            played.refused.to_string(),
            format!("{:.2}", played.cpu_us),
            format!("{:.2}", played.cpu_us / first_cpu_us),
            percent(stat(&stats, "bytes")?),
            percent(server.resident_bytes_peak()?),
        ];
        eprintln!("{}", row.join("  "));
        table.push(row);
        versions.push((server.name.clone(), server.version.clone()));
    }
    Ok(versions)
}

/// What a request was, for its answer.
#[derive(Clone, Copy)]
enum Asked {
    /// Something that needs the key to be there.
    Needs(u64),
    /// Something that does not.
    Stores,
}

/// One connection with its part of the keys.
struct Player {
    reader: BufReader<TcpStream>,
    number: u64,
    random: Random,
    batch: Vec<u8>,
    asked: Vec<Asked>,
    /// Keys that were missing.
    missing: Vec<u64>,
}

/// All of them.
struct Players {
    players: Vec<Player>,
    case: Case,
    value: Vec<u8>,
}

impl Player {
    fn connect(server: &Server, case: Case, seed: u64) -> Result<Players> {
        let player = |number| -> Result<Self> {
            let stream = Client::connect(server.address)?.into_stream();
            Ok(Self {
                reader: BufReader::new(stream),
                number,
                random: Random::new(seed + number),
                batch: Vec::new(),
                asked: Vec::new(),
                missing: Vec::new(),
            })
        };
        let players = (0..CONNECTIONS).map(player).collect::<Result<_>>()?;
        Ok(Players { players, case, value: vec![b'v'; case.value_bytes * 2] })
    }

    fn has_room(&self) -> bool {
        self.asked.len() < BATCH_REQUESTS_MAX && self.batch.len() < BATCH_BYTES_MAX
    }

    fn push(&mut self, asked: Asked, verb: &str, id: u64, rest: &str, value: Option<&[u8]>) {
        let key_bytes = KEY_BYTES - 2;
        let head = format!("{verb} {:01}-{id:0key_bytes$} {rest}\r\n", self.number);
        self.batch.extend_from_slice(head.as_bytes());
        if let Some(value) = value {
            self.batch.extend_from_slice(value);
            self.batch.extend_from_slice(b"\r\n");
        }
        self.asked.push(asked);
    }

    fn set(&mut self, id: u64, value: &[u8]) {
        let rest = format!("{} T{LIFETIME_SECONDS}", value.len());
        self.push(Asked::Stores, "ms", id, &rest, Some(value));
    }

    fn send(&mut self) -> Result<()> {
        self.reader.get_mut().write_all(&self.batch)?;
        self.batch.clear();
        Ok(())
    }

    fn receive(&mut self, played: &mut Played) -> Result<()> {
        let mut line = String::new();
        for asked in self.asked.drain(..) {
            line.clear();
            self.reader.read_line(&mut line)?;
            played.requests += 1;
            match (line.trim_end(), asked) {
                ("HD", _) | ("NF", Asked::Stores) => {}
                ("EN" | "NF" | "NS", Asked::Needs(id)) => {
                    played.missed += 1;
                    self.missing.push(id);
                }
                (answer, _) if answer.starts_with("SERVER_ERROR") => played.refused += 1,
                (answer, _) => return Err(format!("an answer was \"{answer}\"").into()),
            }
        }
        Ok(())
    }
}

impl Players {
    /// Stores all keys, then changes them.
    fn play(mut self, server: &Server) -> Result<Played> {
        let mut filled = Played::default();
        let mut next = 0;
        while next < self.case.keys {
            let from = next;
            for player in &mut self.players {
                next = from;
                while next < self.case.keys && player.has_room() {
                    let value = &self.value[..self.case.usual_bytes(next)];
                    player.set(next, value);
                    next += 1;
                }
            }
            self.exchange(&mut filled)?;
        }
        let mut played = Played { refused: filled.refused, ..Played::default() };
        let cpu_ns = server.process_cpu_ns()?;
        while played.requests < self.case.keys * CONNECTIONS * self.case.times * 2 {
            let Self { players, case, value } = &mut self;
            players.iter_mut().for_each(|player| player.fill_batch(*case, value));
            self.exchange(&mut played)?;
        }
        let used_us = (server.process_cpu_ns()? - cpu_ns) as f64 / 1e3;
        played.cpu_us = used_us / played.requests as f64;
        Ok(played)
    }

    fn exchange(&mut self, played: &mut Played) -> Result<()> {
        self.players.iter_mut().try_for_each(Player::send)?;
        self.players.iter_mut().try_for_each(|player| player.receive(played))
    }
}

impl Case {
    /// The size that a key has at first, and stays with unless sizes change.
    fn usual_bytes(&self, id: u64) -> usize {
        self.change.usual_bytes(self.value_bytes, id)
    }
}

impl Player {
    fn fill_batch(&mut self, case: Case, value: &[u8]) {
        for id in std::mem::take(&mut self.missing) {
            self.set(id, &value[..case.usual_bytes(id)]);
        }
        while self.has_room() {
            let id = self.random.below(case.keys);
            self.push(Asked::Needs(id), "mg", id, "", None);
            self.push_change(case, value);
        }
    }

    fn push_change(&mut self, case: Case, value: &[u8]) {
        let id = self.random.below(case.keys);
        let usual = &value[..case.usual_bytes(id)];
        match case.change.kind(&mut self.random) {
            Kind::Touch => {
                let seconds = u64::from(LIFETIME_SECONDS) + self.random.below(100);
                self.push(Asked::Needs(id), "mg", id, &format!("T{seconds}"), None);
            }
            Kind::Append => {
                self.push(Asked::Needs(id), "ms", id, "1 MA", Some(b"v"));
            }
            Kind::Delete => {
                self.push(Asked::Stores, "md", id, "", None);
                self.set(id, usual);
            }
            Kind::Resize => {
                let bytes = spread(case.value_bytes, self.random.bits());
                self.set(id, &value[..bytes]);
            }
            Kind::Set => self.set(id, usual),
        }
    }
}

/// Keys of all connections have the same length.
const _: () = assert!(CONNECTIONS <= 10 && KEY_BYTES > 2);
