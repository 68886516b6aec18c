//! What `stats sizing` says of other sizes, and what stores of these sizes measure: the streams of
//! `replay` against stores of half, the same, twice and four times the memory. Owns the table.
//! Virtual time, no sockets.

use std::time::Duration;

use distcache::shard::simulator::{Estimate, SIZES_PERCENT};
use distcache::store::budget::Budget;

use crate::Result;
use crate::embedded::Embedded;
use crate::options::{Opt, Options, opt};
use crate::replay::{Played, play};
use crate::report::{Report, Table};
use crate::traces::{Trace, Workload};

/// Options beside those of the streams.
pub const OPTIONS: &[Opt] = &[
    opt("out", "DIR", "bench/results", "where the table goes"),
    opt("name", "NAME", "", "file name of the table; only shown if not given"),
    opt("shards", "N", "4", "shards that share the memory"),
    opt("error-max", "PERCENT", "1", "fails if an estimate is further off than so many points"),
];

/// Plays each stream to a store of each size.
pub fn run(options: &Options) -> Result<()> {
    let workload = Workload::new(options)?;
    let (memory_mib, shards) = (options.get::<u64>("memory")?, options.get::<usize>("shards")?);
    let mut table = Table::new(&[
        "stream",
        "memory",
        "measured",
        "estimated",
        "points off",
        "filled",
        "sampled keys",
        "sampling rate",
        "model off",
        "ns an event",
        "events a request",
    ]);
    let requests = workload.warm_up + workload.requests;
    let mut worst: f64 = 0.0;
    for trace in &workload.traces {
        let (_, estimate, simulated) = measure(&workload, trace, memory_mib << 20, shards, true)?;
        for (percent, size) in SIZES_PERCENT.iter().zip(estimate.sizes) {
            let bytes = (memory_mib << 20) * percent / 100;
            let (played, ..) = measure(&workload, trace, bytes, shards, false)?;
            let measured = 1.0 - played.miss_ratio;
            let points = (size.hit_ratio - measured) * 100.0;
            worst = worst.max(points.abs());
            let row = vec![
                trace.name.to_owned(),
                format!("{}", *percent as f64 / 100.0),
                format!("{measured:.4}"),
                format!("{:.4}", size.hit_ratio),
                format!("{points:+.2}"),
                format!("{:.2}", size.filled),
                estimate.sampled_keys.to_string(),
                format!("{:.5}", estimate.sampling_rate),
                format!("{:+.2}", estimate.model_error * 100.0),
                simulated.0.as_nanos().to_string(),
                format!("{:.4}", simulated.1 as f64 / requests as f64),
            ];
            eprintln!("{}", row.join("  "));
            table.push(row);
        }
    }
    let mut report = Report::new("Hit ratios of other sizes: estimated and measured", &[]);
    report.paragraph(&format!(
        "Estimated by a store of {memory_mib} MiB, measured by stores of each size; {shards} \
         shards, {} keys, {} requests after {} to warm up, {} requests per second of virtual time, \
         {} % of them sets; what a get misses is stored as well. *Model off*: by how many points \
         the simulation of the store's own size is off, on the sampled keys.",
        workload.keys,
        workload.requests,
        workload.warm_up,
        workload.ttl_rate,
        workload.sets_percent
    ));
    report.table(&table);
    report.save_if_named(options)?;
    let error_max: f64 = options.get("error-max")?;
    match worst <= error_max {
        true => Ok(()),
        false => {
            Err(format!("an estimate is {worst:.2} points off, {error_max} are allowed").into())
        }
    }
}

fn measure(
    workload: &Workload,
    trace: &Trace,
    bytes: u64,
    shards: usize,
    estimates: bool,
) -> Result<(Played, Estimate, (Duration, u64))> {
    let budget = Budget::new(bytes, shards);
    let mut embedded = Embedded::new(budget, true, workload.population(trace)?);
    if estimates {
        embedded = embedded.with_simulator();
    }
    let played = play(workload, trace, &mut embedded);
    embedded.tell_simulator();
    let now = embedded.now;
    let estimate = embedded.simulator().map(|simulator| simulator.estimate(now));
    Ok((played, estimate.unwrap_or_default(), embedded.simulated()))
}
