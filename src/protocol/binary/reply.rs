//! The one encoder of replies: every frame the server sends is made here.

use super::opcode::Command;
use super::{Frame, HEADER_BYTES, REPLY_MAGIC};
use crate::protocol::reply::LINE_END;

/// What is told whose value has no room.
pub const NO_MEMORY_FOR_ITEM: &[u8] = b"Out of memory allocating item";
/// The same of a number that an incr or decr would make.
pub const NO_MEMORY_FOR_NUMBER: &[u8] = b"Out of memory allocating new item";
/// The same of a number that becomes longer.
pub const NO_MEMORY_TO_COUNT: &[u8] = b"Out of memory incrementing value";

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Status {
    /// Done.
    Done = 0x00,
    /// No such item.
    NotFound = 0x01,
    /// The item is there already, or its token is another.
    Exists = 0x02,
    /// Above `-I`.
    TooLarge = 0x03,
    /// A frame that is not as its command's are.
    InvalidArguments = 0x04,
    /// Nothing to append to or to prepend to.
    NotStored = 0x05,
    /// incr or decr of text.
    NotNumeric = 0x06,
    /// Not logged in, or not with this password; or switched off.
    LoginFailed = 0x20,
    /// The login goes on.
    LoginContinues = 0x21,
    /// Nobody knows this opcode.
    UnknownCommand = 0x81,
    /// The memory limit is reached, or a change could not be kept.
    OutOfMemory = 0x82,
}

impl Status {
    /// What memcached writes behind the header.
    pub fn text(self) -> &'static [u8] {
        match self {
            Self::Done | Self::LoginContinues => b"",
            Self::NotFound => b"Not found",
            Self::Exists => b"Data exists for key.",
            Self::TooLarge => b"Too large.",
            Self::InvalidArguments => b"Invalid arguments",
            Self::NotStored => b"Not stored.",
            Self::NotNumeric => b"Non-numeric server-side value for incr or decr",
            Self::LoginFailed => b"Auth failure.",
            Self::UnknownCommand => b"Unknown command",
            Self::OutOfMemory => b"Out of memory",
        }
    }

    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Done,
        Self::NotFound,
        Self::Exists,
        Self::TooLarge,
        Self::InvalidArguments,
        Self::NotStored,
        Self::NotNumeric,
        Self::LoginFailed,
        Self::LoginContinues,
        Self::UnknownCommand,
        Self::OutOfMemory,
    ];

    /// That of a reply, for who has only the reply. `None`: there is none.
    pub fn of_reply(reply: &[u8]) -> Option<Self> {
        let status = match reply {
            [REPLY_MAGIC, _, _, _, _, _, high, low, ..] => u16::from_be_bytes([*high, *low]),
            _ => return None,
        };
        Self::ALL.into_iter().find(|known| *known as u16 == status)
    }
}

/// Lengths and token of a reply; by default there is nothing behind the header.
#[derive(Debug, Clone, Copy, Default)]
struct Parts {
    key_bytes: u16,
    extras_bytes: u8,
    body_bytes: u32,
    cas: u64,
}

#[inline]
fn header(out: &mut Vec<u8>, frame: Frame, status: Status, parts: Parts) {
    let mut bytes = [0; HEADER_BYTES];
    bytes[0] = REPLY_MAGIC;
    bytes[1] = frame.opcode.0;
    bytes[2..4].copy_from_slice(&parts.key_bytes.to_be_bytes());
    bytes[4] = parts.extras_bytes;
    bytes[6..8].copy_from_slice(&(status as u16).to_be_bytes());
    bytes[8..12].copy_from_slice(&parts.body_bytes.to_be_bytes());
    bytes[12..16].copy_from_slice(&frame.opaque);
    bytes[16..].copy_from_slice(&parts.cas.to_be_bytes());
    out.extend_from_slice(&bytes);
}

/// The length of a part as the header has it. What is too long for it cannot be sent: values are
/// at most a gibibyte, keys and texts of statistics far below these.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn key_length(key: &[u8]) -> u16 {
    u16::try_from(key.len()).unwrap_or(u16::MAX)
}

/// An answer without a body, and the token of the item, 0 without one.
#[inline]
pub fn done(out: &mut Vec<u8>, frame: Frame, cas: u64) {
    header(out, frame, Status::Done, Parts { cas, ..Parts::default() });
}

/// A failure, in memcached's words.
pub fn failed(out: &mut Vec<u8>, frame: Frame, status: Status) {
    text(out, frame, status, status.text());
}

/// A text.
pub fn text(out: &mut Vec<u8>, frame: Frame, status: Status, text: &[u8]) {
    header(out, frame, status, Parts { body_bytes: length(text.len()), ..Parts::default() });
    out.extend_from_slice(text);
}

/// A miss, of a command that returns keys with the key.
pub fn missed(out: &mut Vec<u8>, frame: Frame, key: &[u8]) {
    if !frame.opcode.returns_key() {
        return failed(out, frame, Status::NotFound);
    }
    let key_bytes = key_length(key);
    let parts = Parts { key_bytes, body_bytes: u32::from(key_bytes), ..Parts::default() };
    header(out, frame, Status::NotFound, parts);
    out.extend_from_slice(key);
}

/// A hit up to its value of `value_bytes`, which follows.
#[inline]
pub fn value_head(
    out: &mut Vec<u8>,
    frame: Frame,
    key: &[u8],
    flags: u32,
    cas: u64,
    value_bytes: usize,
) {
    let key = if frame.opcode.returns_key() { key } else { b"" };
    let flags = flags.to_be_bytes();
    let body_bytes = length(flags.len() + key.len() + value_bytes);
    let (key_bytes, extras_bytes) = (key_length(key), flags.len() as u8);
    header(out, frame, Status::Done, Parts { key_bytes, extras_bytes, body_bytes, cas });
    out.extend_from_slice(&flags);
    out.extend_from_slice(key);
}

/// The number that an incr or decr made.
pub fn number(out: &mut Vec<u8>, frame: Frame, cas: u64, number: u64) {
    let number = number.to_be_bytes();
    header(out, frame, Status::Done, Parts { body_bytes: 8, cas, ..Parts::default() });
    out.extend_from_slice(&number);
}

/// One statistic; name and value are empty at their end.
fn statistic(out: &mut Vec<u8>, frame: Frame, name: &[u8], value: &[u8]) {
    let (key_bytes, body_bytes) = (key_length(name), length(name.len() + value.len()));
    header(out, frame, Status::Done, Parts { key_bytes, body_bytes, ..Parts::default() });
    out.extend_from_slice(name);
    out.extend_from_slice(value);
}

/// What the text protocol answers to a command that is not about a key, in frames.
pub fn in_frames(out: &mut Vec<u8>, frame: Frame, answer: &[u8]) {
    let line = answer.strip_suffix(LINE_END).unwrap_or(answer);
    let fault = line.strip_prefix(b"SERVER_ERROR ");
    let is_error = line.starts_with(b"CLIENT_ERROR ") || line.starts_with(b"ERROR");
    match (fault, frame.opcode.command()) {
        (Some(why), _) => text(out, frame, Status::OutOfMemory, why),
        (None, Some(Command::Stats)) if is_error => failed(out, frame, Status::NotFound),
        (None, Some(Command::Stats)) => statistics(out, frame, answer),
        // What is refused in words is switched off.
        (None, _) if is_error => failed(out, frame, Status::LoginFailed),
        (None, Some(Command::Version)) => {
            let version = line.strip_prefix(b"VERSION ").unwrap_or(line);
            text(out, frame, Status::Done, version);
        }
        (None, _) if frame.opcode.is_quiet() => {}
        (None, _) => done(out, frame, 0),
    }
}

/// A frame for each line, and one at the end. Counts by prefix come as one text, in one frame.
fn statistics(out: &mut Vec<u8>, frame: Frame, answer: &[u8]) {
    if answer.starts_with(b"PREFIX ") {
        statistic(out, frame, b"detailed", answer);
        return statistic(out, frame, b"", b"");
    }
    for line in answer.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut words = line.splitn(3, |byte| *byte == b' ');
        if let (Some(b"STAT" | b"ITEM"), Some(name)) = (words.next(), words.next()) {
            statistic(out, frame, name, words.next().unwrap_or_default());
        }
    }
    statistic(out, frame, b"", b"");
}

#[cfg(test)]
mod tests {
    use super::super::Opcode;
    use super::*;

    fn frame(opcode: u8) -> Frame {
        Frame { opcode: Opcode(opcode), opaque: *b"opaq" }
    }

    fn check(write: impl FnOnce(&mut Vec<u8>), expected: &[u8]) {
        let mut out = b"before".to_vec();
        write(&mut out);
        assert_eq!(
            out.strip_prefix(b"before").expect("appended").escape_ascii().to_string(),
            expected.escape_ascii().to_string()
        );
    }

    #[test]
    fn frames() {
        check(
            |out| done(out, frame(0x01), 0x0102_0304_0506_0708),
            b"\x81\x01\0\0\0\0\0\0\0\0\0\0opaq\x01\x02\x03\x04\x05\x06\x07\x08",
        );
        check(
            |out| failed(out, frame(0x02), Status::Exists),
            b"\x81\x02\0\0\0\0\0\x02\0\0\0\x14opaq\0\0\0\0\0\0\0\0Data exists for key.",
        );
        check(
            |out| missed(out, frame(0x00), b"key"),
            b"\x81\0\0\0\0\0\0\x01\0\0\0\x09opaq\0\0\0\0\0\0\0\0Not found",
        );
        check(
            |out| missed(out, frame(0x0c), b"key"),
            b"\x81\x0c\0\x03\0\0\0\x01\0\0\0\x03opaq\0\0\0\0\0\0\0\0key",
        );
        check(
            |out| value_head(out, frame(0x00), b"key", 0x0a0b_0c0d, 5, 300),
            b"\x81\0\0\0\x04\0\0\0\0\0\x01\x30opaq\0\0\0\0\0\0\0\x05\x0a\x0b\x0c\x0d",
        );
        check(
            |out| value_head(out, frame(0x0d), b"key", 0, 5, 1 << 30),
            b"\x81\x0d\0\x03\x04\0\0\0\x40\0\0\x07opaq\0\0\0\0\0\0\0\x05\0\0\0\0key",
        );
        check(
            |out| number(out, frame(0x05), 1, u64::MAX),
            b"\x81\x05\0\0\0\0\0\0\0\0\0\x08opaq\0\0\0\0\0\0\0\x01\xff\xff\xff\xff\xff\xff\xff\xff",
        );
    }

    #[test]
    fn answers_of_the_text_protocol() {
        let said = |opcode, answer: &str| {
            let mut out = Vec::new();
            in_frames(&mut out, frame(opcode), answer.as_bytes());
            out
        };
        let body = |out: &[u8]| out[HEADER_BYTES..].escape_ascii().to_string();
        for (opcode, answer, status, text) in [
            (0x08, "OK\r\n", Status::Done, ""),
            (0x08, "CLIENT_ERROR flush_all not allowed\r\n", Status::LoginFailed, "Auth failure."),
            (0x18, "SERVER_ERROR log unavailable\r\n", Status::OutOfMemory, "log unavailable"),
            (0x0b, "VERSION 1.6.45\r\n", Status::Done, "1.6.45"),
            (0x10, "ERROR\r\n", Status::NotFound, "Not found"),
            (
                0x10,
                "CLIENT_ERROR usage: stats detail on|off|dump\r\n",
                Status::NotFound,
                "Not found",
            ),
            (0x10, "RESET\r\n", Status::Done, ""),
            (0x10, "END\r\n", Status::Done, ""),
        ] {
            let out = said(opcode, answer);
            assert_eq!(Status::of_reply(&out), Some(status), "{opcode:#04x} {answer}");
            assert_eq!(body(&out), text, "{opcode:#04x} {answer}");
        }
        assert_eq!(said(0x18, "OK\r\n"), b"", "quiet");
    }

    #[test]
    fn statistics_have_a_frame_each() {
        let mut out = Vec::new();
        let answer = b"STAT pid 12\r\nSTAT none\r\nITEM key [5 b; 0 s]\r\nEND\r\n";
        in_frames(&mut out, frame(0x10), answer);
        let mut expected = Vec::new();
        for (name, value) in [("pid", "12"), ("none", ""), ("key", "[5 b; 0 s]"), ("", "")] {
            statistic(&mut expected, frame(0x10), name.as_bytes(), value.as_bytes());
        }
        assert_eq!(out, expected);
        let (mut out, mut expected) = (Vec::new(), Vec::new());
        let prefixes = b"PREFIX a get 1 hit 1 set 0 del 0\r\nEND\r\n";
        in_frames(&mut out, frame(0x10), prefixes);
        statistic(&mut expected, frame(0x10), b"detailed", prefixes);
        statistic(&mut expected, frame(0x10), b"", b"");
        assert_eq!(out, expected);
    }

    #[test]
    fn statuses_are_read_back() {
        for status in Status::ALL {
            let mut out = Vec::new();
            failed(&mut out, frame(0x00), status);
            assert_eq!(Status::of_reply(&out), Some(status));
        }
        assert_eq!(Status::of_reply(b""), None);
        assert_eq!(Status::of_reply(b"STORED\r\n"), None);
    }
}
