//! A request of the binary protocol as its fields, right or wrong.
//!
//! No I/O. A field that a request lies about has a value of its own beside the bytes that follow.

use crate::stream::tokens::{Side, Tokens};
use std::fmt;

/// Bytes before extras, key and value.
pub const HEADER_BYTES: usize = 24;
/// First byte of a request.
pub const MAGIC: u8 = 0x80;
/// Opcode of a noop.
pub const NOOP: u8 = 0x0a;
/// Opcode of a command that empties the server.
pub const FLUSH: u8 = 0x08;

/// The token a request is conditional on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Condition {
    /// None.
    #[default]
    None,
    /// The token that the item of the request's key had, `age` tokens ago.
    Token {
        /// 0: the latest known.
        age: usize,
    },
}

/// Lengths that are not those of the parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lies {
    /// First byte.
    pub magic: Option<u8>,
    /// Length of the key.
    pub key_bytes: Option<u16>,
    /// Length of the extras.
    pub extras_bytes: Option<u8>,
    /// Length of the body.
    pub body_bytes: Option<u32>,
}

/// What a request needs from its neighbours, and from the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traits {
    /// Its reply holds on to an item until it is sent.
    pub reads: bool,
    /// It writes in place unless the item is held by an unsent reply; that shows in the padding.
    pub writes_in_place: bool,
    /// The server closes the connection.
    pub closes: bool,
    /// What it says is each server's own; that it answers counts.
    pub own_words: bool,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// What is asked.
    pub opcode: u8,
    /// Extras.
    pub extras: Vec<u8>,
    /// Key.
    pub key: Vec<u8>,
    /// A byte, and how many times it makes up the value; or the value itself.
    pub value: Value,
    /// Token.
    pub condition: Condition,
    /// Data type and vbucket, which mean nothing.
    pub ignored: [u8; 3],
    /// Wrong fields.
    pub lies: Lies,
    /// What is special about it.
    pub traits: Traits,
}

/// A value, kept small in the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Bytes.
    Bytes(Vec<u8>),
    /// One byte many times.
    Run(u8, usize),
}

impl Default for Value {
    fn default() -> Self {
        Self::Bytes(Vec::new())
    }
}

impl Value {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Run(_, count) => *count,
        }
    }

    fn render(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Bytes(literal) => bytes.extend_from_slice(literal),
            Self::Run(byte, count) => bytes.resize(bytes.len() + count, *byte),
        }
    }
}

impl Request {
    /// A command without anything.
    #[must_use]
    pub fn new(opcode: u8) -> Self {
        Self { opcode, ..Self::default() }
    }

    /// A command on a key.
    #[must_use]
    pub fn on(opcode: u8, key: &[u8]) -> Self {
        Self { key: key.to_vec(), ..Self::new(opcode) }
    }

    /// The bytes for one server.
    pub fn render(&self, opaque: u32, tokens: &Tokens, side: Side, bytes: &mut Vec<u8>) {
        let lies = self.lies;
        let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let body_bytes = self.extras.len() + self.key.len() + self.value.len();
        let key_bytes = u16::try_from(self.key.len()).unwrap_or(u16::MAX);
        let cas = match self.condition {
            Condition::None => 0,
            Condition::Token { age } => tokens.of_key(&self.key, age, side),
        };
        bytes.push(lies.magic.unwrap_or(MAGIC));
        bytes.push(self.opcode);
        bytes.extend(lies.key_bytes.unwrap_or(key_bytes).to_be_bytes());
        bytes.push(lies.extras_bytes.unwrap_or(self.extras.len() as u8));
        bytes.extend(self.ignored);
        bytes.extend(lies.body_bytes.unwrap_or(length(body_bytes)).to_be_bytes());
        bytes.extend(opaque.to_be_bytes());
        bytes.extend(cas.to_be_bytes());
        bytes.extend(&self.extras);
        bytes.extend(&self.key);
        self.value.render(bytes);
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x} key \"{}\"", self.opcode, self.key.escape_ascii())?;
        write!(f, " extras {:02x?}", self.extras)?;
        match &self.value {
            Value::Bytes(bytes) => write!(f, " value \"{}\"", bytes.escape_ascii())?,
            Value::Run(byte, count) => write!(f, " value {{{}*{count}}}", byte.escape_ascii())?,
        }
        if let Condition::Token { age } = self.condition {
            write!(f, " token -{age}")?;
        }
        if self.lies != Lies::default() {
            write!(f, " {:?}", self.lies)?;
        }
        Ok(())
    }
}
