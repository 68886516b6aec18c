//! Commands on one key take effect one at a time, whichever workers execute them.
//!
//! Goal: what clients of several workers see of a key can be explained by one order of their
//! commands that keeps to real time (linearizability: Herlihy and Wing, TOPLAS 1990), and commands
//! of one connection on one key take effect in their order. Method: many connections, spread over
//! the workers, send small pipelines of commands on a few hot keys; each command is recorded with
//! the times between which it took effect and what it answered. For each key a search for such an
//! order (Wing and Gong, JPDC 1993; with the states already met remembered, as Lowe does) decides.
//! The checker itself is checked on histories that no order explains.

#![cfg(feature = "server")]

mod support;

use distcache::server::Server;
use distcache::server::config::Config;
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Barrier;
use std::time::{Duration, Instant};

const CLIENTS: usize = 8;
const KEYS: usize = 2;
const COMMANDS_PER_PIPELINE: usize = 4;
const PIPELINES_PER_ROUND: usize = 2;
const ROUNDS: usize = 150;

/// Commands on one key in one round: each is a bit in the search.
const OPERATIONS_MAX: usize = 128;
const _: () = assert!(CLIENTS * COMMANDS_PER_PIPELINE * PIPELINES_PER_ROUND < OPERATIONS_MAX);

/// A command and what it answered. Values are numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Get(Option<u64>),
    Set(u64),
    Add(u64, bool),
    Increment(Option<u64>),
    Delete(bool),
}

/// What was recorded of a command on one key.
#[derive(Debug, Clone, Copy)]
struct Event {
    client: usize,
    /// Not before this.
    sent: Duration,
    /// Not after this.
    answered: Duration,
    operation: Operation,
}

impl Operation {
    /// What is stored afterwards, if the answer is possible with what was stored before.
    fn apply(self, before: Option<u64>) -> Option<Option<u64>> {
        match self {
            Self::Get(found) => (found == before).then_some(before),
            Self::Set(value) => Some(Some(value)),
            Self::Add(value, stored) if stored => before.is_none().then_some(Some(value)),
            Self::Add(..) => before.is_some().then_some(before),
            Self::Increment(result) => (result == before.map(|value| value + 1)).then_some(result),
            Self::Delete(deleted) => (deleted == before.is_some()).then_some(None),
        }
    }
}

/// Whether some order explains the events of one key, from what was stored before them. They must
/// be in the order in which each client sent its own.
fn is_linearizable(events: &[Event], before: Option<u64>) -> bool {
    let all = (1u128 << events.len()) - 1;
    let (mut stack, mut met) = (vec![(0u128, before)], HashSet::new());
    while let Some((done, state)) = stack.pop() {
        if done == all {
            return true;
        }
        if !met.insert((done, state)) {
            continue;
        }
        let open = || (0..events.len()).filter(|at| done & 1 << at == 0);
        // What was sent after another command was answered comes behind it.
        let first_answer = open().map(|at| events[at].answered).min().unwrap_or_default();
        let mut seen = [false; CLIENTS + 1];
        for at in open() {
            let event = &events[at];
            let is_first_of_client = !std::mem::replace(&mut seen[event.client], true);
            if !is_first_of_client || event.sent > first_answer {
                continue;
            }
            if let Some(after) = event.operation.apply(state) {
                stack.push((done | 1 << at, after));
            }
        }
    }
    false
}

/// Numbers without a pattern (xorshift, Marsaglia 2003), the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

struct Client {
    reader: BufReader<TcpStream>,
    number: usize,
    random: Random,
}

impl Client {
    fn new(address: SocketAddr, number: usize) -> Self {
        let random = Random(0x9e37_79b9_7f4a_7c15 ^ (number as u64 + 1));
        Self { reader: BufReader::new(support::connect(address)), number, random }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("an answer in time");
        line
    }

    fn number(line: &str) -> u64 {
        line.trim_end().parse().expect("a number")
    }

    fn get(&mut self) -> Option<u64> {
        if self.line() == "END\r\n" {
            return None;
        }
        let value = Self::number(&self.line());
        assert_eq!(self.line(), "END\r\n");
        Some(value)
    }

    /// Sends a pipeline and records what came of each command, with its key.
    fn play(&mut self, start: Instant, events: &mut Vec<(usize, Event)>) {
        let plan: Vec<(usize, u64, u64)> = (0..COMMANDS_PER_PIPELINE)
            .map(|_| {
                let key = self.random.below(KEYS as u64) as usize;
                (key, self.random.below(5), self.random.below(1 << 30))
            })
            .collect();
        let text: String = plan
            .iter()
            .map(|(key, verb, value)| match verb {
                0 => format!("get k{key}\r\n"),
                1 => format!("set k{key} 0 0 {}\r\n{value}\r\n", value.to_string().len()),
                2 => format!("add k{key} 0 0 {}\r\n{value}\r\n", value.to_string().len()),
                3 => format!("incr k{key} 1\r\n"),
                _ => format!("delete k{key}\r\n"),
            })
            .collect();
        let sent = start.elapsed();
        self.reader.get_mut().write_all(text.as_bytes()).expect("it takes them");
        for (key, verb, value) in plan {
            let operation = match verb {
                0 => Operation::Get(self.get()),
                1 => {
                    assert_eq!(self.line(), "STORED\r\n");
                    Operation::Set(value)
                }
                2 => Operation::Add(value, self.line() == "STORED\r\n"),
                3 => {
                    let line = self.line();
                    let result = (line != "NOT_FOUND\r\n").then(|| Self::number(&line));
                    Operation::Increment(result)
                }
                _ => Operation::Delete(self.line() == "DELETED\r\n"),
            };
            let (client, answered) = (self.number, start.elapsed());
            events.push((key, Event { client, sent, answered, operation }));
        }
    }

    fn value_of(&mut self, key: usize) -> Option<u64> {
        let asked = format!("get k{key}\r\n");
        self.reader.get_mut().write_all(asked.as_bytes()).expect("it takes it");
        self.get()
    }
}

#[test]
fn commands_on_a_key_take_effect_one_at_a_time() {
    for workers in [2, 4, 8] {
        let config = Config { workers, ..Config::default() };
        let server = Server::start(config).expect("a free port");
        let address = server.addresses()[0];
        let mut clients: Vec<_> = (0..CLIENTS).map(|number| Client::new(address, number)).collect();
        let mut observer = Client::new(address, CLIENTS);
        let start = Instant::now();
        let mut before = [None; KEYS];
        for round in 0..ROUNDS {
            let barrier = Barrier::new(CLIENTS);
            let mut events: Vec<(usize, Event)> = Vec::new();
            std::thread::scope(|scope| {
                let play = |client: &mut Client| {
                    let mut events = Vec::new();
                    barrier.wait();
                    (0..PIPELINES_PER_ROUND).for_each(|_| client.play(start, &mut events));
                    events
                };
                let playing: Vec<_> =
                    clients.iter_mut().map(|client| scope.spawn(move || play(client))).collect();
                for thread in playing {
                    events.extend(thread.join().expect("no client gave up"));
                }
            });
            for (key, before) in before.iter_mut().enumerate() {
                let of_key = events.iter().filter(|(of, _)| *of == key).map(|(_, event)| *event);
                let mut of_key: Vec<Event> = of_key.collect();
                let (sent, after) = (start.elapsed(), observer.value_of(key));
                let (client, answered) = (CLIENTS, start.elapsed());
                of_key.push(Event { client, sent, answered, operation: Operation::Get(after) });
                assert!(
                    is_linearizable(&of_key, *before),
                    "{workers} workers, round {round}, key {key}, from {before:?}: {of_key:#?}"
                );
                *before = after;
            }
        }
    }
}

#[test]
fn the_checker_tells_histories_apart() {
    use Operation::*;
    let event = |client, sent, answered, operation| Event {
        client,
        sent: Duration::from_micros(sent),
        answered: Duration::from_micros(answered),
        operation,
    };
    let cases = [
        // A value that is read while it is stored, and the old one before.
        (
            true,
            vec![event(0, 0, 10, Set(1)), event(1, 1, 9, Get(None)), event(2, 2, 9, Get(Some(1)))],
        ),
        // The old value after the new one was seen.
        (
            false,
            vec![event(0, 0, 10, Set(1)), event(1, 1, 2, Get(Some(1))), event(2, 3, 4, Get(None))],
        ),
        // A change that was answered and is lost.
        (false, vec![event(0, 0, 1, Set(1)), event(1, 2, 3, Get(None))]),
        // Two that both say they were first.
        (false, vec![event(0, 0, 9, Add(1, true)), event(1, 0, 9, Add(2, true))]),
        // Two increments of which one is lost.
        (
            false,
            vec![
                event(0, 0, 1, Set(5)),
                event(1, 2, 9, Increment(Some(6))),
                event(2, 2, 9, Increment(Some(6))),
            ],
        ),
        // One connection's commands in another order than it sent them.
        (false, vec![event(0, 0, 9, Set(1)), event(0, 0, 9, Get(None))]),
        (true, vec![event(0, 0, 9, Set(1)), event(1, 0, 9, Get(None))]),
        (
            true,
            vec![
                event(0, 0, 9, Set(1)),
                event(0, 0, 9, Delete(true)),
                event(1, 0, 9, Get(Some(1))),
            ],
        ),
    ];
    for (expected, events) in cases {
        assert_eq!(is_linearizable(&events, None), expected, "{events:?}");
    }
}
