//! Framing: how records lie in a file, what makes one valid, and what to think of one that is not.
//!
//! ```text
//! file header
//!  0         8        12       16             24        32           40      44       48
//! +---------+--------+--------+--------------+---------+------------+-------+--------+
//! | magic   | format | kind   | directory id | file id | generation | shard | crc32c |
//! +---------+--------+--------+--------------+---------+------------+-------+--------+
//!
//! record, at a multiple of 8
//!  0        4            7      8          12
//! +--------+------------+------+----------+----------------+---------+
//! | crc32c | body bytes | kind | sequence | body           | zeros   |
//! +--------+------------+------+----------+----------------+---------+
//! ```
//!
//! Numbers are little endian. The checksum covers the file's id and everything behind itself, so
//! that a record of another file, or one that was moved, dropped or repeated within its file, is
//! told from one in its place. Kind 0 is no record: the file ends there. A body that is longer
//! than [`BODY_BYTES_MAX`] is cut into pieces: all records but the last have [`CONTINUES`] set.
//!
//! Knows nothing of what bodies mean, and does no I/O but reading.

use super::disk::DiskFile;
use super::{Damage, Error};
use crc32c::{crc32c, crc32c_append};

/// First bytes of every file.
pub const MAGIC: [u8; 8] = *b"DSTCACHE";
/// The version of the formats; files of another are refused.
pub const FORMAT: u32 = 1;
/// Bytes before the first record.
pub const FILE_HEADER_BYTES: usize = 48;
/// Bytes of a record before its body.
pub const RECORD_HEADER_BYTES: usize = 12;
/// Where in a record its kind lies.
pub const RECORD_KIND_AT: usize = 7;
/// Longest body of one record. Bounds what a reader allocates and what one checksum delays.
pub const BODY_BYTES_MAX: usize = 256 << 10;
/// In a record's kind: the body goes on in the next record.
pub const CONTINUES: u8 = 0x80;

const ALIGN_BYTES: usize = 8;
/// A part this long of a torn write that the device never got shows as zeros.
const SECTOR_BYTES: usize = 512;
/// What a reader keeps of the file at a time.
const WINDOW_BYTES: usize = 1 << 20;

const _: () = assert!(FILE_HEADER_BYTES.is_multiple_of(ALIGN_BYTES));
const _: () = assert!(BODY_BYTES_MAX < 1 << 24, "a length has three bytes");
const _: () = assert!(WINDOW_BYTES > 2 * (RECORD_HEADER_BYTES + BODY_BYTES_MAX + ALIGN_BYTES));

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// The changes of one shard.
    Log = 1,
    /// The items of one shard.
    Snapshot = 2,
}

/// What the header of a file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileHeader {
    /// Log or snapshot.
    pub kind: FileKind,
    /// The directory it was made in.
    pub directory_id: u64,
    /// Random, and in every checksum of the file.
    pub file_id: u64,
    /// Counts the logs and snapshots of a directory.
    pub generation: u64,
    /// The shard it belongs to.
    pub shard: u32,
}

impl FileHeader {
    /// The header as it is written.
    pub fn pack(&self) -> [u8; FILE_HEADER_BYTES] {
        let mut bytes = [0; FILE_HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[12..16].copy_from_slice(&(self.kind as u32).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.directory_id.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.file_id.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.generation.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.shard.to_le_bytes());
        let crc = crc32c(&bytes[..44]);
        bytes[44..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header.
    ///
    /// # Errors
    /// Why it is none.
    pub fn unpack(bytes: &[u8]) -> Result<Self, Damage> {
        let bytes: &[u8; FILE_HEADER_BYTES] =
            bytes.first_chunk().ok_or(Damage::new("the file ends within its header"))?;
        let number = |at: usize, count: usize| {
            bytes[at..at + count].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
        };
        if bytes[..8] != MAGIC {
            return Err(Damage::new("not a file of distcached"));
        }
        if number(44, 4) != u64::from(crc32c(&bytes[..44])) {
            return Err(Damage::new("the header's checksum is wrong"));
        }
        if number(8, 4) != u64::from(FORMAT) {
            return Err(Damage::newer());
        }
        let kind = match number(12, 4) {
            1 => FileKind::Log,
            2 => FileKind::Snapshot,
            _ => return Err(Damage::new("neither log nor snapshot")),
        };
        Ok(Self {
            kind,
            directory_id: number(16, 8),
            file_id: number(24, 8),
            generation: number(32, 8),
            shard: number(40, 4) as u32,
        })
    }
}

/// What the checksums of a file begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(u32);

impl Seed {
    /// The seed of the file with this id.
    pub fn of(file_id: u64) -> Self {
        Self(crc32c(&file_id.to_le_bytes()))
    }
}

/// Bytes of a record with so long a body, in the file.
pub const fn record_bytes(body_bytes: usize) -> usize {
    (RECORD_HEADER_BYTES + body_bytes).next_multiple_of(ALIGN_BYTES)
}

/// Appends a record to a buffer.
#[inline]
pub fn push_record(into: &mut Vec<u8>, seed: Seed, sequence: u64, kind: u8, body: &[&[u8]]) {
    let start = into.len();
    let body_bytes: usize = body.iter().map(|part| part.len()).sum();
    into.reserve(record_bytes(body_bytes));
    into.extend_from_slice(&[0; 4]);
    into.extend_from_slice(&length_and_kind(body_bytes, kind));
    into.extend_from_slice(&(sequence as u32).to_le_bytes());
    for part in body {
        into.extend_from_slice(part);
    }
    let crc = crc32c_append(seed.0, &into[start + 4..]);
    into[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    into.resize(start + record_bytes(body_bytes), 0);
}

/// The header of a record whose body lies elsewhere, and the zeros to write behind that.
pub fn frame(
    seed: Seed,
    sequence: u64,
    kind: u8,
    body: &[u8],
) -> ([u8; RECORD_HEADER_BYTES], &'static [u8]) {
    let mut header = [0; RECORD_HEADER_BYTES];
    header[4..8].copy_from_slice(&length_and_kind(body.len(), kind));
    header[8..].copy_from_slice(&(sequence as u32).to_le_bytes());
    let crc = crc32c_append(crc32c_append(seed.0, &header[4..]), body);
    header[..4].copy_from_slice(&crc.to_le_bytes());
    let padding = record_bytes(body.len()) - RECORD_HEADER_BYTES - body.len();
    (header, &[0; ALIGN_BYTES][..padding])
}

fn length_and_kind(body_bytes: usize, kind: u8) -> [u8; 4] {
    assert!(body_bytes <= BODY_BYTES_MAX, "longer bodies are cut into pieces");
    let [a, b, c, _] = (body_bytes as u32).to_le_bytes();
    [a, b, c, kind]
}

/// A record as it was read.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Its kind, [`CONTINUES`] included.
    pub kind: u8,
    /// Where it begins in the file.
    pub offset: u64,
    /// What it says.
    pub body: &'a [u8],
}

/// What stands at the reader's place in the file.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// A valid record, the next in order.
    Record(Record<'a>),
    /// Nothing more, or zeros written ahead: the regular end.
    End,
    /// Bytes that are no valid record.
    Bad,
    /// A valid record, but not the one that belongs here: no torn write looks like this.
    Misplaced,
}

/// What follows a place that holds no valid record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// No valid record: a torn last write, or damage that cannot be told from one.
    Nothing,
    /// Valid records, but a sector before them is all zeros: parts of one unsynced write that
    /// reached the device out of order.
    AfterHole,
    /// Valid records behind a damaged one.
    Records,
}

/// Reads the records of a file in order.
pub struct Reader {
    file: std::sync::Arc<dyn DiskFile>,
    file_bytes: u64,
    seed: Seed,
    offset: u64,
    sequence: u64,
    window: Vec<u8>,
    window_offset: u64,
    last_crc: u32,
}

impl Reader {
    /// Opens a file and checks that its header is `expected`.
    ///
    /// # Errors
    /// It cannot be read, or its header is damaged or another file's.
    pub fn open(
        name: &str,
        file: std::sync::Arc<dyn DiskFile>,
        expected: &FileHeader,
    ) -> Result<Self, Error> {
        let header = read_header(name, &*file)?;
        if header != *expected {
            return Err(Error::damaged(name, 0, "another file in this one's place"));
        }
        Self::after_header(name, file, header.file_id)
    }

    /// Starts behind a header that was read already. The sequence of the first record is 1.
    ///
    /// # Errors
    /// The file's size cannot be read.
    pub fn after_header(
        name: &str,
        file: std::sync::Arc<dyn DiskFile>,
        file_id: u64,
    ) -> Result<Self, Error> {
        let file_bytes = file.len().map_err(|why| Error::io(name, "cannot be read", why))?;
        Ok(Self {
            file,
            file_bytes,
            seed: Seed::of(file_id),
            offset: FILE_HEADER_BYTES as u64,
            sequence: 1,
            window: Vec::new(),
            window_offset: 0,
            last_crc: 0,
        })
    }

    /// The sequence that the first record has to have.
    pub fn start_at(&mut self, sequence: u64) {
        self.sequence = sequence;
    }

    /// Goes on at another place.
    pub fn go_to(&mut self, offset: u64, sequence: u64) {
        (self.offset, self.sequence) = (offset, sequence);
    }

    /// Where the next record begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The sequence of the next record.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The checksum of the last record read.
    pub fn last_crc(&self) -> u32 {
        self.last_crc
    }

    /// Bytes of the file behind the reader's place.
    pub fn bytes_left(&self) -> u64 {
        self.file_bytes.saturating_sub(self.offset)
    }

    /// As [`Reader::bytes_left`], without zeros at the end.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn bytes_left_before_zeros(&self) -> std::io::Result<u64> {
        let mut end = self.file_bytes;
        let mut bytes = vec![0; SECTOR_BYTES];
        while end > self.offset {
            let start = end.saturating_sub(SECTOR_BYTES as u64).max(self.offset);
            let count = self.file.read_at(&mut bytes[..(end - start) as usize], start)?;
            if let Some(last) = bytes[..count].iter().rposition(|byte| *byte != 0) {
                return Ok(start + last as u64 + 1 - self.offset);
            }
            end = start;
        }
        Ok(0)
    }

    /// Reads no further than this offset.
    pub fn end_at(&mut self, offset: u64) {
        self.file_bytes = self.file_bytes.min(offset);
    }

    /// The next record, if there is one.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn step(&mut self) -> std::io::Result<Step<'_>> {
        let (at, bytes) = self.fill()?;
        let view = &self.window[at..at + bytes];
        let Some(found) = parse(view, self.seed) else {
            let at_end = view.iter().take(RECORD_HEADER_BYTES).all(|byte| *byte == 0)
                && self.is_zero_to_end()?;
            return Ok(if at_end { Step::End } else { Step::Bad });
        };
        if found.sequence != self.sequence as u32 {
            return Ok(Step::Misplaced);
        }
        let offset = self.offset;
        self.offset += record_bytes(found.body_bytes) as u64;
        self.sequence += 1;
        self.last_crc = found.crc;
        let body = at + RECORD_HEADER_BYTES;
        let body = &self.window[body..body + found.body_bytes];
        Ok(Step::Record(Record { kind: found.kind, offset, body }))
    }

    /// Goes on behind damage: to the next valid record with a later sequence.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn skip_damage(&mut self) -> std::io::Result<bool> {
        match self.find_behind()? {
            None => Ok(false),
            Some((offset, sequence)) => {
                (self.offset, self.sequence) = (offset, sequence);
                Ok(true)
            }
        }
    }

    /// Goes on at the next valid record, which may be right here.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn skip_damage_from_here(&mut self) -> std::io::Result<bool> {
        let (at, bytes) = self.fill()?;
        let view = &self.window[at..at + bytes];
        match parse(view, self.seed) {
            Some(found) => {
                let ahead = found.sequence.wrapping_sub(self.sequence as u32);
                self.sequence += u64::from(ahead);
                Ok(true)
            }
            None => self.skip_damage(),
        }
    }

    /// What follows the bytes here, which are no valid record.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn behind(&mut self) -> std::io::Result<Behind> {
        let Some((found, _)) = self.find_behind()? else { return Ok(Behind::Nothing) };
        let hole = self.has_zero_sector(self.offset, found)?;
        Ok(if hole { Behind::AfterHole } else { Behind::Records })
    }

    /// The first valid later record behind this place: its offset and sequence.
    fn find_behind(&mut self) -> std::io::Result<Option<(u64, u64)>> {
        let (start, expected) = (self.offset, self.sequence);
        // A file has no more records than this.
        let records_max = self.bytes_left() / record_bytes(0) as u64 + 1;
        let mut found = None;
        self.offset += ALIGN_BYTES as u64;
        while found.is_none() && self.bytes_left() >= RECORD_HEADER_BYTES as u64 {
            let (at, bytes) = self.fill()?;
            let view = &self.window[at..at + bytes];
            if let Some(record) = parse(view, self.seed) {
                let ahead = u64::from(record.sequence.wrapping_sub(expected as u32));
                if ahead <= records_max {
                    found = Some((self.offset, expected + ahead));
                }
            }
            self.offset += ALIGN_BYTES as u64;
        }
        self.offset = start;
        Ok(found)
    }

    fn is_zero_to_end(&mut self) -> std::io::Result<bool> {
        let mut offset = self.offset;
        let mut bytes = vec![0; WINDOW_BYTES.min(self.bytes_left() as usize)];
        while offset < self.file_bytes {
            let wanted = bytes.len().min((self.file_bytes - offset) as usize);
            let count = self.file.read_at(&mut bytes[..wanted], offset)?;
            if count == 0 || bytes[..count].iter().any(|byte| *byte != 0) {
                return Ok(count == 0);
            }
            offset += count as u64;
        }
        Ok(true)
    }

    /// Whether a sector in this range is all zeros; of the first one only what is in the range,
    /// which is the header of a record at least.
    fn has_zero_sector(&mut self, from: u64, to: u64) -> std::io::Result<bool> {
        let mut sector = [0; SECTOR_BYTES];
        let mut offset = from;
        while offset < to {
            let end = (offset + 1).next_multiple_of(SECTOR_BYTES as u64);
            let bytes = &mut sector[..(end - offset) as usize];
            let count = self.file.read_at(bytes, offset)?;
            if end <= to && bytes[..count].iter().all(|byte| *byte == 0) {
                return Ok(true);
            }
            offset = end;
        }
        Ok(false)
    }

    /// Brings a whole record's worth of bytes at the present offset into the window: where in it,
    /// and how many bytes there are up to the end.
    fn fill(&mut self) -> std::io::Result<(usize, usize)> {
        let wanted = (record_bytes(BODY_BYTES_MAX) as u64).min(self.bytes_left()) as usize;
        let at = self.offset.wrapping_sub(self.window_offset) as usize;
        let in_window = self.offset >= self.window_offset && at <= self.window.len();
        if in_window && self.window.len() - at >= wanted {
            return Ok((at, self.window.len() - at));
        }
        self.window.resize(WINDOW_BYTES.min(self.bytes_left() as usize), 0);
        let count = self.file.read_at(&mut self.window, self.offset)?;
        self.window.truncate(count);
        self.window_offset = self.offset;
        Ok((0, count))
    }
}

/// Reads and checks the header of a file.
///
/// # Errors
/// It cannot be read, or is damaged.
pub fn read_header(name: &str, file: &dyn DiskFile) -> Result<FileHeader, Error> {
    let mut bytes = [0; FILE_HEADER_BYTES];
    let count =
        file.read_at(&mut bytes, 0).map_err(|why| Error::io(name, "cannot be read", why))?;
    FileHeader::unpack(&bytes[..count]).map_err(|damage| Error::of(name, 0, damage))
}

struct Found {
    crc: u32,
    body_bytes: usize,
    kind: u8,
    sequence: u32,
}

/// A valid record at the front of `bytes`, whatever its sequence.
fn parse(bytes: &[u8], seed: Seed) -> Option<Found> {
    let header: &[u8; RECORD_HEADER_BYTES] = bytes.first_chunk()?;
    let word = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let (crc, sequence) = (word(0), word(8));
    let (body_bytes, kind) = ((word(4) & 0xff_ffff) as usize, header[7]);
    if kind == 0 || body_bytes > BODY_BYTES_MAX || bytes.len() < record_bytes(body_bytes) {
        return None;
    }
    let end = RECORD_HEADER_BYTES + body_bytes;
    let padding = &bytes[end..record_bytes(body_bytes)];
    let valid = crc32c_append(seed.0, &bytes[4..end]) == crc && padding.iter().all(|b| *b == 0);
    valid.then_some(Found { crc, body_bytes, kind, sequence })
}
