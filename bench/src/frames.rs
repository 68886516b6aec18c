//! memcached's binary protocol as bytes, as much of it as the load generator speaks: gets, sets and
//! the quiet forms of both. Owns writing requests and splitting replies, which it gives in the
//! words of `wire`; no I/O.

use crate::population::Population;
use crate::wire::Reply;

const HEADER_BYTES: usize = 24;
const REQUEST_MAGIC: u8 = 0x80;
const REPLY_MAGIC: u8 = 0x81;

const GET: u8 = 0x00;
const SET: u8 = 0x01;
const NOOP: u8 = 0x0a;
/// A hit is answered with its key, a miss not at all.
const GETKQ: u8 = 0x0d;
const SETQ: u8 = 0x11;

const DONE: u16 = 0;
const NOT_FOUND: u16 = 1;

/// Splits the first reply off `input`: the reply and its length in bytes; `None` if the rest of it
/// has not arrived. The value of a get is a `MetaValue`, none is a `MetaMiss`; that of a quiet one
/// is a `Value`, and a noop is an `End`.
#[inline]
pub fn parse(input: &[u8]) -> Option<(Reply<'_>, usize)> {
    let header = input.get(..HEADER_BYTES)?;
    if header[0] != REPLY_MAGIC {
        return Some((Reply::Other(header), HEADER_BYTES));
    }
    let body_bytes = u32::from_be_bytes([header[8], header[9], header[10], header[11]]) as usize;
    let body = input.get(HEADER_BYTES..HEADER_BYTES + body_bytes)?;
    let (extras_bytes, key_bytes) =
        (usize::from(header[4]), usize::from(u16::from_be_bytes([header[2], header[3]])));
    let status = u16::from_be_bytes([header[6], header[7]]);
    let data = body.get(extras_bytes + key_bytes..);
    let reply = match (header[1], status, data) {
        (GET, DONE, Some(data)) => Reply::MetaValue(data),
        (GET, NOT_FOUND, _) => Reply::MetaMiss,
        (GETKQ, DONE, Some(data)) => {
            Reply::Value { key: &body[extras_bytes..extras_bytes + key_bytes], data }
        }
        (NOOP, DONE, _) => Reply::End,
        (SET, DONE, _) => Reply::Stored,
        _ => Reply::Other(body),
    };
    Some((reply, HEADER_BYTES + body_bytes))
}

/// A get that is answered in any case.
#[inline]
pub fn push_get(out: &mut Vec<u8>, population: &Population, id: u64) {
    push_header(out, GET, population.key_bytes(id), 0, 0);
    population.push_key(id, out);
}

/// A get that a miss does not answer; `push_noop` ends any number of them.
#[inline]
pub fn push_quiet_get(out: &mut Vec<u8>, population: &Population, id: u64) {
    push_header(out, GETKQ, population.key_bytes(id), 0, 0);
    population.push_key(id, out);
}

/// What is answered when all before it was.
#[inline]
pub fn push_noop(out: &mut Vec<u8>) {
    push_header(out, NOOP, 0, 0, 0);
}

/// A set of the key's own value with its own lifetime; a quiet one has no answer if all is well.
#[inline]
pub fn push_set(out: &mut Vec<u8>, population: &Population, id: u64, quiet: bool) {
    let opcode = if quiet { SETQ } else { SET };
    let value_bytes = population.value_bytes(id);
    push_header(out, opcode, population.key_bytes(id), 8, value_bytes);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&population.lifetime_seconds(id).to_be_bytes());
    population.push_key(id, out);
    population.push_value(id, out);
}

#[inline]
fn push_header(
    out: &mut Vec<u8>,
    opcode: u8,
    key_bytes: usize,
    extras_bytes: usize,
    value_bytes: usize,
) {
    let mut header = [0; HEADER_BYTES];
    (header[0], header[1]) = (REQUEST_MAGIC, opcode);
    header[2..4].copy_from_slice(&(key_bytes as u16).to_be_bytes());
    header[4] = extras_bytes as u8;
    let body_bytes = (key_bytes + extras_bytes + value_bytes) as u32;
    header[8..12].copy_from_slice(&body_bytes.to_be_bytes());
    out.extend_from_slice(&header);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(opcode: u8, status: u8, extras: &[u8], key: &[u8], data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        push_header(&mut bytes, opcode, key.len(), extras.len(), data.len());
        (bytes[0], bytes[7]) = (REPLY_MAGIC, status);
        [bytes, extras.to_vec(), key.to_vec(), data.to_vec()].concat()
    }

    #[test]
    fn replies_are_split_and_measured() {
        for (bytes, expected) in [
            (reply(GET, 0, &[0; 4], b"", b"value"), Reply::MetaValue(b"value")),
            (reply(GET, 1, b"", b"", b"Not found"), Reply::MetaMiss),
            (reply(GETKQ, 0, &[0; 4], b"k1", b""), Reply::Value { key: b"k1", data: b"" }),
            (reply(NOOP, 0, b"", b"", b""), Reply::End),
            (reply(SET, 0, b"", b"", b""), Reply::Stored),
            (reply(SETQ, 0x82, b"", b"", b"Out of memory"), Reply::Other(b"Out of memory")),
        ] {
            let whole = [bytes.clone(), vec![REPLY_MAGIC]].concat();
            assert_eq!(parse(&whole), Some((expected, bytes.len())));
            for end in 0..bytes.len() {
                assert_eq!(parse(&bytes[..end]), None, "{end}");
            }
        }
        assert!(matches!(parse(b"CLIENT_ERROR bad command\r\n"), Some((Reply::Other(_), 24))));
    }

    #[test]
    fn requests_are_what_the_protocol_says() {
        let population = Population::new(10, "5".parse().unwrap(), "3".parse().unwrap()).unwrap();
        let mut value = Vec::new();
        population.push_value(7, &mut value);
        let mut out = Vec::new();
        push_get(&mut out, &population, 7);
        push_quiet_get(&mut out, &population, 7);
        push_noop(&mut out);
        push_set(&mut out, &population, 7, false);
        push_set(&mut out, &population, 7, true);
        let zeros = &[0; 12][..];
        let head =
            |opcode, key, extras, body| [0x80, opcode, 0, key, extras, 0, 0, 0, 0, 0, 0, body];
        let expected = [
            &head(0x00, 5, 0, 5)[..],
            zeros,
            b"k0007",
            &head(0x0d, 5, 0, 5),
            zeros,
            b"k0007",
            &head(0x0a, 0, 0, 0),
            zeros,
            &head(0x01, 5, 8, 16),
            zeros,
            &[0; 8],
            b"k0007",
            &value,
            &head(0x11, 5, 8, 16),
            zeros,
            &[0; 8],
            b"k0007",
            &value,
        ];
        assert_eq!(out, expected.concat());
    }
}
