//! Writes all items of a directory as commands of memcached's text protocol: readable, and loadable
//! by `distcached load` or by anything that copies bytes to a socket.
//!
//! ```text
//! set <key> <client flags> <expiry> <bytes> noreply     an item, its value behind
//! ms <base64 key> <bytes> b q F<flags> T<expiry>        the same, of a binary key
//! md <key> q I                                          that item is stale
//! mg <key> q R<seconds>                                 a client is at work on a new value
//! mn                                                    the end: a stream without is cut short
//! ```
//!
//! Expiries are Unix times in whole seconds, rounded down, and 0 for never. Nothing answers to a
//! stream that a server takes but `mg` lines, errors, and `MN` for the end.

use super::request_for_all;
use crate::durable::build::BuiltShard;
use crate::durable::disk::Disk;
use crate::durable::recovery::{self, Report};
use crate::durable::{Error, Recover};
use crate::store::{Item, Ticks};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::io::{self, Write};

/// The largest expiry that memcached reads as a number.
const EXPTIME_SECONDS_MAX: u64 = i32::MAX as u64;

/// More seconds than an item with an expiry can have left: whoever asks is told to recompute.
const RECACHE_SECONDS: u64 = EXPTIME_SECONDS_MAX;

/// Everything that is to be written.
pub struct Dump {
    shards: Vec<BuiltShard>,
    now: Ticks,
    /// What the recovery did.
    pub report: Report,
}

impl Dump {
    /// Reads a directory. Damage is gone around if `salvage`.
    ///
    /// # Errors
    /// As a start of the daemon.
    pub fn read(disk: &dyn Disk, salvage: bool, now: Ticks) -> Result<Self, Error> {
        let mode = if salvage { Recover::Salvage } else { Recover::Strict };
        let contents = recovery::read_only(disk, &request_for_all(disk, mode, now))?;
        Ok(Self { shards: contents.shards, now, report: contents.report })
    }

    /// Writes the items; answers how many.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write(&self, into: &mut dyn Write) -> io::Result<u64> {
        let mut items = 0;
        for shard in &self.shards {
            items += self.write_shard(shard, into)?;
        }
        into.write_all(b"mn\r\n")?;
        into.flush()?;
        Ok(items)
    }

    fn write_shard(&self, shard: &BuiltShard, into: &mut dyn Write) -> io::Result<u64> {
        let mut items = 0;
        let mut written = Ok(());
        let mut part = 0;
        let mut visit = |item: Item<'_>| {
            // A flush that is to come ends what is there by then.
            let ends = [item.attributes.deadline, shard.flush_at];
            let end = ends.into_iter().flatten().min();
            if written.is_ok() && end.is_none_or(|end| end.seconds() > self.now.seconds()) {
                items += 1;
                written = write_item(into, &item, end);
            }
        };
        while shard.store.visit_part(part, self.now, &mut visit) {
            part += 1;
        }
        written.map(|()| items)
    }
}

fn write_item(into: &mut dyn Write, item: &Item<'_>, end: Option<Ticks>) -> io::Result<()> {
    let (flags, bytes) = (item.attributes.flags, item.value.len());
    let exptime = end.map_or(0, |end| end.seconds().min(EXPTIME_SECONDS_MAX));
    let key = if item.attributes.key_binary {
        STANDARD.encode(item.key).into_bytes()
    } else {
        item.key.to_vec()
    };
    let binary = if item.attributes.key_binary { " b" } else { "" };
    if item.attributes.key_binary {
        line(into, "ms ", &key, &format!(" {bytes} b q F{flags} T{exptime}"))?;
    } else {
        line(into, "set ", &key, &format!(" {flags} {exptime} {bytes} noreply"))?;
    }
    into.write_all(item.value)?;
    into.write_all(b"\r\n")?;
    if item.attributes.stale {
        line(into, "md ", &key, &format!(" q I{binary}"))?;
    }
    if item.attributes.win_sent {
        // Of a stale item the first who asks is the one; of another, who asks near its end.
        let near = if item.attributes.stale { 0 } else { RECACHE_SECONDS };
        line(into, "mg ", &key, &format!(" q R{near}{binary}"))?;
    }
    Ok(())
}

fn line(into: &mut dyn Write, verb: &str, key: &[u8], rest: &str) -> io::Result<()> {
    into.write_all(verb.as_bytes())?;
    into.write_all(key)?;
    into.write_all(rest.as_bytes())?;
    into.write_all(b"\r\n")
}
