//! A bounded store of connections to one server. Owns who may have how many; knows nothing about
//! sockets.

use crate::client::clock;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Connections that nobody uses, and how many there are in all.
#[derive(Debug)]
pub(in crate::client) struct Pool<C> {
    inner: Mutex<Inner<C>>,
    freed: Condvar,
    connections_max: usize,
    idle_max: usize,
}

#[derive(Debug)]
struct Inner<C> {
    /// The last one back is the first to go out again.
    idle: Vec<C>,
    /// Idle ones and those in use.
    open: usize,
    /// Connections from before this many clearings are not taken back.
    generation: u64,
}

/// What a caller got.
#[derive(Debug)]
pub(in crate::client) enum Place<C> {
    /// A connection.
    Connection(C),
    /// The right to make one.
    Empty,
}

impl<C> Pool<C> {
    pub fn new(connections_max: usize, idle_max: usize) -> Self {
        let inner = Inner { idle: Vec::new(), open: 0, generation: 0 };
        Self { inner: Mutex::new(inner), freed: Condvar::new(), connections_max, idle_max }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<C>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection or the right to make one, and the generation to give back with it; `None` when
    /// time runs out.
    pub fn take(&self, deadline: Instant) -> Option<(Place<C>, u64)> {
        let mut inner = self.lock();
        loop {
            let generation = inner.generation;
            if let Some(connection) = inner.idle.pop() {
                return Some((Place::Connection(connection), generation));
            }
            if inner.open < self.connections_max {
                inner.open += 1;
                return Some((Place::Empty, generation));
            }
            let left =
                deadline.checked_duration_since(clock::now()).filter(|left| !left.is_zero())?;
            let waited = self.freed.wait_timeout(inner, left);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes back what `take` gave; `None` if the connection was closed or never made.
    pub fn give(&self, connection: Option<C>, generation: u64) {
        let mut inner = self.lock();
        let fresh = inner.generation == generation && inner.idle.len() < self.idle_max;
        match connection.filter(|_| fresh) {
            Some(connection) => inner.idle.push(connection),
            None => inner.open = inner.open.saturating_sub(1),
        }
        drop(inner);
        self.freed.notify_one();
    }

    /// Forgets all idle connections, and those in use when they come back.
    pub fn clear(&self) {
        let mut inner = self.lock();
        inner.generation += 1;
        inner.open = inner.open.saturating_sub(inner.idle.len());
        let idle = std::mem::take(&mut inner.idle);
        drop(inner);
        // Closing is a call to the system: not under the lock.
        drop(idle);
        self.freed.notify_all();
    }

    pub fn open(&self) -> usize {
        self.lock().open
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn soon() -> Instant {
        clock::now() + Duration::from_millis(20)
    }

    #[test]
    fn connections_are_bounded_and_reused() {
        let pool = Pool::new(2, 1);
        let (Some((Place::Empty, generation)), Some((Place::Empty, _))) =
            (pool.take(soon()), pool.take(soon()))
        else {
            panic!("two may be made")
        };
        assert!(pool.take(soon()).is_none(), "a third may not");
        pool.give(Some('a'), generation);
        pool.give(Some('b'), generation);
        assert_eq!(pool.open(), 1, "one is kept");
        assert!(matches!(pool.take(soon()), Some((Place::Connection('a'), _))));
        pool.clear();
        pool.give(Some('a'), generation);
        assert_eq!(pool.open(), 0, "not taken back after a clearing");
    }

    #[test]
    fn a_waiting_caller_gets_what_comes_back() {
        let pool = Pool::new(1, 1);
        let Some((_, generation)) = pool.take(soon()) else { panic!() };
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| pool.take(clock::now() + Duration::from_secs(10)));
            pool.give(Some('a'), generation);
            assert!(matches!(waiting.join().unwrap(), Some((Place::Connection('a'), _))));
        });
    }
}
