//! F2: the disk fills up and is freed again. Expected: mutations are refused, reads go on, and
//! when there is space again the service resumes without a restart; under `always` the server
//! exits instead and starts again. Nothing acknowledged is lost. On the tmpfs, logs of twice its
//! size must not fill it: snapshots make them superfluous in time.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Result;
use crate::client::{Connection, Pace, fill, unix_now};
use crate::disk::{Disk, Scratch, why_no_mounts};
use crate::model::{Dialect, Reply};
use crate::options::Options;
use crate::server::{Policy, Server, Spec, status_text};
use crate::session::{Crash, Tally, check, load, streams};
use crate::stream::Stream;

const DISK_MIB: u64 = 64;
const PACE: Pace = Pace { batch_max: 16, pause: Duration::from_millis(1) };
const WARM_UP: Duration = Duration::from_millis(500);
const REFUSE_TIME_MAX: Duration = Duration::from_secs(20);
const RESUME_TIME_MAX: Duration = Duration::from_secs(60);
const FULL_TIME: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(20);
/// The logs' size in disks, the values in them, and the number of keys.
const OUTGROW_TIMES: u64 = 2;
const OUTGROW_VALUE_BYTES: usize = 1 << 10;
const OUTGROW_KEYS: u64 = 100;

/// Runs the rig.
pub(crate) fn run(options: &Options) -> Result<bool> {
    if let Some(why) = why_no_mounts() {
        println!("skipped: full: {why}");
        return Ok(true);
    }
    println!(
        "| server | fsync | disk | refused after | refusals | reads while full | failed \
         | resumed after | acknowledged | lost | result |\n\
         |---|---|---|---|---|---|---|---|---|---|---|"
    );
    let mut kept = true;
    for program in [Some(&options.server), options.beside.as_ref()].into_iter().flatten() {
        for &policy in &options.policies {
            for is_tmpfs in [false, true] {
                let scratch = Scratch::new(&options.work)?;
                let disk = match is_tmpfs {
                    true => Disk::tmpfs(&scratch.0, DISK_MIB)?,
                    false => Disk::ext4(&scratch.0, DISK_MIB)?,
                };
                let mut spec = Spec::new(options, program, policy, &scratch.0);
                spec.start_time_max = RESUME_TIME_MAX;
                kept &= disk_fills(options, &spec, &disk, is_tmpfs)?;
            }
        }
    }
    Ok(kept)
}

/// What was seen while the disk was full.
#[derive(Debug, Default)]
struct Outcome {
    refused_after: Option<Duration>,
    resumed_after: Option<Duration>,
    exited: Option<String>,
    reads: u64,
    reads_failed: u64,
}

fn disk_fills(options: &Options, spec: &Spec, disk: &Disk, is_tmpfs: bool) -> Result<bool> {
    let directory = disk.mount.join("data");
    fs::create_dir(&directory)?;
    let mut server = Server::start(spec, &directory)?;
    // Keys that nobody writes to while they are read.
    let options = Options { keys: options.keys.min(200), ..options.clone() };
    let mut writers: Vec<Stream> =
        streams(&options, spec).into_iter().map(Stream::with_small_values).collect();
    let quiet = Options { clients: options.clients + 1, ..options.clone() };
    let mut still = streams(&quiet, spec).pop().ok_or("no writers")?;
    fill(&mut still, &mut Connection::open(server.address, server.dialect)?)?;
    let (outcome, seen) = load(&mut writers, server.address, PACE, || -> Result<Outcome> {
        sleep(WARM_UP);
        let ballast = disk.mount.join("ballast");
        let outcome = while_full(&mut server, &still, &ballast)?;
        sleep(WARM_UP);
        Ok(outcome)
    });
    let outcome = outcome?;
    let mut tally = Tally::default();
    tally.note(&seen);
    // What each documents for a log that cannot be written under `always`.
    let exit = match spec.dialect {
        Dialect::Text => "exit 74",
        Dialect::Resp => "exit 1",
    };
    judge(&outcome, (spec.policy == Policy::Always).then_some(exit), &mut tally);
    server.kill();
    let crash = (Crash::Disk, Instant::now());
    writers.push(still);
    match Server::start(spec, &directory) {
        Ok(server) => {
            check(&mut writers, server.address, spec, crash, &mut tally)?;
            if spec.dialect == Dialect::Text && is_tmpfs {
                // Redis does not rewrite its log here; and on an image, beside other work, a
                // snapshot may take longer than half of so small a disk lasts.
                outgrow(&server, &mut tally);
            }
        }
        Err(error) => {
            tally.start_failures += 1;
            tally.example(error.to_string());
        }
    }
    let broken = tally.is_broken(Crash::Disk);
    let seconds = |time: Option<Duration>| {
        time.map_or("never".to_owned(), |time| format!("{:.2} s", time.as_secs_f64()))
    };
    println!(
        "| {} | {} | {} {DISK_MIB} MiB | {} | {} | {} | {} | {} | {} | {} | {} |",
        spec.name(),
        spec.policy.name(),
        if is_tmpfs { "tmpfs" } else { "ext4" },
        outcome.exited.clone().unwrap_or_else(|| seconds(outcome.refused_after)),
        tally.refused,
        outcome.reads,
        outcome.reads_failed,
        seconds(outcome.resumed_after),
        tally.acknowledged,
        tally.lost,
        if broken { "BROKEN" } else { "kept" },
    );
    tally.print_examples();
    Ok(!broken)
}

fn judge(outcome: &Outcome, exit: Option<&str>, tally: &mut Tally) {
    if let Some(status) = &outcome.exited {
        if exit != Some(status.as_str()) {
            tally.violation(format!("the server ended: {status}"));
        }
        return;
    }
    if outcome.refused_after.is_none() {
        tally.violation("no mutation was refused though the disk is full".to_owned());
    }
    if outcome.resumed_after.is_none() {
        tally.violation("the service did not resume".to_owned());
    }
    if outcome.reads_failed > 0 || outcome.reads == 0 {
        tally.violation(format!("{} reads failed", outcome.reads_failed));
    }
}

/// Fills the disk, reads for a while, frees it, and waits for the service to resume.
fn while_full(server: &mut Server, still: &Stream, ballast: &Path) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let (address, dialect) = (server.address, server.dialect);
    let mut probe = Probe { address, dialect, connection: None };
    let begin = Instant::now();
    while begin.elapsed() < REFUSE_TIME_MAX && outcome.refused_after.is_none() {
        fill_up(ballast)?;
        if let Some(status) = server.ended() {
            outcome.exited = Some(status_text(status));
            fs::remove_file(ballast)?;
            return Ok(outcome);
        }
        if matches!(probe.set(), Some(Reply::Refused(_))) {
            outcome.refused_after = Some(begin.elapsed());
        }
        sleep(POLL);
    }
    let begin = Instant::now();
    while begin.elapsed() < FULL_TIME {
        outcome.reads += still.keys.len() as u64;
        let found = Connection::open(address, dialect)
            .and_then(|mut connection| connection.read_back(still));
        let now = unix_now();
        outcome.reads_failed += match &found {
            Ok(found) => {
                let pairs = still.keys.iter().zip(found);
                let differs =
                    pairs.filter(|(key, got)| !key.history.agrees(dialect, got.as_ref(), now));
                differs.count() as u64
            }
            Err(_) => still.keys.len() as u64,
        };
        sleep(POLL);
    }
    fs::remove_file(ballast)?;
    let begin = Instant::now();
    while begin.elapsed() < RESUME_TIME_MAX && outcome.resumed_after.is_none() {
        if let Some(status) = server.ended() {
            outcome.exited = Some(status_text(status));
            return Ok(outcome);
        }
        if probe.set() == Some(Reply::Done) {
            outcome.resumed_after = Some(begin.elapsed());
        }
        sleep(POLL);
    }
    Ok(outcome)
}

/// Writes until there is no space left.
fn fill_up(ballast: &Path) -> Result<()> {
    let mut file: File = OpenOptions::new().create(true).append(true).open(ballast)?;
    let chunk = vec![0xa5; 1 << 20];
    for size in [1 << 20, 1 << 12, 1] {
        while file.write_all(&chunk[..size]).is_ok() {}
    }
    Ok(())
}

/// Asks whether mutations are taken. The one that meets the failure is not answered: its connection
/// is closed, and the next one needs another.
struct Probe {
    address: SocketAddr,
    dialect: Dialect,
    connection: Option<Connection>,
}

impl Probe {
    fn set(&mut self) -> Option<Reply> {
        let request: &[u8] = match self.dialect {
            Dialect::Text => b"set full-probe 0 0 1\r\nx\r\n",
            Dialect::Resp => b"SET full-probe x\r\n",
        };
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(self.address, self.dialect).ok()?,
        };
        let reply = connection.ask(request).ok()?;
        self.connection = Some(connection);
        Some(reply)
    }
}

/// Writes several times what the disk holds, over and over the same keys; some 20 MB a second,
/// so that half of this small disk lasts longer than a snapshot takes. None may be
/// refused.
fn outgrow(server: &Server, tally: &mut Tally) {
    match refusals_of_outgrowing(server) {
        Ok(0) => {}
        Ok(refused) => tally.violation(format!("logs filled the disk: {refused} refused")),
        Err(why) => tally.violation(format!("logs filled the disk: {why}")),
    }
}

fn refusals_of_outgrowing(server: &Server) -> Result<u64> {
    let mut connection = Connection::open(server.address, server.dialect)?;
    let value = vec![b'v'; OUTGROW_VALUE_BYTES];
    let mut refused = 0;
    for number in 0..DISK_MIB * OUTGROW_TIMES * (1 << 20) / OUTGROW_VALUE_BYTES as u64 {
        let key = number % OUTGROW_KEYS;
        let mut request = format!("set outgrow-{key} 0 0 {OUTGROW_VALUE_BYTES}\r\n").into_bytes();
        request.extend_from_slice(&value);
        request.extend_from_slice(b"\r\n");
        refused += u64::from(connection.ask(&request)? != Reply::Done);
    }
    Ok(refused)
}
