//! Replies of one connection, in the order of its requests, and what has to be safe before they
//! leave.
//!
//! Owns the bytes until they are sent; does not know sockets, only `Write`.

use crate::limits::WRITE_BYTES_MAX;
use crate::shard::replies::Replies;
use std::io::{self, IoSlice, Write};

/// Shared values handed to one vectored write, with the bytes between them.
const VALUES_PER_WRITE_MAX: usize = 16;

/// A record of a shard's log that has to be safe before a reply may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gate {
    /// The shard.
    pub shard: usize,
    /// The record.
    pub sequence: u64,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Output {
    replies: Replies,
    /// What has to be safe before anything leaves: the last record of each shard concerned.
    gates: Vec<Gate>,
}

/// What a [`Output::flush`] left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushed {
    /// Nothing is left to send.
    All,
    /// The socket may take more, in the next turn.
    More,
    /// The socket takes no more for now.
    Blocked,
}

impl Output {
    /// Where replies are written.
    #[inline]
    pub fn here(&mut self) -> &mut Replies {
        &mut self.replies
    }

    /// Nothing leaves before this record is safe. 0 is no record.
    #[inline]
    pub fn wait_for(&mut self, gate: Gate) {
        if gate.sequence == 0 {
            return;
        }
        match self.gates.iter_mut().find(|other| other.shard == gate.shard) {
            Some(other) => other.sequence = other.sequence.max(gate.sequence),
            None => self.gates.push(gate),
        }
    }

    /// What has to be safe before anything leaves.
    #[inline]
    pub fn gates(&self) -> &[Gate] {
        &self.gates
    }

    /// All of it is safe.
    pub fn open_gates(&mut self) {
        self.gates.clear();
    }

    /// Bytes that wait here.
    #[inline]
    pub fn pending_bytes(&self) -> usize {
        self.replies.len()
    }

    /// Nothing to send.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.replies.is_empty()
    }

    /// Writes what can be written in this turn. Returns the bytes written with what is left.
    ///
    /// # Errors
    /// Those of the socket but `WouldBlock` and `Interrupted`.
    pub fn flush(&mut self, socket: &mut impl Write) -> io::Result<(usize, Flushed)> {
        let mut written_bytes = 0;
        while !self.replies.is_empty() {
            if written_bytes >= WRITE_BYTES_MAX {
                return Ok((written_bytes, Flushed::More));
            }
            let bytes_max = WRITE_BYTES_MAX - written_bytes;
            let written = if self.replies.values.is_empty() {
                socket.write(&self.replies.bytes[..self.replies.bytes.len().min(bytes_max)])
            } else {
                write_slices(&self.replies, bytes_max, socket)
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => {
                    written_bytes += bytes;
                    if bytes == self.replies.len() {
                        self.replies.clear();
                    } else {
                        self.replies.drop_front(bytes);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok((written_bytes, Flushed::Blocked));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // What a socket has taken may still wait inside it.
        match socket.flush() {
            Ok(()) => Ok((written_bytes, Flushed::All)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Ok((written_bytes, Flushed::Blocked))
            }
            Err(error) => Err(error),
        }
    }

    /// Takes the memory of an empty output, for other connections to use. An idle connection keeps
    /// none, but for its few gates.
    pub fn take_buffer(&mut self) -> Vec<u8> {
        debug_assert!(self.is_empty());
        std::mem::take(&mut self.replies).bytes
    }

    /// Gives an output memory to write to.
    pub fn give_buffer(&mut self, buffer: Vec<u8>) {
        debug_assert!(self.replies.bytes.capacity() == 0);
        self.replies.bytes = buffer;
    }

    /// Whether it has memory to write to.
    pub fn has_buffer(&self) -> bool {
        self.replies.bytes.capacity() > 0
    }
}

/// One vectored write of bytes and values, at most `bytes_max` of them.
fn write_slices(replies: &Replies, bytes_max: usize, socket: &mut impl Write) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); 2 * VALUES_PER_WRITE_MAX + 1];
    let mut count = 0;
    let mut bytes_left = bytes_max;
    let mut done = 0;
    let values = replies.values.iter().take(VALUES_PER_WRITE_MAX);
    let parts = values.flat_map(|(position, value)| {
        let before = &replies.bytes[std::mem::replace(&mut done, *position)..*position];
        [before, value]
    });
    for part in parts {
        let part = &part[..part.len().min(bytes_left)];
        slices[count] = IoSlice::new(part);
        (count, bytes_left) = (count + 1, bytes_left - part.len());
    }
    if replies.values.len() <= VALUES_PER_WRITE_MAX {
        let rest = &replies.bytes[done..];
        slices[count] = IoSlice::new(&rest[..rest.len().min(bytes_left)]);
        count += 1;
    }
    socket.write_vectored(&slices[..count])
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

    /// Once a client that read fast was sent all it had asked for in one turn, and a hundred that
    /// did not read at all had their sockets filled in one: others waited 100 ms for that.
    #[test]
    fn what_a_connection_is_sent_in_a_turn_is_bounded() {
        let large = Bytes::from(vec![b'v'; WRITE_BYTES_MAX / 3 * 2]);
        for shared in [true, false] {
            let mut output = Output::default();
            for _ in 0..3 {
                output.here().push(b"VALUE ");
                if shared {
                    output.here().push_shared(large.clone());
                } else {
                    output.here().push(&large);
                }
            }
            let all_bytes = output.pending_bytes();
            let (mut sent, mut turns) = (Vec::new(), 0);
            while let (bytes, Flushed::More) = output.flush(&mut sent).unwrap() {
                assert_eq!(bytes, WRITE_BYTES_MAX, "{shared}, turn {turns}");
                turns += 1;
            }
            assert_eq!((turns, sent.len()), (2, all_bytes), "{shared}");
            assert!(
                sent.split(|byte| *byte != b'v').filter(|v| v.len() == large.len()).count() == 3
            );
        }
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
