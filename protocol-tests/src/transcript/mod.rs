//! Readable wire transcripts: what a client sends and what a server must answer.
//!
//! [`parse`] reads the format that the README describes, [`template`] holds its text (escapes, long
//! runs, captures, patterns), [`chunking`] cuts requests into pieces, [`replay`] plays a transcript
//! to a server, [`suite`] plays all of them.

pub mod chunking;
pub mod parse;
pub mod replay;
pub mod suite;
pub mod template;

use std::time::Duration;

use crate::flags::ServerFlags;
use crate::identity::{Identity, Tag};
use template::Template;

/// One file of the folder `transcripts`.
#[derive(Debug, Clone, PartialEq)]
pub struct Transcript {
    /// File name without its extension.
    pub name: String,
    /// Flags of the server it needs.
    pub flags: ServerFlags,
    /// False: replies depend on time or on what else is in flight, so the requests must go out one
    /// exchange at a time. The file gives the reason.
    pub chunked: bool,
    /// Servers it cannot be played to.
    pub skipped: Vec<Tag>,
    /// What happens, in order.
    pub steps: Vec<Step>,
}

impl Transcript {
    /// Whether this transcript applies to a server.
    #[must_use]
    pub fn applies_to(&self, identity: Identity) -> bool {
        !self.skipped.iter().any(|tag| tag.selects(identity))
    }
}

/// One step of a transcript.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Requests and their replies.
    Exchange(Exchange),
    /// Let time pass.
    Sleep(Duration),
    /// Continue on the connection of this name, opened at first use.
    Connection(String),
}

/// Requests sent together and everything the server may answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    /// Line of the first request in the file.
    pub line: usize,
    /// The requests, line ends included.
    pub request: Vec<Template>,
    /// Expected replies of all servers, in the order of the file.
    replies: Vec<Reply>,
}

/// An expected line, or how the exchange ends.
#[derive(Debug, Clone, PartialEq)]
struct Reply {
    line: usize,
    tag: Option<Tag>,
    kind: ReplyKind,
}

#[derive(Debug, Clone, PartialEq)]
enum ReplyKind {
    Line(Template),
    /// Any number of lines, up to the one that matches the next expected line.
    AnyLines,
    Silent,
    Closed,
    Pending,
    Apart,
    Skip,
}

/// What one server must answer in one exchange.
#[derive(Debug, Clone, PartialEq)]
pub struct Expected<'a> {
    /// Reply lines in order.
    pub lines: Vec<ExpectedLine<'a>>,
    /// What comes after them.
    pub ending: Ending,
}

/// One expected line and its place in the file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExpectedLine<'a> {
    /// Line in the file.
    pub line: usize,
    /// `None`: any number of lines.
    pub text: Option<&'a Template>,
}

/// What follows the last reply of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The connection waits for the next request.
    Open,
    /// The server closes the connection.
    Closed,
    /// The server waits for the rest of a request and says nothing.
    Pending,
    /// The connection waits for the next request, but the sentinel must be sent on its own: what is
    /// sent right behind a dump waits in memcached until more arrives.
    Apart,
    /// The exchange is not sent to this server.
    Skipped,
}

impl Exchange {
    /// Picks the replies that apply to a server: those tagged for it if there are any, else those
    /// without a tag.
    #[must_use]
    pub fn expected(&self, identity: Identity) -> Expected<'_> {
        let tagged = |reply: &&Reply| reply.tag.is_some_and(|tag| tag.selects(identity));
        let mut chosen: Vec<&Reply> = self.replies.iter().filter(tagged).collect();
        if chosen.is_empty() {
            chosen = self.replies.iter().filter(|reply| reply.tag.is_none()).collect();
        }
        let mut expected = Expected { lines: Vec::new(), ending: Ending::Open };
        for Reply { line, kind, .. } in chosen {
            match kind {
                ReplyKind::Line(text) => {
                    expected.lines.push(ExpectedLine { line: *line, text: Some(text) });
                }
                ReplyKind::AnyLines => {
                    expected.lines.push(ExpectedLine { line: *line, text: None });
                }
                ReplyKind::Silent => {}
                ReplyKind::Closed => expected.ending = Ending::Closed,
                ReplyKind::Pending => expected.ending = Ending::Pending,
                ReplyKind::Apart => expected.ending = Ending::Apart,
                ReplyKind::Skip => expected.ending = Ending::Skipped,
            }
        }
        expected
    }
}
