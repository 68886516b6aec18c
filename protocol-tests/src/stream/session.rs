//! Sends batches of slots to both servers and judges the replies.

use std::io;
use std::thread;
use std::time::Duration;

use super::command::{Command, Slot};
use super::compare::same;
use super::generator::Generator;
use super::meta::encoded;
use super::request::Request;
use super::tokens::{Side, Tokens};
use crate::differences::{Pair, Rule, State};
use crate::frame::{Framer, SENTINEL_REPLY, SENTINEL_REQUEST};
use crate::target::Target;
use crate::wire::{Connection, End, REPLY_TIMEOUT, Received};

/// Slots in one batch: enough that requests of several packets meet.
const SLOTS_PER_BATCH_MAX: usize = 60;
/// Commands that share a sentinel.
const COMMANDS_PER_SLOT_MAX: usize = 8;
/// How long a server may take to close a connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// How the replies to one slot compare.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// No difference.
    Same,
    /// A difference of this rule.
    Explained(&'static Rule),
    /// A difference no rule allows.
    Unexplained(Difference),
}

/// Two replies that should have been the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What was sent to the left server.
    pub request: Vec<u8>,
    /// What the left server answered.
    pub left: Vec<u8>,
    /// What the right server answered.
    pub right: Vec<u8>,
}

/// A pair of servers with a connection to each.
#[derive(Debug)]
pub struct Session<'a> {
    left: &'a Target,
    right: &'a Target,
    connections: Option<(Connection, Connection)>,
    tokens: Tokens,
}

impl<'a> Session<'a> {
    /// A session on two servers that hold the same items.
    #[must_use]
    pub fn new(left: &'a Target, right: &'a Target) -> Self {
        Self { left, right, connections: None, tokens: Tokens::default() }
    }

    /// Who is compared.
    #[must_use]
    pub fn pair(&self) -> Pair {
        Pair { left: self.left.identity(), right: self.right.identity() }
    }

    /// Empties both servers and moves their tokens away from the small numbers that commands use
    /// as tokens nobody has.
    ///
    /// # Errors
    /// A connection failed.
    pub fn reset(&mut self) -> io::Result<()> {
        self.connections = None;
        self.tokens = Tokens::default();
        let mut slot = Slot::default();
        slot.commands.push(Command::new(b"set z 0 0 1\r\nz\r\n".repeat(10)));
        slot.commands.push(Command::new("flush_all\r\nverbosity 0\r\n"));
        self.play(&[slot]).map(drop)
    }

    /// Makes the next batch: commands with known differences alone, the others a few per slot.
    pub fn next_batch(&self, generator: &mut Generator) -> Vec<Slot> {
        let mut slots: Vec<Slot> = Vec::new();
        let count = generator.random.usize(1..=SLOTS_PER_BATCH_MAX);
        let mut room = 0;
        while slots.len() < count {
            let mut command = generator.command();
            let rules = self.rules(&command);
            if rules.iter().any(|rule| rule.state == State::MayDiffer) {
                push_repair(&mut command);
            }
            command.traits.isolated |= !rules.is_empty();
            let closes = command.traits.closes;
            match slots.last_mut() {
                Some(slot) if 0 < room && slot.accepts(&command) => {
                    slot.commands.push(command);
                    room -= 1;
                }
                _ => {
                    slots.push(Slot { commands: vec![command] });
                    room = generator.random.usize(..COMMANDS_PER_SLOT_MAX);
                }
            }
            if closes {
                break;
            }
        }
        slots
    }

    /// Rules that a command must be kept apart for.
    fn rules(&self, command: &Command) -> Vec<&'static Rule> {
        let mut bytes = Vec::new();
        command.render(&self.tokens, Side::Left, &mut bytes);
        let mut rules = self.pair().rules(&Request::new(&bytes));
        rules.retain(|rule| rule.state != State::Lost);
        rules
    }

    /// Sends slots to both servers, all at once except for a last one that closes the connection.
    ///
    /// # Errors
    /// A connection failed for another reason than being closed by the server.
    pub fn play(&mut self, slots: &[Slot]) -> io::Result<Vec<Outcome>> {
        let (open, closing) = match slots.split_last() {
            Some((last, open)) if last.closes() => (open, Some(last)),
            _ => (slots, None),
        };
        let mut outcomes = Vec::with_capacity(slots.len());
        if !open.is_empty() {
            outcomes = self.play_open(open)?;
        }
        if let Some(slot) = closing {
            outcomes.push(self.play_closing(slot)?);
        }
        Ok(outcomes)
    }

    fn play_open(&mut self, slots: &[Slot]) -> io::Result<Vec<Outcome>> {
        let requests = [Side::Left, Side::Right].map(|side| {
            let render = |slot| render_slot(slot, &self.tokens, side);
            slots.iter().map(render).collect::<Vec<_>>()
        });
        let sentinels = slots.iter().map(Slot::sentinels).sum();
        let [left, right] = self.exchange(&requests, sentinels, REPLY_TIMEOUT)?;
        let left = split_slots(&left, slots);
        let right = split_slots(&right, slots);
        let [requests, _] = requests;
        let asked = slots.iter().zip(requests);
        let judged = asked
            .zip(left.into_iter().zip(right))
            .map(|((slot, request), (left, right))| self.judge(slot, request, &left, &right));
        Ok(judged.collect())
    }

    fn play_closing(&mut self, slot: &Slot) -> io::Result<Outcome> {
        let requests = [Side::Left, Side::Right].map(|side| {
            let mut bytes = Vec::new();
            for command in &slot.commands {
                command.render(&self.tokens, side, &mut bytes);
            }
            vec![bytes]
        });
        let [left, right] = self.exchange(&requests, usize::MAX, CLOSE_TIMEOUT)?;
        self.connections = None;
        let [request, _] = requests;
        Ok(self.judge(slot, request.concat(), &mark_end(&left), &mark_end(&right)))
    }

    /// Both servers work at the same time.
    fn exchange(
        &mut self,
        requests: &[Vec<Vec<u8>>; 2],
        sentinels: usize,
        timeout: Duration,
    ) -> io::Result<[Received; 2]> {
        if self.connections.is_none() {
            self.connections = Some((self.left.connect()?, self.right.connect()?));
        }
        let Some((left, right)) = &mut self.connections else {
            return Err(io::Error::other("no connection"));
        };
        let ask = |connection: &mut Connection, slots: &[Vec<u8>]| {
            connection.exchange(&[&slots.concat()], sentinels, timeout)
        };
        let [left_requests, right_requests] = requests;
        let (left, right) = thread::scope(|scope| {
            let left = scope.spawn(|| ask(left, left_requests));
            let right = ask(right, right_requests);
            (left.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked"))), right)
        });
        let (left, right) = (left?, right?);
        if left.end != End::Complete || right.end != End::Complete {
            self.connections = None;
        }
        Ok([left, right])
    }

    fn judge(&mut self, slot: &Slot, request: Vec<u8>, left: &[u8], right: &[u8]) -> Outcome {
        if same(left, right, slot.only_key(), &mut self.tokens) {
            return Outcome::Same;
        }
        match self.explain(slot, left, right) {
            Some(rule) => Outcome::Explained(rule),
            None => Outcome::Unexplained(Difference {
                left: left.to_vec(),
                right: right.to_vec(),
                request,
            }),
        }
    }

    /// The first rule that allows these replies. A command with a known difference is alone in its
    /// slot; only where nothing in the request tells, it may be any command of the slot.
    fn explain(&self, slot: &Slot, left: &[u8], right: &[u8]) -> Option<&'static Rule> {
        let pair = self.pair();
        let shared = common_lines(left, right);
        slot.commands.iter().find_map(|command| {
            let mut bytes = Vec::new();
            command.render(&self.tokens, Side::Left, &mut bytes);
            let request = Request::new(&bytes);
            let accepts = |rule: &&Rule| match rule.state {
                State::Lost => rule.accepts(pair, &request, &left[shared..], &right[shared..]),
                State::Same | State::MayDiffer => rule.accepts(pair, &request, left, right),
            };
            pair.rules(&request).into_iter().find(accepts)
        })
    }
}

/// Length of the lines that both replies start with.
#[must_use]
pub fn common_lines(left: &[u8], right: &[u8]) -> usize {
    let same = left.iter().zip(right).take_while(|(left, right)| left == right).count();
    left[..same].iter().rposition(|&byte| byte == b'\n').map_or(0, |index| index + 1)
}

/// Removes the items that the servers may disagree about, without a reply.
fn push_repair(command: &mut Command) {
    for key in command.keys.clone() {
        match encoded(&key) {
            // No line can hold this key. An item that is dead at once is as good as none, and a
            // quiet md would still answer NF.
            Some(encoded) if key.contains(&b' ') => {
                command.push(format!("ms {encoded} 0 b T-1 q\r\n\r\n"));
            }
            _ => command.push([b"delete ", key.as_slice(), b" noreply\r\n"].concat()),
        }
    }
}

fn render_slot(slot: &Slot, tokens: &Tokens, side: Side) -> Vec<u8> {
    let mut bytes = Vec::new();
    for command in &slot.commands {
        command.render(tokens, side, &mut bytes);
    }
    bytes.extend_from_slice(SENTINEL_REQUEST);
    bytes
}

/// Cuts a stream of replies after the sentinels of each slot. What a closed connection did not
/// answer shows as [`mark_end`] in the first slot it concerns.
fn split_slots(received: &Received, slots: &[Slot]) -> Vec<Vec<u8>> {
    let mut rest = received.bytes.as_slice();
    let mut replies = Vec::with_capacity(slots.len());
    for slot in slots {
        let length = sentinels_length(rest, slot.sentinels());
        let Some(length) = length else {
            let received = Received { bytes: rest.to_vec(), end: received.end };
            replies.push(mark_end(&received));
            rest = &[];
            continue;
        };
        let (own, after) = rest.split_at(length);
        replies.push(own.strip_suffix(SENTINEL_REPLY).unwrap_or(own).to_vec());
        rest = after;
    }
    replies
}

/// Length of the start of `stream` that holds `count` sentinels; `None` if it holds fewer.
fn sentinels_length(stream: &[u8], count: usize) -> Option<usize> {
    let mut framer = Framer::default();
    framer.length_until(stream, count)
}

/// Makes the end of a connection visible in the comparison.
fn mark_end(received: &Received) -> Vec<u8> {
    let mut bytes = received.bytes.clone();
    bytes.extend(format!("<{:?}>", received.end).bytes());
    bytes
}
