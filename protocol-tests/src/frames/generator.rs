//! Random requests. Few keys, so that they meet each other's items. No I/O: the same seed and time
//! give the same requests.

use super::request::{Condition, FLUSH, Lies, NOOP, Request, Traits, Value};
use fastrand::Rng;

/// Values of this size fit no item.
const VALUE_BYTES_TOO_LARGE: usize = 1_100_000;
/// What an incr that is not to create its number sends.
const NO_NEW_NUMBER: u32 = 0xffff_ffff;

/// Loud and quiet opcodes.
const GETS: [u8; 4] = [0x00, 0x09, 0x0c, 0x0d];
const GETS_THAT_TOUCH: [u8; 5] = [0x1c, 0x1d, 0x1e, 0x23, 0x24];
const STORES: [u8; 6] = [0x01, 0x02, 0x03, 0x11, 0x12, 0x13];
const JOINS: [u8; 4] = [0x0e, 0x0f, 0x19, 0x1a];
const DELETES: [u8; 2] = [0x04, 0x14];
const SUMS: [u8; 4] = [0x05, 0x06, 0x15, 0x16];

/// A source of random requests.
#[derive(Debug)]
pub(super) struct Generator {
    pub random: Rng,
    /// Unix time, for absolute expiries.
    now: u32,
    /// Use numbers from 2^63 on, which 1.6.18 reads as numbers only by chance.
    large_numbers: bool,
}

impl Generator {
    /// Requests that depend on nothing but these arguments.
    #[must_use]
    pub(super) fn new(seed: u64, now: u32, large_numbers: bool) -> Self {
        Self { random: Rng::with_seed(seed), now, large_numbers }
    }

    /// The next request.
    pub(super) fn request(&mut self) -> Request {
        let mut request = match self.random.u32(..1000) {
            0 => self.flush(),
            1..=3 => self.closing(),
            4..=9 => Request { traits: own_words(), ..Request::new(0x0b) },
            10..=14 => self.stat(),
            15..=20 => self.unknown(),
            21..=60 => Request::new(NOOP),
            61..=380 => self.get(),
            381..=480 => self.get_and_touch(),
            481..=700 => self.store(),
            701..=790 => self.join(),
            791..=860 => self.delete(),
            _ => self.sum(),
        };
        if self.one_in(8) {
            request.ignored = [self.random.u8(..), self.random.u8(..), self.random.u8(..)];
        }
        request
    }

    /// True once in `denominator` times.
    fn one_in(&mut self, denominator: u32) -> bool {
        self.random.u32(..denominator) == 0
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.random.usize(..choices.len())]
    }

    fn opcode(&mut self, choices: &[u8]) -> u8 {
        self.pick(choices)
    }

    fn key(&mut self) -> Vec<u8> {
        match self.random.usize(..14) {
            0 => vec![b'L'; 250],
            1 => b"with space".to_vec(),
            2 => b"nul\0and\r\nline".to_vec(),
            3 => b"\x80\x81\xff".to_vec(),
            number @ 4..=8 => format!("num{number}").into_bytes(),
            number => format!("pre:key{number}").into_bytes(),
        }
    }

    fn value(&mut self) -> Value {
        match self.random.u32(..200) {
            0 => Value::Run(b'h', 500_000),
            1..=4 => Value::Run(b'm', self.random.usize(8_000..40_000)),
            5..=60 => Value::Bytes(self.number().to_string().into_bytes()),
            61..=80 => Value::Bytes(Vec::new()),
            81..=90 => Value::Bytes(b"12 ".to_vec()),
            91..=100 => Value::Bytes(b"\x80\r\n\0".to_vec()),
            _ => {
                let (byte, count) = (self.random.u8(b'a'..=b'z'), self.random.usize(..300));
                Value::Run(byte, count)
            }
        }
    }

    fn number(&mut self) -> u64 {
        match self.random.u32(..10) {
            0 if self.large_numbers => u64::MAX - self.random.u64(..3),
            1 => self.random.u64(..1 << 40),
            2 => 0,
            _ => self.random.u64(..200),
        }
    }

    fn expiry(&mut self) -> u32 {
        let now = self.now;
        match self.random.u32(..12) {
            0 => 2_592_000,
            1 => now + 10_000,
            2 => now - 10_000_000,
            3 => 2_592_001,
            4 => 0x8000_0000,
            5 => u32::MAX,
            6 => 10_000,
            _ => 0,
        }
    }

    fn condition(&mut self) -> Condition {
        match self.random.u32(..8) {
            0 => Condition::Token { age: 0 },
            1 => Condition::Token { age: self.random.usize(..3) },
            _ => Condition::None,
        }
    }

    fn flush(&mut self) -> Request {
        let mut request = Request::new(self.pick(&[FLUSH, 0x18]));
        if self.one_in(2) {
            request.extras = 0u32.to_be_bytes().to_vec();
        }
        request
    }

    /// `stat`, of what both servers know or of what neither does.
    fn stat(&mut self) -> Request {
        let known = self.pick(&["", "settings", "items", "slabs", "sizes", "nothing", "detail no"]);
        Request { traits: own_words(), ..Request::on(0x10, known.as_bytes()) }
    }

    /// A body without a key: memcached skips key and extras twice and loses its place.
    fn unknown(&mut self) -> Request {
        let opcode = self.pick(&[0x1f, 0x25, 0x30, 0x3c, 0x40, 0xfe]);
        let value = if self.one_in(2) { Value::Run(b'u', 40) } else { Value::default() };
        Request { value, ..Request::new(opcode) }
    }

    fn get(&mut self) -> Request {
        let traits = Traits { reads: true, ..Traits::default() };
        Request { traits, ..Request::on(self.opcode(&GETS), &self.key()) }
    }

    fn get_and_touch(&mut self) -> Request {
        let traits = Traits { reads: true, ..Traits::default() };
        let extras = self.expiry().to_be_bytes().to_vec();
        Request { traits, extras, ..Request::on(self.opcode(&GETS_THAT_TOUCH), &self.key()) }
    }

    fn store(&mut self) -> Request {
        let flags = if self.one_in(2) { 0 } else { self.random.u32(..) };
        let extras = [flags.to_be_bytes(), self.expiry().to_be_bytes()].concat();
        let too_large = self.one_in(2000);
        let value = if too_large { Value::Run(b'X', VALUE_BYTES_TOO_LARGE) } else { self.value() };
        let condition = self.condition();
        Request { extras, value, condition, ..Request::on(self.opcode(&STORES), &self.key()) }
    }

    /// Never to a large value: whether the two together fit differs by the servers' item headers.
    fn join(&mut self) -> Request {
        // Digits behind digits soon make a large number.
        let bytes = if self.large_numbers { b'0'..=b'9' } else { b'a'..=b'f' };
        let value = Value::Run(self.random.u8(bytes), self.random.usize(..12));
        let condition = self.condition();
        Request { value, condition, ..Request::on(self.opcode(&JOINS), &self.key()) }
    }

    fn delete(&mut self) -> Request {
        let condition = self.condition();
        Request { condition, ..Request::on(self.opcode(&DELETES), &self.key()) }
    }

    fn sum(&mut self) -> Request {
        let (delta, initial) = (self.number(), self.number());
        let expiry = if self.one_in(2) { NO_NEW_NUMBER } else { self.expiry() };
        let mut extras = delta.to_be_bytes().to_vec();
        extras.extend(initial.to_be_bytes());
        extras.extend(expiry.to_be_bytes());
        let traits = Traits { writes_in_place: true, ..Traits::default() };
        let condition = self.condition();
        let key = if self.one_in(5) { self.key() } else { self.number_key() };
        Request { extras, traits, condition, ..Request::on(self.opcode(&SUMS), &key) }
    }

    fn number_key(&mut self) -> Vec<u8> {
        format!("num{}", self.random.usize(4..=8)).into_bytes()
    }

    /// A request after which nothing more is understood.
    fn closing(&mut self) -> Request {
        let lies = |lies| Request { lies, value: Value::Run(0, 40), ..Request::on(0x01, b"key") };
        let mut request = match self.random.u32(..12) {
            0 => Request::new(0x07),
            1 => Request::new(0x17),
            2 => lies(Lies { magic: Some(self.random.u8(..0x80)), ..Lies::default() }),
            3 => lies(Lies { key_bytes: Some(43), body_bytes: Some(42), ..Lies::default() }),
            4 => lies(Lies { extras_bytes: Some(40), body_bytes: Some(42), ..Lies::default() }),
            5 => lies(Lies { body_bytes: Some(1 << 31), ..Lies::default() }),
            6 => lies(Lies { body_bytes: Some(u32::MAX), ..Lies::default() }),
            7 => lies(Lies { body_bytes: Some(2), ..Lies::default() }),
            8 => Request::on(self.opcode(&GETS), &[b'K'; 251]),
            9 => Request::new(self.pick(&[0x00, 0x04, 0x05, 0x0e, 0x1c, 0x1d, 0x21])),
            10 => {
                let opcode = self.pick(&[0x00, 0x01, 0x04, 0x05, 0x0e, 0x1d, 0x10]);
                Request { extras: vec![0; 5], ..Request::on(opcode, b"key") }
            }
            _ => Request::on(self.pick(&[0x07, 0x08, 0x0a, 0x0b, 0x20]), b"key"),
        };
        request.traits.closes = true;
        request
    }
}

fn own_words() -> Traits {
    Traits { own_words: true, ..Traits::default() }
}
