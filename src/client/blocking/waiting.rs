//! Waiting for a future without a runtime: the thread sleeps until it is woken. For what other
//! threads of this process finish, not for sockets.

use crate::client::clock;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

struct Sleeper(Thread);

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// What the future yields by then; without a future, sleeps.
pub(in crate::client) fn wait_until<R>(
    future: Option<impl Future<Output = Option<R>>>,
    until: Instant,
) -> Option<R> {
    let waker = Waker::from(Arc::new(Sleeper(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Some(future) = future.as_mut().as_pin_mut()
            && let Poll::Ready(result) = future.poll(&mut context)
        {
            return result;
        }
        let left = until.saturating_duration_since(clock::now());
        if left.is_zero() {
            return None;
        }
        thread::park_timeout(left);
    }
}
