//! Command line of the bench. Owns the list of subcommands; no logic.

use std::process::ExitCode;

use bench::options::{Opt, Options};
use bench::{
    Result, compare, hitratio, idle, latency, load_command, memory, simulate, traces, trial,
};
use lexopt::Arg;

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
        "latency",
        "latency of gets at a fixed rate",
        &[latency::OPTIONS, trial::OPTIONS],
        latency::run,
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
        Some(options) => entry(&options),
        None => Ok(()),
    }
}

fn overview() -> String {
    let line = |&(name, about, ..): &Subcommand| format!("\n  {name:<10} {about}");
    let lines: String = SUBCOMMANDS.iter().map(line).collect();
    format!("say what to do; each has --help:{lines}")
}
