//! Sends the same random commands to two servers and fails at the first difference that
//! `differences.rs` does not list.
//!
//! `--server` and `--oracle` name binaries; without them the embedded distcached is compared with
//! the first memcached of `MEMCACHED` or `PATH`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use lexopt::prelude::{Long, ValueExt};
use protocol_tests::differences::{RULES, flags_of_both};
use protocol_tests::frames;
use protocol_tests::process::memcached_binaries;
use protocol_tests::stream::run::{Plan, run};
use protocol_tests::target::Target;

const USAGE: &str =
    "usage: differential [--binary] [--commands N] [--seed N] [--server PATH] [--oracle PATH]
                    [--failures N] [--rules]
--commands N   how many commands (default 100000)
--seed N       repeats a run; without it the seed is random and printed
--server PATH  the server under test, a memcached if it says so (default: distcached, embedded)
--oracle PATH  the memcached to compare with (default: from MEMCACHED or PATH)
--failures N   go on until N unexplained differences are found (default 1)
--binary       plays the binary protocol
--workers N    how many workers each of both servers has (default: as many as each takes by itself)
--rules        prints the intended differences and ends";

struct Options {
    plan: Plan,
    server: Option<PathBuf>,
    oracle: Option<PathBuf>,
    rules: bool,
    binary: bool,
    workers: Option<usize>,
}

fn main() -> ExitCode {
    let result = parse_options().map_err(|error| format!("{error}\n{USAGE}")).and_then(compare);
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn parse_options() -> Result<Options, lexopt::Error> {
    let mut options = Options {
        plan: Plan { seed: fastrand::u64(..1_000_000), commands: 100_000, failures_max: 1 },
        server: None,
        oracle: None,
        rules: false,
        binary: false,
        workers: None,
    };
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("commands") => options.plan.commands = arguments.value()?.parse()?,
            Long("seed") => options.plan.seed = arguments.value()?.parse()?,
            Long("failures") => options.plan.failures_max = arguments.value()?.parse()?,
            Long("server") => options.server = Some(arguments.value()?.into()),
            Long("oracle") => options.oracle = Some(arguments.value()?.into()),
            Long("binary") => options.binary = true,
            Long("workers") => options.workers = Some(arguments.value()?.parse()?),
            Long("rules") => options.rules = true,
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(options)
}

/// False: there was an unexplained difference.
fn compare(options: Options) -> Result<bool, String> {
    if options.rules {
        for rule in RULES {
            println!("{} ({:?}): {}", rule.id, rule.between, rule.reason);
        }
        return Ok(true);
    }
    let flags = flags_of_both(options.workers);
    let fails = |error: std::io::Error| error.to_string();
    let left = match &options.server {
        Some(binary) => Target::start_binary(binary, &flags),
        None => Target::start_distcached(&flags),
    };
    let left = left.map_err(fails)?;
    let oracle = options.oracle.or_else(|| memcached_binaries().into_iter().next());
    let oracle = oracle.ok_or("no memcached: set MEMCACHED or give --oracle")?;
    let right = Target::start_memcached(&oracle, &flags).map_err(fails)?;
    println!("left: {}, right: {}", left.identity(), right.identity());
    println!("seed: {}", options.plan.seed);
    let start = Instant::now();
    let (report, agree) = if options.binary {
        let report = frames::run::run(&left, &right, options.plan).map_err(fails)?;
        (report.to_string(), report.unexplained.is_empty())
    } else {
        let report = run(&left, &right, options.plan).map_err(fails)?;
        (report.to_string(), report.unexplained.is_empty())
    };
    println!("{report}{:.1} s", start.elapsed().as_secs_f64());
    Ok(agree)
}
