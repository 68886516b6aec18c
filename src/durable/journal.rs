//! The changes of one shard as bytes to write: encoded when they happen, written once a turn.
//!
//! Owns the sequence: every record has the next number, and a reply may leave once the record of
//! its change is safe. Does no I/O; `log` takes the bytes.

use super::change::kind;
use super::record::{BODY_BYTES_MAX, CONTINUES, Seed, push_record};
use crate::store::Ticks;
use crate::store::item::{self, Attributes};
use bytes::Bytes;
use fxhash::FxHashMap;
use std::collections::VecDeque;

/// Values up to this size are copied into the turn's bytes; larger ones are written from where
/// they lie, in pieces of [`BODY_BYTES_MAX`].
const VALUE_BYTES_COPIED_MAX: usize = BODY_BYTES_MAX / 4;

/// A large item to be written from where it lies.
#[derive(Debug)]
pub struct Large {
    /// It comes before this position of the encoded bytes.
    pub at: usize,
    /// Sequence of its next piece.
    pub sequence: u64,
    /// The value, without what is written already.
    pub rest: Bytes,
}

/// See the module's text.
#[derive(Debug)]
pub struct Journal {
    seed: Seed,
    /// The number of the last record.
    sequence: u64,
    /// Records that are not written yet, but for the pieces of large items.
    pub(super) encoded: Vec<u8>,
    /// How much of `encoded` is written.
    pub(super) written_bytes: usize,
    pub(super) large: VecDeque<Large>,
    recent: Option<Recent>,
    /// No records are taken: the log has failed.
    paused: bool,
}

/// Keys whose last change may not be on the device yet, so that a read of them has to wait for it.
/// Two generations: the older one is dropped as a whole when it is safe.
#[derive(Debug, Default)]
struct Recent {
    older: FxHashMap<u64, u64>,
    older_end: u64,
    newer: FxHashMap<u64, u64>,
    flushed: u64,
}

impl Recent {
    fn note(&mut self, hash: u64, sequence: u64) {
        self.newer.insert(hash, sequence);
    }

    fn sequence_of(&self, hash: u64) -> u64 {
        let found = self.newer.get(&hash).or_else(|| self.older.get(&hash));
        found.copied().unwrap_or(0).max(self.flushed)
    }

    fn forget(&mut self, synced: u64, last: u64) {
        if synced < self.older_end {
            return;
        }
        self.older.clear();
        std::mem::swap(&mut self.older, &mut self.newer);
        self.older_end = last;
        if synced >= last {
            self.older.clear();
        }
        if synced >= self.flushed {
            self.flushed = 0;
        }
    }
}

impl Journal {
    /// A journal for a file. `sequence` is the number of the last record before; `tracks_reads`
    /// remembers which keys are not safe yet, see [`Journal::unsafe_sequence`].
    pub fn new(seed: Seed, sequence: u64, tracks_reads: bool) -> Self {
        Self {
            seed,
            sequence,
            encoded: Vec::new(),
            written_bytes: 0,
            large: VecDeque::new(),
            recent: tracks_reads.then(Recent::default),
            paused: false,
        }
    }

    /// The number of the last record.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Nothing waits to be written.
    pub fn is_empty(&self) -> bool {
        self.encoded.is_empty() && self.large.is_empty()
    }

    /// Large values wait to be written.
    pub fn has_large(&self) -> bool {
        !self.large.is_empty()
    }

    /// Whether changes are refused or go unrecorded because the log has failed.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Takes no more records, and drops those that are not written.
    pub fn pause(&mut self) {
        self.paused = true;
        self.encoded.clear();
        self.written_bytes = 0;
        self.large.clear();
    }

    /// Takes records again.
    pub fn resume(&mut self) {
        self.paused = false;
    }

    /// What was encoded goes to the next file from here on.
    pub(super) fn begin_file(&mut self, seed: Seed) {
        debug_assert!(self.is_empty());
        self.seed = seed;
    }

    pub(super) fn seed(&self) -> Seed {
        self.seed
    }

    /// Until which record a read of this key has to wait; 0: it is safe. Only after `tracks_reads`.
    #[inline]
    pub fn unsafe_sequence(&self, hash: u64) -> u64 {
        self.recent.as_ref().map_or(0, |recent| recent.sequence_of(hash))
    }

    /// Records up to this one are on the device.
    pub fn note_synced(&mut self, sequence: u64) {
        let last = self.sequence;
        if let Some(recent) = &mut self.recent {
            recent.forget(sequence, last);
        }
    }

    #[inline]
    pub(super) fn push(&mut self, kind: u8, body: &[&[u8]]) {
        self.sequence += 1;
        push_record(&mut self.encoded, self.seed, self.sequence, kind, body);
    }

    #[inline]
    fn note(&mut self, hash: u64) {
        if let Some(recent) = &mut self.recent {
            recent.note(hash, self.sequence);
        }
    }

    /// An item was stored: `head` is its header and key, with the value behind unless that lies
    /// apart.
    #[inline]
    pub fn put(&mut self, hash: u64, head: &[u8], value: Option<&Bytes>) {
        if self.paused {
            return;
        }
        match value {
            None => self.push(kind::PUT, &[head]),
            Some(value) if value.len() <= VALUE_BYTES_COPIED_MAX => {
                self.push(kind::PUT, &[head, value]);
            }
            Some(value) => self.put_large(head, value.clone()),
        }
        self.note(hash);
    }

    fn put_large(&mut self, head: &[u8], value: Bytes) {
        self.push(kind::PUT | CONTINUES, &[head]);
        let pieces = value.len().div_ceil(BODY_BYTES_MAX) as u64;
        let large = Large { at: self.encoded.len(), sequence: self.sequence + 1, rest: value };
        self.large.push_back(large);
        self.sequence += pieces;
    }

    /// The item of a key has other attributes; its value stays.
    pub fn attributes(&mut self, hash: u64, key: &[u8], attributes: &Attributes) {
        if self.paused {
            return;
        }
        let mut header = [0; item::HEADER_BYTES_MAX];
        let header_bytes = item::pack_header(&mut header, attributes, key.len(), 0);
        self.push(kind::ATTRIBUTES, &[&header[..header_bytes], key]);
        self.note(hash);
    }

    /// A key was removed.
    pub fn delete(&mut self, hash: u64, key: &[u8]) {
        if self.paused {
            return;
        }
        self.push(kind::DELETE, &[key]);
        self.note(hash);
    }

    /// Everything was removed.
    pub fn flush(&mut self) {
        if self.paused {
            return;
        }
        self.push(kind::FLUSH, &[]);
        if let Some(recent) = &mut self.recent {
            recent.flushed = self.sequence;
        }
    }

    /// Everything stored until then will be removed at a time.
    pub fn flush_at(&mut self, at: Ticks) {
        if !self.paused {
            self.push(kind::FLUSH_AT, &[&at.0.to_le_bytes()]);
        }
    }
}

impl Large {
    /// The kind of the next piece, and its bytes.
    pub fn next_piece(&self) -> (u8, Bytes) {
        let piece = self.rest.slice(..self.rest.len().min(BODY_BYTES_MAX));
        let goes_on = piece.len() < self.rest.len();
        (kind::PUT | if goes_on { CONTINUES } else { 0 }, piece)
    }
}
