//! What the records of logs and snapshots say: bodies to values and back.
//!
//! Items are written as they lie in the store (`store::item`), so a change costs a copy and no
//! encoding. A change says what came out, not what was asked: replaying one twice does no harm.

use super::Damage;
use crate::store::item::{self, Attributes};
use crate::store::{Stored, Ticks};

/// The kinds of records. In logs below 16, in snapshots above; [`kind::REST`] in both.
pub mod kind {
    /// Of a log: its first record, [`super::Begin`].
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
    /// Hashes of keys whose items had to leave.
    pub const EVICT: u8 = 7;
    /// Items have expired at a time.
    pub const EXPIRE: u8 = 8;
    /// Of a log: [`super::Mark`].
    pub const MARK: u8 = 9;
    /// Of a log: its last record; another log follows.
    pub const END: u8 = 10;
    /// Of a log: a snapshot has become current.
    pub const SNAPSHOT: u8 = 11;
    /// A further piece of the body before, of the same shard.
    pub const REST: u8 = 15;
    /// Of a snapshot: its first record, [`super::Start`].
    pub const START: u8 = 16;
    /// Items, each behind a byte with its popularity.
    pub const ITEMS: u8 = 17;
    /// One large item behind a byte with its popularity.
    pub const LARGE_ITEM: u8 = 18;
    /// Of a snapshot: its last record, [`super::Finish`].
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

/// How a log came to be begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// As the first of all: there is nothing before it.
    First = 0,
    /// By a start, behind what was recovered, all of which is on the device.
    Start = 1,
    /// By the same run that wrote the one before it.
    Roll = 2,
    /// Because the one before it had failed. It counts only with a snapshot that was begun with it
    /// or later.
    Afresh = 3,
}

/// What a log begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begin {
    /// How it came to be.
    pub how: Begun,
    /// Bytes of all logs before this one: where it stands in the log as a whole.
    pub position: u64,
    /// The time.
    pub time: Ticks,
    /// No CAS token of a segment sequence at or above this was ever handed out.
    pub token_ceiling: u64,
    /// The last sequence of each shard before this file.
    pub sequences: Vec<u64>,
}

impl Begin {
    /// The body of the record.
    pub fn pack(&self) -> Vec<u8> {
        let fixed = [self.how as u64, self.position, self.time.0, self.token_ceiling];
        let numbers = fixed.iter().chain(&self.sequences);
        numbers.flat_map(|number| number.to_le_bytes()).collect()
    }

    /// Reads the body of the record.
    ///
    /// # Errors
    /// It is not one.
    pub fn unpack(body: &[u8], shards: usize) -> Result<Self, Damage> {
        let mut fields = Fields(body);
        let how = match fields.u64()? {
            0 => Begun::First,
            1 => Begun::Start,
            2 => Begun::Roll,
            3 => Begun::Afresh,
            _ => return Err(Damage::new("a log begun in no known way")),
        };
        let (position, time) = (fields.u64()?, Ticks(fields.u64()?));
        let token_ceiling = fields.u64()?;
        let sequences = (0..shards).map(|_| fields.u64()).collect::<Result<_, _>>()?;
        Ok(Self { how, position, time, token_ceiling, sequences })
    }
}

/// What the log says of itself now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The log as a whole was on the device up to this position.
    pub synced: u64,
    /// The time.
    pub time: Ticks,
}

impl Mark {
    /// The body of the record.
    pub fn pack(&self) -> [u8; 16] {
        let mut body = [0; 16];
        body[..8].copy_from_slice(&self.synced.to_le_bytes());
        body[8..].copy_from_slice(&self.time.0.to_le_bytes());
        body
    }

    /// Reads the body of the record.
    ///
    /// # Errors
    /// It is too short.
    pub fn unpack(body: &[u8]) -> Result<Self, Damage> {
        let mut fields = Fields(body);
        Ok(Self { synced: fields.u64()?, time: Ticks(fields.u64()?) })
    }
}

/// The number that the body of [`kind::END`] and [`kind::SNAPSHOT`] is: of a log, of a snapshot.
///
/// # Errors
/// It is too short.
pub fn unpack_number(body: &[u8]) -> Result<u64, Damage> {
    Fields(body).u64()
}

/// The time that the body of [`kind::EXPIRE`] is.
///
/// # Errors
/// It is too short.
pub fn unpack_time(body: &[u8]) -> Result<Ticks, Damage> {
    Fields(body).u64().map(Ticks)
}

/// What a snapshot begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// When it was begun.
    pub taken_at: Ticks,
    /// Flushes that were to come then, one for each shard.
    pub flush_at: Vec<Option<Ticks>>,
    /// Files that are to be kept under another name once this snapshot counts: they were damaged.
    pub aside: Vec<String>,
}

impl Start {
    /// The body of the record.
    pub fn pack(&self) -> Vec<u8> {
        let flushes = self.flush_at.iter().map(|at| at.map_or(0, |at| at.0));
        let numbers = std::iter::once(self.taken_at.0).chain(flushes);
        let mut body: Vec<u8> = numbers.flat_map(|number| number.to_le_bytes()).collect();
        body.extend_from_slice(self.aside.join("\n").as_bytes());
        body
    }

    /// Reads the body of the record.
    ///
    /// # Errors
    /// It is not one.
    pub fn unpack(body: &[u8], shards: usize) -> Result<Self, Damage> {
        let mut fields = Fields(body);
        let taken_at = Ticks(fields.u64()?);
        let flush = |fields: &mut Fields<'_>| Ok(Some(Ticks(fields.u64()?)).filter(|at| at.0 != 0));
        let flush_at = (0..shards).map(|_| flush(&mut fields)).collect::<Result<_, Damage>>()?;
        let names = std::str::from_utf8(fields.0).map_err(|_| Damage::new("names are no text"))?;
        let aside = names.split('\n').filter(|name| !name.is_empty()).map(str::to_owned);
        Ok(Self { taken_at, flush_at, aside: aside.collect() })
    }
}

/// What a snapshot ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finish {
    /// Items in it.
    pub items: u64,
    /// It shows changes up to this position of the log as a whole, which was on the device up to
    /// there before this was written.
    pub shows: u64,
}

impl Finish {
    /// Bytes of the body.
    pub const BYTES: usize = 16;

    /// The body of the record.
    pub fn pack(&self) -> [u8; Self::BYTES] {
        let mut body = [0; Self::BYTES];
        body[..8].copy_from_slice(&self.items.to_le_bytes());
        body[8..].copy_from_slice(&self.shows.to_le_bytes());
        body
    }

    /// Reads the body of the record.
    ///
    /// # Errors
    /// It is too short.
    pub fn unpack(body: &[u8]) -> Result<Self, Damage> {
        let mut fields = Fields(body);
        Ok(Self { items: fields.u64()?, shows: fields.u64()? })
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
    /// The items of keys with these hashes are gone.
    Evict(Hashes<'a>),
    /// What is over by then is gone.
    Expire(Ticks),
}

/// Hashes of keys.
#[derive(Debug, Clone, Copy)]
pub struct Hashes<'a>(&'a [u8]);

impl Iterator for Hashes<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let (hash, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*hash))
    }
}

impl<'a> Change<'a> {
    /// Understands a whole body. `None`: a kind that is no change.
    ///
    /// # Errors
    /// The body is not what its kind says.
    pub fn unpack(kind: u8, body: &'a [u8]) -> Result<Option<Self>, Damage> {
        Ok(Some(match kind {
            kind::PUT => match unpack_item(body)? {
                (stored, []) => Self::Put(stored),
                _ => return Err(BROKEN_ITEM),
            },
            kind::ATTRIBUTES => {
                let header = item::unpack_checked(body).ok_or(BROKEN_ITEM)?;
                let key_end = header.header_bytes + header.key_bytes;
                let key = body.get(header.header_bytes..key_end).ok_or(BROKEN_ITEM)?;
                Self::Attributes(key, header.attributes)
            }
            kind::DELETE => Self::Delete(body),
            kind::FLUSH => Self::Flush,
            kind::FLUSH_AT => Self::FlushAt(unpack_time(body)?),
            kind::EVICT => Self::Evict(Hashes(body)),
            kind::EXPIRE => Self::Expire(unpack_time(body)?),
            _ => return Ok(None),
        }))
    }
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
pub fn visit_items<'a>(
    mut body: &'a [u8],
    mut visit: impl FnMut(Stored<'a>, u8),
) -> Result<(), Damage> {
    while let Some((popularity, rest)) = body.split_first() {
        let (stored, behind) = unpack_item(rest)?;
        visit(stored, *popularity);
        body = behind;
    }
    Ok(())
}
