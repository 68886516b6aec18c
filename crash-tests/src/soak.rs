//! S1: a long mixed load with snapshots and kills. Figures: growth of memory and of open files
//! within a life of the server, and acknowledged mutations lost over all of them.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::client::{Connection, Pace};
use crate::disk::Scratch;
use crate::options::Options;
use crate::server::{Server, Spec};
use crate::session::{Crash, Tally, check, load, streams};
use crate::{Result, finish};

/// The rig remembers every mutation until the next kill.
const PACE: Pace = Pace { batch_max: 16, pause: Duration::from_millis(1) };
const SAMPLE_EVERY: Duration = Duration::from_millis(500);
const SNAPSHOT_EVERY: Duration = Duration::from_secs(5);

/// Runs the rig.
pub(crate) fn run(options: &Options) -> Result<bool> {
    println!("{}", Tally::heading());
    let mut kept = true;
    for program in [Some(&options.server), options.beside.as_ref()].into_iter().flatten() {
        for &policy in &options.policies {
            let scratch = Scratch::new(&options.work)?;
            let spec = Spec::new(options, program, policy, &scratch.0);
            kept &= soak(options, &spec, &scratch)?;
        }
    }
    Ok(kept)
}

/// Memory in KiB and open files, with the seconds since the start of the server.
type Sample = (f64, f64, f64);

fn soak(options: &Options, spec: &Spec, scratch: &Scratch) -> Result<bool> {
    let directory = scratch.fresh("data")?;
    let mut streams = streams(options, spec);
    let mut tally = Tally::default();
    let mut lives: Vec<Vec<Sample>> = Vec::new();
    let begin = Instant::now();
    let mut server = Server::start(spec, &directory)?;
    while begin.elapsed() < Duration::from_secs(options.seconds) {
        let (address, dialect) = (server.address, server.dialect);
        let (samples, seen) = load(&mut streams, address, PACE, || {
            let (born, mut samples) = (Instant::now(), Vec::new());
            let mut snapshots = 0;
            while born.elapsed() < options.kill_every {
                sleep(SAMPLE_EVERY);
                if let Some((rss, files)) = server.usage() {
                    samples.push((born.elapsed().as_secs_f64(), rss as f64, files as f64));
                }
                if born.elapsed() > SNAPSHOT_EVERY * (snapshots + 1) {
                    snapshots += 1;
                    if let Ok(mut connection) = Connection::open(address, dialect) {
                        let _ = connection.ask(dialect.snapshot());
                    }
                }
            }
            server.kill();
            samples
        });
        let crash = (Crash::Process, Instant::now());
        lives.push(samples);
        tally.note(&seen);
        tally.rounds += 1;
        server = match Server::start(spec, &directory) {
            Ok(server) => server,
            Err(error) => {
                tally.start_failures += 1;
                tally.example(error.to_string());
                break;
            }
        };
        tally.slowest_start = tally.slowest_start.max(server.start_time);
        check(&mut streams, server.address, spec, crash, &mut tally)?;
    }
    drop(server);
    let kept = finish(&tally, spec, "soak", Crash::Process);
    println!("\n| life | RSS at the end | RSS growth | open files | growth of open files |");
    println!("|---|---|---|---|---|");
    for (number, life) in lives.iter().enumerate() {
        // What the start itself takes is no growth.
        let settled = &life[life.len() / 3..];
        let last = settled.last().copied().unwrap_or_default();
        println!(
            "| {} | {:.0} KiB | {:+.1} KiB/min | {:.0} | {:+.2} /min |",
            number + 1,
            last.1,
            60.0 * slope(settled, |sample| sample.1),
            last.2,
            60.0 * slope(settled, |sample| sample.2),
        );
    }
    Ok(kept)
}

/// Least squares, per second.
fn slope(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> f64 {
    let count = samples.len() as f64;
    let mean = |of: &dyn Fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (time, height) = (mean(&|sample| sample.0), mean(&|sample| value(sample)));
    let product = |s: &Sample| (s.0 - time) * (value(s) - height);
    let square = |s: &Sample| (s.0 - time).powi(2);
    let squares: f64 = samples.iter().map(square).sum();
    if squares == 0.0 { 0.0 } else { samples.iter().map(product).sum::<f64>() / squares }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes() {
        let line: Vec<Sample> =
            (0..9).map(|x| (f64::from(x), 5.0 + 3.0 * f64::from(x), 7.0)).collect();
        assert!((slope(&line, |sample| sample.1) - 3.0).abs() < 1e-9);
        assert!(slope(&line, |sample| sample.2).abs() < 1e-9);
        assert_eq!(slope(&line[..1], |sample| sample.1), 0.0);
    }
}
