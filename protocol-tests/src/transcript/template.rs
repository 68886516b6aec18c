//! The text of transcript lines: escapes, long runs, captures and patterns.
//!
//! | written | in requests | in replies |
//! |---|---|---|
//! | `\r \n \t \0 \\ \{ \} \x7f` | that byte | that byte |
//! | `{x*2049}` | 2049 times `x` | 2049 times `x` |
//! | `{now+60}` `{now-60}` | Unix time | - |
//! | `{name}` | captured text | captures a number, later the same number |
//! | `{ttl 60}` | - | 60, or a few less: seconds left of an expiry |
//! | `{#}` | - | any number (patterns only) |
//! | `{*}` | - | anything up to the line end (patterns only) |
//!
//! No I/O; the time is an argument.

use std::collections::HashMap;

/// How much later than the request that set an expiry it may be asked for.
const SECONDS_PASSED_MAX: i64 = 5;

/// Captured numbers by name.
pub type Captures = HashMap<String, Vec<u8>>;

/// A parsed line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Bytes(Vec<u8>),
    Capture(String),
    Now(i64),
    SecondsLeft(i64),
    Number,
    Anything,
}

/// Which placeholders a line may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Bytes to send.
    Request,
    /// Bytes to expect.
    Reply,
    /// A pattern to expect.
    Pattern,
}

impl Template {
    /// Parses `text` and appends `line_end`.
    ///
    /// # Errors
    /// Says which escape or placeholder is wrong.
    pub fn parse(text: &str, line_end: &[u8], usage: Use) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut rest = text;
        while let Some(character) = rest.chars().next() {
            rest = &rest[character.len_utf8()..];
            match character {
                '\\' => rest = parse_escape(rest, &mut literal)?,
                '{' => {
                    let (inside, after) = rest.split_once('}').ok_or("missing }")?;
                    rest = after;
                    match parse_placeholder(inside, usage)? {
                        Part::Bytes(run) => literal.extend(run),
                        part => {
                            parts.push(Part::Bytes(std::mem::take(&mut literal)));
                            parts.push(part);
                        }
                    }
                }
                _ => literal.extend(character.to_string().bytes()),
            }
        }
        literal.extend_from_slice(line_end);
        parts.push(Part::Bytes(literal));
        Ok(Self { parts })
    }

    /// The bytes to send.
    ///
    /// # Errors
    /// Names a capture that no reply has set.
    pub fn render(&self, captures: &Captures, now: i64) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        for part in &self.parts {
            match part {
                Part::Bytes(literal) => bytes.extend_from_slice(literal),
                Part::Capture(name) => {
                    bytes.extend(captures.get(name).ok_or(format!("no capture {name:?}"))?);
                }
                Part::Now(offset) => bytes.extend((now + offset).to_string().bytes()),
                Part::SecondsLeft(_) | Part::Number | Part::Anything => {
                    return Err("a pattern cannot be sent".into());
                }
            }
        }
        Ok(bytes)
    }

    /// Names of the captures it uses.
    pub fn captures(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Capture(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Whether it is exactly these bytes.
    #[must_use]
    pub fn is_literal(&self, bytes: &[u8]) -> bool {
        matches!(self.parts.as_slice(), [Part::Bytes(literal)] if literal == bytes)
    }

    /// Matches the start of `input`; returns the length of the match and sets new captures.
    pub fn matches(&self, input: &[u8], captures: &mut Captures) -> Option<usize> {
        match_parts(&self.parts, input, captures)
    }

    /// For messages: literal bytes escaped, placeholders in braces.
    #[must_use]
    pub fn display(&self) -> String {
        let show = |part: &Part| match part {
            Part::Bytes(literal) => escape(literal),
            Part::Capture(name) => format!("{{{name}}}"),
            Part::Now(offset) => format!("{{now{offset:+}}}"),
            Part::SecondsLeft(seconds) => format!("{{ttl {seconds}}}"),
            Part::Number => "{#}".to_owned(),
            Part::Anything => "{*}".to_owned(),
        };
        self.parts.iter().map(show).collect()
    }
}

/// Bytes as ASCII with escapes; the middle of long ones is left out.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 400;
    if bytes.len() <= SHOWN_BYTES_MAX {
        return bytes.escape_ascii().to_string();
    }
    let (head, tail) = (&bytes[..SHOWN_BYTES_MAX / 2], &bytes[bytes.len() - 40..]);
    let skipped = bytes.len() - head.len() - tail.len();
    format!("{} ...{skipped} bytes... {}", head.escape_ascii(), tail.escape_ascii())
}

/// Parses what follows a backslash; returns the rest of the line.
fn parse_escape<'a>(rest: &'a str, literal: &mut Vec<u8>) -> Result<&'a str, String> {
    let byte = match rest.as_bytes().first() {
        Some(b'r') => b'\r',
        Some(b'n') => b'\n',
        Some(b't') => b'\t',
        Some(b'0') => 0,
        Some(byte @ (b'\\' | b'{' | b'}')) => *byte,
        Some(b'x') => {
            let digits = rest.get(1..3).ok_or("\\x needs two digits")?;
            literal.push(u8::from_str_radix(digits, 16).map_err(|_| "\\x needs two digits")?);
            return Ok(&rest[3..]);
        }
        _ => return Err(format!("unknown escape before {rest:?}")),
    };
    literal.push(byte);
    Ok(&rest[1..])
}

fn parse_placeholder(inside: &str, usage: Use) -> Result<Part, String> {
    if let Some((unit, count)) = inside.rsplit_once('*').filter(|(unit, _)| !unit.is_empty()) {
        let count: usize = count.parse().map_err(|_| format!("bad count in {{{inside}}}"))?;
        let unit = Template::parse(unit, b"", Use::Request)?.render(&Captures::new(), 0)?;
        return Ok(Part::Bytes(unit.repeat(count)));
    }
    match (inside, usage) {
        ("#", Use::Pattern) => return Ok(Part::Number),
        ("*", Use::Pattern) => return Ok(Part::Anything),
        _ => {}
    }
    if let (Some(offset), Use::Request) = (inside.strip_prefix("now"), usage) {
        let offset = if offset.is_empty() { "0" } else { offset };
        return Ok(Part::Now(offset.parse().map_err(|_| format!("bad {{{inside}}}"))?));
    }
    if let (Some(seconds), Use::Reply | Use::Pattern) = (inside.strip_prefix("ttl "), usage) {
        return Ok(Part::SecondsLeft(seconds.parse().map_err(|_| format!("bad {{{inside}}}"))?));
    }
    let name_is_valid = |name: &str| name.bytes().all(|it| it.is_ascii_lowercase() || it == b'_');
    if inside.is_empty() || !name_is_valid(inside) {
        return Err(format!("unknown placeholder {{{inside}}}"));
    }
    Ok(Part::Capture(inside.to_owned()))
}

fn match_parts(parts: &[Part], input: &[u8], captures: &mut Captures) -> Option<usize> {
    let Some((part, rest)) = parts.split_first() else { return Some(0) };
    let length = match part {
        Part::Bytes(literal) => input.starts_with(literal).then_some(literal.len())?,
        Part::Capture(name) => match captures.get(name) {
            Some(known) => input.starts_with(known).then_some(known.len())?,
            None => {
                let length = number_length(input).filter(|&length| length != 0)?;
                captures.insert(name.clone(), input[..length].to_vec());
                length
            }
        },
        Part::SecondsLeft(seconds) => {
            let length = number_length(input)?;
            let left: i64 = std::str::from_utf8(&input[..length]).ok()?.parse().ok()?;
            (seconds - SECONDS_PASSED_MAX..=*seconds).contains(&left).then_some(length)?
        }
        Part::Number => number_length(input)?,
        Part::Anything => return match_anything(rest, input, captures),
        Part::Now(_) => return None,
    };
    Some(length + match_parts(rest, &input[length..], captures)?)
}

/// Tries every length within the line, shortest first.
fn match_anything(rest: &[Part], input: &[u8], captures: &mut Captures) -> Option<usize> {
    let line_end = input.iter().position(|&byte| byte == b'\n').unwrap_or(input.len());
    (0..=line_end).find_map(|length| {
        let mut attempt = captures.clone();
        let matched = match_parts(rest, &input[length..], &mut attempt)?;
        *captures = attempt;
        Some(length + matched)
    })
}

/// Length of `-12` or `0.25` at the start of `input`; `None` if there is no digit.
fn number_length(input: &[u8]) -> Option<usize> {
    let sign = usize::from(input.first() == Some(&b'-'));
    let digits = |from: usize| input[from..].iter().take_while(|it| it.is_ascii_digit()).count();
    let whole = digits(sign);
    if whole == 0 {
        return None;
    }
    let mut length = sign + whole;
    if input.get(length) == Some(&b'.') && digits(length + 1) != 0 {
        length += 1 + digits(length + 1);
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(text: &str) -> Result<String, String> {
        let captures = Captures::from([("cas".to_owned(), b"77".to_vec())]);
        let bytes = Template::parse(text, b"\r\n", Use::Request)?.render(&captures, 1000)?;
        Ok(escape(&bytes))
    }

    #[test]
    fn requests_render() {
        let check = |text: &str, bytes: &str| assert_eq!(render(text).unwrap(), bytes);
        check("get k", r"get k\r\n");
        check("{x*3}{\\x00*2}{ab*2}", r"xxx\x00\x00abab\r\n");
        check("a\\tb\\\\\\{\\}", r"a\tb\\{}\r\n");
        check("cas {cas} {now} {now-10} {now+10}", r"cas 77 1000 990 1010\r\n");
        check("", r"\r\n");
    }

    #[test]
    fn wrong_requests_are_refused() {
        for text in ["{", "{x*y}", "{#}", "{unknown}", "\\q", "\\x1", "{UPPER}", "{now+x}"] {
            assert!(render(text).is_err(), "{text}");
        }
    }

    #[test]
    fn replies_match() {
        let check = |text: &str, input: &str, length: Option<usize>| {
            let template = Template::parse(text, b"\r\n", Use::Pattern).unwrap();
            assert_eq!(template.matches(input.as_bytes(), &mut Captures::new()), length, "{text}");
        };
        check("HD", "HD\r\nMN\r\n", Some(4));
        check("HD", "HDs\r\n", None);
        check("STAT {#}", "STAT -1.25\r\n", Some(12));
        check("STAT {#}", "STAT x\r\n", None);
        check("a{*}b", "a b b\r\n", Some(7));
        check("a{*}b", "a\r\nb\r\n", None);
        check("t{ttl 60}", "t58\r\n", Some(5));
        check("t{ttl 60}", "t61\r\n", None);
        check("c{cas} c{cas}", "c12 c12\r\n", Some(9));
        check("c{cas} c{cas}", "c12 c13\r\n", None);
    }
}
