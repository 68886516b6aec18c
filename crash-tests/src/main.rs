//! Crash, damage and fault rigs: they run a server binary, break what it stands on, and compare
//! what it says afterwards with what it had promised. Owns the list of rigs; no logic.

mod calls;
mod client;
mod disk;
#[cfg(test)]
mod fake;
mod full;
mod kill;
mod model;
mod options;
mod power;
mod server;
mod session;
mod slow;
mod snapshot_cut;
mod soak;
mod states;
mod strace;
mod stream;
mod wire;

use std::process::ExitCode;

use lexopt::Arg;

use options::Options;
use server::Spec;
use session::{Crash, Tally};

/// Anything that ends a rig, told to the user.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// What rigs return.
pub type Result<T> = std::result::Result<T, Error>;

/// Name, what it does, and its entry point, which tells whether the contract was kept.
type Rig = (&'static str, &'static str, fn(&Options) -> Result<bool>);

const RIGS: &[Rig] = &[
    ("kill", "kill -9 at random moments or at the K-th call", kill::run),
    ("states", "kinds of state by example, before and after a kill", states::run),
    ("power", "power cuts on a file system of its own (root)", power::run),
    ("snapshot-cut", "kills or power cuts in the middle of a snapshot", snapshot_cut::run),
    ("calls", "each K-th system call on the data fails (strace)", calls::run),
    ("full", "a disk that fills up and is freed again (root)", full::run),
    ("slow", "a disk whose syncs take long (strace)", slow::run),
    ("soak", "a long load with snapshots and kills: growth, losses", soak::run),
];

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("crash-tests: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool> {
    let mut parser = lexopt::Parser::from_env();
    let name = match parser.next()? {
        Some(Arg::Value(name)) => name.to_string_lossy().into_owned(),
        Some(Arg::Long("help") | Arg::Short('h')) => {
            print!("{}\n\n{}", overview(), options::HELP);
            return Ok(true);
        }
        _ => return Err(overview().into()),
    };
    let rig = RIGS.iter().find(|rig| rig.0 == name);
    let &(_, _, entry) = rig.ok_or_else(overview)?;
    entry(&Options::parse(&mut parser)?)
}

fn overview() -> String {
    let line = |&(name, about, _): &Rig| format!("\n  {name:<13} {about}");
    let lines: String = RIGS.iter().map(line).collect();
    format!("say which rig; --help lists the options:{lines}")
}

/// Prints the row of a run, and examples of what was wrong. Returns whether the contract was kept.
pub fn finish(tally: &Tally, spec: &Spec, what: &str, crash: Crash) -> bool {
    println!("{}", tally.row(spec, what, crash));
    let kept = !tally.is_broken(crash);
    if !kept {
        tally.print_examples();
    }
    kept
}
