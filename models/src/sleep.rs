//! A worker's sleep, modelled: `server::worker::parking` with an inbox and something to sleep on.
//!
//! Goal: no message is left in an inbox whose worker sleeps on. Method: loom runs the interleavings
//! of a worker with its senders; a worker that is never woken is a deadlock, which loom reports.
//! The worker here has no tick that would hide one. The protocol has two rules, and each is dropped
//! once to see that the model notices: look at the inbox *after* parking, and look at the flag
//! *after* sending.
//!
//! What is real and what is not: `parking.rs` is the daemon's own file, compiled against the
//! atomics below. The inbox is a lock around a counter, and the waker a lock with a condition
//! variable (as mio's, it remembers a wake that came before the wait). So this checks the order of
//! steps, not the memory orderings between flag and channel: those rest on both sides being
//! sequentially consistent (`SeqCst` in `Parking` and in crossbeam's bounded channel), which loom
//! weakens to acquire and release.
//!
//! Run: `cargo test -p models`.

#[path = "../../src/server/worker/parking.rs"]
mod parking;

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use parking::Parking;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Threads are interrupted at most so often in one run. With this bound the models take less than a
/// second; without one they were still running after nine minutes.
const PREEMPTIONS_MAX: usize = 3;

/// The atomics of `parking.rs`: loom's, with stores that are swaps.
///
/// A swap must stand directly behind the value it read in the order of an atomic's changes. loom
/// 0.7 does not hold later plain stores of other threads to that, and shows a sender a `false` from
/// before the worker parked again. With swaps alone there is one order, as on real machines.
mod atomic {
    pub(super) use loom::sync::atomic::Ordering;

    #[derive(Debug, Default)]
    pub(super) struct AtomicBool(loom::sync::atomic::AtomicBool);

    impl AtomicBool {
        pub(super) fn load(&self, order: Ordering) -> bool {
            self.0.load(order)
        }

        pub(super) fn store(&self, value: bool, order: Ordering) {
            self.0.swap(value, order);
        }

        pub(super) fn swap(&self, value: bool, order: Ordering) -> bool {
            self.0.swap(value, order)
        }
    }
}

/// How the worker and the senders go about it.
#[derive(Clone, Copy)]
struct Rules {
    /// The worker looks at its inbox between parking and waiting.
    look_after_parking: bool,
    /// A sender looks at the flag once its message is in the inbox, not before.
    ring_after_sending: bool,
}

/// As `server::worker::turn` and `server::worker::inbox` do it.
const AS_BUILT: Rules = Rules { look_after_parking: true, ring_after_sending: true };

/// Messages waiting: all that an inbox is to the protocol.
#[derive(Default)]
struct Inbox(Mutex<usize>);

impl Inbox {
    fn send(&self) {
        *self.0.lock().unwrap() += 1;
    }

    fn is_empty(&self) -> bool {
        *self.0.lock().unwrap() == 0
    }

    fn take_all(&self) -> usize {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

/// What a poll waits for: a wake is kept until a wait takes it.
#[derive(Default)]
struct Waker {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Waker {
    fn wake(&self) {
        *self.woken.lock().unwrap() = true;
        self.changed.notify_one();
    }

    /// A poll without a time limit.
    fn wait(&self) {
        let mut woken = self.woken.lock().unwrap();
        while !*woken {
            woken = self.changed.wait(woken).unwrap();
        }
        *woken = false;
    }

    /// A poll that does not wait.
    fn look(&self) {
        *self.woken.lock().unwrap() = false;
    }
}

#[derive(Default)]
struct Station {
    parking: Parking,
    inbox: Inbox,
    waker: Waker,
}

impl Station {
    /// `Address::send` and `Bell::ring`.
    fn post(&self, rules: Rules) {
        if rules.ring_after_sending {
            self.inbox.send();
            self.ring();
        } else {
            self.ring();
            self.inbox.send();
        }
    }

    fn ring(&self) {
        if self.parking.must_wake() {
            self.waker.wake();
        }
    }

    /// `Worker::wait` and `Worker::read_inbox`, until so many messages were read.
    fn receive(&self, messages: usize, rules: Rules) {
        let mut received = 0;
        while received < messages {
            self.parking.park();
            if !rules.look_after_parking || self.inbox.is_empty() {
                self.waker.wait();
            } else {
                self.waker.look();
            }
            self.parking.unpark();
            received += self.inbox.take_all();
        }
    }
}

/// One worker and `senders` threads that post `messages_each` messages.
fn run(senders: usize, messages_each: usize, rules: Rules) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(PREEMPTIONS_MAX);
    model.check(move || {
        let station = Arc::new(Station::default());
        let posting: Vec<_> = (0..senders)
            .map(|_| {
                let station = Arc::clone(&station);
                thread::spawn(move || (0..messages_each).for_each(|_| station.post(rules)))
            })
            .collect();
        station.receive(senders * messages_each, rules);
        for thread in posting {
            thread.join().unwrap();
        }
        assert!(station.inbox.is_empty());
    });
}

fn loses_a_wake_up(rules: Rules) -> bool {
    catch_unwind(AssertUnwindSafe(|| run(1, 1, rules))).is_err()
}

#[test]
fn one_sender_is_always_heard() {
    run(1, 2, AS_BUILT);
}

#[test]
fn two_senders_are_always_heard() {
    run(2, 1, AS_BUILT);
}

#[test]
fn without_the_look_after_parking_a_message_is_left() {
    assert!(loses_a_wake_up(Rules { look_after_parking: false, ..AS_BUILT }));
}

#[test]
fn a_sender_that_rings_too_early_is_not_heard() {
    assert!(loses_a_wake_up(Rules { ring_after_sending: false, ..AS_BUILT }));
}
