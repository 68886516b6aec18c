//! One command line to one [`Request`].
//!
//! The grammar is nom's; the verdicts are memcached's: which mistake is answered with which line,
//! and whether the data block behind a refused line is swallowed (its length was readable) or read
//! as further commands (it was not).

use super::request::{AdminVerb, ArithmeticArgs, Exptime, MetaVerb, Request, StoreArgs, StoreMode};
use super::{meta, number, reply};
use crate::limits::{KEY_BYTES_MAX, VALUE_BYTES_ANNOUNCED_MAX};
use nom::error::{ErrorKind, ParseError};
use nom::{Err, IResult, Parser};

/// Shortest line memcached looks at, its line end included.
const LINE_BYTES_MIN: usize = 4;

/// A line and whether its sender wants no answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Line<'a> {
    /// What is asked.
    pub request: Request<'a>,
    /// The last word was `noreply`.
    pub noreply: bool,
}

/// A line that is not executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// Answer this (nothing if empty), after skipping a data block of `swallow` bytes and its line
    /// end.
    Answer {
        /// The line to send.
        reply: &'static [u8],
        /// Length of the data block to skip.
        swallow: Option<u32>,
    },
    /// Close the connection: a web browser was tricked into speaking to us.
    Close,
}

impl Rejection {
    const fn answer(reply: &'static [u8]) -> Self {
        Self::Answer { reply, swallow: None }
    }

    const fn swallowing(reply: &'static [u8], value_bytes: u32) -> Self {
        Self::Answer { reply, swallow: Some(value_bytes) }
    }

    /// The same without its line.
    fn silenced(self, noreply: bool) -> Self {
        match self {
            Self::Answer { swallow, .. } if noreply => Self::Answer { reply: b"", swallow },
            other => other,
        }
    }
}

/// Why a word did not parse. memcached has one answer for most of them; verbs that have another
/// say so themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Malformed;

impl<'a> ParseError<&'a [u8]> for Malformed {
    fn from_error_kind(_: &'a [u8], _: ErrorKind) -> Self {
        Self
    }

    fn append(_: &'a [u8], _: ErrorKind, other: Self) -> Self {
        other
    }
}

type Parsed<'a, T> = IResult<&'a [u8], T, Malformed>;

/// The next word: spaces delimit, every other byte belongs to it. Written out, since every request
/// passes here several times and `take_while1` takes twice as long for a byte.
#[inline]
fn word(input: &[u8]) -> Parsed<'_, &[u8]> {
    let start = match input {
        [b' ', second, ..] if *second != b' ' => 1,
        _ => input.iter().position(|byte| *byte != b' ').unwrap_or(input.len()),
    };
    let words = &input[start..];
    let end = words.iter().position(|byte| *byte == b' ').unwrap_or(words.len());
    if end == 0 {
        return Err(Err::Error(Malformed));
    }
    Ok((&words[end..], &words[..end]))
}

/// Splits the next word off.
pub(super) fn next_word(input: &[u8]) -> Option<(&[u8], &[u8])> {
    word(input).ok().map(|(rest, word)| (word, rest))
}

/// The words of a line, one after the other.
pub fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = line;
    std::iter::from_fn(move || {
        let (word, behind) = next_word(rest)?;
        rest = behind;
        Some(word)
    })
}

/// Understands one line, given without its line end; `line_end_bytes` is 1 for a bare LF, else 2.
///
/// # Errors
/// A [`Rejection`] says what to answer instead.
pub fn parse_line(line: &[u8], line_end_bytes: usize) -> Result<Line<'_>, Rejection> {
    // The commonest request first.
    if let Some(keys) = line.strip_prefix(b"get ") {
        return get(keys, None, false);
    }
    if line.len() + line_end_bytes < LINE_BYTES_MIN && line != b"mn" {
        return Err(Rejection::answer(reply::BAD_FORMAT));
    }
    // A line that starts with a space has an empty verb, which is unknown.
    let verb_end = memchr::memchr(b' ', line).unwrap_or(line.len());
    let (verb, rest) = line.split_at(verb_end);
    match verb {
        b"get" => get(rest, None, false),
        b"gets" => get(rest, None, true),
        b"gat" => get_and_touch(rest, false),
        b"gats" => get_and_touch(rest, true),
        b"set" => store(rest, StoreMode::Set),
        b"add" => store(rest, StoreMode::Add),
        b"replace" => store(rest, StoreMode::Replace),
        b"append" => store(rest, StoreMode::Append),
        b"prepend" => store(rest, StoreMode::Prepend),
        b"cas" => store(rest, StoreMode::Cas),
        b"delete" => delete(rest),
        b"incr" => arithmetic(rest, true),
        b"decr" => arithmetic(rest, false),
        b"touch" => touch(rest),
        b"mg" => meta::without_data(MetaVerb::Get, rest),
        b"md" => meta::without_data(MetaVerb::Delete, rest),
        b"ma" => meta::without_data(MetaVerb::Arithmetic, rest),
        b"me" => meta::without_data(MetaVerb::Debug, rest),
        b"ms" => meta::store(rest),
        _ => without_key(verb, rest),
    }
}

fn without_key<'a>(verb: &[u8], rest: &'a [u8]) -> Result<Line<'a>, Rejection> {
    let noreply = ends_in_noreply(rest);
    let request = match verb {
        b"mn" => Request::MetaNoop,
        b"quit" => Request::Quit,
        b"version" => Request::Version,
        b"stats" => {
            return Ok(Line { request: Request::Stats { arguments: rest }, noreply: false });
        }
        b"flush_all" => flush_all(rest, noreply).map_err(|fault| fault.silenced(noreply))?,
        b"verbosity" => verbosity(rest).map_err(|fault| fault.silenced(noreply))?,
        b"cache_memlimit" => Request::MemoryLimit { arguments: rest },
        b"snapshot" => Request::Snapshot,
        b"shutdown" => Request::Shutdown { arguments: rest },
        b"lru" => admin(AdminVerb::Lru, rest),
        b"lru_crawler" => admin(AdminVerb::LruCrawler, rest),
        b"slabs" => admin(AdminVerb::Slabs, rest),
        b"watch" => admin(AdminVerb::Watch, rest),
        b"refresh_certs" => admin(AdminVerb::RefreshCertificates, rest),
        b"config" => admin(AdminVerb::Config, rest),
        b"extstore" => admin(AdminVerb::Extstore, rest),
        _ => return Err(unknown(rest).silenced(noreply)),
    };
    let noreply = noreply && !matches!(verb, b"mn" | b"version" | b"quit" | b"watch");
    Ok(Line { request, noreply })
}

fn admin(verb: AdminVerb, arguments: &[u8]) -> Request<'_> {
    Request::Admin { verb, arguments }
}

/// An unknown verb. A last word such as `HTTP/1.1` is a request from a browser that a hostile page
/// made speak to this port: what follows is not for us.
fn unknown(rest: &[u8]) -> Rejection {
    match words(rest).last() {
        Some(last) if last.starts_with(b"HTTP/") => Rejection::Close,
        _ => Rejection::answer(reply::ERROR),
    }
}

fn ends_in_noreply(rest: &[u8]) -> bool {
    words(rest).last() == Some(b"noreply")
}

fn get(keys: &[u8], touch: Option<Exptime>, with_cas: bool) -> Result<Line<'_>, Rejection> {
    if keys.iter().all(|byte| *byte == b' ') {
        return Err(Rejection::answer(reply::BAD_FORMAT));
    }
    Ok(Line { request: Request::Get { touch, with_cas, keys }, noreply: false })
}

fn get_and_touch(rest: &[u8], with_cas: bool) -> Result<Line<'_>, Rejection> {
    let (_, (_, _)) = (word, word).parse(rest).map_err(|_| Rejection::answer(reply::BAD_FORMAT))?;
    let (exptime, keys) = next_word(rest).ok_or(Rejection::answer(reply::BAD_FORMAT))?;
    let exptime = number::strict_i32(exptime).ok_or(Rejection::answer(reply::BAD_EXPTIME))?;
    get(keys, Some(number::exptime(exptime)), with_cas)
}

/// The length of a data block, from its word.
pub(super) fn value_bytes(word: &[u8]) -> Option<u32> {
    let number = u32::try_from(number::strict_i32(word)?).ok()?;
    (number <= VALUE_BYTES_ANNOUNCED_MAX).then_some(number)
}

fn store(rest: &[u8], mode: StoreMode) -> Result<Line<'_>, Rejection> {
    let malformed = Rejection::answer(reply::BAD_FORMAT);
    let (behind, (key, flags, exptime, length)) =
        (word, word, word, word).parse(rest).map_err(|_| malformed)?;
    let value_bytes = value_bytes(length).ok_or(malformed)?;
    // From here on the data block can be told from commands.
    let noreply = !behind.is_empty() && ends_in_noreply(behind);
    let args = store_args(mode, key, flags, exptime, behind);
    match args {
        Some(args) => Ok(Line { request: Request::Store { key, args, value_bytes }, noreply }),
        None => Err(Rejection::swallowing(reply::BAD_FORMAT, value_bytes).silenced(noreply)),
    }
}

fn store_args(
    mode: StoreMode,
    key: &[u8],
    flags: &[u8],
    exptime: &[u8],
    behind: &[u8],
) -> Option<StoreArgs> {
    if key.len() > KEY_BYTES_MAX {
        return None;
    }
    let compare = match mode {
        StoreMode::Cas => number::strict_u64(next_word(behind)?.0)?,
        _ => 0,
    };
    Some(StoreArgs {
        mode,
        flags: number::client_flags(flags)?,
        exptime: number::classic_exptime(exptime)?,
        compare,
    })
}

/// The key of a command, checked.
fn key_of(key: &[u8]) -> Result<&[u8], Rejection> {
    if key.len() <= KEY_BYTES_MAX { Ok(key) } else { Err(Rejection::answer(reply::BAD_FORMAT)) }
}

fn delete(rest: &[u8]) -> Result<Line<'_>, Rejection> {
    let (key, behind) = next_word(rest).ok_or(Rejection::answer(reply::BAD_FORMAT))?;
    let noreply = ends_in_noreply(rest);
    let key = key_of(key).map_err(|fault| fault.silenced(noreply))?;
    let mut arguments = words(behind);
    // Old clients send a delay of 0; other delays were never kept and are refused.
    let allowed = matches!(
        (arguments.next(), arguments.next(), arguments.next()),
        (None | Some(b"0" | b"noreply"), None, None) | (Some(b"0"), Some(b"noreply"), None)
    );
    if !allowed {
        return Err(Rejection::answer(reply::DELETE_USAGE).silenced(noreply));
    }
    Ok(Line { request: Request::Delete { key, compare: 0 }, noreply })
}

fn arithmetic(rest: &[u8], increment: bool) -> Result<Line<'_>, Rejection> {
    let (_, (key, delta)) =
        (word, word).parse(rest).map_err(|_| Rejection::answer(reply::BAD_FORMAT))?;
    let noreply = ends_in_noreply(rest);
    let request = key_of(key).and_then(|key| {
        let delta = number::strict_u64(delta).ok_or(Rejection::answer(reply::BAD_DELTA))?;
        let args = ArithmeticArgs::of_line(increment, delta);
        Ok(Request::Arithmetic { key, args })
    });
    Ok(Line { request: request.map_err(|fault| fault.silenced(noreply))?, noreply })
}

fn touch(rest: &[u8]) -> Result<Line<'_>, Rejection> {
    let (_, (key, exptime)) =
        (word, word).parse(rest).map_err(|_| Rejection::answer(reply::BAD_FORMAT))?;
    let noreply = ends_in_noreply(rest);
    let request = key_of(key).and_then(|key| {
        let seconds = number::strict_i32(exptime).ok_or(Rejection::answer(reply::BAD_EXPTIME))?;
        Ok(Request::Touch { key, exptime: number::exptime(seconds) })
    });
    Ok(Line { request: request.map_err(|fault| fault.silenced(noreply))?, noreply })
}

fn flush_all(rest: &[u8], noreply: bool) -> Result<Request<'_>, Rejection> {
    let arguments = words(rest).count() - usize::from(noreply);
    if arguments == 0 {
        return Ok(Request::FlushAll { delay: Exptime::Never });
    }
    let seconds = next_word(rest).and_then(|(word, _)| number::strict_i32(word));
    let seconds = seconds.ok_or(Rejection::answer(reply::BAD_EXPTIME))?;
    Ok(Request::FlushAll { delay: number::exptime(seconds) })
}

fn verbosity(rest: &[u8]) -> Result<Request<'_>, Rejection> {
    let level = next_word(rest).and_then(|(word, _)| number::strict_u32(word));
    let level = level.ok_or(Rejection::answer(reply::BAD_FORMAT))?;
    Ok(Request::Verbosity { level })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(line: &str) -> (&'static [u8], Option<u32>) {
        match parse_line(line.as_bytes(), 2) {
            Err(Rejection::Answer { reply, swallow }) => (reply, swallow),
            other => panic!("{line:?} gave {other:?}"),
        }
    }

    #[test]
    fn refusals_and_what_they_swallow() {
        let long_key = "k".repeat(251);
        for (line, reply, swallow) in [
            ("", reply::BAD_FORMAT, None),
            ("x", reply::BAD_FORMAT, None),
            ("xx", reply::ERROR, None),
            (" get a", reply::ERROR, None),
            ("GET a", reply::ERROR, None),
            ("get", reply::BAD_FORMAT, None),
            ("get  ", reply::BAD_FORMAT, None),
            ("gat 10", reply::BAD_FORMAT, None),
            ("gat x k", reply::BAD_EXPTIME, None),
            ("gat 4294967295 k", reply::BAD_EXPTIME, None),
            ("set k 0 0", reply::BAD_FORMAT, None),
            ("set k 0 0 -1", reply::BAD_FORMAT, None),
            ("set k 0 0 2147483646", reply::BAD_FORMAT, None),
            ("set k 0 0 4294967297", reply::BAD_FORMAT, None),
            ("set k x 0 5", reply::BAD_FORMAT, Some(5)),
            ("set k 4294967296 0 5", reply::BAD_FORMAT, Some(5)),
            ("set k 0 x 5 noreply", b"", Some(5)),
            (&format!("set {long_key} 0 0 5"), reply::BAD_FORMAT, Some(5)),
            ("cas k 0 0 5", reply::BAD_FORMAT, Some(5)),
            ("cas k 0 0 5 x", reply::BAD_FORMAT, Some(5)),
            ("incr k", reply::BAD_FORMAT, None),
            ("incr k -1", reply::BAD_DELTA, None),
            ("incr k -1 noreply", b"", None),
            ("touch k", reply::BAD_FORMAT, None),
            ("touch k x", reply::BAD_EXPTIME, None),
            ("delete", reply::BAD_FORMAT, None),
            ("delete k 10", reply::DELETE_USAGE, None),
            ("flush_all x", reply::BAD_EXPTIME, None),
            ("verbosity", reply::BAD_FORMAT, None),
            ("bogus noreply", b"", None),
        ] {
            assert_eq!(rejected(line), (reply, swallow), "{line:?}");
        }
        assert_eq!(parse_line(b"GET / HTTP/1.1", 2), Err(Rejection::Close));
    }

    #[test]
    fn noreply_is_the_last_word() {
        for (line, expected) in [
            ("set k 0 0 1 noreply", true),
            ("set k 0 0 1", false),
            ("set noreply 0 0 1", false),
            ("delete noreply", true),
            ("delete k noreply", true),
            ("delete k 0 noreply", true),
            ("incr k 1 noreply", true),
            ("flush_all noreply", true),
            ("flush_all 0 noreply", true),
            ("version noreply", false),
        ] {
            let parsed = parse_line(line.as_bytes(), 2).expect(line);
            assert_eq!(parsed.noreply, expected, "{line:?}");
        }
    }

    #[test]
    fn spaces_between_words_do_not_matter() {
        let spaced = parse_line(b"set   k    1  2   3  ", 2);
        assert_eq!(spaced, parse_line(b"set k 1 2 3", 2));
        assert!(spaced.is_ok());
    }
}
