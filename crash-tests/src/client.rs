//! A writer's connection. Owns the socket: sending batches of mutations, noting each reply with
//! the time it was received, and reading everything back. Judges nothing.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::model::{Dialect, Observed, Reply};
use crate::stream::{Stream, outcome};
use crate::wire::{Parsed, normalize};

/// A reply that takes longer than this is a hang.
pub(crate) const REPLY_TIME_MAX: Duration = Duration::from_secs(10);
const READ_BATCH: usize = 64;
/// Between mutations while the server refuses them.
const REFUSED_PAUSE: Duration = Duration::from_millis(20);

/// Unix seconds.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A connection with what was received beyond the last reply.
#[derive(Debug)]
pub(crate) struct Connection {
    dialect: Dialect,
    socket: TcpStream,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were taken.
    taken: usize,
    /// When the newest bytes came.
    received: Instant,
}

impl Connection {
    /// Connects; replies may take `REPLY_TIME_MAX`.
    pub(crate) fn open(address: SocketAddr, dialect: Dialect) -> io::Result<Self> {
        Self::open_patient(address, dialect, REPLY_TIME_MAX)
    }

    /// Connects with another limit for replies.
    pub(crate) fn open_patient(
        addr: SocketAddr,
        dialect: Dialect,
        limit: Duration,
    ) -> io::Result<Self> {
        let socket = TcpStream::connect_timeout(&addr, limit)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(limit))?;
        socket.set_write_timeout(Some(limit))?;
        Ok(Self { dialect, socket, buffer: Vec::new(), taken: 0, received: Instant::now() })
    }

    /// Sends a request.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)
    }

    /// Receives what `parse` reads.
    pub(crate) fn receive<T>(&mut self, parse: impl Fn(&[u8]) -> Parsed<T>) -> io::Result<T> {
        loop {
            if let Some((value, used)) = parse(&self.buffer[self.taken..]) {
                self.taken += used;
                return Ok(value);
            }
            self.buffer.drain(..self.taken);
            self.taken = 0;
            let mut chunk = [0; 65536];
            let count = self.socket.read(&mut chunk)?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.received = Instant::now();
            self.buffer.extend_from_slice(&chunk[..count]);
        }
    }

    /// One request that is answered by one line.
    pub(crate) fn ask(&mut self, request: &[u8]) -> io::Result<Reply> {
        self.send(request)?;
        let dialect = self.dialect;
        self.receive(|bytes| dialect.parse_reply(bytes))
    }

    /// Lines up to one that starts with `end`, as names and values.
    pub(crate) fn stats(&mut self, request: &[u8], end: &str) -> io::Result<Vec<(String, String)>> {
        self.send(request)?;
        let mut found = Vec::new();
        loop {
            let line = self.receive(|bytes| {
                let at = bytes.iter().position(|&byte| byte == b'\n')?;
                Some((String::from_utf8_lossy(&bytes[..at]).trim_end().to_owned(), at + 1))
            })?;
            if line.starts_with(end) || line.contains("ERROR") {
                return Ok(found);
            }
            let line = line.strip_prefix("STAT ").unwrap_or(&line);
            if let Some((name, value)) = line.split_once([' ', ':']) {
                found.push((name.to_owned(), value.to_owned()));
            }
        }
    }

    /// Reads keys of a stream back, in their order.
    pub(crate) fn read_back(&mut self, stream: &Stream) -> io::Result<Vec<Option<Observed>>> {
        let dialect = self.dialect;
        let mut found = Vec::with_capacity(stream.keys.len());
        for keys in stream.keys.chunks(READ_BATCH) {
            let mut request = Vec::new();
            for key in keys {
                dialect.write_read(key, &mut request);
            }
            self.send(&request)?;
            for _ in keys {
                let observed = self.receive(|bytes| dialect.parse_read(bytes))?;
                found.push(observed.map_err(io::Error::other)?);
            }
        }
        Ok(found)
    }
}

/// How a writer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Told to stop; every reply has been received.
    Stopped,
    /// The connection closed, or none could be made.
    Closed,
    /// A reply was missing for too long.
    Hung,
}

/// What a writer saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub end: Option<End>,
    pub refused: u64,
    /// The first refusal or the first reply that cannot be read.
    pub first_refusal: Option<String>,
    pub garbage: Option<String>,
}

/// How a writer sends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Mutations in one batch, at most.
    pub batch_max: usize,
    /// Between batches.
    pub pause: Duration,
}

/// Sends mutations until told to stop or the connection ends.
pub(crate) fn drive(
    stream: &mut Stream,
    address: SocketAddr,
    stop: &AtomicBool,
    pace: Pace,
) -> Seen {
    let mut seen = Seen::default();
    let end = match Connection::open(address, stream.dialect) {
        Ok(mut connection) => loop {
            if stop.load(Ordering::Relaxed) {
                break End::Stopped;
            }
            let refused_before = seen.refused;
            if let Err(error) = batch(stream, &mut connection, pace.batch_max, &mut seen) {
                break end_of(&error);
            }
            if seen.garbage.is_some() {
                break End::Closed;
            }
            let refused = seen.refused > refused_before;
            let pause = if refused { pace.pause.max(REFUSED_PAUSE) } else { pace.pause };
            if !pause.is_zero() {
                std::thread::sleep(pause);
            }
        },
        Err(error) => end_of(&error),
    };
    seen.end = Some(end);
    seen
}

/// Whether an error of the socket is a hang or an end.
pub(crate) fn end_of(error: &io::Error) -> End {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => End::Hung,
        _ => End::Closed,
    }
}

/// Sends a batch of random size and receives its replies.
fn batch(
    stream: &mut Stream,
    connection: &mut Connection,
    batch_max: usize,
    seen: &mut Seen,
) -> io::Result<()> {
    let now = unix_now();
    let mut request = Vec::new();
    let mut tickets = Vec::new();
    for _ in 0..stream.batch_size(batch_max) {
        let (ticket, op) = stream.issue(now);
        let op = op.clone();
        stream.dialect.write(&stream.keys[ticket.0], &op, &mut request);
        tickets.push((ticket, op));
    }
    connection.send(&request)?;
    settle_all(stream, connection, tickets, seen)
}

fn settle_all(
    stream: &mut Stream,
    connection: &mut Connection,
    tickets: Vec<(crate::stream::Ticket, crate::model::Op)>,
    seen: &mut Seen,
) -> io::Result<()> {
    let dialect = stream.dialect;
    for (ticket, op) in tickets {
        let reply = connection.receive(|bytes| dialect.parse_reply(bytes))?;
        match &reply {
            Reply::Refused(why) => {
                seen.refused += 1;
                seen.first_refusal.get_or_insert_with(|| why.clone());
            }
            Reply::Garbage(line) => {
                seen.garbage.get_or_insert_with(|| line.clone());
            }
            _ => {}
        }
        let reply = normalize(dialect, &op, reply);
        stream.settle(ticket, outcome(reply, connection.received));
    }
    Ok(())
}

/// Sets every key of a stream once.
pub(crate) fn fill(stream: &mut Stream, connection: &mut Connection) -> io::Result<Seen> {
    let mut seen = Seen::default();
    for first in (0..stream.keys.len()).step_by(READ_BATCH) {
        let now = unix_now();
        let mut request = Vec::new();
        let mut tickets = Vec::new();
        for number in first..(first + READ_BATCH).min(stream.keys.len()) {
            let (ticket, op) = stream.issue_set(number, now);
            let op = op.clone();
            stream.dialect.write(&stream.keys[number], &op, &mut request);
            tickets.push((ticket, op));
        }
        connection.send(&request)?;
        settle_all(stream, connection, tickets, &mut seen)?;
    }
    Ok(seen)
}
