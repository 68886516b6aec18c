//! The changes of one shard as bytes to write: encoded when they happen, under the shard's lock,
//! and taken by whoever writes the log.
//!
//! Owns the sequence: every record of the shard has the next number, and a reply may leave once the
//! record of its change is safe. Does no I/O.

use super::change::kind;
use super::progress::Dirty;
use super::record::{BODY_BYTES_MAX, CONTINUES, Place, Seed, push_record};
use crate::store::Ticks;
use crate::store::item::{self, Attributes};
use bytes::Bytes;
use fxhash::FxHashMap;
use std::collections::VecDeque;
use std::sync::Arc;

/// Values up to this size are copied into the journal; larger ones are written from where they lie,
/// in pieces of [`BODY_BYTES_MAX`].
const VALUE_BYTES_COPIED_MAX: usize = BODY_BYTES_MAX / 4;

/// Changes wait while more than this does, of a shard: the device is behind.
const WAITING_BYTES_MAX: usize = 4 << 20;

/// Hashes in one record of evictions.
const EVICTED_PER_RECORD: usize = 512;

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

/// Records of a shard on their way to the log.
#[derive(Debug, Default)]
pub struct Batch {
    /// All but the pieces of large items.
    pub encoded: Vec<u8>,
    /// Large items between them.
    pub large: VecDeque<Large>,
    /// Bytes of those.
    pub large_bytes: usize,
    /// The last record in it.
    pub sequence: u64,
}

impl Batch {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.encoded.is_empty() && self.large.is_empty()
    }

    /// Puts the records of another one behind.
    fn extend(&mut self, other: &mut Self) {
        let behind = self.encoded.len();
        self.encoded.append(&mut other.encoded);
        self.large_bytes += std::mem::take(&mut other.large_bytes);
        self.large.extend(other.large.drain(..).map(|mut large| {
            large.at += behind;
            large
        }));
    }
}

/// Whether records are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taking {
    Records,
    /// The log has failed.
    Nothing,
}

/// See the module's text.
#[derive(Debug)]
pub struct Journal {
    seed: Seed,
    shard: u16,
    batch: Batch,
    /// Where it says that it is not empty.
    dirty: Arc<Dirty>,
    recent: Option<Recent>,
    taking: Taking,
    /// Changes are to be refused.
    refusing: bool,
    /// Of the last record that says so.
    expired_at: Ticks,
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
    /// A journal for a shard. `sequence` is the number of its last record; `tracks_reads` remembers
    /// which keys are not safe yet, see [`Journal::unsafe_sequence`].
    pub fn new(
        seed: Seed,
        shard: u16,
        sequence: u64,
        dirty: Arc<Dirty>,
        tracks_reads: bool,
    ) -> Self {
        Self {
            seed,
            shard,
            batch: Batch { sequence, ..Batch::default() },
            dirty,
            recent: tracks_reads.then(Recent::default),
            taking: Taking::Records,
            refusing: false,
            expired_at: Ticks::default(),
        }
    }

    /// The number of the last record.
    #[inline]
    pub fn sequence(&self) -> u64 {
        self.batch.sequence
    }

    /// Whether so much waits to be taken that changes should wait as well.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.batch.encoded.len() + self.batch.large_bytes > WAITING_BYTES_MAX
    }

    /// Whether changes are to be refused, because the log has failed.
    #[inline]
    pub fn is_refusing(&self) -> bool {
        self.refusing
    }

    /// Refuses changes, or takes them again.
    pub fn set_refusing(&mut self, refusing: bool) {
        self.refusing = refusing;
    }

    /// Takes no more records, and drops those that nobody has taken. Answers the last one.
    pub fn pause(&mut self) -> u64 {
        self.taking = Taking::Nothing;
        self.batch.encoded.clear();
        self.batch.large.clear();
        self.batch.large_bytes = 0;
        self.dirty.clear(self.shard);
        self.sequence()
    }

    /// Takes records again. Answers the last one before.
    pub fn resume(&mut self) -> u64 {
        self.taking = Taking::Records;
        self.sequence()
    }

    /// Hands over all records: `into` gets them behind what it has. Records up to `synced` are on
    /// the device.
    pub fn take(&mut self, into: &mut Batch, synced: u64) {
        if into.is_empty() {
            std::mem::swap(&mut into.encoded, &mut self.batch.encoded);
            std::mem::swap(&mut into.large, &mut self.batch.large);
            into.large_bytes = std::mem::take(&mut self.batch.large_bytes);
        } else {
            into.extend(&mut self.batch);
        }
        into.sequence = self.batch.sequence;
        self.dirty.clear(self.shard);
        if let Some(recent) = &mut self.recent {
            recent.forget(synced, self.batch.sequence);
        }
    }

    /// Until which record a read of this key has to wait; 0: it is safe. Only after `tracks_reads`.
    #[inline]
    pub fn unsafe_sequence(&self, hash: u64) -> u64 {
        self.recent.as_ref().map_or(0, |recent| recent.sequence_of(hash))
    }

    #[inline]
    fn push(&mut self, kind: u8, body: &[&[u8]]) {
        if self.batch.is_empty() {
            self.dirty.set(self.shard);
        }
        self.batch.sequence += 1;
        let place = Place { shard: self.shard, sequence: self.batch.sequence };
        push_record(&mut self.batch.encoded, self.seed, place, kind, body);
    }

    #[inline]
    /// Whether no records are taken, because the log has failed.
    pub fn is_paused(&self) -> bool {
        self.taking == Taking::Nothing
    }

    #[inline]
    fn note(&mut self, hash: u64) {
        if let Some(recent) = &mut self.recent {
            recent.note(hash, self.batch.sequence);
        }
    }

    /// An item was stored: `head` is its header and key, with the value behind unless that lies
    /// apart.
    #[inline]
    pub fn put(&mut self, hash: u64, head: &[u8], value: Option<&Bytes>) {
        if self.is_paused() {
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
        let (at, sequence) = (self.batch.encoded.len(), self.batch.sequence + 1);
        self.batch.large_bytes += value.len();
        self.batch.large.push_back(Large { at, sequence, rest: value });
        self.batch.sequence += pieces;
    }

    /// The item of a key has other attributes; its value stays.
    pub fn attributes(&mut self, hash: u64, key: &[u8], attributes: &Attributes) {
        if self.is_paused() {
            return;
        }
        let mut header = [0; item::HEADER_BYTES_MAX];
        let header_bytes = item::pack_header(&mut header, attributes, key.len(), 0);
        self.push(kind::ATTRIBUTES, &[&header[..header_bytes], key]);
        self.note(hash);
    }

    /// A key was removed.
    pub fn delete(&mut self, hash: u64, key: &[u8]) {
        if self.is_paused() {
            return;
        }
        self.push(kind::DELETE, &[key]);
        self.note(hash);
    }

    /// Everything was removed.
    pub fn flush(&mut self) {
        if self.is_paused() {
            return;
        }
        self.push(kind::FLUSH, &[]);
        if let Some(recent) = &mut self.recent {
            recent.flushed = self.batch.sequence;
        }
    }

    /// Everything stored until then will be removed at a time.
    pub fn flush_at(&mut self, at: Ticks) {
        if !self.is_paused() {
            self.push(kind::FLUSH_AT, &[&at.0.to_le_bytes()]);
        }
    }

    /// Items had to leave that nobody asked to remove: hashes of their keys.
    pub fn evicted(&mut self, hashes: impl Iterator<Item = u64>) {
        let mut body: Vec<u8> = hashes.flat_map(u64::to_le_bytes).collect();
        if self.is_paused() {
            body.clear();
        }
        for body in body.chunks(EVICTED_PER_RECORD * size_of::<u64>()) {
            self.push(kind::EVICT, &[body]);
        }
    }

    /// Items have expired: whatever the clock says at the next start, they are gone.
    pub fn expired(&mut self, now: Ticks) {
        if !self.is_paused() && now > self.expired_at {
            self.expired_at = now;
            self.push(kind::EXPIRE, &[&now.0.to_le_bytes()]);
        }
    }
}

impl Large {
    /// The kind of the next piece, and its bytes.
    pub fn next_piece(&self) -> (u8, Bytes) {
        let piece = self.rest.slice(..self.rest.len().min(BODY_BYTES_MAX));
        let goes_on = piece.len() < self.rest.len();
        (kind::REST | if goes_on { CONTINUES } else { 0 }, piece)
    }
}
