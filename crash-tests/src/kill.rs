//! D1: kill -9 under load, at random moments or at the K-th system call of a kind. Expected: no
//! acknowledged mutation lost, whatever the policy.

use std::ops::Range;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::client::{Connection, unix_now};
use crate::disk::Scratch;
use crate::model::{Outcome, Reply};
use crate::options::Options;
use crate::server::{Server, Spec};
use crate::session::{Crash, FULL_SPEED, Tally, check, load, streams};
use crate::strace;
use crate::stream::Stream;
use crate::{Result, finish};

const KILL_AFTER_MS: Range<u64> = 5..400;
/// How long a call is waited for before the round counts as not reached.
const REACH_TIME_MAX: Duration = Duration::from_secs(6);
/// One round in so many begins with a flush of everything.
const FLUSH_EVERY: u32 = 7;

/// Runs the rig.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let at_call = options.at_call.as_deref().map(parse_at_call).transpose()?;
    if at_call.is_some() && !strace::works() {
        println!("skipped: kill --at-call needs strace");
        return Ok(true);
    }
    println!("{}", Tally::heading());
    let mut kept = true;
    for program in [Some(&options.server), options.beside.as_ref()].into_iter().flatten() {
        for &policy in &options.policies {
            let scratch = Scratch::new(&options.work)?;
            let spec = Spec::new(options, program, policy, &scratch.0);
            let mut run = Run {
                streams: streams(options, &spec),
                tally: Tally::default(),
                rng: fastrand::Rng::with_seed(options.seed),
                not_reached: 0,
                spec,
            };
            let directory = scratch.fresh("data")?;
            run.rounds(options, &directory, at_call.as_ref())?;
            let what = match &options.at_call {
                Some(call) => format!("kill at {call}, {} not reached", run.not_reached),
                None => "kill -9".to_owned(),
            };
            kept &= finish(&run.tally, &run.spec, &what, Crash::Process);
        }
    }
    Ok(kept)
}

/// `CALL:K` or `CALL:A..B`.
fn parse_at_call(text: &str) -> Result<(String, Range<u32>)> {
    let (call, numbers) = text.split_once(':').ok_or("--at-call: say CALL:K")?;
    let range = match numbers.split_once("..") {
        Some((from, to)) => from.parse()?..to.parse()?,
        None => {
            let number: u32 = numbers.parse()?;
            number..number + 1
        }
    };
    if range.is_empty() || range.start == 0 {
        return Err("--at-call: calls count from 1".into());
    }
    Ok((call.to_owned(), range))
}

struct Run {
    streams: Vec<Stream>,
    tally: Tally,
    rng: fastrand::Rng,
    not_reached: u64,
    spec: Spec,
}

impl Run {
    fn rounds(
        &mut self,
        options: &Options,
        directory: &Path,
        at_call: Option<&(String, Range<u32>)>,
    ) -> Result<()> {
        for round in 0..options.rounds {
            let mut spec = self.spec.clone();
            if let Some((call, range)) = at_call {
                let number = range.start + round % (range.end - range.start);
                spec.wrapper = strace::kill_at(call, number);
            }
            // Killed during its recovery: no failure to start, if the start after it succeeds.
            let mut server = match Server::start(&spec, directory) {
                Ok(server) => server,
                Err(_) if at_call.is_some() => {
                    self.tally.rounds += 1;
                    self.restart_and_check(directory, Instant::now(), Vec::new())?;
                    continue;
                }
                Err(error) => {
                    self.tally.start_failures += 1;
                    self.tally.example(error.to_string());
                    return Ok(());
                }
            };
            if round % FLUSH_EVERY == FLUSH_EVERY - 1 {
                self.flush(&mut server);
            }
            let tokens = self.cas_tokens(&server);
            let crash = self.crash(&mut server, at_call.is_some());
            drop(server);
            self.tally.rounds += 1;
            self.restart_and_check(directory, crash, tokens)?;
        }
        Ok(())
    }

    /// Loads the server until it dies. Returns when that was.
    fn crash(&mut self, server: &mut Server, at_call: bool) -> Instant {
        let snapshot_first = self.rng.bool();
        let delay = |rng: &mut fastrand::Rng| Duration::from_millis(rng.u64(KILL_AFTER_MS));
        let (before, after) = (delay(&mut self.rng), delay(&mut self.rng));
        let (address, dialect) = (server.address, server.dialect);
        let not_reached = &mut self.not_reached;
        let ((), seen) = load(&mut self.streams, address, FULL_SPEED, || {
            if snapshot_first || at_call {
                sleep(before);
                if let Ok(mut connection) = Connection::open(address, dialect) {
                    // Whether it is ever answered does not matter: the kill comes first or not.
                    let _ = connection.send(dialect.snapshot());
                    sleep(after);
                }
            } else {
                sleep(after);
            }
            if at_call && server.wait(REACH_TIME_MAX).is_none() {
                *not_reached += 1;
            }
            server.kill();
        });
        self.tally.note(&seen);
        // Replies that were under way at the kill count: the server had sent them.
        Instant::now()
    }

    fn restart_and_check(
        &mut self,
        directory: &Path,
        crash: Instant,
        tokens: Vec<(Vec<u8>, u64)>,
    ) -> Result<()> {
        let server = match Server::start(&self.spec, directory) {
            Ok(server) => server,
            Err(error) => {
                self.tally.start_failures += 1;
                self.tally.example(error.to_string());
                return Ok(());
            }
        };
        self.tally.slowest_start = self.tally.slowest_start.max(server.start_time);
        let crash = (Crash::Process, crash);
        check(&mut self.streams, server.address, &self.spec, crash, &mut self.tally)?;
        self.check_tokens(&server, tokens)
    }

    /// Removes everything; half of the time the server is killed before it can answer.
    fn flush(&mut self, server: &mut Server) {
        let tickets: Vec<_> = self.streams.iter_mut().map(Stream::issue_flush).collect();
        let Ok(mut connection) = Connection::open(server.address, server.dialect) else { return };
        let flush = server.dialect.flush();
        if self.rng.bool() {
            let _ = connection.send(flush);
            server.kill();
        } else if let Ok(Reply::Done) = connection.ask(flush) {
            let now = Instant::now();
            for (stream, tickets) in self.streams.iter_mut().zip(tickets) {
                for ticket in tickets {
                    stream.settle(ticket, Outcome::Acknowledged(now, Reply::Done));
                }
            }
        }
    }

    /// CAS tokens of a few keys; only text has them.
    fn cas_tokens(&self, server: &Server) -> Vec<(Vec<u8>, u64)> {
        let mut tokens = Vec::new();
        if server.dialect != crate::model::Dialect::Text {
            return tokens;
        }
        let Ok(mut connection) = Connection::open(server.address, server.dialect) else {
            return tokens;
        };
        for key in self.streams.iter().flat_map(|stream| stream.keys.iter().take(4)) {
            let request = [b"mg ", key.name.as_slice(), b" c\r\n"].concat();
            // "HD c123" is no reply to a mutation, so it comes as a line that is none.
            if let Ok(Reply::Garbage(line)) = connection.ask(&request)
                && let Some(token) = line.strip_prefix("HD c").and_then(|c| c.parse().ok())
            {
                tokens.push((key.name.clone(), token));
            }
        }
        tokens
    }

    /// A token from before a restart must never match.
    fn check_tokens(&mut self, server: &Server, tokens: Vec<(Vec<u8>, u64)>) -> Result<()> {
        let mut connection = Connection::open(server.address, server.dialect)?;
        let now = unix_now();
        for (name, token) in tokens {
            // Already expired: if it is stored in spite of all, the key shows it.
            let line = format!(" 0 {} 1 {token}\r\nx\r\n", now - 1);
            let reply = connection.ask(&[b"cas ", name.as_slice(), line.as_bytes()].concat())?;
            if reply == Reply::Done {
                let name = name.escape_ascii();
                self.tally.violation(format!("{name}: a CAS token from before the kill matched"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_to_kill_at() {
        assert_eq!(parse_at_call("fdatasync:3").unwrap(), ("fdatasync".to_owned(), 3..4));
        assert_eq!(parse_at_call("rename:1..9").unwrap(), ("rename".to_owned(), 1..9));
        for text in ["fdatasync", "fdatasync:x", "fdatasync:0", "fdatasync:4..4"] {
            assert!(parse_at_call(text).is_err(), "{text}");
        }
    }
}
