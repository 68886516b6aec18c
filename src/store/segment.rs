//! Segments: the fixed pieces of memory that items are appended to.
//!
//! A segment is open (being appended to), sealed (sockets and snapshots may hold it while the store
//! goes on; as long as they do, it never changes), or holds one large item. It knows how many of
//! its bytes are still live and when its first item expires; it does not know the index.

use crate::store::Ticks;
use crate::store::item;
use crate::store::segment_list::{LISTS_PER_SEGMENT, Link};
use bytes::{Bytes, BytesMut};

/// Kept free at the end of a segment's allocation, so that with the allocator's own header it
/// fits whole pages: a segment that spills into another page would waste 3 % of small ones.
const ALLOCATION_SLACK_BYTES: usize = 64;

/// Store times remembered per segment; later ones are rounded down to the last remembered.
const MARKS_MAX: usize = 64;

/// An item that takes more than this part of a segment, as one in so many, gets one of its own.
pub const LARGE_SHARE: usize = 8;

/// Which of the two S3-FIFO queues a segment belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    /// New items.
    Small,
    /// Items that were asked for again while in the small queue.
    Main,
}

#[derive(Debug)]
enum Data {
    Open(BytesMut),
    Sealed(Bytes),
    Large { head: Box<[u8]>, value: Bytes },
}

/// One segment; see the module's text.
#[derive(Debug)]
pub struct Segment {
    data: Data,
    /// Grows with every segment opened; tokens are made of it and never repeat.
    pub sequence: u64,
    /// The queue it is evicted from.
    pub queue: Queue,
    /// Bytes appended so far.
    pub used_bytes: usize,
    /// Bytes of items that the index still points to.
    pub live_bytes: usize,
    /// Bytes appended, or what could have been if it was sealed long before it was full.
    pub filled_bytes: usize,
    /// Dead bytes when they were counted last.
    pub noted_dead_bytes: usize,
    /// No live item expires before this.
    pub earliest_deadline: Ticks,
    /// Its places in lists of segments.
    pub links: [Link; LISTS_PER_SEGMENT],
    marks: Vec<(u32, u32)>,
}

/// An item as it lies in a segment.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    /// Lengths and attributes.
    pub header: item::Header,
    /// The key.
    pub key: &'a [u8],
    /// The value, without line end.
    pub value: &'a [u8],
}

/// An item that another thread can read while the store goes on. Keeps a whole segment alive: not
/// to be held for long.
#[derive(Debug, Clone)]
pub struct SharedItem {
    bytes: Bytes,
    offset: u32,
    value: Option<Bytes>,
}

impl SharedItem {
    /// Header, key and, unless it lies apart, the value; then the value that lies apart.
    pub fn raw(&self) -> (&[u8], Option<&Bytes>) {
        let bytes = &self.bytes[self.offset as usize..];
        match &self.value {
            Some(value) => (bytes, Some(value)),
            None => (&bytes[..item_bytes(bytes)], None),
        }
    }
}

/// Bytes of the item at the front, padding left out.
#[inline]
fn item_bytes(bytes: &[u8]) -> usize {
    let (start, key_bytes, value_bytes) = item::key_and_value_span(bytes);
    start + key_bytes + value_bytes
}

/// Bytes of a segment that items can use.
pub fn usable_bytes(segment_bytes: usize) -> usize {
    segment_bytes - ALLOCATION_SLACK_BYTES
}

/// Memory that a large item takes: its two allocations, and what is kept of it elsewhere.
pub fn large_memory_bytes(head_bytes: usize, value_bytes: usize) -> usize {
    allocated_bytes(head_bytes) + allocated_bytes(value_bytes) + ALLOCATION_SLACK_BYTES
}

/// What the allocator takes for so many bytes: it has four sizes for each doubling. (Taken for the
/// bytes alone, values of 10 to 40 KB would take a tenth more than the limit.)
fn allocated_bytes(bytes: usize) -> usize {
    let step = bytes.saturating_sub(1).checked_ilog2().map_or(1, |log| 1 << log.saturating_sub(2));
    bytes.next_multiple_of(step)
}

impl Segment {
    /// An empty segment. `spare` is memory of an earlier one to use again.
    pub fn open(usable: usize, spare: Option<BytesMut>, sequence: u64, queue: Queue) -> Self {
        let bytes = spare.unwrap_or_else(|| BytesMut::zeroed(usable));
        Self::with_data(Data::Open(bytes), sequence, queue)
    }

    /// A segment that holds one item too large for an ordinary segment.
    pub fn large(head: Box<[u8]>, value: Bytes, sequence: u64) -> Self {
        let bytes = head.len() + value.len();
        let mut segment = Self::with_data(Data::Large { head, value }, sequence, Queue::Small);
        (segment.used_bytes, segment.live_bytes, segment.filled_bytes) = (bytes, bytes, bytes);
        segment
    }

    fn with_data(data: Data, sequence: u64, queue: Queue) -> Self {
        Self {
            data,
            sequence,
            queue,
            used_bytes: 0,
            live_bytes: 0,
            filled_bytes: 0,
            noted_dead_bytes: 0,
            earliest_deadline: Ticks::NEVER,
            links: Default::default(),
            marks: Vec::new(),
        }
    }

    /// Memory it takes, in bytes.
    pub fn memory_bytes(&self) -> usize {
        match &self.data {
            Data::Open(bytes) => bytes.len() + ALLOCATION_SLACK_BYTES,
            Data::Sealed(bytes) => bytes.len() + ALLOCATION_SLACK_BYTES,
            Data::Large { head, value } => large_memory_bytes(head.len(), value.len()),
        }
    }

    /// Still appended to.
    pub fn is_open(&self) -> bool {
        matches!(self.data, Data::Open(_))
    }

    /// Holds one large item.
    pub fn is_large(&self) -> bool {
        matches!(self.data, Data::Large { .. })
    }

    /// Room for an item of `stride` bytes.
    pub fn has_room(&self, stride: usize) -> bool {
        matches!(&self.data, Data::Open(bytes) if bytes.len() - self.used_bytes >= stride)
    }

    /// Appends an item made of a header, a key and a value in two parts; returns its offset.
    pub fn append(
        &mut self,
        attributes: &item::Attributes,
        key: &[u8],
        value: [&[u8]; 2],
        now: Ticks,
    ) -> usize {
        let offset = self.used_bytes;
        let Data::Open(bytes) = &mut self.data else { panic!("only an open segment grows") };
        let value_bytes = value[0].len() + value[1].len();
        let mut at =
            offset + item::pack_header(&mut bytes[offset..], attributes, key.len(), value_bytes);
        for part in [key, value[0], value[1]] {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        self.used_bytes = offset + item::aligned(at - offset);
        self.live_bytes += self.used_bytes - offset;
        if let Some(deadline) = attributes.deadline {
            self.earliest_deadline = self.earliest_deadline.min(deadline);
        }
        self.remember_time(offset, now);
        offset
    }

    /// Appends an item that nothing will ever point to; only its position counts.
    pub fn append_placeholder(&mut self, now: Ticks) -> usize {
        let offset = self.append(&item::Attributes::default(), &[0], [&[], &[]], now);
        self.live_bytes -= self.used_bytes - offset;
        offset
    }

    /// Gives an item other attributes, in place, if its header keeps its length and nobody else
    /// holds the segment. Answers whether that was so.
    pub fn overwrite_header(&mut self, offset: usize, attributes: &item::Attributes) -> bool {
        let is_large = self.is_large();
        let overwritten = self.change(|bytes| {
            let at = if is_large { 0 } else { offset };
            let value_bytes = item::key_and_value_span(&bytes[at..]).2;
            item::repack_header(&mut bytes[at..], attributes, value_bytes)
        });
        if overwritten && let Some(deadline) = attributes.deadline {
            self.earliest_deadline = self.earliest_deadline.min(deadline);
        }
        overwritten
    }

    /// Gives an item other attributes and another value, in place, if it takes up the same bytes as
    /// before and nobody else holds the segment. Answers whether that was so.
    pub fn overwrite(
        &mut self,
        offset: usize,
        attributes: &item::Attributes,
        value: [&[u8]; 2],
    ) -> bool {
        if self.is_large() {
            return false;
        }
        let overwritten = self.change(|bytes| {
            let item = &mut bytes[offset..];
            let (start, key_bytes, old_bytes) = item::key_and_value_span(item);
            let (from, value_bytes) = (start + key_bytes, value[0].len() + value[1].len());
            let keeps_place = item::aligned(from + value_bytes) == item::aligned(from + old_bytes);
            if !keeps_place || !item::repack_header(item, attributes, value_bytes) {
                return false;
            }
            let (first, second) = item[from..from + value_bytes].split_at_mut(value[0].len());
            first.copy_from_slice(value[0]);
            second.copy_from_slice(value[1]);
            true
        });
        if overwritten && let Some(deadline) = attributes.deadline {
            self.earliest_deadline = self.earliest_deadline.min(deadline);
        }
        overwritten
    }

    /// Changes the bytes, unless somebody else holds them. (Of a large item, all but the value.)
    fn change(&mut self, change: impl FnOnce(&mut [u8]) -> bool) -> bool {
        match &mut self.data {
            Data::Open(bytes) => change(bytes),
            Data::Large { head, .. } => change(head),
            Data::Sealed(bytes) => match std::mem::take(bytes).try_into_mut() {
                Ok(mut alone) => {
                    let changed = change(&mut alone);
                    *bytes = alone.freeze();
                    changed
                }
                Err(shared) => {
                    *bytes = shared;
                    false
                }
            },
        }
    }

    /// Ends appending. From here on the bytes change only while nobody else holds them.
    pub fn seal(&mut self) {
        if let Data::Open(bytes) = &mut self.data {
            let room_bytes = bytes.len() - self.used_bytes;
            let is_full = room_bytes <= bytes.len() / LARGE_SHARE;
            self.filled_bytes = if is_full { self.used_bytes } else { bytes.len() };
            self.data = Data::Sealed(std::mem::take(bytes).freeze());
        }
    }

    /// The item at an offset.
    #[inline]
    pub fn stored(&self, offset: usize) -> Stored<'_> {
        let (head, value) = self.head_and_value(offset);
        let header = item::unpack_header(head);
        let key_end = header.header_bytes + header.key_bytes;
        let key = &head[header.header_bytes..key_end];
        let value = value.unwrap_or_else(|| &head[key_end..key_end + header.value_bytes]);
        Stored { header, key, value }
    }

    /// The bytes of the item at an offset, as they lie here: header, key and, unless it lies
    /// elsewhere, the value.
    pub fn raw(&self, offset: usize) -> (&[u8], Option<&Bytes>) {
        let bytes: &[u8] = match &self.data {
            Data::Open(bytes) => bytes,
            Data::Sealed(bytes) => bytes,
            Data::Large { head, value } => return (head, Some(value)),
        };
        (&bytes[offset..offset + item_bytes(&bytes[offset..])], None)
    }

    /// The item at an offset, readable without the store: by reference where it can be.
    pub fn share_item(&self, offset: usize) -> SharedItem {
        match &self.data {
            Data::Open(bytes) => {
                let item = &bytes[offset..offset + item_bytes(&bytes[offset..])];
                SharedItem { bytes: Bytes::copy_from_slice(item), offset: 0, value: None }
            }
            Data::Sealed(bytes) => {
                SharedItem { bytes: bytes.clone(), offset: offset as u32, value: None }
            }
            Data::Large { head, value } => SharedItem {
                bytes: Bytes::copy_from_slice(head),
                offset: 0,
                value: Some(value.clone()),
            },
        }
    }

    /// Whether the item at an offset has expired.
    pub fn is_expired(&self, offset: usize, now: Ticks) -> bool {
        let deadline = self.stored(offset).header.attributes.deadline;
        deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Whether the item at an offset expires at all.
    pub fn has_deadline(&self, offset: usize) -> bool {
        self.stored(offset).header.attributes.deadline.is_some()
    }

    /// Client flags and value of the item at an offset.
    #[inline]
    pub fn flags_and_value(&self, offset: usize) -> (u32, &[u8]) {
        let (head, value) = self.head_and_value(offset);
        let flags = item::client_flags(head);
        let value = value.unwrap_or_else(|| {
            let (start, key_bytes, value_bytes) = item::key_and_value_span(head);
            &head[start + key_bytes..start + key_bytes + value_bytes]
        });
        (flags, value)
    }

    /// The bytes from an item's header on, and its value where that lies elsewhere.
    #[inline]
    fn head_and_value(&self, offset: usize) -> (&[u8], Option<&[u8]>) {
        match &self.data {
            Data::Open(bytes) => (&bytes[offset..], None),
            Data::Sealed(bytes) => (&bytes[offset..], None),
            Data::Large { head, value } => (head, Some(value)),
        }
    }

    /// The first byte of the item at an offset.
    #[inline]
    pub fn first_byte(&self, offset: usize) -> u8 {
        self.head_and_value(offset).0[0]
    }

    /// Whether the item at an offset has this key.
    #[inline]
    pub fn has_key(&self, offset: usize, key: &[u8]) -> bool {
        let (head, _) = self.head_and_value(offset);
        let (start, key_bytes, _) = item::key_and_value_span(head);
        key_bytes == key.len() && head[start..start + key_bytes] == *key
    }

    /// The value at an offset as a reference that outlives the store's hold on it. `None` while
    /// the segment is open.
    pub fn share_value(&self, offset: usize) -> Option<Bytes> {
        match &self.data {
            Data::Open(_) => None,
            Data::Large { value, .. } => Some(value.clone()),
            Data::Sealed(bytes) => {
                let (start, key_bytes, value_bytes) = item::key_and_value_span(&bytes[offset..]);
                let from = offset + start + key_bytes;
                Some(bytes.slice(from..from + value_bytes))
            }
        }
    }

    /// Bytes from an item's offset to the next item's, as counted in `live_bytes`.
    pub fn stride(&self, offset: usize) -> usize {
        match self.head_and_value(offset) {
            (_, Some(_)) => self.used_bytes,
            (head, None) => item::aligned(item_bytes(head)),
        }
    }

    /// When the item at an offset was stored, in whole seconds since 1970.
    pub fn stored_at_seconds(&self, offset: usize) -> u64 {
        let after = self.marks.partition_point(|(from, _)| *from as usize <= offset);
        after.checked_sub(1).map_or(0, |at| u64::from(self.marks[at].1))
    }

    /// Gives the memory back for another segment, if nothing else holds it and it has the size.
    pub fn into_spare(self, usable: usize) -> Option<BytesMut> {
        let bytes = match self.data {
            Data::Open(bytes) => bytes,
            Data::Sealed(bytes) => bytes.try_into_mut().ok()?,
            Data::Large { .. } => return None,
        };
        (bytes.len() == usable).then_some(bytes)
    }

    /// Records the time at `offset`, once a second.
    pub fn remember_time(&mut self, offset: usize, now: Ticks) {
        let seconds = now.seconds() as u32;
        let last = self.marks.last().map(|(_, last)| *last);
        if last != Some(seconds) && self.marks.len() < MARKS_MAX {
            self.marks.push((offset as u32, seconds));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_are_rounded_up_to_four_sizes_a_doubling() {
        let cases = [(0, 0), (1, 1), (17, 20), (4_096, 4_096), (4_097, 5_120), (10_000, 10_240)];
        let large = [(66_000, 81_920), (100_000, 114_688), (1 << 20, 1 << 20)];
        for (bytes, allocated) in cases.into_iter().chain(large) {
            assert_eq!(allocated_bytes(bytes), allocated, "{bytes}");
        }
    }
}
