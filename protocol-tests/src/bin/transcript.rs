//! Plays one or more transcripts to a server and prints what it answers, in transcript form.
//!
//! For writing transcripts: put the requests into a file, run this against memcached, read the
//! answers. Never changes a file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lexopt::prelude::{Long, Value, ValueExt};
use protocol_tests::flags::ServerFlags;
use protocol_tests::target::Target;
use protocol_tests::transcript::replay::record;
use protocol_tests::transcript::suite::load;

const USAGE: &str = "usage: transcript [--memcached PATH] FILE...
Plays each FILE to a fresh server (distcached, or the memcached at PATH) and prints the replies.";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let mut memcached = None;
    let mut files: Vec<PathBuf> = Vec::new();
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next().map_err(|error| error.to_string())? {
        match argument {
            Long("memcached") => {
                let value = arguments.value().map_err(|error| error.to_string())?;
                memcached = Some(PathBuf::from(value));
            }
            Value(file) => {
                files.push(file.parse().map_err(|error: lexopt::Error| error.to_string())?);
            }
            _ => return Err(USAGE.to_owned()),
        }
    }
    if files.is_empty() {
        return Err(USAGE.to_owned());
    }
    files.iter().try_for_each(|file| print(file, memcached.as_deref()))
}

fn print(file: &Path, memcached: Option<&Path>) -> Result<(), String> {
    let transcript = load(file)?;
    let target = start(&transcript.flags, memcached).map_err(|error| error.to_string())?;
    println!("# {} answered by {}", transcript.name, target.identity());
    print!("{}", record(&transcript, &target)?);
    Ok(())
}

fn start(flags: &ServerFlags, memcached: Option<&Path>) -> std::io::Result<Target> {
    match memcached {
        Some(binary) => Target::start_memcached(binary, flags),
        None => Target::start_distcached(flags),
    }
}
