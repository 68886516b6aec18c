//! The streams of `hitratio` against eviction policies, object by object. Owns the driver, expiry
//! and the table; each policy has its file. No sockets and no server: what a policy could reach if
//! every item cost a fixed overhead and memory had no other structure.
//!
//! Time, for lifetimes, is the number of the request divided by the rate that `hitratio` sends at.

mod bound;
mod gdsf;
mod items;
mod learner;
mod lru;
mod s3fifo;
mod sieve;
mod tinylfu;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::PathBuf;
use std::str::FromStr;

use crate::Result;
use crate::options::{Opt, Options, opt};
use crate::population::Population;
use crate::report::{Report, Table};
use crate::stream::Stream;
use crate::traces::{ToFirst, Trace, Workload};

/// Options beside those of the streams.
pub const OPTIONS: &[Opt] = &[
    opt(
        "policies",
        "LIST",
        "lru+60,s3fifo+24,s3fifo1+24,sieve+24,gdsf+24,tinylfu+24,learner+24,bound+0",
        "policy+overhead bytes per item; the first is the reference",
    ),
    opt("free-expired", "", "", "free expired items at once, not when they are found or evicted"),
    opt("out", "DIR", "bench/results", "where the table goes"),
    opt("name", "NAME", "simulate", "file name of the table"),
];

/// A cache of limited bytes. Ids are dense; an item's bytes include its overhead.
trait Policy {
    /// Whether the item is held.
    fn contains(&self, id: u32) -> bool;
    /// A held item was asked for.
    fn hit(&mut self, id: u32);
    /// An item that is not held is stored; others give way.
    fn insert(&mut self, id: u32, bytes: u32);
    /// A held item is dropped, because it expired.
    fn remove(&mut self, id: u32);
}

/// What `--policies` takes. `s3fifo1` is S3-FIFO where one use in the small queue suffices,
/// `learner` forgets nothing, `bound` knows what is popular from the start.
const NAMES: &str = "lru, s3fifo, s3fifo1, sieve, gdsf, tinylfu, learner or bound";

/// How a hit ratio is found.
#[derive(Clone, Copy, Debug)]
enum Method {
    /// By playing the stream to a policy with so many bytes.
    Play(fn(u64) -> Box<dyn Policy>),
    /// By what is known of the stream.
    Bound,
}

/// A policy's name and the overhead of an item under it.
#[derive(Clone, Debug)]
struct PolicySpec {
    name: String,
    overhead_bytes: usize,
    method: Method,
}

impl FromStr for PolicySpec {
    type Err = String;

    /// `s3fifo+24`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (name, overhead) = text.split_once('+').unwrap_or((text, "0"));
        let method = match name {
            "lru" => Method::Play(|limit| Box::new(lru::Lru::new(limit))),
            "s3fifo" => {
                Method::Play(|limit| Box::new(s3fifo::S3Fifo::new(limit, s3fifo::USES_TO_STAY)))
            }
            "s3fifo1" => Method::Play(|limit| Box::new(s3fifo::S3Fifo::new(limit, 1))),
            "sieve" => Method::Play(|limit| Box::new(sieve::Sieve::new(limit))),
            "gdsf" => Method::Play(|limit| Box::new(gdsf::Gdsf::new(limit))),
            "tinylfu" => Method::Play(|limit| Box::new(tinylfu::TinyLfu::new(limit))),
            "learner" => Method::Play(|limit| Box::new(learner::Learner::new(limit))),
            "bound" => Method::Bound,
            _ => return Err(format!("policy \"{name}\": say {NAMES}")),
        };
        let overhead_bytes = overhead.parse().map_err(|e| format!("overhead: {e}"))?;
        Ok(Self { name: text.to_owned(), overhead_bytes, method })
    }
}

/// Simulates each policy on each stream and writes the table.
pub fn run(options: &Options) -> Result<()> {
    let workload = Workload::new(options)?;
    let policies: Vec<PolicySpec> = options.list("policies")?;
    let limit_bytes = options.get::<u64>("memory")? << 20;
    let free_expired = options.has("free-expired");
    let mut table = Table::new(&[
        "stream",
        "policy",
        "hit ratio",
        "miss ratio",
        "misses/first",
        "avoidable/first",
    ]);
    for trace in &workload.traces {
        let mut to_first = ToFirst::default();
        for policy in &policies {
            let hit_ratio = play(&workload, trace, policy, limit_bytes, free_expired)?;
            let miss_ratio = 1.0 - hit_ratio;
            let (ratio, avoidable_ratio) = to_first.of(miss_ratio, trace.once);
            eprintln!("{} {}: hit ratio {hit_ratio:.4}", trace.name, policy.name);
            table.push(vec![
                trace.name.to_owned(),
                policy.name.clone(),
                format!("{hit_ratio:.4}"),
                format!("{miss_ratio:.4}"),
                format!("{ratio:.3}"),
                format!("{avoidable_ratio:.3}"),
            ]);
        }
    }
    let mut report = Report::new("Simulated hit ratios, look-aside", &[]);
    report.paragraph(&format!(
        "{} MiB, {} keys, {} requests after {} to warm up, {} requests per second where keys have \
         lifetimes. The number behind a policy is the overhead of an item in bytes; learner \
         remembers all requests at no cost, bound is what no policy can beat that decides by the \
         past. The last column leaves out the requests for keys that are asked for once.",
        limit_bytes >> 20,
        workload.keys,
        workload.requests,
        workload.warm_up,
        workload.ttl_rate
    ));
    report.table(&table);
    report.save(&options.get::<PathBuf>("out")?, options.text("name"))
}

/// The hit ratio of one policy on one stream.
fn play(
    workload: &Workload,
    trace: &Trace,
    policy: &PolicySpec,
    limit_bytes: u64,
    free_expired: bool,
) -> Result<f64> {
    let population = workload.population(trace)?;
    let spec = workload.stream(trace);
    let Method::Play(make) = policy.method else {
        return Ok(bound::hit_ratio(&spec, &population, policy.overhead_bytes, limit_bytes));
    };
    let mut stream = Stream::new(&spec, workload.keys_of(trace), 0, 1);
    let mut cache = Cache::new(make(limit_bytes), free_expired);
    let mut hits = 0_u64;
    for index in 0..workload.warm_up + workload.requests {
        let now_ms = (index as f64 * 1e3 / workload.ttl_rate) as u32;
        let id = u32::try_from(stream.next_id())?;
        let hit = cache.request(id, &population, policy.overhead_bytes, now_ms);
        hits += u64::from(hit && index >= workload.warm_up);
    }
    Ok(hits as f64 / workload.requests.max(1) as f64)
}

/// A policy with expiry around it.
struct Cache {
    policy: Box<dyn Policy>,
    /// When each id expires, by id; zero is never.
    expires_ms: Vec<u32>,
    /// The same in order of time, if expired items are freed at once.
    due: Option<BinaryHeap<Reverse<(u32, u32)>>>,
}

impl Cache {
    fn new(policy: Box<dyn Policy>, free_expired: bool) -> Self {
        Self { policy, expires_ms: Vec::new(), due: free_expired.then(BinaryHeap::new) }
    }

    /// Look-aside: true if found, otherwise stored.
    fn request(
        &mut self,
        id: u32,
        population: &Population,
        overhead_bytes: usize,
        now_ms: u32,
    ) -> bool {
        self.free_due(now_ms);
        if self.policy.contains(id) {
            if !self.is_expired(id, now_ms) {
                self.policy.hit(id);
                return true;
            }
            self.policy.remove(id);
        }
        self.schedule(id, population.lifetime_seconds(id.into()), now_ms);
        let content = population.key_bytes(id.into()) + population.value_bytes(id.into());
        self.policy.insert(id, (content + overhead_bytes) as u32);
        false
    }

    fn is_expired(&self, id: u32, now_ms: u32) -> bool {
        let expires_ms = self.expires_ms.get(id as usize).copied().unwrap_or(0);
        expires_ms != 0 && expires_ms <= now_ms
    }

    fn schedule(&mut self, id: u32, lifetime_seconds: u32, now_ms: u32) {
        if lifetime_seconds == 0 {
            return;
        }
        let index = id as usize;
        if self.expires_ms.len() <= index {
            self.expires_ms.resize(index + 1, 0);
        }
        self.expires_ms[index] = now_ms + lifetime_seconds * 1000;
        if let Some(due) = &mut self.due {
            due.push(Reverse((self.expires_ms[index], id)));
        }
    }

    fn free_due(&mut self, now_ms: u32) {
        let Some(due) = &mut self.due else { return };
        while let Some(&Reverse((at_ms, id))) = due.peek() {
            if at_ms > now_ms {
                break;
            }
            due.pop();
            // An item evicted and stored again has a later entry.
            if self.expires_ms[id as usize] == at_ms && self.policy.contains(id) {
                self.policy.remove(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::population::Lifetimes;
    use crate::random::Random;

    const POLICIES: [&str; 7] = ["lru", "s3fifo", "s3fifo1", "sieve", "gdsf", "tinylfu", "learner"];

    fn policy(name: &str, limit_bytes: u64) -> Box<dyn Policy> {
        let Method::Play(make) = name.parse::<PolicySpec>().expect(name).method else {
            panic!("{name} does not play")
        };
        make(limit_bytes)
    }

    /// Goal: no policy holds more than its bytes, loses count, or drops everything. Method: random
    /// requests and removals, with the items held counted anew at the end.
    #[test]
    fn policies_keep_to_their_bytes() {
        for name in POLICIES {
            let limit = 10_000;
            let mut cache = policy(name, limit);
            let bytes = |id: u32| 50 + id % 100;
            let mut random = Random::new(1);
            for _ in 0..50_000 {
                let id = random.below(1 + random.clone().below(1000)) as u32;
                match cache.contains(id) {
                    true if random.below(20) == 0 => cache.remove(id),
                    true => cache.hit(id),
                    false => cache.insert(id, bytes(id)),
                }
            }
            let held: u32 = (0..1000).filter(|&id| cache.contains(id)).map(bytes).sum();
            assert!(u64::from(held) <= limit, "{name} holds {held}");
            assert!(u64::from(held) >= limit / 2, "{name} holds {held}");
        }
    }

    #[test]
    fn everything_fits_if_memory_suffices() {
        for name in POLICIES {
            let mut cache = policy(name, 1_000_000);
            (0..1000).for_each(|id| cache.insert(id, 100));
            assert!((0..1000).all(|id| cache.contains(id)), "{name}");
            (0..1000).for_each(|id| cache.remove(id));
            assert!(!(0..1000).any(|id| cache.contains(id)), "{name}");
        }
    }

    #[test]
    fn an_item_larger_than_the_cache_does_no_harm() {
        for name in POLICIES {
            let mut cache = policy(name, 1000);
            cache.insert(1, 5000);
            cache.insert(2, 100);
            assert!(!cache.contains(1), "{name}");
        }
    }

    /// LRU against a model that sorts by time of use.
    #[test]
    fn lru_evicts_what_was_used_longest_ago() {
        let mut cache = policy("lru", 1000);
        let mut order: Vec<u32> = Vec::new();
        let mut random = Random::new(2);
        for _ in 0..10_000 {
            let id = random.below(20) as u32;
            assert_eq!(cache.contains(id), order.contains(&id));
            if cache.contains(id) {
                cache.hit(id);
                order.retain(|&other| other != id);
            } else {
                cache.insert(id, 100);
                if order.len() == 10 {
                    order.remove(0);
                }
            }
            order.push(id);
        }
    }

    #[test]
    fn values_expire_and_are_freed_in_time() {
        for free_expired in [false, true] {
            let population = Population::new(1000, "16".parse().unwrap(), "84".parse().unwrap());
            let population = population.unwrap().with_lifetimes(Lifetimes::HalfShort);
            let id = (0..).find(|&id| population.lifetime_seconds(u64::from(id)) == 3).unwrap();
            let mut cache = Cache::new(policy("lru", 10_000), free_expired);
            assert!(!cache.request(id, &population, 0, 0));
            assert!(cache.request(id, &population, 0, 2999));
            let other = (0..).find(|&id| population.lifetime_seconds(u64::from(id)) == 0).unwrap();
            cache.request(other, &population, 0, 3000);
            assert_eq!(cache.policy.contains(id), !free_expired);
            assert!(!cache.request(id, &population, 0, 3000));
            assert!(cache.request(id, &population, 0, 3001));
        }
    }
}
