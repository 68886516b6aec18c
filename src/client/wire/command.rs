//! Requests as bytes. Owns what is written for each operation, classic or meta; no I/O.
//!
//! A key that goes in base64 needs the meta commands; everything else is written in the classic
//! ones, which every server and proxy knows, where they can say it. To a server that wants a login
//! by SASL all goes in frames of the binary protocol (`frame`): the form of the key says so.

use crate::client::error::Error;
use crate::client::placement::key::{Form, WireKey};
use crate::client::wire::frame;
use std::io::Write;

/// What is spoken on all connections of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::client) enum Protocol {
    #[default]
    Text,
    Binary,
}

/// How a value is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::client) enum Mode {
    Set,
    Add,
    Replace,
    /// Only over the item with this token.
    Cas(u64),
}

/// An operation on one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::client) enum Command<'a> {
    /// Value and flags; with the token if asked for.
    Get {
        token: bool,
    },
    /// The same, and a new expiry.
    GetAndTouch {
        exptime: i64,
    },
    Store {
        mode: Mode,
        flags: u32,
        exptime: i64,
        data: &'a [u8],
    },
    /// Appends, or puts at the front; with a token only to the item that has it.
    Extend {
        front: bool,
        data: &'a [u8],
        token: Option<u64>,
    },
    Delete,
    Touch {
        exptime: i64,
    },
    /// `up` or down by `delta`.
    Count {
        up: bool,
        delta: u64,
    },
    /// The same, starting at `initial` if there is no item.
    CountFrom {
        up: bool,
        delta: u64,
        initial: u64,
        exptime: i64,
    },
    /// The value, or the right to make it for so many seconds; also when less than `recache`
    /// seconds are left.
    Lease {
        seconds: u32,
        recache: Option<u32>,
    },
    /// Only the item with this token.
    DeleteVersion {
        token: u64,
    },
    /// All about an item but its value.
    Inspect,
    /// Marks the item stale: readers still see it, one of them is told to make it anew.
    Invalidate {
        exptime: i64,
    },
}

/// What kind of reply follows a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::client) enum Expect {
    /// `VALUE` lines with data until `END`.
    Values,
    /// One line.
    Line,
    /// One meta reply, marked with this number.
    Meta { opaque: u32 },
    /// A frame with this opcode and number; of statistics, as many as there are and an empty one.
    Frame { opcode: u8, opaque: u32 },
    /// `STAT` lines until `END`.
    Stats,
    /// What `config get cluster` answers.
    Config,
    /// `key=` lines until `END`.
    Keys,
}

/// What an operation means for other servers standing in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::client) enum Effect {
    Read,
    Write,
    /// Nothing may stand in: numbers that must not repeat.
    Exact,
}

/// What a command means for copies of its key on other servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::client) enum Copying {
    /// Any copy will do.
    ReadAny,
    /// All get it.
    WriteAll,
    /// The key's owner alone can tell what comes of it; other copies are out of date then.
    OwnerAlone,
}

impl<'a> Command<'a> {
    pub(crate) fn copying(&self) -> Copying {
        match self {
            Self::Get { token: false } => Copying::ReadAny,
            Self::Store { mode: Mode::Set, .. }
            | Self::Delete
            | Self::Touch { .. }
            | Self::GetAndTouch { .. } => Copying::WriteAll,
            _ => Copying::OwnerAlone,
        }
    }

    /// What further copies are sent after a write.
    pub(crate) fn for_copies(self) -> Command<'a> {
        match self {
            Self::GetAndTouch { exptime } => Self::Touch { exptime },
            write if write.copying() == Copying::WriteAll => write,
            _ => Self::Delete,
        }
    }

    /// Whether other copies are out of date after it.
    pub(crate) fn spoils_copies(&self) -> bool {
        self.effect() != Effect::Read && !matches!(self, Self::Lease { .. })
    }

    /// Whether it asks for a value, and another copy is asked if there is none.
    pub(crate) fn asks_copies(&self) -> bool {
        matches!(self, Self::Get { token: false } | Self::GetAndTouch { .. })
    }
}

impl Command<'_> {
    pub(crate) fn effect(&self) -> Effect {
        match self {
            Self::Get { .. } | Self::Inspect => Effect::Read,
            Self::CountFrom { .. } => Effect::Exact,
            _ => Effect::Write,
        }
    }

    /// Refuses what cannot be said in the form that this key has.
    pub(crate) fn check(&self, key: &WireKey<'_>) -> Result<(), Error> {
        match key.form == Form::Frame && !frame::has_frame(self) {
            true => Err(needs_text(match self {
                Self::Inspect => "inspect",
                _ => "invalidate",
            })),
            false => Ok(()),
        }
    }

    /// Appends the request, numbered if that makes its reply recognisable.
    pub(crate) fn write(&self, key: &WireKey<'_>, opaque: u32, out: &mut Vec<u8>) -> Expect {
        if key.form == Form::Frame {
            return frame::write(self, &key.bytes, opaque, out);
        }
        if key.form == Form::Plain && self.write_classic(key, out) {
            return match self {
                Self::Get { .. } | Self::GetAndTouch { .. } => Expect::Values,
                _ => Expect::Line,
            };
        }
        self.write_meta(key, opaque, out);
        Expect::Meta { opaque }
    }

    /// Returns whether the classic commands have it.
    fn write_classic(&self, key: &WireKey<'_>, out: &mut Vec<u8>) -> bool {
        let verb: &[u8] = match self {
            Self::Get { token: false } => b"get ",
            Self::Get { token: true } => b"gets ",
            Self::GetAndTouch { .. } => b"gat ",
            Self::Store { mode, .. } => match mode {
                Mode::Set => b"set ",
                Mode::Add => b"add ",
                Mode::Replace => b"replace ",
                Mode::Cas(_) => b"cas ",
            },
            Self::Extend { front: false, token: None, .. } => b"append ",
            Self::Extend { front: true, token: None, .. } => b"prepend ",
            Self::Delete => b"delete ",
            Self::Touch { .. } => b"touch ",
            Self::Count { up: true, .. } => b"incr ",
            Self::Count { up: false, .. } => b"decr ",
            _ => return false,
        };
        out.extend_from_slice(verb);
        if let Self::GetAndTouch { exptime } = self {
            number(out, b"", *exptime);
            out.push(b' ');
        }
        key.write(out);
        match self {
            Self::Store { mode, flags, exptime, data } => {
                number(out, b" ", *flags);
                number(out, b" ", *exptime);
                number(out, b" ", data.len());
                if let Mode::Cas(token) = mode {
                    number(out, b" ", *token);
                }
                out.extend_from_slice(b"\r\n");
                out.extend_from_slice(data);
            }
            Self::Extend { data, .. } => {
                number(out, b" 0 0 ", data.len());
                out.extend_from_slice(b"\r\n");
                out.extend_from_slice(data);
            }
            Self::Touch { exptime } => number(out, b" ", *exptime),
            Self::Count { delta, .. } => number(out, b" ", *delta),
            _ => {}
        }
        out.extend_from_slice(b"\r\n");
        true
    }

    fn write_meta(&self, key: &WireKey<'_>, opaque: u32, out: &mut Vec<u8>) {
        let verb: &[u8] = match self {
            Self::Get { .. } | Self::GetAndTouch { .. } | Self::Lease { .. } | Self::Inspect => {
                b"mg "
            }
            Self::Touch { .. } => b"mg ",
            Self::Store { .. } | Self::Extend { .. } => b"ms ",
            Self::Delete | Self::DeleteVersion { .. } | Self::Invalidate { .. } => b"md ",
            Self::Count { .. } | Self::CountFrom { .. } => b"ma ",
        };
        out.extend_from_slice(verb);
        key.write(out);
        let data = match self {
            Self::Store { data, .. } | Self::Extend { data, .. } => Some(*data),
            _ => None,
        };
        if let Some(data) = data {
            number(out, b" ", data.len());
        }
        if key.form == Form::Base64 {
            out.extend_from_slice(b" b");
        }
        number(out, b" O", opaque);
        self.write_meta_flags(out);
        out.extend_from_slice(b"\r\n");
        if let Some(data) = data {
            out.extend_from_slice(data);
            out.extend_from_slice(b"\r\n");
        }
    }

    fn write_meta_flags(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Get { .. } => out.extend_from_slice(b" v f c"),
            Self::GetAndTouch { exptime } => {
                out.extend_from_slice(b" v f c");
                number(out, b" T", exptime);
            }
            Self::Store { mode, flags, exptime, .. } => {
                number(out, b" F", flags);
                number(out, b" T", exptime);
                match mode {
                    Mode::Set => {}
                    Mode::Add => out.extend_from_slice(b" ME"),
                    Mode::Replace => out.extend_from_slice(b" MR"),
                    Mode::Cas(token) => number(out, b" C", token),
                }
            }
            Self::Extend { front, token, .. } => {
                out.extend_from_slice(if front { b" MP" } else { b" MA" });
                if let Some(token) = token {
                    number(out, b" C", token);
                }
            }
            Self::Delete => {}
            Self::Touch { exptime } => number(out, b" T", exptime),
            Self::Count { up, delta } => {
                out.extend_from_slice(if up { b" v" } else { b" v MD" });
                number(out, b" D", delta);
            }
            Self::CountFrom { up, delta, initial, exptime } => {
                out.extend_from_slice(if up { b" v" } else { b" v MD" });
                number(out, b" D", delta);
                number(out, b" J", initial);
                number(out, b" N", exptime);
            }
            Self::Lease { seconds, recache } => {
                out.extend_from_slice(b" v f c");
                number(out, b" N", seconds);
                if let Some(recache) = recache {
                    number(out, b" R", recache);
                }
            }
            Self::DeleteVersion { token } => number(out, b" C", token),
            Self::Inspect => out.extend_from_slice(b" f c t s l h"),
            Self::Invalidate { exptime } => {
                out.extend_from_slice(b" I");
                number(out, b" T", exptime);
            }
        }
    }
}

/// Requests that are not about a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::client) enum ServerCommand<'a> {
    Version,
    Stats(&'a str),
    FlushAll {
        delay_seconds: u32,
    },
    ConfigCluster,
    /// The keys of all items.
    ListKeys,
}

/// What the caller is told of a command that the binary protocol does not have.
pub(in crate::client) fn needs_text(what: &str) -> Error {
    Error::Config(format!(
        "{what} has no command in the binary protocol, which is spoken where Login::sasl logs in"
    ))
}

impl ServerCommand<'_> {
    /// An error as it is for this command: most change nothing.
    pub(crate) fn doubted(&self, error: Error) -> Error {
        match self {
            Self::FlushAll { .. } => error,
            _ => error.without_doubt(),
        }
    }

    /// Refuses what this protocol has no words for.
    pub(crate) fn check(&self, protocol: Protocol) -> Result<(), Error> {
        match (protocol, self) {
            (Protocol::Binary, Self::ConfigCluster) => Err(needs_text("config get cluster")),
            (Protocol::Binary, Self::ListKeys) => Err(needs_text("a list of keys")),
            _ => Ok(()),
        }
    }

    /// Appends the request.
    pub(crate) fn write(&self, protocol: Protocol, opaque: u32, out: &mut Vec<u8>) -> Expect {
        if protocol == Protocol::Binary {
            return frame::write_for_server(self, opaque, out);
        }
        match self {
            Self::Version => {
                out.extend_from_slice(b"version\r\n");
                Expect::Line
            }
            Self::Stats("") => {
                out.extend_from_slice(b"stats\r\n");
                Expect::Stats
            }
            Self::Stats(arguments) => {
                out.extend_from_slice(b"stats ");
                out.extend_from_slice(arguments.as_bytes());
                out.extend_from_slice(b"\r\n");
                Expect::Stats
            }
            Self::FlushAll { delay_seconds: 0 } => {
                out.extend_from_slice(b"flush_all\r\n");
                Expect::Line
            }
            Self::FlushAll { delay_seconds } => {
                number(out, b"flush_all ", *delay_seconds);
                out.extend_from_slice(b"\r\n");
                Expect::Line
            }
            Self::ConfigCluster => {
                out.extend_from_slice(b"config get cluster\r\n");
                Expect::Config
            }
            Self::ListKeys => {
                out.extend_from_slice(b"lru_crawler metadump all\r\n");
                Expect::Keys
            }
        }
    }
}

fn number(out: &mut Vec<u8>, before: &[u8], number: impl itoa::Integer + std::fmt::Display) {
    out.extend_from_slice(before);
    // Cannot fail: the target is memory.
    let _ = out.write_all(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::parse_line;
    use std::borrow::Cow;

    fn written(command: Command<'_>, key: &[u8], form: Form) -> String {
        let mut out = Vec::new();
        command.write(&WireKey { bytes: Cow::Borrowed(key), form }, 7, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn requests_as_they_are_sent() {
        let store = |mode| Command::Store { mode, flags: 5, exptime: 60, data: b"abc" };
        let from = Command::CountFrom { up: false, delta: 2, initial: 9, exptime: 30 };
        for (command, classic, meta) in [
            (Command::Get { token: false }, "get k\r\n", "mg aw== b O7 v f c\r\n"),
            (Command::Get { token: true }, "gets k\r\n", "mg aw== b O7 v f c\r\n"),
            (Command::GetAndTouch { exptime: 9 }, "gat 9 k\r\n", "mg aw== b O7 v f c T9\r\n"),
            (store(Mode::Set), "set k 5 60 3\r\nabc\r\n", "ms aw== 3 b O7 F5 T60\r\nabc\r\n"),
            (store(Mode::Add), "add k 5 60 3\r\nabc\r\n", "ms aw== 3 b O7 F5 T60 ME\r\nabc\r\n"),
            (
                store(Mode::Cas(8)),
                "cas k 5 60 3 8\r\nabc\r\n",
                "ms aw== 3 b O7 F5 T60 C8\r\nabc\r\n",
            ),
            (
                Command::Extend { front: false, data: b"abc", token: None },
                "append k 0 0 3\r\nabc\r\n",
                "ms aw== 3 b O7 MA\r\nabc\r\n",
            ),
            (
                Command::Extend { front: true, data: b"abc", token: Some(8) },
                "ms k 3 O7 MP C8\r\nabc\r\n",
                "ms aw== 3 b O7 MP C8\r\nabc\r\n",
            ),
            (Command::Delete, "delete k\r\n", "md aw== b O7\r\n"),
            (Command::Touch { exptime: -1 }, "touch k -1\r\n", "mg aw== b O7 T-1\r\n"),
            (Command::Count { up: true, delta: 2 }, "incr k 2\r\n", "ma aw== b O7 v D2\r\n"),
            (from, "ma k O7 v MD D2 J9 N30\r\n", "ma aw== b O7 v MD D2 J9 N30\r\n"),
            (
                Command::Lease { seconds: 30, recache: Some(5) },
                "mg k O7 v f c N30 R5\r\n",
                "mg aw== b O7 v f c N30 R5\r\n",
            ),
            (Command::DeleteVersion { token: 4 }, "md k O7 C4\r\n", "md aw== b O7 C4\r\n"),
        ] {
            assert_eq!(written(command, b"k", Form::Plain), classic);
            assert_eq!(written(command, b"k", Form::Base64), meta);
            for line in [classic, meta] {
                let line = line.split("\r\n").next().unwrap();
                assert!(parse_line(line.as_bytes(), 2).is_ok(), "our own server reads {line}");
            }
        }
    }
}
