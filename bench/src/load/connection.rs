//! One connection of the load: bytes out, bytes in, replies matched with what was asked. Owns a
//! non-blocking socket and its buffers; decides nothing about when to send.

use std::io::{ErrorKind, Read, Write};

use mio::net::TcpStream;

use super::Plan;
use super::requests::{Answer, Expected, Pending, Requests};
use super::tally::Outcome;
use crate::client::Client;
use crate::population::Population;
use crate::wire::{self, Protocol, Reply};
use crate::{Result, frames, resp};

const INPUT_BYTES_FIRST: usize = 16 << 10;

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    output: Vec<u8>,
    /// How much of `output` the socket has taken.
    written: usize,
    input: Input,
    pub(super) pending: Pending,
    /// Ids of keys that were missing, to be stored ahead of the next batch.
    fills: Vec<u64>,
    look_aside: bool,
    /// Splits the first reply off what was received.
    parse: fn(&[u8]) -> Option<(Reply<'_>, usize)>,
}

/// Bytes received: `bytes[start..end]` are not parsed yet, `bytes[end..]` is room for more.
#[derive(Debug)]
struct Input {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Connection {
    /// Connects, and waits for one reply so that the server has accepted.
    pub(super) fn open(plan: &Plan) -> Result<Self> {
        let mut client = Client::connect(plan.address)?;
        let is_of_frames = plan.is_of_frames();
        if is_of_frames {
            client.greet_in_frames()?;
        } else {
            client.greet(plan.protocol)?;
        }
        let stream = client.into_stream();
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream: TcpStream::from_std(stream),
            output: Vec::new(),
            written: 0,
            input: Input { bytes: vec![0; INPUT_BYTES_FIRST], start: 0, end: 0 },
            pending: Pending::default(),
            fills: Vec::new(),
            look_aside: plan.look_aside,
            parse: match plan.protocol {
                Protocol::Text if is_of_frames => frames::parse,
                Protocol::Text => wire::parse,
                Protocol::Resp => resp::parse,
            },
        })
    }

    /// True when every command has been answered.
    pub(super) fn is_quiet(&self) -> bool {
        self.pending.replies.is_empty()
    }

    /// Adds the pending fills and `count` commands to the output; `flush` sends them.
    pub(super) fn queue(
        &mut self,
        requests: &mut Requests,
        count: usize,
        sent_ns: u64,
        tally: &mut Outcome,
    ) {
        tally.fills += self.fills.len() as u64;
        for id in self.fills.drain(..) {
            tally.fill_bytes += requests.push_fill(id, &mut self.output);
        }
        requests.push_batch(count, sent_ns, &mut self.output, &mut self.pending);
    }

    /// Hands the socket as much output as it takes.
    pub(super) fn flush(&mut self) -> Result<()> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }

    /// Reads what has arrived and settles the replies in it. `now_ns` is asked after each read.
    pub(super) fn receive(
        &mut self,
        population: &Population,
        now_ns: impl Fn() -> u64,
        tally: &mut Outcome,
    ) -> Result<()> {
        loop {
            let room = self.input.room();
            let room_bytes = room.len();
            match self.stream.read(room) {
                Ok(0) => return Err("the server closed a connection".into()),
                Ok(count) => {
                    self.input.end += count;
                    self.settle_input(population, now_ns(), tally)?;
                    // On a stream socket a short read means drained; edge-triggered polling
                    // reports whatever comes later.
                    if count < room_bytes {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn settle_input(
        &mut self,
        population: &Population,
        now_ns: u64,
        tally: &mut Outcome,
    ) -> Result<()> {
        while let Some((reply, length)) = (self.parse)(self.input.unparsed()) {
            let Some(expected) = self.pending.replies.front_mut() else {
                return Err(format!("a reply nobody asked for: {reply:?}").into());
            };
            let mut keys = Keys {
                pending: &mut self.pending.keys,
                left: &mut expected.keys_left,
                fills: self.look_aside.then_some(&mut self.fills),
            };
            if settle(&reply, expected.answer, &mut keys, population, tally) {
                keys.miss_rest(tally);
                let Expected { commands, sent_ns, .. } = *expected;
                self.pending.replies.pop_front();
                tally.answered(u64::from(commands), now_ns.saturating_sub(sent_ns));
            }
            self.input.start += length;
        }
        Ok(())
    }
}

/// Accounts for one reply to a command that expects `answer`; true if it was the command's last.
#[inline]
fn settle(
    reply: &Reply<'_>,
    answer: Answer,
    keys: &mut Keys<'_>,
    population: &Population,
    tally: &mut Outcome,
) -> bool {
    match (reply, answer) {
        (Reply::Value { key, data }, Answer::Values) => {
            match Population::id_of(key).filter(|&id| keys.take(id, tally)) {
                Some(id) if population.is_value(id, data) => tally.hit(key.len() + data.len()),
                _ => tally.wrong += 1,
            }
            false
        }
        (Reply::MetaValue(data), Answer::Meta) => {
            match keys.take_next() {
                Some(id) if population.is_value(id, data) => tally.hit(data.len()),
                _ => tally.wrong += 1,
            }
            true
        }
        // What the end leaves of the command's keys was missed.
        (Reply::End, Answer::Values) | (Reply::MetaMiss, Answer::Meta) => true,
        (Reply::Stored, Answer::Stored) => true,
        (Reply::Other(line), _) => {
            tally.failed(line);
            true
        }
        (reply, answer) => {
            tally.failed(format!("{reply:?} where {answer:?} was due").as_bytes());
            true
        }
    }
}

/// The keys of the command being answered.
struct Keys<'a> {
    pending: &'a mut std::collections::VecDeque<u64>,
    left: &'a mut u32,
    fills: Option<&'a mut Vec<u64>>,
}

impl Keys<'_> {
    fn take_next(&mut self) -> Option<u64> {
        *self.left = self.left.checked_sub(1)?;
        self.pending.pop_front()
    }

    /// Moves past `id`; the keys before it were missed, for values come in the order asked. False
    /// if the command did not ask for `id`.
    #[inline]
    fn take(&mut self, id: u64, tally: &mut Outcome) -> bool {
        while let Some(next) = self.take_next() {
            if next == id {
                return true;
            }
            self.miss(next, tally);
        }
        false
    }

    fn miss_rest(&mut self, tally: &mut Outcome) {
        while let Some(id) = self.take_next() {
            self.miss(id, tally);
        }
    }

    /// A key asked for twice in one batch and missing counts as one miss and one hit: request by
    /// request, the second would have found what the first stored. The search is linear because a
    /// batch misses at most some hundreds of keys.
    fn miss(&mut self, id: u64, tally: &mut Outcome) {
        match &mut self.fills {
            Some(fills) if fills.contains(&id) => tally.hits += 1,
            Some(fills) => {
                fills.push(id);
                tally.misses += 1;
            }
            None => tally.misses += 1,
        }
    }
}

impl Input {
    fn unparsed(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Room to read into, never empty. Moving what is left to the front is cheap when it is less
    /// than half; otherwise the buffer doubles, so that a large value is moved a few times only.
    fn room(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.end > self.bytes.len() / 2 {
                self.bytes.resize(self.bytes.len() * 2, 0);
            }
        }
        &mut self.bytes[self.end..]
    }
}
