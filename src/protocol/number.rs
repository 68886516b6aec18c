//! Numbers as memcached accepts them, with the places where it wraps closed.
//!
//! memcached has two families. The strict one takes digits only and bounds their count. The
//! lenient one is C's `strtol`: a sign may lead. Where memcached truncates a lenient number to 32
//! bits, the value is judged here before it is narrowed.

use super::request::Exptime;
use crate::limits::EXPTIME_RELATIVE_SECONDS_MAX;

/// Most characters of a strict 32-bit number: more are refused, leading zeros or not.
const DIGITS_32_MAX: usize = 11;
/// Most characters of a strict 64-bit number.
const DIGITS_64_MAX: usize = 22;

fn digits(word: &[u8]) -> Option<u64> {
    if word.is_empty() {
        return None;
    }
    word.iter().try_fold(0u64, |number, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Digits only, up to `u64::MAX`.
pub fn strict_u64(word: &[u8]) -> Option<u64> {
    digits(word).filter(|_| word.len() <= DIGITS_64_MAX)
}

/// Digits only, up to `u32::MAX`.
pub fn strict_u32(word: &[u8]) -> Option<u32> {
    let number = digits(word).filter(|_| word.len() <= DIGITS_32_MAX)?;
    u32::try_from(number).ok()
}

/// A minus sign and digits, in the range of `i32`.
pub fn strict_i32(word: &[u8]) -> Option<i32> {
    let (negative, rest) = match word.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, word),
    };
    let number = digits(rest).filter(|_| word.len() <= DIGITS_32_MAX)?;
    let number = i64::try_from(number).ok()?;
    i32::try_from(if negative { -number } else { number }).ok()
}

/// A sign and digits of any size: what C's `strtol` takes. `None` is no number or out of range.
pub fn lenient_i64(word: &[u8]) -> Option<i64> {
    let (negative, rest) = split_sign(word);
    let number = digits(rest)?;
    if negative { 0i64.checked_sub_unsigned(number) } else { i64::try_from(number).ok() }
}

/// Client flags: as `strtoul`, but a number above `u32::MAX` is refused instead of wrapped.
pub fn client_flags(word: &[u8]) -> Option<u32> {
    u32::try_from(lenient_i64(word)?).ok()
}

/// The expiry of a classic storage command. Numbers that do not fit memcached's 32 bits are
/// accepted there and the item is dead at once; so it is here.
pub fn classic_exptime(word: &[u8]) -> Option<Exptime> {
    let (_, rest) = split_sign(word);
    if rest.is_empty() || !rest.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = lenient_i64(word)?;
    Some(i32::try_from(number).map_or(Exptime::Past, exptime))
}

/// What a number of seconds means as an expiry.
pub fn exptime(number: i32) -> Exptime {
    match u32::try_from(number) {
        Err(_) => Exptime::Past,
        Ok(0) => Exptime::Never,
        Ok(seconds) if i64::from(seconds) <= EXPTIME_RELATIVE_SECONDS_MAX => {
            Exptime::Relative(seconds)
        }
        Ok(unix_seconds) => Exptime::Absolute(unix_seconds),
    }
}

fn split_sign(word: &[u8]) -> (bool, &[u8]) {
    match word {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, word),
    }
}

/// A stored value as a number, for incr and decr: blanks, a sign, digits, and then nothing or a
/// blank or NUL. `None`: not a number, or above `u64::MAX`.
pub fn stored_number(value: &[u8]) -> Option<u64> {
    let start = value.iter().position(|byte| !is_blank(*byte))?;
    let (negative, rest) = split_sign(&value[start..]);
    let end = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
    let ends_well = rest.get(end).is_none_or(|byte| is_blank(*byte) || *byte == 0);
    let number = digits(&rest[..end]).filter(|_| ends_well)?;
    // C negates modulo 2^64 and memcached refuses what then looks negative.
    match (negative, number) {
        (false, _) | (true, 0) => Some(number),
        (true, _) => Some(number.wrapping_neg()).filter(|number| number >> 63 == 0),
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict_numbers() {
        for (word, expected) in [
            ("0", Some(0)),
            ("4294967295", Some(u32::MAX)),
            ("4294967296", None),
            ("00000000001", Some(1)),
            ("000000000001", None),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1x", None),
            (" 1", None),
        ] {
            assert_eq!(strict_u32(word.as_bytes()), expected, "{word:?}");
        }
        assert_eq!(strict_u64(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(strict_u64(b"18446744073709551616"), None);
        assert_eq!(strict_i32(b"-2147483648"), Some(i32::MIN));
        assert_eq!(strict_i32(b"-2147483649"), None);
        assert_eq!(strict_i32(b"2147483648"), None);
        assert_eq!(strict_i32(b"-"), None);
    }

    #[test]
    fn flags_do_not_wrap() {
        for (word, expected) in [
            ("4294967295", Some(u32::MAX)),
            ("4294967296", None),
            ("-1", None),
            ("-0", Some(0)),
            ("+7", Some(7)),
            ("", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(client_flags(word.as_bytes()), expected, "{word:?}");
        }
    }

    #[test]
    fn exptimes() {
        for (word, expected) in [
            ("0", Some(Exptime::Never)),
            ("-1", Some(Exptime::Past)),
            ("2592000", Some(Exptime::Relative(2_592_000))),
            ("2592001", Some(Exptime::Absolute(2_592_001))),
            ("4294967296", Some(Exptime::Past)),
            ("99999999999", Some(Exptime::Past)),
            ("1x", None),
            ("+", None),
        ] {
            assert_eq!(classic_exptime(word.as_bytes()), expected, "{word:?}");
        }
    }

    #[test]
    fn stored_numbers() {
        for (value, expected) in [
            ("12", Some(12)),
            (" 12 ", Some(12)),
            ("12abc", None),
            ("12\0abc", Some(12)),
            ("", None),
            ("-5", None),
            ("-0", Some(0)),
            ("+5", Some(5)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("1.5", None),
        ] {
            assert_eq!(stored_number(value.as_bytes()), expected, "{value:?}");
        }
    }
}
