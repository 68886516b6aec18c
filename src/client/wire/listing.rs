//! Lists of keys, as `lru_crawler metadump` prints them. Owns the reading of a line; no I/O.

use crate::client::error::Error;
use crate::client::wire::reply::{Fault, Reply};

/// One line of a list, or its end.
pub(in crate::client) fn parse(line: &[u8]) -> Result<Reply<'_>, Fault> {
    match line {
        b"END" => return Ok(Reply::End),
        // Newer servers say first that they will.
        b"OK" => return Ok(Reply::Ok),
        _ => {}
    }
    let shown = || String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned();
    if let Some(rest) = line.strip_prefix(b"key=") {
        return Ok(Reply::Key(rest.split(|byte| *byte == b' ').next().unwrap_or_default()));
    }
    const REFUSALS: [&[u8]; 4] = [b"ERROR", b"CLIENT_ERROR ", b"SERVER_ERROR ", b"BUSY "];
    match std::str::from_utf8(line) {
        Ok(text) if REFUSALS.iter().any(|refusal| line.starts_with(refusal)) => {
            Ok(Reply::Refused(text))
        }
        _ => Err(Fault(shown())),
    }
}

/// Hands over the key of a line.
pub(in crate::client) fn key(reply: Reply<'_>, each: &mut impl FnMut(&[u8])) -> Result<(), Error> {
    match reply {
        Reply::Key(escaped) => each(&unescaped(escaped)),
        Reply::Ok | Reply::End => {}
        other => return Err(Error::protocol("", format!("{other:?}"))),
    }
    Ok(())
}

/// With each `%` and two digits as the byte that they stand for.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let digit =
        |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, behind @ ..] = rest {
        rest = behind;
        bytes.push(match (first, behind) {
            (b'%', [high, low, after @ ..]) => match (digit(high), digit(low)) {
                (Some(high), Some(low)) => {
                    rest = after;
                    high << 4 | low
                }
                _ => *first,
            },
            _ => *first,
        });
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_list() {
        let line = b"key=a%20b%25%zz%4 exp=-1 la=17 cas=3 fetch=no cls=1 size=63";
        let mut found = Vec::new();
        for line in [&b"OK"[..], line, b"key=%00%FF exp=5", b"END"] {
            key(parse(line).unwrap(), &mut |key| found.push(key.to_vec())).unwrap();
        }
        assert_eq!(found, [&b"a b%%zz%4"[..], &[0, 255]]);
        for refusal in ["ERROR", "CLIENT_ERROR metadump not allowed", "BUSY crawler"] {
            assert_eq!(parse(refusal.as_bytes()), Ok(Reply::Refused(refusal)));
        }
        for odd in [&b"VALUE a 0 1"[..], b"", b"ERROR \xff"] {
            assert!(parse(odd).is_err());
        }
    }
}
