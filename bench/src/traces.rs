//! The look-aside request streams that hit ratios are published for. Data only, shared by
//! `hitratio` (servers) and `simulate` (policies), so that both see the same requests.
//!
//! 2.2 million keys of 24 bytes, key and value together log-normal up to 1000 bytes with a mean of
//! 302: some 660 MB of items for 64 MiB of memory. Popularity does not depend on size.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use crate::Result;
use crate::options::{Opt, Options, opt};
use crate::population::{Lifetimes, Population, Sizes};
use crate::production::Production;
use crate::stream::{Popularity, Stream, StreamSpec};

/// One stream.
#[derive(Clone, Copy, Debug)]
pub struct Trace {
    /// The name on the command line and in tables.
    pub name: &'static str,
    /// Zipf exponent.
    pub exponent: f64,
    /// Share of requests for keys never asked for again.
    pub once: f64,
    /// How long values live.
    pub lifetimes: Lifetimes,
    /// A production cache that it is like, in popularity and sizes.
    pub production: Option<&'static Production>,
}

/// Misses in proportion to those of a table's first row for the same stream.
#[derive(Debug, Default)]
pub struct ToFirst {
    miss_ratio: Option<f64>,
    avoidable: Option<f64>,
}

impl ToFirst {
    /// All misses to those of the first, and those that can be avoided: some are everybody's.
    pub fn of(&mut self, miss_ratio: f64, unavoidable: f64) -> (f64, f64) {
        let avoidable = miss_ratio - unavoidable;
        let misses_to_first = miss_ratio / *self.miss_ratio.get_or_insert(miss_ratio);
        (misses_to_first, avoidable / *self.avoidable.get_or_insert(avoidable))
    }
}

const fn trace(name: &'static str, exponent: f64, once: f64, lifetimes: Lifetimes) -> Trace {
    Trace { name, exponent, once, lifetimes, production: None }
}

/// All of them.
pub const TRACES: &[Trace] = &[
    trace("zipf-0.8", 0.8, 0.0, Lifetimes::Forever),
    trace("zipf-0.9", 0.9, 0.0, Lifetimes::Forever),
    trace("zipf-1.0", 1.0, 0.0, Lifetimes::Forever),
    trace("zipf-1.1", 1.1, 0.0, Lifetimes::Forever),
    trace("zipf-0.8-once", 0.8, 0.3, Lifetimes::Forever),
    trace("zipf-1.0-once", 1.0, 0.3, Lifetimes::Forever),
    trace("zipf-1.0-ttl", 1.0, 0.0, Lifetimes::HalfShort),
];

/// Lives as long as the process: streams are copied freely.
fn like_production(cache: Production) -> &'static Trace {
    let cache: &'static Production = Box::leak(Box::new(cache));
    let like = trace(&cache.name, 0.0, cache.once, Lifetimes::Forever);
    Box::leak(Box::new(Trace { production: Some(cache), ..like }))
}

const KEY_SIZE: &str = "24";
const VALUE_SIZE: &str = "lognormal";

/// Options that shape the streams.
pub const OPTIONS: &[Opt] = &[
    opt("streams", "LIST", "", "names from the table, separated by commas; all if not given"),
    opt("memory", "MIB", "64", "memory of the cache"),
    opt("keys", "N", "2200000", "number of keys"),
    opt("warm-up", "N", "4000000", "requests before counting"),
    opt("requests", "N", "8000000", "requests counted"),
    opt("ttl-rate", "N", "100000", "requests per second where keys have lifetimes"),
    opt("seed", "N", "1", "seed of the request streams"),
    opt("workloads", "DIR", "", "streams like production caches: see production.rs"),
    opt("objects", "N", "300000", "objects of each of those"),
    opt("sets", "PERCENT", "0", "so many of the requests store, whether or not the key is there"),
    opt(
        "resize",
        "",
        "",
        "what these store is half to one and a half times as large as the key's value",
    ),
];

/// How much of which streams to run.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The streams chosen.
    pub traces: Vec<&'static Trace>,
    /// Number of keys.
    pub keys: u64,
    /// Requests before counting.
    pub warm_up: u64,
    /// Requests counted.
    pub requests: u64,
    /// Requests per second where keys have lifetimes: there, time is part of the stream.
    pub ttl_rate: f64,
    /// Equal seeds give equal streams.
    pub seed: u64,
    /// The part of the requests that are sets, in hundredths.
    pub sets_percent: u64,
    /// Whether sets change the size of what is there.
    pub resize: bool,
}

impl Workload {
    /// Reads the options.
    pub fn new(options: &Options) -> Result<Self> {
        let names: Vec<String> = options.list("streams")?;
        let mut known: Vec<&'static Trace> = TRACES.iter().collect();
        if let Some(folder) = options.maybe::<PathBuf>("workloads")? {
            let caches = Production::read_all(&folder, options.get("objects")?)?;
            known = caches.into_iter().map(like_production).collect();
        }
        let find = |name: &String| {
            let found = known.iter().find(|trace| trace.name == name);
            found.copied().ok_or_else(|| format!("no stream \"{name}\"; see traces.rs"))
        };
        let traces = match names.is_empty() {
            true => known,
            false => names.iter().map(find).collect::<std::result::Result<_, _>>()?,
        };
        Ok(Self {
            traces,
            keys: options.get("keys")?,
            warm_up: options.get("warm-up")?,
            requests: options.get("requests")?,
            ttl_rate: options.get("ttl-rate")?,
            seed: options.get("seed")?,
            sets_percent: options.get::<u64>("sets")?.min(99),
            resize: options.has("resize"),
        })
    }

    /// The keys of a stream.
    pub fn population(&self, trace: &Trace) -> Result<Arc<Population>> {
        let value_sizes = match trace.production {
            Some(cache) => Sizes::Production(cache),
            None => VALUE_SIZE.parse()?,
        };
        let population = Population::new(self.keys_of(trace), KEY_SIZE.parse()?, value_sizes)?;
        Ok(Arc::new(population.with_lifetimes(trace.lifetimes)))
    }

    /// How many keys are asked for more than once.
    pub fn keys_of(&self, trace: &Trace) -> u64 {
        trace.production.map_or(self.keys, |cache| cache.objects)
    }

    /// Of the requests counted, and of the bytes asked for, the shares that are asked for the first
    /// time. Nobody can have those.
    pub fn first_time_shares(&self, trace: &Trace) -> Result<(f64, f64)> {
        let population = self.population(trace)?;
        let mut stream = Stream::new(&self.stream(trace), self.keys_of(trace), 0, 1);
        let mut asked = HashSet::new();
        let (mut first_times, mut first_bytes, mut all_bytes) = (0, 0, 0);
        for request in 0..self.warm_up + self.requests {
            let id = stream.next_id();
            let is_first = asked.insert(id);
            if request >= self.warm_up {
                let bytes = population.key_bytes(id) + population.value_bytes(id);
                first_times += usize::from(is_first);
                first_bytes += if is_first { bytes } else { 0 };
                all_bytes += bytes;
            }
        }
        let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
        Ok((share(first_times, self.requests as usize), share(first_bytes, all_bytes)))
    }

    /// Its order of requests.
    pub fn stream(&self, trace: &Trace) -> StreamSpec {
        StreamSpec {
            popularity: match trace.production {
                Some(cache) => Popularity::Production(cache),
                None => Popularity::Zipf(trace.exponent),
            },
            once: trace.once,
            seed: self.seed,
        }
    }
}
