//! How soon a server is back with its data: from a snapshot, and from its log alone. Owns the
//! filling, the ends and the starts, and the table.
//!
//! A start is timed from the creation of the process to the first hit, with the data's files in the
//! page cache, where the end before has left them. Before the next start, everything is asked for.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::load::{Load, Mix, Plan, Until, Verb};
use crate::options::{Opt, Options, opt};
use crate::persistent::{DataDirectory, Fsync, Setup, with_log, with_snapshots};
use crate::population::Population;
use crate::report::{Report, Table, save};
use crate::scenarios::KEY_SIZE;
use crate::server::{Flags, Server, ServerSpec};
use crate::stream::{Popularity, StreamSpec};
use crate::wire::Protocol;
use crate::{Result, median};

/// Options beside the common ones.
pub const OPTIONS: &[Opt] = &[
    opt("items", "N", "2000000", "number of items"),
    opt("value-size", "SIZE", "200", "bytes, as in the load command"),
    opt("workers", "LIST", "1,2", "-t of distcached, each in turn"),
    opt("rounds", "N", "3", "rounds, in each of which every server takes its turn"),
];

/// A server that needs longer to end or to start has failed.
const TIME_MAX: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(1);
const MIB: u64 = 1 << 20;

/// What a server comes back from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// A snapshot taken at a clean end.
    Snapshot,
    /// The log alone, after a kill.
    Log,
}

impl Source {
    fn name(self, protocol: Protocol) -> &'static str {
        match (self, protocol) {
            (Self::Snapshot, Protocol::Text) => "snapshot",
            (Self::Log, Protocol::Text) => "log",
            (Self::Snapshot, Protocol::Resp) => "RDB",
            (Self::Log, Protocol::Resp) => "AOF",
        }
    }
}

/// A server with its number of workers.
#[derive(Clone, Debug)]
struct Candidate {
    spec: ServerSpec,
    workers: usize,
}

/// One start.
#[derive(Clone, Copy, Debug)]
struct Sample {
    round: usize,
    candidate: usize,
    source: Source,
    /// Until the first hit.
    seconds: f64,
    /// CPU time of the process by then.
    cpu_seconds: f64,
    /// Size of the data directory before.
    bytes: u64,
    /// For the clean end before it, its snapshot included.
    stop_seconds: f64,
}

/// Runs the rounds and writes the report.
pub fn run(options: &Options) -> Result<()> {
    let setup = Setup::new(options, "restart")?;
    let items: u64 = options.get("items")?;
    let sizes = options.get("value-size")?;
    let population = Arc::new(Population::new(items, KEY_SIZE.parse()?, sizes)?);
    let candidates = candidates(&setup.servers, &options.list("workers")?);
    let mut versions = Vec::new();
    let mut samples = Vec::new();
    for round in 0..setup.rounds {
        for (index, candidate) in candidates.iter().enumerate() {
            let flags = Flags { workers: candidate.workers, ..setup.flags.clone() };
            let course = Course { setup: &setup, flags, population: &population };
            for source in [Source::Log, Source::Snapshot] {
                let (version, sample) = course.measure(&candidate.spec, source).map_err(|e| {
                    let name = source.name(candidate.spec.protocol);
                    format!("{}, -t {}, {name}: {e}", candidate.spec.name, candidate.workers)
                })?;
                let sample = Sample { round, candidate: index, ..sample };
                eprintln!("{} -t {} {sample:?}", candidate.spec.name, candidate.workers);
                samples.push(sample);
                if versions.iter().all(|(name, _)| *name != candidate.spec.name) {
                    versions.push((candidate.spec.name.clone(), version));
                }
            }
        }
    }
    write_report(&setup, items, &candidates, &samples, &versions)
}

/// Every server with each number of workers; Redis has one.
fn candidates(servers: &[ServerSpec], workers: &[usize]) -> Vec<Candidate> {
    let of = |spec: &ServerSpec| {
        let workers = if spec.protocol == Protocol::Resp { &[1] } else { workers };
        let with = |&workers: &usize| Candidate { spec: spec.clone(), workers };
        workers.iter().map(with).collect::<Vec<_>>()
    };
    servers.iter().flat_map(of).collect()
}

/// What is alike in the starts of one candidate.
struct Course<'a> {
    setup: &'a Setup,
    flags: Flags,
    population: &'a Arc<Population>,
}

impl Course<'_> {
    /// Fills a server, ends it, and times the start after that.
    fn measure(&self, spec: &ServerSpec, source: Source) -> Result<(String, Sample)> {
        let directory = DataDirectory::new(&self.setup.data)?;
        let spec = match source {
            Source::Log => with_log(spec, directory.path(), Fsync::No),
            Source::Snapshot => with_snapshots(spec, directory.path(), Fsync::No),
        };
        let server = Server::start(&spec, &self.flags)?;
        // With replies: what was answered must survive, and nothing else is promised.
        self.run_all(&server, Verb::Set)?;
        let version = server.version.clone();
        let stop_seconds = end(server, source)?.as_secs_f64();
        let bytes = directory.bytes()?;
        let begin = Instant::now();
        let mut server = Server::spawn(&spec, &self.flags)?;
        self.await_hit(&mut server)?;
        let seconds = begin.elapsed().as_secs_f64();
        let cpu_seconds = server.process_cpu_ns()? as f64 / 1e9;
        self.run_all(&server, Verb::Get)?;
        let (round, candidate) = (0, 0);
        Ok((
            version,
            Sample { round, candidate, source, seconds, cpu_seconds, bytes, stop_seconds },
        ))
    }

    /// Asks for the item in the middle until it is there. Refused connections and errors are what a
    /// server that is not ready answers; a miss is data lost.
    fn await_hit(&self, server: &mut Server) -> Result<()> {
        let mut key = Vec::new();
        self.population.push_key(self.population.keys() / 2, &mut key);
        let command = match server.protocol {
            Protocol::Text => format!("get {}", String::from_utf8_lossy(&key)),
            Protocol::Resp => format!("GET {}", String::from_utf8_lossy(&key)),
        };
        let ask = |address| -> Result<String> {
            let mut client = Client::connect(address)?;
            client.set_timeout(TIME_MAX)?;
            client.ask(&command)
        };
        let begin = Instant::now();
        loop {
            match ask(server.address) {
                Ok(line) if line.starts_with("VALUE ") => return Ok(()),
                Ok(line) if line == "END" || line == "$-1" => {
                    return Err("the server answers, without its data".into());
                }
                Ok(line) if line.starts_with('$') => return Ok(()),
                other if begin.elapsed() > TIME_MAX => {
                    return Err(format!("not ready after a long time: {other:?}").into());
                }
                _ => {}
            }
            server.check_running()?;
            sleep(POLL);
        }
    }

    /// Sets or gets every item once; all must be there.
    fn run_all(&self, server: &Server, verb: Verb) -> Result<()> {
        let popularity = Popularity::Sequential;
        let stream = StreamSpec { popularity, once: 0.0, seed: self.setup.seed };
        let plan = Plan {
            mix: Mix::only(verb),
            pipeline: 100,
            connections: 4,
            protocol: server.protocol,
            cores: self.setup.load_cores.clone(),
            ..Plan::new(server.address, Arc::clone(self.population), stream)
        };
        let items = self.population.keys();
        let outcome = Load::connect(&plan)?.run(Until::Operations(items))?;
        outcome.check()?;
        match outcome.misses {
            0 => Ok(()),
            misses => Err(format!("{misses} of {items} items are missing").into()),
        }
    }
}

/// Ends a server so that it comes back from `source`.
fn end(server: Server, source: Source) -> Result<Duration> {
    if source == Source::Log {
        let begin = Instant::now();
        drop(server);
        return Ok(begin.elapsed());
    }
    let begin = Instant::now();
    if server.protocol == Protocol::Resp {
        let mut client = Client::connect(server.address)?;
        client.set_timeout(TIME_MAX)?;
        let line = client.ask("SAVE")?;
        if line != "+OK" {
            return Err(format!("the answer to SAVE was \"{line}\"").into());
        }
    }
    server.terminate(TIME_MAX)?;
    Ok(begin.elapsed())
}

fn write_report(
    setup: &Setup,
    items: u64,
    candidates: &[Candidate],
    samples: &[Sample],
    versions: &[(String, String)],
) -> Result<()> {
    let mut report = Report::new(&format!("Restart with {items} items"), versions);
    report.paragraph(
        "From the start of the process to its first hit; medians over the rounds, lowest and \
         highest in parentheses. Files are in the page cache. CPU is that of the process up to the \
         hit, and items per second and core are divided by it. Snapshot and RDB: after a clean \
         end, whose time, snapshot included, is in the last column; log and AOF: after a kill, \
         without any snapshot. All items were asked for afterwards.",
    );
    report.table(&summary(items, candidates, samples));
    report.save(&setup.out, &setup.name)?;
    save(&setup.out, &format!("{}.csv", setup.name), &raw(candidates, samples).csv())
}

fn summary(items: u64, candidates: &[Candidate], samples: &[Sample]) -> Table {
    let mut table = Table::new(&[
        "server",
        "-t",
        "from",
        "MiB",
        "s to first hit",
        "M items/s",
        "CPU s",
        "M items/s/core",
        "s to end",
    ]);
    let millions = items as f64 / 1e6;
    for (index, candidate) in candidates.iter().enumerate() {
        for source in [Source::Snapshot, Source::Log] {
            let of = |value: fn(&Sample) -> f64| -> Vec<f64> {
                let mine = samples.iter().filter(|s| s.candidate == index && s.source == source);
                mine.map(value).collect()
            };
            let seconds = of(|s| s.seconds);
            let low = seconds.iter().copied().fold(f64::INFINITY, f64::min);
            let high = seconds.iter().copied().fold(0.0, f64::max);
            let (seconds, cpu_seconds) = (median(seconds), median(of(|s| s.cpu_seconds)));
            table.push(vec![
                candidate.spec.name.clone(),
                candidate.workers.to_string(),
                source.name(candidate.spec.protocol).to_owned(),
                format!("{:.0}", median(of(|s| s.bytes as f64)) / MIB as f64),
                format!("{seconds:.2} ({low:.2}-{high:.2})"),
                format!("{:.2}", millions / seconds),
                format!("{cpu_seconds:.2}"),
                format!("{:.2}", millions / cpu_seconds),
                match source {
                    Source::Snapshot => format!("{:.2}", median(of(|s| s.stop_seconds))),
                    Source::Log => "-".to_owned(),
                },
            ]);
        }
    }
    table
}

fn raw(candidates: &[Candidate], samples: &[Sample]) -> Table {
    let mut table =
        Table::new(&["server", "workers", "round", "from", "bytes", "seconds", "cpu_s", "stop_s"]);
    for sample in samples {
        let candidate = &candidates[sample.candidate];
        table.push(vec![
            candidate.spec.name.clone(),
            candidate.workers.to_string(),
            (sample.round + 1).to_string(),
            sample.source.name(candidate.spec.protocol).to_owned(),
            sample.bytes.to_string(),
            format!("{:.4}", sample.seconds),
            format!("{:.4}", sample.cpu_seconds),
            format!("{:.4}", sample.stop_seconds),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_has_one_worker_and_the_others_each_number() {
        let servers = ["a=a".parse().unwrap(), ServerSpec::redis("r"), "b=b".parse().unwrap()];
        let found = candidates(&servers, &[1, 2]);
        let found: Vec<_> = found.iter().map(|c| (c.spec.name.as_str(), c.workers)).collect();
        assert_eq!(found, [("a", 1), ("a", 2), ("redis", 1), ("b", 1), ("b", 2)]);
    }

    #[test]
    fn rates_are_of_medians() {
        let candidates = candidates(&["a=a".parse().unwrap()], &[2]);
        let sample = |source, seconds| Sample {
            round: 0,
            candidate: 0,
            source,
            seconds,
            cpu_seconds: seconds * 2.0,
            bytes: 3 * MIB,
            stop_seconds: 0.5,
        };
        let samples = [
            sample(Source::Snapshot, 4.0),
            sample(Source::Log, 1.0),
            sample(Source::Snapshot, 2.0),
            sample(Source::Snapshot, 1.0),
        ];
        let csv = summary(4_000_000, &candidates, &samples).csv();
        let rows: Vec<&str> = csv.lines().skip(1).collect();
        assert_eq!(
            rows,
            [
                "a,2,snapshot,3,2.00 (1.00-4.00),2.00,4.00,1.00,0.50",
                "a,2,log,3,1.00 (1.00-1.00),4.00,2.00,2.00,-",
            ]
        );
    }
}
