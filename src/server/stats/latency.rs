//! How long commands take: which are timed, and what came out.
//!
//! ```text
//! turn n    bytes of a connection are read   <- the time of the turn, read anyway
//!           its commands are executed; one in 128 leaves a probe
//! turn n+k  the last byte of the probe's reply goes into the socket   <- the clock is read
//! ```
//!
//! Waiting for other connections of the turn, for other shards, for logs and syncs counts. Waiting
//! for a client that does not read its replies does not: such probes are dropped. Owns histograms,
//! probes and the log of slow commands; never reads the clock.

use crate::protocol::meta::write_uri_key;
use crate::server::clock::Moment;
use crate::server::connection::session::Timed;
use crate::shard::hot::distance;
use crate::store::Ticks;

/// Probes of one connection under way; further commands are not timed.
const PROBES_MAX: usize = 32;

/// Slow commands that a worker logs in a second; further ones are counted.
const SLOW_LINES_PER_SECOND_MAX: u32 = 10;

/// Buckets for each doubling: a time is known to an eighth.
const STEPS: usize = 1 << STEP_BITS;
const STEP_BITS: u32 = 3;

/// Doublings beyond the first `STEPS` microseconds; what takes longer (67 s) is in the last bucket.
const DOUBLINGS: usize = 23;

const BUCKETS: usize = STEPS * (DOUBLINGS + 1);

/// Commands that are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Command {
    /// get, gets
    Get,
    /// gat, gats
    GetAndTouch,
    /// set, add, replace, append, prepend, cas
    Store,
    /// delete
    Delete,
    /// incr, decr
    Arithmetic,
    /// touch
    Touch,
    /// mg
    MetaGet,
    /// ms
    MetaStore,
    /// md
    MetaDelete,
    /// ma
    MetaArithmetic,
    /// me
    MetaDebug,
}

impl Command {
    /// Each with the name that statistics give it, in the order of the variants.
    pub const NAMES: [(Self, &'static str); 11] = [
        (Self::Get, "get"),
        (Self::GetAndTouch, "gat"),
        (Self::Store, "set"),
        (Self::Delete, "delete"),
        (Self::Arithmetic, "incr"),
        (Self::Touch, "touch"),
        (Self::MetaGet, "mg"),
        (Self::MetaStore, "ms"),
        (Self::MetaDelete, "md"),
        (Self::MetaArithmetic, "ma"),
        (Self::MetaDebug, "me"),
    ];

    /// The command that a line begins with.
    pub fn of_verb(verb: &[u8]) -> Option<Self> {
        Some(match verb {
            b"get" | b"gets" => Self::Get,
            b"gat" | b"gats" => Self::GetAndTouch,
            b"set" | b"add" | b"replace" | b"append" | b"prepend" | b"cas" => Self::Store,
            b"delete" => Self::Delete,
            b"incr" | b"decr" => Self::Arithmetic,
            b"touch" => Self::Touch,
            b"mg" => Self::MetaGet,
            b"ms" => Self::MetaStore,
            b"md" => Self::MetaDelete,
            b"ma" => Self::MetaArithmetic,
            b"me" => Self::MetaDebug,
            _ => return None,
        })
    }

    /// Its name in statistics.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize].1
    }
}

/// How often which time was met: exact below 8 microseconds, to an eighth above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS],
    count: u64,
    sum_us: u64,
    max_us: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], count: 0, sum_us: 0, max_us: 0 }
    }
}

/// The bucket of a time.
fn bucket_of(us: u64) -> usize {
    if us < STEPS as u64 {
        return us as usize;
    }
    let doublings = us.ilog2() - STEP_BITS;
    let step = (us >> doublings) as usize & (STEPS - 1);
    ((doublings as usize + 1) * STEPS + step).min(BUCKETS - 1)
}

/// The largest time of a bucket.
fn end_of(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let (doublings, step) = (bucket / STEPS - 1, bucket % STEPS);
    (((STEPS + step + 1) as u64) << doublings) - 1
}

impl Histogram {
    /// Counts a time.
    pub fn record(&mut self, us: u64) {
        self.counts[bucket_of(us)] += 1;
        self.count += 1;
        self.sum_us = self.sum_us.saturating_add(us);
        self.max_us = self.max_us.max(us);
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.count += other.count;
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        self.max_us = self.max_us.max(other.max_us);
    }

    /// Times counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// All of them together.
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// The longest.
    pub fn max_us(&self) -> u64 {
        self.max_us
    }

    /// What so many of a thousand do not exceed; an eighth too long at most.
    pub fn per_mille_us(&self, per_mille: u64) -> u64 {
        let wanted = (u128::from(self.count) * u128::from(per_mille)).div_ceil(1_000);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += u128::from(*count);
            if wanted <= seen && *count > 0 {
                // There is no end of the last bucket but the longest.
                let end = if bucket == BUCKETS - 1 { self.max_us } else { end_of(bucket) };
                return end.min(self.max_us);
            }
        }
        self.max_us
    }

    /// How many took less than 2 to this power, in microseconds.
    pub fn below_power(&self, power: u32) -> u64 {
        self.counts[..bucket_of(1 << power)].iter().sum()
    }
}

/// A histogram for each command that was timed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Latencies([Option<Box<Histogram>>; Command::NAMES.len()]);

impl Latencies {
    /// Counts a time.
    pub fn record(&mut self, command: Command, us: u64) {
        self.0[command as usize].get_or_insert_default().record(us);
    }

    /// Adds another worker's.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            if let Some(theirs) = theirs {
                mine.get_or_insert_default().add(theirs);
            }
        }
    }

    /// The commands that were timed.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Histogram)> {
        let named = Command::NAMES.iter().zip(&self.0);
        named.filter_map(|((_, name), histogram)| Some((*name, histogram.as_deref()?)))
    }
}

/// A command that is being timed.
#[derive(Debug)]
pub struct Probe {
    command: Command,
    since: Moment,
    key_hash: u64,
    command_bytes: usize,
    /// Only where the log may have it.
    key: Option<Box<[u8]>>,
}

/// A worker's timing.
#[derive(Debug)]
pub struct Timing {
    /// Commands until one is timed, from when `budget` was left to the connection being served; 0
    /// where all are.
    left: usize,
    /// 0 where all commands are timed, else 1.
    left_min: usize,
    budget: usize,
    /// What varies the distance of samples: the last key's hash, mixed with those before.
    state: u64,
    hash: u64,
    /// The moment of this turn.
    pub now: Moment,
    /// When the bytes of the connection being served were read.
    pub since: Moment,
    /// Probes of the connection being served.
    begun: Vec<Probe>,
    latencies: Latencies,
    /// Longer commands are logged, in microseconds; 0: none, and only samples are timed.
    slow_us: u64,
    slow: SlowLog,
}

/// Slow commands of this second, and those there was no room for.
#[derive(Debug, Default)]
struct SlowLog {
    second: u64,
    lines: u32,
    dropped: u64,
    /// All of them.
    count: u64,
}

/// What a client's output says of probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// All replies have left.
    All,
    /// Some of them wait here.
    Waits,
    /// The socket takes no more: the client does not read.
    Blocked,
}

impl Timing {
    /// Nothing timed yet.
    pub fn new(slow_us: u64) -> Self {
        let (latencies, slow) = (Latencies::default(), SlowLog::default());
        let (now, since) = (Moment::default(), Moment::default());
        // The first command that comes is timed.
        let left_min = usize::from(slow_us == 0);
        let (left, budget, state, hash) = (left_min, 0, 0, 0);
        let begun = Vec::new();
        Self { left, left_min, budget, state, hash, now, since, begun, latencies, slow_us, slow }
    }

    /// What came out.
    pub fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    /// Commands above the limit.
    pub fn slow_count(&self) -> u64 {
        self.slow.count
    }

    /// Forgets what came out.
    pub fn reset(&mut self) {
        self.latencies = Latencies::default();
        self.slow.count = 0;
    }

    /// Whether one of so many commands that come is to be timed.
    #[inline]
    pub fn is_near(&self, budget: usize) -> bool {
        self.left <= budget
    }

    /// So many commands came, none of which was to be timed.
    #[inline]
    pub fn pass(&mut self, commands: usize) {
        self.left = self.left.wrapping_sub(commands);
    }

    /// A connection whose bytes were read then, or in this turn, is about to be served with this
    /// budget. A command that leaves less of it than what this answers is to be timed.
    pub fn begin_serving(&mut self, budget: usize, read_at: Option<Moment>) -> usize {
        self.since = read_at.unwrap_or(self.now);
        self.first_timed(budget)
    }

    fn first_timed(&mut self, budget: usize) -> usize {
        self.budget = budget;
        budget.wrapping_add(1).saturating_sub(self.left)
    }

    /// The same after a command was timed that left so much of the budget. The next one is twice as
    /// far as samples of keys are apart: a time costs a reading of the clock.
    pub fn next_timed(&mut self, budget: usize) -> usize {
        // What `begin` is told of a command under way comes later: the last hash has to do.
        // Two distances, not one doubled: an even number marches in step with pairs.
        let mut distance = || distance(&mut self.state, self.hash) as usize;
        let apart = distance() + distance();
        self.left = apart * self.left_min;
        self.first_timed(budget)
    }

    /// Times a command that was executed.
    pub fn begin(&mut self, timed: Timed<'_>, key_hash: u64) {
        let Timed { command, key, bytes: command_bytes } = timed;
        self.hash = key_hash;
        if self.begun.len() >= PROBES_MAX {
            return;
        }
        let keep_key = self.slow_us > 0 && log::log_enabled!(log::Level::Debug);
        let key = keep_key.then(|| key.into());
        self.begun.push(Probe { command, since: self.since, key_hash, command_bytes, key });
    }

    /// A connection was served and has so much of its budget left: hands its probes over to it.
    pub fn end_serving(&mut self, budget: usize, probes: &mut Vec<Probe>) {
        let served = self.budget.wrapping_sub(budget);
        self.left = self.left.saturating_sub(served).max(self.left_min);
        if self.begun.is_empty() {
            return;
        }
        if probes.is_empty() {
            // The memory goes along, and comes back in `end`.
            return std::mem::swap(probes, &mut self.begun);
        }
        let room = PROBES_MAX.saturating_sub(probes.len());
        self.begun.truncate(room);
        probes.append(&mut self.begun);
    }

    /// A connection has written: counts what its probes waited for. `peer` says who it is.
    #[cold]
    pub fn end(
        &mut self,
        probes: &mut Vec<Probe>,
        sent: Sent,
        (now, moment): (Ticks, Moment),
        peer: impl Fn() -> String,
    ) {
        match sent {
            Sent::Waits => return,
            Sent::Blocked => probes.clear(),
            Sent::All => {
                for probe in probes.drain(..) {
                    let us = moment.microseconds_since(probe.since);
                    self.latencies.record(probe.command, us);
                    if 0 < self.slow_us && self.slow_us <= us {
                        self.slow.note(&probe, us, now, &peer);
                    }
                }
            }
        }
        if probes.is_empty() {
            // An idle connection keeps no memory.
            let memory = std::mem::take(probes);
            if self.begun.capacity() == 0 {
                self.begun = memory;
            }
        }
    }

    /// Says how many slow commands the log had no room for, once their second is over.
    pub fn tick(&mut self, now: Ticks) {
        self.slow.begin_second(now);
    }
}

impl SlowLog {
    fn begin_second(&mut self, now: Ticks) {
        if self.second == now.seconds() {
            return;
        }
        if self.dropped > 0 {
            log::warn!("{} more slow commands of one second were not logged", self.dropped);
        }
        *self = Self { second: now.seconds(), lines: 0, dropped: 0, count: self.count };
    }

    /// A line that has the command and the client, not the key: that is for `-vv`.
    fn note(&mut self, probe: &Probe, us: u64, now: Ticks, peer: &impl Fn() -> String) {
        self.begin_second(now);
        self.count += 1;
        if self.lines >= SLOW_LINES_PER_SECOND_MAX {
            self.dropped += 1;
            return;
        }
        self.lines += 1;
        let Probe { command, key_hash, command_bytes, key, .. } = probe;
        let (name, peer) = (command.name(), peer());
        log::warn!(
            "slow command: {name} took {us} us, bytes={command_bytes} from={peer} \
             key_hash={key_hash:016x}"
        );
        if let Some(key) = key {
            let mut text = Vec::new();
            write_uri_key(&mut text, key);
            let text = String::from_utf8_lossy(&text);
            log::debug!("slow command: key_hash={key_hash:016x} is key={text}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_what_they_end_with() {
        for us in (0..5_000).chain((12..40).flat_map(|power| [(1 << power) - 1, 1 << power])) {
            let bucket = bucket_of(us);
            if bucket == BUCKETS - 1 {
                assert!(end_of(bucket - 1) < us, "{us}");
                continue;
            }
            assert!(us <= end_of(bucket), "{us} in {bucket}");
            assert!(bucket == 0 || end_of(bucket - 1) < us, "{us} in {bucket}");
            assert!(end_of(bucket) - us <= us / 8, "{us} is told as {}", end_of(bucket));
        }
    }

    #[test]
    fn parts_of_a_thousand() {
        let mut times = Histogram::default();
        assert_eq!(times.per_mille_us(500), 0);
        for us in 1..=1_000 {
            times.record(us);
        }
        let mut both = Histogram::default();
        both.add(&times);
        for (per_mille, at_least) in [(500, 500), (990, 990), (999, 999), (1_000, 1_000), (0, 1)] {
            let found = both.per_mille_us(per_mille);
            let right = at_least..=(at_least + at_least / 8).min(1_000);
            assert!(right.contains(&found), "{per_mille}: {found}");
        }
        assert_eq!((both.count(), both.max_us(), both.sum_us()), (1_000, 1_000, 500_500));
        for (power, below) in [(1, 1), (3, 7), (6, 63), (9, 511), (10, 1_000), (22, 1_000)] {
            assert_eq!(both.below_power(power), below, "2^{power}");
        }
        times.record(u64::MAX);
        assert_eq!(times.per_mille_us(1_000), u64::MAX);
    }

    fn timed(command: Command) -> Timed<'static> {
        Timed { command, key: b"k", bytes: 7 }
    }

    /// The counts of what `end` is told, for a probe that waits for hole 5.
    fn check(sent: &[Sent], counted: u64, left: usize) {
        let mut timing = Timing::new(0);
        timing.begin_serving(10, None);
        timing.begin(timed(Command::Get), 3);
        let mut probes = Vec::new();
        timing.end_serving(9, &mut probes);
        for sent in sent {
            let moment = (Ticks::default(), Moment(3_000));
            timing.end(&mut probes, *sent, moment, String::new);
        }
        let count: u64 = timing.latencies().iter().map(|(_, times)| times.count()).sum();
        assert_eq!((count, probes.len()), (counted, left), "{sent:?}");
    }

    #[test]
    fn a_probe_ends_when_its_reply_has_left() {
        check(&[], 0, 1);
        check(&[Sent::Waits], 0, 1);
        check(&[Sent::Waits, Sent::All], 1, 0);
        check(&[Sent::All], 1, 0);
        check(&[Sent::Blocked, Sent::All], 0, 0);
    }

    #[test]
    fn samples_are_as_far_apart_as_they_should_be() {
        let mut timing = Timing::new(0);
        let (mut commands, mut samples) = (0, 0);
        for turn in 0..40_000_u64 {
            let mut budget = 1 + (turn % 20) as usize;
            let given = budget;
            let near = timing.is_near(budget);
            let mut below = if near { timing.begin_serving(budget, None) } else { 0 };
            while budget > 0 {
                budget -= 1;
                commands += 1;
                if budget < below {
                    samples += 1;
                    timing.begin(timed(Command::Get), turn);
                    below = timing.next_timed(budget);
                }
            }
            if near {
                timing.end_serving(budget, &mut Vec::new());
            } else {
                timing.pass(given - budget);
            }
        }
        let distance = f64::from(commands) / f64::from(samples);
        assert!((120.0..136.0).contains(&distance), "{distance}");
    }
}
