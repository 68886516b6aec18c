//! What a snapshot does to the clients being served meanwhile. Owns the rounds with and without
//! snapshots, the one who asks for them, and the tables; the open loop is `load`'s.
//!
//! All servers are filled first, and stand still while another is measured. In a round each of them
//! has the load without a snapshot, then the same load with one being taken all the time: asked for
//! again as soon as it is done. What was written before reaches the disk first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::client::{Client, stat};
use crate::load::{self, Load, Outcome, Plan, Until};
use crate::options::{Opt, Options, opt};
use crate::persistent::{DataDirectory, Fsync, Setup, with_log};
use crate::population::Population;
use crate::report::{Report, Table, save};
use crate::scenarios::KEY_SIZE;
use crate::server::{Server, ServerSpec};
use crate::stream::{Popularity, StreamSpec};
use crate::wire::Protocol;
use crate::{Result, median};

/// Options beside the common ones.
pub const OPTIONS: &[Opt] = &[
    opt("fill", "MIB", "1024", "keys and values to fill the servers with"),
    opt("value-size", "SIZE", "200", "bytes: 200, or mixed and others as in the load command"),
    opt("workers", "N", "1", "-t of distcached"),
    opt("fsync", "MODE", "everysec", "no, everysec or always"),
    opt("rate", "N", "20000", "commands per second over all connections"),
    opt("verbs", "MIX", "get=90,set=10", "of get and set"),
    opt("connections", "N", "50", "connections"),
    opt("seconds", "S", "5", "length of one measurement"),
];

/// Measurements with more stolen time are repeated, so often at most. (The kernel counts in
/// hundredths of a second.)
const STOLEN_MS_MAX: u64 = 10;
const ATTEMPTS_MAX: usize = 5;
/// For the disk to come to rest.
const SETTLE: Duration = Duration::from_secs(1);
const WARM_UP: Duration = Duration::from_millis(300);
/// A snapshot that takes longer has failed.
const SNAPSHOT_TIME_MAX: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(20);
/// The servers have room for everything, so hardly any key may be missing.
const MISS_SHARE_MAX: f64 = 0.001;
const MIB: u64 = 1 << 20;

/// One measurement.
#[derive(Clone, Copy, Debug)]
struct Sample {
    server: usize,
    round: usize,
    snapshots: bool,
    /// Processor time that the host took from this machine meanwhile.
    stolen_ms: u64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    max_us: f64,
}

/// A server filled, and the snapshots it has taken.
struct Subject {
    // Dropped first: a server must not lose its directory while it runs.
    server: Server,
    directory: DataDirectory,
    plan: Plan,
    snapshot_seconds: Vec<f64>,
}

/// Runs the rounds and writes the report.
pub fn run(options: &Options) -> Result<()> {
    let mut setup = Setup::new(options, "snapshot")?;
    setup.flags.workers = options.get("workers")?;
    let time = Duration::try_from_secs_f64(options.get("seconds")?)?;
    let fsync: Fsync = options.get("fsync")?;
    let fill_bytes = options.get::<u64>("fill")? * MIB;
    let keys = keys_within(fill_bytes, options.text("value-size"))?;
    let population = Population::new(keys, KEY_SIZE.parse()?, options.get("value-size")?)?;
    let population = Arc::new(population);
    let mut subjects = Vec::new();
    for spec in &setup.servers {
        let subject = Subject::start(options, &setup, spec, fsync, &population)
            .map_err(|e| format!("{}: {e}", spec.name))?;
        subject.server.hold()?;
        subjects.push(subject);
    }
    let mut samples = Vec::new();
    for round in 0..setup.rounds {
        for (server, subject) in subjects.iter_mut().enumerate() {
            for snapshots in [false, true] {
                subject.server.release()?;
                let (outcome, stolen_ms) = subject
                    .measure_undisturbed(time, snapshots)
                    .map_err(|e| format!("{}, round {}: {e}", subject.server.name, round + 1))?;
                subject.server.hold()?;
                let us = |percent| outcome.latency_us(percent);
                let sample = Sample {
                    server,
                    round,
                    snapshots,
                    stolen_ms,
                    p50_us: us(50.0),
                    p99_us: us(99.0),
                    p999_us: us(99.9),
                    max_us: us(100.0),
                };
                eprintln!("{} {sample:?}", subject.server.name);
                samples.push(sample);
            }
        }
    }
    subjects.iter().try_for_each(|subject| subject.server.release())?;
    let title = format!("Latency during snapshots, {} commands per second", options.text("rate"));
    write_report(&setup, &title, keys, &subjects, &samples)
}

/// How many keys make up `bytes` with their values.
fn keys_within(bytes: u64, value_sizes: &str) -> Result<u64> {
    /// Enough for the mean of any sizes.
    const SAMPLE: u64 = 100_000;
    let population = Population::new(SAMPLE, KEY_SIZE.parse()?, value_sizes.parse()?)?;
    let item_bytes = |id| (population.key_bytes(id) + population.value_bytes(id)) as u64;
    let sum: u64 = (0..SAMPLE).map(item_bytes).sum();
    Ok((bytes as f64 / sum as f64 * SAMPLE as f64).round().max(1.0) as u64)
}

impl Subject {
    fn start(
        options: &Options,
        setup: &Setup,
        spec: &ServerSpec,
        fsync: Fsync,
        population: &Arc<Population>,
    ) -> Result<Self> {
        let directory = DataDirectory::new(&setup.data)?;
        let server = Server::start(&with_log(spec, directory.path(), fsync), &setup.flags)?;
        let stream = StreamSpec { popularity: Popularity::Uniform, once: 0.0, seed: setup.seed };
        let plan = Plan {
            connections: options.get("connections")?,
            rate: Some(options.get("rate")?),
            mix: options.get("verbs")?,
            protocol: server.protocol,
            cores: setup.load_cores.clone(),
            ..Plan::new(server.address, Arc::clone(population), stream)
        };
        load::fill(&plan, population.keys())?;
        let mut subject = Self { server, directory, plan, snapshot_seconds: Vec::new() };
        // The log of the filling goes, and its bytes reach the disk, before anything is measured.
        take_snapshots(&subject.server, &AtomicBool::new(true))?;
        subject.measure(WARM_UP, false)?;
        Ok(subject)
    }

    /// A measurement in which the host let this machine run, or the least disturbed of several:
    /// where a virtual processor stands still for 20 milliseconds, that is the percentile.
    fn measure_undisturbed(&mut self, time: Duration, snapshots: bool) -> Result<(Outcome, u64)> {
        let mut best = None;
        for _ in 0..ATTEMPTS_MAX {
            let before_ms = stolen_ms()?;
            let outcome = self.measure(time, snapshots)?;
            let stolen_ms = stolen_ms()?.saturating_sub(before_ms);
            if best.as_ref().is_none_or(|(_, least)| stolen_ms < *least) {
                best = Some((outcome, stolen_ms));
            }
            if stolen_ms <= STOLEN_MS_MAX {
                break;
            }
        }
        Ok(best.ok_or("nothing was measured")?)
    }

    /// One round of load; with snapshots from before its first command until after its last.
    fn measure(&mut self, time: Duration, snapshots: bool) -> Result<Outcome> {
        // Otherwise the files of the server before are written while this one is measured.
        rustix::fs::sync();
        sleep(SETTLE);
        let mut load = Load::connect(&self.plan)?;
        load.run(Until::Elapsed(WARM_UP))?.check()?;
        let server = &self.server;
        let over = &AtomicBool::new(false);
        let (outcome, seconds) = std::thread::scope(|scope| {
            let asker = snapshots.then(|| scope.spawn(move || take_snapshots(server, over)));
            if snapshots {
                // The snapshot asked for is then under way.
                sleep(POLL);
            }
            let outcome = load.run(Until::Elapsed(time));
            over.store(true, Ordering::SeqCst);
            let seconds = asker.map_or_else(
                || Ok(Vec::new()),
                |asker| asker.join().unwrap_or_else(|_| Err("the asker panicked".into())),
            );
            (outcome, seconds)
        });
        let outcome = outcome?;
        outcome.check()?;
        self.snapshot_seconds.extend(seconds?);
        if 1.0 - outcome.hit_ratio() > MISS_SHARE_MAX && outcome.misses > 0 {
            return Err(format!("{} keys are missing; raise --memory", outcome.misses).into());
        }
        Ok(outcome)
    }

    /// Bytes of the last snapshot.
    fn snapshot_bytes(&self) -> Result<u64> {
        match self.server.protocol {
            Protocol::Text => {
                let stats = Client::connect(self.server.address)?.stats_of("stats persistence")?;
                stat(&stats, "last_snapshot_bytes")
            }
            Protocol::Resp => Ok(std::fs::metadata(self.directory.path().join("dump.rdb"))?.len()),
        }
    }

    /// Bytes of resident memory at their highest, with what Redis's child copied.
    fn resident_bytes_peak(&self) -> Result<u64> {
        let peak = self.server.resident_bytes_peak()?;
        match self.server.protocol {
            Protocol::Text => Ok(peak),
            Protocol::Resp => {
                let info = Client::connect(self.server.address)?.info("persistence")?;
                Ok(peak + stat(&info, "rdb_last_cow_size")?)
            }
        }
    }
}

/// Time, over all processors, that the host gave to others while this machine wanted to run.
fn stolen_ms() -> Result<u64> {
    const TICK_MS: u64 = 10;
    let text = std::fs::read_to_string("/proc/stat")?;
    let ticks = text.split_whitespace().nth(8).and_then(|ticks| ticks.parse::<u64>().ok());
    Ok(ticks.ok_or("/proc/stat has no stolen time")? * TICK_MS)
}

/// Has one snapshot taken after the other until it is over, at least one: the seconds of each.
fn take_snapshots(server: &Server, over: &AtomicBool) -> Result<Vec<f64>> {
    let mut client = Client::connect(server.address)?;
    client.set_timeout(SNAPSHOT_TIME_MAX)?;
    let mut seconds = Vec::new();
    loop {
        let begin = Instant::now();
        match server.protocol {
            Protocol::Text => match client.ask("snapshot")?.as_str() {
                "OK" => {}
                line => return Err(format!("the answer to snapshot was \"{line}\"").into()),
            },
            Protocol::Resp => take_background_save(&mut client)?,
        }
        seconds.push(begin.elapsed().as_secs_f64());
        if over.load(Ordering::SeqCst) {
            return Ok(seconds);
        }
    }
}

fn take_background_save(client: &mut Client) -> Result<()> {
    let line = client.ask("BGSAVE")?;
    if !line.starts_with('+') {
        return Err(format!("the answer to BGSAVE was \"{line}\"").into());
    }
    let begin = Instant::now();
    loop {
        let info = client.info("persistence")?;
        if stat(&info, "rdb_bgsave_in_progress")? == 0 {
            return match info.get("rdb_last_bgsave_status").map(String::as_str) {
                Some("ok") => Ok(()),
                status => Err(format!("BGSAVE: {status:?}").into()),
            };
        }
        if begin.elapsed() > SNAPSHOT_TIME_MAX {
            return Err("BGSAVE does not end".into());
        }
        sleep(POLL);
    }
}

fn write_report(
    setup: &Setup,
    title: &str,
    keys: u64,
    subjects: &[Subject],
    samples: &[Sample],
) -> Result<()> {
    let versions: Vec<_> =
        subjects.iter().map(|s| (s.server.name.clone(), s.server.version.clone())).collect();
    let disturbed = samples.iter().filter(|sample| sample.stolen_ms > STOLEN_MS_MAX).count();
    let mut report = Report::new(title, &versions);
    report.paragraph(&format!(
        "{keys} items. Microseconds from the time a command was meant to leave until its reply was \
         read: medians over the rounds, lowest and highest round in parentheses. Snapshots follow \
         one another without a pause. The servers that are not being measured stand still. A \
         measurement in which the host took more than {STOLEN_MS_MAX} ms of processor time is \
         repeated, up to {ATTEMPTS_MAX} times; of those that count, {disturbed} had more."
    ));
    report.table(&latencies(setup, samples));
    report.paragraph(
        "Highest RSS of the whole run, filling included; Redis's with the pages that its child \
         copied. The bound of distcached is -m times 1.05 and 32 MiB.",
    );
    report.table(&resources(setup, subjects)?);
    report.save(&setup.out, &setup.name)?;
    save(&setup.out, &format!("{}.csv", setup.name), &raw(setup, samples).csv())
}

fn latencies(setup: &Setup, samples: &[Sample]) -> Table {
    let mut table = Table::new(&["server", "percentile", "quiet us", "snapshots us", "ratio"]);
    const PERCENTILES: [&str; 3] = ["p50", "p99", "p99.9"];
    for (server, spec) in setup.servers.iter().enumerate() {
        for (index, percentile) in PERCENTILES.iter().enumerate() {
            let value = |sample: &Sample| [sample.p50_us, sample.p99_us, sample.p999_us][index];
            let of = |snapshots: bool| {
                let mine = samples.iter().filter(|s| s.server == server);
                mine.filter(|s| s.snapshots == snapshots).map(value).collect::<Vec<f64>>()
            };
            let cell = |values: &[f64]| {
                let low = values.iter().copied().fold(f64::INFINITY, f64::min);
                let high = values.iter().copied().fold(0.0, f64::max);
                format!("{:.0} ({low:.0}-{high:.0})", median(values.iter().copied()))
            };
            let (quiet, during) = (of(false), of(true));
            table.push(vec![
                spec.name.clone(),
                (*percentile).to_owned(),
                cell(&quiet),
                cell(&during),
                format!("{:.2}", median(during) / median(quiet)),
            ]);
        }
    }
    table
}

fn resources(setup: &Setup, subjects: &[Subject]) -> Result<Table> {
    let mut table = Table::new(&[
        "server",
        "snapshots",
        "median s",
        "longest s",
        "snapshot MiB",
        "RSS MiB",
        "bound MiB",
    ]);
    for subject in subjects {
        let longest = subject.snapshot_seconds.iter().copied().fold(0.0, f64::max);
        let bound = match subject.server.protocol {
            Protocol::Text => bound_mib(setup.flags.memory_mib).to_string(),
            Protocol::Resp => "-".to_owned(),
        };
        table.push(vec![
            subject.server.name.clone(),
            subject.snapshot_seconds.len().to_string(),
            format!("{:.2}", median(subject.snapshot_seconds.iter().copied())),
            format!("{longest:.2}"),
            (subject.snapshot_bytes()? / MIB).to_string(),
            (subject.resident_bytes_peak()? / MIB).to_string(),
            bound,
        ]);
    }
    Ok(table)
}

/// What distcached promises never to exceed.
fn bound_mib(memory_mib: u64) -> u64 {
    memory_mib + memory_mib / 20 + 32
}

fn raw(setup: &Setup, samples: &[Sample]) -> Table {
    let mut table =
        Table::new(&["server", "round", "snapshots", "p50_us", "p99_us", "p99.9_us", "max_us"]);
    for sample in samples {
        table.push(vec![
            setup.servers[sample.server].name.clone(),
            (sample.round + 1).to_string(),
            if sample.snapshots { "yes" } else { "no" }.to_owned(),
            format!("{:.1}", sample.p50_us),
            format!("{:.1}", sample.p99_us),
            format!("{:.1}", sample.p999_us),
            format!("{:.1}", sample.max_us),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_fill_the_bytes() {
        assert_eq!(keys_within(216_000_000, "200").unwrap(), 1_000_000);
        let mixed = keys_within(1 << 30, "mixed").unwrap();
        let population =
            Population::new(mixed, KEY_SIZE.parse().unwrap(), "mixed".parse().unwrap()).unwrap();
        let bytes: usize =
            (0..mixed).map(|id| population.key_bytes(id) + population.value_bytes(id)).sum();
        assert!((bytes as f64 / f64::from(1 << 30) - 1.0).abs() < 0.01, "{bytes}");
    }

    #[test]
    fn the_bound_is_a_twentieth_and_some() {
        assert_eq!(bound_mib(1024), 1024 + 51 + 32);
        assert_eq!(bound_mib(2000), 2132);
    }
}
