//! Writing the items of one shard to a file, a few at a time.
//!
//! Owns the file until it is whole and on the device; `directory` makes it current. Items come in
//! any order and need not be of one moment: the log that was begun before the first of them is
//! replayed on top.

use super::change::{Finish, Start, kind};
use super::disk::{DiskFile, append_all};
use super::record::{BODY_BYTES_MAX, CONTINUES, FileHeader, Seed, frame, push_record};
use crate::store::SharedItem;
use std::io;
use std::sync::Arc;
use std::thread;

/// Items are gathered into records of about this size.
const BLOCK_BYTES: usize = 64 << 10;

/// Items above this get a record of their own.
const ITEM_BYTES_GATHERED_MAX: usize = 32 << 10;

/// After so many bytes the file is synced, so that the device is not flooded at the end, in front
/// of the logs' own syncs.
const SYNC_BYTES: u64 = 16 << 20;

/// After so many bytes the processor is offered to whoever waits for it. A thread that Linux (since
/// 6.12) has given a time slice keeps it for 3 milliseconds, however little its nice value makes of
/// it, while a worker that a request has woken waits.
const YIELD_BYTES: usize = 64 << 10;

const _: () = assert!(BLOCK_BYTES + ITEM_BYTES_GATHERED_MAX < BODY_BYTES_MAX);

/// See the module's text.
pub struct SnapshotWriter {
    file: Arc<dyn DiskFile>,
    seed: Seed,
    sequence: u64,
    block: Vec<u8>,
    encoded: Vec<u8>,
    items: u64,
    bytes: u64,
    bytes_synced: u64,
}

/// What a finished snapshot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// Items.
    pub items: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

impl SnapshotWriter {
    /// Begins a snapshot in an empty file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn begin(file: Arc<dyn DiskFile>, header: &FileHeader, start: Start) -> io::Result<Self> {
        let mut encoded = header.pack().to_vec();
        let seed = Seed::of(header.file_id);
        push_record(&mut encoded, seed, 1, kind::START, &[&start.pack()]);
        let mut writer = Self {
            file,
            seed,
            sequence: 1,
            block: Vec::with_capacity(BLOCK_BYTES + ITEM_BYTES_GATHERED_MAX),
            encoded,
            items: 0,
            bytes: 0,
            bytes_synced: 0,
        };
        writer.write_encoded()?;
        Ok(writer)
    }

    /// Adds an item.
    ///
    /// # Errors
    /// The file cannot be written; the snapshot is of no use then.
    pub fn add(&mut self, item: &SharedItem, popularity: u8) -> io::Result<()> {
        let (head, value) = item.raw();
        self.items += 1;
        let item_bytes = head.len() + value.map_or(0, |value| value.len());
        if item_bytes > ITEM_BYTES_GATHERED_MAX {
            return self.add_large(head, value.map_or(&[], |value| &value[..]), popularity);
        }
        self.block.push(popularity);
        self.block.extend_from_slice(head);
        if let Some(value) = value {
            self.block.extend_from_slice(value);
        }
        if self.block.len() >= BLOCK_BYTES {
            self.end_block();
        }
        Ok(())
    }

    /// Writes what [`SnapshotWriter::add`] has gathered.
    ///
    /// # Errors
    /// The file cannot be written; the snapshot is of no use then.
    pub fn write_gathered(&mut self) -> io::Result<()> {
        if self.encoded.is_empty() { Ok(()) } else { self.write_encoded() }
    }

    fn add_large(&mut self, head: &[u8], mut value: &[u8], popularity: u8) -> io::Result<()> {
        self.end_block();
        self.write_gathered()?;
        let goes_on = if value.is_empty() { 0 } else { CONTINUES };
        let mut first = vec![popularity];
        first.extend_from_slice(head);
        self.write_piece(kind::LARGE_ITEM | goes_on, &first)?;
        while !value.is_empty() {
            let (piece, rest) = value.split_at(value.len().min(BODY_BYTES_MAX));
            let goes_on = if rest.is_empty() { 0 } else { CONTINUES };
            self.write_piece(kind::LARGE_ITEM | goes_on, piece)?;
            value = rest;
        }
        Ok(())
    }

    fn write_piece(&mut self, kind: u8, body: &[u8]) -> io::Result<()> {
        self.sequence += 1;
        let (header, padding) = frame(self.seed, self.sequence, kind, body);
        self.write(&header)?;
        self.write(body)?;
        self.write(padding)
    }

    fn end_block(&mut self) {
        if self.block.is_empty() {
            return;
        }
        self.sequence += 1;
        let Self { encoded, seed, sequence, block, .. } = self;
        push_record(encoded, *seed, *sequence, kind::ITEMS, &[block]);
        block.clear();
        thread::yield_now();
    }

    fn write_encoded(&mut self) -> io::Result<()> {
        let mut encoded = std::mem::take(&mut self.encoded);
        let written = self.write(&encoded);
        encoded.clear();
        self.encoded = encoded;
        written
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(YIELD_BYTES) {
            append_all(&*self.file, piece)?;
            thread::yield_now();
        }
        self.bytes += bytes.len() as u64;
        if self.bytes - self.bytes_synced >= SYNC_BYTES {
            self.bytes_synced = self.bytes;
            self.file.sync()?;
        }
        Ok(())
    }

    /// Ends the file and syncs it.
    ///
    /// # Errors
    /// The file cannot be written or synced; the snapshot is of no use then.
    pub fn finish(mut self) -> io::Result<Finished> {
        self.end_block();
        self.sequence += 1;
        let finish = Finish { items: self.items };
        push_record(&mut self.encoded, self.seed, self.sequence, kind::FINISH, &[&finish.pack()]);
        self.write_encoded()?;
        self.file.sync()?;
        Ok(Finished { items: self.items, bytes: self.bytes })
    }
}
