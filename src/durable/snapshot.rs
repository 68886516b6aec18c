//! The items of all shards in one file, written a few at a time and read at the start.
//!
//! Items come in any order and need not be of one moment: the log is replayed on top, from the file
//! on that was begun before the first of them. A snapshot counts if it has its last record.
//!
//! Owns the bytes of the file; when it is written is `snapshotter`'s.

use super::change::{Finish, Start, kind};
use super::directory::{self, Random, snapshot_name};
use super::disk::{Disk, DiskFile, Growth, append_all};
use super::identity::Identity;
use super::reader::{Reader, Record, Step, Window, Windows, read_header};
use super::record::{
    BODY_BYTES_MAX, CONTINUES, FILE_HEADER_BYTES, FileHeader, FileKind, NO_SHARD, Parsed, Place,
    Seed, frame, parse, push_record, record_bytes,
};
use super::{Damage, Error};
use crate::store::SharedItem;
use std::io;
use std::sync::Arc;
use std::thread;

/// Items are gathered into records of about this size.
const BLOCK_BYTES: usize = 64 << 10;

/// Items above this get a record of their own.
const ITEM_BYTES_GATHERED_MAX: usize = 32 << 10;

/// After so many bytes the file is synced, so that the device is not flooded at the end, in front
/// of the log's own syncs.
const SYNC_BYTES: u64 = 16 << 20;

/// After so many bytes the processor is offered to whoever waits for it. A thread that Linux (since
/// 6.12) has given a time slice keeps it for 3 milliseconds, however little its nice value makes of
/// it, while a worker that a request has woken waits.
const YIELD_BYTES: usize = 64 << 10;

const _: () = assert!(BLOCK_BYTES + ITEM_BYTES_GATHERED_MAX < BODY_BYTES_MAX);

/// Writes a snapshot.
pub struct SnapshotWriter {
    name: String,
    file: Arc<dyn DiskFile>,
    seed: Seed,
    sequence: u64,
    shard: u16,
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
    /// Begins a snapshot on top of which the log of this number is to be replayed.
    ///
    /// # Errors
    /// The system refused.
    pub fn begin(
        disk: &dyn Disk,
        identity: &Identity,
        number: u64,
        start: &Start,
        random: &mut Random,
    ) -> Result<Self, Error> {
        let name = snapshot_name(number);
        let file_id = random().map_err(|why| Error::io(&name, "no random number", why))?;
        let header = FileHeader {
            kind: FileKind::Snapshot,
            directory_id: identity.directory_id,
            file_id,
            number,
            hash_secret: identity.hash_secret,
            shards: identity.shards,
            predecessor: (0, 0),
        };
        let file = directory::create(disk, &name, &header, Growth::AsWritten)?;
        let mut writer = Self {
            name,
            file,
            seed: Seed::of(file_id),
            sequence: 0,
            shard: NO_SHARD,
            block: Vec::with_capacity(BLOCK_BYTES + ITEM_BYTES_GATHERED_MAX),
            encoded: Vec::new(),
            items: 0,
            bytes: FILE_HEADER_BYTES as u64,
            bytes_synced: 0,
        };
        writer.push(kind::START, &start.pack());
        Ok(writer)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn error(&self, why: io::Error) -> Error {
        Error::io(&self.name, "cannot be written", why)
    }

    fn next_place(&mut self) -> Place {
        self.sequence += 1;
        Place { shard: self.shard, sequence: self.sequence }
    }

    fn push(&mut self, kind: u8, body: &[u8]) {
        let place = self.next_place();
        push_record(&mut self.encoded, self.seed, place, kind, &[body]);
    }

    /// Items that are added from here on are of this shard.
    pub fn begin_shard(&mut self, shard: usize) {
        self.end_block();
        self.shard = shard as u16;
    }

    /// Adds an item.
    ///
    /// # Errors
    /// The file cannot be written; the snapshot is of no use then.
    pub fn add(&mut self, item: &SharedItem, popularity: u8) -> Result<(), Error> {
        let (head, value) = item.raw();
        self.items += 1;
        let item_bytes = head.len() + value.map_or(0, |value| value.len());
        if item_bytes > ITEM_BYTES_GATHERED_MAX {
            let value = value.map_or(&[][..], |value| &value[..]);
            let added = self.add_large(head, value, popularity);
            return added.map_err(|why| self.error(why));
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

    /// Writes what was added and makes up a record.
    ///
    /// # Errors
    /// The file cannot be written; the snapshot is of no use then.
    pub fn write_gathered(&mut self) -> Result<(), Error> {
        self.write_encoded().map_err(|why| self.error(why))
    }

    fn add_large(&mut self, head: &[u8], mut value: &[u8], popularity: u8) -> io::Result<()> {
        self.end_block();
        self.write_encoded()?;
        let goes_on = |rest: &[u8]| if rest.is_empty() { 0 } else { CONTINUES };
        let first = [&[popularity], head].concat();
        self.write_piece(kind::LARGE_ITEM | goes_on(value), &first)?;
        while !value.is_empty() {
            let (piece, rest) = value.split_at(value.len().min(BODY_BYTES_MAX));
            self.write_piece(kind::REST | goes_on(rest), piece)?;
            value = rest;
        }
        Ok(())
    }

    fn write_piece(&mut self, kind: u8, body: &[u8]) -> io::Result<()> {
        let (header, padding) = frame(self.seed, self.next_place(), kind, body);
        self.write(&header)?;
        self.write(body)?;
        self.write(padding)
    }

    fn end_block(&mut self) {
        if self.block.is_empty() {
            return;
        }
        let mut block = std::mem::take(&mut self.block);
        self.push(kind::ITEMS, &block);
        block.clear();
        self.block = block;
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

    /// All items are added.
    ///
    /// # Errors
    /// The file cannot be written; the snapshot is of no use then.
    pub fn end_items(&mut self) -> Result<(), Error> {
        self.end_block();
        self.shard = NO_SHARD;
        self.write_gathered()
    }

    /// Ends the file and syncs it: from here on it counts. It shows changes up to this position of
    /// the log, which has to be on the device up to there already.
    ///
    /// # Errors
    /// The file cannot be written or synced; it is not known then whether it counts.
    pub fn finish(&mut self, shows: u64) -> Result<Finished, Error> {
        let items = self.items;
        // The last record must not reach the device before the others: it says that they are there.
        self.file.sync().map_err(|why| self.error(why))?;
        self.push(kind::FINISH, &Finish { items, shows }.pack());
        self.write_gathered()?;
        self.file.sync().map_err(|why| self.error(why))?;
        self.file.forget();
        Ok(Finished { items, bytes: self.bytes })
    }
}

/// Who gets the records of items, and may want no more.
type Deliver<'a> = &'a mut dyn FnMut(&Arc<Window>, &Record) -> Result<(), Error>;

/// A snapshot that is whole, as far as its first and last bytes tell.
#[derive(Clone)]
pub struct SnapshotFile {
    /// Its name.
    pub name: String,
    /// Its header.
    pub header: FileHeader,
    /// What it ends with.
    pub finish: Finish,
    /// Its size.
    pub bytes: u64,
    /// The file.
    pub file: Arc<dyn DiskFile>,
}

impl SnapshotFile {
    /// Looks at both ends of a snapshot.
    ///
    /// # Errors
    /// It cannot be read, is damaged, or has not been finished.
    pub fn open(disk: &dyn Disk, number: u64) -> Result<Self, Error> {
        let name = snapshot_name(number);
        let file = disk.open(&name).map_err(|why| Error::io(&name, "cannot be opened", why))?;
        let header = read_header(&name, &*file)?;
        if header.kind != FileKind::Snapshot || header.number != number {
            return Err(Error::damaged(name, 0, "another file in this one's place"));
        }
        let cannot = |why| Error::io(&name, "cannot be read", why);
        let bytes = file.len().map_err(cannot)?;
        let mut last = [0; record_bytes(Finish::BYTES)];
        let at = bytes.saturating_sub(last.len() as u64);
        let count = file.read_at(&mut last, at).map_err(cannot)?;
        let unfinished = || Error::damaged(&name, at, "the snapshot has no valid end");
        let Parsed::Record(found) = parse(&last[..count], Seed::of(header.file_id)) else {
            return Err(unfinished());
        };
        if found.kind != kind::FINISH || at < FILE_HEADER_BYTES as u64 {
            return Err(unfinished());
        }
        let body = last.len() - (record_bytes(Finish::BYTES) - super::record::RECORD_HEADER_BYTES);
        let finish = Finish::unpack(&last[body..]).map_err(|why| Error::of(&name, at, why))?;
        Ok(Self { name, header, finish, bytes, file })
    }

    /// What it begins with. `None`: that is damaged.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn start(&self, windows: &Windows) -> Result<Option<Start>, Error> {
        let cannot = |why| Error::io(&self.name, "cannot be read", why);
        let seed = Seed::of(self.header.file_id);
        let mut reader = Reader::new(Arc::clone(&self.file), seed, windows).map_err(cannot)?;
        Ok(match reader.step().map_err(cannot)? {
            Step::Record(record) if record.found.kind == kind::START => {
                Start::unpack(reader.body(&record), self.header.shards as usize).ok()
            }
            _ => None,
        })
    }

    /// Reads all records in order; `deliver` gets those of items.
    ///
    /// # Errors
    /// It cannot be read, `deliver` does not want more, or a place is damaged and `damages` is not
    /// there to note it in.
    pub fn read(
        &self,
        windows: &Windows,
        mut damages: Option<&mut Vec<Error>>,
        deliver: Deliver<'_>,
    ) -> Result<(), Error> {
        let cannot = |why| Error::io(&self.name, "cannot be read", why);
        let seed = Seed::of(self.header.file_id);
        let mut reader = Reader::new(Arc::clone(&self.file), seed, windows).map_err(cannot)?;
        let mut expected = 1;
        loop {
            let at = reader.offset();
            let step = reader.step().map_err(cannot)?;
            let damage = match step {
                Step::Record(record) if record.found.sequence != expected as u32 => {
                    expected = u64::from(record.found.sequence) + 1;
                    Damage::new("records are missing, repeated or in another order")
                }
                Step::Record(record) => {
                    expected += 1;
                    match self.understand(&reader, &record) {
                        Ok(Told::Items) => {
                            deliver(reader.window(), &record)?;
                            continue;
                        }
                        Ok(Told::Other) => continue,
                        Ok(Told::End) if reader.bytes_left() == 0 => return Ok(()),
                        Ok(Told::End) => Damage::new("something follows its end"),
                        Err(damage) => damage,
                    }
                }
                Step::End => Damage::new("the snapshot has lost its end"),
                Step::Bad => Damage::new("a record is damaged"),
            };
            let damage = Error::of(&self.name, at, damage);
            let Some(damages) = &mut damages else { return Err(damage) };
            damages.push(damage);
            let moved = reader.offset() > at;
            if !moved && !reader.skip_damage().map_err(cannot)? {
                return Ok(());
            }
            if !moved && let Some(sequence) = next_sequence(&mut reader).map_err(cannot)? {
                expected = sequence;
            }
        }
    }

    fn understand(&self, reader: &Reader, record: &Record) -> Result<Told, Damage> {
        let (shards, body) = (self.header.shards, reader.body(record));
        match record.found.kind & !CONTINUES {
            kind::START => Start::unpack(body, shards as usize).map(|_| Told::Other),
            kind::ITEMS | kind::LARGE_ITEM | kind::REST => {
                let is_known = u32::from(record.found.shard) < shards;
                if is_known { Ok(Told::Items) } else { Err(Damage::new("no such shard")) }
            }
            kind::FINISH if Finish::unpack(body)? == self.finish => Ok(Told::End),
            _ => Err(Damage::new("a record of no known kind")),
        }
    }
}

/// What a record of a snapshot is about.
enum Told {
    Items,
    Other,
    End,
}

/// The sequence of the record that a reader has come to behind damage.
fn next_sequence(reader: &mut Reader) -> io::Result<Option<u64>> {
    let at = reader.offset();
    let step = reader.step()?;
    reader.go_to(at);
    Ok(match step {
        Step::Record(record) => Some(u64::from(record.found.sequence)),
        Step::End | Step::Bad => None,
    })
}
