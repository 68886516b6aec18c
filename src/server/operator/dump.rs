//! `lru_crawler metadump` and `mgdump`: all items as lines, while the server serves.
//!
//! A dump is a state of its connection. It goes through the shards one after the other and through
//! each by parts of the index, a [`Slice`] at a time; the next slice is asked for when the last one
//! has left the socket, so a client that does not read stops its dump and holds one slice of
//! memory. A key is always in the same part: what is there from the start to the end of the dump is
//! listed exactly once. Owns the lines; does not know sockets.

use crate::protocol::meta::{write_key, write_uri_key};
use crate::shard::Shard;
use crate::shard::replies::Replies;
use crate::store::{Item, Ticks, item};

/// A slice ends with the part that brings it to so many bytes.
const SLICE_BYTES: usize = 16 << 10;

/// A slice visits no more parts than this.
const SLICE_PARTS_MAX: usize = 64;

/// How items are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `metadump`: everything but the value.
    Meta,
    /// `mgdump`: a command that fetches the item.
    Get,
}

/// What one step of a dump does: the items from a part of the index on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    form: Form,
    part: usize,
}

/// A dump under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dump {
    /// The shard it is at.
    pub shard: usize,
    /// The step to do next.
    pub slice: Slice,
    shard_count: usize,
}

impl Form {
    /// The line after the last item.
    fn end(self) -> &'static [u8] {
        match self {
            Self::Meta => b"END\r\n",
            Self::Get => b"EN\r\n",
        }
    }
}

impl Dump {
    /// A dump of all shards; of none if the classes asked for hold nothing.
    pub fn new(form: Form, shard_count: usize) -> Self {
        Self { shard: 0, slice: Slice { form, part: 0 }, shard_count }
    }

    /// Nothing is left to list.
    pub fn is_over(&self) -> bool {
        self.shard >= self.shard_count
    }

    /// Appends the end to `out` if there is nothing to list at all.
    pub fn push_end_if_over(&self, out: &mut Replies) {
        if self.is_over() {
            out.push(self.slice.form.end());
        }
    }

    /// A slice was written; `next_part` is where its shard goes on, if it does. Appends the end to
    /// `out` when the last shard does not.
    pub fn went_on(&mut self, next_part: Option<usize>, out: &mut Replies) {
        self.slice.part = next_part.unwrap_or(0);
        self.shard += usize::from(next_part.is_none());
        self.push_end_if_over(out);
    }
}

impl Slice {
    /// Appends the items to `out`. Returns the part to go on with, `None` at the end.
    pub fn write(self, shard: &Shard, now: Ticks, out: &mut Replies) -> Option<usize> {
        let store = shard.store();
        let start_bytes = out.bytes.len();
        for part in self.part..self.part + SLICE_PARTS_MAX {
            let there = store.visit_part(part, now, |item| match self.form {
                Form::Meta => metadump_line(&item, shard.token(item.token), now, out),
                Form::Get => mgdump_line(&item, out),
            });
            if !there {
                return None;
            }
            if out.bytes.len() - start_bytes >= SLICE_BYTES {
                return Some(part + 1);
            }
        }
        Some(self.part + SLICE_PARTS_MAX)
    }
}

fn metadump_line(item: &Item<'_>, token: u64, now: Ticks, out: &mut Replies) {
    out.push(b"key=");
    write_uri_key(&mut out.bytes, item.key);
    match item.attributes.deadline {
        None => out.push(b" exp=-1"),
        Some(deadline) => {
            out.push(b" exp=");
            out.push_number(deadline.seconds());
        }
    }
    out.push(b" la=");
    out.push_number(now.seconds().saturating_sub(item.idle_seconds(now)));
    out.push(b" cas=");
    out.push_number(token);
    out.push(if item.fetched { b" fetch=yes cls=1 size=" } else { b" fetch=no cls=1 size=" });
    out.push_number(item::stride(&item.attributes, item.key.len(), item.value.len()) as u64);
    out.push(b" flags=");
    out.push_number(u64::from(item.attributes.flags));
    // The blank before the line feed is memcached's.
    out.push(b" \n");
}

fn mgdump_line(item: &Item<'_>, out: &mut Replies) {
    out.push(b"mg ");
    if item.attributes.key_binary {
        write_key(&mut out.bytes, item.key, true);
        out.push(b" b\r\n");
    } else {
        out.push(item.key);
        out.push(b"\r\n");
    }
}
