//! The bytes of one item inside a segment: packing and reading them, nothing else.
//!
//! ```text
//!  0        1        2
//! +--------+--------+----------------+---------+-----------+-------+-----+-------+
//! | key    | shape  | value length   | flags   | deadline  | CAS   | key | value |
//! | length |        | 1 to 4 bytes   | 0 or 4  | 0 or 5    | 0 or 8|     |       |
//! +--------+--------+----------------+---------+-----------+-------+-----+-------+
//!
//! shape   bit 7        6      5       4     3          2       1   0
//!         binary key | win  | stale | CAS | deadline | flags | length width - 1
//! ```
//!
//! Numbers are little endian. A deadline is in hundredths of a second since 1970, which 5 bytes
//! hold until the year 2318; all ones are no deadline, where one was taken back. Fields that an
//! item does not need take no space: an item without flags, expiry and stored CAS costs 3 bytes up
//! to 255 bytes of value.

use crate::store::Ticks;

/// Items start at multiples of this, so that a location needs fewer bits.
pub const ITEM_ALIGN_BYTES: usize = 4;

const SHAPE_WIDTH: u8 = 0b0000_0011;
const SHAPE_FLAGS: u8 = 1 << 2;
const SHAPE_DEADLINE: u8 = 1 << 3;
const SHAPE_CAS: u8 = 1 << 4;
const SHAPE_STALE: u8 = 1 << 5;
const SHAPE_WIN: u8 = 1 << 6;
const SHAPE_BINARY: u8 = 1 << 7;

const FIXED_BYTES: usize = 2;
const FLAGS_BYTES: usize = 4;
const DEADLINE_BYTES: usize = 5;
const CAS_BYTES: usize = 8;

/// A deadline that was taken back: its field stays, so that the key need not move.
const DEADLINE_NONE: u64 = (1 << (8 * DEADLINE_BYTES)) - 1;

/// Longest header: every optional field present.
pub const HEADER_BYTES_MAX: usize = FIXED_BYTES + 4 + FLAGS_BYTES + DEADLINE_BYTES + CAS_BYTES;

/// What an item carries besides key and value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// The client's flags, returned as they were given.
    pub flags: u32,
    /// When the item stops existing; `None`: never.
    pub deadline: Option<Ticks>,
    /// The CAS token where it does not follow from the item's position.
    pub cas: Option<u64>,
    /// Marked stale by `md I`.
    pub stale: bool,
    /// A client was told to recompute the value.
    pub win_sent: bool,
    /// The key came base64 encoded and is returned so.
    pub key_binary: bool,
}

/// A decoded header and where key and value lie behind it.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    /// Everything but the lengths.
    pub attributes: Attributes,
    /// Bytes before the key.
    pub header_bytes: usize,
    /// Length of the key.
    pub key_bytes: usize,
    /// Length of the value.
    pub value_bytes: usize,
}

/// Bytes rounded up to the item alignment.
pub fn aligned(bytes: usize) -> usize {
    bytes.next_multiple_of(ITEM_ALIGN_BYTES)
}

/// Bytes an item will take from its start to the next one's.
pub fn stride(attributes: &Attributes, key_bytes: usize, value_bytes: usize) -> usize {
    aligned(header_bytes(attributes, value_bytes) + key_bytes + value_bytes)
}

fn width_of(value_bytes: usize) -> usize {
    match value_bytes {
        0..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xff_ffff => 3,
        _ => 4,
    }
}

/// Bytes of the header that `pack_header` would write.
pub fn header_bytes(attributes: &Attributes, value_bytes: usize) -> usize {
    FIXED_BYTES
        + width_of(value_bytes)
        + if attributes.flags != 0 { FLAGS_BYTES } else { 0 }
        + if attributes.deadline.is_some() { DEADLINE_BYTES } else { 0 }
        + if attributes.cas.is_some() { CAS_BYTES } else { 0 }
}

/// Writes other attributes, and another value length, into a header that is there, if that keeps
/// its length. Answers whether it does.
pub fn repack_header(item: &mut [u8], attributes: &Attributes, value_bytes: usize) -> bool {
    let shape = item[1];
    let has = |bit: u8| shape & bit != 0;
    let fits = has(SHAPE_FLAGS) == (attributes.flags != 0)
        && has(SHAPE_CAS) == attributes.cas.is_some()
        && (has(SHAPE_DEADLINE) || attributes.deadline.is_none())
        && usize::from(shape & SHAPE_WIDTH) + 1 == width_of(value_bytes);
    if fits {
        let kept = has(SHAPE_DEADLINE).then_some(Ticks(DEADLINE_NONE));
        let attributes = Attributes { deadline: attributes.deadline.or(kept), ..*attributes };
        pack_header(item, &attributes, usize::from(item[0]), value_bytes);
    }
    fits
}

/// Writes the header to the front of `into` and returns its length.
pub fn pack_header(
    into: &mut [u8],
    attributes: &Attributes,
    key_bytes: usize,
    value_bytes: usize,
) -> usize {
    let width = width_of(value_bytes);
    let mut shape = (width - 1) as u8;
    let mut at = FIXED_BYTES;
    let mut put = |bytes: &[u8]| {
        into[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(&(value_bytes as u32).to_le_bytes()[..width]);
    if attributes.flags != 0 {
        shape |= SHAPE_FLAGS;
        put(&attributes.flags.to_le_bytes());
    }
    if let Some(deadline) = attributes.deadline {
        shape |= SHAPE_DEADLINE;
        put(&deadline.0.to_le_bytes()[..DEADLINE_BYTES]);
    }
    if let Some(cas) = attributes.cas {
        shape |= SHAPE_CAS;
        put(&cas.to_le_bytes());
    }
    for (set, bit) in [
        (attributes.stale, SHAPE_STALE),
        (attributes.win_sent, SHAPE_WIN),
        (attributes.key_binary, SHAPE_BINARY),
    ] {
        shape |= if set { bit } else { 0 };
    }
    into[0] = key_bytes as u8;
    into[1] = shape;
    at
}

/// Length and place of key and value without decoding the optional fields: what a lookup needs.
#[inline]
pub fn key_and_value_span(item: &[u8]) -> (usize, usize, usize) {
    let shape = item[1];
    let width = usize::from(shape & SHAPE_WIDTH) + 1;
    let start = FIXED_BYTES
        + width
        + FLAGS_BYTES * usize::from(shape & SHAPE_FLAGS != 0)
        + DEADLINE_BYTES * usize::from(shape & SHAPE_DEADLINE != 0)
        + CAS_BYTES * usize::from(shape & SHAPE_CAS != 0);
    (start, usize::from(item[0]), value_length(item, width))
}

/// The client flags alone: with the spans, all that a plain get needs.
#[inline]
pub fn client_flags(item: &[u8]) -> u32 {
    let shape = item[1];
    if shape & SHAPE_FLAGS == 0 {
        return 0;
    }
    let at = FIXED_BYTES + usize::from(shape & SHAPE_WIDTH) + 1;
    little_endian(&item[at..at + FLAGS_BYTES]) as u32
}

/// Decodes the header at the front of `item`. Inverse of [`pack_header`].
#[inline]
pub fn unpack_header(item: &[u8]) -> Header {
    let shape = item[1];
    let (header_bytes, key_bytes, value_bytes) = key_and_value_span(item);
    let mut at = FIXED_BYTES + usize::from(shape & SHAPE_WIDTH) + 1;
    let mut take = |bytes: usize| {
        let field = little_endian(&item[at..at + bytes]);
        at += bytes;
        field
    };
    let mut attributes = Attributes {
        stale: shape & SHAPE_STALE != 0,
        win_sent: shape & SHAPE_WIN != 0,
        key_binary: shape & SHAPE_BINARY != 0,
        ..Attributes::default()
    };
    if shape & SHAPE_FLAGS != 0 {
        attributes.flags = take(FLAGS_BYTES) as u32;
    }
    if shape & SHAPE_DEADLINE != 0 {
        attributes.deadline =
            Some(take(DEADLINE_BYTES)).filter(|at| *at != DEADLINE_NONE).map(Ticks);
    }
    if shape & SHAPE_CAS != 0 {
        attributes.cas = Some(take(CAS_BYTES));
    }
    Header { attributes, header_bytes, key_bytes, value_bytes }
}

/// As [`unpack_header`], for bytes from outside: `None` if they are too few for the header and the
/// key, or say that there is no key. The value may lie elsewhere; its length is not checked.
pub fn unpack_checked(item: &[u8]) -> Option<Header> {
    let shape = *item.get(1)?;
    let optional = usize::from(shape & SHAPE_FLAGS != 0) * FLAGS_BYTES
        + usize::from(shape & SHAPE_DEADLINE != 0) * DEADLINE_BYTES
        + usize::from(shape & SHAPE_CAS != 0) * CAS_BYTES;
    let header_bytes = FIXED_BYTES + usize::from(shape & SHAPE_WIDTH) + 1 + optional;
    let key_bytes = usize::from(item[0]);
    if key_bytes == 0 || item.len() < header_bytes + key_bytes {
        return None;
    }
    Some(unpack_header(item))
}

/// The value length of an item whose length field has `width` bytes.
#[inline]
fn value_length(item: &[u8], width: usize) -> usize {
    // Four bytes at once and the surplus masked off; only at the very end of a segment can there
    // be fewer.
    match item.get(FIXED_BYTES..FIXED_BYTES + 4) {
        Some(&[a, b, c, d]) => {
            let mask = u32::MAX >> (32 - 8 * width);
            (u32::from_le_bytes([a, b, c, d]) & mask) as usize
        }
        _ => little_endian(&item[FIXED_BYTES..FIXED_BYTES + width]) as usize,
    }
}

#[inline]
fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn attributes() -> impl Strategy<Value = Attributes> {
        (
            prop_oneof![Just(0u32), any::<u32>()],
            prop::option::of(0..DEADLINE_NONE),
            prop::option::of(any::<u64>()),
            any::<(bool, bool, bool)>(),
        )
            .prop_map(|(flags, deadline, cas, (stale, win_sent, key_binary))| Attributes {
                flags,
                deadline: deadline.map(Ticks),
                cas,
                stale,
                win_sent,
                key_binary,
            })
    }

    proptest! {
        #[test]
        fn unpack_is_the_inverse_of_pack(
            attributes in attributes(),
            key_bytes in 1usize..=250,
            value_bytes in prop_oneof![0usize..300, 65_000usize..66_000, 0usize..1 << 30],
        ) {
            let mut bytes = [0u8; HEADER_BYTES_MAX];
            let written = pack_header(&mut bytes, &attributes, key_bytes, value_bytes);
            prop_assert_eq!(written, header_bytes(&attributes, value_bytes));
            let header = unpack_header(&bytes);
            prop_assert_eq!(header.attributes, attributes);
            prop_assert_eq!(header.header_bytes, written);
            prop_assert_eq!(header.key_bytes, key_bytes);
            prop_assert_eq!(header.value_bytes, value_bytes);
        }
    }

    proptest! {
        #[test]
        fn a_header_written_over_reads_as_written(
            old in attributes(),
            new in attributes(),
            sizes in (0usize..70_000, 0usize..70_000),
        ) {
            let mut bytes = [0u8; HEADER_BYTES_MAX];
            let header_bytes = pack_header(&mut bytes, &old, 7, sizes.0);
            let before = bytes;
            if repack_header(&mut bytes, &new, sizes.1) {
                let header = unpack_header(&bytes);
                prop_assert_eq!(header.attributes, new);
                prop_assert_eq!((header.header_bytes, header.key_bytes), (header_bytes, 7));
                prop_assert_eq!(header.value_bytes, sizes.1);
                prop_assert_eq!(&bytes[header_bytes..], &before[header_bytes..]);
            } else {
                prop_assert_eq!(bytes, before);
                let is_same = item_shape(&old) == item_shape(&new);
                prop_assert!(!is_same || width_of(sizes.0) != width_of(sizes.1));
            }
        }
    }

    /// Which optional fields there are.
    fn item_shape(attributes: &Attributes) -> (bool, bool, bool) {
        (attributes.flags != 0, attributes.deadline.is_some(), attributes.cas.is_some())
    }

    #[test]
    fn a_plain_item_costs_three_bytes() {
        assert_eq!(header_bytes(&Attributes::default(), 255), 3);
    }
}
