//! The shards of a server, and how a worker gets hold of one.
//!
//! A worker executes an operation where its bytes were read: it takes the operation's shard for as
//! long as that lasts. A shard that is held is not waited for, because its holder may have lost the
//! processor: the *connection* waits, its command not consumed, and its worker goes on with the
//! others. Whoever lets go of a shard calls the workers that found it held.
//!
//! Handing the operation to the holder instead ("flat combining": Hendler, Incze, Shavit, Tzafrir,
//! SPAA 2010) wakes the same worker for the reply, and needs a second form of every verb, a queue
//! for each shard and places kept in outputs for replies that come out of turn.
//!
//! Nothing under a shard's lock makes a system call, logs, or takes longer than one operation or
//! one bounded step of a walk. Never holds two shards.

use super::inbox::Bell;
use super::waiting::{WORKERS_APART, Waiting};
use crate::shard::Shard;
use crate::store::hash::shard_of;
use crossbeam::utils::CachePadded;
use std::hint::spin_loop;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// Tries before a shard counts as held: about as long as a short operation takes on another core.
const TRIES: u32 = 64;

/// See the module's text.
pub struct Shards {
    cells: Box<[CachePadded<Cell>]>,
    bells: Box<[Arc<Bell>]>,
}

struct Cell {
    waiting: Waiting,
    shard: Mutex<Shard>,
}

/// A shard that is held. Letting go calls those who wait for it.
pub struct Held<'a> {
    /// Some until it is dropped.
    shard: Option<MutexGuard<'a, Shard>>,
    waiting: &'a Waiting,
    bells: &'a [Arc<Bell>],
}

impl Shards {
    /// Shards that any of the workers with these bells may hold.
    pub fn new(shards: Vec<Shard>, bells: Vec<Arc<Bell>>) -> Self {
        let cell = |shard| {
            CachePadded::new(Cell { waiting: Waiting::default(), shard: Mutex::new(shard) })
        };
        Self { cells: shards.into_iter().map(cell).collect(), bells: bells.into() }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.cells.len()
    }

    /// The shard of a key with this hash.
    #[inline]
    pub fn of(&self, hash: u64) -> usize {
        shard_of(hash, self.cells.len())
    }

    /// Holds a shard if nobody else does. `None`: `worker` will be called when it is free.
    #[inline]
    pub fn try_hold(&self, shard: usize, worker: usize) -> Option<Held<'_>> {
        let cell = &self.cells[shard];
        self.try_lock(cell).or_else(|| self.try_again(cell, worker))
    }

    /// Holds a shard if nobody else does, and calls nobody otherwise.
    pub fn hold_if_free(&self, shard: usize) -> Option<Held<'_>> {
        self.try_lock(&self.cells[shard])
    }

    #[cold]
    fn try_again<'a>(&'a self, cell: &'a Cell, worker: usize) -> Option<Held<'a>> {
        for _ in 0..TRIES {
            spin_loop();
            if let Some(held) = self.try_lock(cell) {
                return Some(held);
            }
        }
        cell.waiting.join(worker);
        self.try_lock(cell)
    }

    /// Holds a shard, waiting for it if need be: for what concerns the whole server.
    pub fn hold(&self, shard: usize) -> Held<'_> {
        let cell = &self.cells[shard];
        self.held(cell, cell.shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Holds all shards, one after the other.
    pub fn each(&self) -> impl Iterator<Item = Held<'_>> {
        (0..self.count()).map(|shard| self.hold(shard))
    }

    #[inline]
    fn try_lock<'a>(&'a self, cell: &'a Cell) -> Option<Held<'a>> {
        match cell.shard.try_lock() {
            Ok(guard) => Some(self.held(cell, guard)),
            // Whoever panicked has ended the process, unless that is somebody else's.
            Err(TryLockError::Poisoned(poisoned)) => Some(self.held(cell, poisoned.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    #[inline]
    fn held<'a>(&'a self, cell: &'a Cell, guard: MutexGuard<'a, Shard>) -> Held<'a> {
        Held { shard: Some(guard), waiting: &cell.waiting, bells: &self.bells }
    }
}

impl Deref for Held<'_> {
    type Target = Shard;

    #[inline]
    fn deref(&self) -> &Shard {
        self.shard.as_ref().expect("held until it is dropped")
    }
}

impl DerefMut for Held<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Shard {
        self.shard.as_mut().expect("held until it is dropped")
    }
}

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        // The call comes behind the lock: see `Waiting`.
        drop(self.shard.take());
        self.waiting.call(|first| {
            self.bells.iter().skip(first).step_by(WORKERS_APART).for_each(|bell| bell.call());
        });
    }
}
