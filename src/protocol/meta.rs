//! The flags of the meta commands.
//!
//! Every flag is one letter, with an argument glued to it where it takes one. Any flag may be given
//! to any meta command; those that mean nothing there are accepted, and unknown letters refused.

use super::parse::{Line, Rejection, next_word, value_bytes, words};
use super::request::{MetaArgs, MetaVerb, Opaque, Request, StoreMode};
use super::{number, reply};
use crate::limits::{KEY_BYTES_MAX, META_TOKENS_MAX};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::borrow::Cow;

/// `mg`, `md`, `ma`, `me`: the line behind the verb.
pub(super) fn without_data(verb: MetaVerb, rest: &[u8]) -> Result<Line<'_>, Rejection> {
    let malformed = Rejection::Answer { reply: reply::BAD_FORMAT, swallow: None };
    let (key, flags) = next_word(rest).ok_or(malformed)?;
    if !flags_look_like_flags(flags) {
        return Err(malformed);
    }
    // `me` takes `b` and nothing else; further words mean nothing to it.
    let flags = match verb {
        MetaVerb::Debug if words(flags).next() == Some(b"b") => &b"b"[..],
        MetaVerb::Debug => &[],
        _ => flags,
    };
    let parsed = parse_flags(key, flags, 2).and_then(|(key, args)| {
        check_mode(verb, &args)?;
        Ok((key, args))
    });
    match parsed {
        Ok((key, args)) => Ok(Line { request: Request::Meta { verb, key, args }, noreply: false }),
        Err(reply) => Err(Rejection::Answer { reply: worded_for(verb, reply), swallow: None }),
    }
}

/// `ms`: the line behind the verb.
pub(super) fn store(rest: &[u8]) -> Result<Line<'_>, Rejection> {
    let malformed = Rejection::Answer { reply: reply::BAD_FORMAT, swallow: None };
    let (key, behind) = next_word(rest).ok_or(malformed)?;
    let (length, flags) = next_word(behind).ok_or(malformed)?;
    if !flags_look_like_flags(flags) {
        return Err(malformed);
    }
    let value_bytes = value_bytes(length).ok_or(malformed)?;
    let parsed = parse_flags(key, flags, 3).and_then(|(key, args)| {
        let mode = store_mode(&args)?;
        Ok(Request::MetaStore { key, mode, args, value_bytes })
    });
    match parsed {
        Ok(request) => Ok(Line { request, noreply: false }),
        Err(reply) => Err(Rejection::Answer { reply, swallow: Some(value_bytes) }),
    }
}

/// memcached's tokenizer refuses a line whose flags do not start with a letter, a digit or one of
/// the characters between the cases.
fn flags_look_like_flags(flags: &[u8]) -> bool {
    words(flags).all(|flag| matches!(flag[0], b'A'..=b'z' | b'0'..=b'9'))
}

/// The mode `M` asks for; with a token to compare, set and replace become cas.
fn store_mode(args: &MetaArgs) -> Result<StoreMode, &'static [u8]> {
    let mode = match args.mode {
        None | Some(b'S') => StoreMode::Set,
        Some(b'E') => StoreMode::Add,
        Some(b'A') => StoreMode::Append,
        Some(b'P') => StoreMode::Prepend,
        Some(b'R') => StoreMode::Replace,
        Some(_) => return Err(reply::META_BAD_STORE_MODE),
    };
    let compares = args.compare.is_some();
    Ok(if compares && matches!(mode, StoreMode::Set | StoreMode::Replace) {
        StoreMode::Cas
    } else {
        mode
    })
}

fn check_mode(verb: MetaVerb, args: &MetaArgs) -> Result<(), &'static [u8]> {
    match (verb, args.mode) {
        (MetaVerb::Arithmetic, None | Some(b'I' | b'+' | b'D' | b'-')) => Ok(()),
        (MetaVerb::Arithmetic, Some(_)) => Err(reply::META_BAD_ARITHMETIC_MODE),
        _ => Ok(()),
    }
}

/// `ma` has one text for every wrong flag.
fn worded_for(verb: MetaVerb, reply: &'static [u8]) -> &'static [u8] {
    let own_text = [reply::META_BAD_ARITHMETIC_MODE, reply::META_OPAQUE_TOO_LONG].contains(&reply);
    if verb == MetaVerb::Arithmetic && !own_text { reply::META_INVALID_OR_DUPLICATE } else { reply }
}

/// Reads all flags. A wrong argument is reported only after all letters were looked at, since an
/// unknown or repeated letter outranks it.
fn parse_flags<'a>(
    key: &'a [u8],
    flags: &'a [u8],
    words_before: usize,
) -> Result<(Cow<'a, [u8]>, MetaArgs), &'static [u8]> {
    if key.len() > KEY_BYTES_MAX {
        return Err(reply::BAD_FORMAT);
    }
    if words_before + words(flags).count() > META_TOKENS_MAX {
        return Err(reply::META_TOO_MANY_FLAGS);
    }
    let mut args = MetaArgs::default();
    let mut decoded = Cow::Borrowed(key);
    let mut seen = 0u128;
    let mut wrong = None;
    for flag in words(flags) {
        let (letter, argument) = (flag[0], &flag[1..]);
        let bit = 1u128 << letter;
        if seen & bit != 0 {
            return Err(reply::META_DUPLICATE_FLAG);
        }
        seen |= bit;
        args.order.push(letter);
        match letter {
            b'b' => match decode_key(key) {
                Some(bytes) => {
                    args.key_binary = true;
                    decoded = Cow::Owned(bytes);
                }
                None => wrong = Some(reply::META_BAD_KEY),
            },
            b'O' => match Opaque::new(flag) {
                Some(opaque) => args.opaque = opaque,
                None => wrong = Some(reply::META_OPAQUE_TOO_LONG),
            },
            _ => {
                if let Err(reply) = set_flag(&mut args, letter, argument)? {
                    wrong = Some(reply);
                }
            }
        }
    }
    match wrong {
        Some(reply) => Err(reply),
        None => Ok((decoded, args)),
    }
}

/// Sets the field of one flag. The outer error is an unknown letter, the inner one an argument
/// that is no number.
fn set_flag(
    args: &mut MetaArgs,
    letter: u8,
    argument: &[u8],
) -> Result<Result<(), &'static [u8]>, &'static [u8]> {
    match letter {
        // Known, and all there is to them is their place in the order.
        b'P' | b'L' | b'k' | b's' | b't' | b'c' | b'f' | b'l' | b'h' => {}
        b'v' => args.value = true,
        b'u' => args.no_bump = true,
        b'q' => args.quiet = true,
        b'x' => args.remove_value = true,
        b'I' => args.invalidate = true,
        b'M' => args.mode = Some(argument.first().copied().unwrap_or(b' ')),
        _ => return set_number(args, letter, argument),
    }
    Ok(Ok(()))
}

/// The flags whose argument is a number.
fn set_number(
    args: &mut MetaArgs,
    letter: u8,
    argument: &[u8],
) -> Result<Result<(), &'static [u8]>, &'static [u8]> {
    let wide = number::strict_u64(argument);
    let mut fault = reply::META_BAD_TOKEN;
    let is_number = match letter {
        b'T' | b'N' | b'R' => {
            let exptime = number::strict_i32(argument).map(number::exptime);
            match letter {
                b'T' => args.exptime = exptime,
                b'N' => args.vivify = exptime,
                _ => args.recache = exptime,
            }
            exptime.is_some()
        }
        b'C' | b'E' => {
            *(if letter == b'C' { &mut args.compare } else { &mut args.token }) = wide;
            wide.is_some()
        }
        b'D' => {
            fault = reply::META_BAD_DELTA;
            args.delta = wide.unwrap_or(args.delta);
            wide.is_some()
        }
        b'J' => {
            fault = reply::META_BAD_INITIAL;
            args.initial = wide.unwrap_or(args.initial);
            wide.is_some()
        }
        b'F' => {
            fault = reply::BAD_FORMAT;
            let flags = number::strict_u32(argument);
            args.flags = flags.unwrap_or(0);
            flags.is_some()
        }
        _ => return Err(reply::META_INVALID_FLAG),
    };
    Ok(if is_number { Ok(()) } else { Err(fault) })
}

fn decode_key(key: &[u8]) -> Option<Vec<u8>> {
    STANDARD.decode(key).ok().filter(|bytes| !bytes.is_empty())
}

/// Appends a key as a reply shows it.
pub fn write_key(out: &mut Vec<u8>, key: &[u8], binary: bool) {
    if !binary {
        return out.extend_from_slice(key);
    }
    let start = out.len();
    out.resize(start + key.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(key, &mut out[start..]).unwrap_or(0);
    out.truncate(start + written);
}

/// Appends a key as dumps and watchers show it: as in a URL.
pub fn write_uri_key(out: &mut Vec<u8>, key: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in key {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            out.push(*byte);
        } else {
            let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
            out.extend_from_slice(&[b'%', HEX[high], HEX[low]]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::parse_line;

    fn args(line: &str) -> MetaArgs {
        match parse_line(line.as_bytes(), 2).expect(line).request {
            Request::Meta { args, .. } | Request::MetaStore { args, .. } => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn refusals() {
        let many = format!("mg k {}", "k f t s v q u c h l O1 N1 T1 R1 E1 C1 P L b".to_owned());
        for (line, reply, swallow) in [
            ("mg", reply::BAD_FORMAT, None),
            ("mg k !", reply::BAD_FORMAT, None),
            ("mg k v v", reply::META_DUPLICATE_FLAG, None),
            ("mg k y", reply::META_INVALID_FLAG, None),
            ("mg k T", reply::META_BAD_TOKEN, None),
            ("mg k Tx", reply::META_BAD_TOKEN, None),
            ("mg k Tx y", reply::META_INVALID_FLAG, None),
            ("mg ??? b", reply::META_BAD_KEY, None),
            (&many, reply::META_TOO_MANY_FLAGS, None),
            ("mg k O12345678901234567890123456789012", reply::META_OPAQUE_TOO_LONG, None),
            ("ms k", reply::BAD_FORMAT, None),
            ("ms k x", reply::BAD_FORMAT, None),
            ("ms k S100", reply::BAD_FORMAT, None),
            ("ms k 5 MX", reply::META_BAD_STORE_MODE, Some(5)),
            ("ms k 5 Fx", reply::BAD_FORMAT, Some(5)),
            ("ms k 5 T T", reply::META_DUPLICATE_FLAG, Some(5)),
            ("ma k v v", reply::META_INVALID_OR_DUPLICATE, None),
            ("ma k Dx", reply::META_INVALID_OR_DUPLICATE, None),
            ("ma k Mx", reply::META_BAD_ARITHMETIC_MODE, None),
        ] {
            let expected = Err(Rejection::Answer { reply, swallow });
            assert_eq!(parse_line(line.as_bytes(), 2), expected, "{line:?}");
        }
    }

    #[test]
    fn order_and_arguments() {
        let parsed = args("mg k t Oabc k N30 v");
        assert_eq!(parsed.order.as_slice(), b"tOkNv");
        assert_eq!(parsed.opaque.as_slice(), b"Oabc");
        assert_eq!(parsed.vivify, Some(super::super::Exptime::Relative(30)));
        assert!(parsed.value && !parsed.quiet);
    }

    #[test]
    fn a_binary_key_is_decoded_and_encoded_again() {
        let line = parse_line(b"mg AAECIA== b k", 2).expect("valid");
        let Request::Meta { key, args, .. } = line.request else { panic!() };
        assert_eq!(&key[..], b"\x00\x01\x02 ");
        assert!(args.key_binary);
        let mut out = Vec::new();
        write_key(&mut out, &key, true);
        assert_eq!(out, b"AAECIA==");
    }

    #[test]
    fn keys_as_in_a_url() {
        let mut out = Vec::new();
        write_uri_key(&mut out, b"aZ0-._~ /%\x00\xff");
        assert_eq!(out, b"aZ0-._~%20%2F%25%00%FF");
    }
}
