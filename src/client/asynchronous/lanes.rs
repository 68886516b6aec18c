//! The connections of one server. Owns which of them a call takes: one that many share, or for
//! large requests and values one of its own, so that nobody waits behind those.

use crate::client::asynchronous::large::LargeKeys;
use crate::client::asynchronous::pipe::Pipe;
use crate::client::cluster::{Cluster, Server};
use crate::client::config::Config;
use crate::client::error::Error;
use crate::client::wire::command::Protocol;
use std::future::Future;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::runtime::{Handle, Id};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout_at;

#[derive(Debug)]
pub(in crate::client) struct Lanes {
    shared: Mutex<Vec<Arc<Pipe>>>,
    /// Those of large requests, while nobody uses them.
    spare: Mutex<Vec<Arc<Pipe>>>,
    /// Large requests at a time.
    permits: Semaphore,
    open: Arc<AtomicUsize>,
    pub(super) large: LargeKeys,
    opaque: AtomicU32,
    shared_max: usize,
    spare_max: usize,
}

/// A connection for one call.
pub(super) struct Lane<'l> {
    pub pipe: Arc<Pipe>,
    /// It is this call's alone, and goes back to the others.
    own: Option<(&'l Lanes, SemaphorePermit<'l>)>,
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        let Some((lanes, _permit)) = self.own.take() else { return };
        let mut spare = lock(&lanes.spare);
        if spare.len() < lanes.spare_max && self.pipe.is_open() {
            spare.push(Arc::clone(&self.pipe));
        }
    }
}

fn lock(pipes: &Mutex<Vec<Arc<Pipe>>>) -> MutexGuard<'_, Vec<Arc<Pipe>>> {
    pipes.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lanes {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            shared: Mutex::default(),
            spare: Mutex::default(),
            permits: Semaphore::new(config.connections_max.min(Semaphore::MAX_PERMITS)),
            open: Arc::default(),
            large: LargeKeys::default(),
            opaque: AtomicU32::new(0),
            shared_max: config.pipelined_connections,
            spare_max: config.idle_connections_max,
        }
    }

    /// Connections that are open or being made.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// The first of so many numbers for meta commands; they come round after 2^32.
    pub(crate) fn opaque(&self, count: usize) -> u32 {
        self.opaque.fetch_add(u32::try_from(count).unwrap_or(u32::MAX), Ordering::Relaxed)
    }

    /// Whether the server answers on a connection that is there and free; `None` without one.
    pub(crate) fn answers(&self, protocol: Protocol) -> Option<impl Future<Output = Option<()>>> {
        let pipes = lock(&self.shared);
        let pipe = pipes.iter().find(|pipe| pipe.is_open() && pipe.is_idle())?;
        pipe.answers(protocol)
    }

    /// Lets all connections end when the calls under way have their replies.
    pub(crate) fn retire(&self) {
        let mut pipes = std::mem::take(&mut *lock(&self.shared));
        pipes.append(&mut lock(&self.spare));
        pipes.iter().for_each(|pipe| pipe.retire());
    }

    /// A connection that is shared.
    pub(super) fn shared(
        &self,
        cluster: &Arc<Cluster>,
        server: &Arc<Server>,
    ) -> Result<Lane<'_>, Error> {
        let runtime = runtime()?;
        let mut pipes = lock(&self.shared);
        pipes.retain(|pipe| pipe.is_open());
        let ours = || pipes.iter().filter(|pipe| pipe.runtime == runtime.id());
        if ours().count() < self.shared_max && ours().all(|pipe| !pipe.is_idle()) {
            let pipe = self.begin(cluster, server, &runtime)?;
            pipes.push(Arc::clone(&pipe));
            return Ok(Lane { pipe, own: None });
        }
        let turn = self.opaque.load(Ordering::Relaxed) as usize;
        let idle = ours().find(|pipe| pipe.is_idle());
        let pipe = idle.or_else(|| ours().nth(turn % self.shared_max));
        Ok(Lane { pipe: Arc::clone(pipe.ok_or(Error::NoServers)?), own: None })
    }

    /// A connection for one call alone.
    pub(super) async fn own(
        &self,
        cluster: &Arc<Cluster>,
        server: &Arc<Server>,
        deadline: Instant,
    ) -> Result<Lane<'_>, Error> {
        let runtime = runtime()?;
        let permit = timeout_at(deadline.into(), self.permits.acquire()).await;
        let Ok(Ok(permit)) = permit else {
            return Err(Error::timeout(&server.name, "a free connection"));
        };
        let pipe = match self.take_spare(runtime.id()) {
            Some(pipe) => pipe,
            None => self.begin(cluster, server, &runtime)?,
        };
        Ok(Lane { pipe, own: Some((self, permit)) })
    }

    fn take_spare(&self, runtime: Id) -> Option<Arc<Pipe>> {
        let mut spare = lock(&self.spare);
        spare.retain(|pipe| pipe.is_open());
        // One whose call was given up may still be read.
        let fits = |pipe: &Arc<Pipe>| pipe.runtime == runtime && pipe.is_idle();
        let at = spare.iter().rposition(fits)?;
        Some(spare.remove(at))
    }

    fn begin(
        &self,
        cluster: &Arc<Cluster>,
        server: &Arc<Server>,
        runtime: &Handle,
    ) -> Result<Arc<Pipe>, Error> {
        server.may_log_in(crate::client::clock::now(), cluster.config.probe_after_max)?;
        Ok(Arc::new(Pipe::begin(cluster, server, runtime, &self.open)))
    }
}

fn runtime() -> Result<Handle, Error> {
    let none = |_| Error::Config("the asynchronous face needs a runtime of tokio around it".into());
    Handle::try_current().map_err(none)
}
