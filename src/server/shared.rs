//! What all threads of a server see: a few atomics, and what was fixed at the start.

use crate::server::clock::{Clock, Stopwatch};
use crate::server::config::Config;
use crate::server::connection::login::Users;
use crate::server::connection::tls::{Tls, TlsError};
use crate::server::operator::compat::CompatSettings;
use crate::server::operator::watch::Watchers;
use crate::server::persistence::status::Durability;
use crate::server::stats::sizing::Sizing;
use crate::server::{FatalHook, Hooks, StopHook};
use crate::store::budget::Budget;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How the server is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Stage {
    Running = 0,
    Stopping = 1,
    StoppingGracefully = 2,
}

/// See the module's text.
pub struct Shared {
    /// The settings, as started.
    pub config: Config,
    /// The time.
    pub clock: Clock,
    /// Connections open.
    pub connections: AtomicUsize,
    /// Connections ever accepted.
    pub total_connections: AtomicU64,
    /// Connections refused for being too many.
    pub rejected_connections: AtomicU64,
    /// Descriptor and address of each listener.
    pub listeners: Vec<(i32, String)>,
    /// `-v`, as changed by `verbosity`.
    pub verbosity: AtomicUsize,
    /// The memory limit, as changed by `cache_memlimit`, and what is taken of it.
    pub budget: Arc<Budget>,
    /// Items have been stored at some time, as far as somebody looked.
    used_slabs: AtomicBool,
    /// Counts by prefix are being made.
    pub detail: AtomicBool,
    /// The state of the data directory, if there is one.
    pub durability: Option<Arc<Durability>>,
    /// What commands of operators have set.
    pub compat_settings: CompatSettings,
    /// Who may log in, if anybody has to.
    pub users: Option<Users>,
    /// Certificates, if there are listeners for TLS.
    pub tls: Option<Tls>,
    /// Connections that are told what happens.
    pub watchers: Watchers,
    /// What the hit ratio would be with more or less memory.
    pub sizing: Sizing,
    /// Workers that have taken a turn since somebody looked.
    alive: Vec<AtomicBool>,
    stop_hook: Option<StopHook>,
    fatal_hook: Option<FatalHook>,
    stage: AtomicUsize,
    idle_workers: AtomicUsize,
    accept_pauses: AtomicU64,
    accepting: Mutex<Accepting>,
}

#[derive(Debug, Default)]
struct Accepting {
    paused_since: Option<Stopwatch>,
    paused: Duration,
}

impl Shared {
    /// The state of a server that starts now.
    pub fn new(
        config: Config,
        clock: Clock,
        budget: Arc<Budget>,
        listeners: Vec<(i32, String)>,
        durability: Option<Arc<Durability>>,
        users: Option<Users>,
        hooks: Hooks,
    ) -> Self {
        let Hooks { stop: stop_hook, fatal: fatal_hook, tls, .. } = hooks;
        Self {
            clock,
            durability,
            connections: AtomicUsize::new(0),
            total_connections: AtomicU64::new(0),
            rejected_connections: AtomicU64::new(0),
            listeners,
            verbosity: AtomicUsize::new(usize::from(config.verbosity)),
            budget,
            used_slabs: AtomicBool::new(false),
            detail: AtomicBool::new(config.detail),
            compat_settings: CompatSettings::new(&config.accepted_only),
            users,
            tls,
            alive: (0..config.workers).map(|_| AtomicBool::new(true)).collect(),
            watchers: Watchers::default(),
            sizing: Sizing::default(),
            stop_hook,
            fatal_hook,
            stage: AtomicUsize::new(Stage::Running as usize),
            idle_workers: AtomicUsize::new(0),
            accept_pauses: AtomicU64::new(0),
            accepting: Mutex::new(Accepting::default()),
            config,
        }
    }

    /// Whether items are stored, or were when this was asked before.
    pub fn has_used_slabs(&self, now: bool) -> bool {
        self.used_slabs.fetch_or(now, Ordering::Relaxed) || now
    }

    /// A worker takes turns.
    pub fn note_alive(&self, worker: usize) {
        self.alive[worker].store(true, Ordering::Relaxed);
    }

    /// Whether every worker has taken a turn since the last call.
    pub fn all_alive(&self) -> bool {
        // All of them are looked at, so that all start anew.
        let silent = |worker: &&AtomicBool| !worker.swap(false, Ordering::Relaxed);
        self.alive.iter().filter(silent).count() == 0
    }

    /// Reads the certificates again. `None`: there are none.
    pub fn refresh_certificates(&self) -> Option<Result<(), TlsError>> {
        self.tls.as_ref().map(|tls| tls.refresh(self.clock.now().seconds()))
    }

    /// Asks all threads to end.
    pub fn stop(&self, gracefully: bool) {
        let stage = if gracefully { Stage::StoppingGracefully } else { Stage::Stopping };
        self.stage.store(stage as usize, Ordering::SeqCst);
    }

    /// Ends the process if there is one to end, else the server: its data cannot be kept safe.
    pub fn end_at_once(&self) {
        match &self.fatal_hook {
            Some(hook) => hook(),
            None => self.stop(false),
        }
    }

    /// Does what the `shutdown` command asks.
    pub fn ask_to_stop(&self, gracefully: bool) {
        match &self.stop_hook {
            Some(hook) => hook(gracefully),
            None => self.stop(gracefully),
        }
    }

    /// In a graceful stop: notes whether a worker has nothing left, and answers whether none has.
    pub fn note_idle(&self, was_idle: bool, idle: bool) -> bool {
        match (was_idle, idle) {
            (false, true) => _ = self.idle_workers.fetch_add(1, Ordering::SeqCst),
            (true, false) => _ = self.idle_workers.fetch_sub(1, Ordering::SeqCst),
            _ => {}
        }
        self.idle_workers.load(Ordering::SeqCst) == self.config.workers
    }

    /// Sets the counters that all threads share to 0.
    pub fn reset_counters(&self) {
        self.total_connections.store(0, Ordering::Relaxed);
        self.rejected_connections.store(0, Ordering::Relaxed);
        self.accept_pauses.store(0, Ordering::Relaxed);
        self.watchers.reset_counters();
        self.sizing.lock().reset_counters();
        if let Some(tls) = &self.tls {
            tls.counters.reset();
        }
    }

    /// Threads shall end.
    pub fn stopping(&self) -> bool {
        self.stage.load(Ordering::SeqCst) != Stage::Running as usize
    }

    /// Threads shall end once what was received is answered.
    pub fn stopping_gracefully(&self) -> bool {
        self.stage.load(Ordering::SeqCst) == Stage::StoppingGracefully as usize
    }

    /// Notes whether connections are being accepted.
    pub fn note_accepting(&self, accepting: bool) {
        let mut state = self.accepting.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match (accepting, state.paused_since.take()) {
            (true, Some(since)) => state.paused += since.elapsed(),
            (true, None) => {}
            (false, Some(since)) => state.paused_since = Some(since),
            (false, None) => {
                self.accept_pauses.fetch_add(1, Ordering::Relaxed);
                state.paused_since = Some(Stopwatch::start());
            }
        }
    }

    /// Whether connections are being accepted, how often they were not, and for how long.
    pub fn accepting(&self) -> (bool, u64, Duration) {
        let state = self.accepting.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let current = state.paused_since.map_or(Duration::ZERO, |since| since.elapsed());
        let pauses = self.accept_pauses.load(Ordering::Relaxed);
        (state.paused_since.is_none(), pauses, state.paused + current)
    }
}
