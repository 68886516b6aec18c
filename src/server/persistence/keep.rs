//! A worker's part in keeping data: writes its shard's log each turn, and hands the keeper its
//! items while a snapshot is taken.
//!
//! Owns the log of the shard. Touches no connection.

use crate::durable::directory::TOKENS_GRANTED;
use crate::durable::log::{LARGE_BYTES_PER_TURN, Log, LogFile};
use crate::durable::{Fsync, OnLogError};
use crate::server::clock::Moment;
use crate::server::persistence::keeper::{Durability, Note, Order};
use crate::server::shared::Shared;
use crate::shard::Shard;
use crate::store::{Store, Ticks};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Items handed out in one turn, about; and parts of the index looked at for them.
const ITEMS_PER_BATCH: usize = 256;
const PARTS_PER_BATCH: usize = 64;

/// Batches on their way to the keeper. Each keeps up to [`ITEMS_PER_BATCH`] segments alive.
const BATCHES_IN_FLIGHT_MAX: usize = 2;

/// Under `always`, how long changes wait for those of other connections that have something to do.
/// About what a sync takes on a quick device: changes that miss one wait for the next.
const GATHER_MICROSECONDS_MAX: u64 = 200;

/// While a change of logs waits for large values to be written, more and more of them are written
/// at a time, up to this: they may come faster than they are written otherwise, and the snapshot
/// would never begin. Twice what sockets bring in a turn.
const LARGE_BYTES_MAX: usize = 16 * LARGE_BYTES_PER_TURN;

/// Keeps a write back while more changes are coming, so that one sync does for all of them. (Only
/// under `always`: there a sync costs more processor time than ten sets.)
#[derive(Debug, Default)]
struct Gathering {
    since: Option<Moment>,
}

impl Gathering {
    /// Whether changes that could be written wait for more.
    fn holds(&mut self, at: Moment, idle: bool) -> bool {
        if idle {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(at);
        at.microseconds_since(since) < GATHER_MICROSECONDS_MAX
    }
}

/// How the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Good,
    /// What it holds counts, and nothing more is written to it.
    Failed,
    /// It goes on in a new file, which counts once the snapshot of its generation has succeeded.
    Replaced,
}

/// See the module's text.
pub struct Keep {
    shard_number: usize,
    log: Log,
    gathering: Gathering,
    durability: Arc<Durability>,
    shared: Arc<Shared>,
    /// The part of the index to hand out next, while a snapshot is taken.
    next_part: Option<usize>,
    /// All items are handed out, and show changes up to this record, which is not written yet.
    walked: Option<u64>,
    /// The generation of the log changed to last.
    generation: u64,
    /// A log to change to once large values have been written.
    next_file: Option<LogFile>,
    /// What is written of them at a time, at most.
    large_bytes: usize,
    health: Health,
    tokens_noted: u64,
}

impl Keep {
    /// Keeps the data of one shard in a log.
    pub fn new(
        shard_number: usize,
        log: Log,
        durability: Arc<Durability>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            shard_number,
            log,
            gathering: Gathering::default(),
            durability,
            shared,
            next_part: None,
            walked: None,
            generation: 0,
            next_file: None,
            large_bytes: LARGE_BYTES_PER_TURN,
            health: Health::Good,
            tokens_noted: 0,
        }
    }

    /// Whether there is more to write or to hand out right now.
    pub fn has_more(&self, shard: &mut Shard) -> bool {
        let unwritten = shard.journal().is_some_and(|journal| self.log.is_ready(journal));
        unwritten || (self.next_part.is_some() && self.may_hand_out())
    }

    /// Changes whenever a log has been synced: replies may wait for that.
    pub fn sync_mark(&self) -> u64 {
        let progress = self.durability.progress.iter();
        progress.fold(0, |sum, progress| sum.wrapping_add(progress.synced()))
    }

    fn may_hand_out(&self) -> bool {
        let in_flight = &self.durability.in_flight[self.shard_number];
        in_flight.load(Ordering::Acquire) < BATCHES_IN_FLIGHT_MAX
    }

    /// Writes the turn's changes, or lets them gather. `idle`: no others are coming.
    pub fn commit(&mut self, shard: &mut Shard, now: Ticks, at: Moment, idle: bool) {
        let Some(journal) = shard.journal() else { return };
        if self.durability.fsync == Fsync::Always {
            let nothing_to_write = !self.log.is_ready(journal);
            if self.gathering.holds(at, idle || nothing_to_write) {
                return;
            }
        }
        if let Err(why) = self.log.commit_part(journal, now, self.large_bytes) {
            return self.log_failed(shard, &why.to_string());
        }
        if self.next_file.is_none() {
            self.large_bytes = LARGE_BYTES_PER_TURN;
        } else if journal.is_empty() {
            self.switch(shard, now);
        } else if journal.has_large() {
            self.large_bytes = LARGE_BYTES_MAX.min(self.large_bytes * 2);
        }
    }

    /// Does what the keeper wants.
    pub fn obey(&mut self, order: Order, shard: &mut Shard, now: Ticks) {
        match order {
            Order::Switch(file) => {
                self.next_file = Some(file);
                let idle = shard.journal().is_some_and(|journal| journal.is_empty());
                if idle {
                    self.switch(shard, now);
                }
            }
            Order::Abandon => {
                self.stop_walking();
                self.next_file = None;
            }
            Order::Resume { generation } => self.resume(shard, generation),
            Order::LogFailed { file_id, why } => {
                // Not of one that was given up meanwhile.
                if self.health != Health::Failed && self.log.file_id() == file_id {
                    self.log_failed(shard, &why);
                }
            }
            Order::Done { .. } => {}
        }
    }

    fn switch(&mut self, shard: &mut Shard, now: Ticks) {
        let (Some(next), Some(journal)) = (self.next_file.take(), shard.journal()) else { return };
        let generation = next.header.generation;
        let switched = match self.health {
            Health::Good => self.log.switch(journal, next, now),
            Health::Failed | Health::Replaced => self.log.replace(journal, next, now),
        };
        match switched {
            Ok(first_sequence) => {
                (self.next_part, self.generation) = (Some(0), generation);
                if self.health == Health::Failed {
                    self.health = Health::Replaced;
                }
                let (shard, flush_at) = (self.shard_number, shard.flush_at());
                let note = Note::Switched { shard, generation, first_sequence, flush_at };
                self.durability.tell(note);
            }
            Err(why) => self.log_failed(shard, &why.to_string()),
        }
    }

    fn log_failed(&mut self, shard: &mut Shard, why: &str) {
        let Some(journal) = shard.journal() else { return };
        self.log.fail(journal);
        self.stop_walking();
        (self.health, self.next_file) = (Health::Failed, None);
        let policy = match self.durability.fsync {
            Fsync::Always => OnLogError::Exit,
            _ => self.durability.on_log_error,
        };
        let name = self.log.name();
        match policy {
            OnLogError::Exit => {
                log::error!("{name}: {why}; the server ends, so that nothing unlogged is served");
                // The turn goes on to its end where the server is a part of another program.
                shard.set_refusing(true);
                self.shared.end_at_once();
            }
            OnLogError::Refuse => shard.set_refusing(true),
            OnLogError::Serve => {
                log::error!("{name}: {why}; changes are not kept until a snapshot succeeds");
            }
        }
        let note = Note::LogFailed { shard: self.shard_number, why: format!("{name}: {why}") };
        self.durability.tell(note);
    }

    /// A snapshot has succeeded. If the log has failed since it was changed to, that is of no help:
    /// the keeper has been told, and takes another one.
    fn resume(&mut self, shard: &mut Shard, generation: u64) {
        self.stop_walking();
        if self.health == Health::Replaced && self.generation == generation {
            self.health = Health::Good;
            shard.set_refusing(false);
        }
    }

    /// The snapshot that items are handed out for is over.
    fn stop_walking(&mut self) {
        (self.next_part, self.walked) = (None, None);
    }

    /// Hands out some more items, if a snapshot is being taken and the keeper is ready for them.
    pub fn walk(&mut self, shard: &mut Shard) {
        if let Some(first) = self.next_part.filter(|_| self.may_hand_out()) {
            self.hand_out(shard.store(), first);
            if self.next_part.is_none() {
                self.walked = shard.journal().map(|journal| journal.sequence());
            }
        }
        // What they show has to be in the log before they count: large values are written a part
        // in each turn, and under `always` changes wait for each other.
        let written = self.log.progress().written();
        if let Some(last_sequence) = self.walked.take_if(|sequence| *sequence <= written) {
            let (shard, generation) = (self.shard_number, self.generation);
            self.durability.tell(Note::Walked { shard, generation, last_sequence });
        }
    }

    fn hand_out(&mut self, store: &Store, first: usize) {
        let mut items = Vec::new();
        let mut part = first;
        let mut more = true;
        while more && items.len() < ITEMS_PER_BATCH && part - first < PARTS_PER_BATCH {
            more = store.share_part(part, |item, popularity| items.push((item, popularity)));
            part += 1;
        }
        let (shard, generation) = (self.shard_number, self.generation);
        if !items.is_empty() {
            self.durability.in_flight[shard].fetch_add(1, Ordering::AcqRel);
            self.durability.tell(Note::Items { shard, generation, items });
        }
        self.next_part = more.then_some(part);
    }

    /// Sees to it that there are tokens for the future.
    pub fn tick(&mut self, store: &Store) {
        let sequence_now = store.sequence_now();
        if sequence_now > self.tokens_noted + TOKENS_GRANTED / 4 {
            self.tokens_noted = sequence_now;
            self.durability.tell(Note::Tokens { sequence_now });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_gather_while_others_come_and_not_for_ever() {
        let at = |microseconds: u64| Moment(microseconds * 1_000);
        let late = 100 + GATHER_MICROSECONDS_MAX;
        // When, whether nothing else is coming, and whether the write is kept back.
        let turns = [
            (0, true, false),
            (100, false, true),
            (150, false, true),
            (160, true, false),
            (100, false, true),
            (late - 1, false, true),
            (late, false, false),
            (late + 1, false, false),
            (late + 2, true, false),
            (late + 3, false, true),
        ];
        let mut gathering = Gathering::default();
        for (microseconds, idle, kept_back) in turns {
            assert_eq!(gathering.holds(at(microseconds), idle), kept_back, "at {microseconds} us");
        }
    }
}
