//! Gets the items of a running server, memcached or distcached: the list of its keys from
//! `lru_crawler metadump`, and their values, flags and remaining time with `mg`.
//!
//! The source goes on serving. What changes there after it was read is not copied, and an item that
//! goes in between is left out.

use super::load::{Loader, Trouble};
use super::peer::{Link, Peer, read_line};
use super::stream::Command;
use crate::limits::{EXPTIME_RELATIVE_SECONDS_MAX, KEY_BYTES_MAX, VALUE_BYTES_ANNOUNCED_MAX};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use indicatif::ProgressBar;
use std::io::{self, Read, Write};

/// Keys asked for at a time.
const KEYS_PER_BATCH: usize = 64;

/// A key of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Listed {
    key: Vec<u8>,
    /// Unix time; below 0: never.
    expires_at: i64,
}

/// Copies all items of the server `from`.
pub(super) fn migrate(from: &Peer, loader: &mut Loader, bar: &ProgressBar) -> Result<(), Trouble> {
    let broken = |why: io::Error| Trouble::Source(format!("{}: {why}", from.address));
    let mut link = from.connect().map_err(broken)?;
    let listed = list(&mut link).map_err(broken)?;
    bar.set_length(listed.len() as u64);
    for keys in listed.chunks(KEYS_PER_BATCH) {
        ask(&mut link, keys).map_err(broken)?;
        let mut next = 0;
        while let Some(answer) = read_answer(&mut link).map_err(broken)? {
            // Answers come in the order of the keys; those of items that are gone are left out.
            let behind = keys.get(next..).unwrap_or_default();
            let key = answer.plain_key();
            let at = behind.iter().position(|listed| listed.key == key);
            let Some(at) = at else { continue };
            next += at + 1;
            for command in answer.commands(behind[at].expires_at) {
                loader.push(&command)?;
            }
        }
        bar.inc(keys.len() as u64);
    }
    Ok(())
}

/// All keys. The list begins with `OK` since memcached 1.6.43, and with the first key before.
fn list(link: &mut Link) -> io::Result<Vec<Listed>> {
    link.get_mut().write_all(b"lru_crawler metadump all\r\n")?;
    let (mut listed, mut is_first) = (Vec::new(), true);
    loop {
        let line = read_line(link)?;
        if line == b"END" {
            return Ok(listed);
        }
        let text = String::from_utf8_lossy(&line);
        match parse_listed(&text) {
            Some(found) => listed.push(found),
            None if text.starts_with("key=") || (is_first && text == "OK") => {}
            None => return Err(io::Error::other(why_no_list(&text))),
        }
        is_first = false;
    }
}

/// What an answer in the place of the list means, and what to do.
fn why_no_list(answer: &str) -> String {
    let hint = match answer {
        "CLIENT_ERROR unauthenticated" => "it wants a login: --from-user",
        "ERROR metadump not allowed" | "ERROR key dump not allowed" => {
            "it was started with -X; \"distcached dump\" reads a data directory"
        }
        "CLIENT_ERROR lru crawler disabled" => "\"lru_crawler enable\" there makes it possible",
        _ if answer.starts_with("BUSY") => "somebody else is listing keys there: try again",
        _ => "memcached does since 1.4.31, and distcached",
    };
    format!("it does not list its keys (lru_crawler metadump all): {answer:?}; {hint}")
}

/// A line of the list: `key=a%20b exp=1700000000 la=... ...`
fn parse_listed(line: &str) -> Option<Listed> {
    let mut words = line.split(' ');
    let key = unescape(words.next()?.strip_prefix("key=")?)?;
    let expires_at = words.find_map(|word| word.strip_prefix("exp="))?.parse().ok()?;
    (!key.is_empty() && key.len() <= KEY_BYTES_MAX).then_some(Listed { key, expires_at })
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut found = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            found.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
        found.push((high * 16 + low) as u8);
    }
    Some(found)
}

/// A key as a word of a meta command, and whether it has to be encoded for that.
fn token_of(key: &[u8]) -> (Vec<u8>, bool) {
    let is_word = key.iter().all(|byte| *byte > b' ' && *byte != 0x7f);
    if is_word { (key.to_vec(), false) } else { (STANDARD.encode(key).into_bytes(), true) }
}

fn ask(link: &mut Link, keys: &[Listed]) -> io::Result<()> {
    let mut lines = Vec::new();
    for listed in keys {
        let (token, binary) = token_of(&listed.key);
        lines.extend_from_slice(b"mg ");
        lines.extend_from_slice(&token);
        lines.extend_from_slice(if binary { b" b k v f t q\r\n" } else { b" k v f t q\r\n" });
    }
    lines.extend_from_slice(b"mn\r\n");
    link.get_mut().write_all(&lines)
}

/// An item, as `mg` answers it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answer {
    key: Vec<u8>,
    binary: bool,
    flags: u32,
    /// Below 0: it does not expire.
    seconds_left: i64,
    stale: bool,
    win_sent: bool,
    value: Vec<u8>,
}

/// The next item; `None` once the server has answered for all.
fn read_answer(reader: &mut Link) -> io::Result<Option<Answer>> {
    let line = read_line(reader)?;
    if line == b"MN" {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&line).into_owned();
    let strange = || io::Error::other(format!("not an answer to mg: {text:?}"));
    let (value_bytes, mut answer) = parse_answer(&line).ok_or_else(strange)?;
    let mut value = Vec::new();
    reader.by_ref().take(u64::from(value_bytes) + 2).read_to_end(&mut value)?;
    if value.len() as u64 != u64::from(value_bytes) + 2 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    value.truncate(value_bytes as usize);
    answer.value = value;
    Ok(Some(answer))
}

/// `VA 5 kfoo f0 t-1`: the length of the value, and all but that.
fn parse_answer(line: &[u8]) -> Option<(u32, Answer)> {
    let mut words = line.split(|byte| *byte == b' ');
    let number = |word: &[u8]| std::str::from_utf8(word).ok()?.parse::<i64>().ok();
    (words.next()? == b"VA").then_some(())?;
    let value_bytes = u32::try_from(number(words.next()?)?).ok()?;
    (value_bytes <= VALUE_BYTES_ANNOUNCED_MAX).then_some(())?;
    let mut answer = Answer { seconds_left: -1, ..Answer::default() };
    for word in words.filter(|word| !word.is_empty()) {
        match word.split_first()? {
            (b'k', key) => answer.key = key.to_vec(),
            (b'f', flags) => answer.flags = u32::try_from(number(flags)?).ok()?,
            (b't', seconds) => answer.seconds_left = number(seconds)?,
            (b'b', _) => answer.binary = true,
            (b'X', _) => answer.stale = true,
            (b'Z', _) => answer.win_sent = true,
            _ => {}
        }
    }
    Some((value_bytes, answer))
}

impl Answer {
    /// The key as the list has it.
    fn plain_key(&self) -> Vec<u8> {
        if self.binary { STANDARD.decode(&self.key).unwrap_or_default() } else { self.key.clone() }
    }

    /// What stores the item elsewhere. `expires_at` is for times too long to be relative.
    fn commands(self, expires_at: i64) -> Vec<Command> {
        let Self { key, binary, flags, seconds_left, stale, win_sent, value } = self;
        let exptime = match seconds_left {
            // It is over before it could be stored; 0 would mean never.
            0 => return Vec::new(),
            ..0 => 0,
            1..=EXPTIME_RELATIVE_SECONDS_MAX => seconds_left,
            _ => expires_at,
        };
        let b = if binary { " b" } else { "" };
        let line = |verb: &str, rest: String| [verb.as_bytes(), &key, rest.as_bytes()].concat();
        let rest = format!(" {} q F{flags} T{exptime}{b}", value.len());
        let mut commands = vec![Command { line: line("ms ", rest), value: Some(value) }];
        if stale {
            commands.push(Command { line: line("md ", format!(" q I{b}")), value: None });
        }
        if stale && win_sent {
            commands.push(Command { line: line("mg ", format!(" q{b}")), value: None });
        }
        commands
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listed_keys() {
        let listed = |key: &[u8], expires_at| Some(Listed { key: key.to_vec(), expires_at });
        for (line, expected) in [
            ("key=a exp=-1 la=5 cas=2 fetch=no cls=1 size=63", listed(b"a", -1)),
            ("key=a%20%00b%FF exp=1700000000 la=5", listed(b"a \0b\xff", 1_700_000_000)),
            ("key=a%2 exp=1", None),
            ("key= exp=1", None),
            ("key=a", None),
            ("BUSY currently processing crawler request", None),
            ("OK", None),
        ] {
            assert_eq!(parse_listed(line), expected, "{line}");
        }
    }

    #[test]
    fn answers_become_commands() {
        let lines = |line: &[u8], expires_at| -> Vec<String> {
            let (_, answer) = parse_answer(line).unwrap();
            let commands = answer.commands(expires_at).into_iter();
            commands.map(|command| String::from_utf8(command.line).unwrap()).collect()
        };
        assert_eq!(lines(b"VA 0 ka f7 t-1", -1), ["ms a 0 q F7 T0"]);
        assert_eq!(lines(b"VA 0 ka f7 t60 ", 1), ["ms a 0 q F7 T60"]);
        assert_eq!(lines(b"VA 0 ka f7 t0", 1), Vec::<String>::new());
        assert_eq!(lines(b"VA 0 ka f0 t9999999", 1_999_999_999), ["ms a 0 q F0 T1999999999"]);
        assert_eq!(
            lines(b"VA 0 kYQ== f0 t-1 b Z X", -1),
            ["ms YQ== 0 q F0 T0 b", "md YQ== q I b", "mg YQ== q b"]
        );
        assert_eq!(parse_answer(b"VA 4294967296 ka"), None);
        assert_eq!(parse_answer(b"EN"), None);
    }
}
