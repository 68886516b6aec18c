//! Hit ratios of servers behind a look-aside application. Owns how the streams are played and the
//! table; the streams are in `traces`.
//!
//! One connection sends batches of multi-gets; keys that were missing are stored, with
//! `set noreply`, ahead of the next batch, whose first reply then tells that they arrived. Every
//! server gets the same requests in the same order. Where keys have lifetimes, multi-gets leave at
//! a fixed rate, because there a faster server would see fewer keys expire.

use crate::Result;
use crate::load::{Load, Mix, Outcome, Plan, Until, Verb};
use crate::options::{Opt, Options};
use crate::plot::Bars;
use crate::population::Lifetimes;
use crate::report::{Report, Table, save};
use crate::server::Server;
use crate::traces::{self, ToFirst, Trace, Workload};
use crate::trial::Trial;

/// Options beside the common ones.
pub const OPTIONS: &[Opt] = traces::OPTIONS;

const CONNECTIONS_MAX: usize = 1024;
const KEYS_PER_GET: usize = 100;
const GETS_PER_BATCH: usize = 4;

/// Plays each stream to each server and writes the report.
pub fn run(options: &Options) -> Result<()> {
    let trial = Trial::new(options, "hitratio", CONNECTIONS_MAX)?;
    let workload = Workload::new(options)?;
    let mut table = Table::new(&[
        "stream",
        "server",
        "requests",
        "hit ratio",
        "miss ratio",
        "misses/first",
        "avoidable/first",
        "bytes missed",
        "bytes/first",
        "avoidable bytes/first",
    ]);
    let mut ratios = vec![Vec::new(); trial.servers.len()];
    let mut versions = Vec::new();
    for trace in &workload.traces {
        versions.clear();
        let (mut to_first, mut bytes_to_first) = (ToFirst::default(), ToFirst::default());
        let (first_time_share, first_time_bytes) = workload.first_time_shares(trace)?;
        for (spec, ratios) in trial.servers.iter().zip(&mut ratios) {
            let server = Server::start(spec, &trial.flags)?;
            let outcome = play(&trial, &workload, trace, &server)
                .map_err(|e| format!("{}, {}: {e}", trace.name, spec.name))?;
            versions.push((server.name.clone(), server.version.clone()));
            let miss_ratio = 1.0 - outcome.hit_ratio();
            let (ratio, avoidable_ratio) = to_first.of(miss_ratio, first_time_share);
            let bytes_missed = outcome.byte_miss_ratio();
            let (bytes_ratio, avoidable_bytes) = bytes_to_first.of(bytes_missed, first_time_bytes);
            eprintln!("{} {}: hit ratio {:.4}", trace.name, spec.name, outcome.hit_ratio());
            ratios.push(ratio);
            table.push(vec![
                trace.name.to_owned(),
                spec.name.clone(),
                (outcome.hits + outcome.misses).to_string(),
                format!("{:.4}", outcome.hit_ratio()),
                format!("{miss_ratio:.4}"),
                format!("{ratio:.3}"),
                format!("{avoidable_ratio:.3}"),
                format!("{bytes_missed:.4}"),
                format!("{bytes_ratio:.3}"),
                format!("{avoidable_bytes:.3}"),
            ]);
        }
    }
    let title = format!("Hit ratio, look-aside, -m {}", trial.flags.memory_mib);
    let mut report = Report::new(&title, &versions);
    report.paragraph(&format!(
        "{} keys, or {} of each stream like a production cache; {} requests before counting, {} % \
         of them sets; at {} requests per second where keys have lifetimes, otherwise as fast as \
         the server answers. *Avoidable* leaves out the requests that are the first for their key: \
         no server can have them. *Bytes* are those of keys and values.",
        workload.keys,
        options.text("objects"),
        workload.warm_up,
        workload.sets_percent,
        workload.ttl_rate
    ));
    report.table(&table);
    report.save(&trial.out, &trial.name)?;
    save(&trial.out, &format!("{}.svg", trial.name), &plot(&trial, &workload, ratios))
}

fn play(trial: &Trial, workload: &Workload, trace: &Trace, server: &Server) -> Result<Outcome> {
    let rate = match trace.lifetimes {
        Lifetimes::Forever => None,
        Lifetimes::HalfShort => Some(workload.ttl_rate / KEYS_PER_GET as f64),
    };
    // Of a hundred requests. A multi-get has many of them, a set is one.
    let (sets, gets, keys_per_get) =
        (workload.sets_percent, 100 - workload.sets_percent, KEYS_PER_GET as u64);
    let mix = match sets {
        0 => Mix::only(Verb::MultiGet),
        _ => Mix::weighted(&[
            (Verb::Set, (sets * keys_per_get) as u32),
            (Verb::MultiGet, gets as u32),
        ]),
    };
    let commands = |requests: u64| {
        Until::Operations(requests * (sets * keys_per_get + gets) / keys_per_get / 100)
    };
    let mut load = Load::connect(&Plan {
        connections: 1,
        pipeline: GETS_PER_BATCH + GETS_PER_BATCH * KEYS_PER_GET * sets as usize / gets as usize,
        keys_per_get: KEYS_PER_GET,
        mix,
        rate,
        look_aside: true,
        cores: trial.load_cores.clone(),
        ..Plan::new(server.address, workload.population(trace)?, workload.stream(trace))
    })?;
    load.run(commands(workload.warm_up))?.check()?;
    let outcome = load.run(commands(workload.requests))?;
    outcome.check()?;
    Ok(outcome)
}

fn plot(trial: &Trial, workload: &Workload, ratios: Vec<Vec<f64>>) -> String {
    let names = trial.servers.iter().map(|server| server.name.clone());
    Bars {
        title: "Misses of a look-aside application",
        axis: "ratio to the first server, lower is better",
        labels: workload.traces.iter().map(|trace| trace.name.to_owned()).collect(),
        series: names.zip(ratios).skip(1).collect(),
        line: Some((1.0, trial.servers[0].name.clone())),
    }
    .svg()
}
