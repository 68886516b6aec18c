//! Plays a transcript to a server and compares every byte of the replies.
//!
//! Exchanges are grouped into bursts; a burst is sent in one go (cut into pieces if asked) and ends
//! with the sentinel of [`crate::frame`], so an extra reply is found at once and a missing one does
//! not need a time-out.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::chunking::{Cuts, cut};
use super::template::{Captures, Template, escape};
use super::{Ending, Exchange, Expected, ExpectedLine, Step, Transcript};
use crate::frame::{SENTINEL_REPLY, SENTINEL_REQUEST, first_line};
use crate::target::Target;
use crate::wire::{Connection, End, REPLY_TIMEOUT, Received};

/// How long a server that waits for the rest of a request must stay silent.
const PENDING_SILENCE: Duration = Duration::from_millis(30);
/// How long a dump may pause.
const DUMP_SILENCE: Duration = Duration::from_millis(200);

/// How much is sent at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bursts {
    /// One exchange.
    Exchange,
    /// As many exchanges as do not need an earlier reply.
    Longest,
}

/// A reply that was not as expected, or a connection that failed.
#[derive(Debug)]
pub struct Failure {
    place: String,
    message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Plays `transcript` to `target`, which must be fresh and have the transcript's flags.
///
/// # Errors
/// The first difference.
pub fn replay(
    transcript: &Transcript,
    target: &Target,
    bursts: Bursts,
    cuts: Cuts,
) -> Result<(), Failure> {
    let mut player = Player::new(target, cuts);
    let mut burst: Vec<Expectation<'_>> = Vec::new();
    let failed = |line, message| Failure {
        place: format!("{}.txt:{line} against {}", transcript.name, target.identity()),
        message,
    };
    for step in &transcript.steps {
        let next = match step {
            Step::Exchange(exchange) => Expectation::new(exchange, target),
            _ => None,
        };
        let joins =
            next.as_ref().is_some_and(|next| bursts == Bursts::Longest && next.joins(&burst));
        if !joins {
            player.play(&burst).map_err(|(line, message)| failed(line, message))?;
            burst.clear();
        }
        burst.extend(next);
        match step {
            Step::Exchange(_) => {}
            Step::Sleep(duration) => thread::sleep(*duration),
            Step::Connection(name) => name.clone_into(&mut player.connection),
        }
    }
    player.play(&burst).map_err(|(line, message)| failed(line, message))
}

/// Plays `transcript` one exchange at a time and returns what the server answered, as transcript
/// lines: the tool for writing new ones.
///
/// # Errors
/// The connection failed, or a request needs a capture that no expected reply sets.
pub fn record(transcript: &Transcript, target: &Target) -> Result<String, String> {
    let mut player = Player::new(target, Cuts::None);
    let mut text = String::new();
    for step in &transcript.steps {
        match step {
            Step::Sleep(duration) => thread::sleep(*duration),
            Step::Connection(name) => {
                name.clone_into(&mut player.connection);
                text.push_str(&format!("@ {name}\n"));
            }
            Step::Exchange(exchange) => {
                let Some(expectation) = Expectation::new(exchange, target) else { continue };
                let burst = [expectation];
                let received = player.send(&burst).map_err(|(_, message)| message)?;
                for request in &exchange.request {
                    text.push_str(&format!("> {}\n", request.display()));
                }
                let replies = received.bytes.strip_suffix(SENTINEL_REPLY);
                for line in replies.unwrap_or(&received.bytes).split_inclusive(|&it| it == b'\n') {
                    text.push_str(&format!("< {}\n", escape(line)));
                }
                if received.end != End::Complete {
                    text.push_str(&format!("= {:?}\n", received.end));
                }
                // Only for the captures; differences show in the output.
                let _ = player.compare(&burst, &received);
            }
        }
    }
    Ok(text)
}

/// An exchange with what this server must answer.
#[derive(Debug)]
struct Expectation<'a> {
    exchange: &'a Exchange,
    expected: Expected<'a>,
}

impl<'a> Expectation<'a> {
    /// `None` if the exchange is not sent to this server.
    fn new(exchange: &'a Exchange, target: &Target) -> Option<Self> {
        let expected = exchange.expected(target.identity());
        (expected.ending != Ending::Skipped).then_some(Self { exchange, expected })
    }

    /// Whether it can be sent together with the exchanges before it. Closing is kept apart: a reset
    /// may discard replies that are still on their way.
    fn joins(&self, burst: &[Expectation<'_>]) -> bool {
        let all_open = burst.iter().all(|it| it.expected.ending == Ending::Open);
        let learned: HashSet<&str> = burst.iter().flat_map(Expectation::captures).collect();
        let needed = self.exchange.request.iter().flat_map(Template::captures);
        all_open
            && self.expected.ending == Ending::Open
            && needed.into_iter().all(|name| !learned.contains(name))
    }

    fn captures(&self) -> impl Iterator<Item = &str> {
        self.expected.lines.iter().filter_map(|line| line.text).flat_map(Template::captures)
    }

    fn sentinels(&self) -> usize {
        let is_sentinel = |line: &&ExpectedLine<'_>| {
            line.text.is_some_and(|text| text.is_literal(SENTINEL_REPLY))
        };
        self.expected.lines.iter().filter(is_sentinel).count()
    }
}

/// Failure inside a burst: the line of the transcript and the message.
type Difference = (usize, String);

struct Player<'a> {
    target: &'a Target,
    cuts: Cuts,
    connections: HashMap<String, Connection>,
    /// Name of the connection in use.
    connection: String,
    captures: Captures,
}

impl<'a> Player<'a> {
    fn new(target: &'a Target, cuts: Cuts) -> Self {
        Self {
            target,
            cuts,
            connections: HashMap::new(),
            connection: String::new(),
            captures: Captures::new(),
        }
    }

    fn play(&mut self, burst: &[Expectation<'_>]) -> Result<(), Difference> {
        if burst.is_empty() {
            return Ok(());
        }
        let received = self.send(burst)?;
        self.compare(burst, &received)
    }

    fn send(&mut self, burst: &[Expectation<'_>]) -> Result<Received, Difference> {
        let (Some(first), Some(last)) = (burst.first(), burst.last()) else {
            return Ok(Received { bytes: Vec::new(), end: End::Complete });
        };
        let line = first.exchange.line;
        let fails = |error: io::Error| (line, format!("connection failed: {error}"));
        let mut bytes = self.render(burst)?;
        let ending = last.expected.ending;
        let (sentinels, timeout) = match ending {
            Ending::Open => {
                bytes.extend_from_slice(SENTINEL_REQUEST);
                (1 + burst.iter().map(Expectation::sentinels).sum::<usize>(), REPLY_TIMEOUT)
            }
            Ending::Pending => (usize::MAX, PENDING_SILENCE),
            Ending::Apart => (usize::MAX, DUMP_SILENCE),
            Ending::Closed | Ending::Skipped => (usize::MAX, REPLY_TIMEOUT),
        };
        let pieces = cut(&bytes, self.cuts);
        let connection = self.connection().map_err(fails)?;
        let mut received = connection.exchange(&pieces, sentinels, timeout).map_err(fails)?;
        if ending == Ending::Apart && received.end == End::TimedOut {
            let after =
                connection.exchange(&[SENTINEL_REQUEST], 1, REPLY_TIMEOUT).map_err(fails)?;
            received.bytes.extend(after.bytes);
            received.end = after.end;
        }
        if received.end == End::Closed {
            self.connections.remove(&self.connection);
        }
        Ok(received)
    }

    fn connection(&mut self) -> io::Result<&mut Connection> {
        let name = &self.connection;
        if !self.connections.contains_key(name) {
            self.connections.insert(name.clone(), self.target.connect()?);
        }
        self.connections.get_mut(name).ok_or_else(|| io::Error::other("no connection"))
    }

    fn render(&self, burst: &[Expectation<'_>]) -> Result<Vec<u8>, Difference> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let mut bytes = Vec::new();
        for expectation in burst {
            for request in &expectation.exchange.request {
                let rendered = request.render(&self.captures, now);
                bytes.extend(rendered.map_err(|message| (expectation.exchange.line, message))?);
            }
        }
        Ok(bytes)
    }

    fn compare(
        &mut self,
        burst: &[Expectation<'_>],
        received: &Received,
    ) -> Result<(), Difference> {
        let mut rest = received.bytes.as_slice();
        let mut line = 0;
        for expectation in burst {
            line = expectation.exchange.line;
            let lines = &expectation.expected.lines;
            for (index, expected) in lines.iter().enumerate() {
                rest = self
                    .skip_line(expected, lines.get(index + 1), rest)
                    .map_err(|message| (expected.line, message))?;
            }
        }
        let ending = burst.last().map_or(Ending::Open, |last| last.expected.ending);
        let (end, after) = match ending {
            Ending::Open | Ending::Apart => (End::Complete, SENTINEL_REPLY),
            Ending::Closed | Ending::Skipped => (End::Closed, &b""[..]),
            Ending::Pending => (End::TimedOut, &b""[..]),
        };
        if rest != after {
            return Err((line, format!("unexpected reply: {}", escape(rest))));
        }
        if received.end != end {
            return Err((line, format!("expected {end:?}, found {:?}", received.end)));
        }
        Ok(())
    }

    /// Takes one expected line from the front of `received`.
    fn skip_line<'b>(
        &mut self,
        expected: &ExpectedLine<'_>,
        next: Option<&ExpectedLine<'_>>,
        received: &'b [u8],
    ) -> Result<&'b [u8], String> {
        if let Some(text) = expected.text {
            return match text.matches(received, &mut self.captures) {
                Some(length) => Ok(&received[length..]),
                None => Err(format!(
                    "\n    expected: {}\n    received: {}",
                    text.display(),
                    escape(received)
                )),
            };
        }
        let mut rest = received;
        while let Some(line) = first_line(rest) {
            let next = next.and_then(|next| next.text);
            if next.is_some_and(|next| next.matches(rest, &mut self.captures.clone()).is_some()) {
                break;
            }
            rest = &rest[line.len()..];
        }
        Ok(rest)
    }
}
