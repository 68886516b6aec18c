//! The `load` subcommand: one run against a server that is already up. Owns its options and the
//! printout.

use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::time::Duration;

use crate::Result;
use crate::load::{self, Load, Outcome, Plan, Until};
use crate::options::{Opt, Options, opt};
use crate::population::{Lifetimes, Population};
use crate::stream::StreamSpec;

/// The options.
pub const OPTIONS: &[Opt] = &[
    opt("to", "HOST:PORT", "127.0.0.1:11211", "the server"),
    opt("protocol", "P", "text", "text (memcached's) or resp (Redis's)"),
    opt("connections", "N", "50", "connections over all threads"),
    opt("threads", "N", "1", "load threads"),
    opt("cores", "LIST", "", "pin the load threads, one core each"),
    opt(
        "verbs",
        "MIX",
        "get",
        "get, mget, mg, miss, set, set-noreply, or of the binary protocol bget, bmget, bset, \
         bset-quiet; or get=90,set=10",
    ),
    opt("pipeline", "N", "1", "commands per batch (closed loop)"),
    opt("keys-per-get", "N", "100", "keys of one mget"),
    opt("keys", "N", "100000", "number of keys"),
    opt("key-size", "SIZE", "16", "bytes: 16 or 16-40"),
    opt("value-size", "SIZE", "32", "bytes: 32, 100-300, mixed or lognormal"),
    opt("popularity", "P", "uniform", "uniform, sequential or zipf:0.99"),
    opt("once", "SHARE", "0", "share of requests, 0 to 1, for keys never asked for again"),
    opt("half-short", "", "", "half the keys live 2 to 10 seconds"),
    opt("rate", "N", "", "open loop at this many commands per second"),
    opt("look-aside", "", "", "store each key that a get did not find"),
    opt("fill", "", "", "store every key first"),
    opt("warm-up", "S", "0", "seconds of load before the measured run"),
    opt("seconds", "S", "5", "length of the run"),
    opt("operations", "N", "", "length of the run in commands, instead of seconds"),
    opt("seed", "N", "1", "equal seeds give equal request streams"),
];

/// Runs the load and prints what came of it; fails if any reply was wrong.
pub fn run(options: &Options) -> Result<()> {
    let plan = plan(options)?;
    if options.has("fill") {
        load::fill(&plan, plan.population.keys())?;
    }
    let mut load = Load::connect(&plan)?;
    let warm_up = seconds(options, "warm-up")?;
    if !warm_up.is_zero() {
        load.run(Until::Elapsed(warm_up))?;
    }
    let until = match options.maybe("operations")? {
        Some(operations) => Until::Operations(operations),
        None => Until::Elapsed(seconds(options, "seconds")?),
    };
    let outcome = load.run(until)?;
    print(&outcome);
    outcome.check()
}

fn plan(options: &Options) -> Result<Plan> {
    let to = options.text("to");
    let address = to.to_socket_addrs().map_err(|e| format!("--to {to}: {e}"))?.next();
    let lifetimes =
        if options.has("half-short") { Lifetimes::HalfShort } else { Lifetimes::Forever };
    let population = Population::new(
        options.get("keys")?,
        options.get("key-size")?,
        options.get("value-size")?,
    )?;
    Ok(Plan {
        address: address.ok_or_else(|| format!("--to {to} has no address"))?,
        connections: options.get("connections")?,
        threads: options.get("threads")?,
        pipeline: options.get("pipeline")?,
        keys_per_get: options.get("keys-per-get")?,
        mix: options.get("verbs")?,
        population: Arc::new(population.with_lifetimes(lifetimes)),
        stream: StreamSpec {
            popularity: options.get("popularity")?,
            once: options.get("once")?,
            seed: options.get("seed")?,
        },
        rate: options.maybe("rate")?,
        look_aside: options.has("look-aside"),
        protocol: options.get("protocol")?,
        cores: options.list("cores")?,
    })
}

fn seconds(options: &Options, name: &str) -> Result<Duration> {
    Ok(Duration::try_from_secs_f64(options.get(name)?)?)
}

fn print(outcome: &Outcome) {
    println!("operations  {}", outcome.operations);
    println!("seconds     {:.3}", outcome.elapsed.as_secs_f64());
    println!("per second  {:.0}", outcome.per_second());
    if outcome.hits + outcome.misses > 0 {
        println!("hits        {}", outcome.hits);
        println!("misses      {}", outcome.misses);
        println!("hit ratio   {:.4}", outcome.hit_ratio());
    }
    println!("fills       {}", outcome.fills);
    println!("wrong       {}", outcome.wrong);
    println!("failures    {}", outcome.failures);
    for percent in [50.0, 90.0, 99.0, 99.9, 99.99, 100.0] {
        println!("p{percent:<10} {:.1} us", outcome.latency_us(percent));
    }
}
