//! CPU per operation, throughput and latency of several servers over the table of scenarios. Owns
//! the order of measuring and the tables made of it.
//!
//! For each scenario all servers are started and filled alike, then take turns: A B A B. Machines
//! are noisy over minutes, so only figures taken next to each other are divided by each other; the
//! idle server beside the measured one costs nothing worth mentioning.

use std::sync::Arc;
use std::time::Duration;

use crate::load::{self, Load, Mix, Outcome, Plan, Until, Verb};
use crate::options::{Opt, Options, opt};
use crate::plot::Bars;
use crate::population::Population;
use crate::report::{Report, Table, save};
use crate::scenarios::{KEY_SIZE, KEYS_PER_GET, SCENARIOS, Scenario};
use crate::server::{Server, start_all};
use crate::stream::StreamSpec;
use crate::trial::Trial;
use crate::{Result, median};

/// Options beside the common ones.
pub const OPTIONS: &[Opt] = &[
    opt("scenarios", "LIST", "", "names from the table, separated by commas; all if not given"),
    opt("load-threads", "N", "1", "load threads"),
];

/// Sent before each measurement, so that connections and caches are warm.
const WARM_UP: Duration = Duration::from_millis(300);
const CONNECTIONS_MAX: usize = 4096;
/// Keys were filled and memory is ample, so hardly any may be missing.
const MISS_SHARE_MAX: f64 = 0.001;

/// One measurement.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Place of the server among those compared.
    pub server: usize,
    /// The round.
    pub round: usize,
    /// Processor time of the server an operation.
    pub cpu_us: f64,
    /// Operations a second.
    pub per_second: f64,
    /// Median latency.
    pub p50_us: f64,
    /// Latency that 99 % do not exceed.
    pub p99_us: f64,
    /// Latency that 99.9 % do not exceed.
    pub p999_us: f64,
    hit_ratio: f64,
}

/// The median over a server's samples.
pub fn median_of(samples: &[Sample], server: usize, value: impl Fn(&Sample) -> f64) -> f64 {
    median(samples.iter().filter(|sample| sample.server == server).map(value))
}

/// All measurements of one scenario.
struct Measured {
    scenario: &'static Scenario,
    samples: Vec<Sample>,
}

/// Runs the scenarios chosen and writes the report.
pub fn run(options: &Options) -> Result<()> {
    let trial = Trial::new(options, "compare", CONNECTIONS_MAX)?;
    let threads: usize = options.get("load-threads")?;
    let mut measured = Vec::new();
    let mut versions = Vec::new();
    for scenario in chosen(&options.list("scenarios")?)? {
        let servers = start_all(&trial.servers, &trial.flags)?;
        versions = servers.iter().map(|s| (s.name.clone(), s.version.clone())).collect();
        let samples = measure_all(&trial, scenario, &servers, threads)
            .map_err(|e| format!("{}: {e}", scenario.name))?;
        measured.push(Measured { scenario, samples });
    }
    write_report(&trial, &measured, &versions)
}

fn chosen(names: &[String]) -> Result<Vec<&'static Scenario>> {
    let find = |name: &String| {
        let found = SCENARIOS.iter().find(|scenario| scenario.name == name);
        found.ok_or_else(|| format!("no scenario \"{name}\"; see scenarios.rs").into())
    };
    if names.is_empty() { Ok(SCENARIOS.iter().collect()) } else { names.iter().map(find).collect() }
}

fn measure_all(
    trial: &Trial,
    scenario: &Scenario,
    servers: &[Server],
    threads: usize,
) -> Result<Vec<Sample>> {
    let population =
        Population::new(scenario.keys, KEY_SIZE.parse()?, scenario.value_size.parse()?)?;
    let population = Arc::new(population);
    let plans: Vec<Plan> =
        servers.iter().map(|server| plan(trial, scenario, server, &population, threads)).collect();
    for (plan, server) in plans.iter().zip(servers) {
        load::fill(plan, scenario.keys).map_err(|e| format!("filling {}: {e}", server.name))?;
    }
    let mut samples = Vec::new();
    for round in 0..trial.rounds {
        for (index, (plan, server)) in plans.iter().zip(servers).enumerate() {
            let sample = measure(plan, server, trial.time, index, round)
                .map_err(|e| format!("{}, round {}: {e}", server.name, round + 1))?;
            eprintln!(
                "{} round {} {}: {:.3} us/op, {:.0} ops/s",
                scenario.name,
                round + 1,
                server.name,
                sample.cpu_us,
                sample.per_second
            );
            samples.push(sample);
        }
    }
    Ok(samples)
}

fn plan(
    trial: &Trial,
    scenario: &Scenario,
    server: &Server,
    population: &Arc<Population>,
    threads: usize,
) -> Plan {
    let stream = StreamSpec { popularity: scenario.popularity, once: 0.0, seed: trial.seed };
    Plan {
        connections: scenario.connections,
        threads,
        pipeline: scenario.pipeline,
        keys_per_get: KEYS_PER_GET,
        mix: Mix::weighted(scenario.verbs),
        cores: trial.load_cores.clone(),
        ..Plan::new(server.address, Arc::clone(population), stream)
    }
}

/// Puts a load on a server for some time, after a moment to warm up.
///
/// # Errors
/// The server gave a wrong answer, or none.
pub fn measure(
    plan: &Plan,
    server: &Server,
    time: Duration,
    index: usize,
    round: usize,
) -> Result<Sample> {
    let mut load = Load::connect(plan)?;
    load.run(Until::Elapsed(WARM_UP))?.check()?;
    let before_ns = server.cpu_ns()?;
    let outcome = load.run(Until::Elapsed(time))?;
    let cpu_ns = server.cpu_ns()? - before_ns;
    check(&outcome, plan)?;
    Ok(Sample {
        server: index,
        round,
        cpu_us: cpu_ns as f64 / 1e3 / outcome.operations.max(1) as f64,
        per_second: outcome.per_second(),
        p50_us: outcome.latency_us(50.0),
        p99_us: outcome.latency_us(99.0),
        p999_us: outcome.latency_us(99.9),
        hit_ratio: outcome.hit_ratio(),
    })
}

fn check(outcome: &Outcome, plan: &Plan) -> Result<()> {
    outcome.check()?;
    let asked = outcome.hits + outcome.misses;
    let misses_wanted = plan.mix == Mix::only(Verb::Miss);
    let hit_wanted = if misses_wanted { 0.0 } else { 1.0 };
    if asked > 0 && (outcome.hit_ratio() - hit_wanted).abs() > MISS_SHARE_MAX {
        return Err(format!("{} of {asked} keys were found", outcome.hits).into());
    }
    Ok(())
}

fn write_report(trial: &Trial, measured: &[Measured], versions: &[(String, String)]) -> Result<()> {
    let mut report = Report::new("CPU per operation, throughput and latency", versions);
    report.paragraph(
        "Medians over the rounds. CPU is user and system time of the whole server process per \
         operation; a ratio is that of the medians to the first server, the range that of the \
         rounds taken one by one. Latency is that of a closed loop at full load.",
    );
    report.table(&summary(trial, measured));
    report.save(&trial.out, &trial.name)?;
    save(&trial.out, &format!("{}.csv", trial.name), &raw(trial, measured).csv())?;
    save(&trial.out, &format!("{}.svg", trial.name), &plot(trial, measured))
}

impl Measured {
    fn median_of(&self, server: usize, value: impl Fn(&Sample) -> f64) -> f64 {
        median_of(&self.samples, server, value)
    }

    /// CPU ratio of the medians to the first server.
    fn cpu_ratio(&self, server: usize) -> f64 {
        self.median_of(server, |s| s.cpu_us) / self.median_of(0, |s| s.cpu_us)
    }

    /// Lowest and highest CPU ratio among the rounds.
    fn cpu_ratio_range(&self, server: usize) -> (f64, f64) {
        let of = |server| self.samples.iter().filter(move |sample| sample.server == server);
        let ratios = of(server).zip(of(0)).map(|(ours, first)| ours.cpu_us / first.cpu_us);
        ratios.fold((f64::MAX, 0.0), |(low, high), ratio| (low.min(ratio), high.max(ratio)))
    }
}

fn summary(trial: &Trial, measured: &[Measured]) -> Table {
    let mut table = Table::new(&[
        "scenario",
        "server",
        "CPU us/op",
        "ratio",
        "range",
        "aim",
        "kop/s",
        "ratio",
        "p50 us",
        "p99 us",
        "p99.9 us",
    ]);
    for scenario in measured {
        for (index, server) in trial.servers.iter().enumerate() {
            let of = |value: fn(&Sample) -> f64| scenario.median_of(index, value);
            let (low, high) = scenario.cpu_ratio_range(index);
            let aim = scenario.scenario.ceiling.get(trial.flags.workers.wrapping_sub(1));
            table.push(vec![
                scenario.scenario.name.to_owned(),
                server.name.clone(),
                format!("{:.3}", of(|s| s.cpu_us)),
                format!("{:.2}", scenario.cpu_ratio(index)),
                format!("{low:.2}-{high:.2}"),
                aim.filter(|&&aim| aim > 0.0).map_or("-".to_owned(), |aim| format!("{aim:.2}")),
                format!("{:.1}", of(|s| s.per_second) / 1e3),
                format!("{:.2}", of(|s| s.per_second) / scenario.median_of(0, |s| s.per_second)),
                format!("{:.0}", of(|s| s.p50_us)),
                format!("{:.0}", of(|s| s.p99_us)),
                format!("{:.0}", of(|s| s.p999_us)),
            ]);
        }
    }
    table
}

fn raw(trial: &Trial, measured: &[Measured]) -> Table {
    let mut table = Table::new(&[
        "scenario",
        "round",
        "server",
        "cpu_us_per_op",
        "ops_per_s",
        "p50_us",
        "p99_us",
        "p99.9_us",
        "hit_ratio",
    ]);
    for scenario in measured {
        for sample in &scenario.samples {
            table.push(vec![
                scenario.scenario.name.to_owned(),
                (sample.round + 1).to_string(),
                trial.servers[sample.server].name.clone(),
                format!("{:.4}", sample.cpu_us),
                format!("{:.0}", sample.per_second),
                format!("{:.1}", sample.p50_us),
                format!("{:.1}", sample.p99_us),
                format!("{:.1}", sample.p999_us),
                format!("{:.4}", sample.hit_ratio),
            ]);
        }
    }
    table
}

fn plot(trial: &Trial, measured: &[Measured]) -> String {
    let ratios = |server| measured.iter().map(move |m| m.cpu_ratio(server)).collect();
    let others = trial.servers.iter().enumerate().skip(1);
    Bars {
        title: "Server CPU per operation",
        axis: "ratio to the first server, lower is better",
        labels: measured.iter().map(|m| m.scenario.name.to_owned()).collect(),
        series: others.map(|(index, server)| (server.name.clone(), ratios(index))).collect(),
        line: Some((1.0, trial.servers[0].name.clone())),
    }
    .svg()
}
