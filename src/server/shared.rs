//! What all threads of a server see: a few atomics, and what was fixed at the start.

use super::StopHook;
use super::clock::{Clock, Stopwatch};
use super::config::Config;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
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
    /// Memory limit in bytes, as changed by `cache_memlimit`.
    pub memory_bytes_max: AtomicU64,
    /// Counts by prefix are being made.
    pub detail: AtomicBool,
    stop_hook: Option<StopHook>,
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
    pub fn new(config: Config, listeners: Vec<(i32, String)>, stop_hook: Option<StopHook>) -> Self {
        Self {
            clock: Clock::start(),
            connections: AtomicUsize::new(0),
            total_connections: AtomicU64::new(0),
            rejected_connections: AtomicU64::new(0),
            listeners,
            verbosity: AtomicUsize::new(usize::from(config.verbosity)),
            memory_bytes_max: AtomicU64::new(config.memory_bytes_max),
            detail: AtomicBool::new(config.detail),
            stop_hook,
            stage: AtomicUsize::new(Stage::Running as usize),
            idle_workers: AtomicUsize::new(0),
            accept_pauses: AtomicU64::new(0),
            accepting: Mutex::new(Accepting::default()),
            config,
        }
    }

    /// Asks all threads to end.
    pub fn stop(&self, gracefully: bool) {
        let stage = if gracefully { Stage::StoppingGracefully } else { Stage::Stopping };
        self.stage.store(stage as usize, Ordering::SeqCst);
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
