//! Framing: how files begin, how records lie in them, and what makes one valid.
//!
//! ```text
//! file header, 96 bytes
//!  0       8        12     16             24        32       40            56       64
//! +-------+--------+------+--------------+---------+--------+-------------+--------+
//! | magic | format | kind | directory id | file id | number | hash secret | shards | ...
//! +-------+--------+------+--------------+---------+--------+-------------+--------+
//!      64            72               80      92       96
//!     +-------------+----------------+-------+--------+
//! ... | predecessor | predecessor id | zeros | crc32c |
//!     +-------------+----------------+-------+--------+
//!
//! record, at a multiple of 8
//!  0        4            7      8       10         14
//! +--------+------------+------+-------+----------+----------------+---------+
//! | crc32c | body bytes | kind | shard | sequence | body           | zeros   |
//! +--------+------------+------+-------+----------+----------------+---------+
//! ```
//!
//! Numbers are little endian. The checksum of a record covers a seed and everything behind itself.
//! In logs the seed is of the directory, because records are made before it is known in which file
//! they land; shard and sequence bind a record to its place there. In a snapshot it is of the file.
//! Kind 0 is no record: zeros written ahead. A body longer than [`BODY_BYTES_MAX`] is cut into
//! pieces: all but the last have [`CONTINUES`] set, all but the first are of kind `REST`.
//!
//! Knows nothing of what bodies mean. Does no I/O.

use super::Damage;
use crate::limits::SHARDS_MAX;
use crc32c::{crc32c, crc32c_append};

/// First bytes of every log and snapshot.
pub const MAGIC: [u8; 8] = *b"DSTCACHE";
/// The version of the formats.
pub const FORMAT: u32 = 2;
/// Bytes before the first record.
pub const FILE_HEADER_BYTES: usize = 96;
/// Bytes of a record before its body.
pub const RECORD_HEADER_BYTES: usize = 14;
/// Longest body of one record. Bounds what a reader allocates and what one checksum delays.
pub const BODY_BYTES_MAX: usize = 256 << 10;
/// In a record's kind: the body goes on in the next record of the shard.
pub const CONTINUES: u8 = 0x80;
/// The shard of records that are about the log itself.
pub const NO_SHARD: u16 = u16::MAX;
/// Records begin at multiples of this.
pub const ALIGN_BYTES: usize = 8;
const HEADER_CRC_AT: usize = FILE_HEADER_BYTES - 4;

const _: () = assert!(FILE_HEADER_BYTES.is_multiple_of(ALIGN_BYTES));
const _: () = assert!(BODY_BYTES_MAX < 1 << 24, "a length has three bytes");
const _: () = assert!(SHARDS_MAX * 8 + 64 < BODY_BYTES_MAX, "one record tells of all shards");
const _: () = assert!(SHARDS_MAX < NO_SHARD as usize);

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// Changes.
    Log = 1,
    /// Items.
    Snapshot = 2,
}

/// What the header of a file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileHeader {
    /// Log or snapshot.
    pub kind: FileKind,
    /// The directory it was made in.
    pub directory_id: u64,
    /// Random: tells it from any other file that had its name.
    pub file_id: u64,
    /// Of a log: counts them. Of a snapshot: the log from which on changes are to be replayed.
    pub number: u64,
    /// The secret of the key hash.
    pub hash_secret: [u64; 2],
    /// Over how many shards keys are spread.
    pub shards: u32,
    /// Of a log: the one before it, by number (0: none) and file id.
    pub predecessor: (u64, u64),
}

impl FileHeader {
    /// The header as it is written.
    pub fn pack(&self) -> [u8; FILE_HEADER_BYTES] {
        let mut bytes = [0; FILE_HEADER_BYTES];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &MAGIC);
        put(8, &FORMAT.to_le_bytes());
        put(12, &(self.kind as u32).to_le_bytes());
        put(16, &self.directory_id.to_le_bytes());
        put(24, &self.file_id.to_le_bytes());
        put(32, &self.number.to_le_bytes());
        put(40, &self.hash_secret[0].to_le_bytes());
        put(48, &self.hash_secret[1].to_le_bytes());
        put(56, &self.shards.to_le_bytes());
        put(64, &self.predecessor.0.to_le_bytes());
        put(72, &self.predecessor.1.to_le_bytes());
        let crc = crc32c(&bytes[..HEADER_CRC_AT]);
        bytes[HEADER_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header. The checksum is looked at before the version: a flipped bit in the version
    /// is damage, and no newer version.
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
        if number(HEADER_CRC_AT, 4) != u64::from(crc32c(&bytes[..HEADER_CRC_AT])) {
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
        let shards = number(56, 4);
        if shards == 0 || shards > SHARDS_MAX as u64 {
            return Err(Damage::new("an impossible number of shards"));
        }
        Ok(Self {
            kind,
            directory_id: number(16, 8),
            file_id: number(24, 8),
            number: number(32, 8),
            hash_secret: [number(40, 8), number(48, 8)],
            shards: shards as u32,
            predecessor: (number(64, 8), number(72, 8)),
        })
    }
}

/// What the checksums of records begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(u32);

impl Seed {
    /// The seed of a directory or a file with this id.
    pub fn of(id: u64) -> Self {
        Self(crc32c(&id.to_le_bytes()))
    }
}

/// Bytes of a record with so long a body, in the file.
pub const fn record_bytes(body_bytes: usize) -> usize {
    (RECORD_HEADER_BYTES + body_bytes).next_multiple_of(ALIGN_BYTES)
}

/// Which record of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The shard, or [`NO_SHARD`].
    pub shard: u16,
    /// Its number within the shard; the low 32 bits are written.
    pub sequence: u64,
}

/// Appends a record to a buffer.
#[inline]
pub fn push_record(into: &mut Vec<u8>, seed: Seed, place: Place, kind: u8, body: &[&[u8]]) {
    let start = into.len();
    let body_bytes: usize = body.iter().map(|part| part.len()).sum();
    into.reserve(record_bytes(body_bytes));
    into.extend_from_slice(&header_of(place, kind, body_bytes));
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
    place: Place,
    kind: u8,
    body: &[u8],
) -> ([u8; RECORD_HEADER_BYTES], &'static [u8]) {
    let mut header = header_of(place, kind, body.len());
    let crc = crc32c_append(crc32c_append(seed.0, &header[4..]), body);
    header[..4].copy_from_slice(&crc.to_le_bytes());
    let padding = record_bytes(body.len()) - RECORD_HEADER_BYTES - body.len();
    (header, &[0; ALIGN_BYTES][..padding])
}

/// A record's header, its checksum still 0.
fn header_of(place: Place, kind: u8, body_bytes: usize) -> [u8; RECORD_HEADER_BYTES] {
    assert!(body_bytes <= BODY_BYTES_MAX, "longer bodies are cut into pieces");
    let mut header = [0; RECORD_HEADER_BYTES];
    header[4..8].copy_from_slice(&(body_bytes as u32).to_le_bytes());
    header[7] = kind;
    header[8..10].copy_from_slice(&place.shard.to_le_bytes());
    header[10..].copy_from_slice(&(place.sequence as u32).to_le_bytes());
    header
}

/// A record as it was found, its body left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Its kind, [`CONTINUES`] included.
    pub kind: u8,
    /// The shard, or [`NO_SHARD`].
    pub shard: u16,
    /// The low 32 bits of its number.
    pub sequence: u32,
    /// Length of its body.
    pub body_bytes: usize,
}

/// What stands at the front of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// A valid record.
    Record(Found),
    /// The beginning of what may be one: so many bytes are needed to tell.
    Needs(usize),
    /// No record.
    Invalid,
}

/// Looks for a valid record at the front of `bytes`.
#[inline]
pub fn parse(bytes: &[u8], seed: Seed) -> Parsed {
    let Some(header) = bytes.first_chunk::<RECORD_HEADER_BYTES>() else {
        return Parsed::Needs(RECORD_HEADER_BYTES);
    };
    let word = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let (body_bytes, kind) = ((word(4) & 0xff_ffff) as usize, header[7]);
    if kind & !CONTINUES == 0 || body_bytes > BODY_BYTES_MAX {
        return Parsed::Invalid;
    }
    let Some(whole) = bytes.get(..record_bytes(body_bytes)) else {
        return Parsed::Needs(record_bytes(body_bytes));
    };
    let (record, padding) = whole.split_at(RECORD_HEADER_BYTES + body_bytes);
    if crc32c_append(seed.0, &record[4..]) != word(0) || padding.iter().any(|byte| *byte != 0) {
        return Parsed::Invalid;
    }
    let shard = u16::from_le_bytes([header[8], header[9]]);
    Parsed::Record(Found { kind, shard, sequence: word(10), body_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_with_a_flipped_bit_is_damage_and_another_version_is_newer() {
        let header = FileHeader {
            kind: FileKind::Log,
            directory_id: 1,
            file_id: 2,
            number: 3,
            hash_secret: [4, 5],
            shards: 6,
            predecessor: (2, 7),
        };
        let mut bytes = header.pack();
        assert_eq!(FileHeader::unpack(&bytes), Ok(header));
        bytes[8] ^= 1;
        assert_eq!(FileHeader::unpack(&bytes), Err(Damage::new("the header's checksum is wrong")));
        let crc = crc32c(&bytes[..HEADER_CRC_AT]);
        bytes[HEADER_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(FileHeader::unpack(&bytes), Err(Damage::newer()));
    }

    #[test]
    fn a_record_is_valid_only_whole_and_under_its_seed() {
        let (seed, place) = (Seed::of(1), Place { shard: 3, sequence: 1 << 32 | 9 });
        for body_bytes in [0, 1, 2, 3, 10, 1000] {
            let body = vec![0xA5; body_bytes];
            let mut bytes = Vec::new();
            push_record(&mut bytes, seed, place, 2, &[&body]);
            let found = Found { kind: 2, shard: 3, sequence: 9, body_bytes };
            assert_eq!(parse(&bytes, seed), Parsed::Record(found));
            assert_eq!(parse(&bytes, Seed::of(2)), Parsed::Invalid);
            let (header, padding) = frame(seed, place, 2, &body);
            assert_eq!([&header[..], &body, padding].concat(), bytes);
            for length in 0..bytes.len() {
                assert!(matches!(parse(&bytes[..length], seed), Parsed::Needs(_)));
            }
            for bit in 0..bytes.len() * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(!matches!(parse(&bytes, seed), Parsed::Record(_)), "bit {bit}");
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}
