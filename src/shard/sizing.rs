//! A shard's part of `stats sizing`: events of keys whose hashes fall below a threshold.
//!
//! A key is sampled by its hash, so that all of a key's operations are seen or none (SHARDS:
//! Waldspurger, Park, Garthwaite, Ahmad: "Efficient MRC Construction with SHARDS", FAST 2015). The
//! events wait here, few of them, until a worker hands them to the [`Simulator`]; if there are too
//! many, the threshold is halved and the events of keys above it are dropped, so that those of the
//! keys below stay complete. No clock, no I/O.
//!
//! [`Simulator`]: super::simulator::Simulator

use super::operation::{Operation, Verb};
use super::{Shard, deadline};
use crate::store::Ticks;

/// Hashes are sampled by so many bits: others than those that choose the shard.
const HASH_BITS: u32 = 24;
const HASH_SHIFT: u32 = 24;

/// A threshold that takes all keys.
pub const ALL_KEYS: u32 = 1 << HASH_BITS;

/// A threshold does not fall below one key in a million.
pub const THRESHOLD_MIN: u32 = ALL_KEYS >> 20;

/// Events that wait in a shard.
pub const EVENTS_MAX: usize = 1 << 10;

/// Where the last event of a key may be found, to add to it.
const RECENT: usize = 64;

const _: () = assert!(EVENTS_MAX <= u16::MAX as usize && RECENT.is_power_of_two());
const _: () = assert!(THRESHOLD_MIN > 0 && HASH_SHIFT + HASH_BITS <= 48, "48 and up: the shard");
const _: () = assert!(size_of::<Event>() <= 40, "a full buffer is at most 40 KB");

/// Whether a key with this hash is sampled.
#[inline]
pub fn is_sampled(hash: u64, threshold: u32) -> bool {
    ((hash >> HASH_SHIFT) as u32 & (ALL_KEYS - 1)) < threshold
}

/// What a key was asked for, and whether it was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// It was not asked for.
    No,
    /// It was there.
    Hit,
    /// It was not.
    Miss,
}

/// What became of the item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// It was stored.
    Put,
    /// It was removed, or would have been.
    Remove,
    /// It was given another deadline, or would have been.
    Touch,
    /// All items of the shard were removed.
    Flush,
}

/// An operation on a sampled key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Of the key.
    pub hash: u64,
    /// When it was.
    pub at: Ticks,
    /// What the item takes, the index included; 0: there is none.
    pub bytes: u32,
    /// How often the same happened again before anything else did to the key.
    pub repeats: u32,
    /// When the item expires; [`Ticks::NEVER`]: never.
    pub deadline: Ticks,
    /// Whether it was asked for.
    pub asked: Asked,
    /// What became of it; after the question.
    pub change: Change,
}

/// What a shard hands over.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Handed {
    /// Keys above this are not in the events, or not all.
    pub threshold: u32,
    /// Gets and touches since the last time, of all keys.
    pub gets: u64,
    /// Those that found their key.
    pub hits: u64,
}

/// A shard's sample.
#[derive(Debug)]
pub struct Sampler {
    /// 0: nobody wants to know.
    threshold: u32,
    events: Vec<Event>,
    /// By hash, where an event of the key may be.
    recent: [u16; RECENT],
    /// Lookups and hits as far as they were handed over.
    told: (u64, u64),
}

impl Default for Sampler {
    fn default() -> Self {
        Self { threshold: 0, events: Vec::new(), recent: [0; RECENT], told: (0, 0) }
    }
}

/// What is to be remembered from before an operation.
pub(super) struct Before<'a> {
    hash: u64,
    key: &'a [u8],
    /// See [`super::counters::Counters::lookups`].
    lookups: (u64, u64),
    stored: u64,
    removes: bool,
    /// The deadline that the operation gives.
    touches: Option<Ticks>,
}

impl Sampler {
    #[inline]
    pub(super) fn samples(&self, hash: u64) -> bool {
        is_sampled(hash, self.threshold)
    }

    /// Counters were set to 0.
    pub(super) fn counters_reset(&mut self) {
        self.told = (0, 0);
    }

    /// All items are gone.
    pub(super) fn flushed(&mut self) {
        if self.threshold > 0 {
            self.events.clear();
            self.events.push(Event {
                hash: 0,
                at: Ticks::default(),
                bytes: 0,
                repeats: 0,
                deadline: Ticks::NEVER,
                asked: Asked::No,
                change: Change::Flush,
            });
        }
    }

    /// Adds a lookup to the last event of the key, if that was the same.
    fn repeat(&mut self, hash: u64, asked: Asked) -> bool {
        let at = usize::from(self.recent[hash as usize % RECENT]);
        let Some(last) = self.events.get_mut(at) else { return false };
        let is_same = (last.hash, last.asked, last.change) == (hash, asked, Change::None);
        last.repeats = last.repeats.saturating_add(u32::from(is_same));
        is_same
    }

    fn note(&mut self, event: Event) {
        if self.events.len() == EVENTS_MAX {
            self.halve();
        }
        if self.samples(event.hash) && self.events.len() < EVENTS_MAX {
            self.recent[event.hash as usize % RECENT] = self.events.len() as u16;
            self.events.push(event);
        }
    }

    fn halve(&mut self) {
        self.threshold = (self.threshold / 2).max(THRESHOLD_MIN);
        let threshold = self.threshold;
        let stays = |event: &Event| is_sampled(event.hash, threshold);
        self.events.retain(|event| event.change == Change::Flush || stays(event));
        // Places have moved; what is found there by chance is of another key.
        self.recent = [0; RECENT];
    }
}

impl Shard {
    /// What is known before an operation on a sampled key.
    #[cold]
    pub(super) fn before<'a>(&self, operation: &Operation<'a>, now: Ticks) -> Before<'a> {
        let (removes, exptime) = match &operation.verb {
            Verb::Delete { .. } | Verb::MetaDelete(_) | Verb::DropStale => (true, None),
            Verb::Touch { exptime } | Verb::GetAndTouch { exptime, .. } => (false, Some(*exptime)),
            Verb::MetaGet(args) => (false, args.exptime),
            _ => (false, None),
        };
        Before {
            hash: operation.hash,
            key: operation.key,
            lookups: self.counters.lookups(),
            stored: self.store.counters().stored,
            removes,
            touches: exptime.map(|exptime| deadline(exptime, now).unwrap_or(Ticks::NEVER)),
        }
    }

    /// Notes what an operation on a sampled key did.
    #[cold]
    pub(super) fn note_sampled(&mut self, before: &Before<'_>, now: Ticks) {
        let Before { hash, key, .. } = *before;
        let (hits, misses) = self.counters.lookups();
        let asked = match (hits != before.lookups.0, misses != before.lookups.1) {
            (true, _) => Asked::Hit,
            (_, true) => Asked::Miss,
            _ => Asked::No,
        };
        let is_stored = self.store.counters().stored != before.stored;
        let only_asked = !is_stored && !before.removes && before.touches.is_none();
        // A hot key costs no more than this.
        if only_asked && (asked == Asked::No || self.sizing.repeat(hash, asked)) {
            return;
        }
        let item = self.store.peek(hash, key);
        let change = if is_stored && item.is_some() {
            Change::Put
        } else if before.removes && item.is_none() {
            Change::Remove
        } else if before.touches.is_some() {
            Change::Touch
        } else {
            Change::None
        };
        if asked == Asked::No && change == Change::None {
            return;
        }
        let (bytes, deadline) = item.unwrap_or((0, None));
        let deadline = before.touches.or(deadline).unwrap_or(Ticks::NEVER);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.sizing.note(Event { hash, at: now, bytes, repeats: 0, deadline, asked, change });
    }

    /// Hands over what was noted since the last call, in place of what is in `events`. From here on
    /// keys below `threshold` are noted.
    pub fn hand_over(&mut self, threshold: u32, events: &mut Vec<Event>) -> Handed {
        events.clear();
        let (hits, misses) = self.counters.lookups();
        let totals = (hits + misses, hits);
        let Sampler { threshold: noted, told, events: waiting, recent } = &mut self.sizing;
        std::mem::swap(events, waiting);
        *recent = [0; RECENT];
        let before = std::mem::replace(told, totals);
        if *noted == 0 {
            // The first time: what happened before is not in the sample.
            *noted = threshold;
            return Handed { threshold, gets: 0, hits: 0 };
        }
        let handed = Handed {
            threshold: (*noted).min(threshold),
            gets: totals.0 - before.0,
            hits: totals.1 - before.1,
        };
        *noted = handed.threshold;
        handed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Exptime, StoreArgs, StoreMode};
    use crate::shard::Rules;
    use crate::shard::operation::{Data, Form};
    use crate::shard::replies::Replies;
    use crate::store::Settings;
    use crate::store::budget::Budget;
    use crate::store::hash::KeyHasher;
    use std::collections::HashMap;

    const NOW: Ticks = Ticks::from_seconds(1_000_000);

    struct Rig {
        shard: Shard,
        hasher: KeyHasher,
        events: Vec<Event>,
    }

    impl Rig {
        fn new() -> Self {
            let hasher = KeyHasher::new([7, 11]);
            let budget = Budget::new(8 << 20, 1);
            let settings =
                Settings { budget, evict: true, hasher: hasher.clone(), sequence_start: 1 };
            let rules = Rules { item_bytes_max: 1 << 20, cas: true, prefix_delimiter: b':' };
            let shard = Shard::new(settings, rules);
            Self { shard, hasher, events: Vec::new() }
        }

        fn hand_over(&mut self) -> Handed {
            self.shard.hand_over(ALL_KEYS, &mut self.events)
        }

        fn execute(&mut self, key: &str, verb: Verb<'_>) {
            let (mut out, key) = (Replies::default(), key.as_bytes());
            let operation = Operation { key, hash: self.hasher.hash(key), form: Form::Text, verb };
            self.shard.execute(operation, NOW, &mut out);
        }

        fn get(&mut self, key: &str) {
            self.execute(key, Verb::Get { with_cas: false });
        }

        fn store(&mut self, key: &str, mode: StoreMode, seconds: u32) {
            let exptime = Exptime::Relative(seconds);
            let args = StoreArgs { mode, flags: 0, exptime, compare: 0 };
            self.execute(key, Verb::Store(args, Data::Slice(b"value")));
        }
    }

    #[test]
    fn what_happened_to_a_key_is_noted() {
        use Asked::{Hit, Miss, No};
        type Case = (&'static str, fn(&mut Rig), &'static [(Asked, Change, u64)]);
        let touch = |rig: &mut Rig| rig.execute("k", Verb::Touch { exptime: Exptime::Relative(9) });
        let _: fn(&mut Rig) = touch;
        let cases: &[Case] = &[
            ("miss", |rig| rig.get("k"), &[(Miss, Change::None, 0)]),
            (
                "delete of nothing",
                |rig| rig.execute("k", Verb::Delete { compare: 0 }),
                &[(No, Change::Remove, 0)],
            ),
            ("touch of nothing", touch, &[(Miss, Change::Touch, 9)]),
            ("replace of nothing", |rig| rig.store("k", StoreMode::Replace, 5), &[]),
            ("set", |rig| rig.store("k", StoreMode::Set, 5), &[(No, Change::Put, 5)]),
            ("hit", |rig| rig.get("k"), &[(Hit, Change::None, 5)]),
            ("failed add", |rig| rig.store("k", StoreMode::Add, 7), &[]),
            ("append", |rig| rig.store("k", StoreMode::Append, 0), &[(No, Change::Put, 5)]),
            ("touch", touch, &[(Hit, Change::Touch, 9)]),
            ("flush", |rig| rig.shard.flush(), &[(No, Change::Flush, 0)]),
            (
                "delete",
                |rig| rig.execute("k", Verb::Delete { compare: 0 }),
                &[(No, Change::Remove, 0)],
            ),
        ];
        let mut rig = Rig::new();
        rig.get("k");
        rig.hand_over();
        assert!(rig.events.is_empty(), "nobody had asked yet");
        for (name, act, expected) in cases {
            act(&mut rig);
            rig.hand_over();
            let seen: Vec<_> = rig
                .events
                .iter()
                .map(|event| {
                    let lives = match event.deadline {
                        Ticks::NEVER => 0,
                        deadline => (deadline.0 - NOW.0) / Ticks::PER_SECOND,
                    };
                    (event.asked, event.change, lives)
                })
                .collect();
            assert_eq!(&seen, expected, "{name}");
        }
    }

    #[test]
    fn the_same_again_is_counted_and_something_else_ends_that() {
        let mut rig = Rig::new();
        rig.hand_over();
        rig.store("k", StoreMode::Set, 5);
        for _ in 0..10 {
            rig.get("k");
            rig.get("other");
        }
        rig.store("k", StoreMode::Set, 5);
        rig.get("k");
        let handed = rig.hand_over();
        assert_eq!((handed.gets, handed.hits), (21, 11));
        let hash = rig.hasher.hash(b"k");
        let ours = rig.events.iter().filter(|event| event.hash == hash);
        let seen: Vec<_> = ours.map(|event| (event.asked, event.change, event.repeats)).collect();
        let (put, hit) = ((Asked::No, Change::Put), (Asked::Hit, Change::None));
        let expected = [(put, 0), (hit, 9), (put, 0), (hit, 0)];
        assert_eq!(seen, expected.map(|((asked, change), repeats)| (asked, change, repeats)));
    }

    #[test]
    fn too_many_events_lower_the_threshold_and_leave_those_below_complete() {
        let mut rig = Rig::new();
        rig.hand_over();
        let (mut expected, rounds) = (HashMap::new(), 5);
        for _ in 0..rounds {
            for number in 0..EVENTS_MAX * 3 {
                let key = format!("key{number}");
                rig.get(&key);
                *expected.entry(rig.hasher.hash(key.as_bytes())).or_insert(0) += 1;
            }
        }
        let handed = rig.hand_over();
        assert!(handed.threshold < ALL_KEYS && handed.threshold > THRESHOLD_MIN);
        assert!(rig.events.len() > EVENTS_MAX / 8 && rig.events.len() <= EVENTS_MAX);
        let mut seen: HashMap<u64, u32> = HashMap::new();
        for event in &rig.events {
            *seen.entry(event.hash).or_insert(0) += event.repeats + 1;
        }
        expected.retain(|hash, _| is_sampled(*hash, handed.threshold));
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_reset_of_the_counters_takes_nothing_off_what_follows() {
        let mut rig = Rig::new();
        rig.get("k");
        rig.hand_over();
        rig.get("k");
        rig.shard.reset_counters();
        rig.get("k");
        assert_eq!(rig.hand_over().gets, 1);
    }
}
