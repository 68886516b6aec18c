//! The binary protocol's side of the wire: the same commands as frames, and frames as the same
//! replies. No I/O.
//!
//! Spoken to servers that want a login by SASL, since they refuse text. It has no words for what
//! the meta commands can do besides: a command without a frame is refused before it comes here
//! (`check`).

use crate::client::wire::command::{Command, Expect, Mode, ServerCommand};
use crate::client::wire::login::SASL_REFUSAL;
use crate::client::wire::reply::{Fault, Item, Reply, VALUE_BYTES_MAX};
use crate::limits::KEY_BYTES_MAX;
use crate::protocol::binary::{HEADER_BYTES, REPLY_MAGIC, REQUEST_MAGIC, Status};

const GET: u8 = 0x00;
const SET: u8 = 0x01;
const ADD: u8 = 0x02;
const REPLACE: u8 = 0x03;
const DELETE: u8 = 0x04;
const INCREMENT: u8 = 0x05;
const DECREMENT: u8 = 0x06;
const FLUSH: u8 = 0x08;
const NOOP: u8 = 0x0a;
const VERSION: u8 = 0x0b;
const APPEND: u8 = 0x0e;
const PREPEND: u8 = 0x0f;
const STAT: u8 = 0x10;
const TOUCH: u8 = 0x1c;
const GET_AND_TOUCH: u8 = 0x1d;
const SASL_START: u8 = 0x21;

/// The expiry that keeps an incr or decr from making the number.
const NO_NEW_NUMBER: u32 = u32::MAX;

/// There is no expiry in the past but a Unix time that is over. Anything less is a number of
/// seconds from now.
const LONG_AGO: u32 = 60 * 60 * 24 * 30 + 1;

/// A request in parts.
#[derive(Default)]
struct Parts<'a> {
    opcode: u8,
    /// The token that the item must have; 0 is any.
    cas: u64,
    /// Numbers in front of the key.
    extras: Vec<u8>,
    value: &'a [u8],
}

impl<'a> Parts<'a> {
    fn new(opcode: u8) -> Self {
        Self { opcode, ..Self::default() }
    }

    fn of(command: &Command<'a>) -> Option<Self> {
        Some(match *command {
            // Without leases this is the next best: see `operation::lease`.
            Command::Get { .. } | Command::Lease { .. } => Self::new(GET),
            Command::GetAndTouch { exptime } => Self::new(GET_AND_TOUCH).number(expiry(exptime)),
            Command::Touch { exptime } => Self::new(TOUCH).number(expiry(exptime)),
            Command::Store { mode, flags, exptime, data } => {
                let parts = match mode {
                    Mode::Set => Self::new(SET).number(flags).number(expiry(exptime)),
                    Mode::Add => Self::new(ADD).number(flags).number(expiry(exptime)),
                    Mode::Replace => Self::new(REPLACE).number(flags).number(expiry(exptime)),
                    Mode::Cas(token) => {
                        Self::new(SET).number(flags).number(expiry(exptime)).only_over(token)
                    }
                };
                Self { value: data, ..parts }
            }
            Command::Extend { front, data, token } => {
                let parts = Self::new(if front { PREPEND } else { APPEND });
                let parts = Self { value: data, ..parts };
                match token {
                    Some(token) => parts.only_over(token),
                    None => parts,
                }
            }
            Command::Delete => Self::new(DELETE),
            Command::DeleteVersion { token } => Self::new(DELETE).only_over(token),
            Command::Count { up, delta } => Self::count(up, delta, 0, NO_NEW_NUMBER),
            Command::CountFrom { up, delta, initial, exptime } => {
                Self::count(up, delta, initial, expiry(exptime).min(NO_NEW_NUMBER - 1))
            }
            Command::Inspect | Command::Invalidate { .. } => return None,
        })
    }

    fn count(up: bool, delta: u64, initial: u64, expiry: u32) -> Self {
        let mut parts = Self::new(if up { INCREMENT } else { DECREMENT });
        parts.extras.extend_from_slice(&delta.to_be_bytes());
        parts.extras.extend_from_slice(&initial.to_be_bytes());
        parts.number(expiry)
    }

    fn number(mut self, number: u32) -> Self {
        self.extras.extend_from_slice(&number.to_be_bytes());
        self
    }

    /// No item has the token 0, which would mean any item here: it becomes another that none has.
    fn only_over(self, token: u64) -> Self {
        Self { cas: if token == 0 { u64::MAX } else { token }, ..self }
    }

    /// What is too long for its field is longer than any server takes; keys are at most 250 bytes.
    fn write(&self, key: &[u8], opaque: u32, out: &mut Vec<u8>) -> Expect {
        let Self { opcode, cas, extras, value } = self;
        let body_bytes = extras.len() + key.len() + value.len();
        out.reserve(HEADER_BYTES + body_bytes);
        out.extend_from_slice(&[REQUEST_MAGIC, *opcode]);
        out.extend_from_slice(&u16::try_from(key.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend_from_slice(&[u8::try_from(extras.len()).unwrap_or(u8::MAX), 0, 0, 0]);
        out.extend_from_slice(&u32::try_from(body_bytes).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(&opaque.to_be_bytes());
        out.extend_from_slice(&cas.to_be_bytes());
        for part in [extras, key, value] {
            out.extend_from_slice(part);
        }
        Expect::Frame { opcode: *opcode, opaque }
    }
}

/// An expiry as frames have it.
fn expiry(exptime: i64) -> u32 {
    match exptime {
        ..=-1 => LONG_AGO,
        // Later than 2106 is for ever.
        seconds => u32::try_from(seconds).unwrap_or(0),
    }
}

/// Whether a command has a frame.
pub(super) fn has_frame(command: &Command<'_>) -> bool {
    Parts::of(command).is_some()
}

/// Appends the frame of a command that has one. Another becomes a noop: its answer is none to any
/// command.
pub(super) fn write(command: &Command<'_>, key: &[u8], opaque: u32, out: &mut Vec<u8>) -> Expect {
    match Parts::of(command) {
        Some(parts) => parts.write(key, opaque, out),
        None => Parts::new(NOOP).write(b"", opaque, out),
    }
}

/// The same for one that is not about a key.
pub(super) fn write_for_server(
    command: &ServerCommand<'_>,
    opaque: u32,
    out: &mut Vec<u8>,
) -> Expect {
    match *command {
        ServerCommand::Version => Parts::new(VERSION).write(b"", opaque, out),
        ServerCommand::Stats(which) => Parts::new(STAT).write(which.as_bytes(), opaque, out),
        ServerCommand::FlushAll { delay_seconds: 0 } => Parts::new(FLUSH).write(b"", opaque, out),
        ServerCommand::FlushAll { delay_seconds } => {
            Parts::new(FLUSH).number(delay_seconds).write(b"", opaque, out)
        }
        ServerCommand::ConfigCluster | ServerCommand::ListKeys => {
            Parts::new(NOOP).write(b"", opaque, out)
        }
    }
}

/// Appends the one message of a login by PLAIN (RFC 4616).
pub(super) fn write_login(user: &str, password: &str, out: &mut Vec<u8>) -> Expect {
    let message = format!("\0{user}\0{password}");
    Parts { value: message.as_bytes(), ..Parts::new(SASL_START) }.write(b"PLAIN", 0, out)
}

/// A reply and its length; or how many bytes are needed at least.
pub(super) type Framed<'a> = Result<Result<(Reply<'a>, usize), usize>, Fault>;

/// Reads the reply to a request with this opcode and this number.
pub(super) fn parse(bytes: &[u8], opcode: u8, opaque: u32) -> Framed<'_> {
    if bytes.first().is_some_and(|magic| *magic != REPLY_MAGIC) {
        return Err(Fault("not a frame of the binary protocol".into()));
    }
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(Err(HEADER_BYTES)) };
    let [_, found, k0, k1, extras_bytes, _, s0, s1, b0, b1, b2, b3, ..] = *header;
    let [.., o0, o1, o2, o3, c0, c1, c2, c3, c4, c5, c6, c7] = *header;
    let number = u32::from_be_bytes([o0, o1, o2, o3]);
    if (found, number) != (opcode, opaque) {
        let what = format!("opcode {found:#04x}, number {number}");
        return Err(Fault(format!("the reply of another request: {what}")));
    }
    let key_bytes = usize::from(u16::from_be_bytes([k0, k1]));
    let extras_bytes = usize::from(extras_bytes);
    let body_bytes = u32::from_be_bytes([b0, b1, b2, b3]) as usize;
    if key_bytes + extras_bytes > body_bytes || body_bytes > VALUE_BYTES_MAX + KEY_BYTES_MAX {
        return Err(Fault(format!("a frame of impossible lengths: {body_bytes} bytes")));
    }
    let length = HEADER_BYTES + body_bytes;
    let Some(body) = bytes.get(HEADER_BYTES..length) else { return Ok(Err(length)) };
    let (extras, rest) = body.split_at(extras_bytes);
    let (key, value) = rest.split_at(key_bytes);
    let token = u64::from_be_bytes([c0, c1, c2, c3, c4, c5, c6, c7]);
    let status = u16::from_be_bytes([s0, s1]);
    let reply = match status {
        0 => done(opcode, Body { token, extras, key, value })?,
        _ => failed(opcode, status, value)?,
    };
    Ok(Ok((reply, length)))
}

struct Body<'a> {
    token: u64,
    extras: &'a [u8],
    key: &'a [u8],
    value: &'a [u8],
}

fn done(opcode: u8, body: Body<'_>) -> Result<Reply<'_>, Fault> {
    let Body { token, extras, key, value } = body;
    let odd = || Fault(format!("a frame whose lengths are not those of opcode {opcode:#04x}"));
    Ok(match opcode {
        GET | GET_AND_TOUCH => {
            let flags = u32::from_be_bytes(extras.try_into().map_err(|_| odd())?);
            Reply::Value(Item { data: value, flags, token: Some(token), ..Item::default() })
        }
        SET | ADD | REPLACE | APPEND | PREPEND => Reply::Stored,
        DELETE => Reply::Deleted,
        INCREMENT | DECREMENT => {
            Reply::Number(u64::from_be_bytes(value.try_into().map_err(|_| odd())?))
        }
        TOUCH => Reply::Touched,
        VERSION => Reply::Version(text(value)?),
        STAT if key.is_empty() => Reply::End,
        STAT => Reply::Stat(text(key)?, text(value)?),
        _ => Reply::Ok,
    })
}

/// Any frame leaves the connection in step, but that of a request which was no good.
fn failed(opcode: u8, status: u16, value: &[u8]) -> Result<Reply<'_>, Fault> {
    let is = |known: Status| status == known as u16;
    if is(Status::LoginFailed) {
        return Err(Fault(format!("{SASL_REFUSAL}{}", String::from_utf8_lossy(value))));
    }
    if opcode == SASL_START {
        // A server that knows no logins lets everybody in.
        let knows_none = is(Status::UnknownCommand);
        let odd = || Fault(format!("status {status:#06x} to a login"));
        return knows_none.then_some(Reply::Ok).ok_or_else(odd);
    }
    Ok(match status {
        _ if is(Status::NotFound) && opcode != STAT => Reply::NotFound,
        _ if is(Status::Exists) => Reply::Exists,
        _ if is(Status::NotStored) => Reply::NotStored,
        _ if is(Status::InvalidArguments) => return Err(Fault(text(value)?.to_owned())),
        _ => Reply::Refused(text(value)?),
    })
}

fn text(bytes: &[u8]) -> Result<&str, Fault> {
    let odd =
        |_| Fault(format!("no text: {}", String::from_utf8_lossy(&bytes[..bytes.len().min(80)])));
    std::str::from_utf8(bytes).map_err(odd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::placement::key::{Form, WireKey};
    use crate::client::wire::command::Protocol;
    use crate::client::wire::login::Login;
    use crate::client::wire::reply::Decoder;
    use crate::protocol::binary::{Ask, Frame, Header, Opcode, reply};
    use crate::protocol::request::{ArithmeticArgs, Exptime, NewNumber, Request};
    use crate::protocol::request::{StoreArgs, StoreMode};
    use proptest::prelude::*;
    use std::borrow::Cow;

    /// What our own server takes a request for, and the value behind it.
    fn read(bytes: &[u8]) -> (Ask<'_>, &[u8]) {
        let header = Header::parse(bytes).unwrap();
        assert_eq!(header.check(), Ok(()), "{bytes:?}");
        assert_eq!(header.frame_bytes(), bytes.len(), "nothing behind it");
        assert_eq!(header.frame.opaque, 7u32.to_be_bytes());
        let ask = header.ask(&bytes[HEADER_BYTES..]).unwrap().unwrap();
        (ask, &bytes[header.head_bytes()..])
    }

    fn written(command: Command<'_>) -> Vec<u8> {
        let (mut out, key) = (Vec::new(), Cow::Borrowed(&b"a k\0"[..]));
        command.write(&WireKey { bytes: key, form: Form::Frame }, 7, &mut out);
        out
    }

    #[test]
    fn requests_as_our_own_server_reads_them() {
        let key = &b"a k\0"[..];
        let get = |touch| Request::Get { touch, with_cas: true, keys: key };
        let store = |mode| Command::Store { mode, flags: 5, exptime: 60, data: b"abc" };
        let extend = |front, token| Command::Extend { front, data: b"abc", token };
        let stored = |mode, compare| {
            let exptime = Exptime::Relative(60);
            let args = match mode {
                StoreMode::Append | StoreMode::Prepend => {
                    StoreArgs { mode, flags: 0, exptime: Exptime::Never, compare }
                }
                _ => StoreArgs { mode, flags: 5, exptime, compare },
            };
            Request::Store { key, args, value_bytes: 3 }
        };
        let count = |increment, delta, create| Request::Arithmetic {
            key,
            args: ArithmeticArgs { increment, delta, compare: 0, create },
        };
        let number = NewNumber { value: 9, exptime: Exptime::Relative(30) };
        let from = Command::CountFrom { up: false, delta: 2, initial: 9, exptime: 30 };
        let over = Exptime::Absolute(LONG_AGO);
        for (command, request, value) in [
            (Command::Get { token: false }, get(None), &b""[..]),
            (Command::Get { token: true }, get(None), b""),
            (Command::Lease { seconds: 9, recache: None }, get(None), b""),
            (Command::GetAndTouch { exptime: 9 }, get(Some(Exptime::Relative(9))), b""),
            (Command::Touch { exptime: 0 }, Request::Touch { key, exptime: Exptime::Never }, b""),
            (Command::Touch { exptime: -1 }, Request::Touch { key, exptime: over }, b""),
            (store(Mode::Set), stored(StoreMode::Set, 0), b"abc"),
            (store(Mode::Add), stored(StoreMode::Add, 0), b"abc"),
            (store(Mode::Replace), stored(StoreMode::Replace, 0), b"abc"),
            (extend(false, None), stored(StoreMode::Append, 0), b"abc"),
            (extend(true, None), stored(StoreMode::Prepend, 0), b"abc"),
            (extend(true, Some(4)), stored(StoreMode::Prepend, 4), b"abc"),
            (store(Mode::Cas(8)), stored(StoreMode::Cas, 8), b"abc"),
            // It must not become a set.
            (store(Mode::Cas(0)), stored(StoreMode::Cas, u64::MAX), b"abc"),
            (Command::Delete, Request::Delete { key, compare: 0 }, b""),
            (Command::DeleteVersion { token: 4 }, Request::Delete { key, compare: 4 }, b""),
            (Command::DeleteVersion { token: 0 }, Request::Delete { key, compare: u64::MAX }, b""),
            (Command::Count { up: true, delta: 2 }, count(true, 2, None), b""),
            (from, count(false, 2, Some(number)), b""),
        ] {
            let bytes = written(command);
            assert_eq!(read(&bytes), (Ask::Command(request), value), "{command:?}");
        }
    }

    #[test]
    fn what_has_no_frame_is_refused_and_is_a_noop_otherwise() {
        let key = |form| WireKey { bytes: Cow::Borrowed(&b"k"[..]), form };
        for command in [Command::Inspect, Command::Invalidate { exptime: 9 }] {
            assert!(command.check(&key(Form::Plain)).is_ok());
            let refused = command.check(&key(Form::Frame)).unwrap_err().to_string();
            assert!(refused.contains("Login::sasl"), "{refused}");
            assert_eq!(read(&written(command)).0, Ask::Command(Request::MetaNoop));
        }
        for command in [ServerCommand::ConfigCluster, ServerCommand::ListKeys] {
            assert!(command.check(Protocol::Text).is_ok());
            assert!(command.check(Protocol::Binary).is_err());
        }
    }

    #[test]
    fn requests_that_are_not_about_a_key() {
        let flush = |delay| Request::FlushAll { delay };
        for (command, request) in [
            (ServerCommand::Version, Request::Version),
            (ServerCommand::Stats(""), Request::Stats { arguments: b"" }),
            (ServerCommand::Stats("items"), Request::Stats { arguments: b"items" }),
            (ServerCommand::FlushAll { delay_seconds: 0 }, flush(Exptime::Never)),
            (ServerCommand::FlushAll { delay_seconds: 5 }, flush(Exptime::Relative(5))),
        ] {
            let mut bytes = Vec::new();
            command.write(Protocol::Binary, 7, &mut bytes);
            assert_eq!(read(&bytes).0, Ask::Command(request), "{command:?}");
        }
    }

    #[test]
    fn a_login_is_one_message() {
        let mut bytes = Vec::new();
        let expect = Login::sasl("bob smith", "pa:ss\r\nwd").write(&mut bytes);
        assert_eq!(expect, Expect::Frame { opcode: SASL_START, opaque: 0 });
        let header = Header::parse(&bytes).unwrap();
        let message = b"\0bob smith\0pa:ss\r\nwd";
        let ask =
            Ask::Sasl { mechanism: b"PLAIN", is_step: false, message_bytes: message.len() as u32 };
        assert_eq!(header.ask(&bytes[HEADER_BYTES..]), Ok(Some(ask)));
        assert!(bytes.ends_with(message));
    }

    /// Decodes bytes that arrive in pieces of this size, and shows each reply.
    fn decode(bytes: &[u8], piece_bytes: usize, opcode: u8) -> Vec<String> {
        let (mut decoder, mut seen) = (Decoder::default(), Vec::new());
        for piece in bytes.chunks(piece_bytes) {
            decoder.room()[..piece.len()].copy_from_slice(piece);
            decoder.arrived(piece.len());
            loop {
                match decoder.next(Expect::Frame { opcode, opaque: 7 }) {
                    Ok(Some(reply)) => seen.push(format!("{reply:?}")),
                    Ok(None) => break,
                    Err(Fault(what)) => {
                        seen.push(format!("fault: {what}"));
                        return seen;
                    }
                }
            }
        }
        seen
    }

    fn frame(opcode: u8) -> Frame {
        Frame { opcode: Opcode(opcode), opaque: 7u32.to_be_bytes() }
    }

    /// Of an opcode, a reply as our own server writes it.
    fn answer(opcode: u8, write: impl Fn(&mut Vec<u8>, Frame)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out, frame(opcode));
        out
    }

    #[test]
    fn replies_of_our_own_server_in_any_pieces() {
        let value = |out: &mut Vec<u8>, frame| {
            reply::value_head(out, frame, b"k", 5, 9, 3);
            out.extend_from_slice(b"abc");
        };
        let item = Item { data: b"abc", flags: 5, token: Some(9), ..Item::default() };
        let found = format!("{:?}", Reply::Value(item));
        let done = |out: &mut Vec<u8>, frame| reply::done(out, frame, 9);
        let stats = |out: &mut Vec<u8>, frame| {
            reply::in_frames(out, frame, b"STAT a b c\r\nSTAT d \r\nEND\r\n");
        };
        let failed = |status| move |out: &mut Vec<u8>, frame| reply::failed(out, frame, status);
        for (opcode, bytes, expected) in [
            (GET, answer(GET, value), &[found.as_str()][..]),
            (GET_AND_TOUCH, answer(GET_AND_TOUCH, value), &[&found]),
            (SET, answer(SET, done), &["Stored"]),
            (ADD, answer(ADD, done), &["Stored"]),
            (REPLACE, answer(REPLACE, done), &["Stored"]),
            (APPEND, answer(APPEND, done), &["Stored"]),
            (PREPEND, answer(PREPEND, done), &["Stored"]),
            (DELETE, answer(DELETE, done), &["Deleted"]),
            (TOUCH, answer(TOUCH, done), &["Touched"]),
            (FLUSH, answer(FLUSH, done), &["Ok"]),
            (NOOP, answer(NOOP, done), &["Ok"]),
            (SASL_START, answer(SASL_START, done), &["Ok"]),
            (
                INCREMENT,
                answer(INCREMENT, |out, frame| reply::number(out, frame, 9, 12)),
                &["Number(12)"],
            ),
            (STAT, answer(STAT, stats), &[r#"Stat("a", "b c")"#, r#"Stat("d", "")"#, "End"]),
            (
                VERSION,
                answer(VERSION, |out, frame| reply::text(out, frame, Status::Done, b"1.6")),
                &[r#"Version("1.6")"#],
            ),
            (GET, answer(GET, failed(Status::NotFound)), &["NotFound"]),
            (SET, answer(SET, failed(Status::Exists)), &["Exists"]),
            (APPEND, answer(APPEND, failed(Status::NotStored)), &["NotStored"]),
            (SET, answer(SET, failed(Status::TooLarge)), &[r#"Refused("Too large.")"#]),
            (STAT, answer(STAT, failed(Status::NotFound)), &[r#"Refused("Not found")"#]),
            (
                GET_AND_TOUCH,
                answer(GET_AND_TOUCH, failed(Status::UnknownCommand)),
                &[r#"Refused("Unknown command")"#],
            ),
            (SET, answer(SET, failed(Status::OutOfMemory)), &[r#"Refused("Out of memory")"#]),
            (
                INCREMENT,
                answer(INCREMENT, failed(Status::NotNumeric)),
                &[r#"Refused("Non-numeric server-side value for incr or decr")"#],
            ),
            // Nobody is asked for a login there.
            (SASL_START, answer(SASL_START, failed(Status::UnknownCommand)), &["Ok"]),
        ] {
            for piece_bytes in 1..=bytes.len() {
                let seen = decode(&bytes, piece_bytes, opcode);
                assert_eq!(seen, expected, "opcode {opcode:#04x}, pieces of {piece_bytes}");
            }
        }
    }

    #[test]
    fn what_is_no_reply_to_the_request_is_a_fault() {
        let done = |out: &mut Vec<u8>, frame| reply::done(out, frame, 9);
        let failed = |status| move |out: &mut Vec<u8>, frame| reply::failed(out, frame, status);
        let changed = |at: usize, byte| {
            let mut bytes = answer(GET, |out, frame| reply::value_head(out, frame, b"", 0, 1, 0));
            bytes[at] = byte;
            bytes
        };
        for (opcode, bytes, what) in [
            (GET, b"END\r\n".to_vec(), "not a frame"),
            (GET, changed(0, 0x80), "not a frame"),
            (GET, answer(SET, done), "of another request"),
            (GET, changed(15, 8), "of another request"),
            (GET, changed(4, 5), "impossible lengths"),
            (GET, changed(3, 1), "impossible lengths"),
            (GET, changed(8, 0x80), "impossible lengths"),
            (GET, changed(4, 3), "lengths are not those"),
            (GET, answer(GET, done), "lengths are not those"),
            (INCREMENT, answer(INCREMENT, done), "lengths are not those"),
            (
                VERSION,
                answer(VERSION, |out, frame| reply::text(out, frame, Status::Done, b"\xff")),
                "no text",
            ),
            (SET, answer(SET, failed(Status::InvalidArguments)), "Invalid arguments"),
            (SET, answer(SET, failed(Status::LoginFailed)), "SASL: Auth failure."),
            (SASL_START, answer(SASL_START, failed(Status::LoginFailed)), "SASL: Auth failure."),
            (SASL_START, answer(SASL_START, failed(Status::LoginContinues)), "to a login"),
        ] {
            let seen = decode(&bytes, bytes.len(), opcode);
            assert!(seen.len() == 1 && seen[0].starts_with("fault: "), "{seen:?}");
            assert!(seen[0].contains(what), "{seen:?} is not about {what:?}");
        }
    }

    proptest! {
        /// Whatever arrives: a reply, a wish for more, or a fault; and what is claimed is there.
        #[test]
        fn any_bytes_are_read(
            mut bytes in prop::collection::vec(any::<u8>(), 0..80),
            opcode: u8,
            fits: bool,
        ) {
            if fits && bytes.len() >= HEADER_BYTES {
                bytes[..2].copy_from_slice(&[REPLY_MAGIC, opcode]);
                bytes[8..11].fill(0);
                bytes[12..16].copy_from_slice(&7u32.to_be_bytes());
            }
            match parse(&bytes, opcode, 7) {
                Ok(Ok((_, length))) => prop_assert!(length <= bytes.len()),
                Ok(Err(wanted)) => prop_assert!(wanted > bytes.len()),
                Err(_) => {}
            }
        }
    }
}
