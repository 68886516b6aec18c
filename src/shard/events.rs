//! What watchers are told of operations: one line each, as memcached words it.
//!
//! Nothing here runs unless somebody watches. The outcome of an operation is read from its reply,
//! so that the commands themselves know nothing of watchers. Owns the lines, without the time and
//! number that the server puts before them; does not know who watches.

use super::operation::{Form, Verb};
use super::replies::Replies;
use super::{Shard, binary, reply};
use crate::protocol::meta::write_uri_key;
use crate::protocol::{Exptime, StoreMode};
use crate::store::evicted::Evicted;
use crate::store::{Absent, Ticks};
use std::io::Write;

/// Lines kept until they are taken, which happens every turn; further ones are dropped.
const EVENT_BYTES_MAX: usize = 256 << 10;

/// Kinds of events, as a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kinds(pub u8);

impl Kinds {
    /// Lookups of keys.
    pub const FETCHERS: Self = Self(1);
    /// Storage commands.
    pub const MUTATIONS: Self = Self(2);
    /// Items that had to leave.
    pub const EVICTIONS: Self = Self(4);
    /// Connections that come and go.
    pub const CONNECTIONS: Self = Self(8);
    /// Deletions.
    pub const DELETIONS: Self = Self(16);
    /// Work that nobody asked for.
    pub const SYSTEM: Self = Self(32);

    /// The kind of this name. memcached has kinds for parts that do not exist here: those never
    /// happen.
    pub fn named(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"fetchers" => Self::FETCHERS,
            b"mutations" => Self::MUTATIONS,
            b"evictions" => Self::EVICTIONS,
            b"connevents" => Self::CONNECTIONS,
            b"deletions" => Self::DELETIONS,
            b"sysevents" => Self::SYSTEM,
            b"rawcmds" | b"proxyreqs" | b"proxyevents" | b"proxyuser" => Self(0),
            _ => return None,
        })
    }

    /// Both together.
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether they have a kind in common.
    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// Lines about what happened, until they are taken.
#[derive(Debug, Default)]
pub struct Events {
    wanted: Kinds,
    text: Vec<u8>,
    lines: Vec<(Kinds, usize)>,
    dropped: u64,
    /// Descriptor of the connection whose operations are being executed.
    asker: i32,
}

impl Events {
    /// Adds a line about an event of one kind, if it is wanted and there is room.
    pub fn add(&mut self, kind: Kinds, write: impl FnOnce(&mut Vec<u8>)) {
        if !self.wanted.meets(kind) {
            return;
        }
        if self.text.len() >= EVENT_BYTES_MAX {
            self.dropped += 1;
            return;
        }
        write(&mut self.text);
        self.lines.push((kind, self.text.len()));
    }

    /// Notes events of these kinds from now on.
    pub fn want(&mut self, wanted: Kinds) {
        self.wanted = wanted;
    }

    /// How many there was no room for.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The lines, each with its kind.
    pub fn lines(&self) -> impl Iterator<Item = (Kinds, &[u8])> {
        let mut start = 0;
        self.lines.iter().map(move |(kind, end)| {
            let line = &self.text[start..*end];
            start = *end;
            (*kind, line)
        })
    }

    /// Forgets the lines.
    pub fn clear(&mut self) {
        self.text.clear();
        self.lines.clear();
        self.dropped = 0;
    }
}

/// What an operation met.
struct Before {
    status: &'static str,
    value_bytes: Option<usize>,
}

impl Shard {
    /// Notes events of these kinds from now on.
    #[inline]
    pub fn watch(&mut self, wanted: Kinds) {
        let watched = self.events.as_ref().map_or(Kinds::default(), |events| events.wanted);
        if watched != wanted {
            self.watch_others(wanted);
        }
    }

    fn watch_others(&mut self, wanted: Kinds) {
        if wanted == Kinds::default() {
            self.events = None;
        } else {
            self.events.get_or_insert_default().wanted = wanted;
        }
        self.store.watch_evictions(wanted.meets(Kinds::EVICTIONS));
    }

    /// Operations that follow come from the connection with this descriptor.
    #[inline]
    pub fn set_asker(&mut self, descriptor: i32) {
        if let Some(events) = &mut self.events {
            events.asker = descriptor;
        }
    }

    /// Takes what was noted, evictions included.
    pub fn take_events(&mut self, now: Ticks) -> Option<Events> {
        let events = self.events.as_mut()?;
        if events.wanted.meets(Kinds::EVICTIONS) {
            let evictions = self.store.take_evictions();
            events.dropped += evictions.dropped;
            for item in &evictions.items {
                events.add(Kinds::EVICTIONS, |line| write_eviction(item, now, line));
            }
        }
        let kept = Events { wanted: events.wanted, asker: events.asker, ..Events::default() };
        Some(std::mem::replace(events, kept))
    }

    pub(super) fn execute_watched(
        &mut self,
        form: Form,
        hash: u64,
        key: &[u8],
        verb: Verb<'_>,
        now: Ticks,
        out: &mut Replies,
    ) {
        let before = self.look(hash, key, &verb, now);
        let storing = stored_by(&verb, now);
        let deleting = match &verb {
            Verb::Delete { .. } => Some("delete"),
            Verb::MetaDelete(args) if !args.invalidate || args.remove_value => Some("md"),
            _ => None,
        };
        let creating = before.value_bytes.is_none()
            && match &verb {
                Verb::MetaArithmetic(_) => true,
                Verb::Arithmetic(args) => args.create.is_some(),
                _ => false,
            };
        let too_large = matches!(&verb, Verb::DropStale);
        let compared = matches!(&verb, Verb::Store(args, _) if args.compare != 0);
        let joins = matches!(storing, Some(("append" | "prepend", ..)));
        let start = out.bytes.len();
        self.execute_verb(form, hash, key, verb, now, out);
        let answer = match form {
            Form::Binary(frame) => binary::in_words(frame, compared, &out.bytes[start..]),
            Form::Text | Form::Nothing => &out.bytes[start..],
        };
        // Of what is joined to an item, the item that comes of it is told.
        let joined = joins.then(|| self.lifetime_and_length(hash, key, now)).flatten();
        let Some(events) = &mut self.events else { return };
        let asker = events.asker;
        let mut note_store = |status: &str, mode: &str, ttl: u64, bytes: usize| {
            events.add(Kinds::MUTATIONS, |line| {
                begin(line, "item_store", key);
                let class = u8::from(status != "too_large");
                let rest = format_args!(
                    " status={status} cmd={mode} ttl={ttl} clsid={class} cfd={asker} size={bytes}\n"
                );
                append(line, rest);
            });
        };
        if let Some((mode, ttl, bytes)) = storing {
            let status = status_of(answer);
            let (ttl, bytes) = joined.filter(|_| status == "stored").unwrap_or((ttl, bytes));
            note_store(status, mode, ttl, bytes);
        } else if too_large {
            note_store("too_large", "set", 0, 0);
        } else if creating && !answer.starts_with(b"NF") && !answer.starts_with(b"CLIENT") {
            note_store(status_of(answer), "add", 0, 1);
        }
        let done = answer.is_empty() || answer.starts_with(b"HD") || answer == reply::DELETED;
        if let (Some(command), Some(bytes), true) = (deleting, before.value_bytes, done) {
            events.add(Kinds::DELETIONS, |line| {
                begin(line, "deleted", key);
                append(line, format_args!(" cmd={command} clsid=1 size={bytes}\n"));
            });
        }
    }

    /// The seconds an item has left, 0 for one that does not expire, and its value's length.
    fn lifetime_and_length(&mut self, hash: u64, key: &[u8], now: Ticks) -> Option<(u64, usize)> {
        let handle = self.find(hash, key, now)?;
        let item = self.store.item(handle);
        let left = |deadline: Ticks| deadline.seconds().saturating_sub(now.seconds());
        Some((item.attributes.deadline.map_or(0, left), item.value.len()))
    }

    /// Looks the key up as the operation is about to, and notes what it finds.
    fn look(&mut self, hash: u64, key: &[u8], verb: &Verb<'_>, now: Ticks) -> Before {
        let before = match self.store.find(hash, key, now) {
            Ok(handle) => {
                let bytes = self.store.flags_and_value(handle).1.len();
                Before { status: "found", value_bytes: Some(bytes) }
            }
            Err(Absent::Missing) => Before { status: "not_found", value_bytes: None },
            Err(Absent::Expired) => {
                // It is gone now: the operation itself will not see that it had expired.
                self.counters.get_expired += 1;
                Before { status: "expired", value_bytes: None }
            }
        };
        if let Some(events) = &mut self.events
            && !matches!(&verb, Verb::DropStale)
        {
            let asker = events.asker;
            events.add(Kinds::FETCHERS, |line| {
                begin(line, "item_get", key);
                let Before { status, value_bytes } = before;
                let class = u8::from(value_bytes.is_some());
                let bytes = value_bytes.unwrap_or(0);
                let rest =
                    format_args!(" status={status} clsid={class} cfd={asker} size={bytes}\n");
                append(line, rest);
            });
        }
        before
    }
}

/// The command, the seconds to live and the length of a storage command.
fn stored_by(verb: &Verb<'_>, now: Ticks) -> Option<(&'static str, u64, usize)> {
    let (mode, exptime, data) = match verb {
        Verb::Store(args, data) => (args.mode, args.exptime, data),
        Verb::MetaStore(args, mode, data) => (*mode, args.exptime.unwrap_or(Exptime::Never), data),
        _ => return None,
    };
    let ttl = match exptime {
        Exptime::Never | Exptime::Past => 0,
        Exptime::Relative(seconds) => u64::from(seconds),
        Exptime::Absolute(at) => u64::from(at).saturating_sub(now.seconds()),
    };
    Some((mode_name(mode), ttl, data.len()))
}

fn mode_name(mode: StoreMode) -> &'static str {
    match mode {
        StoreMode::Set => "set",
        StoreMode::Add => "add",
        StoreMode::Replace => "replace",
        StoreMode::Append => "append",
        StoreMode::Prepend => "prepend",
        StoreMode::Cas => "cas",
    }
}

/// What a reply says became of a storage command. A quiet one says nothing if all is well.
fn status_of(answer: &[u8]) -> &'static str {
    let starts = |word: &[u8]| answer.starts_with(word);
    if starts(b"NOT_STORED") || starts(b"NS") {
        "not_stored"
    } else if starts(b"EX") {
        "exists"
    } else if starts(b"NF") || starts(b"NOT_FOUND") {
        "not_found"
    } else if starts(b"SERVER_ERROR") {
        "no_memory"
    } else {
        "stored"
    }
}

fn write_eviction(item: &Evicted, now: Ticks, line: &mut Vec<u8>) {
    begin(line, "eviction", &item.key);
    let fetched = if item.fetched { "yes" } else { "no" };
    let ttl = match item.deadline {
        None => "-1".to_owned(),
        Some(deadline) => deadline.seconds().saturating_sub(now.seconds()).to_string(),
    };
    let age = item.idle_seconds;
    let bytes = item.value_bytes;
    let rest = format_args!(" fetch={fetched} ttl={ttl} la={age} clsid=1 size={bytes}\n");
    append(line, rest);
}

fn begin(line: &mut Vec<u8>, kind: &str, key: &[u8]) {
    append(line, format_args!("type={kind} key="));
    write_uri_key(line, key);
}

fn append(line: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a Vec does not fail.
    let _ = line.write_fmt(text);
}
