//! One frame to one request.
//!
//! The grammar is nom's; the verdicts are memcached's: what is answered to a wrong frame, and
//! whether the connection goes on behind it. Where memcached would take the rest of a frame for
//! the next one, the frame is refused instead.

use super::opcode::Command;
use super::reply::Status;
use super::{Frame, HEADER_BYTES, Opcode, REQUEST_MAGIC};
use crate::limits::{BINARY_BODY_BYTES_MAX, EXPTIME_RELATIVE_SECONDS_MAX, KEY_BYTES_MAX};
use crate::protocol::request::{ArithmeticArgs, Exptime, NewNumber, Request, StoreArgs, StoreMode};
use nom::bytes::complete::take;
use nom::number::complete::{be_u32, be_u64};
use nom::{IResult, Parser};

/// Expiry of an incr or decr that is not to create the number.
const NO_NEW_NUMBER: u32 = 0xffff_ffff;

/// The first 24 bytes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What a reply will repeat.
    pub frame: Frame,
    magic: u8,
    key_bytes: u16,
    extras_bytes: u8,
    body_bytes: u32,
    cas: u64,
}

/// What a frame asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Ask<'a> {
    /// The same as a line of text could. The keys of a get are one key of any bytes, and the value
    /// of a storage command follows without a line end.
    Command(Request<'a>),
    /// The mechanisms that a login may choose from.
    SaslMechanisms,
    /// A message of a login, which follows.
    Sasl {
        /// The mechanism.
        mechanism: &'a [u8],
        /// Not the first message.
        is_step: bool,
        /// Length of the message.
        message_bytes: u32,
    },
}

/// A frame that is not executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// It does not begin as one: close the connection without a word.
    NoFrame,
    /// Answer, and close the connection: where the next frame begins is not known, or memcached
    /// does the same.
    Fatal(Status),
    /// Answer, and skip so many bytes behind the header.
    Answer {
        /// What is wrong.
        status: Status,
        /// What to skip.
        swallow: u32,
    },
}

/// How long the parts of a command's frame are.
struct Shape {
    extras_bytes: u8,
    /// Or there are none.
    extras_optional: bool,
    key: Key,
    has_value: bool,
}

#[derive(PartialEq)]
enum Key {
    None,
    Some,
    Any,
}

type Parsed<'a, T> = IResult<&'a [u8], T>;

/// Written out, since every request passes here twice, and nom's numbers are made byte by byte.
/// Data type and vbucket mean nothing.
fn header_of(bytes: &[u8; HEADER_BYTES]) -> Header {
    let [magic, opcode, k0, k1, extras_bytes, _, _, _, b0, b1, b2, b3, ..] = *bytes;
    let [.., o0, o1, o2, o3, c0, c1, c2, c3, c4, c5, c6, c7] = *bytes;
    Header {
        frame: Frame { opcode: Opcode(opcode), opaque: [o0, o1, o2, o3] },
        magic,
        key_bytes: u16::from_be_bytes([k0, k1]),
        extras_bytes,
        body_bytes: u32::from_be_bytes([b0, b1, b2, b3]),
        cas: u64::from_be_bytes([c0, c1, c2, c3, c4, c5, c6, c7]),
    }
}

fn store_extras(input: &[u8]) -> Parsed<'_, (u32, u32)> {
    (be_u32, be_u32).parse(input)
}

fn arithmetic_extras(input: &[u8]) -> Parsed<'_, (u64, u64, u32)> {
    (be_u64, be_u64, be_u32).parse(input)
}

/// An expiry is an unsigned number here: there is no such thing as one in the past but a Unix time
/// that is over.
fn exptime(seconds: u32) -> Exptime {
    match seconds {
        0 => Exptime::Never,
        _ if i64::from(seconds) <= EXPTIME_RELATIVE_SECONDS_MAX => Exptime::Relative(seconds),
        _ => Exptime::Absolute(seconds),
    }
}

impl Header {
    /// The header that the input begins with. `None`: not all of it is here.
    #[inline]
    pub fn parse(input: &[u8]) -> Option<Self> {
        input.first_chunk().map(header_of)
    }

    /// Bytes of the header, the extras and the key.
    pub fn head_bytes(&self) -> usize {
        HEADER_BYTES + usize::from(self.extras_bytes) + usize::from(self.key_bytes)
    }

    /// Bytes of the whole frame. Only of a header that was checked.
    pub fn frame_bytes(&self) -> usize {
        HEADER_BYTES + self.body_bytes as usize
    }

    /// The key of the frame that the input begins with, if it is here.
    pub fn key_of<'a>(&self, input: &'a [u8]) -> Option<&'a [u8]> {
        let end = self.head_bytes();
        input.get(end - usize::from(self.key_bytes)..end)
    }

    /// Whether this is a frame at all, and a length that can be.
    ///
    /// # Errors
    /// A [`Rejection`] says what to do instead.
    #[inline]
    pub fn check(&self) -> Result<(), Rejection> {
        if self.magic != REQUEST_MAGIC {
            return Err(Rejection::NoFrame);
        }
        if u32::from(self.key_bytes) + u32::from(self.extras_bytes) > self.body_bytes {
            return Err(Rejection::Fatal(Status::UnknownCommand));
        }
        if self.body_bytes > BINARY_BODY_BYTES_MAX {
            return Err(Rejection::Fatal(Status::InvalidArguments));
        }
        Ok(())
    }

    /// Length of the value. Only of a header that was checked.
    fn value_bytes(&self) -> u32 {
        let head = u32::from(self.key_bytes) + u32::from(self.extras_bytes);
        self.body_bytes.saturating_sub(head)
    }

    /// Whether the lengths are those of the command.
    fn has_shape(&self, shape: &Shape) -> bool {
        let key_fits = match shape.key {
            Key::None => self.key_bytes == 0,
            Key::Some => self.key_bytes > 0,
            Key::Any => true,
        };
        key_fits
            && shape.takes_extras(self.extras_bytes)
            && (shape.has_value || self.value_bytes() == 0)
    }

    /// The key of a plain get whose frame is in order and all here; `behind` is the input behind
    /// the header. The commonest request, so that it need not take the way of the others.
    #[inline]
    pub fn key_of_get<'a>(&self, behind: &'a [u8]) -> Option<&'a [u8]> {
        let is_get = self.magic == REQUEST_MAGIC
            && self.frame.opcode.command() == Some(Command::Get)
            && self.extras_bytes == 0
            && self.body_bytes == u32::from(self.key_bytes)
            && (1..=KEY_BYTES_MAX).contains(&usize::from(self.key_bytes));
        behind.get(..usize::from(self.key_bytes)).filter(|_| is_get)
    }

    /// The command, if the lengths are such as it has.
    #[inline]
    fn command(&self) -> Result<Command, Rejection> {
        if usize::from(self.key_bytes) > KEY_BYTES_MAX {
            return Err(Rejection::Fatal(Status::InvalidArguments));
        }
        let Some(command) = self.frame.opcode.command() else {
            let (status, swallow) = (Status::UnknownCommand, self.body_bytes);
            return Err(Rejection::Answer { status, swallow });
        };
        if !self.has_shape(&shape_of(command)) {
            return Err(Rejection::Fatal(Status::InvalidArguments));
        }
        Ok(command)
    }

    /// What a frame with this header asks for; `behind` is the input behind the header. `Ok(None)`:
    /// the extras or the key are not all here.
    ///
    /// # Errors
    /// A [`Rejection`] says what to do instead.
    #[inline]
    pub fn ask<'a>(&self, behind: &'a [u8]) -> Result<Option<Ask<'a>>, Rejection> {
        let command = self.command()?;
        let (extras_bytes, key_bytes) = (self.extras_bytes, self.key_bytes);
        let parts: Parsed<'_, _> = (take(extras_bytes), take(key_bytes)).parse(behind);
        let Ok((_, (extras, key))) = parts else { return Ok(None) };
        let malformed = |_| Rejection::Fatal(Status::InvalidArguments);
        Ok(Some(self.ask_with(command, extras, key).map_err(malformed)?))
    }

    fn ask_with<'a>(
        &self,
        command: Command,
        extras: &'a [u8],
        key: &'a [u8],
    ) -> Result<Ask<'a>, nom::Err<nom::error::Error<&'a [u8]>>> {
        Ok(Ask::Command(match command {
            Command::Get => Request::Get { touch: None, with_cas: true, keys: key },
            Command::GetAndTouch => {
                let touch = Some(exptime(be_u32(extras)?.1));
                Request::Get { touch, with_cas: true, keys: key }
            }
            Command::Touch => Request::Touch { key, exptime: exptime(be_u32(extras)?.1) },
            Command::Store(mode) => {
                let args = self.store_args(mode, extras)?;
                Request::Store { key, args, value_bytes: self.value_bytes() }
            }
            Command::Delete => Request::Delete { key, compare: self.cas },
            Command::Arithmetic { increment } => {
                let (delta, value, expiry) = arithmetic_extras(extras)?.1;
                let number = NewNumber { value, exptime: exptime(expiry) };
                let create = Some(number).filter(|_| expiry != NO_NEW_NUMBER);
                let args = ArithmeticArgs { increment, delta, compare: self.cas, create };
                Request::Arithmetic { key, args }
            }
            Command::Flush if extras.is_empty() => Request::FlushAll { delay: Exptime::Never },
            Command::Flush => Request::FlushAll { delay: exptime(be_u32(extras)?.1) },
            Command::Noop => Request::MetaNoop,
            Command::Version => Request::Version,
            Command::Stats => Request::Stats { arguments: key },
            Command::Verbosity => Request::Verbosity { level: be_u32(extras)?.1 },
            Command::Quit => Request::Quit,
            Command::SaslMechanisms => return Ok(Ask::SaslMechanisms),
            Command::SaslStart | Command::SaslStep => {
                let is_step = command == Command::SaslStep;
                let message_bytes = self.value_bytes();
                return Ok(Ask::Sasl { mechanism: key, is_step, message_bytes });
            }
        }))
    }

    /// Append and prepend have no extras. A token makes a cas of the others; the two that join
    /// compare it themselves.
    fn store_args<'a>(
        &self,
        mode: StoreMode,
        extras: &'a [u8],
    ) -> Result<StoreArgs, nom::Err<nom::error::Error<&'a [u8]>>> {
        let joins = matches!(mode, StoreMode::Append | StoreMode::Prepend);
        let (flags, expiry) = if joins { (0, 0) } else { store_extras(extras)?.1 };
        let mode = if joins || self.cas == 0 { mode } else { StoreMode::Cas };
        Ok(StoreArgs { mode, flags, exptime: exptime(expiry), compare: self.cas })
    }
}

impl Shape {
    fn takes_extras(&self, bytes: u8) -> bool {
        bytes == self.extras_bytes || (self.extras_optional && bytes == 0)
    }
}

fn shape_of(command: Command) -> Shape {
    let shape = |extras_bytes, key, has_value| {
        let extras_optional = command == Command::Flush;
        Shape { extras_bytes, extras_optional, key, has_value }
    };
    match command {
        Command::Get | Command::Delete => shape(0, Key::Some, false),
        Command::GetAndTouch | Command::Touch => shape(4, Key::Some, false),
        Command::Store(StoreMode::Append | StoreMode::Prepend) => shape(0, Key::Some, true),
        Command::Store(_) => shape(8, Key::Some, true),
        Command::Arithmetic { .. } => shape(20, Key::Some, false),
        Command::Flush | Command::Verbosity => shape(4, Key::None, false),
        Command::Stats => shape(0, Key::Any, false),
        Command::Noop | Command::Version | Command::Quit | Command::SaslMechanisms => {
            shape(0, Key::None, false)
        }
        Command::SaslStart | Command::SaslStep => shape(0, Key::Some, true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame with these parts; its token is 9, so that it shows where it goes.
    fn frame(opcode: u8, extras: &[u8], key: &[u8], value: &[u8]) -> Vec<u8> {
        let mut bytes = vec![REQUEST_MAGIC, opcode];
        bytes.extend((key.len() as u16).to_be_bytes());
        bytes.extend([extras.len() as u8, 0, 0, 0]);
        bytes.extend(((extras.len() + key.len() + value.len()) as u32).to_be_bytes());
        bytes.extend(*b"opaq");
        bytes.extend(9u64.to_be_bytes());
        bytes.extend([extras, key, value].concat());
        bytes
    }

    fn ask(bytes: &[u8]) -> Result<Option<Ask<'_>>, Rejection> {
        let Some(header) = Header::parse(bytes) else { return Ok(None) };
        header.check()?;
        header.ask(&bytes[HEADER_BYTES..])
    }

    fn check(opcode: u8, extras: &[u8], key: &[u8], value: &[u8], expected: Request<'_>) {
        let bytes = frame(opcode, extras, key, value);
        assert_eq!(ask(&bytes), Ok(Some(Ask::Command(expected))), "{opcode:#04x}");
        let header = Header::parse(&bytes).unwrap();
        assert_eq!(header.frame, Frame { opcode: Opcode(opcode), opaque: *b"opaq" });
        assert_eq!(header.head_bytes(), HEADER_BYTES + extras.len() + key.len());
        assert_eq!(header.key_of(&bytes), Some(key));
        assert_eq!(header.frame_bytes(), bytes.len());
        for end in 0..header.head_bytes() {
            assert_eq!(ask(&bytes[..end]), Ok(None), "{opcode:#04x}, {end} bytes");
        }
    }

    const MINUTE: [u8; 4] = [0, 0, 0, 60];

    #[test]
    fn requests() {
        let key: &[u8] = b"k \0\r\n";
        let minute = Exptime::Relative(60);
        for opcode in [0x00, 0x09, 0x0c, 0x0d] {
            check(opcode, b"", key, b"", Request::Get { touch: None, with_cas: true, keys: key });
        }
        for opcode in [0x1d, 0x1e, 0x23, 0x24] {
            let expected = Request::Get { touch: Some(minute), with_cas: true, keys: key };
            check(opcode, &MINUTE, key, b"", expected);
        }
        check(0x1c, &MINUTE, key, b"", Request::Touch { key, exptime: minute });
        for opcode in [0x04, 0x14] {
            check(opcode, b"", key, b"", Request::Delete { key, compare: 9 });
        }
        for (opcode, increment) in [(0x05, true), (0x06, false), (0x15, true), (0x16, false)] {
            let args = |create| ArithmeticArgs { increment, delta: 3, compare: 9, create };
            let start = Some(NewNumber { value: 5, exptime: minute });
            for (expiry, create) in [(MINUTE, start), ([0xff; 4], None)] {
                let extras = [&3u64.to_be_bytes()[..], &5u64.to_be_bytes(), &expiry].concat();
                let args = args(create);
                check(opcode, &extras, key, b"", Request::Arithmetic { key, args });
            }
        }
        check(0x10, b"", b"", b"", Request::Stats { arguments: b"" });
        check(0x10, b"", b"items", b"", Request::Stats { arguments: b"items" });
        check(0x0a, b"", b"", b"", Request::MetaNoop);
        check(0x0b, b"", b"", b"", Request::Version);
        check(0x1b, &[0, 0, 0, 1], b"", b"", Request::Verbosity { level: 1 });
        for opcode in [0x07, 0x17] {
            check(opcode, b"", b"", b"", Request::Quit);
        }
        for opcode in [0x08, 0x18] {
            check(opcode, b"", b"", b"", Request::FlushAll { delay: Exptime::Never });
            check(opcode, &MINUTE, b"", b"", Request::FlushAll { delay: minute });
        }
    }

    /// The short way answers for what the long one would have answered too, and for nothing else.
    #[test]
    fn a_plain_get_is_found_out_early() {
        let longest = "k".repeat(251);
        for opcode in 0..=0x40 {
            for key in ["", "k", &longest[..250], &longest] {
                for (extras, value) in [(0, 0), (4, 0), (0, 1)] {
                    let bytes = frame(opcode, &vec![0; extras], key.as_bytes(), &vec![0; value]);
                    let header = Header::parse(&bytes).unwrap();
                    let early = header.key_of_get(&bytes[HEADER_BYTES..]);
                    let late = match ask(&bytes) {
                        Ok(Some(Ask::Command(Request::Get { touch: None, keys, .. }))) => {
                            Some(keys)
                        }
                        _ => None,
                    };
                    assert_eq!(early, late, "{opcode:#04x} {} {extras} {value}", key.len());
                    let cut = &bytes[HEADER_BYTES..bytes.len().saturating_sub(1).max(HEADER_BYTES)];
                    assert_eq!(header.key_of_get(cut), None);
                }
            }
        }
    }

    #[test]
    fn storage_requests() {
        let stores = [(0x01, StoreMode::Set), (0x02, StoreMode::Add), (0x03, StoreMode::Replace)];
        let extras = [&[0, 0, 0, 7], &MINUTE[..]].concat();
        for (opcode, mode) in stores {
            for opcode in [opcode, opcode + 0x10] {
                let mut bytes = frame(opcode, &extras, b"k", b"value");
                let mut args =
                    StoreArgs { mode, flags: 7, exptime: Exptime::Relative(60), compare: 0 };
                let store = |args| Request::Store { key: b"k", args, value_bytes: 5 };
                bytes[16..24].fill(0);
                assert_eq!(ask(&bytes), Ok(Some(Ask::Command(store(args)))), "{opcode:#04x}");
                bytes[23] = 9;
                // With a token it is a cas, whatever it was.
                (args.mode, args.compare) = (StoreMode::Cas, 9);
                assert_eq!(ask(&bytes), Ok(Some(Ask::Command(store(args)))), "{opcode:#04x}");
            }
        }
        for (opcode, mode) in [(0x0e, StoreMode::Append), (0x0f, StoreMode::Prepend)] {
            for opcode in [opcode, opcode + 0x0b] {
                let args = StoreArgs { mode, flags: 0, exptime: Exptime::Never, compare: 9 };
                let bytes = frame(opcode, b"", b"k", b"value");
                let store = Request::Store { key: b"k", args, value_bytes: 5 };
                assert_eq!(ask(&bytes), Ok(Some(Ask::Command(store))), "{opcode:#04x}");
            }
        }
    }

    #[test]
    fn logins() {
        assert_eq!(ask(&frame(0x20, b"", b"", b"")), Ok(Some(Ask::SaslMechanisms)));
        for (opcode, is_step) in [(0x21, false), (0x22, true)] {
            let expected = Ask::Sasl { mechanism: b"PLAIN", is_step, message_bytes: 4 };
            assert_eq!(ask(&frame(opcode, b"", b"PLAIN", b"\0a\0b")), Ok(Some(expected)));
        }
    }

    #[test]
    fn expiries() {
        for (seconds, expected) in [
            (0, Exptime::Never),
            (1, Exptime::Relative(1)),
            (2_592_000, Exptime::Relative(2_592_000)),
            (2_592_001, Exptime::Absolute(2_592_001)),
            (0x8000_0000, Exptime::Absolute(0x8000_0000)),
            (u32::MAX, Exptime::Absolute(u32::MAX)),
        ] {
            assert_eq!(exptime(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn frames_of_another_shape_are_refused() {
        let invalid = Err(Rejection::Fatal(Status::InvalidArguments));
        for opcode in 0..=0x24 {
            let Some(command) = Opcode(opcode).command() else { continue };
            let shape = shape_of(command);
            for extras in [0, 4, 5, 8, 20, 255] {
                for key in [0, 1, 250, 251, 65535] {
                    for value in [0, 1] {
                        let bytes =
                            frame(opcode, &vec![0; extras], &vec![b'k'; key], &vec![0; value]);
                        let fits = shape.takes_extras(extras as u8)
                            && key <= 250
                            && (shape.key == Key::Any || (shape.key == Key::Some) == (key > 0))
                            && (shape.has_value || value == 0);
                        let asked = ask(&bytes);
                        let what = format!("{opcode:#04x} {extras} {key} {value}: {asked:?}");
                        assert_eq!(asked == invalid, !fits, "{what}");
                        assert_eq!(asked.is_ok(), fits, "{what}");
                    }
                }
            }
        }
    }

    /// Key length, extras length and body length of a set, each at its ends.
    #[test]
    fn lengths_that_cannot_be() {
        let unknown = Some(Rejection::Fatal(Status::UnknownCommand));
        let invalid = Some(Rejection::Fatal(Status::InvalidArguments));
        let two_31 = 1 << 31;
        for (key_bytes, extras_bytes, body_bytes, expected) in [
            (1u16, 8u8, 9u32, None),
            (1, 8, 8, unknown),
            (1, 8, 0, unknown),
            (9, 0, 8, unknown),
            (0, 8, 7, unknown),
            (65535, 255, 65789, unknown),
            (65535, 255, 65790, invalid),
            (250, 8, 258, None),
            (251, 8, 259, invalid),
            (0, 8, 8, invalid),
            (1, 7, 8, invalid),
            (1, 9, 10, invalid),
            (1, 8, BINARY_BODY_BYTES_MAX, None),
            (1, 8, BINARY_BODY_BYTES_MAX + 1, invalid),
            (1, 8, two_31 - 1, invalid),
            (1, 8, two_31, invalid),
            (1, 8, u32::MAX, invalid),
            (65535, 255, u32::MAX, invalid),
        ] {
            let mut bytes = frame(0x01, b"", b"", b"");
            bytes[2..4].copy_from_slice(&key_bytes.to_be_bytes());
            bytes[4] = extras_bytes;
            bytes[8..12].copy_from_slice(&body_bytes.to_be_bytes());
            // Said at once: what is refused need not arrive.
            let what = (key_bytes, extras_bytes, body_bytes);
            assert_eq!(ask(&bytes).err(), expected, "{what:?}");
        }
    }

    #[test]
    fn what_is_no_frame_and_what_is_no_command() {
        let mut bytes = frame(0x00, b"", b"k", b"");
        for magic in [0x00, b'g', 0x7f, 0x81, 0xff] {
            bytes[0] = magic;
            assert_eq!(ask(&bytes), Err(Rejection::NoFrame), "{magic:#04x}");
        }
        for opcode in [0x1f, 0x25, 0x40, 0xff] {
            let answer = Rejection::Answer { status: Status::UnknownCommand, swallow: 13 };
            let bytes = frame(opcode, b"extra", b"key", b"value");
            assert_eq!(ask(&bytes), Err(answer), "{opcode:#04x}");
        }
    }
}
