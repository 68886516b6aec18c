//! What a log costs: sets without one and with each time of its syncs. Owns the loads, the order of
//! measuring and the tables; the servers with their flags are `persistent`'s.
//!
//! Each measurement has a server and a data directory of its own, filled before, removed after: so
//! logs do not grow from round to round, and what one server leaves unwritten in the kernel is gone
//! before the next starts. Within a round all servers and modes take turns.

use std::sync::Arc;
use std::time::Duration;

use crate::load::{self, Load, Mix, Plan, Until, Verb};
use crate::options::{Opt, Options, opt};
use crate::persistent::{DataDirectory, Fsync, Setup, sync_time, with_log};
use crate::population::Population;
use crate::report::{Report, Table, save};
use crate::scenarios::KEY_SIZE;
use crate::server::{Server, ServerSpec};
use crate::stream::{Popularity, StreamSpec};
use crate::wire::Protocol;
use crate::{Result, median};

/// Options beside the common ones.
pub const OPTIONS: &[Opt] = &[
    opt("loads", "LIST", "50x1,50x16,1x1", "connections x pipeline"),
    opt("workers", "N", "1", "-t of distcached"),
    opt("keys", "N", "100000", "number of keys"),
    opt("value-size", "SIZE", "32", "bytes, as in the load command"),
    opt("seconds", "S", "3", "length of one measurement"),
    opt("log-max", "MIB", "2048", "shorten measurements that would write more than this"),
];

const WARM_UP: Duration = Duration::from_millis(300);
/// No record of these sets is larger beside key and value, in any of the logs.
const RECORD_BYTES_MAX: u64 = 100;

/// Without a log, and with each kind.
const MODES: [(Option<Fsync>, &str); 4] = [
    (None, "no log"),
    (Some(Fsync::No), "no"),
    (Some(Fsync::EverySecond), "everysec"),
    (Some(Fsync::Always), "always"),
];

/// Connections and pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    connections: usize,
    pipeline: usize,
}

impl std::str::FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let number = |digits: &str| digits.parse().ok().filter(|&n| n > 0);
        let parts = text.split_once('x');
        match parts.map(|(connections, pipeline)| (number(connections), number(pipeline))) {
            Some((Some(connections), Some(pipeline))) => Ok(Self { connections, pipeline }),
            _ => Err("say connections x pipeline: 50x16".to_owned()),
        }
    }
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
struct Sample {
    round: usize,
    shape: Shape,
    server: usize,
    mode: usize,
    cpu_us: f64,
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
}

/// What is alike in all measurements.
struct Course {
    setup: Setup,
    population: Arc<Population>,
    time: Duration,
    log_bytes_max: u64,
}

/// Runs the rounds and writes the report.
pub fn run(options: &Options) -> Result<()> {
    let mut setup = Setup::new(options, "durability")?;
    setup.flags.workers = options.get("workers")?;
    let shapes: Vec<Shape> = options.list("loads")?;
    let value_sizes = options.get("value-size")?;
    let population = Population::new(options.get("keys")?, KEY_SIZE.parse()?, value_sizes)?;
    let course = Course {
        setup,
        population: Arc::new(population),
        time: Duration::try_from_secs_f64(options.get("seconds")?)?,
        log_bytes_max: options.get::<u64>("log-max")? << 20,
    };
    let syncs = sync_time(&course.setup.data)?;
    let mut versions = Vec::new();
    let mut samples = Vec::new();
    for &shape in &shapes {
        for round in 0..course.setup.rounds {
            for (server, spec) in course.setup.servers.iter().enumerate() {
                for (mode, &(fsync, mode_name)) in MODES.iter().enumerate() {
                    let (version, sample) = course
                        .measure(spec, fsync, shape)
                        .map_err(|e| format!("{}, {mode_name}: {e}", spec.name))?;
                    let sample = Sample { round, server, mode, ..sample };
                    eprintln!(
                        "{}x{} round {} {} {mode_name}: {:.3} us/op, {:.0} ops/s",
                        shape.connections,
                        shape.pipeline,
                        round + 1,
                        spec.name,
                        sample.cpu_us,
                        sample.per_second
                    );
                    if versions.len() == server {
                        versions.push((spec.name.clone(), version));
                    }
                    samples.push(sample);
                }
            }
        }
    }
    write_report(&course.setup, &shapes, &samples, &versions, syncs)
}

impl Course {
    fn measure(
        &self,
        spec: &ServerSpec,
        fsync: Option<Fsync>,
        shape: Shape,
    ) -> Result<(String, Sample)> {
        let directory = DataDirectory::new(&self.setup.data)?;
        let spec = match fsync {
            Some(fsync) => with_log(spec, directory.path(), fsync),
            None => spec.clone(),
        };
        let server = Server::start(&spec, &self.setup.flags)?;
        let stream =
            StreamSpec { popularity: Popularity::Uniform, once: 0.0, seed: self.setup.seed };
        let plan = Plan {
            connections: shape.connections,
            pipeline: shape.pipeline,
            mix: Mix::only(Verb::Set),
            protocol: server.protocol,
            cores: self.setup.load_cores.clone(),
            ..Plan::new(server.address, Arc::clone(&self.population), stream)
        };
        load::fill(&plan, self.population.keys())?;
        let mut load = Load::connect(&plan)?;
        let warm = load.run(Until::Elapsed(WARM_UP))?;
        warm.check()?;
        let item_bytes = self.population.key_bytes(0) + self.population.value_bytes(0);
        let record_bytes = item_bytes as u64 + RECORD_BYTES_MAX;
        let time = time_within(self.time, warm.per_second(), record_bytes, self.log_bytes_max);
        let before_ns = server.process_cpu_ns()?;
        let outcome = load.run(Until::Elapsed(time))?;
        let cpu_ns = server.process_cpu_ns()? - before_ns;
        outcome.check()?;
        if fsync.is_some() && directory.bytes()? < outcome.operations {
            return Err("the data directory is all but empty: nothing was logged".into());
        }
        let sample = Sample {
            round: 0,
            shape,
            server: 0,
            mode: 0,
            cpu_us: cpu_ns as f64 / 1e3 / outcome.operations.max(1) as f64,
            per_second: outcome.per_second(),
            p50_us: outcome.latency_us(50.0),
            p99_us: outcome.latency_us(99.0),
        };
        Ok((server.version.clone(), sample))
    }
}

/// `time`, or as much of it as `per_second` records take to fill `bytes_max`.
fn time_within(time: Duration, per_second: f64, record_bytes: u64, bytes_max: u64) -> Duration {
    let seconds_max = bytes_max as f64 / record_bytes as f64 / per_second.max(1.0);
    time.min(Duration::try_from_secs_f64(seconds_max).unwrap_or(time))
}

/// The samples of one load, by server and mode.
struct Measured<'a> {
    samples: Vec<&'a Sample>,
}

impl Measured<'_> {
    fn of(&self, server: usize, mode: usize, value: fn(&Sample) -> f64) -> Vec<f64> {
        let mine = self.samples.iter().filter(|s| s.server == server && s.mode == mode);
        mine.map(|sample| value(sample)).collect()
    }

    /// Ratio of the medians, and the lowest and highest of the rounds taken one by one. The two
    /// are named by server and mode.
    fn ratio(
        &self,
        value: fn(&Sample) -> f64,
        (server, mode): (usize, usize),
        (base_server, base_mode): (usize, usize),
    ) -> String {
        let mine = self.of(server, mode, value);
        let base = self.of(base_server, base_mode, value);
        let rounds = || mine.iter().zip(&base).map(|(mine, base)| mine / base);
        let low = rounds().fold(f64::INFINITY, f64::min);
        let high = rounds().fold(0.0, f64::max);
        let ratio = median(mine.iter().copied()) / median(base);
        format!("{ratio:.2} ({low:.2}-{high:.2})")
    }
}

fn write_report(
    setup: &Setup,
    shapes: &[Shape],
    samples: &[Sample],
    versions: &[(String, String)],
    (sync_median, sync_max): (Duration, Duration),
) -> Result<()> {
    let mut report = Report::new("What a log costs sets", versions);
    report.paragraph(&format!(
        "An fdatasync on this disk before the run: {:.2} ms median, {:.1} ms at most. Load is \
         connections x pipeline. Medians over the rounds; CPU is that of the whole server process \
         per set, beside it its ratio to the same server without a log (range of the rounds). The \
         last column is throughput divided by that of Redis with the same log.",
        sync_median.as_secs_f64() * 1e3,
        sync_max.as_secs_f64() * 1e3,
    ));
    report.table(&summary(setup, shapes, samples));
    report.save(&setup.out, &setup.name)?;
    save(&setup.out, &format!("{}.csv", setup.name), &raw(setup, samples).csv())
}

fn summary(setup: &Setup, shapes: &[Shape], samples: &[Sample]) -> Table {
    let mut table = Table::new(&[
        "load",
        "server",
        "fsync",
        "kop/s",
        "CPU us/op",
        "CPU to no log",
        "p50 us",
        "p99 us",
        "kop/s to Redis",
    ]);
    let redis = setup.servers.iter().position(|spec| spec.protocol == Protocol::Resp);
    for shape in shapes {
        let samples = samples.iter().filter(|sample| sample.shape == *shape).collect();
        let measured = Measured { samples };
        for (server, spec) in setup.servers.iter().enumerate() {
            for (mode, (_, mode_name)) in MODES.iter().enumerate() {
                let of = |value: fn(&Sample) -> f64| median(measured.of(server, mode, value));
                let to_redis = redis
                    .filter(|&redis| redis != server)
                    .map(|redis| measured.ratio(|s| s.per_second, (server, mode), (redis, mode)));
                table.push(vec![
                    format!("{}x{}", shape.connections, shape.pipeline),
                    spec.name.clone(),
                    (*mode_name).to_owned(),
                    format!("{:.1}", of(|s| s.per_second) / 1e3),
                    format!("{:.3}", of(|s| s.cpu_us)),
                    measured.ratio(|s| s.cpu_us, (server, mode), (server, 0)),
                    format!("{:.0}", of(|s| s.p50_us)),
                    format!("{:.0}", of(|s| s.p99_us)),
                    to_redis.unwrap_or_else(|| "-".to_owned()),
                ]);
            }
        }
    }
    table
}

fn raw(setup: &Setup, samples: &[Sample]) -> Table {
    let mut table = Table::new(&[
        "connections",
        "pipeline",
        "round",
        "server",
        "fsync",
        "cpu_us_per_op",
        "ops_per_s",
        "p50_us",
        "p99_us",
    ]);
    for sample in samples {
        table.push(vec![
            sample.shape.connections.to_string(),
            sample.shape.pipeline.to_string(),
            (sample.round + 1).to_string(),
            setup.servers[sample.server].name.clone(),
            MODES[sample.mode].1.to_owned(),
            format!("{:.4}", sample.cpu_us),
            format!("{:.0}", sample.per_second),
            format!("{:.1}", sample.p50_us),
            format!("{:.1}", sample.p99_us),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_parse_or_say_why_not() {
        assert_eq!("50x16".parse(), Ok(Shape { connections: 50, pipeline: 16 }));
        for wrong in ["", "50", "x", "0x1", "1x0", "1x", "ax1", "1x1x1"] {
            assert!(wrong.parse::<Shape>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn logs_stay_within_their_bytes() {
        let time = Duration::from_secs(10);
        let check = |per_second, bytes_max, seconds: f64| {
            let within = time_within(time, per_second, 100, bytes_max);
            assert_eq!(within, Duration::from_secs_f64(seconds), "{per_second} {bytes_max}");
        };
        check(1000.0, 1_000_000, 10.0);
        check(1000.0, 500_000, 5.0);
        check(1000.0, u64::MAX, 10.0);
        check(0.0, 1000, 10.0);
    }

    #[test]
    fn ratios_are_of_medians_with_the_range_of_rounds() {
        let sample = |mode, round, cpu_us| Sample {
            round,
            shape: Shape { connections: 1, pipeline: 1 },
            server: 0,
            mode,
            cpu_us,
            per_second: 1.0,
            p50_us: 0.0,
            p99_us: 0.0,
        };
        let rounds = [(1.0, 2.0), (2.0, 3.0), (3.0, 3.0)];
        let samples: Vec<Sample> = (0..3)
            .flat_map(|round| {
                let (base, mine) = rounds[round];
                [sample(0, round, base), sample(1, round, mine)]
            })
            .collect();
        let measured = Measured { samples: samples.iter().collect() };
        assert_eq!(measured.ratio(|s| s.cpu_us, (0, 1), (0, 0)), "1.50 (1.00-2.00)");
    }
}
