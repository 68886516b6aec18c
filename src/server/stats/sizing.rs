//! What the hit ratio would be with more or less memory: who plays the shards' events to the one
//! simulator, and when.
//!
//! Each worker does so for its part of the shards in its tick, a bounded number of events a turn.
//! If another worker is at it, the events wait in the shards for the next tick. Owns the lock of
//! the simulator; never takes a shard's for longer than its events take to be handed over.

use crate::server::worker::shards::Shards;
use crate::shard::simulator::Simulator;
use crate::shard::sizing::{EVENTS_MAX, Event};
use crate::store::Ticks;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// Events after which a worker goes on in its next turn: a shard's worth, which takes half a
/// millisecond at most.
const EVENTS_PER_TURN: usize = EVENTS_MAX;

/// The simulator of a server.
#[derive(Debug, Default)]
pub struct Sizing(Mutex<Simulator>);

impl Sizing {
    /// The simulator, for a moment.
    pub fn lock(&self) -> MutexGuard<'_, Simulator> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_lock(&self) -> Option<MutexGuard<'_, Simulator>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// A worker's part.
#[derive(Debug, Default)]
pub struct Feeder {
    events: Vec<Event>,
    /// Which of the worker's shards is next.
    next: usize,
}

impl Feeder {
    /// Plays what a worker's shards have noted. Answers whether there is more.
    pub fn feed(
        &mut self,
        sizing: &Sizing,
        shards: &Shards,
        own: impl ExactSizeIterator<Item = usize> + Clone,
        now: Ticks,
        limit_bytes: u64,
    ) -> bool {
        let Some(mut simulator) = sizing.try_lock() else { return false };
        simulator.begin(now, limit_bytes);
        let (count, mut played) = (own.len(), 0);
        for _ in 0..count {
            if played >= EVENTS_PER_TURN {
                return true;
            }
            self.next = (self.next + 1) % count;
            // Whoever holds it is at work on it; there is another tick.
            let shard = own.clone().nth(self.next).and_then(|at| shards.hold_if_free(at));
            let Some(mut shard) = shard else { continue };
            let handed = shard.hand_over(simulator.threshold(), &mut self.events);
            drop(shard);
            simulator.apply(&handed, &self.events);
            played += self.events.len();
        }
        false
    }
}
