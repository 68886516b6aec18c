//! What the records of logs and snapshots say: bodies to values and back.
//!
//! Items are written as they lie in the store (`store::item`), so a change costs a copy and no
//! encoding. A change says what came out, not what was asked: replaying one twice does no harm.

use super::Damage;
use crate::store::item::{self, Attributes};
use crate::store::{Stored, Ticks};

/// The kinds of records. In logs below 16, in snapshots above.
pub mod kind {
    /// First record of a log: [`super::Begin`].
    pub const BEGIN: u8 = 1;
    /// An item as it is from here on.
    pub const PUT: u8 = 2;
    /// Header and key of an item whose value stays.
    pub const ATTRIBUTES: u8 = 3;
    /// A key that is gone.
    pub const DELETE: u8 = 4;
    /// Every key of the shard is gone.
    pub const FLUSH: u8 = 5;
    /// A flush is to come at a time.
    pub const FLUSH_AT: u8 = 6;
    /// The file is on the device up to an offset.
    pub const SYNCED: u8 = 7;
    /// Last record of a log that another follows.
    pub const END: u8 = 8;
    /// First record of a snapshot: [`super::Start`].
    pub const START: u8 = 16;
    /// Items, each behind a byte with its popularity.
    pub const ITEMS: u8 = 17;
    /// One large item behind a byte with its popularity.
    pub const LARGE_ITEM: u8 = 18;
    /// Last record of a snapshot: [`super::Finish`].
    pub const FINISH: u8 = 19;
}

/// Reads fields off the front of a body.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u64(&mut self) -> Result<u64, Damage> {
        let (field, rest) =
            self.0.split_first_chunk().ok_or(Damage::new("a record is too short"))?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*field))
    }
}

/// What a log begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin {
    /// The sequence of this record.
    pub sequence: u64,
    /// The id of the log before it in this run; 0 for the first.
    pub previous_file_id: u64,
    /// The checksum of that log's last record.
    pub previous_crc: u32,
}

impl Begin {
    /// The body of the record.
    pub fn pack(&self) -> [u8; 24] {
        let mut body = [0; 24];
        body[..8].copy_from_slice(&self.sequence.to_le_bytes());
        body[8..16].copy_from_slice(&self.previous_file_id.to_le_bytes());
        body[16..].copy_from_slice(&u64::from(self.previous_crc).to_le_bytes());
        body
    }

    /// Reads the body of the record.
    ///
    /// # Errors
    /// It is too short.
    pub fn unpack(body: &[u8]) -> Result<Self, Damage> {
        let mut fields = Fields(body);
        Ok(Self {
            sequence: fields.u64()?,
            previous_file_id: fields.u64()?,
            previous_crc: fields.u64()? as u32,
        })
    }
}

/// What a snapshot begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// When it was begun.
    pub taken_at: Ticks,
    /// A flush that was to come then.
    pub flush_at: Option<Ticks>,
}

impl Start {
    /// The body of the record.
    pub fn pack(&self) -> [u8; 16] {
        let mut body = [0; 16];
        body[..8].copy_from_slice(&self.taken_at.0.to_le_bytes());
        body[8..].copy_from_slice(&self.flush_at.map_or(0, |at| at.0).to_le_bytes());
        body
    }

    /// Reads the body of the record.
    ///
    /// # Errors
    /// It is too short.
    pub fn unpack(body: &[u8]) -> Result<Self, Damage> {
        let mut fields = Fields(body);
        let taken_at = Ticks(fields.u64()?);
        let flush_at = Some(Ticks(fields.u64()?)).filter(|at| at.0 != 0);
        Ok(Self { taken_at, flush_at })
    }
}

/// What a snapshot ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finish {
    /// Items in it.
    pub items: u64,
}

impl Finish {
    /// Bytes of the body.
    pub const BYTES: usize = 8;

    /// The body of the record.
    pub fn pack(&self) -> [u8; Self::BYTES] {
        self.items.to_le_bytes()
    }

    /// Reads the body of the record.
    ///
    /// # Errors
    /// It is too short.
    pub fn unpack(body: &[u8]) -> Result<Self, Damage> {
        Ok(Self { items: Fields(body).u64()? })
    }
}

/// A change, as a log tells it.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    /// An item as it is from here on.
    Put(Stored<'a>),
    /// Other attributes for the item of a key.
    Attributes(&'a [u8], Attributes),
    /// A key that is gone.
    Delete(&'a [u8]),
    /// Every key of the shard is gone.
    Flush,
    /// They will be at this time.
    FlushAt(Ticks),
}

impl<'a> Change<'a> {
    /// Understands a whole body. `None`: a kind that is no change.
    ///
    /// # Errors
    /// The body is not what its kind says.
    pub fn unpack(kind: u8, body: &'a [u8]) -> Result<Option<Self>, Damage> {
        Ok(Some(match kind {
            kind::PUT => Self::Put(unpack_item(body)?.0),
            kind::ATTRIBUTES => {
                let header = item::unpack_checked(body).ok_or(BROKEN_ITEM)?;
                let key = &body[header.header_bytes..header.header_bytes + header.key_bytes];
                Self::Attributes(key, header.attributes)
            }
            kind::DELETE => Self::Delete(body),
            kind::FLUSH => Self::Flush,
            kind::FLUSH_AT => Self::FlushAt(Ticks(Fields(body).u64()?)),
            _ => return Ok(None),
        }))
    }
}

/// The offset that a [`kind::SYNCED`] record names.
///
/// # Errors
/// The body is too short.
pub fn unpack_synced(body: &[u8]) -> Result<u64, Damage> {
    Fields(body).u64()
}

const BROKEN_ITEM: Damage =
    Damage { what: std::borrow::Cow::Borrowed("an item is not whole"), newer: false };

/// The item at the front of some bytes, and what is behind it.
///
/// # Errors
/// The bytes hold no whole item.
pub fn unpack_item(bytes: &[u8]) -> Result<(Stored<'_>, &[u8]), Damage> {
    let header = item::unpack_checked(bytes).ok_or(BROKEN_ITEM)?;
    let key_end = header.header_bytes + header.key_bytes;
    let value_end = key_end.checked_add(header.value_bytes).ok_or(BROKEN_ITEM)?;
    let value = bytes.get(key_end..value_end).ok_or(BROKEN_ITEM)?;
    let key = &bytes[header.header_bytes..key_end];
    Ok((Stored { header, key, value }, &bytes[value_end..]))
}

/// Calls `visit` with every item of a [`kind::ITEMS`] or [`kind::LARGE_ITEM`] body and its
/// popularity.
///
/// # Errors
/// The body ends within an item.
pub fn visit_items(mut body: &[u8], mut visit: impl FnMut(Stored<'_>, u8)) -> Result<(), Damage> {
    while let Some((popularity, rest)) = body.split_first() {
        let (stored, behind) = unpack_item(rest)?;
        visit(stored, *popularity);
        body = behind;
    }
    Ok(())
}
