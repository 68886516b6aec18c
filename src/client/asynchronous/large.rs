//! Which keys of a server have large values, as far as calls have seen. Owns a guess, no more: a
//! key that is taken for large travels on a connection of its own, and is forgotten when it proves
//! small. So a large value is in the way of others once, and not each time it is read.
//!
//! A table of marks, two keys of the same place push each other out: with more than some thousand
//! large keys in use at a time, some travel with the others again. Considered and rejected: asking
//! for the size first (`mg` without the value), which costs every get a second round trip; a second
//! shared connection for them, where large values wait for one another.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Places for marks; 16 KiB, made when a first large value was seen.
const PLACES: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct LargeKeys {
    table: OnceLock<Table>,
}

#[derive(Debug)]
struct Table {
    hasher: RandomState,
    /// 0: no key.
    marks: Vec<AtomicU32>,
}

impl Table {
    fn new() -> Self {
        let marks = (0..PLACES).map(|_| AtomicU32::new(0)).collect();
        Self { hasher: RandomState::new(), marks }
    }

    /// The place of a key, and its mark there.
    fn place(&self, key: &[u8]) -> (&AtomicU32, u32) {
        let hash = self.hasher.hash_one(key);
        let mark = ((hash >> 32) as u32).max(1);
        (&self.marks[hash as usize % PLACES], mark)
    }
}

impl LargeKeys {
    /// Whether the value of a key is likely to be large.
    pub(super) fn has(&self, key: &[u8]) -> bool {
        let Some(table) = self.table.get() else { return false };
        let (place, mark) = table.place(key);
        place.load(Ordering::Relaxed) == mark
    }

    /// The value of a key is large.
    pub(super) fn add(&self, key: &[u8]) {
        let (place, mark) = self.table.get_or_init(Table::new).place(key);
        place.store(mark, Ordering::Relaxed);
    }

    /// It is not.
    pub(super) fn remove(&self, key: &[u8]) {
        let Some(table) = self.table.get() else { return };
        let (place, mark) = table.place(key);
        // Another key's mark is left where it is.
        let _ = place.compare_exchange(mark, 0, Ordering::Relaxed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_until_they_prove_small() {
        let large = LargeKeys::default();
        assert!(!large.has(b"a") && large.table.get().is_none(), "nothing is paid before");
        large.remove(b"a");
        large.add(b"a");
        assert!(large.has(b"a") && !large.has(b"b"));
        large.remove(b"b");
        assert!(large.has(b"a"));
        large.remove(b"a");
        assert!(!large.has(b"a"));
    }

    #[test]
    fn a_thousand_keys_find_room() {
        let (large, keys) = (LargeKeys::default(), 0..1000u32);
        keys.clone().for_each(|key| large.add(&key.to_le_bytes()));
        let known = keys.filter(|key| large.has(&key.to_le_bytes())).count();
        assert!(known > 700, "{known}");
        let others = 1000..11_000u32;
        assert_eq!(others.filter(|key| large.has(&key.to_le_bytes())).count(), 0);
    }
}
