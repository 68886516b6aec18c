//! `watch`: connections that are told what happens.
//!
//! ```text
//! worker 0   shard, connections --> events of the turn --.
//! worker 1   shard, connections --> events of the turn --+--> a queue for each watcher
//!                                                         |    (bounded; what does not fit is
//!                                                         |    counted as skipped)
//!            the worker of the watcher's connection <----'    takes it when the last is sent
//! ```
//!
//! With no watcher a turn looks at one number and an operation at one pointer. Owns the queues and
//! the numbers that `stats` tells of them; does not know sockets.

use crate::protocol::parse::words;
use crate::shard::events::{Events, Kinds};
use crate::store::Ticks;
use std::io::Write;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Watchers at a time.
const WATCHERS_MAX: usize = 20;

/// Lines that wait for one watcher, in bytes.
const QUEUE_BYTES_MAX: usize = 256 << 10;

/// The watchers of a server.
#[derive(Debug, Default)]
pub struct Watchers {
    /// What any of them wants.
    wanted: AtomicU8,
    list: Mutex<Vec<Arc<Watcher>>>,
    next_number: AtomicU64,
    /// Lines that did not fit where they were made.
    dropped: AtomicU64,
    /// Lines that were made.
    written: AtomicU64,
    /// Lines that a watcher had no room for.
    skipped: AtomicU64,
    /// Lines handed to watchers' connections.
    sent: AtomicU64,
}

/// What `stats` tells: dropped, written, skipped, sent, watchers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// Lines that did not fit where they were made.
    pub dropped: u64,
    /// Lines that were made.
    pub written: u64,
    /// Lines that a watcher had no room for.
    pub skipped: u64,
    /// Lines handed to watchers' connections.
    pub sent: u64,
    /// Connections that watch.
    pub watchers: usize,
}

/// A connection that watches.
#[derive(Debug)]
pub struct Watcher {
    wanted: Kinds,
    /// The worker that has the connection.
    pub worker: usize,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    text: Vec<u8>,
    lines: u64,
    skipped: u64,
}

/// Locks hold plain data that is whole at any time, whoever panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The kinds that the words behind `watch` name; `None` if one is unknown.
pub fn understand(arguments: &[u8]) -> Option<Kinds> {
    let mut named = words(arguments).map(Kinds::named).peekable();
    if named.peek().is_none() {
        return Some(Kinds::FETCHERS);
    }
    named.try_fold(Kinds::default(), |all, kind| Some(all.with(kind?)))
}

impl Watchers {
    /// What any watcher wants.
    #[inline]
    pub fn wanted(&self) -> Kinds {
        Kinds(self.wanted.load(Ordering::Relaxed))
    }

    /// Adds a watcher, unless there are as many as there may be.
    pub fn add(&self, wanted: Kinds, worker: usize) -> Option<Arc<Watcher>> {
        let mut list = lock(&self.list);
        if list.len() >= WATCHERS_MAX {
            return None;
        }
        let watcher = Arc::new(Watcher { wanted, worker, queue: Mutex::default() });
        list.push(Arc::clone(&watcher));
        self.note_wanted(&list);
        Some(watcher)
    }

    /// Its connection is gone.
    pub fn remove(&self, watcher: &Arc<Watcher>) {
        let mut list = lock(&self.list);
        list.retain(|other| !Arc::ptr_eq(other, watcher));
        self.note_wanted(&list);
    }

    fn note_wanted(&self, list: &[Arc<Watcher>]) {
        let all = list.iter().fold(Kinds::default(), |all, watcher| all.with(watcher.wanted));
        self.wanted.store(all.0, Ordering::Relaxed);
    }

    /// Tells every watcher what it wants to know. Calls `wake` with the worker of each that has
    /// something to read.
    pub fn tell(&self, events: &mut Events, now: Ticks, mut wake: impl FnMut(usize)) {
        self.dropped.fetch_add(events.dropped(), Ordering::Relaxed);
        let count = events.lines().count() as u64;
        if count > 0 {
            self.written.fetch_add(count, Ordering::Relaxed);
            let first = self.next_number.fetch_add(count, Ordering::Relaxed) + 1;
            let watchers = lock(&self.list).clone();
            for watcher in watchers {
                if watcher.tell(events, now, first, &self.skipped) {
                    wake(watcher.worker);
                }
            }
        }
        events.clear();
    }

    /// The lines that wait for a watcher, into `out`.
    pub fn take(&self, watcher: &Watcher, out: &mut Vec<u8>) {
        let mut queue = lock(&watcher.queue);
        if queue.skipped > 0 {
            // Writing to a Vec does not fail.
            let _ = writeln!(out, "skipped={}", queue.skipped);
        }
        out.extend_from_slice(&queue.text);
        self.sent.fetch_add(queue.lines, Ordering::Relaxed);
        *queue = Queue { text: std::mem::take(&mut queue.text), ..Queue::default() };
        queue.text.clear();
    }

    /// For `stats`.
    pub fn numbers(&self) -> Numbers {
        let value = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Numbers {
            dropped: value(&self.dropped),
            written: value(&self.written),
            skipped: value(&self.skipped),
            sent: value(&self.sent),
            watchers: lock(&self.list).len(),
        }
    }

    /// Sets the counters to 0.
    pub fn reset_counters(&self) {
        for number in [&self.dropped, &self.written, &self.skipped, &self.sent] {
            number.store(0, Ordering::Relaxed);
        }
    }
}

impl Watcher {
    /// Adds the lines it wants. Answers whether there is anything to read.
    fn tell(&self, events: &Events, now: Ticks, first: u64, skipped: &AtomicU64) -> bool {
        let mut queue = lock(&self.queue);
        for (number, (kind, line)) in (first..).zip(events.lines()) {
            if !self.wanted.meets(kind) {
                continue;
            }
            if queue.text.len() >= QUEUE_BYTES_MAX {
                queue.skipped += 1;
                skipped.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let (seconds, fraction) = (now.seconds(), now.0 % Ticks::PER_SECOND);
            // Writing to a Vec does not fail.
            let _ = write!(queue.text, "ts={seconds}.{fraction:02}0000 gid={number} ");
            queue.text.extend_from_slice(line);
            queue.lines += 1;
        }
        !queue.text.is_empty()
    }

    /// Whether lines wait.
    pub fn has_lines(&self) -> bool {
        !lock(&self.queue).text.is_empty()
    }
}
