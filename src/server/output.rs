//! Replies of one connection in the order of its requests, some of them still being made by
//! another worker.
//!
//! ```text
//! requests:  get a   get b   get c   get d        b and d belong to another worker
//! here:      [A---] .........[C---] .........     replies made here, with holes between
//! late:              [B---]          [D--]        replies that came by mail, in any order
//! ```
//!
//! Nothing leaves while a hole is open: the replies of a batch leave in one write. Owns the bytes
//! until they are sent; does not know sockets, only `Write`.

use crate::shard::replies::{Mark, Replies};
use std::io::{self, IoSlice, Write};

/// Slices handed to one vectored write.
const SLICES_MAX: usize = 64;

/// A place kept for a reply that comes by mail.
#[derive(Debug, Clone, Copy)]
struct Hole {
    at: Mark,
    late: Option<(Mark, Mark)>,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Output {
    here: Replies,
    late: Replies,
    holes: Vec<Hole>,
    open_holes: usize,
    sent_bytes: usize,
}

/// What a [`Output::flush`] left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushed {
    /// Nothing is left to send.
    All,
    /// The socket takes no more for now, or a hole is open.
    Waiting,
}

impl Output {
    /// Where replies made here are written.
    #[inline]
    pub fn here(&mut self) -> &mut Replies {
        &mut self.here
    }

    /// Keeps the present place for a reply that comes by mail; returns the number to fill it by.
    pub fn open_hole(&mut self) -> u32 {
        self.open_holes += 1;
        self.holes.push(Hole { at: self.here.mark(), late: None });
        (self.holes.len() - 1) as u32
    }

    /// Fills a hole with a part of the replies that came by mail.
    pub fn fill_hole(&mut self, hole: u32, replies: &Replies, from: Mark, to: Mark) {
        let start = self.late.mark();
        self.late.append(replies, from, to);
        self.settle_hole(hole, start);
    }

    /// Fills a hole with a text.
    pub fn fill_hole_with(&mut self, hole: u32, text: &[u8]) {
        let start = self.late.mark();
        self.late.push(text);
        self.settle_hole(hole, start);
    }

    fn settle_hole(&mut self, hole: u32, start: Mark) {
        let end = self.late.mark();
        let hole = &mut self.holes[hole as usize];
        assert!(hole.late.is_none(), "a hole is filled once");
        hole.late = Some((start, end));
        self.open_holes -= 1;
        if self.open_holes == 0 {
            self.close_holes();
        }
    }

    /// All holes are filled: puts everything in order.
    fn close_holes(&mut self) {
        let mut ordered = Replies::default();
        ordered.bytes.reserve(self.here.bytes.len() + self.late.bytes.len());
        let mut done = Replies::default().mark();
        for hole in self.holes.drain(..) {
            ordered.append(&self.here, done, hole.at);
            done = hole.at;
            if let Some((from, to)) = hole.late {
                ordered.append(&self.late, from, to);
            }
        }
        ordered.append(&self.here, done, self.here.mark());
        self.here = ordered;
        self.late.clear();
    }

    /// Replies are still being made elsewhere.
    pub fn has_open_holes(&self) -> bool {
        self.open_holes > 0
    }

    /// Bytes kept here that are not sent yet.
    pub fn pending_bytes(&self) -> usize {
        self.here.len() + self.late.len() - self.sent_bytes
    }

    /// Nothing to send and nothing to wait for.
    pub fn is_empty(&self) -> bool {
        self.open_holes == 0 && self.here.is_empty()
    }

    /// Writes what can be written. Returns the bytes written with what is left.
    ///
    /// # Errors
    /// Those of the socket but `WouldBlock` and `Interrupted`.
    pub fn flush(&mut self, socket: &mut impl Write) -> io::Result<(usize, Flushed)> {
        let mut written_bytes = 0;
        if self.has_open_holes() {
            return Ok((0, Flushed::Waiting));
        }
        let total_bytes = self.here.len();
        while self.sent_bytes < total_bytes {
            let written = if self.here.values.is_empty() {
                socket.write(&self.here.bytes[self.sent_bytes..])
            } else {
                write_slices(&self.here, self.sent_bytes, socket)
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => {
                    self.sent_bytes += bytes;
                    written_bytes += bytes;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok((written_bytes, Flushed::Waiting));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.here.clear();
        self.sent_bytes = 0;
        Ok((written_bytes, Flushed::All))
    }

    /// Takes the memory of an empty output, for other connections to use.
    pub fn take_buffer(&mut self) -> Vec<u8> {
        debug_assert!(self.is_empty());
        self.late = Replies::default();
        self.holes = Vec::new();
        std::mem::take(&mut self.here).bytes
    }

    /// Gives an output memory to write to.
    pub fn give_buffer(&mut self, buffer: Vec<u8>) {
        debug_assert!(self.here.bytes.capacity() == 0);
        self.here.bytes = buffer;
    }

    /// Whether it has memory to write to.
    pub fn has_buffer(&self) -> bool {
        self.here.bytes.capacity() > 0
    }
}

/// One vectored write of bytes and values from `skip` on.
fn write_slices(replies: &Replies, skip: usize, socket: &mut impl Write) -> io::Result<usize> {
    let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(SLICES_MAX);
    let mut skip = skip;
    let mut push = |bytes| -> bool {
        let bytes: &[u8] = bytes;
        let skipped = skip.min(bytes.len());
        skip -= skipped;
        if skipped < bytes.len() {
            slices.push(IoSlice::new(&bytes[skipped..]));
        }
        slices.len() < SLICES_MAX
    };
    let mut done = 0;
    for (position, value) in &replies.values {
        if !push(&replies.bytes[done..*position]) || !push(value) {
            return socket.write_vectored(&slices);
        }
        done = *position;
    }
    push(&replies.bytes[done..]);
    socket.write_vectored(&slices)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    /// A socket that takes a few bytes at a time.
    struct Trickle {
        taken: Vec<u8>,
        bytes_at_once: usize,
        blocks: bool,
    }

    impl Write for Trickle {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.blocks = !self.blocks;
            if self.blocks {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let count = bytes.len().min(self.bytes_at_once);
            self.taken.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn drain(output: &mut Output, bytes_at_once: usize) -> String {
        let mut socket = Trickle { taken: Vec::new(), bytes_at_once, blocks: false };
        for _ in 0..10_000 {
            if output.flush(&mut socket).expect("no error").1 == Flushed::All {
                return String::from_utf8(socket.taken).expect("text");
            }
        }
        panic!("never drained");
    }

    fn mailed(text: &str) -> Replies {
        let mut replies = Replies::default();
        replies.push(text.as_bytes());
        replies
    }

    #[test]
    fn replies_leave_in_the_order_of_requests() {
        let mut output = Output::default();
        output.here().push(b"one ");
        let second = output.open_hole();
        let third = output.open_hole();
        output.here().push(b"four ");
        output.here().push_shared(Bytes::from_static(b"FIVE "));
        let sixth = output.open_hole();
        let start = Replies::default().mark();
        for (hole, text) in [(sixth, "six"), (second, "two "), (third, "three ")] {
            assert_eq!(output.flush(&mut Vec::new()).unwrap(), (0, Flushed::Waiting));
            let mut replies = mailed(text);
            if hole == second {
                replies.push_shared(Bytes::from_static(b"and a half "));
            }
            output.fill_hole(hole, &replies, start, replies.mark());
        }
        assert_eq!(drain(&mut output, 3), "one two and a half three four FIVE six");
        assert!(output.is_empty());
    }

    #[test]
    fn many_values_take_many_writes() {
        let mut output = Output::default();
        let mut expected = String::new();
        for number in 0..200 {
            let head = format!("{number}:");
            output.here().push(head.as_bytes());
            output.here().push_shared(Bytes::from_static(b"value"));
            expected += &head;
            expected += "value";
        }
        assert_eq!(drain(&mut output, 1_000), expected);
    }
}
