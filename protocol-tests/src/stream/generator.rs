//! Random classic commands, and the choice between all kinds of commands.
//!
//! Few keys, so that commands meet each other's items. No I/O: the same seed and time give the same
//! commands.

use fastrand::Rng;

use super::command::{Command, Piece, Traits};
use super::{malformed, meta};

/// Keys of items of any kind. One is as long as a key may be.
const KEYS: usize = 12;
/// Keys that mostly hold numbers.
const NUMBER_KEYS: usize = 6;
const KEY_BYTES_MAX: usize = 250;

/// Values around here may or may not fit an item of the default size: servers differ in their
/// headers.
const VALUE_BYTES_SAFE_MAX: usize = 1_000_000;
/// Values of this size fit no item.
const VALUE_BYTES_TOO_LARGE: usize = 1_100_000;

/// Whether servers take a longer line, other than get and gets, depends on how much of it has
/// arrived when they look.
const LINE_BYTES_SAFE: usize = 2000;

/// A source of random commands.
#[derive(Debug)]
pub struct Generator {
    pub(super) random: Rng,
    /// Unix time, for absolute expiries.
    pub(super) now: i64,
    /// Use numbers from 2^63 on, which 1.6.18 reads as numbers only by chance.
    large_numbers: bool,
}

impl Generator {
    /// Commands that depend on nothing but these arguments.
    #[must_use]
    pub fn new(seed: u64, now: i64, large_numbers: bool) -> Self {
        Self { random: Rng::with_seed(seed), now, large_numbers }
    }

    /// The next command.
    pub fn command(&mut self) -> Command {
        match self.random.u32(..10_000) {
            0..=2 => self.flush(),
            3..=12 => self.closing(),
            13..=60 => self.verbosity(),
            61..=90 => Command::new("version\r\n"),
            91..=200 => Command { sentinels: 1, ..Command::new("mn\r\n") },
            201..=500 => malformed::command(self),
            501..=700 => malformed::bad_data(self),
            701..=2800 => self.storage(),
            2801..=4300 => self.get(),
            4301..=4700 => self.get_and_touch(),
            4701..=5300 => self.delete(),
            5301..=6000 => self.arithmetic(),
            6001..=6300 => self.touch(),
            _ => meta::command(self),
        }
    }

    /// True once in `denominator` times.
    pub(super) fn one_in(&mut self, denominator: u32) -> bool {
        self.random.u32(..denominator) == 0
    }

    /// One of several texts.
    pub(super) fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        self.random.choice(choices).copied().unwrap_or_default()
    }

    /// A key that any command may use.
    pub(super) fn key(&mut self) -> Vec<u8> {
        if self.one_in(4) {
            return self.number_key();
        }
        match self.random.usize(..KEYS) {
            0 => vec![b'L'; KEY_BYTES_MAX],
            1 => "schl\u{fc}ssel:\u{20ac}".as_bytes().to_vec(),
            2 => b"pre:fix/\x01\x7f\"%s".to_vec(),
            number => format!("key:{number:02}").into_bytes(),
        }
    }

    /// A key for arithmetic.
    pub(super) fn number_key(&mut self) -> Vec<u8> {
        format!("num{:03}", self.random.usize(..NUMBER_KEYS)).into_bytes()
    }

    /// An expiry: never, far away, or past. Never close to now.
    pub(super) fn expiry(&mut self) -> String {
        let later = (self.now + 500_000).to_string();
        let earlier = (self.now - 500_000).to_string();
        let choices = [
            "0",
            "0",
            "0",
            "0",
            "0",
            "0",
            "500",
            "10000",
            "100000",
            "2592000",
            "2147483647",
            "-1",
            "-100",
            "-2147483648",
            "2592001",
            &later,
            &earlier,
        ];
        self.random.choice(choices).unwrap_or_default().to_owned()
    }

    /// Client flags that servers accept.
    fn client_flags(&mut self) -> String {
        let choices = ["0", "0", "0", "1", "7", "32", "65535", "65536", "4294967295", "007"];
        self.random.choice(choices).unwrap_or_default().to_owned()
    }

    /// Appends a value of some size and its line end; returns what to write as its length.
    pub(super) fn value(&mut self, key: &[u8]) -> (usize, Vec<Piece>) {
        if key.starts_with(b"num") && !self.one_in(10) {
            let digits = self.number_value();
            return (digits.len(), vec![Piece::Bytes(digits.into_bytes())]);
        }
        let length = match self.random.u32(..2000) {
            0 => VALUE_BYTES_TOO_LARGE + self.random.usize(..100_000),
            1..=3 => self.random.usize(100_000..VALUE_BYTES_SAFE_MAX),
            4..=20 => self.random.usize(10_000..100_000),
            21..=200 => self.random.usize(200..10_000),
            201..=400 => 0,
            _ => self.random.usize(..60),
        };
        if self.one_in(20) {
            let text = b"get k\r\nEND\r\n\0VALUE x 0 1\r\n";
            return (text.len(), vec![Piece::Bytes(text.to_vec())]);
        }
        // No spaces: memcached reads on behind a value of only spaces when it looks for a number.
        let byte = self.random.choice(*b"abcdefgh\0\x7f\xff").unwrap_or(b'a');
        (length, vec![Piece::Run(byte, length)])
    }

    fn number_value(&mut self) -> String {
        match self.random.u32(if self.large_numbers { 0..10 } else { 2..10 }) {
            0 => "18446744073709551615".to_owned(),
            1 => "18446744073709551616".to_owned(),
            2 => "0".to_owned(),
            3 => "000099".to_owned(),
            4 => format!("{}   ", self.random.u32(..200)),
            5 if self.large_numbers => self.random.u64(..).to_string(),
            _ => self.random.u32(..1200).to_string(),
        }
    }

    /// A delta, or something that is not one.
    pub(super) fn delta(&mut self) -> String {
        match self.random.u32(if self.large_numbers { 0..20 } else { 2..20 }) {
            0 => "18446744073709551615".to_owned(),
            1 => "18446744073709551616".to_owned(),
            2 => self.pick(&["-1", "x", "1x", "1.5", "99999999999999999999999"]).to_owned(),
            3 if self.large_numbers => self.random.u64(..).to_string(),
            _ => self.random.u32(..120).to_string(),
        }
    }

    fn noreply(&mut self) -> &'static str {
        if self.one_in(8) { " noreply\r\n" } else { "\r\n" }
    }

    fn storage(&mut self) -> Command {
        let verb = self.pick(&["set", "set", "set", "add", "replace", "append", "prepend", "cas"]);
        let key = self.key();
        let (length, value) = self.value(&key);
        let mut command = Command::new(format!("{verb} "));
        command.push(&key);
        command.push(format!(" {} {} {length}", self.client_flags(), self.expiry()));
        if verb == "cas" {
            command.push(" ");
            self.push_token(&mut command, &key);
        }
        command.push(self.noreply());
        command.pieces.extend(value);
        command.push("\r\n");
        command.keys.push(key);
        command
    }

    /// A token of this key, mostly the latest known.
    pub(super) fn push_token(&mut self, command: &mut Command, key: &[u8]) {
        match self.random.u32(..12) {
            0 => command.push("0"),
            1 => command.push("18446744073709551615"),
            2 => command.push(self.explicit_token()),
            choice => {
                let age = if choice < 6 { self.random.usize(..3) } else { 0 };
                command.pieces.push(Piece::Token { key: key.to_vec(), age });
            }
        }
    }

    /// A token chosen by the client: far above those that servers choose.
    pub(super) fn explicit_token(&mut self) -> String {
        (9_000_000_000_000_000_000 + self.random.u64(..50)).to_string()
    }

    fn get(&mut self) -> Command {
        let verb = self.pick(&["get", "get", "gets"]);
        self.with_keys(verb)
    }

    fn get_and_touch(&mut self) -> Command {
        let verb = self.pick(&["gat", "gats"]);
        let expiry = self.expiry();
        self.with_keys(&format!("{verb} {expiry}"))
    }

    fn with_keys(&mut self, start: &str) -> Command {
        let mut command = Command::new(start);
        let mut line_bytes = start.len();
        let count =
            if self.one_in(50) { self.random.usize(5..60) } else { self.random.usize(1..4) };
        for _ in 0..count {
            let key = self.key();
            line_bytes += key.len() + 2;
            if start.starts_with("gat") && LINE_BYTES_SAFE < line_bytes {
                break;
            }
            command.push(if self.one_in(30) { "  " } else { " " });
            command.push(&key);
            command.keys.push(key);
        }
        command.push(if self.one_in(20) { "\n" } else { "\r\n" });
        command.traits = Traits { reads: true, ..Traits::default() };
        command
    }

    fn delete(&mut self) -> Command {
        let delay = if self.one_in(10) { " 0" } else { "" };
        let end = self.noreply();
        self.with_key("delete", &format!("{delay}{end}"))
    }

    fn touch(&mut self) -> Command {
        let expiry = self.expiry();
        let end = self.noreply();
        self.with_key("touch", &format!(" {expiry}{end}"))
    }

    pub(super) fn with_key(&mut self, verb: &str, end: &str) -> Command {
        let key = self.key();
        let mut command = Command::new(format!("{verb} "));
        command.push(&key);
        command.push(end);
        command.keys.push(key);
        command
    }

    fn arithmetic(&mut self) -> Command {
        let verb = self.pick(&["incr", "decr"]);
        let key = if self.one_in(10) { self.key() } else { self.number_key() };
        let mut command = Command::new(format!("{verb} "));
        command.push(&key);
        command.push(format!(" {}", self.delta()));
        command.push(self.noreply());
        command.keys.push(key);
        command.traits = Traits { writes_in_place: true, ..Traits::default() };
        command
    }

    /// Without delays: in memcached a delayed flush brings back what an earlier one has flushed.
    fn flush(&mut self) -> Command {
        let text = self.pick(&["", " 0", " -1", " noreply", " 0 noreply", " x", " 1x"]);
        Command::new(format!("flush_all{text}\r\n"))
    }

    fn verbosity(&mut self) -> Command {
        let level = self.pick(&["0", "1", "0 noreply", "x", "-1"]);
        Command::new(format!("verbosity {level}\r\n"))
    }

    fn closing(&mut self) -> Command {
        let text = self.pick(&[
            "quit\r\n",
            "quit\n",
            "quit now\r\n",
            "GET / HTTP/1.1\r\n",
            "POST /path HTTP/1.0\r\n",
        ]);
        let mut command = Command::new(text);
        if self.one_in(4) {
            let junk = self.random.usize(2049..6000);
            command = Command { pieces: vec![Piece::Run(b'z', junk)], ..Command::default() };
        }
        command.traits = Traits { closes: true, ..Traits::default() };
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_decides() {
        let commands = |seed| {
            let mut generator = Generator::new(seed, 1_800_000_000, true);
            (0..1000).map(|_| generator.command()).collect::<Vec<_>>()
        };
        assert_eq!(commands(1), commands(1));
        assert_ne!(commands(1), commands(2));
    }
}
