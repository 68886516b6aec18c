//! `distcache keys`: the keys of all servers that match a pattern. Owns the pattern.

use crate::exit::{Failure, Status, complain};
use distcache::client::{Client, Config, Error};
use std::io::{BufWriter, Write};
use std::time::Duration;

/// Longest time for the list of one server; between two pieces of it the usual limits hold.
const LIST_TIMEOUT: Duration = Duration::from_secs(3600);

/// Prints each key on a line.
pub(crate) fn list(
    servers: &[&str],
    config: &Config,
    pattern: &str,
    out: &mut impl Write,
) -> Result<Status, Failure> {
    let prefix = config.key_prefix.clone().into_bytes();
    let config = Config { call_timeout: LIST_TIMEOUT, ..config.clone() };
    let client = Client::with_config(servers, config)?;
    let mut out = BufWriter::new(out);
    let mut failed = None;
    let answers = client.list_keys(|_, key| {
        let Some(key) = key.strip_prefix(prefix.as_slice()) else { return };
        if failed.is_none() && matches(pattern.as_bytes(), key) {
            failed = write_key(&mut out, key).err();
        }
    });
    if let Some(error) = failed {
        return Err(error.into());
    }
    out.flush()?;
    let complained = |(node, answer): (_, Result<(), Error>)| match answer {
        Ok(()) => Status::Done,
        Err(error) => {
            complain(&format!("{node}"), &error);
            (&error).into()
        }
    };
    Ok(answers.into_iter().map(complained).fold(Status::Done, Ord::max))
}

/// Bytes that would break a line or move a cursor are written as `%` and two digits.
fn write_key(out: &mut impl Write, key: &[u8]) -> std::io::Result<()> {
    for byte in key {
        match byte {
            0..=b' ' | 0x7f => write!(out, "%{byte:02X}")?,
            _ => out.write_all(&[*byte])?,
        }
    }
    out.write_all(b"\n")
}

/// Whether all of a text matches a pattern of `*`, `?`, `[a-z]`, `[!a-z]` and `\`. Takes time in
/// proportion to both lengths at most: only the last `*` is ever tried anew.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut rest) = (pattern, text);
    // Behind the last star, and where the text was that it has not swallowed.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        match (at.split_first(), rest.split_first()) {
            (None, None) => return true,
            (Some((b'*', behind)), _) => {
                at = behind;
                retry = Some((behind, rest));
                continue;
            }
            (Some(_), Some((byte, after))) => {
                if let Some(behind) = step(at, *byte) {
                    (at, rest) = (behind, after);
                    continue;
                }
            }
            _ => {}
        }
        let Some((behind, [_, swallowed @ ..])) = retry else { return false };
        (at, rest) = (behind, swallowed);
        retry = Some((behind, swallowed));
    }
}

/// What is left of a pattern whose first element matches a byte.
fn step(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    let (matched, behind) = match pattern {
        [b'?', behind @ ..] => (true, behind),
        [b'\\', literal, behind @ ..] => (*literal == byte, behind),
        [b'[', set @ ..] => match in_set(set, byte) {
            Some(result) => result,
            // Never closed: an ordinary character.
            None => (byte == b'[', set),
        },
        [literal, behind @ ..] => (*literal == byte, behind),
        [] => return None,
    };
    matched.then_some(behind)
}

/// Whether a byte is in the set that begins here, and what is behind the set.
fn in_set(set: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let (negated, mut rest) = match set {
        [b'!' | b'^', rest @ ..] => (true, rest),
        _ => (false, set),
    };
    let mut found = false;
    let mut first = true;
    loop {
        rest = match rest {
            [b']', behind @ ..] if !first => return Some((found != negated, behind)),
            [low, b'-', high, behind @ ..] if *high != b']' => {
                found |= (*low..=*high).contains(&byte);
                behind
            }
            [literal, behind @ ..] => {
                found |= *literal == byte;
                behind
            }
            [] => return None,
        };
        first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "user:7", true),
            ("user:*", "user:7", true),
            ("user:*", "users:7", false),
            ("*:7", "user:7:7", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("?", "a", true),
            ("?", "", false),
            ("[a-c]1", "b1", true),
            ("[a-c]1", "d1", false),
            ("[!a-c]1", "d1", true),
            ("[^a-c]1", "a1", false),
            ("[]x]", "]", true),
            ("[a-]", "-", true),
            ("[a", "[a", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("a\\", "a\\", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
        // One that would take for ever if every star were tried anew.
        let stars = "a*".repeat(100) + "b";
        assert!(!matches(stars.as_bytes(), "a".repeat(10_000).as_bytes()));
    }

    #[test]
    fn odd_bytes_do_not_reach_the_terminal() {
        let mut out = Vec::new();
        write_key(&mut out, b"a b\n\x1b[2J\xc3\xa9").unwrap();
        assert_eq!(out, b"a%20b%0A%1B[2J\xc3\xa9\n");
    }
}
