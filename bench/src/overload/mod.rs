//! What others notice while one client attacks, and what the attack costs the server. Owns the
//! table of scenarios, their sizes and their report.
//!
//! ```text
//! subject    the attacked process: memory, CPU, descriptors
//! rounds     others alone and beside an attack, in turn
//! attacks    one function for each kind of attack
//! collide    keys with one FxHash64
//! edges      descriptors, address space, wall clock
//! judge      the thresholds
//! ```

pub mod attacks;
pub mod collide;
pub mod edges;
pub mod judge;
pub mod rounds;
pub mod subject;

use std::path::PathBuf;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::options::{Opt, Options, opt};
use crate::report::{Report, Table};
use crate::server::{Flags, Server, ServerSpec};
use crate::{Result, median};
use edges::Finding;
use rounds::{Attack, Pace, Rounds, Signals};
use subject::Subject;

/// The options.
pub const OPTIONS: &[Opt] = &[
    opt("server", "NAME=PROGRAM", "", "a server that has to keep the promises, may be repeated"),
    opt("beside", "NAME=PROGRAM", "", "one shown for comparison: it decides nothing"),
    opt("scenarios", "LIST", "", "only these"),
    opt("workers", "N", "2", "-t of the servers"),
    opt("rounds", "N", "5", "measurements of others without and with each attack"),
    opt("seconds", "S", "1", "length of one measurement"),
    opt("rate", "N", "5000", "gets per second of others"),
    opt("connections", "N", "9000", "connections of slowloris"),
    opt("faketime", "FILE", "", "libfaketime, if not where Debian has it"),
    opt("seed", "N", "1", "seed of the request streams"),
    opt("out", "DIR", "bench/results", "where the table goes"),
    opt("name", "NAME", "overload", "file name of the table"),
];

const OTHERS_CONNECTIONS: usize = 10;
/// They read what was sent to them first: half a gibibyte of keys, in one case.
const SETTLE_MAX: Duration = Duration::from_secs(60);
/// `-c` where the attack is not about it.
const CONNECTIONS_MAX: usize = 12_000;
/// `-c` of the flood.
const FLOOD_CONNECTIONS_MAX: usize = 200;
const FLOOD_RATE: f64 = 5_000.0;
const SLOW_READERS: usize = 100;
const PINNING_CLIENTS: usize = 40;
const DUMPING_CLIENTS: usize = 20;
const LISTING_CLIENTS: usize = 200;
const HOT_CONNECTIONS: usize = 50;
const PIPELINED_COMMANDS: usize = 100_000;
const MULTIGET_CLIENTS: usize = 4;
const LONG_LINES: usize = 1_000;
const BYTE_CLIENTS: usize = 200;
const COLLIDING_KEYS: usize = 30_000;
/// Descriptors of the bench itself.
const DESCRIPTORS_SPARE: u64 = 256;

/// A kind of attack beside which others are measured.
struct Scenario {
    name: &'static str,
    /// What `Rounds::done` counts.
    unit: &'static str,
    memory_mib: u64,
    connections_max: usize,
    /// A p99 of others that is fine in any case.
    p99_us_fine: f64,
    /// Bound of the growth of memory.
    growth_max: fn(&Setup) -> u64,
    attack: fn(&Setup, &Subject, &Signals) -> Result<u64>,
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "slowloris",
        unit: "connections",
        memory_mib: 64,
        connections_max: CONNECTIONS_MAX,
        p99_us_fine: judge::OTHERS_P99_US_FINE,
        growth_max: |setup| judge::growth_of_slow_lines(setup.connections),
        attack: |setup, at, signals| attacks::slowloris(at.address, setup.connections, signals),
    },
    Scenario {
        name: "slow-reader",
        unit: "clients",
        memory_mib: 64,
        connections_max: CONNECTIONS_MAX,
        p99_us_fine: judge::OTHERS_P99_US_FINE,
        growth_max: |_| judge::growth_of_unread_replies(SLOW_READERS),
        attack: |_, at, signals| attacks::slow_reader(at.address, SLOW_READERS, signals),
    },
    Scenario {
        name: "pinned",
        unit: "MB replaced",
        memory_mib: 64,
        connections_max: CONNECTIONS_MAX,
        p99_us_fine: judge::OTHERS_P99_US_FINE,
        growth_max: |_| judge::growth_within_limit(64),
        attack: |_, at, signals| attacks::pinned(at.address, PINNING_CLIENTS, signals),
    },
    Scenario {
        name: "dump",
        unit: "clients",
        memory_mib: 64,
        connections_max: CONNECTIONS_MAX,
        p99_us_fine: judge::OTHERS_P99_US_FINE,
        // The keys that are dumped are part of it.
        growth_max: |_| (16 << 20) + judge::growth_of_unread_replies(DUMPING_CLIENTS),
        attack: |_, at, signals| attacks::dump(at.address, DUMPING_CLIENTS, signals),
    },
    Scenario {
        name: "lists",
        unit: "clients",
        memory_mib: 64,
        connections_max: CONNECTIONS_MAX,
        p99_us_fine: judge::OTHERS_P99_US_FINE,
        // The keys that are listed, what connections may hold before lists are refused, and lists
        // that are in the making then.
        growth_max: |_| 64 << 20,
        attack: |_, at, signals| attacks::lists(at.address, LISTING_CLIENTS, signals),
    },
    Scenario {
        name: "flood",
        unit: "refused/s",
        memory_mib: 64,
        connections_max: FLOOD_CONNECTIONS_MAX,
        p99_us_fine: judge::OTHERS_P99_US_FINE,
        growth_max: |_| judge::growth_of_slow_lines(FLOOD_CONNECTIONS_MAX),
        attack: |_, at, signals| {
            attacks::flood(at.address, FLOOD_CONNECTIONS_MAX, FLOOD_RATE, signals)
        },
    },
    Scenario {
        name: "hot-shard",
        unit: "gets/s",
        memory_mib: 64,
        connections_max: CONNECTIONS_MAX,
        p99_us_fine: judge::OTHERS_P99_US_FINE,
        growth_max: |_| judge::growth_of_unread_replies(HOT_CONNECTIONS),
        attack: |_, at, signals| attacks::hot_shard(at.address, HOT_CONNECTIONS, signals),
    },
    Scenario {
        name: "pipeline",
        unit: "gets/s",
        memory_mib: 64,
        connections_max: CONNECTIONS_MAX,
        p99_us_fine: judge::OTHERS_P99_US_FINE,
        growth_max: |_| judge::growth_of_unread_replies(1),
        attack: |_, at, signals| attacks::pipeline(at.address, PIPELINED_COMMANDS, signals),
    },
    Scenario {
        name: "multiget",
        unit: "MiB/s",
        memory_mib: 256,
        connections_max: CONNECTIONS_MAX,
        p99_us_fine: judge::OTHERS_P99_US_FINE,
        // The values themselves are stored once; while they arrive each is there twice.
        growth_max: |_| (100 << 20) + judge::growth_of_unread_replies(MULTIGET_CLIENTS),
        attack: |_, at, signals| attacks::multiget(at.address, MULTIGET_CLIENTS, signals),
    },
    Scenario {
        name: "long-lines",
        unit: "lists taken",
        memory_mib: 64,
        connections_max: CONNECTIONS_MAX,
        p99_us_fine: judge::OTHERS_P99_US_FINE_AMONG_MANY,
        growth_max: |_| judge::growth_of_long_lines(LONG_LINES),
        attack: |_, at, signals| attacks::long_lines(at.address, LONG_LINES, signals),
    },
    Scenario {
        name: "byte-at-a-time",
        unit: "bytes/s",
        memory_mib: 64,
        connections_max: CONNECTIONS_MAX,
        p99_us_fine: judge::OTHERS_P99_US_FINE,
        growth_max: |_| judge::growth_of_slow_lines(BYTE_CLIENTS),
        attack: |_, at, signals| attacks::byte_at_a_time(at.address, BYTE_CLIENTS, signals),
    },
];

/// The scenarios that are not about others' latency.
const EDGES: [&str; 4] = ["hash-flood", "descriptors", "memory", "clock"];

struct Setup {
    pace: Pace,
    workers: usize,
    connections: usize,
    faketime: String,
}

/// The tables, and what was broken.
struct Results {
    others: Table,
    edges: Table,
    broken: usize,
}

/// Runs each scenario on each server, writes the report, and fails if a promise was broken.
pub fn run(options: &Options) -> Result<()> {
    let setup = Setup {
        pace: Pace {
            rate: options.get("rate")?,
            connections: OTHERS_CONNECTIONS,
            time: Duration::try_from_secs_f64(options.get("seconds")?)?,
            rounds: options.get::<usize>("rounds")?.max(1),
            seed: options.get("seed")?,
            settle: SETTLE_MAX,
        },
        workers: options.get("workers")?,
        connections: options.get("connections")?,
        faketime: options.text("faketime").to_owned(),
    };
    let wanted = wanted(&options.list::<String>("scenarios")?)?;
    let servers = servers(options)?;
    raise_descriptors(setup.connections as u64 + DESCRIPTORS_SPARE)?;
    let mut results = Results {
        others: Table::new(&[
            "scenario",
            "server",
            "attack",
            "p50 us",
            "p99 us",
            "max us",
            "p99 alone",
            "CPU",
            "RSS growth",
            "bound",
            "verdict",
        ]),
        edges: Table::new(&["scenario", "server", "found", "verdict"]),
        broken: 0,
    };
    let mut versions = Vec::new();
    for (spec, judged) in &servers {
        let server = Server::start(spec, &setup.flags(64, CONNECTIONS_MAX))?;
        versions.push((spec.name.clone(), server.version.clone()));
        drop(server);
        for name in &wanted {
            eprintln!("{name}, {}", spec.name);
            results.scenario(&setup, spec, *judged, name)?;
        }
    }
    report(&setup, &versions, &results, options)?;
    match results.broken {
        0 => Ok(()),
        broken => Err(format!("{broken} promises broken").into()),
    }
}

fn wanted(given: &[String]) -> Result<Vec<&'static str>> {
    let all = || SCENARIOS.iter().map(|scenario| scenario.name).chain(EDGES);
    if let Some(unknown) = given.iter().find(|name| all().all(|known| known != *name)) {
        let known = all().collect::<Vec<_>>().join(", ");
        return Err(format!("no scenario \"{unknown}\": say {known}").into());
    }
    Ok(all().filter(|name| given.is_empty() || given.iter().any(|given| given == name)).collect())
}

/// The servers, and whether their verdict counts.
fn servers(options: &Options) -> Result<Vec<(ServerSpec, bool)>> {
    let mut servers = Vec::new();
    for (option, judged) in [("server", true), ("beside", false)] {
        for text in options.all(option) {
            servers.push((text.parse::<ServerSpec>()?, judged));
        }
    }
    if servers.is_empty() {
        return Err("name at least one server: --server NAME=PROGRAM".into());
    }
    Ok(servers)
}

impl Setup {
    fn flags(&self, memory_mib: u64, connections_max: usize) -> Flags {
        Flags { workers: self.workers, memory_mib, connections_max, cores: String::new() }
    }
}

impl Results {
    fn scenario(
        &mut self,
        setup: &Setup,
        spec: &ServerSpec,
        judged: bool,
        name: &'static str,
    ) -> Result<()> {
        let head = vec![name.to_owned(), spec.name.clone()];
        let Some(scenario) = SCENARIOS.iter().find(|scenario| scenario.name == name) else {
            let finding = edge(setup, spec, name).unwrap_or_else(|error| Finding {
                text: "-".to_owned(),
                complaints: vec![error.to_string()],
            });
            let verdict = self.verdict(&finding.complaints, judged);
            self.edges.push([head, vec![finding.text, verdict]].concat());
            return Ok(());
        };
        let flags = setup.flags(scenario.memory_mib, scenario.connections_max);
        let mut server = Server::start(spec, &flags)?;
        let subject = Subject { address: server.address, pid: server.pid()? };
        let attack: &mut Attack<'_> = &mut |signals| (scenario.attack)(setup, &subject, signals);
        let growth_max = (scenario.growth_max)(setup);
        let outcome = rounds::run(&subject, &setup.pace, attack);
        let ended = server.check_running().err();
        let (cells, complaints) = match outcome {
            Ok(rounds) => (cells(&rounds, scenario.unit, growth_max), {
                let mut complaints = judge::complaints(&rounds, growth_max, scenario.p99_us_fine);
                complaints.extend(ended.map(|error| error.to_string()));
                complaints
            }),
            Err(error) => {
                let error = ended.unwrap_or(error);
                (vec!["-".to_owned(); 8], vec![error.to_string()])
            }
        };
        let verdict = self.verdict(&complaints, judged);
        self.others.push([head, cells, vec![verdict]].concat());
        Ok(())
    }

    fn verdict(&mut self, complaints: &[String], judged: bool) -> String {
        if complaints.is_empty() {
            return "kept".to_owned();
        }
        self.broken += usize::from(judged);
        let complaints = complaints.join("; ");
        if judged { format!("BROKEN: {complaints}") } else { complaints }
    }
}

fn edge(setup: &Setup, spec: &ServerSpec, name: &str) -> Result<Finding> {
    let flags = setup.flags(64, CONNECTIONS_MAX);
    match name {
        "hash-flood" => hash_flood(setup, spec, &flags),
        "descriptors" => {
            let server = Server::start(spec, &flags)?;
            let subject = Subject { address: server.address, pid: server.pid()? };
            edges::descriptors(&subject, &setup.pace)
        }
        "memory" => edges::memory(spec, &setup.flags(1024, CONNECTIONS_MAX)),
        _ => match edges::faketime(&setup.faketime) {
            Some(library) => edges::clock(spec, &flags, &library),
            None => Ok(Finding {
                text: "skipped: no libfaketime (--faketime)".to_owned(),
                ..Finding::default()
            }),
        },
    }
}

fn hash_flood(setup: &Setup, spec: &ServerSpec, flags: &Flags) -> Result<Finding> {
    let server = Server::start(spec, flags)?;
    let Pace { rounds, seed, .. } = setup.pace;
    let found = collide::compare(server.address, COLLIDING_KEYS, rounds, seed)?;
    let rate_ratio = found.colliding.rate / found.random.rate;
    let p99_ratio = found.colliding.p99_us / found.random.p99_us;
    let mut finding = Finding::default();
    finding.require(rate_ratio >= judge::HASH_RATE_RATIO_MIN, "colliding keys cost throughput");
    finding.require(p99_ratio <= judge::HASH_P99_RATIO_MAX, "colliding keys cost time");
    finding.text = format!(
        "{COLLIDING_KEYS} colliding keys {:.0} kop/s, random {:.0}: ratio {rate_ratio:.2}; p99 of \
         a batch {:.0} us, {:.0}: ratio {p99_ratio:.2}",
        found.colliding.rate / 1e3,
        found.random.rate / 1e3,
        found.colliding.p99_us,
        found.random.p99_us,
    );
    Ok(finding)
}

fn cells(rounds: &Rounds, unit: &str, growth_max: u64) -> Vec<String> {
    let during = |index: usize| median(rounds.during.iter().map(|latency| latency[index]));
    let alone = median(rounds.before.iter().map(|latency| latency[1]));
    let done = median(rounds.done.iter().map(|done| *done as f64));
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    vec![
        format!("{done:.0} {unit}"),
        format!("{:.0}", during(0)),
        format!("{:.0}", during(1)),
        format!("{:.0}", during(2)),
        format!("{alone:.0}"),
        format!("{:.0} %", 100.0 * median(rounds.cpu.iter().copied())),
        mib(rounds.growth()),
        mib(growth_max),
    ]
}

fn report(
    setup: &Setup,
    versions: &[(String, String)],
    results: &Results,
    options: &Options,
) -> Result<()> {
    let mut report = Report::new("Others beside an attacker", versions);
    report.paragraph(&format!(
        "Latency of a client that asks for {} small keys per second, in an open loop, while an \
         attack is under way, and its p99 without one: medians over {} rounds of both in turn. CPU \
         of the server in cores, memory as the most it grew above what it had before the first \
         attack, and what it may. Thresholds: bench/src/overload/judge.rs; what is promised: \
         docs/OVERLOAD.md.",
        setup.pace.rate, setup.pace.rounds,
    ));
    report.table(&results.others);
    report.paragraph("At the edges of what the system gives:");
    report.table(&results.edges);
    report.save(&options.get::<PathBuf>("out")?, options.text("name"))
}

/// Servers inherit the limit.
fn raise_descriptors(needed: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if needed > hard {
        let fit = hard.saturating_sub(DESCRIPTORS_SPARE);
        return Err(format!("the limit of open files allows --connections {fit}").into());
    }
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(())
}
