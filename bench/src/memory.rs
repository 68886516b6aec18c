//! Bytes that a server spends on an item beside its key and value. Owns the filling until the
//! first eviction, the shapes of items tried, and the table.
//!
//! A server with `-m M` that holds `n` items when it first has to evict has spent
//! `(M - sum of keys and values) / n` bytes on each beside its content: headers, index, rounding
//! up, and whatever it keeps free. RSS shows whether it kept to `M` at all.

use std::sync::Arc;

use crate::Result;
use crate::client::{Client, stat};
use crate::load::{Load, Mix, Plan, Until, Verb};
use crate::options::{Opt, Options};
use crate::plot::Bars;
use crate::population::Population;
use crate::report::{Report, Table, save};
use crate::server::Server;
use crate::stream::{Popularity, StreamSpec};
use crate::trial::Trial;

/// No options beside the common ones.
pub const OPTIONS: &[Opt] = &[];

/// Name, key sizes and value sizes, as the command line of `load` takes them.
const SHAPES: [(&str, &str, &str); 4] = [
    ("16/32", "16", "32"),
    ("24/230", "24", "230"),
    ("32/1024", "32", "1024"),
    ("mixed", "16-40", "mixed"),
];

const CONNECTIONS_MAX: usize = 1024;
const MIB: u64 = 1 << 20;
/// Evictions are looked for after this share of the memory has been written.
const LOOKS: u64 = 2048;
/// A server that took this many times its memory without evicting is not counting evictions.
const FILL_MAX: u64 = 3;

/// What one server held at the first eviction.
struct Held {
    items: u64,
    overhead_bytes: f64,
    resident_bytes: u64,
}

/// Measures each shape with each server and writes the report.
pub fn run(options: &Options) -> Result<()> {
    let trial = Trial::new(options, "memory", CONNECTIONS_MAX)?;
    let mut table = Table::new(&["key/value", "server", "overhead bytes", "items", "RSS MiB"]);
    let mut overheads = vec![Vec::new(); trial.servers.len()];
    let mut versions = Vec::new();
    for (shape, key_sizes, value_sizes) in SHAPES {
        // Ids are never used twice; the number of keys only bounds the digits of a key.
        let keys = 100_000_000;
        let population = Population::new(keys, key_sizes.parse()?, value_sizes.parse()?)?;
        let population = Arc::new(population);
        versions.clear();
        for (spec, overheads) in trial.servers.iter().zip(&mut overheads) {
            let server = Server::start(spec, &trial.flags)?;
            let held = fill(&trial, &server, &population)
                .map_err(|e| format!("{shape}, {}: {e}", spec.name))?;
            versions.push((server.name.clone(), server.version.clone()));
            overheads.push(held.overhead_bytes);
            table.push(vec![
                shape.to_owned(),
                spec.name.clone(),
                format!("{:.1}", held.overhead_bytes),
                held.items.to_string(),
                (held.resident_bytes / MIB).to_string(),
            ]);
        }
    }
    let title = format!("Memory beside keys and values, -m {}", trial.flags.memory_mib);
    let mut report = Report::new(&title, &versions);
    report.paragraph(
        "Overhead is (limit - bytes of the keys and values held) / items held, at the first \
         eviction. Mixed: keys of 16 to 40 bytes; 40 % of the values 16 to 100 bytes, 40 % 100 to \
         500, 20 % 500 to 2000.",
    );
    report.table(&table);
    report.save(&trial.out, &trial.name)?;
    save(&trial.out, &format!("{}.svg", trial.name), &plot(&trial, overheads))
}

/// Stores new keys until the server reports an eviction.
fn fill(trial: &Trial, server: &Server, population: &Arc<Population>) -> Result<Held> {
    let limit_bytes = trial.flags.memory_mib * MIB;
    let stream = StreamSpec { popularity: Popularity::Sequential, once: 0.0, seed: trial.seed };
    let mut load = Load::connect(&Plan {
        connections: 1,
        pipeline: 100,
        mix: Mix::only(Verb::SetNoreply),
        cores: trial.load_cores.clone(),
        ..Plan::new(server.address, Arc::clone(population), stream)
    })?;
    let mut client = Client::connect(server.address)?;
    let (mut stored, mut stored_bytes) = (0, 0);
    while stored_bytes < FILL_MAX * limit_bytes {
        let step = step(population, stored, limit_bytes / LOOKS);
        load.run(Until::Operations(step))?.check()?;
        stored_bytes +=
            (stored..stored + step).map(|id| content_bytes(population, id)).sum::<u64>();
        stored += step;
        let stats = client.stats()?;
        if stat(&stats, "evictions")? > 0 {
            let items = stat(&stats, "curr_items")?;
            // Which keys are left is not known, but a few lost ones do not change the mean.
            let content = stored_bytes as f64 / stored as f64;
            return Ok(Held {
                items,
                overhead_bytes: limit_bytes as f64 / items as f64 - content,
                resident_bytes: server.resident_bytes()?,
            });
        }
    }
    Err(format!("no eviction after {stored} items, {stored_bytes} bytes").into())
}

/// How many items from `first` on make up about `bytes`.
fn step(population: &Population, first: u64, bytes: u64) -> u64 {
    let mut sum = 0;
    let mut id = first;
    while sum < bytes {
        sum += content_bytes(population, id);
        id += 1;
    }
    id - first
}

fn content_bytes(population: &Population, id: u64) -> u64 {
    (population.key_bytes(id) + population.value_bytes(id)) as u64
}

fn plot(trial: &Trial, overheads: Vec<Vec<f64>>) -> String {
    let names = trial.servers.iter().map(|server| server.name.clone());
    Bars {
        title: "Memory per item beside key and value",
        axis: "bytes, lower is better",
        labels: SHAPES.iter().map(|&(shape, ..)| shape.to_owned()).collect(),
        series: names.zip(overheads).collect(),
        line: None,
    }
    .svg()
}
