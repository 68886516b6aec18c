//! Latency of gets at a fixed rate. Owns the rounds and their table; the open loop is `load`'s.
//!
//! A noisy machine spoils a round for reasons that have nothing to do with the server, so the best
//! round of each server is published, and all rounds are kept beside it.

use std::sync::Arc;
use std::time::Duration;

use crate::load::{self, Load, Plan, Until};
use crate::options::{Opt, Options, opt};
use crate::population::Population;
use crate::report::{Report, Table, save};
use crate::scenarios::KEY_SIZE;
use crate::server::start_all;
use crate::stream::{Popularity, StreamSpec};
use crate::trial::Trial;
use crate::{Result, median};

/// Options beside the common ones.
pub const OPTIONS: &[Opt] = &[
    opt("rate", "N", "30000", "gets per second over all connections"),
    opt("seconds", "S", "2", "length of one measurement"),
    opt("connections", "N", "50", "connections"),
];

const WARM_UP: Duration = Duration::from_millis(300);
const CONNECTIONS_MAX: usize = 4096;
const KEYS: u64 = 100_000;
const PERCENTILES: [f64; 3] = [50.0, 99.0, 99.9];

/// Microseconds at `PERCENTILES` of one round of one server.
type Round = [f64; 3];

/// Runs the rounds and writes the report.
pub fn run(options: &Options) -> Result<()> {
    let trial = Trial::new(options, "latency", CONNECTIONS_MAX)?;
    let rate: f64 = options.get("rate")?;
    let servers = start_all(&trial.servers, &trial.flags)?;
    let population = Arc::new(Population::new(KEYS, KEY_SIZE.parse()?, "32".parse()?)?);
    let stream = StreamSpec { popularity: Popularity::Uniform, once: 0.0, seed: trial.seed };
    let mut plans = Vec::new();
    for server in &servers {
        let plan = Plan {
            connections: options.get("connections")?,
            rate: Some(rate),
            cores: trial.load_cores.clone(),
            ..Plan::new(server.address, Arc::clone(&population), stream)
        };
        load::fill(&plan, KEYS)?;
        plans.push(plan);
    }
    let mut rounds = vec![Vec::new(); servers.len()];
    for _ in 0..trial.rounds {
        for (plan, rounds) in plans.iter().zip(&mut rounds) {
            rounds.push(measure(plan, trial.time)?);
        }
    }
    let versions: Vec<_> =
        servers.iter().map(|server| (server.name.clone(), server.version.clone())).collect();
    let mut report = Report::new(&format!("Latency at {rate} gets per second"), &versions);
    report.paragraph(
        "Microseconds from the time a get was meant to leave until its reply was read: best round \
         and, in parentheses, median of the rounds.",
    );
    report.table(&summary(&trial, &rounds));
    report.save(&trial.out, &trial.name)?;
    save(&trial.out, &format!("{}.csv", trial.name), &raw(&trial, &rounds).csv())
}

fn measure(plan: &Plan, time: Duration) -> Result<Round> {
    let mut load = Load::connect(plan)?;
    load.run(Until::Elapsed(WARM_UP))?.check()?;
    let outcome = load.run(Until::Elapsed(time))?;
    outcome.check()?;
    Ok(PERCENTILES.map(|percent| outcome.latency_us(percent)))
}

fn summary(trial: &Trial, rounds: &[Vec<Round>]) -> Table {
    let mut table = Table::new(&["server", "p50 us", "p99 us", "p99.9 us"]);
    for (server, rounds) in trial.servers.iter().zip(rounds) {
        let cell = |index: usize| {
            let values = || rounds.iter().map(|round| round[index]);
            let best = values().fold(f64::INFINITY, f64::min);
            format!("{best:.1} ({:.1})", median(values()))
        };
        table.push(vec![server.name.clone(), cell(0), cell(1), cell(2)]);
    }
    table
}

fn raw(trial: &Trial, rounds: &[Vec<Round>]) -> Table {
    let mut table = Table::new(&["server", "round", "p50_us", "p99_us", "p99.9_us"]);
    for (server, rounds) in trial.servers.iter().zip(rounds) {
        for (index, round) in rounds.iter().enumerate() {
            let mut row = vec![server.name.clone(), (index + 1).to_string()];
            row.extend(round.iter().map(|us| format!("{us:.1}")));
            table.push(row);
        }
    }
    table
}
