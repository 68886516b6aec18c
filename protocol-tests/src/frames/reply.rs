//! Replies of the binary protocol, and whether two servers' are the same.
//!
//! No I/O. Tokens have to change together; what a server says about itself is its own.

use super::request::{HEADER_BYTES, NOOP, Request};
use crate::stream::tokens::Tokens;
use std::fmt;

const MAGIC: u8 = 0x81;

/// A reply as its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The request's.
    pub opcode: u8,
    /// What became of it.
    pub status: u16,
    /// The request's.
    pub opaque: u32,
    /// Token.
    pub cas: u64,
    /// Extras.
    pub extras: Vec<u8>,
    /// Key.
    pub key: Vec<u8>,
    /// Value.
    pub value: Vec<u8>,
}

/// Cuts a stream into replies. What is left is returned too: nothing, if the server is well.
#[must_use]
pub fn parse(stream: &[u8]) -> (Vec<Reply>, &[u8]) {
    let mut rest = stream;
    let mut replies = Vec::new();
    while let Some((reply, bytes)) = first(rest) {
        replies.push(reply);
        rest = &rest[bytes..];
    }
    (replies, rest)
}

fn first(stream: &[u8]) -> Option<(Reply, usize)> {
    let header = stream.get(..HEADER_BYTES)?;
    let number = |at: usize, bytes: usize| {
        header[at..at + bytes].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    };
    if header[0] != MAGIC {
        return None;
    }
    let (key_bytes, extras_bytes) = (number(2, 2) as usize, usize::from(header[4]));
    let body_bytes = usize::try_from(number(8, 4)).ok()?;
    let body = stream.get(HEADER_BYTES..HEADER_BYTES + body_bytes)?;
    let (extras, rest) = body.split_at_checked(extras_bytes)?;
    let (key, value) = rest.split_at_checked(key_bytes)?;
    let reply = Reply {
        opcode: header[1],
        status: number(6, 2) as u16,
        opaque: number(12, 4) as u32,
        cas: number(16, 8),
        extras: extras.to_vec(),
        key: key.to_vec(),
        value: value.to_vec(),
    };
    Some((reply, HEADER_BYTES + body_bytes))
}

/// Looks for the end of a batch while its replies arrive.
#[derive(Debug, Default)]
pub struct Watch {
    seen: usize,
}

impl Watch {
    /// Whether the noop with this opaque was answered. Each call passes the same stream, only
    /// longer.
    pub fn is_answered(&mut self, stream: &[u8], opaque: u32) -> bool {
        while let Some(header) = stream.get(self.seen..self.seen + HEADER_BYTES) {
            let body = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
            let is_last = header[1] == NOOP && header[12..16] == opaque.to_be_bytes();
            let end = self.seen + HEADER_BYTES + body as usize;
            if stream.len() < end {
                return false;
            }
            self.seen = end;
            if is_last {
                return true;
            }
        }
        false
    }
}

/// Whether the replies to one request are the same. Learns its tokens.
pub fn same(request: &Request, left: &[Reply], right: &[Reply], tokens: &mut Tokens) -> bool {
    if request.traits.own_words {
        return left.is_empty() == right.is_empty()
            && left.last().map(|reply| reply.status) == right.last().map(|reply| reply.status);
    }
    let key = Some(request.key.as_slice()).filter(|key| !key.is_empty());
    let mut pairs = left.iter().zip(right);
    left.len() == right.len()
        && pairs.all(|(left, right)| {
            if let (Some(key), true) = (key, left.cas != 0 && right.cas != 0) {
                tokens.remember(key, left.cas, right.cas);
            }
            let but_token = Reply { cas: left.cas, ..right.clone() };
            *left == but_token && tokens.pair(key, left.cas, right.cas)
        })
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { opcode, status, opaque, cas, extras, .. } = self;
        write!(f, "{opcode:#04x} status {status:#06x} opaque {opaque} cas {cas}")?;
        let shown = |bytes: &[u8]| bytes[..bytes.len().min(200)].escape_ascii().to_string();
        let (key, value) = (shown(&self.key), shown(&self.value));
        write!(f, " extras {extras:02x?} key \"{key}\" value \"{value}\" ({})", self.value.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(opcode: u8, opaque: u32, value: &[u8]) -> Vec<u8> {
        let mut bytes = vec![MAGIC, opcode, 0, 0, 0, 0, 0, 0];
        bytes.extend((value.len() as u32).to_be_bytes());
        bytes.extend(opaque.to_be_bytes());
        bytes.extend([0; 8]);
        bytes.extend(value);
        bytes
    }

    #[test]
    fn replies_are_told_apart_and_the_last_is_found() {
        let all = [reply(0, 7, b"value"), reply(NOOP, 6, b""), reply(NOOP, 8, b"")].concat();
        let (replies, rest) = parse(&all);
        assert_eq!((replies.len(), rest.len()), (3, 0));
        assert_eq!((replies[0].opaque, replies[0].value.as_slice()), (7, b"value".as_slice()));
        let mut watch = Watch::default();
        for end in 0..all.len() {
            assert!(!watch.is_answered(&all[..end], 8), "{end}");
        }
        assert!(watch.is_answered(&all, 8));
    }
}
