//! Reads transcript files. The format is described in the README of this crate.
//!
//! No I/O: text in, [`Transcript`] out, or the number of the line that is wrong.

use std::time::Duration;

use super::template::{Template, Use};
use super::{Exchange, Reply, ReplyKind, Step, Transcript};
use crate::flags::ServerFlags;
use crate::identity::Tag;

/// Parses the text of one file.
///
/// # Errors
/// `name:line: what is wrong`.
pub fn parse(name: &str, text: &str) -> Result<Transcript, String> {
    let mut transcript = Transcript {
        name: name.to_owned(),
        flags: ServerFlags::default(),
        chunked: true,
        skipped: Vec::new(),
        steps: Vec::new(),
    };
    for (index, line) in text.lines().enumerate() {
        parse_line(line, index + 1, &mut transcript)
            .map_err(|error| format!("{name}:{}: {error}: {line:?}", index + 1))?;
    }
    Ok(transcript)
}

fn parse_line(text: &str, line: usize, transcript: &mut Transcript) -> Result<(), String> {
    let Some(kind) = text.chars().next() else { return Ok(()) };
    let rest = &text[kind.len_utf8()..];
    match kind {
        '#' => Ok(()),
        '!' => parse_header(rest, transcript),
        '>' => parse_request(rest, line, &mut transcript.steps),
        '<' | '~' | '=' => parse_reply(kind, rest, line, &mut transcript.steps),
        '@' => {
            transcript.steps.push(Step::Connection(rest.trim().to_owned()));
            Ok(())
        }
        _ => {
            let millis = text.strip_prefix("sleep ").ok_or("unknown line")?;
            let millis = millis.trim().parse().map_err(|_| "bad number of milliseconds")?;
            transcript.steps.push(Step::Sleep(Duration::from_millis(millis)));
            Ok(())
        }
    }
}

/// ` server: -I 1k`, ` chunking: none - reason`, ` skip: memcached<1.6.40 - reason`.
fn parse_header(rest: &str, transcript: &mut Transcript) -> Result<(), String> {
    let (key, value) = rest.split_once(':').ok_or("expected `! key: value`")?;
    match key.trim() {
        "server" => transcript.flags = ServerFlags::parse(value)?,
        "chunking" => {
            let ("none", _) = with_reason(value)? else { return Err("expected none".into()) };
            transcript.chunked = false;
        }
        "skip" => transcript.skipped.push(with_reason(value)?.0.parse()?),
        key => return Err(format!("unknown header {key:?}")),
    }
    Ok(())
}

/// An exception without a reason is not accepted.
fn with_reason(value: &str) -> Result<(&str, &str), String> {
    let (value, reason) = value.split_once(" - ").ok_or("expected ` - reason`")?;
    Ok((value.trim(), reason.trim()))
}

fn parse_request(rest: &str, line: usize, steps: &mut Vec<Step>) -> Result<(), String> {
    let (text, line_end) = split_raw(rest);
    let template = Template::parse(content(text)?, line_end, Use::Request)?;
    match steps.last_mut() {
        // Requests in a row belong together until a reply is expected.
        Some(Step::Exchange(exchange)) if exchange.replies.is_empty() => {
            exchange.request.push(template);
        }
        _ => {
            let exchange = Exchange { line, request: vec![template], replies: Vec::new() };
            steps.push(Step::Exchange(exchange));
        }
    }
    Ok(())
}

fn parse_reply(kind: char, rest: &str, line: usize, steps: &mut [Step]) -> Result<(), String> {
    let (rest, line_end) = split_raw(rest);
    let (tag, rest) = split_tag(rest)?;
    let text = content(rest)?;
    let after_any_lines = text.strip_prefix("... ").filter(|_| kind == '~');
    if after_any_lines.is_some() {
        push_reply(steps, Reply { line, tag, kind: ReplyKind::AnyLines })?;
    }
    let text = after_any_lines.unwrap_or(text);
    let kind = match (kind, text) {
        ('~', "...") => ReplyKind::AnyLines,
        ('~', _) => ReplyKind::Line(Template::parse(text, line_end, Use::Pattern)?),
        ('<', _) => ReplyKind::Line(Template::parse(text, line_end, Use::Reply)?),
        (_, "silent") => ReplyKind::Silent,
        (_, "closed") => ReplyKind::Closed,
        (_, "pending") => ReplyKind::Pending,
        (_, "apart") => ReplyKind::Apart,
        (_, "skip") => ReplyKind::Skip,
        _ => return Err("expected silent, closed, pending, apart or skip".into()),
    };
    push_reply(steps, Reply { line, tag, kind })
}

fn push_reply(steps: &mut [Step], reply: Reply) -> Result<(), String> {
    match steps.last_mut() {
        Some(Step::Exchange(exchange)) => exchange.replies.push(reply),
        _ => return Err("a reply without a request".into()),
    }
    Ok(())
}

/// A `-` right after the first character: the text is taken as it is, without a line end.
fn split_raw(rest: &str) -> (&str, &'static [u8]) {
    match rest.strip_prefix('-') {
        Some(rest) => (rest, b""),
        None => (rest, b"\r\n"),
    }
}

fn split_tag(rest: &str) -> Result<(Option<Tag>, &str), String> {
    let Some(rest) = rest.strip_prefix('[') else { return Ok((None, rest)) };
    let (tag, rest) = rest.split_once(']').ok_or("missing ]")?;
    Ok((Some(tag.parse()?), rest))
}

/// The text after the space that separates it from the line's kind.
fn content(rest: &str) -> Result<&str, String> {
    match rest.strip_prefix(' ') {
        Some(text) => Ok(text),
        None if rest.is_empty() => Ok(rest),
        None => Err("expected a space".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Ending;
    use super::*;
    use crate::identity::{Identity, Version};

    #[test]
    fn exchanges_and_alternatives() {
        let text = "# comment\n! server: -F\n> a\n>- b\\n\n< one\n<[memcached<1.6.40] old\n\
                    =[distcached] closed\n> c\n";
        let transcript = parse("t", text).unwrap();
        let [Step::Exchange(first), Step::Exchange(second)] = transcript.steps.as_slice() else {
            panic!("two exchanges expected: {transcript:?}");
        };
        assert_eq!((first.line, first.request.len(), second.line), (3, 2, 8));
        let old = first.expected(Identity::Memcached(Version([1, 6, 18])));
        assert!(old.lines[0].text.unwrap().is_literal(b"old\r\n"));
        let new = first.expected(Identity::Memcached(Version([1, 6, 45])));
        assert!(new.lines[0].text.unwrap().is_literal(b"one\r\n"));
        let ours = first.expected(Identity::Distcached);
        assert_eq!((ours.lines.len(), ours.ending), (0, Ending::Closed));
        assert_eq!(second.expected(Identity::Distcached).ending, Ending::Open);
    }

    #[test]
    fn wrong_files_are_refused() {
        for text in [
            "< reply first",
            "> get k\n<reply",
            "! server: -z",
            "! skip: memcached",
            "! chunking: none",
            "> get k\n= open",
            "> get k\n<[redis] x",
            "get k",
            "sleep long",
        ] {
            assert!(parse("t", text).is_err(), "{text}");
        }
    }
}
