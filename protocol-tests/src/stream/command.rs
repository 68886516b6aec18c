//! A generated command: bytes, except where the two servers need different ones.
//!
//! Tokens of `gets` and `mg c` are numbers each server chooses for itself, so a command that sends
//! one back names the token instead of its value.

use super::tokens::{Side, Tokens};

/// Part of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// The same bytes for both servers.
    Bytes(Vec<u8>),
    /// One byte many times: large values, kept small in the history.
    Run(u8, usize),
    /// The token that an item of this key had, `age` tokens ago.
    Token {
        /// Key of the item.
        key: Vec<u8>,
        /// 0: the latest known.
        age: usize,
    },
}

/// What a command needs from its neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traits {
    /// It must be alone between two sentinels: its replies cannot be told from those of others, or
    /// (in memcached) it spoils the replies before it.
    pub isolated: bool,
    /// Its replies hold on to items until they are sent.
    pub reads: bool,
    /// It writes in place unless the item is held by an unsent reply; that shows in the padding.
    pub writes_in_place: bool,
    /// The server closes the connection.
    pub closes: bool,
}

/// One command, its data block included.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Command {
    /// The bytes, in order.
    pub pieces: Vec<Piece>,
    /// Keys it names, as stored (never in base64).
    pub keys: Vec<Vec<u8>>,
    /// Number of `MN` replies it causes itself.
    pub sentinels: usize,
    /// What it needs from its neighbours.
    pub traits: Traits,
}

impl Command {
    /// A command of fixed bytes.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self { pieces: vec![Piece::Bytes(bytes.into())], ..Self::default() }
    }

    /// Appends bytes.
    pub fn push(&mut self, bytes: impl AsRef<[u8]>) {
        match self.pieces.last_mut() {
            Some(Piece::Bytes(last)) => last.extend_from_slice(bytes.as_ref()),
            _ => self.pieces.push(Piece::Bytes(bytes.as_ref().to_vec())),
        }
    }

    /// The bytes for one server.
    pub fn render(&self, tokens: &Tokens, side: Side, bytes: &mut Vec<u8>) {
        for piece in &self.pieces {
            match piece {
                Piece::Bytes(literal) => bytes.extend_from_slice(literal),
                Piece::Run(byte, count) => bytes.resize(bytes.len() + count, *byte),
                Piece::Token { key, age } => {
                    bytes.extend(tokens.of_key(key, *age, side).to_string().bytes());
                }
            }
        }
    }

    /// For messages: tokens by name, runs in braces, everything else escaped.
    #[must_use]
    pub fn display(&self) -> String {
        let show = |piece: &Piece| match piece {
            Piece::Bytes(literal) => literal.escape_ascii().to_string(),
            Piece::Run(byte, count) => format!("{{{}*{count}}}", byte.escape_ascii()),
            Piece::Token { key, age } => format!("{{token of {} -{age}}}", key.escape_ascii()),
        };
        self.pieces.iter().map(show).collect()
    }
}

/// Commands sent together, followed by the sentinel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Slot {
    /// Never empty.
    pub commands: Vec<Command>,
}

impl Slot {
    /// Number of `MN` replies it causes, the sentinel included.
    #[must_use]
    pub fn sentinels(&self) -> usize {
        1 + self.commands.iter().map(|command| command.sentinels).sum::<usize>()
    }

    /// The key of all its commands, if it is only one.
    #[must_use]
    pub fn only_key(&self) -> Option<&[u8]> {
        let mut keys = self.commands.iter().flat_map(|command| &command.keys);
        let first = keys.next()?;
        keys.all(|key| key == first).then_some(first)
    }

    /// Whether `command` may follow in the same slot.
    #[must_use]
    pub fn accepts(&self, command: &Command) -> bool {
        let holds_items = self.commands.iter().any(|it| it.traits.reads);
        let alone = |it: &Command| it.traits.isolated || it.traits.closes;
        if self.commands.is_empty() {
            return true;
        }
        let stands_alone = alone(command) || self.commands.iter().any(alone);
        let would_show = command.traits.writes_in_place && holds_items;
        !(stands_alone || would_show)
    }

    /// Whether the server closes the connection at its end.
    #[must_use]
    pub fn closes(&self) -> bool {
        self.commands.iter().any(|command| command.traits.closes)
    }
}
