//! Redis's protocol as bytes, as much of it as the load generator speaks: GET and SET. Owns writing
//! requests and splitting replies, which it gives in the words of `wire`; no I/O.

use std::io::Write as _;

use memchr::memchr;

use crate::population::Population;
use crate::wire::{Reply, data_block, number};

/// Splits the first reply off `input`: the reply and its length in bytes; `None` if the rest of it
/// has not arrived. A value is a `MetaValue`, none is a `MetaMiss`, `OK` is `Stored`.
#[inline]
pub fn parse(input: &[u8]) -> Option<(Reply<'_>, usize)> {
    let newline = memchr(b'\n', input)?;
    let next = newline + 1;
    let line = input[..newline].strip_suffix(b"\r").unwrap_or(&input[..newline]);
    let reply = match line {
        b"+OK" => Reply::Stored,
        b"$-1" => Reply::MetaMiss,
        [b'$', digits @ ..] => match number(digits) {
            Some(length) => {
                let data = data_block(&input[next..], length)?;
                return Some((Reply::MetaValue(data), next + length + 2));
            }
            None => Reply::Other(line),
        },
        _ => Reply::Other(line),
    };
    Some((reply, next))
}

/// A `GET`.
#[inline]
pub fn push_get(out: &mut Vec<u8>, population: &Population, id: u64) {
    out.extend_from_slice(b"*2\r\n$3\r\nGET\r\n");
    push_key(out, population, id);
}

/// A `SET` of the key's own value with its own lifetime.
#[inline]
pub fn push_set(out: &mut Vec<u8>, population: &Population, id: u64) {
    let lifetime_seconds = population.lifetime_seconds(id);
    let words = if lifetime_seconds > 0 { 5 } else { 3 };
    write!(out, "*{words}\r\n$3\r\nSET\r\n").expect("writing to a Vec cannot fail");
    push_key(out, population, id);
    write!(out, "${}\r\n", population.value_bytes(id)).expect("writing to a Vec cannot fail");
    population.push_value(id, out);
    out.extend_from_slice(b"\r\n");
    if lifetime_seconds > 0 {
        let digits = lifetime_seconds.to_string();
        write!(out, "$2\r\nEX\r\n${}\r\n{digits}\r\n", digits.len())
            .expect("writing to a Vec cannot fail");
    }
}

#[inline]
fn push_key(out: &mut Vec<u8>, population: &Population, id: u64) {
    write!(out, "${}\r\n", population.key_bytes(id)).expect("writing to a Vec cannot fail");
    population.push_key(id, out);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::population::Lifetimes;

    #[test]
    fn replies_are_split_and_measured() {
        let check = |input: &str, reply: Reply<'_>, consumed: usize| {
            assert_eq!(parse(input.as_bytes()), Some((reply, consumed)), "{input:?}");
        };
        check("+OK\r\n+OK\r\n", Reply::Stored, 5);
        check("$-1\r\n", Reply::MetaMiss, 5);
        check("$0\r\n\r\n", Reply::MetaValue(b""), 6);
        check("$4\r\n\r\n\r\n\r\n+OK\r\n", Reply::MetaValue(b"\r\n\r\n"), 10);
        check("-ERR full\r\n", Reply::Other(b"-ERR full"), 11);
        check("$x\r\n", Reply::Other(b"$x"), 4);
        check("+PONG\r\n", Reply::Other(b"+PONG"), 7);
    }

    #[test]
    fn every_prefix_of_a_reply_waits_for_more() {
        for whole in ["$5\r\nab\r\nc\r\n", "+OK\r\n", "$-1\r\n"] {
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
        let value = value.as_slice();
        let mut out = Vec::new();
        push_get(&mut out, &population, 7);
        assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$5\r\nk0007\r\n");
        out.clear();
        push_set(&mut out, &population, 7);
        let expected = [b"*3\r\n$3\r\nSET\r\n$5\r\nk0007\r\n$3\r\n", value, b"\r\n"].concat();
        assert_eq!(out, expected);
        let short = population.with_lifetimes(Lifetimes::HalfShort);
        let id = (0..10).find(|&id| short.lifetime_seconds(id) > 0).unwrap();
        out.clear();
        push_set(&mut out, &short, id);
        let seconds = short.lifetime_seconds(id).to_string();
        let ending = format!("\r\n$2\r\nEX\r\n${}\r\n{seconds}\r\n", seconds.len());
        assert!(out.starts_with(b"*5\r\n$3\r\nSET\r\n"));
        assert!(out.ends_with(ending.as_bytes()));
    }
}
