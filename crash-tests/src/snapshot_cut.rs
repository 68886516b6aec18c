//! D5: a kill or a power cut at random points of a snapshot of many items. Expected: the previous
//! or the new snapshot loads, nothing acknowledged is lost, and no half-written file stays.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::client::{Connection, Pace, fill};
use crate::disk::{Cutter, Disk, Scratch, why_no_mounts};
use crate::model::{Dialect, Reply};
use crate::options::Options;
use crate::server::{Server, Spec};
use crate::session::{Crash, Tally, check, load, streams};
use crate::stream::Stream;
use crate::{Result, finish};

const SNAPSHOT_TIME_MAX: Duration = Duration::from_secs(120);
const DISK_MIB: u64 = 4096;
/// A light load: what is cut is the snapshot.
const PACE: Pace = Pace { batch_max: 8, pause: Duration::from_millis(2) };

/// Runs the rig.
pub(crate) fn run(options: &Options) -> Result<bool> {
    if let (true, Some(why)) = (options.power, why_no_mounts()) {
        println!("skipped: snapshot-cut --power: {why}");
        return Ok(true);
    }
    println!("{}", Tally::heading());
    let options = Options { keys: options.items / options.clients.max(1), ..options.clone() };
    let mut kept = true;
    for program in [Some(&options.server), options.beside.as_ref()].into_iter().flatten() {
        for &policy in &options.policies {
            let scratch = Scratch::new(&options.work)?;
            let spec = Spec::new(&options, program, policy, &scratch.0);
            let mut disk = options.power.then(|| Disk::ext4(&scratch.0, DISK_MIB)).transpose()?;
            let mut run = Run {
                streams: streams(&options, &spec)
                    .into_iter()
                    .map(Stream::with_small_values)
                    .collect(),
                tally: Tally::default(),
                rng: fastrand::Rng::with_seed(options.seed),
                during: 0,
                spec,
            };
            run.rounds(options.rounds, &scratch.0, &mut disk)?;
            let Run { tally, spec, during, .. } = run;
            let how = if options.power { "power cut" } else { "kill -9" };
            let what = format!("{how} at a snapshot of {} items, {during} in it", options.items);
            let crash = if options.power { Crash::Power(policy) } else { Crash::Process };
            kept &= finish(&tally, &spec, &what, crash);
        }
    }
    Ok(kept)
}

struct Run {
    streams: Vec<Stream>,
    tally: Tally,
    rng: fastrand::Rng,
    /// Rounds in which the snapshot had not been finished.
    during: u64,
    spec: Spec,
}

impl Run {
    fn rounds(&mut self, rounds: u32, scratch: &Path, disk: &mut Option<Disk>) -> Result<()> {
        let top = disk.as_ref().map_or(scratch, |disk| disk.mount.as_path());
        let directory = top.join("data");
        fs::create_dir(&directory)?;
        let mut server = Server::start(&self.spec, &directory)?;
        for stream in &mut self.streams {
            fill(stream, &mut Connection::open(server.address, server.dialect)?)?;
        }
        let duration = timed_snapshot(&server)?;
        eprintln!("a snapshot takes {:.3} s", duration.as_secs_f64());
        for _ in 0..rounds {
            let crash = self.crash(&mut server, duration, disk.as_ref())?;
            drop(server);
            if let Some(disk) = disk {
                disk.unmount()?;
                disk.mount()?;
            }
            self.tally.rounds += 1;
            server = match Server::start(&self.spec, &directory) {
                Ok(server) => server,
                Err(error) => {
                    self.tally.start_failures += 1;
                    self.tally.example(error.to_string());
                    return Ok(());
                }
            };
            self.tally.slowest_start = self.tally.slowest_start.max(server.start_time);
            let kind = match disk {
                Some(_) => Crash::Power(self.spec.policy),
                None => Crash::Process,
            };
            let crash = (kind, crash);
            check(&mut self.streams, server.address, &self.spec, crash, &mut self.tally)?;
            self.look_for_garbage(&directory)?;
        }
        Ok(())
    }

    fn crash(
        &mut self,
        server: &mut Server,
        duration: Duration,
        disk: Option<&Disk>,
    ) -> Result<Instant> {
        let after = duration.mul_f64(self.rng.f64() * 1.1);
        let cutter = disk.map(Cutter::new).transpose()?;
        let (address, dialect) = (server.address, server.dialect);
        let during = &mut self.during;
        let (crash, seen) =
            load(&mut self.streams, address, PACE, || -> Result<Option<Instant>> {
                let mut connection = Connection::open_patient(address, dialect, after.max(MOMENT))?;
                connection.send(dialect.snapshot())?;
                match dialect {
                    Dialect::Text => {
                        let begin = Instant::now();
                        let reply = connection.receive(|bytes| dialect.parse_reply(bytes));
                        *during += u64::from(reply.is_err());
                        sleep(after.saturating_sub(begin.elapsed()));
                    }
                    Dialect::Resp => {
                        sleep(after);
                        *during += u64::from(redis_is_rewriting(&mut connection));
                    }
                }
                let crash = match cutter {
                    Some(cutter) => Some(cutter.cut()?),
                    None => None,
                };
                server.kill();
                Ok(crash)
            });
        self.tally.note(&seen);
        // Replies that were under way at a kill count: the server had sent them.
        Ok(crash?.unwrap_or_else(Instant::now))
    }

    /// Files that recovery should have removed.
    fn look_for_garbage(&mut self, directory: &Path) -> Result<()> {
        for entry in fs::read_dir(directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if GARBAGE.iter().any(|part| name.contains(part)) {
                self.tally.violation(format!("left after recovery: {name}"));
            }
        }
        Ok(())
    }
}

/// Parts of the names of files that are being written, or were found damaged.
const GARBAGE: [&str; 5] = ["tmp", "temp", ".next", ".new", "damaged"];

/// Shortest time a socket can be told to wait.
const MOMENT: Duration = Duration::from_millis(1);

/// How long a snapshot takes.
fn timed_snapshot(server: &Server) -> Result<Duration> {
    let begin = Instant::now();
    let mut connection =
        Connection::open_patient(server.address, server.dialect, SNAPSHOT_TIME_MAX)?;
    let reply = connection.ask(server.dialect.snapshot())?;
    if server.dialect == Dialect::Resp {
        while redis_is_rewriting(&mut connection) && begin.elapsed() < SNAPSHOT_TIME_MAX {
            sleep(Duration::from_millis(5));
        }
    } else if reply != Reply::Done {
        return Err(format!("snapshot: {reply:?}").into());
    }
    Ok(begin.elapsed())
}

fn redis_is_rewriting(connection: &mut Connection) -> bool {
    let found = connection.stats(b"INFO persistence\r\n", "module_fork_last_cow_size");
    let is_on = |(name, value): &(String, String)| {
        name.starts_with("aof_rewrite_") && name != "aof_rewrites" && value == "1"
    };
    found.is_ok_and(|stats| stats.iter().any(is_on))
}
