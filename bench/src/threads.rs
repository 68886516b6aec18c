//! CPU per request and latency of several servers at several numbers of threads. Owns the order of
//! measuring and the table; one measurement is `compare`'s.
//!
//! For each number of threads and each load all servers are started and filled alike, then take
//! turns. A ratio is that of the medians to the first server at the same number of threads.

use std::sync::Arc;

use crate::Result;
use crate::compare::{Sample, measure, median_of};
use crate::load::{self, Mix, Plan};
use crate::options::{Opt, Options, opt};
use crate::plot::Bars;
use crate::population::Population;
use crate::report::{Report, Table, save};
use crate::scenarios::{KEY_SIZE, KEYS_PER_GET, THREADED, Threaded, WORKERS};
use crate::server::{Flags, start_all};
use crate::stream::StreamSpec;
use crate::trial::Trial;

/// Options beside the common ones.
pub const OPTIONS: &[Opt] = &[
    opt("threads", "LIST", "1,2,4,8,16", "numbers of threads (-t), of those with an aim"),
    opt("scenarios", "LIST", "", "names from the table, separated by commas; all if not given"),
];

const CONNECTIONS_MAX: usize = 4096;

/// All measurements of one load at one number of threads.
struct Measured {
    load: &'static Threaded,
    workers: usize,
    samples: Vec<Sample>,
}

/// Runs the loads chosen and writes the report.
pub fn run(options: &Options) -> Result<()> {
    let trial = Trial::new(options, "threads", CONNECTIONS_MAX)?;
    let wanted = options.list::<String>("scenarios")?;
    let loads = THREADED
        .iter()
        .filter(|load| wanted.is_empty() || wanted.iter().any(|name| name == load.scenario.name));
    let loads: Vec<&Threaded> = loads.collect();
    let mut measured = Vec::new();
    let mut versions = Vec::new();
    for workers in options.list::<usize>("threads")? {
        for load in &loads {
            let flags = Flags { workers, ..trial.flags.clone() };
            let servers = start_all(&trial.servers, &flags)?;
            versions = servers.iter().map(|s| (s.name.clone(), s.version.clone())).collect();
            let samples = measure_all(&trial, load, &servers)
                .map_err(|e| format!("{}, -t {workers}: {e}", load.scenario.name))?;
            measured.push(Measured { load, workers, samples });
        }
    }
    let mut report = Report::new("CPU per request and latency by number of threads", &versions);
    report.paragraph(
        "Medians over the rounds; ratios are to the first server at the same number of threads. \
         CPU is user and system time of the whole server process per operation. Latency is that of \
         a closed loop at full load, but for rows at a fixed rate.",
    );
    report.table(&table(&trial, &measured));
    report.save(&trial.out, &trial.name)?;
    save(&trial.out, &format!("{}.svg", trial.name), &plot(&trial, &loads, &measured))?;
    save(&trial.out, &format!("{}.csv", trial.name), &raw(&trial, &measured).csv())
}

fn measure_all(
    trial: &Trial,
    load: &Threaded,
    servers: &[crate::server::Server],
) -> Result<Vec<Sample>> {
    let scenario = &load.scenario;
    let population =
        Population::new(scenario.keys, KEY_SIZE.parse()?, scenario.value_size.parse()?)?;
    let population = Arc::new(population);
    let stream = StreamSpec { popularity: scenario.popularity, once: 0.0, seed: trial.seed };
    let plans: Vec<Plan> = servers
        .iter()
        .map(|server| Plan {
            connections: scenario.connections,
            pipeline: scenario.pipeline,
            keys_per_get: KEYS_PER_GET,
            mix: Mix::weighted(scenario.verbs),
            rate: load.rate,
            cores: trial.load_cores.clone(),
            ..Plan::new(server.address, Arc::clone(&population), stream)
        })
        .collect();
    for plan in &plans {
        // At full speed, whatever rate is measured.
        load::fill(&Plan { rate: None, ..plan.clone() }, scenario.keys)?;
    }
    let mut samples = Vec::new();
    for round in 0..trial.rounds {
        for (index, (plan, server)) in plans.iter().zip(servers).enumerate() {
            samples.push(measure(plan, server, trial.time, index, round)?);
        }
    }
    Ok(samples)
}

impl Measured {
    fn median_of(&self, server: usize, value: impl Fn(&Sample) -> f64) -> f64 {
        median_of(&self.samples, server, value)
    }

    /// What is aimed at with so many threads.
    fn aim(&self) -> Option<f64> {
        let at = WORKERS.iter().position(|workers| *workers == self.workers)?;
        Some(self.load.aims[at])
    }
}

fn table(trial: &Trial, measured: &[Measured]) -> Table {
    let mut table = Table::new(&[
        "load",
        "-t",
        "server",
        "CPU us/op",
        "ratio",
        "aim",
        "p99 us",
        "p99.9 us",
        "p99.9 ratio",
    ]);
    for row in measured {
        for (index, server) in trial.servers.iter().enumerate() {
            let of = |value: fn(&Sample) -> f64| row.median_of(index, value);
            let ratio = |value: fn(&Sample) -> f64| of(value) / row.median_of(0, value);
            table.push(vec![
                row.load.scenario.title.to_owned(),
                row.workers.to_string(),
                server.name.clone(),
                format!("{:.3}", of(|s| s.cpu_us)),
                format!("{:.2}", ratio(|s| s.cpu_us)),
                row.aim().map_or("-".to_owned(), |aim| format!("{aim:.2}")),
                format!("{:.0}", of(|s| s.p99_us)),
                format!("{:.0}", of(|s| s.p999_us)),
                format!("{:.2}", ratio(|s| s.p999_us)),
            ]);
        }
    }
    table
}

/// Ratios of the last server to the first: a group for each load, a bar for each number of threads.
fn plot(trial: &Trial, loads: &[&Threaded], measured: &[Measured]) -> String {
    let mut threads: Vec<usize> = measured.iter().map(|row| row.workers).collect();
    threads.dedup();
    let last = trial.servers.len() - 1;
    let ratio = |row: &Measured| {
        row.median_of(last, |sample| sample.cpu_us) / row.median_of(0, |sample| sample.cpu_us)
    };
    let series = threads.iter().map(|workers| {
        let rows = measured.iter().filter(|row| row.workers == *workers);
        (format!("-t {workers}"), rows.map(ratio).collect())
    });
    Bars {
        title: "CPU per request by number of threads",
        axis: "ratio to the first server with as many threads, lower is better",
        labels: loads.iter().map(|load| load.scenario.title.to_owned()).collect(),
        series: series.collect(),
        line: Some((1.0, trial.servers[0].name.clone())),
    }
    .svg()
}

fn raw(trial: &Trial, measured: &[Measured]) -> Table {
    let mut table = Table::new(&[
        "load",
        "threads",
        "round",
        "server",
        "cpu_us_per_op",
        "ops_per_s",
        "p50_us",
        "p99_us",
        "p99.9_us",
    ]);
    for row in measured {
        for sample in &row.samples {
            table.push(vec![
                row.load.scenario.name.to_owned(),
                row.workers.to_string(),
                (sample.round + 1).to_string(),
                trial.servers[sample.server].name.clone(),
                format!("{:.4}", sample.cpu_us),
                format!("{:.0}", sample.per_second),
                format!("{:.1}", sample.p50_us),
                format!("{:.1}", sample.p99_us),
                format!("{:.1}", sample.p999_us),
            ]);
        }
    }
    table
}
