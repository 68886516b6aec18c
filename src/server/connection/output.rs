//! Replies of one connection in the order of its requests, some of them still being made by
//! another worker.
//!
//! ```text
//! requests:  get a   get b   get c   get d        b and d belong to another worker
//!
//! ready      [A---]                               may leave
//! here               .........[C---] .........    replies made here behind the first hole
//! late               [B---]                       replies that came by mail, in any order
//! ```
//!
//! When the first hole is filled, it and what follows up to the next open one become ready. Owns
//! the bytes until they are sent; does not know sockets, only `Write`.

use crate::limits::WRITE_BYTES_MAX;
use crate::server::stats::latency::Sent;
use crate::shard::replies::{Mark, Replies};
use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

/// Shared values handed to one vectored write, with the bytes between them.
const VALUES_PER_WRITE_MAX: usize = 16;

/// What an open hole counts for at least in [`Output::pending_bytes`]: its reply is on its way, and
/// nobody knows how large. Bounds what a client that does not read can have under way.
const HOLE_BYTES_MIN: usize = 4 << 10;

/// Replies wait this many turns for the ones behind them, so that a batch leaves in one write.
const HOLD_TURNS: u64 = 2;

/// Consumed bytes of `here` and `late` that are worth moving the rest for.
const COMPACT_BYTES: usize = 64 << 10;

/// A place kept for a reply that comes by mail.
#[derive(Debug, Clone, Copy)]
struct Hole {
    /// Where in `here`.
    at: Mark,
    /// Its part of `late`, once it is there.
    late: Option<(Mark, Mark)>,
}

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
    ready: Replies,
    here: Replies,
    /// How much of `here` is ready already.
    taken: Mark,
    late: Replies,
    holes: VecDeque<Hole>,
    /// Number of the first of `holes`.
    first_hole: u32,
    /// Holes that are filled and not first.
    filled: usize,
    /// Mean size of the replies that came by mail lately: what open holes are charged.
    late_bytes_mean: usize,
    /// What has to be safe before anything leaves: the last record of each shard concerned.
    gates: Vec<Gate>,
    /// The turn in which ready replies began to wait.
    held_since: Option<u64>,
}

/// What a [`Output::flush`] left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushed {
    /// Nothing is left to send.
    All,
    /// The socket may take more, in the next turn.
    More,
    /// A hole is open.
    Waiting,
    /// The socket takes no more for now.
    Blocked,
}

impl Output {
    /// Where replies made here are written.
    #[inline]
    pub fn here(&mut self) -> &mut Replies {
        if self.holes.is_empty() { &mut self.ready } else { &mut self.here }
    }

    /// Keeps the present place for a reply that comes by mail; returns the number to fill it by.
    pub fn open_hole(&mut self) -> u32 {
        self.holes.push_back(Hole { at: self.here.mark(), late: None });
        self.first_hole.wrapping_add(self.holes.len() as u32 - 1)
    }

    /// Fills a hole with a part of the replies that came by mail.
    pub fn fill_hole(&mut self, number: u32, replies: &Replies, from: Mark, to: Mark) {
        let place = number.wrapping_sub(self.first_hole) as usize;
        let reply_bytes = replies.len_between(from, to);
        self.late_bytes_mean = (self.late_bytes_mean * 7 + reply_bytes) / 8;
        let hole = self.holes.get_mut(place).expect("only an open hole is filled");
        assert!(hole.late.is_none(), "a hole is filled once");
        if place > 0 {
            let start = self.late.mark();
            self.late.append(replies, from, to);
            hole.late = Some((start, self.late.mark()));
            self.filled += 1;
            return;
        }
        // The usual case: mail of one worker comes back in order.
        self.ready.append(&self.here, self.taken, hole.at);
        self.taken = hole.at;
        self.ready.append(replies, from, to);
        self.drop_first_hole();
        while let Some(Hole { at, late: Some((from, to)) }) = self.holes.front().copied() {
            self.ready.append(&self.here, self.taken, at);
            self.taken = at;
            self.ready.append(&self.late, from, to);
            self.filled -= 1;
            self.drop_first_hole();
        }
        self.forget_taken();
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

    /// Fills a hole with a text.
    pub fn fill_hole_with(&mut self, number: u32, text: &[u8]) {
        let mut replies = Replies::default();
        replies.push(text);
        self.fill_hole(number, &replies, Mark::default(), replies.mark());
    }

    fn drop_first_hole(&mut self) {
        self.holes.pop_front();
        self.first_hole = self.first_hole.wrapping_add(1);
    }

    /// Frees what has become ready.
    fn forget_taken(&mut self) {
        if self.holes.is_empty() {
            self.ready.append(&self.here, self.taken, self.here.mark());
            self.here.clear();
            self.taken = Mark::default();
        } else if self.taken.bytes() >= COMPACT_BYTES {
            let mut rest = Replies::default();
            rest.append(&self.here, self.taken, self.here.mark());
            for hole in &mut self.holes {
                hole.at = hole.at.since(self.taken);
            }
            self.here = rest;
            self.taken = Mark::default();
        }
        if self.filled == 0 {
            self.late.clear();
        } else if self.late.bytes.len() >= 2 * COMPACT_BYTES {
            let mut rest = Replies::default();
            for (from, to) in self.holes.iter_mut().filter_map(|hole| hole.late.as_mut()) {
                let start = rest.mark();
                rest.append(&self.late, *from, *to);
                (*from, *to) = (start, rest.mark());
            }
            self.late = rest;
        }
    }

    /// How many holes there were so far: those before a moment are closed once [`Self::sent`] says
    /// so many.
    #[inline]
    pub fn holes(&self) -> u32 {
        self.first_hole.wrapping_add(self.holes.len() as u32)
    }

    /// What has left after a [`Self::flush`] that ended like this.
    pub fn sent(&self, flushed: Flushed) -> Sent {
        match flushed {
            Flushed::Blocked => Sent::Blocked,
            _ if self.ready.is_empty() => Sent::UpTo(self.first_hole),
            _ => Sent::Waits,
        }
    }

    /// Replies are still being made elsewhere.
    pub fn has_open_holes(&self) -> bool {
        !self.holes.is_empty()
    }

    /// Bytes kept here, and a charge for replies that are to come.
    pub fn pending_bytes(&self) -> usize {
        if self.holes.is_empty() {
            return self.ready.len();
        }
        let hole_bytes = self.late_bytes_mean.max(HOLE_BYTES_MIN);
        self.ready.len() + self.here.len() + self.late.len() + self.holes.len() * hole_bytes
    }

    /// Nothing to send and nothing to wait for.
    pub fn is_empty(&self) -> bool {
        self.holes.is_empty() && self.ready.is_empty()
    }

    /// Writes what can be written in this turn. Returns the bytes written with what is left.
    ///
    /// # Errors
    /// Those of the socket but `WouldBlock` and `Interrupted`.
    pub fn flush(&mut self, turn: u64, socket: &mut impl Write) -> io::Result<(usize, Flushed)> {
        if self.has_open_holes() {
            let since = *self.held_since.get_or_insert(turn);
            if turn - since < HOLD_TURNS {
                return Ok((0, Flushed::Waiting));
            }
        }
        self.held_since = None;
        let mut written_bytes = 0;
        while !self.ready.is_empty() {
            if written_bytes >= WRITE_BYTES_MAX {
                return Ok((written_bytes, Flushed::More));
            }
            let bytes_max = WRITE_BYTES_MAX - written_bytes;
            let written = if self.ready.values.is_empty() {
                socket.write(&self.ready.bytes[..self.ready.bytes.len().min(bytes_max)])
            } else {
                write_slices(&self.ready, bytes_max, socket)
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => {
                    written_bytes += bytes;
                    if bytes == self.ready.len() {
                        self.ready.clear();
                    } else {
                        self.ready.drop_front(bytes);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok((written_bytes, Flushed::Blocked));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let holes = self.has_open_holes();
        // What a socket has taken may still wait inside it.
        match socket.flush() {
            Ok(()) => Ok((written_bytes, if holes { Flushed::Waiting } else { Flushed::All })),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Ok((written_bytes, Flushed::Blocked))
            }
            Err(error) => Err(error),
        }
    }

    /// Takes the memory of an empty output, for other connections to use.
    pub fn take_buffer(&mut self) -> Vec<u8> {
        debug_assert!(self.is_empty());
        let first_hole = self.first_hole;
        // An idle connection keeps no memory, but for its few gates.
        let gates = std::mem::take(&mut self.gates);
        std::mem::replace(self, Self { first_hole, gates, ..Self::default() }).ready.bytes
    }

    /// Gives an output memory to write to.
    pub fn give_buffer(&mut self, buffer: Vec<u8>) {
        debug_assert!(self.ready.bytes.capacity() == 0);
        self.ready.bytes = buffer;
    }

    /// Whether it has memory to write to.
    pub fn has_buffer(&self) -> bool {
        self.ready.bytes.capacity() > 0
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
            if output.flush(0, &mut socket).expect("no error").1 == Flushed::All {
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
            assert_eq!(output.flush(0, &mut Vec::new()).unwrap(), (0, Flushed::Waiting));
            let mut replies = mailed(text);
            if hole == second {
                replies.push_shared(Bytes::from_static(b"and a half "));
            }
            output.fill_hole(hole, &replies, start, replies.mark());
        }
        assert_eq!(drain(&mut output, 3), "one two and a half three four FIVE six");
        assert!(output.is_empty());
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
            while let (bytes, Flushed::More) = output.flush(turns, &mut sent).unwrap() {
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
    fn what_is_ready_does_not_wait_for_ever() {
        let mut output = Output::default();
        output.here().push(b"first ");
        let hole = output.open_hole();
        output.here().push(b"last");
        let mut sent = Vec::new();
        for turn in 0..HOLD_TURNS {
            assert_eq!(output.flush(turn, &mut sent).unwrap(), (0, Flushed::Waiting));
        }
        assert_eq!(output.flush(HOLD_TURNS, &mut sent).unwrap(), (6, Flushed::Waiting));
        output.fill_hole_with(hole, b"middle ");
        assert_eq!(output.flush(HOLD_TURNS, &mut sent).unwrap(), (11, Flushed::All));
        assert_eq!(sent, b"first middle last");
    }

    #[test]
    fn holes_that_are_never_all_closed_do_not_pile_up() {
        let mut output = Output::default();
        let mut open = VecDeque::new();
        let mut sent = Vec::new();
        let mut expected = Vec::new();
        for number in 0..20_000u64 {
            output.here().push(b"local ");
            open.push_back((output.open_hole(), number));
            expected.extend_from_slice(format!("local {number} ").as_bytes());
            // Replies come back in pairs of the wrong order, and there is always one open.
            if open.len() > 4 {
                let (second, text) = open.remove(1).expect("five are open");
                output.fill_hole_with(second, format!("{text} ").as_bytes());
                let (first, text) = open.pop_front().expect("four are open");
                output.fill_hole_with(first, format!("{text} ").as_bytes());
            }
            output.flush(number * HOLD_TURNS, &mut sent).unwrap();
            assert!(output.pending_bytes() < 8 * COMPACT_BYTES, "{number}");
        }
        for (hole, text) in open {
            output.fill_hole_with(hole, format!("{text} ").as_bytes());
        }
        output.flush(u64::MAX, &mut sent).unwrap();
        assert!(sent == expected);
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
