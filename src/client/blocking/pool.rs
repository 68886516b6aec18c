//! A bounded store of connections to one server. Owns who may have how many; knows nothing about
//! sockets.

use crate::client::clock;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Connections that nobody uses, and how many there are in all.
#[derive(Debug)]
pub(in crate::client) struct Pool<C> {
    inner: Mutex<Inner<C>>,
    freed: Condvar,
    limits: Limits,
}

/// How many connections there may be, and how long they are kept.
#[derive(Debug, Clone, Copy)]
pub(in crate::client) struct Limits {
    pub connections_max: usize,
    pub idle_max: usize,
    /// Connections that nobody used for so long are closed.
    pub idle_timeout: Duration,
}

#[derive(Debug)]
struct Inner<C> {
    /// With when they came back, oldest first. The last one back is the first to go out again.
    idle: VecDeque<(C, Instant)>,
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
    pub(crate) fn new(limits: Limits) -> Self {
        let inner = Inner { idle: VecDeque::new(), open: 0, generation: 0 };
        Self { inner: Mutex::new(inner), freed: Condvar::new(), limits }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<C>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection or the right to make one, and the generation to give back with it; `None` when
    /// time runs out.
    pub(crate) fn take(&self, deadline: Instant) -> Option<(Place<C>, u64)> {
        self.prune(clock::now());
        let mut inner = self.lock();
        loop {
            let generation = inner.generation;
            if let Some((connection, _)) = inner.idle.pop_back() {
                return Some((Place::Connection(connection), generation));
            }
            if inner.open < self.limits.connections_max {
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
    pub(crate) fn give(&self, connection: Option<C>, generation: u64) {
        let mut inner = self.lock();
        let fresh = inner.generation == generation && inner.idle.len() < self.limits.idle_max;
        match connection.filter(|_| fresh) {
            Some(connection) => inner.idle.push_back((connection, clock::now())),
            None => inner.open = inner.open.saturating_sub(1),
        }
        drop(inner);
        self.freed.notify_one();
    }

    /// Closes those that nobody has used for long.
    pub(crate) fn prune(&self, now: Instant) {
        let mut inner = self.lock();
        let is_old = |(_, since): &(C, Instant)| {
            now.saturating_duration_since(*since) >= self.limits.idle_timeout
        };
        let count = inner.idle.iter().take_while(|one| is_old(one)).count();
        if count == 0 {
            return;
        }
        inner.open = inner.open.saturating_sub(count);
        let old: Vec<_> = inner.idle.drain(..count).collect();
        drop(inner);
        // Closing is a call to the system: not under the lock.
        drop(old);
        self.freed.notify_all();
    }

    /// Forgets all idle connections, and those in use when they come back.
    pub(crate) fn clear(&self) {
        let mut inner = self.lock();
        inner.generation += 1;
        inner.open = inner.open.saturating_sub(inner.idle.len());
        let idle = std::mem::take(&mut inner.idle);
        drop(inner);
        // Closing is a call to the system: not under the lock.
        drop(idle);
        self.freed.notify_all();
    }

    pub(crate) fn open(&self) -> usize {
        self.lock().open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(connections_max: usize, idle_max: usize) -> Limits {
        Limits { connections_max, idle_max, idle_timeout: Duration::from_secs(60) }
    }

    fn soon() -> Instant {
        clock::now() + Duration::from_millis(20)
    }

    #[test]
    fn connections_are_bounded_and_reused() {
        let pool = Pool::new(limits(2, 1));
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
        let pool = Pool::new(limits(1, 1));
        let Some((_, generation)) = pool.take(soon()) else { panic!() };
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| pool.take(clock::now() + Duration::from_secs(10)));
            pool.give(Some('a'), generation);
            assert!(matches!(waiting.join().unwrap(), Some((Place::Connection('a'), _))));
        });
    }

    #[test]
    fn connections_are_kept_by_age() {
        let pool = Pool::new(limits(50, 50));
        let taken: Vec<_> = (0..50).map(|_| pool.take(soon()).unwrap().1).collect();
        for (at, generation) in taken.iter().enumerate() {
            pool.give(Some(at), *generation);
        }
        let pause = clock::now() + Duration::from_secs(59);
        pool.prune(pause);
        assert_eq!(pool.open(), 50, "a pause costs none of them");
        assert!(matches!(pool.take(soon()), Some((Place::Connection(49), _))));
        pool.prune(pause + Duration::from_secs(2));
        assert_eq!(pool.open(), 1, "those that nobody used are gone");
    }
}
