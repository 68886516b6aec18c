//! What a worker's sessions reach: the shard, the ways to other workers, and the commands that are
//! not about a key.
//!
//! Kept apart from the worker's connections so that one of them can be served while this executes
//! its commands.

use super::connection::Connection;
use super::mail::{Errand, Mail, Peer, ReplyTo};
use super::output::Output;
use super::report::{ConnectionReport, Report, Traffic, Wanted};
use super::session::Router;
use super::shared::Shared;
use super::stats;
use crate::limits::READ_BYTES;
use crate::protocol::parse::words;
use crate::protocol::{Exptime, Request, number, reply};
use crate::shard::operation::Operation;
use crate::shard::{Rules, Shard, item_fits};
use crate::store::Ticks;
use crate::store::hash::{KeyHasher, shard_of};
use fxhash::FxHashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Highest level `verbosity` sets.
const VERBOSITY_MAX: u32 = 2;

/// `cache_memlimit` in megabytes: smallest, and above which bytes must have been meant.
const MEMORY_LIMIT_MEGABYTES_MIN: u32 = 8;
const MEMORY_LIMIT_MEGABYTES_MAX: u32 = 1_000_000_000;

/// Memory that all connections together may hold beside `-m`; more is taken from the store.
const HELD_BYTES_FREE: usize = 16 << 20;

/// Data blocks that are arriving may take one part in so many of a shard's memory.
const HELD_SHARE: u64 = 2;

/// What to answer when all workers have done an errand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// A fixed line; empty for noreply.
    Done(&'static [u8]),
    /// A part of the statistics.
    Stats(stats::Topic),
}

/// An errand on its way.
struct Gathering {
    reply_to: ReplyTo,
    asked: Asked,
    waiting: usize,
    reports: Vec<Box<Report>>,
}

/// See the module's text.
pub struct Core {
    /// This worker's number, which is its shard's.
    id: usize,
    /// The shard.
    pub shard: Shard,
    /// The ways to the other workers; none to itself.
    peers: Vec<Option<Peer>>,
    hasher: KeyHasher,
    rules: Rules,
    /// The time of this turn.
    pub now: Ticks,
    /// The connection being served: token and serial.
    pub current: (usize, u64),
    /// Memory that the connections hold outside the store.
    held_bytes: usize,
    /// Counters that are not the shard's.
    pub traffic: Traffic,
    /// Reports of this worker to make when no connection is being served.
    pub late_reports: Vec<(u64, Wanted)>,
    gatherings: FxHashMap<u64, Gathering>,
    next_errand: u64,
    shared: Arc<Shared>,
}

impl Core {
    /// The core of worker `id`. `peers` has a place for every worker, empty at its own.
    pub fn new(
        id: usize,
        shard: Shard,
        peers: Vec<Option<Peer>>,
        hasher: KeyHasher,
        rules: Rules,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            id,
            shard,
            peers,
            hasher,
            rules,
            now: shared.clock.now(),
            current: (0, 0),
            held_bytes: 0,
            traffic: Traffic::default(),
            late_reports: Vec::new(),
            gatherings: FxHashMap::default(),
            next_errand: 0,
            shared,
        }
    }

    /// Sends executed mail back and the turn's operations out.
    pub fn post(&mut self, executed: Vec<Box<Mail>>) {
        for mail in executed {
            if let Some(peer) = &self.peers[mail.from] {
                peer.reply(mail);
            }
        }
        for peer in self.peers.iter_mut().flatten() {
            peer.send();
        }
    }

    /// A mail is back and read: it can be used again.
    pub fn take_back(&mut self, mail: Box<Mail>) {
        if let Some(peer) = &mut self.peers[mail.to] {
            peer.take_back(mail);
        }
    }

    /// Follows the memory that a connection holds outside the store.
    pub fn count_held(&mut self, connection: &mut Connection) {
        let held_bytes = connection.session.held_bytes();
        self.held_bytes = self.held_bytes - connection.held_bytes + held_bytes;
        connection.held_bytes = held_bytes;
        self.lend();
    }

    /// A connection is gone with what it held.
    pub fn forget_held(&mut self, connection: &Connection) {
        self.held_bytes -= connection.held_bytes;
        self.lend();
    }

    /// The store gives up memory for what connections hold, beyond an allowance.
    fn lend(&mut self) {
        let allowance = HELD_BYTES_FREE / self.peers.len();
        self.shard.lend(self.held_bytes.saturating_sub(allowance) as u64);
    }

    /// Operations are on their way to other workers.
    pub fn is_busy(&self) -> bool {
        self.peers.iter().flatten().any(Peer::is_busy)
    }

    /// Does an errand for this worker's part.
    pub fn run_errand(
        shard: &mut Shard,
        traffic: &mut Traffic,
        errand: Errand,
        now: Ticks,
        connections: impl FnOnce(Wanted) -> Vec<ConnectionReport>,
    ) -> Option<Box<Report>> {
        match errand {
            Errand::Flush(None) => shard.flush(),
            Errand::Flush(Some(at)) => shard.flush_later(at),
            Errand::ResetCounters => {
                shard.reset_counters();
                *traffic = Traffic::default();
            }
            Errand::Detail(on) => shard.set_detail(on),
            Errand::MemoryLimit(bytes) => shard.set_memory_bytes_max(bytes),
            Errand::Report(wanted) => {
                let mut report = Box::new(Report::of_shard(shard, wanted, now));
                report.traffic = *traffic;
                report.connections = connections(wanted);
                return Some(report);
            }
        }
        None
    }

    /// Has every worker do an errand and answers when all have.
    fn send_errand(&mut self, errand: Errand, asked: Asked, output: &mut Output) {
        self.next_errand += 1;
        let errand_id = self.next_errand;
        let (token, serial) = self.current;
        let reply_to = ReplyTo { token, serial, hole: output.open_hole() };
        let waiting = self.peers.len();
        let gathering = Gathering { reply_to, asked, waiting, reports: Vec::new() };
        self.gatherings.insert(errand_id, gathering);
        for peer in self.peers.iter_mut().flatten() {
            peer.outbox().push_errand(errand, ReplyTo { token: 0, serial: errand_id, hole: 0 });
        }
        match errand {
            // The connection being served is out of reach just now.
            Errand::Report(wanted) if wanted.connections => {
                self.late_reports.push((errand_id, wanted));
            }
            _ => {
                let Self { shard, traffic, now, .. } = self;
                let report = Self::run_errand(shard, traffic, errand, *now, |_| Vec::new());
                if let Some((reply_to, text)) = self.errand_done(errand_id, report) {
                    output.fill_hole_with(reply_to.hole, &text);
                }
            }
        }
    }

    /// One worker has done an errand. Returns the answer when it was the last one.
    pub fn errand_done(
        &mut self,
        errand_id: u64,
        report: Option<Box<Report>>,
    ) -> Option<(ReplyTo, Vec<u8>)> {
        let gathering = self.gatherings.get_mut(&errand_id)?;
        gathering.waiting -= 1;
        gathering.reports.extend(report);
        if gathering.waiting > 0 {
            return None;
        }
        let Gathering { reply_to, asked, reports, .. } = self.gatherings.remove(&errand_id)?;
        let text = match asked {
            Asked::Done(line) => line.to_vec(),
            Asked::Stats(topic) => stats::compose(topic, &reports, &self.shared),
        };
        Some((reply_to, text))
    }

    fn flush_all(&mut self, delay: Exptime, noreply: bool, output: &mut Output) {
        self.traffic.flush_commands += 1;
        if !self.shared.config.flush {
            return push_unless(noreply, reply::FLUSH_NOT_ALLOWED, output);
        }
        let at = match delay {
            Exptime::Never | Exptime::Past => None,
            Exptime::Relative(seconds) => Some(self.now.plus_seconds(u64::from(seconds))),
            Exptime::Absolute(seconds) => Some(Ticks::from_seconds(u64::from(seconds))),
        };
        let line: &'static [u8] = if noreply { b"" } else { reply::OK };
        self.send_errand(Errand::Flush(at), Asked::Done(line), output);
    }

    fn memory_limit(&mut self, arguments: &[u8], noreply: bool, output: &mut Output) {
        let megabytes = words(arguments).next().and_then(number::strict_u32);
        let refused = match megabytes {
            None => reply::ERROR,
            Some(megabytes) if megabytes < MEMORY_LIMIT_MEGABYTES_MIN => {
                reply::MEMORY_LIMIT_TOO_SMALL
            }
            Some(megabytes) if megabytes > MEMORY_LIMIT_MEGABYTES_MAX => {
                reply::MEMORY_LIMIT_IS_MEGABYTES
            }
            Some(megabytes) => {
                let bytes = u64::from(megabytes) << 20;
                self.shared.memory_bytes_max.store(bytes, Ordering::Relaxed);
                log::info!("memory limit set to {megabytes} MB");
                let errand = Errand::MemoryLimit(bytes / self.peers.len() as u64);
                let line: &'static [u8] = if noreply { b"" } else { reply::OK };
                return self.send_errand(errand, Asked::Done(line), output);
            }
        };
        push_unless(noreply, refused, output);
    }

    fn shutdown(&mut self, arguments: &[u8], noreply: bool, output: &mut Output) -> bool {
        if !self.shared.config.shutdown {
            push_unless(noreply, reply::SHUTDOWN_NOT_ENABLED, output);
            return true;
        }
        let mut arguments = words(arguments);
        let gracefully = match (arguments.next(), arguments.next()) {
            (None, _) => false,
            (Some(b"graceful"), None) => true,
            _ => {
                output.here().push(reply::SHUTDOWN_MODE);
                return true;
            }
        };
        log::warn!("shutdown: a client asked the server to stop");
        self.shared.ask_to_stop(gracefully);
        false
    }

    fn stats(&mut self, arguments: &[u8], output: &mut Output) {
        let errand = match stats::understand(arguments, &self.shared) {
            stats::Question::Answer(line) => return output.here().push(line),
            stats::Question::Text(text) => return output.here().push(&text),
            stats::Question::Ask(topic, wanted) => {
                return self.send_errand(Errand::Report(wanted), Asked::Stats(topic), output);
            }
            stats::Question::Reset => {
                self.shared.reset_counters();
                (Errand::ResetCounters, reply::RESET)
            }
            stats::Question::Detail(on) => {
                self.shared.detail.store(on, Ordering::Relaxed);
                (Errand::Detail(on), reply::OK)
            }
        };
        self.send_errand(errand.0, Asked::Done(errand.1), output);
    }
}

fn push_unless(noreply: bool, line: &[u8], output: &mut Output) {
    if !noreply {
        output.here().push(line);
    }
}

impl Router for Core {
    #[inline]
    fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash(key)
    }

    #[inline]
    fn execute(&mut self, operation: Operation<'_>, output: &mut Output) {
        let owner = shard_of(operation.hash, self.peers.len());
        if owner == self.id {
            return self.shard.execute(operation, self.now, output.here());
        }
        let (token, serial) = self.current;
        if let Some(peer) = &mut self.peers[owner] {
            let reply_to = ReplyTo { token, serial, hole: output.open_hole() };
            peer.outbox().push(operation, reply_to);
        }
    }

    fn warm(&mut self, hashes: &mut Vec<u64>) {
        let (id, shard_count) = (self.id, self.peers.len());
        hashes.retain(|hash| shard_of(*hash, shard_count) == id);
        self.shard.store().warm(hashes);
    }

    fn command(&mut self, request: &Request<'_>, noreply: bool, output: &mut Output) -> bool {
        match request {
            Request::MetaNoop => output.here().push(reply::META_NOOP),
            Request::Version => output.here().push(stats::VERSION_LINE.as_bytes()),
            Request::Verbosity { level } => {
                let level = (*level).min(VERBOSITY_MAX) as usize;
                self.shared.verbosity.store(level, Ordering::Relaxed);
                super::set_log_level(level);
                push_unless(noreply, reply::OK, output);
            }
            Request::FlushAll { delay } => self.flush_all(*delay, noreply, output),
            Request::MemoryLimit { arguments } => self.memory_limit(arguments, noreply, output),
            Request::Shutdown { arguments } => return self.shutdown(arguments, noreply, output),
            Request::Stats { arguments } => self.stats(arguments, output),
            Request::Quit => return false,
            // The session executes everything that is about a key.
            _ => output.here().push(reply::ERROR),
        }
        true
    }

    fn item_fits(&mut self, key: &[u8], flags: u32, value_bytes: usize) -> bool {
        let fits = item_fits(&self.rules, key.len(), flags, value_bytes);
        if !fits {
            self.shard.count_too_large();
        }
        fits
    }

    fn may_hold(&mut self, block_bytes: usize) -> bool {
        let held_bytes_max = self.shard.store().memory_bytes_max() / HELD_SHARE;
        // Small blocks always: without them nothing could be stored at all.
        let may =
            block_bytes <= READ_BYTES || (self.held_bytes + block_bytes) as u64 <= held_bytes_max;
        if !may {
            self.shard.count_no_memory();
        }
        may
    }

    fn has_room(&self) -> bool {
        self.peers.iter().flatten().all(Peer::has_room)
    }
}
