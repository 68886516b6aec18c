//! A working set that fits, overwritten and changed for a long time: does all of it stay? Owns the
//! kinds of change and the table. distcached's store in this process, in virtual time.
//!
//! The working set is as many keys as make up `--live` percent of the memory, counted as key, value
//! and 24 bytes. All of them are stored once; then, `--rounds` times as often as there are
//! keys, one is chosen evenly and got, and another one is changed. A miss is counted, and the key
//! stored again.

use std::sync::Arc;

use distcache::store::budget::Budget;

use crate::Result;
use crate::embedded::Embedded;
use crate::options::{Opt, Options, opt};
use crate::population::Population;
use crate::random::{Random, mix};
use crate::replay::used_by_thread;
use crate::report::{Report, Table};

/// The options.
pub const OPTIONS: &[Opt] = &[
    opt("memory", "MIB", "64", "memory of the cache"),
    opt("shards", "N", "16", "shards that share the memory"),
    opt("value-size", "LIST", "100,1000,4000", "sizes of values in bytes"),
    opt("live", "LIST", "40,80,85,90", "what the working set takes of the memory, in percent"),
    opt("changes", "LIST", "set,resize,touch,mix", "kinds of change"),
    opt("rounds", "N", "10", "changes for each key"),
    opt("out", "DIR", "bench/results", "where the table goes"),
    opt("name", "NAME", "", "file name of the table; only shown if not given"),
];

const MIB: u64 = 1 << 20;
/// Length of a key.
pub const KEY_BYTES: usize = 24;
/// What an item is taken to cost beside its key and value.
pub const ITEM_BYTES: u64 = 24;
/// Requests in a hundredth of a second of virtual time.
const REQUESTS_PER_TICK: u64 = 1_000;
/// Nothing expires while it is measured.
pub const LIFETIME_SECONDS: u32 = 1_000_000;

/// What is done to keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Stores a value of the same size.
    Set,
    /// Stores a value of another size: half to one and a half times the mean.
    Resize,
    /// Gives it another lifetime.
    Touch,
    /// Each of these, appends, and deletes that are followed by a set.
    Mix,
}

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Another lifetime.
    Touch,
    /// A byte more.
    Append,
    /// A delete, followed by a set.
    Delete,
    /// A set of another size.
    Resize,
    /// A set of the usual size.
    Set,
}

impl Change {
    /// The next change.
    pub fn kind(self, random: &mut Random) -> Kind {
        match self {
            Self::Set => Kind::Set,
            Self::Resize => Kind::Resize,
            Self::Touch => Kind::Touch,
            Self::Mix => match random.below(8) {
                0..2 => Kind::Touch,
                2 => Kind::Append,
                3 => Kind::Delete,
                4..6 => Kind::Resize,
                _ => Kind::Set,
            },
        }
    }

    /// The size that a key has at first, and stays with unless sizes change.
    pub fn usual_bytes(self, value_bytes: usize, id: u64) -> usize {
        match self {
            Self::Set | Self::Touch => value_bytes,
            Self::Resize | Self::Mix => spread(value_bytes, mix(id)),
        }
    }
}

impl std::str::FromStr for Change {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "set" => Ok(Self::Set),
            "resize" => Ok(Self::Resize),
            "touch" => Ok(Self::Touch),
            "mix" => Ok(Self::Mix),
            _ => Err(format!("no change \"{text}\": say set, resize, touch or mix")),
        }
    }
}

/// Runs each case and shows what stayed.
pub fn run(options: &Options) -> Result<()> {
    let memory_bytes = options.get::<u64>("memory")? * MIB;
    let (shards, rounds) = (options.get::<usize>("shards")?, options.get::<u64>("rounds")?);
    let mut table = Table::new(&[
        "values",
        "change",
        "live %",
        "keys",
        "evicted",
        "missed",
        "us a request",
        "moves a change",
        "live at the end",
    ]);
    for value_bytes in options.list::<usize>("value-size")? {
        for change in options.list::<Change>("changes")? {
            for live in options.list::<u64>("live")? {
                let budget = Budget::new(memory_bytes, shards);
                let mut churn = Churn::new(budget, value_bytes, change, live)?;
                churn.fill();
                let played = churn.play(rounds);
                let row = [
                    value_bytes.to_string(),
                    format!("{change:?}"),
                    live.to_string(),
                    churn.keys.to_string(),
                    churn.embedded.counted(|counters| counters.evictions).to_string(),
                    played.missed.to_string(),
                    format!("{:.3}", played.request_us),
                    format!("{:.3}", played.moves_per_change),
                    format!("{:.3}", churn.embedded.live_share()),
                ];
                eprintln!("{}", row.join("  "));
                table.push(row.to_vec());
            }
        }
    }
    let mut report = Report::new("A working set that fits, changed without pause", &[]);
    report.paragraph(&format!(
        "{} MiB, {shards} shards; {rounds} changes and as many gets for each key, chosen evenly.",
        memory_bytes / MIB
    ));
    report.table(&table);
    report.save_if_named(options)
}

struct Churn {
    embedded: Embedded,
    random: Random,
    change: Change,
    value_bytes: usize,
    keys: u64,
}

struct Played {
    missed: u64,
    request_us: f64,
    moves_per_change: f64,
}

impl Churn {
    fn new(budget: Arc<Budget>, value_bytes: usize, change: Change, live: u64) -> Result<Self> {
        let item_bytes = (KEY_BYTES + value_bytes) as u64 + ITEM_BYTES;
        let keys = budget.limit_bytes() / 100 * live / item_bytes;
        let population =
            Population::new(keys.max(1), KEY_BYTES.to_string().parse()?, "32".parse()?);
        let embedded = Embedded::new(budget, true, Arc::new(population?));
        Ok(Self { embedded, random: Random::new(1), change, value_bytes, keys: keys.max(1) })
    }

    fn fill(&mut self) {
        for id in 0..self.keys {
            self.set(id, self.usual_bytes(id));
        }
    }

    fn usual_bytes(&self, id: u64) -> usize {
        self.change.usual_bytes(self.value_bytes, id)
    }

    fn set(&mut self, id: u64, value_bytes: usize) {
        let key = match value_bytes < 4096 {
            true => self.embedded.prepare_sized(id, value_bytes),
            false => self.embedded.prepare_large(id, value_bytes),
        };
        assert!(self.embedded.set(key, LIFETIME_SECONDS), "a store that evicts has room");
    }

    fn play(&mut self, rounds: u64) -> Played {
        let moves = self.embedded.counted(|counters| counters.moves + counters.cleaned);
        let (mut missed, mut changes, used) = (0, 0, used_by_thread());
        let requests = self.keys * rounds * 2;
        for request in 0..requests {
            if request % REQUESTS_PER_TICK == 0 {
                self.embedded.now.0 += 1;
                if self.embedded.is_maintenance_due() {
                    self.embedded.maintain();
                }
            }
            let id = self.random.below(self.keys);
            let is_there = match request % 2 {
                0 => {
                    let key = self.embedded.prepare(id);
                    self.embedded.get(key)
                }
                _ => {
                    changes += 1;
                    self.change(id)
                }
            };
            if !is_there {
                missed += 1;
                self.set(id, self.usual_bytes(id));
            }
        }
        let used_us = (used_by_thread() - used).as_secs_f64() * 1e6;
        let moves = self.embedded.counted(|counters| counters.moves + counters.cleaned) - moves;
        Played {
            missed,
            request_us: used_us / requests as f64,
            moves_per_change: moves as f64 / f64::from(changes),
        }
    }

    /// One change; answers whether the key was there, as far as the change tells.
    fn change(&mut self, id: u64) -> bool {
        let kind = self.change.kind(&mut self.random);
        let seconds = LIFETIME_SECONDS + self.random.below(100) as u32;
        match kind {
            Kind::Touch => {
                let key = self.embedded.prepare(id);
                return self.embedded.touch(key, seconds);
            }
            Kind::Append => {
                // What is appended goes with the next set.
                let key = self.embedded.prepare(id);
                return self.embedded.append(key, 1);
            }
            Kind::Delete => {
                let key = self.embedded.prepare(id);
                self.embedded.delete(key);
                self.set(id, self.usual_bytes(id));
            }
            Kind::Resize => {
                let bits = self.random.bits();
                self.set(id, spread(self.value_bytes, bits));
            }
            Kind::Set => self.set(id, self.usual_bytes(id)),
        }
        true
    }
}

/// Half to one and a half times as much, evenly.
pub fn spread(bytes: usize, bits: u64) -> usize {
    bytes / 2 + crate::random::scale(bits, bytes as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_change_is_met() {
        for change in [Change::Set, Change::Resize, Change::Touch, Change::Mix] {
            let mut churn = Churn::new(Budget::new(4 << 20, 2), 100, change, 50).unwrap();
            churn.fill();
            let played = churn.play(2);
            assert_eq!((played.missed, churn.embedded.items() as u64), (0, churn.keys));
        }
    }
}
