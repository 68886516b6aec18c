//! Any bytes as a command line. Goal: no line panics, and whatever is let through keeps the limits
//! that the layers behind rely on. Method: check every field of the outcome; read every word as a
//! number with a naive reader too; double all spaces, which must not matter.

use distcache::limits::{
    EXPTIME_RELATIVE_SECONDS_MAX, KEY_BYTES_MAX, META_TOKENS_MAX, OPAQUE_BYTES_MAX,
    VALUE_BYTES_ANNOUNCED_MAX,
};
use distcache::protocol::meta::write_key;
use distcache::protocol::parse::{Line, words};
use distcache::protocol::{Exptime, MetaArgs, Rejection, Request, StoreMode, number, parse_line};

/// Shortest line whose verdict does not hang on its length alone.
const LINE_BYTES_MIN: usize = 4;

/// Panics unless the line is treated as it must be.
pub fn check(line: &[u8]) {
    for line_end_bytes in [1, 2] {
        let outcome = parse_line(line, line_end_bytes);
        match &outcome {
            Ok(parsed) => check_line(line, parsed),
            Err(rejection) => check_rejection(*rejection),
        }
        if line.len() >= LINE_BYTES_MIN {
            let spaced = doubled_spaces(line);
            let again = parse_line(&spaced, line_end_bytes);
            assert_eq!(shape(&outcome), shape(&again), "spaces matter");
        }
    }
    words(line).for_each(check_number);
}

fn check_line(line: &[u8], parsed: &Line<'_>) {
    if parsed.noreply {
        assert_eq!(words(line).last(), Some(&b"noreply"[..]));
    }
    match &parsed.request {
        Request::Get { touch, keys, .. } => {
            assert!(words(keys).next().is_some(), "a get has a key");
            touch.iter().for_each(|exptime| check_exptime(*exptime));
        }
        Request::Store { key, args, value_bytes } => {
            check_plain_key(line, key);
            check_exptime(args.exptime);
            assert!(*value_bytes <= VALUE_BYTES_ANNOUNCED_MAX);
            assert!(args.mode == StoreMode::Cas || args.compare == 0);
        }
        Request::Delete { key, .. } | Request::Arithmetic { key, .. } => check_plain_key(line, key),
        Request::Touch { key, exptime } => {
            check_plain_key(line, key);
            check_exptime(*exptime);
        }
        Request::Meta { key, args, .. } => check_meta(line, key, args, 2),
        Request::MetaStore { key, mode, args, value_bytes } => {
            check_meta(line, key, args, 3);
            assert!(*value_bytes <= VALUE_BYTES_ANNOUNCED_MAX);
            assert!(*mode != StoreMode::Cas || args.compare.is_some());
        }
        Request::FlushAll { delay } => check_exptime(*delay),
        Request::MetaNoop
        | Request::Version
        | Request::Verbosity { .. }
        | Request::Stats { .. }
        | Request::MemoryLimit { .. }
        | Request::Shutdown { .. }
        | Request::Admin { .. }
        | Request::Snapshot
        | Request::Quit => {}
    }
}

/// A key as it came: a word of the line, within the limit.
fn check_plain_key(line: &[u8], key: &[u8]) {
    assert!((1..=KEY_BYTES_MAX).contains(&key.len()));
    assert_eq!(words(line).nth(1), Some(key));
}

fn check_meta(line: &[u8], key: &[u8], args: &MetaArgs, words_before: usize) {
    assert!((1..=KEY_BYTES_MAX).contains(&key.len()));
    let letters = args.order.as_slice();
    assert!(letters.len() + words_before <= META_TOKENS_MAX);
    assert!(letters.iter().enumerate().all(|(at, letter)| !letters[..at].contains(letter)));
    let opaque = args.opaque.as_slice();
    assert!(opaque.len() <= OPAQUE_BYTES_MAX);
    assert_eq!(letters.contains(&b'O'), opaque.first() == Some(&b'O'));
    assert_eq!(letters.contains(&b'b'), args.key_binary);
    for exptime in [args.exptime, args.vivify, args.recache].into_iter().flatten() {
        check_exptime(exptime);
    }
    // A reply shows the key as the client wrote it.
    let mut shown = Vec::new();
    write_key(&mut shown, key, args.key_binary);
    assert_eq!(words(line).nth(1), Some(&shown[..]));
}

fn check_exptime(exptime: Exptime) {
    match exptime {
        Exptime::Relative(seconds) => {
            assert!((1..=EXPTIME_RELATIVE_SECONDS_MAX).contains(&i64::from(seconds)));
        }
        Exptime::Absolute(seconds) => {
            assert!(i64::from(seconds) > EXPTIME_RELATIVE_SECONDS_MAX);
        }
        Exptime::Never | Exptime::Past => {}
    }
}

/// A refusal is silent or one whole line.
fn check_rejection(rejection: Rejection) {
    let Rejection::Answer { reply, swallow } = rejection else { return };
    assert!(swallow.is_none_or(|bytes| bytes <= VALUE_BYTES_ANNOUNCED_MAX));
    if !reply.is_empty() {
        assert_eq!(reply.iter().position(|byte| *byte == b'\n'), Some(reply.len() - 1));
        assert!(reply.ends_with(b"\r\n"));
    }
}

fn doubled_spaces(line: &[u8]) -> Vec<u8> {
    let double = |byte: &u8| std::iter::repeat_n(*byte, if *byte == b' ' { 2 } else { 1 });
    line.iter().flat_map(double).collect()
}

/// An outcome as text, in which the parts of the line it carries are cut into words.
fn shape(outcome: &Result<Line<'_>, Rejection>) -> String {
    match outcome {
        Ok(Line { request: Request::Get { touch, with_cas, keys }, .. }) => {
            format!("get {touch:?} {with_cas} {:?}", words(keys).collect::<Vec<_>>())
        }
        Ok(Line { request: Request::Stats { arguments }, .. }) => {
            format!("stats {:?}", words(arguments).collect::<Vec<_>>())
        }
        Ok(Line { request: Request::MemoryLimit { arguments }, .. }) => {
            format!("limit {:?}", words(arguments).collect::<Vec<_>>())
        }
        Ok(Line { request: Request::Shutdown { arguments }, .. }) => {
            format!("shutdown {:?}", words(arguments).collect::<Vec<_>>())
        }
        Ok(Line { request: Request::Admin { verb, arguments }, .. }) => {
            format!("{verb:?} {:?}", words(arguments).collect::<Vec<_>>())
        }
        other => format!("{other:?}"),
    }
}

/// Numbers by the slow and obvious way.
fn check_number(word: &[u8]) {
    let digits = |word: &[u8]| -> Option<i128> {
        let plain = !word.is_empty() && word.iter().all(u8::is_ascii_digit);
        // More than the widest type, and few enough not to overflow here.
        let text = std::str::from_utf8(word).ok().filter(|_| plain)?.trim_start_matches('0');
        if text.len() > 30 { Some(i128::MAX) } else { format!("0{text}").parse().ok() }
    };
    let unsigned = digits(word);
    let negated = word.strip_prefix(b"-").and_then(digits).map(|number| -number);
    let signed = negated.or(unsigned);
    let short = |characters| word.len() <= characters;
    let fits = |number: Option<i128>, limit: i128| number.filter(|number| *number <= limit);
    let as_u64 = fits(unsigned, u64::MAX.into()).filter(|_| short(22));
    assert_eq!(number::strict_u64(word).map(i128::from), as_u64);
    let as_u32 = fits(unsigned, u32::MAX.into()).filter(|_| short(11));
    assert_eq!(number::strict_u32(word).map(i128::from), as_u32);
    let as_i32 = signed.filter(|number| i32::try_from(*number).is_ok()).filter(|_| short(11));
    assert_eq!(number::strict_i32(word).map(i128::from), as_i32);
    let plus = word.strip_prefix(b"+").and_then(digits);
    let lenient = plus.or(signed);
    let flags = lenient.filter(|number| u32::try_from(*number).is_ok());
    assert_eq!(number::client_flags(word).map(i128::from), flags);
    if let Some(exptime) = number::classic_exptime(word) {
        assert!(lenient.is_some());
        check_exptime(exptime);
    }
}
