//! Replies as they are made: bytes, and large values by reference between them.

use bytes::Bytes;

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
#[derive(Debug, Clone, Copy)]
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

    /// Appends the part of another buffer between two of its marks.
    pub fn append(&mut self, other: &Self, from: Mark, to: Mark) {
        let shift = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes[from.bytes..to.bytes]);
        for (position, value) in &other.values[from.values..to.values] {
            self.values.push((position - from.bytes + shift, value.clone()));
        }
    }

    /// Empties the buffer and keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.values.clear();
    }
}
