//! One computation of a key in a process, and those who wait for it. Owns who is first, and who is
//! woken when it ends; no I/O, no time. Those who wait do so as a future: the blocking face lets it
//! wake its thread.

use crate::client::operation::Encoded;
use crate::client::placement::key::WireKey;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// What came of a computation: the value as it is stored, if there is one.
type Landed = Option<Arc<Encoded>>;

/// The computations under way.
#[derive(Debug, Default)]
pub(in crate::client) struct Flights {
    by_key: Mutex<HashMap<WireKey<'static>, Arc<Flight>>>,
}

#[derive(Debug, Default)]
struct Flight {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    landed: Option<Landed>,
    waiting: Vec<Waker>,
}

impl Flight {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who computes.
#[derive(Debug)]
pub(in crate::client) enum Role {
    First(Leading),
    Other(Following),
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, HashMap<WireKey<'static>, Arc<Flight>>> {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first caller of a key computes, the others wait.
    pub(crate) fn join(self: &Arc<Self>, key: &WireKey<'_>) -> Role {
        match self.lock().entry(key.clone().into_owned()) {
            Entry::Occupied(entry) => Role::Other(Following(Arc::clone(entry.get()))),
            Entry::Vacant(entry) => {
                let key = entry.key().clone();
                let flight = Arc::clone(entry.insert(Arc::default()));
                Role::First(Leading { flights: Arc::clone(self), key, flight })
            }
        }
    }

    /// The computation of a key, if there is one.
    pub(crate) fn find(&self, key: &WireKey<'_>) -> Option<Following> {
        let flights = self.lock();
        let flight = flights.get(&key.clone().into_owned())?;
        Some(Following(Arc::clone(flight)))
    }
}

/// The first caller's part. Dropped without a value, it wakes the others to try for themselves.
#[derive(Debug)]
pub(in crate::client) struct Leading {
    flights: Arc<Flights>,
    key: WireKey<'static>,
    flight: Arc<Flight>,
}

impl Leading {
    /// Hands the value to those who wait.
    pub(crate) fn land(self, value: Option<Encoded>) {
        self.flight.lock().landed = Some(value.map(Arc::new));
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        // Whoever comes from now on starts anew.
        self.flights.lock().remove(&self.key);
        let mut state = self.flight.lock();
        state.landed.get_or_insert(None);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// What another caller waits for.
#[derive(Debug)]
pub(in crate::client) struct Following(Arc<Flight>);

impl Future for Following {
    type Output = Landed;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Landed> {
        let mut state = self.0.lock();
        if let Some(landed) = &state.landed {
            return Poll::Ready(landed.clone());
        }
        if !state.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            state.waiting.push(context.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::placement::key::Form;
    use std::borrow::Cow;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn key(name: &'static str) -> WireKey<'static> {
        WireKey { bytes: Cow::Borrowed(name.as_bytes()), form: Form::Plain }
    }

    #[test]
    fn one_computes_and_the_others_are_woken_with_what_it_made() {
        let flights = Arc::new(Flights::default());
        for value in [Some(Encoded { data: b"x".to_vec(), flags: 7 }), None] {
            let Role::First(leading) = flights.join(&key("a")) else { panic!() };
            assert!(matches!(flights.join(&key("b")), Role::First(_)), "another key");
            let Role::Other(mut other) = flights.join(&key("a")) else { panic!() };
            let woken = Arc::new(Woken::default());
            let waker = Waker::from(Arc::clone(&woken));
            let mut context = Context::from_waker(&waker);
            assert!(Pin::new(&mut other).poll(&mut context).is_pending());
            assert!(Pin::new(&mut other).poll(&mut context).is_pending());
            leading.land(value.clone());
            assert_eq!(woken.0.load(Ordering::Relaxed), 1, "once, however often it looked");
            let landed = Pin::new(&mut other).poll(&mut context);
            assert_eq!(landed, Poll::Ready(value.map(Arc::new)));
            assert!(flights.find(&key("a")).is_none(), "the next caller starts anew");
        }
    }

    #[test]
    fn a_computation_that_is_dropped_wakes_the_others_too() {
        let flights = Arc::new(Flights::default());
        let Role::First(leading) = flights.join(&key("a")) else { panic!() };
        let mut other = flights.find(&key("a")).unwrap();
        drop(leading);
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(Pin::new(&mut other).poll(&mut context), Poll::Ready(None));
    }
}
