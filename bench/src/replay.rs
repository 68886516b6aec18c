//! The streams of `hitratio` against distcached's store in this process. Owns the driver and the
//! table. Without sockets a stream takes seconds, so that a rule of eviction can be tried quickly;
//! figures to publish come from `hitratio`.
//!
//! Differs from `hitratio` in two ways: a missing key is stored before the next request instead of
//! before the next batch, and time is virtual: `--ttl-rate` requests a second in every stream.

use std::path::PathBuf;

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
];

/// Plays each stream and shows the hit ratios.
pub fn run(options: &Options) -> Result<()> {
    let workload = Workload::new(options)?;
    let memory_mib: u64 = options.get("memory")?;
    let mut table = Table::new(&["stream", "hit ratio", "miss ratio", "misses, repeated keys"]);
    for trace in &workload.traces {
        let played = play(&workload, trace, memory_mib << 20)?;
        table.push(vec![
            trace.name.to_owned(),
            format!("{:.4}", 1.0 - played.miss_ratio),
            format!("{:.4}", played.miss_ratio),
            format!("{:.4}", played.miss_ratio_repeated),
        ]);
    }
    let mut report = Report::new("Hit ratios of the store alone, look-aside", &[]);
    report.paragraph(&format!(
        "{memory_mib} MiB, {} keys, {} requests after {} to warm up, {} requests per second of \
         virtual time. The last column leaves out the keys asked for once.",
        workload.keys, workload.requests, workload.warm_up, workload.ttl_rate
    ));
    report.table(&table);
    match options.text("name") {
        "" => Ok(()),
        name => report.save(&options.get::<PathBuf>("out")?, name),
    }
}

struct Played {
    miss_ratio: f64,
    /// Of requests for the keys of the set.
    miss_ratio_repeated: f64,
}

fn play(workload: &Workload, trace: &Trace, memory_bytes: u64) -> Result<Played> {
    let mut embedded = Embedded::new(memory_bytes, true, workload.population(trace)?);
    let mut stream = Stream::new(&workload.stream(trace), workload.keys, 0, 1);
    let start = embedded.now;
    let (mut misses, mut repeated, mut repeated_misses) = (0_u64, 0_u64, 0_u64);
    for index in 0..workload.warm_up + workload.requests {
        embedded.now.0 = start.0 + (index as f64 * 100.0 / workload.ttl_rate) as u64;
        if embedded.is_maintenance_due() {
            embedded.maintain();
        }
        let id = stream.next_id();
        let key = embedded.prepare(id);
        let hit = embedded.get(key);
        if !hit {
            let key = embedded.prepare_value(id);
            let lifetime_seconds = embedded.lifetime_seconds(key);
            embedded.set(key, lifetime_seconds);
        }
        if index >= workload.warm_up {
            let is_repeated = id < workload.keys;
            misses += u64::from(!hit);
            repeated += u64::from(is_repeated);
            repeated_misses += u64::from(!hit && is_repeated);
        }
    }
    let ratio = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
    Ok(Played {
        miss_ratio: ratio(misses, workload.requests),
        miss_ratio_repeated: ratio(repeated_misses, repeated),
    })
}
