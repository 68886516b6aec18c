//! Reads a dump: commands with their data blocks, one after the other.
//!
//! Takes what `distcached dump` writes, any file of `set`, `add` and `ms` commands, and so what
//! `memcached-tool ADDRESS dump` prints, which are `add` commands and nothing at the end. Every
//! item becomes a quiet `ms`, so that only what goes wrong is answered. No sockets.

use super::load::Trouble;
use crate::limits::LINE_BYTES_MAX;
use crate::protocol::{MetaVerb, Request, StoreMode, parse_line};
use std::io::{BufRead, Read};

/// A command for a server: its line without the end, and the data block of one that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command {
    /// The line.
    pub line: Vec<u8>,
    /// The value.
    pub value: Option<Vec<u8>>,
}

/// See the module's text.
pub(super) struct Stream<R> {
    input: R,
    bytes_read: u64,
    line_number: u64,
    /// An `add` was read: such a dump has no line that ends it.
    unmarked: bool,
    ended: bool,
}

impl<R: BufRead> Stream<R> {
    /// A stream at its beginning.
    pub(super) fn new(input: R) -> Self {
        Self { input, bytes_read: 0, line_number: 0, unmarked: false, ended: false }
    }

    /// Bytes read so far.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    fn wrong(&self, what: &str) -> Trouble {
        let Self { bytes_read, line_number, .. } = self;
        Trouble::Stream(format!(
            "the dump, command {line_number}, before byte {bytes_read}: {what}"
        ))
    }

    /// The next command; `None` behind the last.
    pub(super) fn next(&mut self) -> Result<Option<Command>, Trouble> {
        if self.ended {
            return Ok(None);
        }
        let mut line = Vec::new();
        let limit = LINE_BYTES_MAX as u64;
        let read = self.input.by_ref().take(limit).read_until(b'\n', &mut line);
        self.bytes_read += read.map_err(|why| Trouble::Source(why.to_string()))? as u64;
        if line.is_empty() && self.unmarked {
            self.ended = true;
            return Ok(None);
        }
        self.line_number += 1;
        if line.pop() != Some(b'\n') {
            return Err(self.wrong("it has lost its end: there is no \"mn\" line"));
        }
        line.truncate(line.strip_suffix(b"\r").map_or(line.len(), <[u8]>::len));
        self.understand(&line)
    }

    fn understand(&mut self, line: &[u8]) -> Result<Option<Command>, Trouble> {
        let parsed = parse_line(line, 2).map_err(|_| self.wrong("not understood"))?;
        let quiet = |quiet: bool| if quiet { &b""[..] } else { b" q" };
        let (line, value_bytes) = match parsed.request {
            Request::MetaNoop => {
                self.ended = true;
                return Ok(None);
            }
            Request::Store { args, value_bytes, .. } if args.mode == StoreMode::Set => {
                (meta_of_classic(line, b""), Some(value_bytes))
            }
            Request::Store { args, value_bytes, .. } if args.mode == StoreMode::Add => {
                self.unmarked = true;
                (meta_of_classic(line, b" ME"), Some(value_bytes))
            }
            Request::MetaStore { args, value_bytes, .. } => {
                ([line, quiet(args.quiet)].concat(), Some(value_bytes))
            }
            Request::Meta { verb: MetaVerb::Get | MetaVerb::Delete, args, .. } if !args.value => {
                ([line, quiet(args.quiet)].concat(), None)
            }
            _ => return Err(self.wrong("not a command of a dump")),
        };
        let value = value_bytes.map(|bytes| self.value(bytes)).transpose()?;
        Ok(Some(Command { line, value }))
    }

    fn value(&mut self, value_bytes: u32) -> Result<Vec<u8>, Trouble> {
        let mut value = Vec::new();
        // Grows as bytes arrive: a damaged length does not allocate what is not there.
        let wanted = u64::from(value_bytes) + 2;
        let read = self.input.by_ref().take(wanted).read_to_end(&mut value);
        self.bytes_read += read.map_err(|why| Trouble::Source(why.to_string()))? as u64;
        let whole = value.len() as u64 == wanted && value.ends_with(b"\r\n");
        if !whole {
            return Err(self.wrong("its value does not end where its length says"));
        }
        value.truncate(value_bytes as usize);
        Ok(value)
    }
}

/// `set key flags exptime bytes` as a meta command of a mode. The line has been parsed by then.
fn meta_of_classic(line: &[u8], mode: &[u8]) -> Vec<u8> {
    let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).skip(1);
    let mut word = || words.next().unwrap_or_default();
    let (key, flags, exptime, bytes) = (word(), word(), word(), word());
    [b"ms ", key, b" ", bytes, b" q F", flags, b" T", exptime, mode].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The commands of a text, or what is wrong with it.
    fn read(text: &[u8]) -> Result<Vec<String>, String> {
        let mut stream = Stream::new(text);
        let mut found = Vec::new();
        loop {
            match stream.next() {
                Ok(None) => return Ok(found),
                Ok(Some(Command { line, value })) => {
                    let value = value.map(|value| String::from_utf8_lossy(&value).into_owned());
                    found.push(format!("{} {value:?}", String::from_utf8_lossy(&line)));
                }
                Err(Trouble::Stream(why)) => return Err(why),
                Err(other) => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn commands_are_read_and_made_quiet() {
        let text = b"set a 5 0 3 noreply\r\nx\ny\r\nms YQ== 0 b q F1 T7\r\n\r\nms b 1\r\nz\r\n\
                     md a q I\r\nmg a q R0\r\nmn\r\nanything behind";
        let expected = [
            "ms a 3 q F5 T0 Some(\"x\\ny\")",
            "ms YQ== 0 b q F1 T7 Some(\"\")",
            "ms b 1 q Some(\"z\")",
            "md a q I None",
            "mg a q R0 None",
        ];
        assert_eq!(read(text).unwrap(), expected);
    }

    /// As memcached-tool writes them.
    #[test]
    fn added_items_need_no_end() {
        let added = |text: &[u8]| read(text).unwrap().join("|");
        assert_eq!(
            added(b"add a 5 0 1\r\nx\r\nadd b 0 1999999999 0\r\n\r\n"),
            "ms a 1 q F5 T0 ME Some(\"x\")|ms b 0 q F0 T1999999999 ME Some(\"\")"
        );
        assert_eq!(added(b"add a 0 0 1\r\nx\r\nmn\r\n"), "ms a 1 q F0 T0 ME Some(\"x\")");
    }

    #[test]
    fn what_is_no_dump_is_refused() {
        for (text, why) in [
            (&b""[..], "lost its end"),
            (b"set a 0 0 1\r\nx\r\n", "lost its end"),
            (b"set a 0 0 1\r\nx\r\nmn", "lost its end"),
            (b"add a 0 0 1\r\nx\r\nadd", "lost its end"),
            (b"add a 0 0 3\r\nx", "does not end where"),
            (b"replace a 0 0 1\r\nx\r\n", "not a command of a dump"),
            (b"set a 0 0 3\r\nx\r\nmn\r\n", "does not end where"),
            (b"set a 0 0 3\r\nx", "does not end where"),
            (b"set a 0 0 4294967295\r\nx", "not understood"),
            (b"flush_all\r\nmn\r\n", "not a command of a dump"),
            (b"mg a v\r\nmn\r\n", "not a command of a dump"),
            (b"\x00\xff\r\n", "not understood"),
        ] {
            let found = read(text).unwrap_err();
            assert!(found.contains(why), "{found}");
        }
    }
}
