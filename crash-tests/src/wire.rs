//! The two protocols, as far as the rigs speak them: memcached's text and Redis's. Owns how a
//! mutation or a read is written and how its reply is read. No I/O.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::model::{Dialect, Observed, Op, Reply};
use crate::stream::Key;

/// A reply and the number of bytes it took; `None` while it is incomplete.
pub(crate) type Parsed<T> = Option<(T, usize)>;

impl Dialect {
    /// Appends the request for a mutation.
    pub fn write(self, key: &Key, op: &Op, out: &mut Vec<u8>) {
        match self {
            Self::Text if key.is_binary => text_meta(&key.name, op, out),
            Self::Text => text_classic(&key.name, op, out),
            Self::Resp => resp(&key.name, op, out),
        }
    }

    /// Appends the request for what [`Dialect::parse_read`] reads.
    pub fn write_read(self, key: &Key, out: &mut Vec<u8>) {
        match self {
            Self::Text if key.is_binary => {
                out.extend(format!("mg {} b v f t\r\n", STANDARD.encode(&key.name)).bytes());
            }
            Self::Text => lines(out, &[b"mg ", &key.name, b" v f t\r\n"]),
            Self::Resp => {
                resp_command(out, &[b"GET", &key.name]);
                resp_command(out, &[b"TTL", &key.name]);
            }
        }
    }

    /// Reads the reply to a mutation.
    pub fn parse_reply(self, bytes: &[u8]) -> Parsed<Reply> {
        let (line, used) = line(bytes)?;
        let text = String::from_utf8_lossy(line).into_owned();
        let reply = match self {
            Self::Text => text_reply(text),
            Self::Resp => resp_reply(text),
        };
        Some((reply, used))
    }

    /// Reads the reply to a read; an error is a reply that is no value.
    pub fn parse_read(self, bytes: &[u8]) -> Parsed<Result<Option<Observed>, String>> {
        match self {
            Self::Text => text_read(bytes),
            Self::Resp => resp_read(bytes),
        }
    }

    /// The command that makes a snapshot, as a whole request.
    pub fn snapshot(self) -> &'static [u8] {
        match self {
            Self::Text => b"snapshot\r\n",
            Self::Resp => b"BGREWRITEAOF\r\n",
        }
    }

    /// The command that removes everything.
    pub fn flush(self) -> &'static [u8] {
        match self {
            Self::Text => b"flush_all\r\n",
            Self::Resp => b"FLUSHALL\r\n",
        }
    }

    /// A command that is answered by one line as soon as the server serves.
    pub fn probe(self) -> &'static [u8] {
        match self {
            Self::Text => b"mn\r\n",
            Self::Resp => b"GET probe\r\n",
        }
    }
}

fn lines(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// The first line, without its end, and the bytes it took with it.
fn line(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    Some((&bytes[..end], end + 2))
}

fn text_classic(key: &[u8], op: &Op, out: &mut Vec<u8>) {
    match op {
        Op::Set { value, flags, expires } => {
            let numbers = format!(" {flags} {expires} {}\r\n", value.len());
            lines(out, &[b"set ", key, numbers.as_bytes(), value, b"\r\n"]);
        }
        Op::Append(tail) => {
            let numbers = format!(" 0 0 {}\r\n", tail.len());
            lines(out, &[b"append ", key, numbers.as_bytes(), tail, b"\r\n"]);
        }
        Op::Delete => lines(out, &[b"delete ", key, b"\r\n"]),
        Op::Incr(delta) => lines(out, &[b"incr ", key, format!(" {delta}\r\n").as_bytes()]),
        Op::Decr(delta) => lines(out, &[b"decr ", key, format!(" {delta}\r\n").as_bytes()]),
        Op::Touch(expires) => lines(out, &[b"touch ", key, format!(" {expires}\r\n").as_bytes()]),
        Op::Flush => out.extend_from_slice(Dialect::Text.flush()),
    }
}

fn text_meta(key: &[u8], op: &Op, out: &mut Vec<u8>) {
    let name = STANDARD.encode(key);
    match op {
        Op::Set { value, flags, expires } => {
            let head = format!("ms {name} {} b F{flags} T{expires}\r\n", value.len());
            lines(out, &[head.as_bytes(), value, b"\r\n"]);
        }
        Op::Append(tail) => {
            let head = format!("ms {name} {} b MA\r\n", tail.len());
            lines(out, &[head.as_bytes(), tail, b"\r\n"]);
        }
        Op::Delete => out.extend(format!("md {name} b\r\n").bytes()),
        Op::Incr(delta) => out.extend(format!("ma {name} b D{delta} v\r\n").bytes()),
        Op::Decr(delta) => out.extend(format!("ma {name} b MD D{delta} v\r\n").bytes()),
        Op::Touch(expires) => out.extend(format!("mg {name} b T{expires}\r\n").bytes()),
        Op::Flush => out.extend_from_slice(Dialect::Text.flush()),
    }
}

fn text_reply(line: String) -> Reply {
    match line.as_str() {
        "STORED" | "DELETED" | "TOUCHED" | "OK" | "HD" => Reply::Done,
        "NOT_FOUND" | "NOT_STORED" | "NF" | "NS" | "EN" => Reply::Missing,
        _ if line.starts_with("SERVER_ERROR") => Reply::Refused(line),
        _ => match line.trim_end().parse() {
            Ok(number) => Reply::Number(number),
            Err(_) => Reply::Garbage(line),
        },
    }
}

fn text_read(bytes: &[u8]) -> Parsed<Result<Option<Observed>, String>> {
    let (head, used) = line(bytes)?;
    let head = String::from_utf8_lossy(head).into_owned();
    if head == "EN" {
        return Some((Ok(None), used));
    }
    let mut words = head.split(' ');
    let length = (words.next() == Some("VA")).then(|| words.next()?.parse::<usize>().ok());
    let Some(Some(length)) = length else { return Some((Err(head), used)) };
    let value = bytes.get(used..used + length + 2)?;
    let mut observed = Observed { value: value[..length].to_vec(), flags: None, ttl_s: None };
    for word in words {
        match word.split_at_checked(1) {
            Some(("f", flags)) => observed.flags = flags.parse().ok(),
            Some(("t", left)) => observed.ttl_s = left.parse().ok(),
            // Others, as the base64 key, say nothing of the value.
            _ => {}
        }
    }
    Some((Ok(Some(observed)), used + length + 2))
}

fn resp_command(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.extend(format!("*{}\r\n", words.len()).bytes());
    for word in words {
        lines(out, &[format!("${}\r\n", word.len()).as_bytes(), word, b"\r\n"]);
    }
}

fn resp(key: &[u8], op: &Op, out: &mut Vec<u8>) {
    match op {
        Op::Set { value, expires: 0, .. } => resp_command(out, &[b"SET", key, value]),
        Op::Set { value, expires, .. } => {
            resp_command(out, &[b"SET", key, value, b"EXAT", expires.to_string().as_bytes()]);
        }
        Op::Append(tail) => resp_command(out, &[b"APPEND", key, tail]),
        Op::Delete => resp_command(out, &[b"DEL", key]),
        Op::Incr(delta) => resp_command(out, &[b"INCRBY", key, delta.to_string().as_bytes()]),
        Op::Decr(delta) => resp_command(out, &[b"DECRBY", key, delta.to_string().as_bytes()]),
        Op::Touch(at) => resp_command(out, &[b"EXPIREAT", key, at.to_string().as_bytes()]),
        Op::Flush => out.extend_from_slice(Dialect::Resp.flush()),
    }
}

/// A count (of keys removed, of bytes now there) and a counter look alike; the model knows which
/// one it expects, see [`normalize`].
fn resp_reply(line: String) -> Reply {
    match line.split_at_checked(1) {
        Some(("+", _)) => Reply::Done,
        Some(("-", _)) => Reply::Refused(line),
        Some((":", number)) => match number.parse::<i64>() {
            // A counter below zero is not expected of any schedule.
            Ok(number) if number >= 0 => Reply::Number(number.unsigned_abs()),
            _ => Reply::Garbage(line),
        },
        _ => Reply::Garbage(line),
    }
}

/// Gives Redis's counts the meaning of memcached's words.
pub(crate) fn normalize(dialect: Dialect, op: &Op, reply: Reply) -> Reply {
    match (dialect, op, &reply) {
        (Dialect::Resp, Op::Delete | Op::Touch(_), Reply::Number(0)) => Reply::Missing,
        (Dialect::Resp, Op::Delete | Op::Touch(_) | Op::Append(_), Reply::Number(_)) => Reply::Done,
        _ => reply,
    }
}

fn resp_read(bytes: &[u8]) -> Parsed<Result<Option<Observed>, String>> {
    let (head, used) = line(bytes)?;
    let head = String::from_utf8_lossy(head).into_owned();
    let (value, used) = match head.strip_prefix('$').map(str::parse::<i64>) {
        Some(Ok(-1)) => (None, used),
        Some(Ok(length)) => {
            let length = usize::try_from(length).ok()?;
            (Some(bytes.get(used..used + length + 2)?[..length].to_vec()), used + length + 2)
        }
        // The reply to TTL follows even so.
        _ => {
            let (_, more) = line(&bytes[used..])?;
            return Some((Err(head), used + more));
        }
    };
    let (ttl, more) = line(&bytes[used..])?;
    let ttl = str::from_utf8(ttl).ok().and_then(|ttl| ttl.strip_prefix(':')?.parse::<i64>().ok());
    let Some(ttl) = ttl else { return Some((Err("TTL".to_owned()), used + more)) };
    let ttl_s = u64::try_from(ttl).ok();
    Some((Ok(value.map(|value| Observed { value, flags: None, ttl_s })), used + more))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Stream;

    fn written(dialect: Dialect, number: usize, op: &Op) -> String {
        let stream = Stream::new(dialect, 0, 8, 1);
        let mut out = Vec::new();
        dialect.write(&stream.keys[number], op, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn requests() {
        let set = |expires| Op::Set { value: b"xy"[..].into(), flags: 5, expires };
        let text = |op| written(Dialect::Text, 0, &op);
        assert_eq!(text(set(9)), "set w0k0 5 9 2\r\nxy\r\n");
        assert_eq!(text(Op::Append(b"z"[..].into())), "append w0k0 0 0 1\r\nz\r\n");
        assert_eq!(text(Op::Delete), "delete w0k0\r\n");
        assert_eq!(text(Op::Incr(3)), "incr w0k0 3\r\n");
        assert_eq!(text(Op::Touch(3)), "touch w0k0 3\r\n");
        let binary = |op| written(Dialect::Text, 7, &op);
        assert_eq!(binary(set(9)), "ms dzBrNwAgDQp/ 2 b F5 T9\r\nxy\r\n");
        assert_eq!(binary(Op::Delete), "md dzBrNwAgDQp/ b\r\n");
        let resp = |op| written(Dialect::Resp, 0, &op);
        assert_eq!(resp(set(0)), "*3\r\n$3\r\nSET\r\n$4\r\nw0k0\r\n$2\r\nxy\r\n");
        assert_eq!(resp(Op::Decr(12)), "*3\r\n$6\r\nDECRBY\r\n$4\r\nw0k0\r\n$2\r\n12\r\n");
    }

    #[test]
    fn replies() {
        let text = |bytes: &str| Dialect::Text.parse_reply(bytes.as_bytes());
        assert_eq!(text("STORED\r\nmore"), Some((Reply::Done, 8)));
        assert_eq!(text("STORED\r"), None);
        assert_eq!(text("NOT_FOUND\r\n"), Some((Reply::Missing, 11)));
        assert_eq!(text("99 \r\n"), Some((Reply::Number(99), 5)));
        assert!(matches!(text("SERVER_ERROR no\r\n"), Some((Reply::Refused(_), 17))));
        assert!(matches!(text("what\r\n"), Some((Reply::Garbage(_), 6))));
        let resp = |bytes: &str| Dialect::Resp.parse_reply(bytes.as_bytes());
        assert_eq!(resp(":7\r\n"), Some((Reply::Number(7), 4)));
        assert_eq!(normalize(Dialect::Resp, &Op::Delete, Reply::Number(0)), Reply::Missing);
        assert_eq!(normalize(Dialect::Resp, &Op::Incr(1), Reply::Number(0)), Reply::Number(0));
        assert!(matches!(resp("-MISCONF\r\n"), Some((Reply::Refused(_), _))));
    }

    #[test]
    fn reads_cut_anywhere_are_incomplete() {
        let observed = Observed { value: b"a\r\nb".to_vec(), flags: None, ttl_s: Some(9) };
        let cases = [
            (Dialect::Text, "VA 4 f5 t9\r\na\r\nb\r\n", Some(5)),
            (Dialect::Resp, "$4\r\na\r\nb\r\n:9\r\n", None),
        ];
        for (dialect, whole, flags) in cases {
            for end in 0..whole.len() {
                let parsed = dialect.parse_read(&whole.as_bytes()[..end]);
                assert_eq!(parsed, None, "{dialect:?} {end}");
            }
            let expected = Observed { flags, ..observed.clone() };
            let parsed = dialect.parse_read(whole.as_bytes());
            assert_eq!(parsed, Some((Ok(Some(expected)), whole.len())));
        }
        assert_eq!(Dialect::Text.parse_read(b"EN\r\n"), Some((Ok(None), 4)));
        assert_eq!(Dialect::Resp.parse_read(b"$-1\r\n:-2\r\n"), Some((Ok(None), 10)));
    }
}
