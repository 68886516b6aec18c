//! The differences between servers that are intended or known, and nothing else.
//!
//! Every rule names the requests it is about and what the two replies may be, as narrowly as it
//! can: a rule that is too wide hides mistakes. A random stream fails at the first difference
//! without a rule, so this table is the whole list of what clients can notice.

use crate::flags::ServerFlags;
use crate::identity::{Identity, Version};
use crate::stream::meta::encoded;
use crate::stream::request::Request;

/// The release that rewrote memcached's parser: 1.6.40.
const NEW_PARSER: Version = Version([1, 6, 40]);

/// Two servers that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// The server under test.
    pub left: Identity,
    /// The oracle.
    pub right: Identity,
}

/// Which pairs of servers a rule is about, and which of the two deviates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Between {
    /// distcached deviates from every memcached.
    Distcached,
    /// Every memcached since 1.6.40 deviates from all others.
    NewMemcached,
    /// Every memcached before 1.6.40 deviates from all others.
    OldMemcached,
}

/// Whether the servers hold the same items after the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// They do.
    Same,
    /// Perhaps not: the keys of the command must be deleted before they are used again.
    MayDiffer,
    /// Perhaps not, and nothing in the request tells: when it happens both servers are emptied.
    Lost,
}

/// One intended difference.
#[derive(Debug)]
pub struct Rule {
    /// Short name, for counts.
    pub id: &'static str,
    /// Why it is so.
    pub reason: &'static str,
    /// Who deviates from whom.
    pub between: Between,
    /// What it does to items.
    pub state: State,
    /// Requests it is about.
    request: fn(&Request<'_>) -> bool,
    /// Replies it allows: of the server that deviates, and of the other. None, if only the items
    /// differ afterwards.
    replies: fn(&[u8], &[u8]) -> bool,
}

impl Pair {
    /// Whether one of them is a memcached with the old parser.
    #[must_use]
    pub fn has_old_memcached(self) -> bool {
        [self.left, self.right].iter().any(|server| server.is_memcached_before(NEW_PARSER))
    }

    /// The rules that may explain a difference in the replies to a request.
    #[must_use]
    pub fn rules(self, request: &Request<'_>) -> Vec<&'static Rule> {
        let applies = |rule: &&Rule| self.deviates(rule).is_some() && (rule.request)(request);
        RULES.iter().filter(applies).collect()
    }

    /// `Some(true)` if the left server is the one that deviates, `None` if the rule is not about
    /// this pair.
    fn deviates(self, rule: &Rule) -> Option<bool> {
        let deviates = |identity: Identity| match rule.between {
            Between::Distcached => identity == Identity::Distcached,
            Between::NewMemcached => identity.is_memcached_since(NEW_PARSER),
            Between::OldMemcached => identity.is_memcached_before(NEW_PARSER),
        };
        match (deviates(self.left), deviates(self.right)) {
            (true, false) => Some(true),
            (false, true) => Some(false),
            _ => None,
        }
    }
}

impl Rule {
    /// Whether the rule explains these replies to the request.
    #[must_use]
    pub fn accepts(&self, pair: Pair, request: &Request<'_>, left: &[u8], right: &[u8]) -> bool {
        match pair.deviates(self) {
            Some(true) => (self.request)(request) && (self.replies)(left, right),
            Some(false) => (self.request)(request) && (self.replies)(right, left),
            None => false,
        }
    }
}

/// Flags for both servers: so much room that nothing is evicted however long a run, and none of
/// memcached's background threads, which hold on to items now and then and so change what incr does
/// to them. `workers`: `-t`, if not what each takes by itself.
#[must_use]
pub fn flags_of_both(workers: Option<usize>) -> ServerFlags {
    let workers = workers.map_or(String::new(), |workers| format!("-t {workers}"));
    let flags = format!("-m 1024 -o no_lru_maintainer -o no_lru_crawler {workers}");
    ServerFlags::parse(&flags).unwrap_or_default()
}

/// All rules. Where several apply to a request, the first that accepts the replies counts.
pub static RULES: &[Rule] = &[
    // ---- what distcached does differently on purpose --------------------------------------------
    Rule {
        id: "flags-32-bit",
        reason: "memcached keeps the lower half of client flags beyond 32 bit; we refuse them",
        between: Between::Distcached,
        state: State::MayDiffer,
        request: |request| request.is_classic_storage() && BIG_FLAGS.contains(&request.word(2)),
        replies: |ours, theirs| {
            (ours == BAD_FORMAT && is_one_of(theirs, &["STORED", "NOT_STORED"]))
                || (ours.is_empty() && theirs.is_empty())
        },
    },
    Rule {
        id: "seconds-left-of-the-dead",
        reason: "memcached shows a wrapped number for an expiry that just became past",
        between: Between::Distcached,
        state: State::Same,
        request: |request| {
            request.flag(b't').is_some()
                && (has_past_expiry(request, b'T') || has_past_expiry(request, b'N'))
        },
        replies: |ours, theirs| without_flags(ours, b"tcl") == without_flags(theirs, b"tcl"),
    },
    Rule {
        id: "arithmetic-keeps-expiry-and-token",
        reason: "when a number needs more room memcached applies T and E to the item it discards",
        between: Between::Distcached,
        state: State::MayDiffer,
        request: |request| {
            request.verb() == "ma" && (request.flag(b'T').is_some() || request.flag(b'E').is_some())
        },
        replies: |_, _| false,
    },
    Rule {
        id: "opaque-checked-first",
        reason: "memcached looks at other errors first, and changes the item before it finds the \
                 opaque token too long",
        between: Between::Distcached,
        state: State::MayDiffer,
        request: |request| {
            request.is_meta() && request.flag(b'O').is_some_and(|opaque| 31 < opaque.len())
        },
        replies: |ours, theirs| is_error(ours) && is_error(theirs),
    },
    Rule {
        id: "key-stays-binary",
        reason: "memcached forgets that a key came in base64 when append, arithmetic, md x or N \
                 make a new item, and then writes its raw bytes, line feeds included",
        between: Between::Distcached,
        state: State::Same,
        request: |request| {
            (request.verb() == "me" || request.flag(b'k').is_some())
                && (request.flag(b'b').is_some() || encoded(request.word(1)).is_some())
        },
        replies: |ours, theirs| {
            let show = |reply| without_flags(reply, b"tcl");
            differ_in_key_only(&show(ours), &show(theirs))
        },
    },
    Rule {
        id: "token-before-number",
        reason: "memcached refuses large values in ma before it compares the token",
        between: Between::Distcached,
        state: State::Same,
        request: |request| request.verb() == "ma" && request.flag(b'C').is_some(),
        replies: |ours, theirs| ours.starts_with(b"EX") && theirs == NON_NUMERIC,
    },
    // ---- what memcached's parser does since 1.6.40, and only it --------------------------------
    Rule {
        id: "empty-line-after-long-key",
        reason: "memcached writes an empty line after the error for a long key in get",
        between: Between::NewMemcached,
        state: State::Same,
        request: |request| request.is(&["get", "gets", "gat", "gats"]) && request.has_long_key(),
        replies: |new, other| other == BAD_FORMAT && new == [BAD_FORMAT, b"\r\n"].concat(),
    },
    Rule {
        id: "delete-with-delay",
        reason: "1.6.40 deletes whatever follows the key; we refuse a delay as 1.6.18 did",
        between: Between::NewMemcached,
        state: State::MayDiffer,
        request: |request| request.verb() == "delete" && 2 < request.len(),
        replies: |new, other| {
            is_one_of(new, &["DELETED", "NOT_FOUND"])
                && other.starts_with(b"CLIENT_ERROR bad command line format.  Usage: delete")
        },
    },
    Rule {
        id: "me-base64",
        reason: "1.6.40 and later decode the key of `me <key> b` only if one more word follows",
        between: Between::NewMemcached,
        state: State::Same,
        request: |request| request.verb() == "me" && request.flag(b'b').is_some(),
        replies: |new, other| new == b"EN\r\n" && other.starts_with(b"ME "),
    },
    // ---- what memcached before 1.6.40 did, and nobody does now ---------------------------------
    Rule {
        id: "old-too-few-words",
        reason: "before 1.6.40: ERROR, or END for a gat without keys",
        between: Between::OldMemcached,
        state: State::Same,
        request: |request| request.len() < words_min(request) || request.line().len() < 3,
        replies: |old, new| has_only_errors(new) && (has_only_errors(old) || old == b"END\r\n"),
    },
    Rule {
        id: "old-data-block-after-bad-header",
        reason: "before 1.6.40 the data block after a bad header was taken for a command",
        between: Between::OldMemcached,
        state: State::Same,
        request: |request| request.is_classic_storage() || request.verb() == "ms",
        replies: |old, new| {
            new.len() <= BAD_FORMAT.len()
                && has_only_errors(new)
                && old.strip_prefix(new) == Some(b"ERROR\r\n".as_slice())
        },
    },
    Rule {
        id: "old-noreply-hides-length-errors",
        reason: "before 1.6.40 noreply was read before the length was checked",
        between: Between::OldMemcached,
        state: State::Same,
        request: |request| request.is_classic_storage() && request.has_noreply(),
        replies: |old, new| new.strip_prefix(BAD_FORMAT) == Some(old) && has_only_errors(old),
    },
    Rule {
        id: "old-unknown-command-noreply",
        reason: "before 1.6.40 noreply did not silence the error for an unknown command",
        between: Between::OldMemcached,
        state: State::Same,
        request: |request| request.has_noreply(),
        replies: |old, new| new.is_empty() && old == b"ERROR\r\n",
    },
    Rule {
        id: "old-short-line",
        reason: "lines below four bytes are a format error since 1.6.40, ERROR before",
        between: Between::OldMemcached,
        state: State::Same,
        request: |request| request.is_classic_storage() || request.verb() == "ms",
        replies: |old, new| {
            let plain = |reply: &[u8]| {
                String::from_utf8_lossy(reply)
                    .replace("CLIENT_ERROR bad command line format", "ERROR")
            };
            plain(old) == plain(new)
        },
    },
    Rule {
        id: "old-leading-space",
        reason: "before 1.6.40 spaces before a command were skipped",
        between: Between::OldMemcached,
        state: State::Same,
        request: |request| request.line().first() == Some(&b' '),
        replies: |_, new| new == b"ERROR\r\n",
    },
    Rule {
        id: "old-extra-words",
        reason: "before 1.6.40 words too many were an error for incr, decr and touch",
        between: Between::OldMemcached,
        state: State::MayDiffer,
        request: |request| request.is(&["incr", "decr", "touch"]) && 3 < request.len(),
        replies: |old, _| old == b"ERROR\r\n",
    },
    Rule {
        id: "old-wide-expiry",
        reason: "before 1.6.40 expiries beyond 32 bit were taken, less their upper half",
        between: Between::OldMemcached,
        state: State::MayDiffer,
        request: has_wide_expiry,
        replies: |_, new| is_error(new),
    },
    Rule {
        id: "old-missing-flags",
        reason: "1.6.18 does not know E and x",
        between: Between::OldMemcached,
        state: State::MayDiffer,
        request: |request| request.flag(b'E').is_some() || request.flag(b'x').is_some(),
        replies: |old, _| is_error(old),
    },
    Rule {
        id: "old-mode-length",
        reason: "1.6.18 refuses M without exactly one letter, for every command",
        between: Between::OldMemcached,
        state: State::MayDiffer,
        request: |request| request.flag(b'M').is_some_and(|mode| mode.len() != 1),
        replies: |old, _| is_error(old),
    },
    Rule {
        id: "old-error-text",
        reason: "texts of meta errors changed in 1.6.40",
        between: Between::OldMemcached,
        state: State::Same,
        request: |request| request.is(&["md", "ma", "mg", "ms", "me"]),
        replies: |old, new| is_error(old) && is_error(new),
    },
    Rule {
        id: "old-no-size-flag",
        reason: "1.6.18 ignores s in ms",
        between: Between::OldMemcached,
        state: State::Same,
        request: |request| request.verb() == "ms" && request.flag(b's').is_some(),
        replies: |old, new| without_flags(old, b"c") == without_flags(new, b"cs"),
    },
    Rule {
        id: "old-no-append-vivify",
        reason: "1.6.18 ignores N in ms with MA and MP",
        between: Between::OldMemcached,
        state: State::MayDiffer,
        request: |request| {
            request.verb() == "ms"
                && request.flag(b'N').is_some()
                && matches!(request.flag(b'M'), Some(b"A" | b"P"))
        },
        replies: |old, _| old.starts_with(b"NS"),
    },
    Rule {
        id: "old-quiet-vivify",
        reason: "1.6.18 answers HD to an ma that creates an item in spite of q",
        between: Between::OldMemcached,
        state: State::Same,
        request: |request| {
            request.verb() == "ma" && request.flag(b'q').is_some() && request.flag(b'N').is_some()
        },
        replies: |old, new| new.is_empty() && (old.starts_with(b"HD") || old.starts_with(b"VA")),
    },
    Rule {
        id: "old-get-with-token",
        reason: "mg with C leaves out a value that did not change since 1.6.40",
        between: Between::OldMemcached,
        state: State::Same,
        request: |request| request.verb() == "mg" && request.flag(b'C').is_some(),
        replies: |old, new| old.starts_with(b"VA ") && new.starts_with(b"HD"),
    },
    Rule {
        id: "old-debug-expiry",
        reason: "1.6.18 shows the seconds left with the wrong sign in me",
        between: Between::OldMemcached,
        state: State::Same,
        request: |request| request.verb() == "me",
        replies: |old, new| contains(old, b" exp=-") && contains(new, b" exp="),
    },
    Rule {
        id: "old-large-numbers",
        reason: "1.6.18 refuses numbers from 2^63 if a minus sign happens to follow in its memory",
        between: Between::OldMemcached,
        state: State::Lost,
        request: |request| request.is(&["incr", "decr", "ma"]),
        replies: |old, new| {
            let is_number = new.first().is_some_and(u8::is_ascii_digit);
            let is_success = new.is_empty() || new.starts_with(b"HD") || new.starts_with(b"VA ");
            old.starts_with(NON_NUMERIC) && (is_number || is_success)
        },
    },
];

const BAD_FORMAT: &[u8] = b"CLIENT_ERROR bad command line format\r\n";
const NON_NUMERIC: &[u8] = b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n";
const BIG_FLAGS: [&[u8]; 1] = [b"4294967296"];

/// How many words a command needs, its name included.
fn words_min(request: &Request<'_>) -> usize {
    match request.verb() {
        "set" | "add" | "replace" | "append" | "prepend" => 5,
        "cas" => 6,
        "incr" | "decr" | "touch" | "gat" | "gats" | "ms" => 3,
        "get" | "gets" | "delete" | "mg" | "md" | "ma" | "me" => 2,
        _ => 1,
    }
}

fn is_error(reply: &[u8]) -> bool {
    let is_error_line = |line: &[u8]| {
        line == b"ERROR\r"
            || line.starts_with(b"CLIENT_ERROR ")
            || line.starts_with(b"SERVER_ERROR ")
    };
    reply.split(|&byte| byte == b'\n').next().is_some_and(is_error_line)
}

/// Only error lines, or nothing.
fn has_only_errors(reply: &[u8]) -> bool {
    reply.split_inclusive(|&byte| byte == b'\n').all(is_error)
}

fn is_one_of(reply: &[u8], lines: &[&str]) -> bool {
    lines.iter().any(|line| reply == [line.as_bytes(), b"\r\n"].concat())
}

/// The first line without flags of these names; everything else as it is.
fn without_flags(reply: &[u8], names: &[u8]) -> Vec<u8> {
    let (line, rest) = match reply.iter().position(|&byte| byte == b'\r') {
        Some(end) => reply.split_at(end),
        None => (reply, b"".as_slice()),
    };
    let dropped = |word: &&[u8]| {
        word.split_first().is_some_and(|(name, value)| {
            names.contains(name) && value.iter().all(|it| it.is_ascii_digit() || *it == b'-')
        })
    };
    let words = line.split(|&byte| byte == b' ').filter(|word| !dropped(word));
    [&words.collect::<Vec<_>>().join(&b' '), rest].concat()
}

/// Whether the argument of a flag is an expiry that is over at once.
fn has_past_expiry(request: &Request<'_>, flag: u8) -> bool {
    const THIRTY_DAYS: i64 = 2_592_000;
    let expiry = request.flag(flag).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
    expiry.is_some_and(|expiry: i64| expiry < 0 || (THIRTY_DAYS < expiry && expiry < 2_000_000_000))
}

/// Whether an expiry, wherever the command has it, does not fit 32 bit.
fn has_wide_expiry(request: &Request<'_>) -> bool {
    let is_wide = |text: &[u8]| {
        let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<i128>().ok());
        number.is_some_and(|number| i32::try_from(number).is_err())
    };
    match request.verb() {
        "touch" => is_wide(request.word(2)),
        "gat" | "gats" => is_wide(request.word(1)),
        _ => b"TNR".iter().any(|&flag| request.flag(flag).is_some_and(is_wide)),
    }
}

fn contains(reply: &[u8], part: &[u8]) -> bool {
    reply.windows(part.len()).any(|window| window == part)
}

/// Whether `encoded` has a key in base64 where `raw` has one that is not, and nothing else differs.
fn differ_in_key_only(encoded: &[u8], raw: &[u8]) -> bool {
    let start = |reply: &[u8]| reply.windows(2).position(|window| window == b" k");
    let (Some(start), Some(raw_start)) = (start(encoded), start(raw)) else {
        return differ_in_debug_key_only(encoded, raw);
    };
    let Some(length) = encoded[start..].windows(2).position(|window| window == b" b") else {
        return false;
    };
    let after = &encoded[start + length + 2..];
    start == raw_start && encoded[..start] == raw[..start] && raw[start..].ends_with(after)
}

/// The same for `ME <key> exp=...`.
fn differ_in_debug_key_only(encoded: &[u8], raw: &[u8]) -> bool {
    let is_debug = |reply: &[u8]| reply.starts_with(b"ME ") && contains(reply, b" exp=");
    is_debug(encoded) && is_debug(raw)
}
