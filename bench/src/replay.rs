//! The streams of `hitratio` against distcached's store in this process. Owns the driver and the
//! table. Without sockets a stream takes seconds, so that a rule of eviction can be tried quickly;
//! figures to publish come from `hitratio`.
//!
//! Differs from `hitratio` in two ways: a missing key is stored before the next request instead of
//! before the next batch, and time is virtual: `--ttl-rate` requests a second in every stream.

use std::time::Duration;

use distcache::store::budget::Budget;
use nix::time::{ClockId, clock_gettime};

use crate::Result;
use crate::embedded::Embedded;
use crate::options::{Opt, Options, opt};
use crate::report::{Report, Table};
use crate::stream::Stream;
use crate::traces::{Trace, Workload};

/// Options beside those of the streams.
pub const OPTIONS: &[Opt] = &[
    opt("out", "DIR", "bench/results", "where the table goes"),
    opt("name", "NAME", "", "file name of the table; only shown if not given"),
    opt("shards", "N", "1", "shards that share the memory"),
];

/// Plays each stream and shows the hit ratios.
pub fn run(options: &Options) -> Result<()> {
    let workload = Workload::new(options)?;
    let memory_mib: u64 = options.get("memory")?;
    let shards: usize = options.get("shards")?;
    let mut table = Table::new(&[
        "stream",
        "hit ratio",
        "miss ratio",
        "misses, repeated keys",
        "bytes missed",
        "live",
        "us a request",
        "moves a set",
    ]);
    for trace in &workload.traces {
        let budget = Budget::new(memory_mib << 20, shards);
        let mut embedded = Embedded::new(budget, true, workload.population(trace)?);
        let played = play(&workload, trace, &mut embedded);
        table.push(vec![
            trace.name.to_owned(),
            format!("{:.4}", 1.0 - played.miss_ratio),
            format!("{:.4}", played.miss_ratio),
            format!("{:.4}", played.miss_ratio_repeated),
            format!("{:.4}", played.miss_ratio_bytes),
            format!("{:.3}", played.live_share),
            format!("{:.3}", played.request_us),
            format!("{:.3}", played.moves_per_set),
        ]);
    }
    let mut report = Report::new("Hit ratios of the store alone, look-aside", &[]);
    report.paragraph(&format!(
        "{memory_mib} MiB, {shards} shards, {} keys, {} requests after {} to warm up, {} requests \
         per second of virtual time, {} % of them sets; what a get misses is stored as well. The \
         fourth column leaves out the keys asked for once. *Live*: the part of all segments that \
         items take, at the end. *us a request*: CPU time, the making of keys and values included.",
        workload.keys,
        workload.requests,
        workload.warm_up,
        workload.ttl_rate,
        workload.sets_percent
    ));
    report.table(&table);
    report.save_if_named(options)
}

/// What playing a stream came to.
pub struct Played {
    /// Of all requests.
    pub miss_ratio: f64,
    /// Of requests for the keys of the set.
    miss_ratio_repeated: f64,
    /// Of the bytes of keys and values asked for.
    miss_ratio_bytes: f64,
    live_share: f64,
    /// CPU time.
    pub request_us: f64,
    /// Items the store moved, for each that was stored.
    moves_per_set: f64,
}

/// Plays a stream.
pub fn play(workload: &Workload, trace: &Trace, embedded: &mut Embedded) -> Played {
    let population = embedded.population();
    let mut stream = Stream::new(&workload.stream(trace), workload.keys_of(trace), 0, 1);
    let start = embedded.now;
    let (mut misses, mut repeated, mut repeated_misses) = (0_u64, 0_u64, 0_u64);
    let (mut asked_bytes, mut missed_bytes) = (0_u64, 0_u64);
    let (mut gets, mut used) = (0_u64, used_by_thread());
    for index in 0..workload.warm_up + workload.requests {
        embedded.now.0 = start.0 + (index as f64 * 100.0 / workload.ttl_rate) as u64;
        if embedded.is_maintenance_due() {
            embedded.maintain();
        }
        if index == workload.warm_up {
            embedded.begin_counting();
            used = used_by_thread();
        }
        let id = stream.next_id();
        if workload.sets_percent > 0 && stream.random().below(100) < workload.sets_percent {
            let mut key = embedded.prepare_value(id);
            if workload.resize {
                let usual_bytes = embedded.content_bytes() - embedded.key_bytes();
                let value_bytes =
                    usual_bytes / 2 + stream.random().below(usual_bytes as u64) as usize;
                key = embedded.prepare_sized(id, value_bytes);
            }
            let lifetime_seconds = embedded.lifetime_seconds(key);
            embedded.set(key, lifetime_seconds);
            continue;
        }
        let key = embedded.prepare(id);
        let hit = embedded.get(key);
        if !hit {
            let key = embedded.prepare_value(id);
            let lifetime_seconds = embedded.lifetime_seconds(key);
            embedded.set(key, lifetime_seconds);
        }
        if index >= workload.warm_up {
            let is_repeated = id < workload.keys_of(trace);
            let bytes = (population.key_bytes(id) + population.value_bytes(id)) as u64;
            asked_bytes += bytes;
            missed_bytes += if hit { 0 } else { bytes };
            gets += 1;
            misses += u64::from(!hit);
            repeated += u64::from(is_repeated);
            repeated_misses += u64::from(!hit && is_repeated);
        }
    }
    let ratio = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
    Played {
        miss_ratio: ratio(misses, gets),
        miss_ratio_repeated: ratio(repeated_misses, repeated),
        miss_ratio_bytes: ratio(missed_bytes, asked_bytes),
        live_share: embedded.live_share(),
        request_us: (used_by_thread() - used).as_secs_f64() * 1e6 / workload.requests as f64,
        moves_per_set: ratio(
            embedded.counted(|counters| counters.moves + counters.cleaned),
            embedded.counted(|counters| counters.stored),
        ),
    }
}

/// CPU time of this thread.
pub fn used_by_thread() -> Duration {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
    time.map(Duration::from).expect("Linux has this clock")
}
