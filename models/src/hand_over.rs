//! A shard that several workers want, modelled: `server::worker::waiting` with a lock, and a sleep
//! that remembers a call.
//!
//! Goal: no worker sleeps while the shard it waits for is free, and no operation is lost or done
//! twice. Method: loom runs the interleavings of workers that each have operations for one shard;
//! a worker that is never called is a deadlock, which loom reports. The workers here have no tick
//! that would hide one. The hand-over has three rules, and each is dropped once to see that the
//! model notices: join *before* the second try, have that second try, and call *after* letting
//! go.
//!
//! What is real and what is not: `waiting.rs` is the daemon's own file, compiled against loom's
//! atomics. The lock is a word that is taken and let go with the orderings of the standard
//! library's (acquire, release), and what it guards is read and written without any. The sleep is
//! a lock with a condition variable; that a bell is heard by a worker about to sleep is the other
//! model's subject.
//!
//! Run: `cargo test -p models`.

#[path = "../../src/server/worker/waiting.rs"]
mod waiting;

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::sync::{Condvar, Mutex};
use loom::thread;
use std::panic::{AssertUnwindSafe, catch_unwind};
use waiting::Waiting;

/// Threads are interrupted at most so often in one run.
const PREEMPTIONS_MAX: usize = 3;

/// The atomics of `waiting.rs`.
mod atomic {
    pub(super) use loom::sync::atomic::{AtomicU64, Ordering};
}

/// The rules of the hand-over.
#[derive(Debug, Clone, Copy)]
struct Rules {
    /// Who found the shard held joins before the second try, not behind it.
    join_before_trying_again: bool,
    /// There is a second try.
    try_again: bool,
    /// Who lets go calls when the shard is free, not before.
    call_after_letting_go: bool,
}

/// As `server::worker::shards` does it.
const AS_BUILT: Rules =
    Rules { join_before_trying_again: true, try_again: true, call_after_letting_go: true };

/// A worker's sleep: a call that comes first is remembered.
#[derive(Default)]
struct Sleep {
    called: Mutex<bool>,
    changed: Condvar,
}

impl Sleep {
    fn call(&self) {
        *self.called.lock().unwrap() = true;
        self.changed.notify_one();
    }

    fn until_called(&self) {
        let mut called = self.called.lock().unwrap();
        while !*called {
            called = self.changed.wait(called).unwrap();
        }
        *called = false;
    }
}

struct Scene {
    /// Somebody holds the shard.
    held: AtomicBool,
    /// Operations done on it.
    done: AtomicUsize,
    waiting: Waiting,
    sleeps: Vec<Sleep>,
}

impl Scene {
    fn new(workers: usize) -> Self {
        Self {
            held: AtomicBool::new(false),
            done: AtomicUsize::new(0),
            waiting: Waiting::default(),
            sleeps: (0..workers).map(|_| Sleep::default()).collect(),
        }
    }

    fn call(&self) {
        self.waiting.call(|worker| self.sleeps[worker].call());
    }

    /// Executes one operation if the shard is free.
    fn try_execute(&self, rules: Rules) -> bool {
        let taken = self.held.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed);
        if taken.is_err() {
            return false;
        }
        self.done.store(self.done.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        if !rules.call_after_letting_go {
            self.call();
        }
        self.held.swap(false, Ordering::Release);
        if rules.call_after_letting_go {
            self.call();
        }
        true
    }

    /// `Shards::try_hold`, one operation, and letting go. Answers whether it was done.
    fn execute(&self, worker: usize, rules: Rules) -> bool {
        if self.try_execute(rules) {
            return true;
        }
        if !rules.try_again {
            self.waiting.join(worker);
            return false;
        }
        if rules.join_before_trying_again {
            self.waiting.join(worker);
            return self.try_execute(rules);
        }
        if self.try_execute(rules) {
            return true;
        }
        self.waiting.join(worker);
        false
    }

    /// A worker with so many operations, and nothing else to do meanwhile.
    fn work(&self, worker: usize, operations: usize, rules: Rules) {
        let mut left = operations;
        while left > 0 {
            if self.execute(worker, rules) {
                left -= 1;
            } else {
                self.sleeps[worker].until_called();
            }
        }
    }
}

/// So many workers with `operations` each.
fn run(workers: usize, operations: usize, rules: Rules) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(PREEMPTIONS_MAX);
    model.check(move || {
        // Leaked: loom panics anew where a deadlock unwinds through its types.
        let scene: &'static Scene = Box::leak(Box::new(Scene::new(workers)));
        let others: Vec<_> = (1..workers)
            .map(|worker| thread::spawn(move || scene.work(worker, operations, rules)))
            .collect();
        scene.work(0, operations, rules);
        for thread in others {
            thread.join().unwrap();
        }
        assert_eq!(scene.done.load(Ordering::Relaxed), workers * operations);
    });
}

fn leaves_a_worker_asleep(rules: Rules) -> bool {
    catch_unwind(AssertUnwindSafe(|| run(2, 1, rules))).is_err()
}

#[test]
fn two_workers_get_their_turns() {
    run(2, 2, AS_BUILT);
}

#[test]
fn three_workers_get_their_turns() {
    run(3, 1, AS_BUILT);
}

#[test]
fn who_joins_after_the_second_try_may_sleep_for_ever() {
    assert!(leaves_a_worker_asleep(Rules { join_before_trying_again: false, ..AS_BUILT }));
}

#[test]
fn who_does_not_try_again_may_sleep_for_ever() {
    assert!(leaves_a_worker_asleep(Rules { try_again: false, ..AS_BUILT }));
}

#[test]
fn a_call_before_letting_go_may_come_to_nothing() {
    assert!(leaves_a_worker_asleep(Rules { call_after_letting_go: false, ..AS_BUILT }));
}
