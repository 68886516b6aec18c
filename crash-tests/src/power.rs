//! D2: power cuts under load, on an ext4 of its own in a file. Expected: `always` loses nothing
//! acknowledged, `everysec` nothing older than two seconds, and in every mode the state of each key
//! is one that it had (with one log: the states of all keys are a prefix of each writer's stream).

use std::ops::Range;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::client::Connection;
use crate::disk::{Cutter, Disk, Scratch, why_no_mounts};
use crate::options::Options;
use crate::server::{Server, Spec};
use crate::session::{Crash, FULL_SPEED, Tally, check, load, streams};
use crate::stream::Stream;
use crate::{Result, finish};

const CUT_AFTER_MS: Range<u64> = 100..3600;
const DISK_MIB: u64 = 2048;
/// A new file system each so many cuts, or logs would fill it.
const CUTS_PER_DISK: u32 = 5;

/// Runs the rig.
pub(crate) fn run(options: &Options) -> Result<bool> {
    if let Some(why) = why_no_mounts() {
        println!("skipped: power: {why}");
        return Ok(true);
    }
    println!("{}", Tally::heading());
    let mut kept = true;
    for program in [Some(&options.server), options.beside.as_ref()].into_iter().flatten() {
        for &policy in &options.policies {
            let scratch = Scratch::new(&options.work)?;
            let spec = Spec::new(options, program, policy, &scratch.0);
            let mut tally = Tally::default();
            let mut rng = fastrand::Rng::with_seed(options.seed);
            let mut left = options.rounds;
            while left > 0 {
                let cuts = left.min(CUTS_PER_DISK);
                left -= cuts;
                let mut disk = Disk::ext4(&scratch.0, DISK_MIB)?;
                let mut streams = streams(options, &spec);
                for _ in 0..cuts {
                    if !cut(&mut disk, &spec, &mut streams, &mut rng, &mut tally)? {
                        break;
                    }
                }
            }
            kept &= finish(&tally, &spec, "power cut", Crash::Power(policy));
        }
    }
    Ok(kept)
}

/// One cut. Returns whether the server could be started.
fn cut(
    disk: &mut Disk,
    spec: &Spec,
    streams: &mut [Stream],
    rng: &mut fastrand::Rng,
    tally: &mut Tally,
) -> Result<bool> {
    let directory = disk.mount.join("data");
    if !directory.exists() {
        std::fs::create_dir(&directory)?;
        // The folder is the operator's: it is there before the server is.
        std::process::Command::new("sync").arg("-f").arg(&disk.mount).status()?;
    }
    let mut server = match Server::start(spec, &directory) {
        Ok(server) => server,
        Err(error) => {
            tally.start_failures += 1;
            tally.example(error.to_string());
            return Ok(false);
        }
    };
    let after = Duration::from_millis(rng.u64(CUT_AFTER_MS));
    let snapshot = rng.bool();
    let cutter = Cutter::new(disk)?;
    let (address, dialect) = (server.address, server.dialect);
    let (crash, seen) = load(streams, address, FULL_SPEED, || -> Result<Instant> {
        sleep(after / 2);
        let connection = Connection::open(address, dialect);
        if let (true, Ok(mut connection)) = (snapshot, connection) {
            let _ = connection.send(dialect.snapshot());
            sleep(after / 2);
        } else {
            sleep(after / 2);
        }
        let crash = cutter.cut()?;
        server.kill();
        Ok(crash)
    });
    let crash = crash?;
    tally.note(&seen);
    drop(server);
    disk.unmount()?;
    disk.mount()?;
    tally.rounds += 1;
    let server = match Server::start(spec, &directory) {
        Ok(server) => server,
        Err(error) => {
            tally.start_failures += 1;
            tally.example(error.to_string());
            return Ok(false);
        }
    };
    tally.slowest_start = tally.slowest_start.max(server.start_time);
    check(streams, server.address, spec, (Crash::Power(spec.policy), crash), tally)?;
    Ok(true)
}
