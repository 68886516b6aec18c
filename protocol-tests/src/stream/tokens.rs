//! Which token of one server corresponds to which of the other.
//!
//! Tokens mean nothing but identity: whenever two replies show the same token on one server, they
//! must show the same on the other. Pairs are learned in the order in which they are first seen.

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

/// A one-to-one relation between the tokens of both servers.
#[derive(Debug, Default)]
pub struct Tokens {
    to_right: HashMap<u64, u64>,
    to_left: HashMap<u64, u64>,
    by_key: HashMap<Vec<u8>, Vec<(u64, u64)>>,
}

impl Tokens {
    /// Whether the pair agrees with all earlier ones. Learns it if both are new.
    pub fn pair(&mut self, left: u64, right: u64) -> bool {
        match (self.to_right.get(&left), self.to_left.get(&right)) {
            (None, None) => {
                // 0 is not a token but its absence, on both sides.
                if (left == 0) != (right == 0) {
                    return false;
                }
                self.to_right.insert(left, right);
                self.to_left.insert(right, left);
                true
            }
            (Some(known), _) => *known == right,
            (None, Some(_)) => false,
        }
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
    fn pairs_are_one_to_one() {
        let mut tokens = Tokens::default();
        assert!(tokens.pair(10, 70));
        assert!(tokens.pair(11, 71));
        assert!(tokens.pair(10, 70));
        assert!(!tokens.pair(10, 71));
        assert!(!tokens.pair(12, 70));
        assert!(!tokens.pair(0, 99));
        assert!(tokens.pair(0, 0));
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
