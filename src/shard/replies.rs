//! Replies as they are made: bytes, and large values by reference between them.

use bytes::{Buf, Bytes};

/// An append-only buffer of replies.
#[derive(Debug, Default)]
pub struct Replies {
    /// The bytes, without the values in `values`.
    pub bytes: Vec<u8>,
    /// Values to be sent from where they lie, each with the position in `bytes` before which it
    /// comes. Positions do not fall.
    pub values: Vec<(usize, Bytes)>,
}

/// A position to go back to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    bytes: usize,
    values: usize,
}

impl Replies {
    /// Makes room for so many bytes.
    #[inline]
    pub fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes);
    }

    /// Appends a line or part of one.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends a number in decimal.
    #[inline]
    pub fn push_number(&mut self, number: u64) {
        // Most numbers in replies are short lengths.
        if number < 10 {
            self.bytes.push(b'0' + number as u8);
        } else if number < 100 {
            let (tens, ones) = (number as u8 / 10, number as u8 % 10);
            self.bytes.extend_from_slice(&[b'0' + tens, b'0' + ones]);
        } else {
            self.bytes.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        }
    }

    /// Appends a value that is sent from where it lies.
    pub fn push_shared(&mut self, value: Bytes) {
        self.values.push((self.bytes.len(), value));
    }

    /// Bytes to send, shared values included.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.values.iter().map(|(_, value)| value.len()).sum::<usize>()
    }

    /// Nothing to send.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.values.is_empty()
    }

    /// The present end.
    #[inline]
    pub fn mark(&self) -> Mark {
        Mark { bytes: self.bytes.len(), values: self.values.len() }
    }

    /// Takes back what was appended since.
    pub fn truncate(&mut self, mark: Mark) {
        self.bytes.truncate(mark.bytes);
        self.values.truncate(mark.values);
    }

    /// Drops so many bytes from the front, shared values included.
    pub fn drop_front(&mut self, mut count: usize) {
        let mut bytes_dropped = 0;
        let mut values_dropped = 0;
        for (position, value) in &mut self.values {
            let before = *position - bytes_dropped;
            if count < before {
                break;
            }
            count -= before;
            bytes_dropped = *position;
            if count < value.len() {
                value.advance(count);
                count = 0;
                break;
            }
            count -= value.len();
            values_dropped += 1;
        }
        bytes_dropped += count;
        self.values.drain(..values_dropped);
        for (position, _) in &mut self.values {
            *position -= bytes_dropped.min(*position);
        }
        self.bytes.drain(..bytes_dropped);
    }

    /// Empties the buffer and keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.values.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(replies: &Replies) -> String {
        let mut text = Vec::new();
        let mut done = 0;
        for (position, value) in &replies.values {
            text.extend_from_slice(&replies.bytes[done..*position]);
            text.extend_from_slice(value);
            done = *position;
        }
        text.extend_from_slice(&replies.bytes[done..]);
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn dropping_from_the_front_takes_bytes_and_values_in_order() {
        let whole = "ab[one][two]cd[three]ef";
        for count in 0..=whole.len() {
            let mut replies = Replies::default();
            replies.push(b"ab");
            replies.push_shared(Bytes::from_static(b"[one]"));
            replies.push_shared(Bytes::from_static(b"[two]"));
            replies.push(b"cd");
            replies.push_shared(Bytes::from_static(b"[three]"));
            replies.push(b"ef");
            replies.drop_front(count);
            assert_eq!(text(&replies), whole[count..], "{count}");
            assert_eq!(replies.len(), whole.len() - count);
        }
    }
}
