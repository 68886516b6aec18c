//! A history of store calls against a map with deadlines. Goal: without eviction the store and the
//! map agree on everything; with it the store may forget, but never serves a value that was
//! replaced, deleted, flushed or has expired. Method: the input is a program of four-byte calls,
//! run on three stores; what a client could notice is compared after each call, the rest at the
//! end. References to values handed out on the way must still read as they did.
//!
//! ```text
//! verb  key  a  b      verb: a letter of VERBS, any other byte by its remainder
//! ```

use bytes::Bytes;
use distcache::store::budget::Budget;
use distcache::store::hash::KeyHasher;
use distcache::store::index::Handle;
use distcache::store::{Attributes, Full, Item, Settings, Store, Ticks, TokenRule, Value};
use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

const CALL_BYTES: usize = 4;

/// Put, append, touch, delete, get, observe a token, share a value, advance the clock, maintain,
/// flush, set the limit.
const VERBS: &[u8] = b"pjtdgosamfl";

const MEMORY_BYTES_SMALL: u64 = 1 << 20;
const MEMORY_BYTES_LARGE: u64 = 64 << 20;

/// Longest value that appending makes: a history cannot double it for ever.
const VALUE_BYTES_MAX: usize = 20 << 10;

/// Panics unless the stores behave.
pub fn check(program: &[u8]) {
    for (memory_bytes_max, evict) in
        [(MEMORY_BYTES_LARGE, false), (MEMORY_BYTES_SMALL, false), (MEMORY_BYTES_SMALL, true)]
    {
        let mut history = History::new(memory_bytes_max, evict);
        for call in program.chunks_exact(CALL_BYTES) {
            history.call([call[0], call[1], call[2], call[3]]);
        }
        history.finish();
    }
}

/// What the map knows of a key.
#[derive(Debug, Clone)]
struct Expected {
    value: Vec<u8>,
    attributes: Attributes,
    /// The token, once it was looked at.
    token: Option<u64>,
}

struct History {
    store: Store,
    hasher: KeyHasher,
    memory_bytes_max: u64,
    evict: bool,
    limit_was_set: bool,
    now: Ticks,
    calls: u32,
    model: HashMap<Vec<u8>, Expected>,
    /// Tokens seen on versions that are gone or not: none comes twice.
    tokens: HashSet<u64>,
    shared: Vec<(Bytes, Vec<u8>)>,
}

impl History {
    fn new(memory_bytes_max: u64, evict: bool) -> Self {
        static HASHER: OnceLock<KeyHasher> = OnceLock::new();
        let hasher = HASHER.get_or_init(|| KeyHasher::new([7, 11])).clone();
        let budget = Budget::new(memory_bytes_max, 1);
        let settings = Settings { budget, evict, hasher: hasher.clone(), sequence_start: 1 };
        Self {
            store: Store::new(settings),
            hasher,
            memory_bytes_max,
            evict,
            limit_was_set: false,
            now: Ticks::from_seconds(1_000_000),
            calls: 0,
            model: HashMap::new(),
            tokens: HashSet::new(),
            shared: Vec::new(),
        }
    }

    fn call(&mut self, [verb, key, a, b]: [u8; CALL_BYTES]) {
        self.calls += 1;
        let known = VERBS.contains(&verb);
        let verb = if known { verb } else { VERBS[usize::from(verb) % VERBS.len()] };
        let key = key_bytes(key);
        match verb {
            b'p' => self.put(key, usize::from(a) * usize::from(b) / 4, self.attributes(a, b)),
            b'j' => self.append(&key, usize::from(a) * 8),
            b't' => self.touch(&key, u64::from(b)),
            b'd' => self.delete(&key),
            b'g' => self.get(&key),
            b'o' => self.observe(&key),
            b's' => self.share(&key),
            b'a' => self.now = Ticks(self.now.0 + u64::from(a) * u64::from(b)),
            b'm' => {
                self.store.maintain(self.now, usize::from(a));
            }
            b'f' => self.flush(b),
            _ => self.set_limit(a),
        }
        self.check_memory();
    }

    fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash(key)
    }

    /// What the map holds, without what has expired.
    fn expected(&mut self, key: &[u8]) -> Option<&mut Expected> {
        let now = self.now;
        let is_dead = |found: &Expected| found.attributes.deadline.is_some_and(|at| at <= now);
        if self.model.get(key).is_some_and(is_dead) {
            self.model.remove(key);
        }
        self.model.get_mut(key)
    }

    /// The store's handle of a key, after comparing the item with the map's.
    fn find(&mut self, key: &[u8]) -> Option<Handle> {
        let (hash, now, evict) = (self.hash(key), self.now, self.evict);
        let found = self.store.find(hash, key, now).ok();
        let expected = self.expected(key).cloned();
        match (found, expected) {
            (Some(handle), Some(expected)) => check_item(&self.store.item(handle), key, &expected),
            (Some(_), None) => panic!("served an item that was deleted, expired or flushed"),
            (None, Some(_)) => {
                assert!(evict, "lost an item without eviction");
                self.model.remove(key);
            }
            (None, None) => {}
        }
        found
    }

    /// Flags, deadline and states from two bytes, each absent in some items.
    fn attributes(&self, a: u8, b: u8) -> Attributes {
        Attributes {
            flags: if a & 1 == 0 { 0 } else { u32::from(a) << 24 | u32::from(b) },
            deadline: (b & 3 == 0).then(|| self.now.plus_seconds(u64::from(b))),
            cas: (a & 31 == 31).then(|| u64::MAX - u64::from(self.calls)),
            stale: a & 2 != 0,
            win_sent: a & 4 != 0,
            key_binary: a & 8 != 0,
        }
    }

    /// A value that tells which call made it.
    fn value(&self, bytes: usize) -> Vec<u8> {
        self.calls.to_le_bytes().into_iter().cycle().take(bytes).collect()
    }

    fn put(&mut self, key: Vec<u8>, bytes: usize, attributes: Attributes) {
        let old = self.find(&key);
        let value = self.value(bytes);
        let given = match bytes % 2 {
            0 => Value::Parts([&value[..bytes / 2], &value[bytes / 2..]]),
            _ => Value::Owned(Bytes::copy_from_slice(&value)),
        };
        let stored = self.store.put(self.hash(&key), old, &key, attributes, given, self.now);
        if self.may_store(stored).is_some() {
            self.model.insert(key, Expected { value, attributes, token: None });
        }
    }

    fn append(&mut self, key: &[u8], bytes: usize) {
        let Some(handle) = self.find(key) else { return };
        let (hash, more) = (self.hash(key), self.value(bytes));
        let item = self.store.item(handle);
        let present = item.value.to_vec();
        if present.len() + more.len() > VALUE_BYTES_MAX {
            return;
        }
        let attributes = Attributes { cas: None, ..item.attributes };
        let parts = Value::Parts([&present, &more]);
        let rule = TokenRule::Fresh;
        let stored = self.store.update(hash, handle, attributes, parts, rule, self.now);
        if self.may_store(stored).is_some() {
            let value = [present, more].concat();
            self.model.insert(key.to_vec(), Expected { value, attributes, token: None });
        }
    }

    /// Another deadline, or none: the value and a token that was handed out stay.
    fn touch(&mut self, key: &[u8], seconds: u64) {
        let Some(handle) = self.find(key) else { return };
        let deadline = (seconds > 0).then(|| self.now.plus_seconds(seconds));
        let attributes = Attributes { deadline, ..self.store.item(handle).attributes };
        let (hash, rule) = (self.hash(key), TokenRule::Keep);
        let stored = self.store.rewrite(hash, handle, attributes, rule, self.now);
        if self.may_store(stored).is_some()
            && let Some(expected) = self.expected(key)
        {
            expected.attributes.deadline = deadline;
        }
    }

    /// A store with room, or that evicts, does not answer that it is full.
    fn may_store(&self, stored: Result<Handle, Full>) -> Option<Handle> {
        let may_be_full = !self.evict && self.memory_bytes_max == MEMORY_BYTES_SMALL;
        assert!(stored.is_ok() || may_be_full || self.limit_was_set, "full with room left");
        stored.ok()
    }

    fn delete(&mut self, key: &[u8]) {
        if let Some(handle) = self.find(key) {
            self.store.remove(handle);
        }
        self.model.remove(key);
        assert!(self.find(key).is_none());
    }

    fn get(&mut self, key: &[u8]) {
        if let Some(handle) = self.find(key) {
            self.store.accessed(handle);
        }
    }

    /// A client reads the token: it must not change from here on, nor come again.
    fn observe(&mut self, key: &[u8]) {
        let Some(handle) = self.find(key) else { return };
        self.store.token_handed_out(handle);
        let item = self.store.item(handle);
        let (token, chosen) = (item.token, item.attributes.cas.is_some());
        let is_new = self.expected(key).is_some_and(|expected| expected.token.is_none());
        if is_new && !chosen {
            assert!(self.tokens.insert(token), "a token came twice");
        }
        if let Some(expected) = self.expected(key) {
            expected.token = Some(token);
        }
    }

    fn share(&mut self, key: &[u8]) {
        let Some(handle) = self.find(key) else { return };
        let value = self.store.item(handle).value.to_vec();
        if let Some(shared) = self.store.share_value(handle) {
            self.shared.push((shared, value));
        }
    }

    /// Seldom, or histories would never grow.
    fn flush(&mut self, b: u8) {
        if b.is_multiple_of(16) {
            self.store.flush();
            self.model.clear();
            assert_eq!((self.store.items(), self.store.live_bytes()), (0, 0));
        }
    }

    /// From a quarter of the small limit to sixteen times that. The large store keeps its room.
    fn set_limit(&mut self, a: u8) {
        if self.memory_bytes_max == MEMORY_BYTES_SMALL {
            self.limit_was_set = true;
            self.store.set_memory_bytes_max(MEMORY_BYTES_SMALL / 4 * (1 + u64::from(a % 16)));
        }
    }

    fn check_memory(&self) {
        // Above the limit may be what `budget` says, and the segments that are being filled.
        let open = (self.store.segment_bytes() * 4) as u64;
        let slack = self.store.budget().overshoot_bytes() + open;
        let (used, limit) = (self.store.memory_bytes(), self.store.memory_bytes_max());
        assert!(self.limit_was_set || used <= limit + slack, "{used} bytes used of {limit}");
    }

    fn finish(mut self) {
        let keys: Vec<Vec<u8>> = self.model.keys().cloned().collect();
        for key in keys {
            self.find(&key);
        }
        let (mut visited, mut part) = (0, 0);
        let Self { store, model, now, .. } = &self;
        while store.visit_part(part, *now, |item| {
            let expected = model.get(item.key).expect("an item that is walked is in the map");
            check_item(&item, item.key, expected);
            visited += 1;
        }) {
            part += 1;
        }
        // Those that expired meanwhile may still be there, unmet.
        assert_eq!(visited, model.len(), "the walk meets every item once");
        assert!(visited <= store.items());
        for (shared, value) in &self.shared {
            assert!(shared == value, "a value changed while it was held");
        }
    }
}

fn check_item(item: &Item<'_>, key: &[u8], expected: &Expected) {
    assert_eq!(item.key, key);
    assert!(item.value == expected.value, "not the value stored last");
    let seen = Attributes { cas: None, ..item.attributes };
    assert_eq!(seen, Attributes { cas: None, ..expected.attributes });
    if let Some(token) = expected.attributes.cas {
        assert_eq!(item.token, token, "the token that was chosen");
    }
    if let Some(token) = expected.token {
        assert_eq!(item.token, token, "a token handed out stays");
    }
}

/// 256 keys of 1 to 250 bytes.
fn key_bytes(key: u8) -> Vec<u8> {
    let length = if key.is_multiple_of(16) { 250 - usize::from(key / 16) } else { 1 };
    vec![key; length]
}
