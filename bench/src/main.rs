//! Command line of the bench. Owns the list of subcommands; no logic.

use std::process::ExitCode;

use bench::options::{Opt, Options};
use bench::{
    Result, churn, cleanup, compare, durability, hitratio, idle, large_value, latency,
    load_command, memory, overload, pauses, persistent, replay, restart, simulate, sizing,
    snapshot, threads, traces, trial, working_set,
};
use lexopt::Arg;

/// The daemon's: the store's pauses are also those of the allocator. (The C library's gives memory
/// back in one piece of up to 64 MiB, which takes 27 milliseconds.)
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Name, what it does, its tables of options, and its entry point.
type Subcommand =
    (&'static str, &'static str, &'static [&'static [Opt]], fn(&Options) -> Result<()>);

const SUBCOMMANDS: &[Subcommand] = &[
    ("load", "put a load on a running server", &[load_command::OPTIONS], load_command::run),
    (
        "compare",
        "CPU per operation, throughput and latency of servers",
        &[compare::OPTIONS, trial::OPTIONS],
        compare::run,
    ),
    (
        "threads",
        "the same at several numbers of threads",
        &[threads::OPTIONS, trial::OPTIONS],
        threads::run,
    ),
    (
        "latency",
        "latency of gets at a fixed rate",
        &[latency::OPTIONS, trial::OPTIONS],
        latency::run,
    ),
    (
        "durability",
        "what a log costs sets, and Redis beside it",
        &[durability::OPTIONS, persistent::OPTIONS],
        durability::run,
    ),
    (
        "snapshot",
        "latency at a fixed rate while snapshots are taken, and Redis beside it",
        &[snapshot::OPTIONS, persistent::OPTIONS],
        snapshot::run,
    ),
    (
        "restart",
        "time until data is back, from a snapshot and from the log, and Redis beside it",
        &[restart::OPTIONS, persistent::OPTIONS],
        restart::run,
    ),
    ("idle", "memory of idle connections", &[idle::OPTIONS, trial::OPTIONS], idle::run),
    (
        "memory",
        "bytes per item beside key and value at the first eviction",
        &[memory::OPTIONS, trial::OPTIONS],
        memory::run,
    ),
    (
        "hitratio",
        "hit ratios of servers behind a look-aside application",
        &[hitratio::OPTIONS, trial::OPTIONS],
        hitratio::run,
    ),
    (
        "simulate",
        "hit ratios of eviction policies on the same streams",
        &[simulate::OPTIONS, traces::OPTIONS],
        simulate::run,
    ),
    (
        "replay",
        "hit ratios of distcached's store on the same streams, without sockets",
        &[replay::OPTIONS, traces::OPTIONS],
        replay::run,
    ),
    (
        "sizing",
        "hit ratios of other sizes, as estimated by a store and as measured",
        &[sizing::OPTIONS, traces::OPTIONS],
        sizing::run,
    ),
    (
        "churn",
        "a working set that fits, changed without pause: does all of it stay",
        &[churn::OPTIONS],
        churn::run,
    ),
    (
        "working-set",
        "the same on servers, and what that costs",
        &[working_set::OPTIONS, trial::OPTIONS],
        working_set::run,
    ),
    ("pauses", "time of single calls of distcached's store", &[pauses::OPTIONS], pauses::run),
    (
        "large-value",
        "a very large value in distcached, and what other clients notice",
        &[large_value::OPTIONS],
        large_value::run,
    ),
    (
        "overload",
        "what others notice while one client attacks, and what that costs",
        &[overload::OPTIONS],
        overload::run,
    ),
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut parser = lexopt::Parser::from_env();
    let name = match parser.next()? {
        Some(Arg::Value(name)) => name.into_string().map_err(|name| format!("{name:?}"))?,
        _ => return Err(overview().into()),
    };
    let subcommand = SUBCOMMANDS.iter().find(|subcommand| subcommand.0 == name);
    let &(name, about, tables, entry) = subcommand.ok_or_else(overview)?;
    let usage = format!("bench {name}: {about}");
    match Options::parse(&mut parser, &usage, tables)? {
        Some(options) => {
            cleanup::on_signals()?;
            entry(&options)
        }
        None => Ok(()),
    }
}

fn overview() -> String {
    let line = |&(name, about, ..): &Subcommand| format!("\n  {name:<11} {about}");
    let lines: String = SUBCOMMANDS.iter().map(line).collect();
    format!("say what to do; each has --help:{lines}")
}
