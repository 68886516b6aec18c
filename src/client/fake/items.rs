//! The items of a fake cache: what a server would answer. Owns expiry, tokens and numbers as
//! memcached has them; no values' types, no clock: time is an argument.

use crate::client::config::Expiry;
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

/// Key and value of an item that a server takes by default (`-I 1m`), about.
pub(super) const ITEM_BYTES_MAX: usize = (1 << 20) - 64;

/// An item, or the place of a value that somebody computes.
#[derive(Debug)]
pub(super) struct Item {
    pub data: Vec<u8>,
    pub flags: u32,
    pub token: u64,
    pub until: Option<SystemTime>,
    /// Nobody sees it.
    pub is_place: bool,
}

#[derive(Debug, Default)]
pub(super) struct Items {
    by_key: HashMap<Vec<u8>, Item>,
    tokens: u64,
}

/// When an item is over. Servers count in seconds, and parts of one are rounded up.
pub(super) fn until(expiry: Expiry, now: SystemTime) -> Option<SystemTime> {
    match expiry {
        Expiry::Never => None,
        Expiry::At(at) => Some(at),
        Expiry::In(after) => {
            let seconds = after.as_secs().saturating_add(u64::from(after.subsec_nanos() > 0));
            // What is beyond the end of time is for ever.
            now.checked_add(Duration::from_secs(seconds))
        }
    }
}

impl Items {
    /// What is there at that time, places included.
    fn present(&mut self, key: &[u8], now: SystemTime) -> Option<&mut Item> {
        let is_over = |item: &Item| item.until.is_some_and(|until| until <= now);
        if self.by_key.get(key).is_some_and(is_over) {
            self.by_key.remove(key);
        }
        self.by_key.get_mut(key)
    }

    /// The item of a key.
    pub(super) fn find(&mut self, key: &[u8], now: SystemTime) -> Option<&mut Item> {
        self.present(key, now).filter(|item| !item.is_place)
    }

    /// The token of whatever is there.
    pub(super) fn token(&mut self, key: &[u8], now: SystemTime) -> Option<u64> {
        self.present(key, now).map(|item| item.token)
    }

    pub(super) fn put(&mut self, key: &[u8], data: Vec<u8>, flags: u32, until: Option<SystemTime>) {
        self.tokens += 1;
        let item = Item { data, flags, token: self.tokens, until, is_place: false };
        self.by_key.insert(key.to_vec(), item);
    }

    /// Keeps a place for a value; its token.
    pub(super) fn reserve(&mut self, key: &[u8], until: Option<SystemTime>) -> u64 {
        self.put(key, Vec::new(), 0, until);
        if let Some(item) = self.by_key.get_mut(key) {
            item.is_place = true;
        }
        self.tokens
    }

    /// Gives a place back that is still there.
    pub(super) fn give_back(&mut self, key: &[u8], token: u64) {
        if self.by_key.get(key).is_some_and(|item| item.is_place && item.token == token) {
            self.by_key.remove(key);
        }
    }

    pub(super) fn remove(&mut self, key: &[u8], now: SystemTime) -> Option<Item> {
        let is_there = self.find(key, now).is_some();
        self.by_key.remove(key).filter(|_| is_there)
    }

    /// Up or down from the number of an item; `Some(None)` if it is no number.
    pub(super) fn count(
        &mut self,
        key: &[u8],
        up: bool,
        delta: u64,
        now: SystemTime,
    ) -> Option<Option<u64>> {
        let token = self.tokens + 1;
        let item = self.find(key, now)?;
        let number = counted(&mut item.data, up, delta);
        if number.is_some() {
            item.token = token;
            self.tokens = token;
        }
        Some(number)
    }
}

/// Up or down from the number that is there; `None` if it is no number.
fn counted(data: &mut Vec<u8>, up: bool, delta: u64) -> Option<u64> {
    let digits = std::str::from_utf8(data).ok()?.trim_ascii_end();
    let before: u64 = digits.parse().ok().filter(|_| !digits.starts_with('+'))?;
    let number = if up { before.wrapping_add(delta) } else { before.saturating_sub(delta) };
    // A number that has become shorter is filled up with blanks.
    *data = format!("{number:<width$}", width = data.len()).into_bytes();
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_over_at_their_time() {
        // Every system can tell of that year.
        const FAR: u64 = 1 << 36;
        let start = SystemTime::UNIX_EPOCH;
        let second = |count| start + Duration::from_secs(count);
        for (expiry, last) in [
            (Expiry::Never, Some(FAR)),
            (Expiry::In(Duration::ZERO), None),
            (Expiry::In(Duration::from_millis(1001)), Some(1)),
            (Expiry::In(Duration::MAX), Some(FAR)),
            (Expiry::At(second(60)), Some(59)),
        ] {
            let mut items = Items::default();
            items.put(b"a", Vec::new(), 0, until(expiry, start));
            let found = last.is_none_or(|last| items.find(b"a", second(last)).is_some());
            assert!(found, "{expiry:?}");
            let over = last.map_or(0, |last| last + 1);
            assert_eq!(items.find(b"a", second(over)).is_some(), over > FAR, "{expiry:?}");
        }
    }

    #[test]
    fn numbers_count_as_on_a_server() {
        for (data, up, delta, expected) in [
            ("7", true, 3, Some((10, "10"))),
            ("10", false, 1, Some((9, "9 "))),
            ("9 ", true, 1, Some((10, "10"))),
            ("3", false, 5, Some((0, "0"))),
            ("18446744073709551615", true, 2, Some((1, "1                   "))),
            ("x", true, 1, None),
            ("", true, 1, None),
            ("+1", true, 1, None),
            ("-1", true, 1, None),
        ] {
            let mut data = data.as_bytes().to_vec();
            let number = counted(&mut data, up, delta);
            assert_eq!(number, expected.map(|(number, _)| number));
            if let Some((_, stored)) = expected {
                assert_eq!(data, stored.as_bytes());
            }
        }
    }
}
