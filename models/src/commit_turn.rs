//! Who writes the log, modelled: `durable::turn` with records that several threads leave behind.
//!
//! Goal: no record is left lying when everybody has gone, and none is taken by two at a time.
//! Method: loom runs the interleavings of threads that each leave records and then take the turn
//! or go away; whatever lies there in the end was forgotten. The protocol has two rules, and each
//! is dropped once to see that the model notices: leave the record *before* trying to take the
//! turn, and look once more *after* letting go.
//!
//! What is real and what is not: `turn.rs` is the daemon's own file, compiled against loom's
//! atomics with stores that are swaps, as in `sleep.rs`. Writing is a change of two numbers.
//!
//! Run: `cargo test -p models`.

#[path = "../../src/durable/turn.rs"]
mod turn;

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use std::panic::{AssertUnwindSafe, catch_unwind};
use turn::Turn;

/// Threads are interrupted at most so often in one run.
const PREEMPTIONS_MAX: usize = 3;

/// The atomics of `turn.rs`.
mod atomic {
    pub(super) use loom::sync::atomic::{AtomicBool, Ordering};
}

/// The rules of taking turns.
#[derive(Debug, Clone, Copy)]
struct Rules {
    /// A record is left before the turn is tried, not behind it.
    leave_first: bool,
    /// Who had the turn looks once more after letting go.
    look_again: bool,
}

/// As `durable::committer` does it.
const AS_BUILT: Rules = Rules { leave_first: true, look_again: true };

#[derive(Default)]
struct Log {
    turn: Turn,
    /// Records that wait.
    left: AtomicUsize,
    /// Somebody is at work: a second one would be an error.
    at_work: AtomicUsize,
    written: AtomicUsize,
}

impl Log {
    fn leave(&self) {
        self.left.fetch_add(1, Ordering::SeqCst);
    }

    fn write(&self) {
        assert_eq!(self.at_work.swap(1, Ordering::SeqCst), 0, "two at a time");
        let taken = self.left.swap(0, Ordering::SeqCst);
        self.written.fetch_add(taken, Ordering::SeqCst);
        self.at_work.swap(0, Ordering::SeqCst);
    }

    /// Leaves a record and sees to it that it is written.
    fn commit(&self, rules: Rules) {
        if rules.leave_first {
            self.leave();
        }
        self.turn.run(
            || self.left.load(Ordering::SeqCst) > 0,
            || {
                self.write();
                rules.look_again
            },
        );
        if !rules.leave_first {
            self.leave();
        }
    }
}

/// So many threads that commit `records` each.
fn run(threads: usize, records: usize, rules: Rules) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(PREEMPTIONS_MAX);
    model.check(move || {
        // Leaked: loom panics anew where a failure unwinds through its types.
        let log: &'static Log = Box::leak(Box::new(Log::default()));
        let work = move || (0..records).for_each(|_| log.commit(rules));
        let others: Vec<_> = (1..threads).map(|_| thread::spawn(work)).collect();
        work();
        for thread in others {
            thread.join().unwrap();
        }
        assert_eq!(log.left.load(Ordering::SeqCst), 0, "records are left lying");
        assert_eq!(log.written.load(Ordering::SeqCst), threads * records);
    });
}

fn forgets_a_record(rules: Rules) -> bool {
    catch_unwind(AssertUnwindSafe(|| run(2, 1, rules))).is_err()
}

#[test]
fn two_threads_leave_nothing() {
    run(2, 2, AS_BUILT);
}

#[test]
fn three_threads_leave_nothing() {
    run(3, 1, AS_BUILT);
}

#[test]
fn a_record_left_after_the_try_is_forgotten() {
    assert!(forgets_a_record(Rules { leave_first: false, ..AS_BUILT }));
}

#[test]
fn without_the_last_look_a_record_is_forgotten() {
    assert!(forgets_a_record(Rules { look_again: false, ..AS_BUILT }));
}
