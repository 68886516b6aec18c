//! The memcached text protocol as bytes, as much of it as the load generator speaks. Owns writing
//! requests and splitting replies; no I/O, and no knowledge of which reply is the right one. The
//! other protocol, Redis's, is in `resp` and answers with the same `Reply`.

use std::io::Write as _;
use std::str::FromStr;

use memchr::memchr;

use crate::population::Population;

/// What a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// memcached's text protocol.
    Text,
    /// Redis's protocol: gets and sets of one key only.
    Resp,
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "resp" => Ok(Self::Resp),
            _ => Err(format!("protocol \"{text}\": say text or resp")),
        }
    }
}

/// One reply, or one `VALUE` block of a reply to `get`.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// `VALUE <key> <flags> <bytes>` and its data block.
    Value {
        /// The key as sent by the server.
        key: &'a [u8],
        /// The data block without its line end.
        data: &'a [u8],
    },
    /// `END`: no more values.
    End,
    /// `STORED`.
    Stored,
    /// `VA <bytes>` and its data block: a meta get that found its key.
    MetaValue(&'a [u8]),
    /// `EN`: a meta get that did not.
    MetaMiss,
    /// Any other line: an error, or a server that speaks something else.
    Other(&'a [u8]),
}

/// Splits the first reply off `input`: the reply and its length in bytes; `None` if the rest of it
/// has not arrived.
#[inline]
pub fn parse(input: &[u8]) -> Option<(Reply<'_>, usize)> {
    let newline = memchr(b'\n', input)?;
    let next = newline + 1;
    let line = input[..newline].strip_suffix(b"\r").unwrap_or(&input[..newline]);
    if let Some(header) = line.strip_prefix(b"VALUE ") {
        return parse_value(header, &input[next..])
            .map(|(reply, data_bytes)| (reply, next + data_bytes));
    }
    if let Some(header) = line.strip_prefix(b"VA ") {
        let Some(length) = number(header.split(|&b| b == b' ').next().unwrap_or_default()) else {
            return Some((Reply::Other(line), next));
        };
        let data = data_block(&input[next..], length)?;
        return Some((Reply::MetaValue(data), next + length + 2));
    }
    let reply = match line {
        b"END" => Reply::End,
        b"STORED" => Reply::Stored,
        b"EN" => Reply::MetaMiss,
        _ => Reply::Other(line),
    };
    Some((reply, next))
}

/// The rest of a `VALUE` line and the bytes after it: the reply and the data block's length with
/// its line end.
#[inline]
fn parse_value<'a>(header: &'a [u8], rest: &'a [u8]) -> Option<(Reply<'a>, usize)> {
    let mut fields = header.split(|&b| b == b' ');
    let (key, _flags, length) = (fields.next(), fields.next(), fields.next());
    let (Some(key), Some(length)) = (key, length.and_then(number)) else {
        return Some((Reply::Other(header), 0));
    };
    let data = data_block(rest, length)?;
    Some((Reply::Value { key, data }, length + 2))
}

/// The first `length` bytes, if they and the line end after them have arrived.
#[inline]
pub(crate) fn data_block(input: &[u8], length: usize) -> Option<&[u8]> {
    (input.len() >= length + 2).then(|| &input[..length])
}

#[inline]
pub(crate) fn number(digits: &[u8]) -> Option<usize> {
    // Nine digits cannot overflow, and no value is a gigabyte.
    if digits.is_empty() || digits.len() > 9 {
        return None;
    }
    digits.iter().try_fold(0, |n, &digit| {
        let digit = digit.wrapping_sub(b'0');
        (digit < 10).then(|| n * 10 + usize::from(digit))
    })
}

/// Starts a `get`; follow with `push_get_key` and `push_line_end`.
#[inline]
pub fn push_get(out: &mut Vec<u8>) {
    out.extend_from_slice(b"get");
}

/// One more key of a `get`.
#[inline]
pub fn push_get_key(out: &mut Vec<u8>, population: &Population, id: u64) {
    out.push(b' ');
    population.push_key(id, out);
}

/// Ends a `get`.
#[inline]
pub fn push_line_end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\n");
}

/// A meta get that asks for the value.
#[inline]
pub fn push_meta_get(out: &mut Vec<u8>, population: &Population, id: u64) {
    out.extend_from_slice(b"mg ");
    population.push_key(id, out);
    out.extend_from_slice(b" v\r\n");
}

/// A `set` of the key's own value with its own lifetime.
#[inline]
pub fn push_set(out: &mut Vec<u8>, population: &Population, id: u64, noreply: bool) {
    out.extend_from_slice(b"set ");
    population.push_key(id, out);
    let ending = if noreply { " noreply" } else { "" };
    write!(
        out,
        " 0 {} {}{ending}\r\n",
        population.lifetime_seconds(id),
        population.value_bytes(id)
    )
    .expect("writing to a Vec cannot fail");
    population.push_value(id, out);
    push_line_end(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_split_and_measured() {
        let check = |input: &str, reply: Reply<'_>, consumed: usize| {
            assert_eq!(parse(input.as_bytes()), Some((reply, consumed)), "{input:?}");
        };
        check("END\r\n", Reply::End, 5);
        check("END\r\nEND\r\n", Reply::End, 5);
        check("STORED\r\n", Reply::Stored, 8);
        check("EN\r\n", Reply::MetaMiss, 4);
        check("VALUE k1 0 2\r\n\r\n\r\nEND\r\n", Reply::Value { key: b"k1", data: b"\r\n" }, 18);
        check("VALUE k1 0 0 77\r\n\r\n", Reply::Value { key: b"k1", data: b"" }, 19);
        check("VA 3 f0\r\nabc\r\n", Reply::MetaValue(b"abc"), 14);
        check("SERVER_ERROR full\r\n", Reply::Other(b"SERVER_ERROR full"), 19);
        check("VALUE k1\r\n", Reply::Other(b"k1"), 10);
        check("VA x\r\n", Reply::Other(b"VA x"), 6);
    }

    #[test]
    fn every_prefix_of_a_reply_waits_for_more() {
        for whole in ["VALUE k1 0 5\r\nab\r\nc\r\n", "VA 5\r\nab\r\nc\r\n", "STORED\r\n"] {
            for length in 0..whole.len() {
                assert_eq!(parse(&whole.as_bytes()[..length]), None, "{whole:?} {length}");
            }
        }
    }

    #[test]
    fn requests_are_what_the_protocol_says() {
        let population = Population::new(10, "5".parse().unwrap(), "3".parse().unwrap()).unwrap();
        let mut value = Vec::new();
        population.push_value(7, &mut value);
        let mut out = Vec::new();
        push_get(&mut out);
        push_get_key(&mut out, &population, 7);
        push_get_key(&mut out, &population, 12);
        push_line_end(&mut out);
        push_meta_get(&mut out, &population, 7);
        push_set(&mut out, &population, 7, false);
        push_set(&mut out, &population, 7, true);
        let mut expected = b"get k0007 k0012\r\nmg k0007 v\r\nset k0007 0 0 3\r\n".to_vec();
        expected.extend_from_slice(&value);
        expected.extend_from_slice(b"\r\nset k0007 0 0 3 noreply\r\n");
        expected.extend_from_slice(&value);
        expected.extend_from_slice(b"\r\n");
        assert_eq!(out, expected);
    }
}
