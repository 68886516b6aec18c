//! F3: a disk whose syncs take long. Figures: latency of reads and of sets, and the largest age of
//! unsynced data that the server admits to. Expected: reads do not wait; under `everysec` sets
//! wait rather than let unsynced data become older than two seconds and one sync.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Result;
use crate::client::{Connection, end_of};
use crate::disk::Scratch;
use crate::model::Dialect;
use crate::options::Options;
use crate::server::{Policy, Server, Spec};
use crate::strace;

const SYNCS: &str = "fdatasync,fsync";
const PACE: Duration = Duration::from_millis(1);
const STATS_EVERY: Duration = Duration::from_millis(50);
/// The contract's two seconds, and the granularity of looking at it. While a sync takes longer
/// than that, what it is about to write grows older by as much, whatever the server does.
const AGE_MAX_S: f64 = 2.2;
const WINDOW: Duration = Duration::from_secs(2);
/// A read that takes longer has waited for the disk.
const READ_P99_MAX: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the rig.
pub(crate) fn run(options: &Options) -> Result<bool> {
    if !strace::works() {
        println!("skipped: slow needs strace");
        return Ok(true);
    }
    println!(
        "| server | fsync | sync takes | gets | p50 | p99 | max | sets | p50 | p99 | max \
         | oldest unsynced | result |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    );
    let mut kept = true;
    for program in [Some(&options.server), options.beside.as_ref()].into_iter().flatten() {
        for &policy in &options.policies {
            for &delay in [Duration::ZERO].iter().chain(&options.delays) {
                let scratch = Scratch::new(&options.work)?;
                let mut spec = Spec::new(options, program, policy, &scratch.0);
                spec.wrapper = strace::delay(SYNCS, delay);
                kept &= measure(&spec, &scratch, delay, Duration::from_secs(options.seconds))?;
            }
        }
    }
    Ok(kept)
}

fn measure(spec: &Spec, scratch: &Scratch, delay: Duration, run: Duration) -> Result<bool> {
    let directory = scratch.fresh("data")?;
    let server = Server::start(spec, &directory)?;
    let (address, dialect) = (server.address, server.dialect);
    let (get, set): (&[u8], &[u8]) = match dialect {
        // To a miss the classic get answers with one line.
        Dialect::Text => (b"get missing\r\n", b"set k 0 0 5\r\nvalue\r\n"),
        Dialect::Resp => (b"GET missing\r\n", b"SET k value\r\n"),
    };
    let stop = AtomicBool::new(false);
    let (gets, sets, age) = std::thread::scope(|scope| {
        let gets = scope.spawn(|| latencies(address, dialect, get, &stop));
        let sets = scope.spawn(|| latencies(address, dialect, set, &stop));
        let age = scope.spawn(|| oldest_unsynced(address, dialect, &stop));
        sleep(run);
        stop.store(true, Ordering::Relaxed);
        (gets.join(), sets.join(), age.join())
    });
    drop(server);
    let panicked = |_| "a thread of the rig panicked";
    let (gets, sets) = (gets.map_err(panicked)??, sets.map_err(panicked)??);
    let age = age.map_err(panicked)?;
    let text = age.as_ref().map_or("-".to_owned(), |(name, age)| format!("{age:.2} s ({name})"));
    let read_waits = percentile(&gets, 0.99) > READ_P99_MAX;
    let unavoidable = if delay > WINDOW { delay.as_secs_f64() } else { 0.0 };
    let age_max_s = AGE_MAX_S + unavoidable;
    let too_old = spec.policy == Policy::Everysec && age.is_some_and(|(_, age)| age > age_max_s);
    let broken = spec.dialect == Dialect::Text && (read_waits || too_old);
    println!(
        "| {} | {} | {} ms | {} | {} | {text} | {} |",
        spec.name(),
        spec.policy.name(),
        delay.as_millis(),
        columns(&gets),
        columns(&sets),
        if broken { "BROKEN" } else { "kept" },
    );
    Ok(!broken)
}

/// Sorted times from request to reply. A reply that does not come in time counts as that time.
fn latencies(
    address: SocketAddr,
    dialect: Dialect,
    request: &[u8],
    stop: &AtomicBool,
) -> Result<Vec<Duration>> {
    let mut connection = Connection::open_patient(address, dialect, PATIENCE)?;
    let mut found = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let begin = Instant::now();
        let reply = connection.ask(request);
        found.push(begin.elapsed());
        if let Err(error) = reply {
            return Err(format!("{:?}: {error}", end_of(&error)).into());
        }
        sleep(PACE);
    }
    found.sort_unstable();
    Ok(found)
}

/// The largest age of unsynced data in `stats persistence`, with its name there.
fn oldest_unsynced(
    address: SocketAddr,
    dialect: Dialect,
    stop: &AtomicBool,
) -> Option<(String, f64)> {
    if dialect == Dialect::Resp {
        return None;
    }
    let mut connection = Connection::open_patient(address, dialect, PATIENCE).ok()?;
    let mut oldest: Option<(String, f64)> = None;
    while !stop.load(Ordering::Relaxed) {
        for (name, value) in connection.stats(b"stats persistence\r\n", "END").ok()? {
            let Some(age_s) = age_s(&name, &value) else { continue };
            if oldest.as_ref().is_none_or(|(_, most)| age_s > *most) {
                oldest = Some((name, age_s));
            }
        }
        sleep(STATS_EVERY);
    }
    oldest
}

/// Seconds, if the statistic is the age of unsynced data; its unit ends the name.
fn age_s(name: &str, value: &str) -> Option<f64> {
    if !(name.contains("unsynced") && (name.contains("age") || name.contains("oldest"))) {
        return None;
    }
    let value: f64 = value.parse().ok()?;
    let units = [("_us", 1e-6), ("_ms", 1e-3), ("_ns", 1e-9)];
    let unit = units.iter().find(|(suffix, _)| name.ends_with(suffix));
    Some(value * unit.map_or(1.0, |(_, seconds)| *seconds))
}

fn percentile(sorted: &[Duration], share: f64) -> Duration {
    let at = (sorted.len() as f64 * share) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn columns(sorted: &[Duration]) -> String {
    let ms = |share| format!("{:.2} ms", percentile(sorted, share).as_secs_f64() * 1e3);
    format!("{} | {} | {} | {}", sorted.len(), ms(0.5), ms(0.99), ms(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_by_their_unit() {
        assert_eq!(age_s("log_unsynced_age_ms", "1500"), Some(1.5));
        assert_eq!(age_s("unsynced_age", "2"), Some(2.0));
        assert_eq!(age_s("log_unsynced_bytes", "2"), None);
    }

    #[test]
    fn percentiles_of_sorted_times() {
        let times: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 0.5), Duration::from_millis(51));
        assert_eq!(percentile(&times, 1.0), Duration::from_millis(100));
        assert_eq!(percentile(&[], 0.5), Duration::ZERO);
    }
}
