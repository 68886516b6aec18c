//! Counts by key prefix, for `stats detail`.

use super::operation::Verb;
use std::collections::BTreeMap;

/// Prefixes counted apart; the keys of further ones are not counted, so that clients cannot fill
/// the memory with prefixes.
const PREFIXES_MAX: usize = 10_000;

/// What was asked of the keys with one prefix.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PrefixCounts {
    /// Gets.
    pub gets: u64,
    /// Of those, hits.
    pub hits: u64,
    /// Sets.
    pub sets: u64,
    /// Deletes.
    pub deletes: u64,
}

impl PrefixCounts {
    /// Adds another shard's counts.
    pub fn add(&mut self, other: &Self) {
        self.gets += other.gets;
        self.hits += other.hits;
        self.sets += other.sets;
        self.deletes += other.deletes;
    }
}

/// The counts of all prefixes of one shard. A tree, not a hash map: the prefixes are clients'.
#[derive(Debug, Clone)]
pub struct PrefixStats {
    delimiter: u8,
    recording: bool,
    counts: BTreeMap<Box<[u8]>, PrefixCounts>,
}

impl PrefixStats {
    /// No counts yet.
    pub fn new(delimiter: u8) -> Self {
        Self { delimiter, recording: true, counts: BTreeMap::new() }
    }

    /// Goes on or pauses.
    pub fn set_recording(&mut self, on: bool) {
        self.recording = on;
    }

    /// Counts a command; hits are counted by [`PrefixStats::record_hit`].
    pub fn record(&mut self, verb: &Verb<'_>, key: &[u8]) {
        let Some(counts) = self.counts_of(key) else { return };
        match verb {
            Verb::Get { .. } | Verb::GetAndTouch { .. } => counts.gets += 1,
            Verb::Store(..) => counts.sets += 1,
            Verb::Delete { .. } => counts.deletes += 1,
            _ => {}
        }
    }

    /// Counts a hit.
    pub fn record_hit(&mut self, key: &[u8]) {
        if let Some(counts) = self.counts_of(key) {
            counts.hits += 1;
        }
    }

    /// Prefixes and counts in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &PrefixCounts)> {
        self.counts.iter().map(|(prefix, counts)| (&prefix[..], counts))
    }

    fn counts_of(&mut self, key: &[u8]) -> Option<&mut PrefixCounts> {
        let end = key.iter().position(|byte| *byte == self.delimiter);
        let prefix = &key[..end.filter(|_| self.recording)?];
        if !self.counts.contains_key(prefix) {
            if self.counts.len() >= PREFIXES_MAX {
                return None;
            }
            self.counts.insert(prefix.into(), PrefixCounts::default());
        }
        self.counts.get_mut(prefix)
    }
}
