//! Ghosts: short memories of keys evicted from the small queue.
//!
//! A key that comes back soon after it was evicted was evicted too early and goes to the main
//! queue (S3-FIFO: Yang et al., SOSP 2023). Sixteen bits of the hash stand for the key: a wrong
//! match only places one item in the better queue. Costs 2 bytes for each key remembered.

const WAYS: usize = 8;

/// A set-associative table of fingerprints; each set is a queue of its own.
#[derive(Debug, Default)]
pub struct Ghosts {
    sets: Vec<[u16; WAYS]>,
}

impl Ghosts {
    /// Room for about `keys` keys; forgets all of them.
    pub fn resize(&mut self, keys: usize) {
        self.sets = vec![[0; WAYS]; keys.div_ceil(WAYS)];
    }

    /// How many keys fit.
    pub fn capacity(&self) -> usize {
        self.sets.len() * WAYS
    }

    /// Memory of the table.
    pub fn bytes(&self) -> u64 {
        (self.sets.len() * size_of::<[u16; WAYS]>()) as u64
    }

    /// Remembers a key; the oldest of its set is forgotten.
    pub fn remember(&mut self, hash: u64) {
        if let Some(at) = self.set_of(hash) {
            let set = &mut self.sets[at];
            set.copy_within(..WAYS - 1, 1);
            set[0] = fingerprint(hash);
        }
    }

    /// Whether the key is remembered; it is forgotten with that.
    pub fn take(&mut self, hash: u64) -> bool {
        let Some(at) = self.set_of(hash) else { return false };
        let set = &mut self.sets[at];
        let found = set.iter_mut().find(|print| **print == fingerprint(hash));
        found.map(|print| *print = 0).is_some()
    }

    fn set_of(&self, hash: u64) -> Option<usize> {
        let scaled = ((hash >> 16) & 0xffff_ffff) * self.sets.len() as u64;
        (!self.sets.is_empty()).then_some((scaled >> 32) as usize)
    }
}

/// Never 0, which marks an empty place.
fn fingerprint(hash: u64) -> u16 {
    (hash as u16).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_once_and_forgets_the_oldest() {
        let mut ghosts = Ghosts::default();
        assert!(!ghosts.take(5));
        ghosts.resize(WAYS);
        for hash in 1..=WAYS as u64 + 1 {
            ghosts.remember(hash);
        }
        assert!(!ghosts.take(1), "the oldest made room");
        assert!(ghosts.take(2));
        assert!(!ghosts.take(2), "taken once");
        assert!(ghosts.take(WAYS as u64 + 1));
    }
}
