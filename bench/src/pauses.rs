//! How long single calls of the store take. Owns the load, the clocks around each call, and the
//! table; the store runs in this process, without sockets.
//!
//! Each call is timed by the wall clock. A call that was interrupted by another process is long by
//! that only; a pause of the store's own takes as much CPU time of this thread. (What the kernel
//! does for the thread, such as clearing new memory, counts as its CPU time, and so do interrupts,
//! and time stolen from a virtual machine that does not notice.)
//!
//! Reading a thread's CPU time costs more than most calls take, so it is read once in a few calls,
//! and after every call of a suspicious length. The CPU time of such a call may thus be too long
//! by that of a few ordinary ones before it; short calls count with their wall time.
//!
//! The load of one store, in order; every phase also has gets, deletes, touches, expiring items
//! and, now and then, a value large enough for a segment of its own:
//!
//! ```text
//! fill     new keys until the limit: the index grows
//! mix      new keys and keys stored again: eviction, compaction, the sweep
//! shrink   the limit is halved, and later restored: eviction of several segments at a time
//! flush    everything is dropped, and freed while new keys come
//! ```
//! The control is arithmetic without memory, every now and then: where that takes longer than a
//! millisecond too, it is the machine.
//!
//! With `--no-eviction`, new keys are refused from the second phase on, and nothing is halved.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use crate::Result;
use distcache::store::budget::Budget;

use crate::embedded::{Embedded, Prepared};
use crate::options::{Opt, Options, opt};
use crate::population::Population;
use crate::random::Random;
use crate::report::{Report, Table};

/// The options.
pub const OPTIONS: &[Opt] = &[
    opt("megabytes", "LIST", "64,1024,4096", "memory limits to try"),
    opt("values", "LIST", "32,mixed", "value sizes to try, as for load"),
    opt("written", "SHARE", "0.15", "bytes written in each phase after the first, by the limit"),
    opt("no-eviction", "", "", "refuse what does not fit instead of evicting (-M)"),
    opt("core", "N", "", "core to pin the thread to"),
    opt("out", "DIR", "bench/results", "where the table goes"),
    opt("name", "NAME", "pauses", "file name of the table"),
    opt("tell", "", "", "a line on standard error for each long call"),
];

/// Calls between two readings of the CPU time.
const CPU_READ_CALLS: u64 = 16;
/// The CPU time is read after calls longer than this.
const SUSPICIOUS: Duration = Duration::from_micros(20);
/// Longer calls are counted: more than this the store does not allow itself.
const LONG_NS: u64 = 1_000_000;
/// Calls in a hundredth of a second of virtual time.
const CALLS_PER_TICK: u64 = 2_000;
/// Calls in a turn of a worker.
const CALLS_PER_TURN: u64 = 64;
/// Turns between two measurements of the machine alone.
const TURNS_PER_CONTROL: u64 = 16;
/// Steps of the control: about a tenth of a millisecond.
const CONTROL_STEPS: u64 = 100_000;
const LARGE_VALUE_BYTES: usize = 200_000;
/// One set in so many is of a large value.
const LARGE_ONE_IN: u64 = 5_000;
/// Refused sets after which a store that does not evict counts as full.
const REFUSED_MAX: u64 = 100;

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Get,
    Set,
    SetLarge,
    SetRefused,
    Delete,
    Touch,
    Flush,
    Limit,
    Maintain,
    Control,
}

const KINDS: [(Kind, &str); 10] = [
    (Kind::Get, "get"),
    (Kind::Set, "set"),
    (Kind::SetLarge, "set of 200 kB"),
    (Kind::SetRefused, "set, refused"),
    (Kind::Delete, "delete"),
    (Kind::Touch, "touch"),
    (Kind::Flush, "flush_all"),
    (Kind::Limit, "cache_memlimit"),
    (Kind::Maintain, "maintain"),
    (Kind::Control, "control"),
];

/// The times of one kind of call.
struct Times {
    wall_ns: Histogram<u64>,
    long_wall: u64,
    long_cpu: u64,
    /// Of those, calls in which the kernel had no page to give.
    long_own: u64,
    worst_cpu_ns: u64,
    worst_phase: &'static str,
    /// Page faults during that call.
    worst_faults: i64,
}

/// What one call took.
#[derive(Clone, Copy)]
struct Taken {
    wall: Duration,
    cpu: Duration,
    /// Page faults; not counted for short calls.
    faults: i64,
}

impl Times {
    fn new() -> Result<Self> {
        Ok(Self {
            wall_ns: Histogram::new_with_max(60_000_000_000, 3)?,
            long_wall: 0,
            long_cpu: 0,
            long_own: 0,
            worst_cpu_ns: 0,
            worst_phase: "",
            worst_faults: 0,
        })
    }

    fn record(&mut self, taken: Taken, phase: &'static str) {
        let (wall_ns, cpu_ns) = (taken.wall.as_nanos() as u64, taken.cpu.as_nanos() as u64);
        self.wall_ns.saturating_record(wall_ns);
        self.long_wall += u64::from(wall_ns > LONG_NS);
        self.long_cpu += u64::from(cpu_ns > LONG_NS);
        self.long_own += u64::from(cpu_ns > LONG_NS && taken.faults == 0);
        if cpu_ns > self.worst_cpu_ns {
            (self.worst_cpu_ns, self.worst_phase) = (cpu_ns, phase);
            self.worst_faults = taken.faults;
        }
    }
}

/// Measures each size and writes the report.
pub fn run(options: &Options) -> Result<()> {
    if let Some(core) = options.maybe::<usize>("core")? {
        let mut cores = CpuSet::new();
        cores.set(core)?;
        sched_setaffinity(Pid::from_raw(0), &cores)?;
    }
    let evict = !options.has("no-eviction");
    let mut table = Table::new(&[
        "store",
        "call",
        "calls",
        "p50 us",
        "p99",
        "p99.9",
        "p99.99",
        "max",
        "max CPU",
        ">1 ms",
        ">1 ms CPU",
        "no faults",
        "longest in",
        "its faults",
    ]);
    for megabytes in options.list::<u64>("megabytes")? {
        for sizes in options.list::<String>("values")? {
            let population = Population::new(4_000_000_000, "16".parse()?, sizes.parse()?)?;
            let embedded =
                Embedded::new(Budget::new(megabytes << 20, 1), evict, Arc::new(population));
            let mut bench = Bench::new(embedded, options.has("tell"))?;
            bench.run(options.get("written")?, evict);
            let name = format!("{megabytes} MiB, {sizes}{}", if evict { "" } else { ", -M" });
            eprintln!("{name}: {} items", bench.items_max);
            bench.rows(&name, &mut table);
        }
    }
    let mut report = Report::new("Time of single calls of the store", &[]);
    report.paragraph(
        "Microseconds. Wall clock, but for the columns that say CPU: the CPU time of the calling \
         thread, which leaves out the time in which something else ran; *no faults* counts those \
         of them in which the kernel gave the process no new pages. *longest in* is the phase of \
         the call with the largest CPU time, and *its faults* the pages given during it. Stores: \
         memory limit, and size of the values, whose keys are 16 bytes; mixed: 40 % 16 to 100 \
         bytes, 40 % 100 to 500, 20 % 500 to 2000.",
    );
    report.table(&table);
    report.save(&options.get::<PathBuf>("out")?, options.text("name"))
}

struct Bench {
    embedded: Embedded,
    times: Vec<Times>,
    /// CPU time and page faults of the thread when they were read last.
    used: (Duration, i64),
    random: Random,
    phase: &'static str,
    calls: u64,
    /// Ids below this were stored once.
    next_new: u64,
    written_bytes: u64,
    refused: u64,
    items_max: usize,
    /// Say each long call.
    tell: bool,
}

impl Bench {
    fn new(embedded: Embedded, tell: bool) -> Result<Self> {
        Ok(Self {
            embedded,
            times: KINDS.iter().map(|_| Times::new()).collect::<Result<_>>()?,
            used: used_by_thread(),
            random: Random::new(1),
            phase: "",
            calls: 0,
            next_new: 0,
            written_bytes: 0,
            refused: 0,
            items_max: 0,
            tell,
        })
    }

    fn run(&mut self, share: f64, evict: bool) {
        let limit = self.embedded.shards[0].store().memory_bytes_max();
        let written = (limit as f64 * share) as u64;
        self.phase = "fill";
        let is_filled = |bench: &Self| {
            bench.embedded.shards[0].store().counters().evictions > 0 || bench.refused > REFUSED_MAX
        };
        while !is_filled(self) {
            self.one_of(90);
        }
        self.items_max = self.embedded.shards[0].store().items();
        self.phase = "mix";
        self.load(written, 40);
        if evict {
            self.phase = "shrink";
            self.timed(Kind::Limit, |embedded| embedded.shards[0].set_memory_bytes_max(limit / 2));
            self.load(written, 40);
            self.timed(Kind::Limit, |embedded| embedded.shards[0].set_memory_bytes_max(limit));
            self.load(written, 90);
        }
        self.phase = "flush";
        self.timed(Kind::Flush, |embedded| embedded.shards[0].flush());
        self.load(written / 2, 40);
    }

    /// Calls until so many bytes were written, or enough was refused.
    fn load(&mut self, bytes: u64, new_percent: u64) {
        let until = self.written_bytes + bytes;
        self.refused = 0;
        while self.written_bytes < until && self.refused < 20 * REFUSED_MAX {
            self.one_of(new_percent);
        }
    }

    /// One call, and what a worker does beside it. Of the sets, `new_percent` are of new keys.
    fn one_of(&mut self, new_percent: u64) {
        self.calls += 1;
        if self.calls.is_multiple_of(CALLS_PER_TICK) {
            self.embedded.now.0 += 1;
        }
        if self.calls.is_multiple_of(CALLS_PER_TURN) && self.embedded.is_maintenance_due() {
            self.timed(Kind::Maintain, Embedded::maintain);
        }
        if self.calls.is_multiple_of(CALLS_PER_TURN * TURNS_PER_CONTROL) {
            self.timed(Kind::Control, |_| std::hint::black_box(arithmetic()));
        }
        match self.random.below(100) {
            0..70 => self.set(new_percent),
            70..75 => {
                let key = self.some_key();
                self.timed(Kind::Delete, |embedded| embedded.delete(key));
            }
            75..80 => {
                let (key, seconds) = (self.some_key(), self.random.below(60) as u32);
                self.timed(Kind::Touch, |embedded| embedded.touch(key, seconds));
            }
            _ => {
                let key = self.some_key();
                self.timed(Kind::Get, |embedded| embedded.get(key));
            }
        }
    }

    fn set(&mut self, new_percent: u64) {
        let is_new = self.random.below(100) < new_percent || self.next_new == 0;
        let id = if is_new { self.next_new } else { self.some_id() };
        self.next_new += u64::from(is_new);
        let is_large = self.random.below(LARGE_ONE_IN) == 0;
        let key = match is_large {
            true => self.embedded.prepare_large(id, LARGE_VALUE_BYTES),
            false => self.embedded.prepare_value(id),
        };
        self.written_bytes += self.embedded.content_bytes() as u64;
        // One in three expires, after 1 to 30 seconds.
        let seconds = Some(self.random.below(90) as u32 + 1).filter(|seconds| *seconds <= 30);
        let lifetime_seconds = seconds.unwrap_or(0);
        let (stored, taken) = self.measure(|embedded| embedded.set(key, lifetime_seconds));
        let kind = match stored {
            false => Kind::SetRefused,
            true if is_large => Kind::SetLarge,
            true => Kind::Set,
        };
        self.refused += u64::from(!stored);
        self.record(kind, taken);
    }

    /// Later keys are likelier: half of the picks are among the newest quarter.
    fn some_id(&mut self) -> u64 {
        let back = self.random.unit() * self.random.unit();
        self.next_new - 1 - (back * (self.next_new - 1) as f64) as u64
    }

    fn some_key(&mut self) -> Prepared {
        let id = if self.next_new == 0 { 0 } else { self.some_id() };
        self.embedded.prepare(id)
    }

    fn timed<T>(&mut self, kind: Kind, call: impl FnOnce(&mut Embedded) -> T) {
        let (_, taken) = self.measure(call);
        self.record(kind, taken);
    }

    fn record(&mut self, kind: Kind, taken: Taken) {
        self.times[kind as usize].record(taken, self.phase);
        if self.tell && taken.cpu.as_nanos() as u64 > LONG_NS {
            let store = self.embedded.shards[0].store();
            eprintln!(
                "{}: {kind:?}, {} us, {} faults; {} of {} bytes, {} items",
                self.phase,
                taken.cpu.as_micros(),
                taken.faults,
                store.memory_bytes(),
                store.memory_bytes_max(),
                store.items(),
            );
        }
    }

    fn measure<T>(&mut self, call: impl FnOnce(&mut Embedded) -> T) -> (T, Taken) {
        if self.calls.is_multiple_of(CPU_READ_CALLS) {
            self.used = used_by_thread();
        }
        let start = Instant::now();
        let result = call(&mut self.embedded);
        let wall = start.elapsed();
        if wall <= SUSPICIOUS {
            return (result, Taken { wall, cpu: wall, faults: 0 });
        }
        let before = std::mem::replace(&mut self.used, used_by_thread());
        let cpu = self.used.0.saturating_sub(before.0).min(wall);
        (result, Taken { wall, cpu, faults: self.used.1 - before.1 })
    }

    fn rows(&self, name: &str, table: &mut Table) {
        let us = |ns: u64| format!("{:.1}", ns as f64 / 1e3);
        for (kind, label) in KINDS {
            let times = &self.times[kind as usize];
            if times.wall_ns.is_empty() {
                continue;
            }
            let mut row = vec![name.to_owned(), label.to_owned(), times.wall_ns.len().to_string()];
            let quantile = |quantile| us(times.wall_ns.value_at_quantile(quantile));
            row.extend([0.5, 0.99, 0.999, 0.9999, 1.0].map(quantile));
            row.push(us(times.worst_cpu_ns));
            row.push(times.long_wall.to_string());
            row.push(times.long_cpu.to_string());
            row.push(times.long_own.to_string());
            row.push(times.worst_phase.to_owned());
            row.push(times.worst_faults.to_string());
            table.push(row);
        }
    }
}

/// Work that needs the processor alone; each step depends on the one before.
fn arithmetic() -> u64 {
    (0..CONTROL_STEPS).fold(1, |x: u64, step| (x ^ step).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// CPU time and page faults of this thread.
fn used_by_thread() -> (Duration, i64) {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
    let faults = getrusage(UsageWho::RUSAGE_THREAD).map_or(0, |usage| usage.minor_page_faults());
    (time.map(Duration::from).expect("Linux has this clock"), faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_call_is_met_in_a_small_store() {
        for evict in [true, false] {
            let population =
                Population::new(4_000_000_000, "16".parse().unwrap(), "mixed".parse().unwrap());
            let embedded =
                Embedded::new(Budget::new(4 << 20, 1), evict, Arc::new(population.unwrap()));
            let mut bench = Bench::new(embedded, false).unwrap();
            bench.run(2.0, evict);
            for (kind, label) in KINDS {
                let expected = match kind {
                    Kind::SetRefused => !evict,
                    Kind::Limit => evict,
                    // Too rare for so small a store.
                    Kind::SetLarge => continue,
                    _ => true,
                };
                let seen = !bench.times[kind as usize].wall_ns.is_empty();
                assert_eq!(seen, expected, "{label}, evict {evict}");
            }
        }
    }
}
