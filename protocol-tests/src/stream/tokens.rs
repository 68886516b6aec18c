//! Which token of one server corresponds to which of the other.
//!
//! Tokens mean nothing but identity: a token must not change on one server while it stays the same
//! on the other. memcached never uses a token twice; a server may use it again for another key, as
//! clients only ever compare tokens of one key. Pairs are learned in the order in which they are
//! first seen.

use std::collections::HashMap;

/// Tokens kept per key, for commands that send an old one.
const TOKENS_PER_KEY_MAX: usize = 4;

/// Which of the two servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The server under test.
    Left,
    /// The oracle.
    Right,
}

/// The tokens of both servers seen so far.
#[derive(Debug, Default)]
pub struct Tokens {
    /// By the right server's token.
    to_left: HashMap<u64, u64>,
    /// By key and the left server's token.
    to_right: HashMap<(Vec<u8>, u64), u64>,
    by_key: HashMap<Vec<u8>, Vec<(u64, u64)>>,
}

impl Tokens {
    /// Whether a pair agrees with all earlier ones. Learns it if it is new. Without a key less can
    /// be said.
    pub fn pair(&mut self, key: Option<&[u8]>, left: u64, right: u64) -> bool {
        // 0 is not a token but its absence, on both sides.
        if left == 0 || right == 0 {
            return left == right;
        }
        let known_left = *self.to_left.entry(right).or_insert(left);
        let known_right = match key {
            Some(key) => *self.to_right.entry((key.to_vec(), left)).or_insert(right),
            None => right,
        };
        known_left == left && known_right == right
    }

    /// Remembers that an item of `key` had these tokens.
    pub fn remember(&mut self, key: &[u8], left: u64, right: u64) {
        let known = self.by_key.entry(key.to_vec()).or_default();
        if known.last() != Some(&(left, right)) {
            known.push((left, right));
        }
        if TOKENS_PER_KEY_MAX < known.len() {
            known.remove(0);
        }
    }

    /// A token of `key` for one server; a number that is never a token if none is known.
    #[must_use]
    pub fn of_key(&self, key: &[u8], age: usize, side: Side) -> u64 {
        const NOT_A_TOKEN: u64 = 1;
        let known = self.by_key.get(key).and_then(|known| known.iter().rev().nth(age));
        match (known, side) {
            (None, _) => NOT_A_TOKEN,
            (Some((left, _)), Side::Left) => *left,
            (Some((_, right)), Side::Right) => *right,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_agree() {
        let mut tokens = Tokens::default();
        assert!(tokens.pair(Some(b"a"), 10, 70));
        assert!(tokens.pair(None, 10, 70));
        assert!(!tokens.pair(Some(b"a"), 10, 71), "the left token did not change");
        assert!(tokens.pair(Some(b"b"), 10, 72), "the same token for another key");
        assert!(!tokens.pair(Some(b"a"), 12, 70), "the left token changed");
        assert!(!tokens.pair(None, 0, 99));
        assert!(tokens.pair(None, 0, 0));
    }

    #[test]
    fn old_tokens_are_found_by_age() {
        let mut tokens = Tokens::default();
        assert_eq!(tokens.of_key(b"k", 0, Side::Left), 1);
        for number in 10..20 {
            tokens.remember(b"k", number, number + 100);
        }
        assert_eq!(tokens.of_key(b"k", 0, Side::Left), 19);
        assert_eq!(tokens.of_key(b"k", 2, Side::Right), 117);
        assert_eq!(tokens.of_key(b"k", 9, Side::Right), 1);
    }
}
