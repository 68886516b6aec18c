//! `stats sizing`: what the hit ratio would be with more or less memory. Goal: each estimate is
//! within a point of what a store of that size measures, and is told over the wire and as a metric.
//! Method: one stream, in virtual time, for stores of each size in this process, of which one
//! estimates; and an embedded server behind plain sockets. Fails if an estimate is off by more than
//! `ERROR_MAX`, or if the sizes are so alike that any estimate would do.

#![cfg(feature = "server")]

mod support;

use distcache::protocol::{Exptime, StoreArgs, StoreMode};
use distcache::server::Server;
use distcache::server::config::Config;
use distcache::shard::operation::{Data, Form, Operation, Verb};
use distcache::shard::replies::Replies;
use distcache::shard::simulator::{Estimate, SIZES_PERCENT, Simulator};
use distcache::shard::{Rules, Shard};
use distcache::store::budget::Budget;
use distcache::store::hash::KeyHasher;
use distcache::store::{Settings, Ticks};
use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;
use support::{Client, PATIENCE};

/// What docs/OBSERVABILITY.md says.
const ERROR_MAX: f64 = 0.01;

/// Memory of the store that estimates.
const MEMORY_BYTES: u64 = 4 << 20;

/// A tenth of a second has so many requests.
const REQUESTS_PER_TICK: u64 = 200;

const WARM_UP: u64 = 200_000;
const REQUESTS: u64 = 200_000;

/// Numbers from a seed (SplitMix64).
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// The less likely the larger, as Zipf's law with exponent 1 has it.
    fn rank(&mut self, keys: u64) -> u64 {
        let unit = (self.bits() >> 11) as f64 / (1_u64 << 53) as f64;
        (keys as f64).powf(unit) as u64
    }
}

/// A stream: how many of the keys live for some seconds, and how many requests are sets.
#[derive(Clone, Copy)]
struct Stream {
    keys: u64,
    short_percent: u64,
    sets_percent: u64,
    seed: u64,
}

struct Rig {
    shard: Shard,
    hasher: KeyHasher,
    now: Ticks,
    simulator: Option<Simulator>,
    gets: u64,
    hits: u64,
}

impl Rig {
    fn new(memory_bytes: u64, estimates: bool) -> Self {
        let hasher = KeyHasher::new([7, 11]);
        let budget = Budget::new(memory_bytes, 1);
        let settings = Settings { budget, evict: true, hasher: hasher.clone(), sequence_start: 1 };
        let rules = Rules { item_bytes_max: 1 << 20, cas: true, prefix_delimiter: b':' };
        let simulator = estimates.then(Simulator::default);
        let now = Ticks::from_seconds(1_000_000);
        let shard = Shard::new(settings, rules);
        let mut rig = Self { shard, hasher, now, simulator, gets: 0, hits: 0 };
        rig.tell();
        rig
    }

    fn tell(&mut self) {
        let Some(simulator) = &mut self.simulator else { return };
        let mut events = Vec::new();
        simulator.begin(self.now, self.shard.store().memory_bytes_max());
        let handed = self.shard.hand_over(simulator.threshold(), &mut events);
        simulator.apply(&handed, &events);
    }

    fn execute(&mut self, key: &str, verb: Verb<'_>) -> bool {
        let (mut out, key) = (Replies::default(), key.as_bytes());
        let operation = Operation { key, hash: self.hasher.hash(key), form: Form::Text, verb };
        self.shard.execute(operation, self.now, &mut out);
        !out.bytes.is_empty()
    }

    fn set(&mut self, stream: Stream, number: u64, change: u64) {
        let bits = Random(number ^ change).bits();
        let value = vec![b'v'; 50 + (bits % 400) as usize];
        let is_short = Random(number).bits() % 100 < stream.short_percent;
        let exptime = if is_short { Exptime::Relative(3) } else { Exptime::Never };
        let args = StoreArgs { mode: StoreMode::Set, flags: 0, exptime, compare: 0 };
        self.execute(&format!("key{number}"), Verb::Store(args, Data::Slice(&value)));
    }

    fn play(&mut self, stream: Stream) {
        let mut random = Random(stream.seed);
        for request in 0..WARM_UP + REQUESTS {
            if request % REQUESTS_PER_TICK == 0 {
                self.now.0 += 1;
            }
            if request % (REQUESTS_PER_TICK * 10) == 0 {
                while self.shard.maintain(self.now, 8) {}
                self.tell();
            }
            if request == WARM_UP {
                (self.gets, self.hits) = (0, 0);
                self.tell();
                self.simulator.as_mut().into_iter().for_each(Simulator::reset_counters);
            }
            let number = random.rank(stream.keys);
            if random.bits() % 100 < stream.sets_percent {
                self.set(stream, number, request);
                continue;
            }
            let hit = self.execute(&format!("key{number}"), Verb::Get { with_cas: false });
            (self.gets, self.hits) = (self.gets + 1, self.hits + u64::from(hit));
            if !hit {
                self.set(stream, number, 0);
            }
        }
        self.tell();
    }

    fn hit_ratio(&self) -> f64 {
        self.hits as f64 / self.gets as f64
    }
}

fn estimate(stream: Stream) -> (Estimate, f64) {
    let mut rig = Rig::new(MEMORY_BYTES, true);
    rig.play(stream);
    (rig.simulator.as_ref().unwrap().estimate(rig.now), rig.hit_ratio())
}

#[test]
fn estimates_are_what_stores_of_these_sizes_measure() {
    let plain = Stream { keys: 150_000, short_percent: 0, sets_percent: 0, seed: 1 };
    let streams = [
        ("look-aside", plain),
        ("lifetimes", Stream { keys: 60_000, short_percent: 50, ..plain }),
        ("sets of other sizes", Stream { sets_percent: 20, ..plain }),
    ];
    for (name, stream) in streams {
        let (estimate, own) = estimate(stream);
        let mut spread = Vec::new();
        for (percent, size) in SIZES_PERCENT.into_iter().zip(estimate.sizes) {
            assert_eq!(size.percent, percent);
            let mut rig = Rig::new(MEMORY_BYTES * percent / 100, false);
            rig.play(stream);
            let (measured, estimated) = (rig.hit_ratio(), size.hit_ratio);
            println!("{name}, {percent} %: measured {measured:.4}, estimated {estimated:.4}");
            let error = (measured - estimated).abs();
            assert!(error <= ERROR_MAX, "{name}, {percent} %: {measured} but {estimated}");
            spread.push(measured);
        }
        assert!((estimate.sizes[1].hit_ratio - own).abs() < 1e-9, "its own is measured");
        let [half, own, twice, _] = spread[..] else { panic!("four sizes") };
        assert!(own - half > 2.0 * ERROR_MAX, "{name}: any estimate would do: {spread:?}");
        assert!(name == "lifetimes" || twice - own > 2.0 * ERROR_MAX, "{name}: {spread:?}");
    }
}

#[test]
fn a_sample_of_the_keys_says_what_all_of_them_say() {
    let stream = Stream { keys: 150_000, short_percent: 0, sets_percent: 0, seed: 2 };
    let (all, _) = estimate(stream);
    // Ten times as much at a time is more than a shard keeps.
    let mut rig = Rig::new(MEMORY_BYTES, true);
    let mut random = Random(5);
    for _ in 0..40_000 {
        let number = random.rank(stream.keys);
        rig.execute(&format!("other{number}"), Verb::Get { with_cas: false });
    }
    rig.tell();
    rig.play(stream);
    let sampled = rig.simulator.as_ref().unwrap().estimate(rig.now);
    assert!(sampled.sampling_rate < all.sampling_rate / 2.0, "{sampled:?}");
    for (all, sampled) in all.sizes.iter().zip(sampled.sizes) {
        let error = (all.hit_ratio - sampled.hit_ratio).abs();
        assert!(error <= ERROR_MAX, "{all:?} but {sampled:?}");
    }
}

/// The lines of `stats sizing`, by name.
fn sizing(client: &mut Client) -> HashMap<String, f64> {
    let lines = client.stats("sizing");
    let line = |line: &String| {
        let (name, value) = line.split_once(' ').expect(line);
        (name.to_owned(), value.parse().expect(line))
    };
    lines.iter().map(line).collect()
}

/// Between a hundred keys and the next.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(4);

/// Asks for keys, a hundred at a time, and stores those that are missing.
fn look_aside(client: &mut Client, requests: usize) {
    let (mut random, value) = (Random(3), "v".repeat(500));
    for _ in 0..requests / 100 {
        let keys: Vec<String> = (0..100).map(|_| format!("k{}", random.rank(60_000))).collect();
        client.send(&format!("get {}\r\n", keys.join(" ")));
        let lines = client.lines_to("END");
        let found: HashSet<&str> = lines
            .iter()
            .filter_map(|line| line.strip_prefix("VALUE ")?.split(' ').next())
            .collect();
        let mut sets = String::new();
        for key in keys.iter().filter(|key| !found.contains(key.as_str())) {
            write!(sets, "set {key} 0 0 {} noreply\r\n{value}\r\n", value.len()).unwrap();
        }
        client.send(&sets);
        // At full speed there are more events than are played, and few keys stay in the sample.
        std::thread::sleep(PAUSE);
    }
    client.run("");
}

/// Waits until the workers have told all that they noted.
fn settled(client: &mut Client) -> HashMap<String, f64> {
    let since = Instant::now();
    let mut before = sizing(client);
    loop {
        std::thread::sleep(std::time::Duration::from_millis(400));
        let now = sizing(client);
        if now["sampled_gets"] == before["sampled_gets"] && now["sampled_gets"] > 0.0 {
            return now;
        }
        assert!(since.elapsed() < PATIENCE, "{now:?}");
        before = now;
    }
}

#[test]
fn a_server_tells_what_other_sizes_would_do() {
    const MEMORY_BYTES: u64 = 8 << 20;
    let metrics_address = Some(([127, 0, 0, 1], 0).into());
    let config =
        Config { workers: 2, memory_bytes_max: MEMORY_BYTES, metrics_address, ..Config::default() };
    let server = Server::start(config).unwrap();
    let mut client = Client::at(server.addresses()[0]);
    let nothing = sizing(&mut client);
    assert_eq!((nothing["sampled_gets"], nothing["1:hit_ratio"]), (0.0, 0.0), "{nothing:?}");
    look_aside(&mut client, 100_000);
    let told = settled(&mut client);
    for (times, factor) in [("0.5", 0.5), ("1", 1.0), ("2", 2.0), ("4", 4.0)] {
        let bytes = told[&format!("{times}:limit_maxbytes")];
        assert_eq!(bytes, MEMORY_BYTES as f64 * factor, "{told:?}");
    }
    let ratio = |times: &str| told[&format!("{times}:hit_ratio")];
    assert!(ratio("0.5") + 0.02 < ratio("1") && ratio("1") + 0.003 < ratio("2"), "{told:?}");
    // All that was asked for fits twice the memory, and nothing more can be had.
    assert!(told["2:filled"] < 1.0 && (ratio("2") - ratio("4")).abs() < 1e-9, "{told:?}");
    assert_eq!((told["1:filled"], told["0.5:filled"]), (1.0, 1.0), "{told:?}");
    let stats: HashMap<String, String> = client
        .stats("")
        .iter()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let count = |name: &str| stats[name].parse::<f64>().unwrap();
    let measured = count("get_hits") / count("cmd_get");
    // The first gets were answered before anything was noted.
    assert!((ratio("1") - measured).abs() < 0.005, "{measured}: {told:?}");

    let mut scraper = TcpStream::connect(server.metrics_address().unwrap()).unwrap();
    scraper.set_read_timeout(Some(PATIENCE)).unwrap();
    scraper.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    let mut metrics = String::new();
    scraper.read_to_string(&mut metrics).unwrap();
    let line = format!("distcache_sizing_hit_ratio{{memory=\"0.5\"}} {:.4}\n", ratio("0.5"));
    assert!(metrics.contains(&line), "{line} in {metrics}");

    client.send("stats reset\r\n");
    assert_eq!(client.line(), "RESET");
    let reset = sizing(&mut client);
    assert_eq!((reset["sampled_gets"], reset["1:hit_ratio"]), (0.0, 0.0), "{reset:?}");
    assert_eq!(reset["1:filled"], 1.0, "what is known stays: {reset:?}");
}
