//! Compares the replies of two servers to the same commands, byte by byte except where servers are
//! free to differ:
//!
//! - tokens (`gets`, `c`, `cas=`) must only change together, see [`super::tokens`];
//! - seconds left (`t`, `exp=`) may differ by the tick of a clock;
//! - seconds since an access (`l`, `la=`), size class and size (`me`) are the server's own affair;
//! - so is the version.

use super::tokens::Tokens;
use crate::frame::{data_block_bytes, first_line};

/// Both servers read their clocks a little apart.
const CLOCK_TICKS_MAX: i64 = 3;

/// Whether two reply streams are the same. Learns new tokens on the way; `key` is the key they
/// belong to where replies do not say, if it is known.
pub fn same(left: &[u8], right: &[u8], key: Option<&[u8]>, tokens: &mut Tokens) -> bool {
    let mut left = Replies { rest: left };
    let mut right = Replies { rest: right };
    loop {
        match (left.next(), right.next()) {
            (None, None) => return true,
            (Some(left), Some(right)) if same_reply(&left, &right, key, tokens) => {}
            _ => return false,
        }
    }
}

/// A reply line with the data block that follows it.
#[derive(Debug, PartialEq, Eq)]
struct Reply<'a> {
    line: &'a [u8],
    data: &'a [u8],
}

/// Splits a stream of replies.
struct Replies<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Replies<'a> {
    type Item = Reply<'a>;

    fn next(&mut self) -> Option<Reply<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let line = first_line(self.rest).unwrap_or(self.rest);
        let rest = &self.rest[line.len()..];
        let (data, rest) = rest.split_at(data_block_bytes(line).min(rest.len()));
        self.rest = rest;
        Some(Reply { line, data })
    }
}

fn same_reply<'a>(
    left: &Reply<'a>,
    right: &Reply<'a>,
    key: Option<&[u8]>,
    tokens: &mut Tokens,
) -> bool {
    if left.data != right.data {
        return false;
    }
    if left.line == right.line && !may_hold_token(left.line) {
        return true;
    }
    let split = |line: &'a [u8]| {
        let line = line.strip_suffix(b"\r\n")?;
        Some(line.split(|&byte| byte == b' ').collect::<Vec<_>>())
    };
    let (Some(left), Some(right)) = (split(left.line), split(right.line)) else { return false };
    if left.len() != right.len() || left[0] != right[0] {
        return false;
    }
    match left[0] {
        b"VERSION" => true,
        b"VALUE" => same_value_line(&left, &right, tokens),
        b"HD" | b"VA" | b"EX" | b"NS" | b"NF" | b"EN" => same_meta_line(&left, &right, key, tokens),
        b"ME" => same_debug_line(&left, &right, tokens),
        _ => left == right,
    }
}

fn may_hold_token(line: &[u8]) -> bool {
    const TOKEN_LINES: [&[u8]; 6] = [b"VALUE ", b"HD ", b"VA ", b"ME ", b"EX ", b"NS "];
    TOKEN_LINES.iter().any(|start| line.starts_with(start))
}

/// `VALUE <key> <flags> <bytes> [<token>]`
fn same_value_line(left: &[&[u8]], right: &[&[u8]], tokens: &mut Tokens) -> bool {
    if left[..left.len().min(4)] != right[..right.len().min(4)] {
        return false;
    }
    match (left.get(4).and_then(|it| number(it)), right.get(4).and_then(|it| number(it))) {
        (Some(ours), Some(theirs)) => {
            tokens.remember(left[1], ours, theirs);
            tokens.pair(Some(left[1]), ours, theirs)
        }
        (None, None) => left == right,
        _ => false,
    }
}

/// `HD <flag>*` and the like. The flags `k` and `O` carry words of the client, the others numbers.
fn same_meta_line(
    left: &[&[u8]],
    right: &[&[u8]],
    key: Option<&[u8]>,
    tokens: &mut Tokens,
) -> bool {
    left.iter().zip(right).skip(1).all(|(&ours, &theirs)| {
        let (Some((name, ours_value)), Some((other, theirs_value))) =
            (ours.split_first(), theirs.split_first())
        else {
            return ours == theirs;
        };
        match (name, number(ours_value), number(theirs_value)) {
            _ if name != other => false,
            (b'c', Some(ours), Some(theirs)) => {
                if let Some(key) = key {
                    tokens.remember(key, ours, theirs);
                }
                tokens.pair(key, ours, theirs)
            }
            (b't', _, _) => same_seconds_left(ours_value, theirs_value),
            (b'l', Some(_), Some(_)) => true,
            _ => ours == theirs,
        }
    })
}

/// `ME <key> exp=<seconds> la=<seconds> cas=<token> fetch=<yes|no> cls=<class> size=<bytes>`
fn same_debug_line(left: &[&[u8]], right: &[&[u8]], tokens: &mut Tokens) -> bool {
    left.iter().zip(right).all(|(&ours, &theirs)| {
        let value = |word: &[u8]| word.splitn(2, |&it| it == b'=').nth(1).map(<[u8]>::to_vec);
        let name = |word: &[u8]| word.split(|&it| it == b'=').next().map(<[u8]>::to_vec);
        let (Some(ours_value), Some(theirs_value)) = (value(ours), value(theirs)) else {
            return ours == theirs;
        };
        if name(ours) != name(theirs) {
            return false;
        }
        match name(ours).as_deref() {
            Some(b"la" | b"cls" | b"size") => true,
            Some(b"exp") => same_seconds_left(&ours_value, &theirs_value),
            Some(b"cas") => match (number(&ours_value), number(&theirs_value)) {
                (Some(ours), Some(theirs)) => tokens.pair(Some(left[1]), ours, theirs),
                _ => false,
            },
            _ => ours == theirs,
        }
    })
}

/// Equal, or both positive and a few seconds apart.
fn same_seconds_left(left: &[u8], right: &[u8]) -> bool {
    let seconds = |text| std::str::from_utf8(text).ok()?.parse::<i64>().ok();
    match (seconds(left), seconds(right)) {
        (Some(ours), Some(theirs)) if 0 < ours && 0 < theirs => {
            (ours - theirs).abs() <= CLOCK_TICKS_MAX
        }
        _ => left == right,
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(left: &str, right: &str, expected: bool) {
        let mut tokens = Tokens::default();
        let same = same(left.as_bytes(), right.as_bytes(), Some(b"k"), &mut tokens);
        assert_eq!(same, expected, "{left}");
    }

    #[test]
    fn plain_replies_are_compared_exactly() {
        check("STORED\r\n", "STORED\r\n", true);
        check("STORED\r\n", "STORED\r\nERROR\r\n", false);
        check("STORED\r\n", "STORED\n", false);
        check("VALUE k 0 1\r\na\r\nEND\r\n", "VALUE k 0 1\r\na\r\nEND\r\n", true);
        check("VALUE k 0 1\r\na\r\nEND\r\n", "VALUE k 0 1\r\nb\r\nEND\r\n", false);
        check("VALUE k 0 2\r\na \r\nEND\r\n", "VALUE k 0 1\r\na\r\nEND\r\n", false);
        check("HD kk O1\r\n", "HD O1 kk\r\n", false);
        check("HD W\r\n", "HD\r\n", false);
    }

    #[test]
    fn free_fields_are_not() {
        check("VERSION 1.6.45\r\n", "VERSION 1.6.18\r\n", true);
        check("HD t100 l5\r\n", "HD t99 l0\r\n", true);
        check("HD t100\r\n", "HD t50\r\n", false);
        check("HD t-1\r\n", "HD t1\r\n", false);
        check(
            "ME k exp=9 la=1 cas=5 fetch=yes cls=1 size=60\r\n",
            "ME k exp=8 la=2 cas=6 fetch=yes cls=2 size=70\r\n",
            true,
        );
        check("ME k fetch=yes\r\n", "ME k fetch=no\r\n", false);
    }

    #[test]
    fn tokens_change_together() {
        check("HD c5\r\nHD c5\r\n", "HD c9\r\nHD c9\r\n", true);
        check("HD c5\r\nHD c5\r\n", "HD c9\r\nHD c10\r\n", false);
        check("HD c5\r\nHD c6\r\n", "HD c9\r\nHD c9\r\n", false);
        check("VALUE k 0 0 5\r\n\r\nHD c5\r\n", "VALUE k 0 0 7\r\n\r\nHD c7\r\n", true);
        check("HD c5\r\nHD c0\r\n", "HD c9\r\nHD c1\r\n", false);
    }
}
