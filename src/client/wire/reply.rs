//! Replies from bytes, a piece at a time. Owns the buffer of what has arrived; no I/O.
//!
//! Anything that is not a well-formed reply of the kind that was asked for is a fault, and after a
//! fault the connection must be closed: what follows on it cannot be told apart any more.

use crate::client::wire::command::Expect;
use crate::client::wire::{frame, listing};
use crate::limits::KEY_BYTES_MAX;
use memchr::memchr;
use std::fmt;

/// Longest reply line: a meta reply with all its flags, or a statistic.
const LINE_BYTES_MAX: usize = 8 << 10;

/// What a fresh buffer holds, and what a large one shrinks to.
const BUFFER_BYTES: usize = 16 << 10;

/// Room that each read is offered at least.
const READ_BYTES_MIN: usize = 4 << 10;

/// How far the buffer grows ahead of what has arrived.
const GROWTH_BYTES_MAX: usize = 1 << 20;

/// Largest value that is believed; servers go up to a gibibyte.
pub(super) const VALUE_BYTES_MAX: usize = 1 << 30;

/// A reply that refers to the buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::client) enum Reply<'a> {
    Stored,
    NotStored,
    Exists,
    NotFound,
    Deleted,
    Touched,
    Ok,
    Number(u64),
    Version(&'a str),
    Value(Item<'a>),
    /// The end of values or of statistics.
    End,
    Stat(&'a str, &'a str),
    Config(&'a [u8]),
    /// A key of a list, with odd bytes as `%` and two digits.
    Key(&'a [u8]),
    /// A meta command was carried out and there is no more to say than its flags.
    Done(Item<'a>),
    /// The server refuses, and the connection is still good.
    Refused(&'a str),
}

/// An item as a reply shows it. What was not asked for is at its default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::client) struct Item<'a> {
    /// As classic replies show it.
    pub key: &'a [u8],
    pub data: &'a [u8],
    pub flags: u32,
    pub token: Option<u64>,
    /// This caller is the one to make the value.
    pub won: bool,
    /// Another caller is.
    pub taken: bool,
    pub stale: bool,
    /// Seconds left; -1 is for ever.
    pub ttl: Option<i64>,
    pub size: Option<u64>,
    pub last_access: Option<u64>,
    pub hit_before: Option<bool>,
}

/// The bytes are no reply to what was asked.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::client) struct Fault(pub String);

type Decoded<'a> = Result<Option<(Reply<'a>, usize)>, Fault>;

/// What has arrived on a connection and was not read yet.
pub(in crate::client) struct Decoder {
    /// All of it is initialised; what counts is `start..end`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes that the reply in the making needs at least.
    wanted: usize,
}

// Values are not for logs.
impl fmt::Debug for Decoder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Decoder({} bytes)", self.end - self.start)
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self { buffer: vec![0; BUFFER_BYTES], start: 0, end: 0, wanted: 0 }
    }
}

impl Decoder {
    /// Room for the next read.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        let held = self.end - self.start;
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, held);
        }
        // A length is believed as its bytes arrive.
        let size = self.wanted.min(2 * held + GROWTH_BYTES_MAX);
        let size = size.max(held + READ_BYTES_MIN).max(BUFFER_BYTES);
        if self.buffer.len() < size {
            self.buffer.resize(size, 0);
        }
        &mut self.buffer[held..]
    }

    /// So many bytes were read into the room.
    pub(crate) fn arrived(&mut self, count: usize) {
        self.end += count;
    }

    /// Nothing is left: the next reply starts with the next byte.
    pub(crate) fn is_empty(&mut self) -> bool {
        if self.start != self.end {
            return false;
        }
        if self.buffer.len() > 4 * BUFFER_BYTES {
            self.buffer = vec![0; BUFFER_BYTES];
        }
        (self.start, self.end, self.wanted) = (0, 0, 0);
        true
    }

    /// The next reply, or the next part of one made of many; `None` needs more bytes.
    pub(crate) fn next(&mut self, expect: Expect) -> Result<Option<Reply<'_>>, Fault> {
        Ok(self.take(expect)?.map(|(reply, _)| reply))
    }

    /// The same as bytes, for somebody who reads them later.
    #[cfg(feature = "tokio")]
    pub(crate) fn next_part(&mut self, expect: Expect) -> Result<Option<Part<'_>>, Fault> {
        Ok(self.take(expect)?.map(|(reply, bytes)| {
            let goes_on = matches!(
                (expect, &reply),
                (Expect::Values, Reply::Value(_))
                    | (Expect::Stats | Expect::Frame { .. }, Reply::Stat(..))
                    | (Expect::Keys, Reply::Key(_) | Reply::Ok)
            );
            let key = match reply {
                Reply::Value(item) if expect == Expect::Values => Some(item.key),
                _ => None,
            };
            Part { bytes, ends: !goes_on, key }
        }))
    }

    fn take(&mut self, expect: Expect) -> Result<Option<(Reply<'_>, &[u8])>, Fault> {
        let bytes = &self.buffer[self.start..self.end];
        match parse(bytes, expect)? {
            Parsed::Part { reply, length } => {
                self.start += length;
                self.wanted = 0;
                Ok(Some((reply, &bytes[..length])))
            }
            Parsed::Wanting(wanted) => {
                self.wanted = wanted;
                Ok(None)
            }
        }
    }
}

#[cfg(feature = "tokio")]
impl From<Vec<u8>> for Decoder {
    /// Bytes that have all arrived.
    fn from(buffer: Vec<u8>) -> Self {
        Self { end: buffer.len(), buffer, start: 0, wanted: 0 }
    }
}

/// A reply, or a part of one, as it arrived.
#[cfg(feature = "tokio")]
#[derive(Debug, PartialEq, Eq)]
pub(in crate::client) struct Part<'a> {
    pub bytes: &'a [u8],
    /// Nothing more belongs to this reply.
    pub ends: bool,
    /// Of a value that names its key.
    pub key: Option<&'a [u8]>,
}

enum Parsed<'a> {
    Part {
        reply: Reply<'a>,
        length: usize,
    },
    /// So many bytes are needed at least; 0 is not known.
    Wanting(usize),
}

fn parse(bytes: &[u8], expect: Expect) -> Result<Parsed<'_>, Fault> {
    if let Expect::Frame { opcode, opaque } = expect {
        return Ok(match frame::parse(bytes, opcode, opaque)? {
            Ok((reply, length)) => Parsed::Part { reply, length },
            Err(wanted) => Parsed::Wanting(wanted),
        });
    }
    let Some(line_end) = memchr(b'\n', bytes) else {
        if bytes.len() > LINE_BYTES_MAX {
            return Err(Fault("a line without end".into()));
        }
        return Ok(Parsed::Wanting(0));
    };
    let line = match bytes[..line_end].strip_suffix(b"\r") {
        Some(line) => line,
        // The lines of a list end so, all but the last.
        None if expect == Expect::Keys => &bytes[..line_end],
        None => {
            return Err(Fault(format!("a line end without CR: {}", shown(&bytes[..line_end]))));
        }
    };
    let behind = &bytes[line_end + 1..];
    let decoded = match expect {
        Expect::Values => values(line, behind),
        Expect::Line => Ok(Some((status(line)?, 0))),
        Expect::Meta { opaque } => meta(line, behind, opaque),
        Expect::Stats => Ok(Some((stat(line)?, 0))),
        Expect::Config => config(line, behind),
        // (Frames were dealt with above.)
        Expect::Keys | Expect::Frame { .. } => Ok(Some((listing::parse(line)?, 0))),
    };
    Ok(match decoded? {
        Some((reply, data_bytes)) => Parsed::Part { reply, length: line_end + 1 + data_bytes },
        None => Parsed::Wanting(line_end + 1 + announced(line).unwrap_or(0) + 2),
    })
}

/// The length that a line announces, to make room for it at once.
fn announced(line: &[u8]) -> Option<usize> {
    let mut words = words(line);
    let length = match words.next()? {
        b"VA" => words.next(),
        _ => words.nth(2),
    };
    number(length?).and_then(|bytes| usize::try_from(bytes).ok())
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b' ').filter(|word| !word.is_empty())
}

fn number(word: &[u8]) -> Option<u64> {
    crate::protocol::number::strict_u64(word)
}

fn shown(line: &[u8]) -> String {
    String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned()
}

fn unexpected(line: &[u8]) -> Fault {
    Fault(shown(line))
}

fn text(line: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(line).map_err(|_| unexpected(line))
}

/// A data block of this many bytes and its line end; `None` is not all there.
fn block(behind: &[u8], length: u64) -> Result<Option<&[u8]>, Fault> {
    let length = usize::try_from(length).ok().filter(|length| *length <= VALUE_BYTES_MAX);
    let length = length.ok_or_else(|| Fault("a value of more than a gibibyte".into()))?;
    match behind.get(length..length + 2) {
        Some(b"\r\n") => Ok(Some(&behind[..length])),
        Some(_) => Err(Fault("a value that does not end where its length says".into())),
        None => Ok(None),
    }
}

fn values<'a>(line: &'a [u8], behind: &'a [u8]) -> Decoded<'a> {
    if line == b"END" {
        return Ok(Some((Reply::End, 0)));
    }
    let Some(rest) = line.strip_prefix(b"VALUE ") else {
        return refusal(line).map(|reply| Some((reply, 0)));
    };
    let mut words = words(rest);
    let next_number = |words: &mut dyn Iterator<Item = &'a [u8]>| words.next().and_then(number);
    let key = words.next().filter(|key| key.len() <= KEY_BYTES_MAX);
    let flags = next_number(&mut words).and_then(|flags| u32::try_from(flags).ok());
    let length = next_number(&mut words);
    let (Some(key), Some(flags), Some(length)) = (key, flags, length) else {
        return Err(unexpected(line));
    };
    let token = match words.next() {
        Some(word) => Some(number(word).ok_or_else(|| unexpected(line))?),
        None => None,
    };
    if words.next().is_some() {
        return Err(unexpected(line));
    }
    let Some(data) = block(behind, length)? else { return Ok(None) };
    let item = Item { key, data, flags, token, ..Item::default() };
    Ok(Some((Reply::Value(item), data.len() + 2)))
}

fn status(line: &[u8]) -> Result<Reply<'_>, Fault> {
    Ok(match line {
        b"STORED" => Reply::Stored,
        b"NOT_STORED" => Reply::NotStored,
        b"EXISTS" => Reply::Exists,
        b"NOT_FOUND" => Reply::NotFound,
        b"DELETED" => Reply::Deleted,
        b"TOUCHED" => Reply::Touched,
        b"OK" => Reply::Ok,
        _ => {
            if let Some(version) = line.strip_prefix(b"VERSION ") {
                return Ok(Reply::Version(text(version)?));
            }
            // A number that was decremented may end in blanks.
            match number(line.trim_ascii_end()) {
                Some(number) => Reply::Number(number),
                None => refusal(line)?,
            }
        }
    })
}

/// Refusals after which the next reply is known to start with the next line.
fn refusal(line: &[u8]) -> Result<Reply<'_>, Fault> {
    const IN_STEP: [&[u8]; 5] = [
        b"SERVER_ERROR object too large for cache",
        b"SERVER_ERROR out of memory",
        b"CLIENT_ERROR cannot increment or decrement non-numeric value",
        b"CLIENT_ERROR invalid exptime argument",
        b"CLIENT_ERROR flush_all not allowed",
    ];
    match IN_STEP.iter().any(|known| line.starts_with(known)) {
        true => Ok(Reply::Refused(text(line)?)),
        false => Err(unexpected(line)),
    }
}

fn stat(line: &[u8]) -> Result<Reply<'_>, Fault> {
    match line {
        b"END" | b"RESET" | b"OK" => Ok(Reply::End),
        // One line for one line: statistics that this server does not have.
        b"ERROR" => Ok(Reply::Refused("ERROR")),
        _ => {
            let (word, rest) = text(line)?.split_once(' ').ok_or_else(|| unexpected(line))?;
            match word {
                "STAT" | "PREFIX" | "ITEM" => {
                    let (name, value) = rest.split_once(' ').unwrap_or((rest, ""));
                    Ok(Reply::Stat(name, value))
                }
                _ => Err(unexpected(line)),
            }
        }
    }
}

fn config<'a>(line: &'a [u8], behind: &'a [u8]) -> Decoded<'a> {
    let Some(rest) = line.strip_prefix(b"CONFIG cluster ") else { return Err(unexpected(line)) };
    let length = words(rest).nth(1).and_then(number).ok_or_else(|| unexpected(line))?;
    let Some(data) = block(behind, length)? else { return Ok(None) };
    let taken = data.len() + 2;
    match behind[taken..].strip_prefix(b"END\r\n") {
        Some(_) => Ok(Some((Reply::Config(data), taken + 5))),
        None if b"END\r\n".starts_with(&behind[taken..]) => Ok(None),
        None => Err(Fault("no END behind the configuration".into())),
    }
}

fn meta<'a>(line: &'a [u8], behind: &'a [u8], opaque: u32) -> Decoded<'a> {
    let mut flags = words(line);
    let code = flags.next().unwrap_or_default();
    let length = match code {
        b"VA" => Some(flags.next().and_then(number).ok_or_else(|| unexpected(line))?),
        b"HD" | b"EN" | b"NF" | b"NS" | b"EX" => None,
        _ => return refusal(line).map(|reply| Some((reply, 0))),
    };
    let mut item = Item::default();
    let mut numbered = false;
    for flag in flags {
        let (letter, argument) = (flag[0], &flag[1..]);
        let value = || number(argument).ok_or_else(|| unexpected(line));
        match letter {
            b'O' => numbered = number(argument) == Some(opaque.into()),
            b'W' => item.won = true,
            b'Z' => item.taken = true,
            b'X' => item.stale = true,
            b'c' => item.token = Some(value()?),
            b'f' => item.flags = u32::try_from(value()?).map_err(|_| unexpected(line))?,
            b't' if argument == b"-1" => item.ttl = Some(-1),
            b't' => item.ttl = i64::try_from(value()?).ok(),
            b's' => item.size = Some(value()?),
            b'l' => item.last_access = Some(value()?),
            b'h' => item.hit_before = Some(argument == b"1"),
            _ => {}
        }
    }
    // memcached answers a miss of mg without the flags in some versions.
    if !numbered && line != b"EN" {
        return Err(Fault(format!("the reply of another request: {}", shown(line))));
    }
    let reply = match code {
        b"HD" => Reply::Done(item),
        b"EN" | b"NF" => Reply::NotFound,
        b"NS" => Reply::NotStored,
        b"EX" => Reply::Exists,
        _ => {
            let Some(data) = block(behind, length.unwrap_or(0))? else { return Ok(None) };
            let taken = data.len() + 2;
            return Ok(Some((Reply::Value(Item { data, ..item }), taken)));
        }
    };
    Ok(Some((reply, 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes bytes that arrive in pieces of this size, and shows each reply.
    fn decode(bytes: &[u8], piece_bytes: usize, expect: Expect) -> Vec<String> {
        let mut decoder = Decoder::default();
        let mut seen = Vec::new();
        for piece in bytes.chunks(piece_bytes) {
            let room = decoder.room();
            room[..piece.len()].copy_from_slice(piece);
            decoder.arrived(piece.len());
            loop {
                match decoder.next(expect) {
                    Ok(Some(reply)) => seen.push(format!("{reply:?}")),
                    Ok(None) => break,
                    Err(fault) => {
                        seen.push(format!("{fault:?}"));
                        return seen;
                    }
                }
            }
        }
        seen
    }

    #[test]
    fn replies_arrive_in_any_pieces() {
        let meta = Expect::Meta { opaque: 7 };
        for (bytes, expect, count) in [
            (&b"VALUE k 3 2\r\nab\r\nVALUE l 0 0 9\r\n\r\nEND\r\n"[..], Expect::Values, 3),
            (b"STORED\r\nNOT_STORED\r\n12  \r\nVERSION 1.6.1\r\n", Expect::Line, 4),
            (b"SERVER_ERROR object too large for cache\r\nSTORED\r\n", Expect::Line, 2),
            (b"VA 2 b O7 f1 c9 W\r\n\r\n\r\nHD O7 t-1 s3\r\nEN\r\n", meta, 3),
            (b"STAT a b c\r\nEND\r\nERROR\r\n", Expect::Stats, 3),
            (b"CONFIG cluster 0 4\r\n1\na|\r\nEND\r\n", Expect::Config, 1),
            (b"OK\r\nkey=a exp=-1\nkey=b%20c exp=5\r\nEND\r\n", Expect::Keys, 4),
        ] {
            let whole = decode(bytes, bytes.len(), expect);
            assert_eq!(whole.len(), count, "{whole:?}");
            assert!(whole.iter().all(|reply| !reply.contains("Fault")), "{whole:?}");
            for piece_bytes in 1..bytes.len() {
                assert_eq!(decode(bytes, piece_bytes, expect), whole, "pieces of {piece_bytes}");
            }
        }
    }

    #[test]
    fn what_is_no_reply_is_a_fault() {
        let meta = Expect::Meta { opaque: 7 };
        for (bytes, expect) in [
            (&b"VALUE k 3 2\r\nabc\r\n"[..], Expect::Values),
            (b"VALUE k 3\r\n", Expect::Values),
            (b"VALUE k -1 2\r\nab\r\n", Expect::Values),
            (b"VALUE k 0 9999999999\r\n", Expect::Values),
            (b"STORED\r\n", Expect::Values),
            (b"END\n", Expect::Values),
            (b"END\r\n", Expect::Line),
            (b"ERROR\r\n", Expect::Line),
            (b"CLIENT_ERROR bad data chunk\r\n", Expect::Line),
            (b"HD O8\r\n", meta),
            (b"HD\r\n", meta),
            (b"STORED\r\n", meta),
            (b"VA x O7\r\n", meta),
            (b"\r\n", Expect::Line),
            (&[b'a'; 9000], Expect::Line),
        ] {
            let seen = decode(bytes, bytes.len(), expect);
            assert!(seen[0].contains("Fault"), "{seen:?}");
        }
    }

    #[test]
    fn a_large_value_gets_its_room_at_once() {
        let mut decoder = Decoder::default();
        let head = b"VALUE k 0 1000000\r\n";
        decoder.room()[..head.len()].copy_from_slice(head);
        decoder.arrived(head.len());
        assert_eq!(decoder.next(Expect::Values), Ok(None));
        assert!(decoder.room().len() >= 1_000_000);
    }
}
