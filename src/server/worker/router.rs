//! What a worker's sessions reach: the shard, the ways to other workers, and the commands that are
//! not about a key.
//!
//! Kept apart from the worker's connections so that one of them can be served while this executes
//! its commands.

use crate::durable::log::Safety;
use crate::limits::READ_BYTES;
use crate::protocol::parse::words;
use crate::protocol::{AdminVerb, Exptime, Request, number, reply};
use crate::server::config;
use crate::server::connection::login::Verdict;
use crate::server::connection::output::{Gate, Output};
use crate::server::connection::session::{Next, Router, Timed};
use crate::server::connection::socket::{Connection, Stream};
use crate::server::operator::compat;
use crate::server::operator::dump::{Dump, Form};
use crate::server::operator::watch::{self, Watcher};
use crate::server::persistence::keeper::{Asker, Note};
use crate::server::shared::Shared;
use crate::server::stats::latency::Timing;
use crate::server::stats::report::{ConnectionReport, Report, Traffic, Wanted};
use crate::server::stats::text;
use crate::server::worker::mail::{Errand, ErrandDone, Mail, Peer, ReplyTo, SNAPSHOTS_AWAITED_MAX};
use crate::shard::events::Kinds;
use crate::shard::operation::Operation;
use crate::shard::{Rules, Shard, item_fits};
use crate::store::Ticks;
use crate::store::hash::{KeyHasher, shard_of};
use crate::store::lookups::Lookups;
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
    Stats(text::Topic),
}

/// An errand on its way.
struct Gathering {
    reply_to: ReplyTo,
    asked: Asked,
    waiting: usize,
    reports: Vec<Box<Report>>,
    gates: Vec<Gate>,
    refused: bool,
}

/// The answer to an errand that all workers have done.
pub struct Answer {
    /// Where it goes.
    pub reply_to: ReplyTo,
    /// What it says.
    pub text: Vec<u8>,
    /// What has to be safe before.
    pub gates: Vec<Gate>,
}

impl Answer {
    /// Puts it in its place.
    pub fn fill(self, output: &mut Output) {
        for gate in self.gates {
            output.wait_for(gate);
        }
        output.fill_hole_with(self.reply_to.hole, &self.text);
    }
}

/// See the module's text.
pub struct Core {
    /// This worker's number, which is its shard's.
    pub id: usize,
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
    /// Its descriptor.
    descriptor: i32,
    /// Connections of this worker that watch: token and serial.
    pub watching: Vec<(usize, u64, Arc<Watcher>)>,
    /// Memory that the connections hold outside the store.
    held_bytes: usize,
    /// Counters that are not the shard's.
    pub traffic: Traffic,
    /// How long commands take.
    pub timing: Timing,
    /// Reports of this worker to make when no connection is being served.
    pub late_reports: Vec<(u64, Wanted)>,
    gatherings: FxHashMap<u64, Gathering>,
    /// Snapshots that connections wait for.
    snapshots_awaited: usize,
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
            descriptor: 0,
            watching: Vec::new(),
            held_bytes: 0,
            traffic: Traffic::default(),
            timing: Timing::new(shared.config.slow_command_us),
            late_reports: Vec::new(),
            gatherings: FxHashMap::default(),
            snapshots_awaited: 0,
            next_errand: 0,
            shared,
        }
    }

    /// Commands that follow come from this connection.
    pub fn set_current(&mut self, token: usize, connection: &Connection) {
        self.current = (token, connection.serial);
        self.descriptor = connection.stream.descriptor();
        self.shard.set_asker(self.descriptor);
    }

    /// Tells those who watch what has happened here.
    pub fn tell_watchers(&mut self) {
        let Self { shard, shared, peers, now, .. } = self;
        if let Some(events) = shard.events(*now) {
            shared.watchers.tell(events, *now, |worker| {
                if let Some(peer) = &peers[worker] {
                    peer.ring();
                }
            });
        }
    }

    /// Tells those who watch that a connection came (`reason` is empty) or went.
    pub fn note_connection(&mut self, stream: &Stream, reason: &str) {
        self.shard.note(Kinds::CONNECTIONS, |line| {
            let (address, port, transport) = stream.peer_parts();
            let (kind, reason) = match reason {
                "" => ("conn_new", String::new()),
                reason => ("conn_close", format!(" reason={reason}")),
            };
            let text = format!(
                "type={kind} rip={address} rport={port} transport={transport}{reason} cfd={}\n",
                stream.descriptor()
            );
            line.extend_from_slice(text.as_bytes());
        });
    }

    /// Counts an attempt to log in.
    pub fn count_login(&mut self, accepted: bool) {
        self.traffic.logins += 1;
        self.traffic.logins_failed += u64::from(!accepted);
    }

    /// Whether there is something to tell a connection that watches.
    pub fn has_events_for(&self, token: usize) -> bool {
        self.watching.iter().any(|(at, _, watcher)| *at == token && watcher.has_lines())
    }

    /// A connection is gone: it watches no more.
    pub fn forget_watcher(&mut self, token: usize) {
        if let Some(at) = self.watching.iter().position(|watching| watching.0 == token) {
            let (_, _, watcher) = self.watching.swap_remove(at);
            self.shared.watchers.remove(&watcher);
        }
    }

    fn watch(&mut self, arguments: &[u8], output: &mut Output) -> Next {
        let refused = if !self.shared.config.watch {
            reply::WATCH_NOT_ALLOWED
        } else if !output.is_empty() {
            reply::WATCH_PIPELINED
        } else if let Some(wanted) = watch::understand(arguments) {
            match self.shared.watchers.add(wanted, self.id) {
                Some(watcher) => {
                    let (token, serial) = self.current;
                    self.watching.push((token, serial, watcher));
                    output.here().push(reply::OK);
                    return Next::Watch;
                }
                None => reply::TOO_MANY_WATCHERS,
            }
        } else {
            reply::ERROR
        };
        output.here().push(refused);
        Next::Command
    }

    /// `lru_crawler metadump` and `mgdump`: what to do, or what to answer.
    fn start_dump(&self, form: Form, class: &[u8], output: &Output) -> Result<Dump, &'static [u8]> {
        let (not_allowed, pipelined) = match form {
            Form::Meta => (reply::METADUMP_NOT_ALLOWED, reply::METADUMP_PIPELINED),
            Form::Get => (reply::KEY_DUMP_NOT_ALLOWED, reply::KEY_DUMP_PIPELINED),
        };
        if self.shared.knobs.crawler_disabled() {
            return Err(reply::CRAWLER_DISABLED);
        }
        if !self.shared.config.dump {
            return Err(not_allowed);
        }
        if !output.is_empty() {
            return Err(pipelined);
        }
        let holds_items = match class {
            b"all" | b"hash" => true,
            list => compat::classes(list).ok_or(reply::BAD_CLASS)?.contains(&compat::CLASS),
        };
        Ok(Dump::new(form, if holds_items { self.peers.len() } else { 0 }))
    }

    /// `lru_crawler` with a dump, or none of them.
    fn crawler(&mut self, arguments: &[u8], noreply: bool, output: &mut Output) -> Next {
        let mut given = words(arguments);
        let form = match given.next() {
            Some(b"metadump") => Some(Form::Meta),
            Some(b"mgdump") => Some(Form::Get),
            _ => None,
        };
        let dump = match (form, given.next(), given.next()) {
            (None, ..) => Err(self.shared.knobs.lru_crawler(arguments)),
            (Some(form), Some(class), None) => self.start_dump(form, class, output),
            (Some(_), ..) => Err(reply::ERROR),
        };
        match dump {
            Ok(dump) => {
                output.here().push(reply::OK);
                dump.push_end_if_over(output.here());
                Next::Dump(dump)
            }
            Err(line) => {
                push_unless(noreply, line, output);
                Next::Command
            }
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
        (shard, traffic, timing): (&mut Shard, &mut Traffic, &mut Timing),
        errand: Errand,
        now: Ticks,
        connections: impl FnOnce(Wanted) -> Vec<ConnectionReport>,
    ) -> ErrandDone {
        let mut done = ErrandDone::default();
        match errand {
            Errand::Flush(_) if shard.is_refusing() => done.refused = true,
            Errand::Flush(at) => {
                match at {
                    None => shard.flush(),
                    Some(at) => shard.flush_later(at),
                }
                // While the log has failed and is done without, nothing was recorded.
                let journal = shard.journal().filter(|journal| !journal.is_paused());
                done.record = journal.map_or(0, |journal| journal.sequence());
            }
            Errand::ResetCounters => {
                shard.reset_counters();
                *traffic = Traffic::default();
                timing.reset();
            }
            Errand::Detail(on) => shard.set_detail(on),
            // Written where the replies are: by the mail, or by the router.
            Errand::Dump(_) => {}
            Errand::MemoryLimit(bytes) => shard.set_memory_bytes_max(bytes),
            Errand::Report(wanted) => {
                let mut report = Box::new(Report::of_shard(shard, wanted, now));
                report.of_worker(traffic, timing, wanted);
                report.connections = connections(wanted);
                done.report = Some(report);
            }
        }
        done
    }

    /// Has every worker do an errand and answers when all have.
    fn send_errand(&mut self, errand: Errand, asked: Asked, output: &mut Output) {
        let errand_id = self.expect_answers(self.peers.len(), asked, output);
        for peer in self.peers.iter_mut().flatten() {
            peer.outbox().push_errand(errand, ReplyTo { serial: errand_id, ..ReplyTo::default() });
        }
        match errand {
            // The connection being served is out of reach just now.
            Errand::Report(wanted) if wanted.connections => {
                self.late_reports.push((errand_id, wanted));
            }
            _ => {
                let Self { shard, traffic, timing, now, .. } = self;
                let worker = (shard, traffic, timing);
                let done = Self::run_errand(worker, errand, *now, |_| Vec::new());
                if let Some(answer) = self.errand_done(errand_id, self.id, done) {
                    answer.fill(output);
                }
            }
        }
    }

    /// Keeps a place for the answer to an errand, and a number to know it by.
    fn expect_answers(&mut self, waiting: usize, asked: Asked, output: &mut Output) -> u64 {
        self.next_errand += 1;
        let (token, serial) = self.current;
        let descriptor = self.descriptor;
        let reply_to = ReplyTo { token, descriptor, serial, hole: output.open_hole() };
        let (reports, gates, refused) = (Vec::new(), Vec::new(), false);
        let gathering = Gathering { reply_to, asked, waiting, reports, gates, refused };
        self.gatherings.insert(self.next_errand, gathering);
        self.next_errand
    }

    /// A worker has done an errand. Returns the answer when it was the last one.
    pub fn errand_done(
        &mut self,
        errand_id: u64,
        worker: usize,
        done: ErrandDone,
    ) -> Option<Answer> {
        let gathering = self.gatherings.get_mut(&errand_id)?;
        gathering.waiting -= 1;
        gathering.reports.extend(done.report);
        gathering.refused |= done.refused;
        if done.record > 0 {
            gathering.gates.push(Gate { shard: worker, sequence: done.record });
        }
        if gathering.waiting > 0 {
            return None;
        }
        let gathering = self.gatherings.remove(&errand_id)?;
        let text = match gathering.asked {
            Asked::Done(b"") => Vec::new(),
            Asked::Done(_) if gathering.refused => reply::LOG_UNAVAILABLE.to_vec(),
            Asked::Done(line) => line.to_vec(),
            Asked::Stats(topic) => text::compose(topic, &gathering.reports, &self.shared),
        };
        Some(Answer { reply_to: gathering.reply_to, text, gates: gathering.gates })
    }

    /// The keeper has taken a snapshot that a connection here asked for, or says why not.
    pub fn snapshot_done(&mut self, errand_id: u64, error: Option<String>) -> Option<Answer> {
        self.snapshots_awaited -= 1;
        let gathering = self.gatherings.remove(&errand_id)?;
        let text = match (error, gathering.asked) {
            (_, Asked::Done(b"")) => String::new(),
            (None, _) => "OK\r\n".to_owned(),
            (Some(why), _) => format!("SERVER_ERROR no snapshot: {why}\r\n"),
        };
        Some(Answer { reply_to: gathering.reply_to, text: text.into(), gates: Vec::new() })
    }

    /// Whether replies behind these gates may leave.
    pub fn safety(&self, gates: &[Gate]) -> Safety {
        let Some(durability) = &self.shared.durability else { return Safety::Safe };
        let mut all = Safety::Safe;
        for gate in gates {
            match durability.progress[gate.shard].safety(gate.sequence) {
                Safety::Lost => return Safety::Lost,
                Safety::Pending => all = Safety::Pending,
                Safety::Safe => {}
            }
        }
        all
    }

    fn snapshot(&mut self, noreply: bool, output: &mut Output) {
        let Some(durability) = self.shared.durability.clone() else {
            return push_unless(noreply, reply::NO_DATA_DIRECTORY, output);
        };
        if self.snapshots_awaited == SNAPSHOTS_AWAITED_MAX {
            return push_unless(noreply, reply::SNAPSHOTS_AWAITED, output);
        }
        self.snapshots_awaited += 1;
        let asked = Asked::Done(if noreply { b"" } else { reply::OK });
        let errand_id = self.expect_answers(1, asked, output);
        durability.tell(Note::Wanted(Asker::Worker { worker: self.id, errand_id }));
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
        let errand = match text::understand(arguments, &self.shared) {
            text::Question::Answer(line) => return output.here().push(line),
            text::Question::Text(text) => return output.here().push(&text),
            text::Question::Ask(topic, wanted) => {
                return self.send_errand(Errand::Report(wanted), Asked::Stats(topic), output);
            }
            text::Question::Reset => {
                self.shared.reset_counters();
                (Errand::ResetCounters, reply::RESET)
            }
            text::Question::Detail(on) => {
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
            let sequence = self.shard.execute(operation, self.now, output.here());
            return output.wait_for(Gate { shard: owner, sequence });
        }
        let ((token, serial), descriptor) = (self.current, self.descriptor);
        if let Some(peer) = &mut self.peers[owner] {
            let reply_to = ReplyTo { token, descriptor, serial, hole: output.open_hole() };
            peer.outbox().push(operation, reply_to);
        }
    }

    fn executed(&mut self, timed: Timed<'_>, output: &Output) {
        self.timing.begin(timed, self.hasher.hash(timed.key), output.holes());
    }

    fn next_timed(&mut self, budget: usize) -> usize {
        self.timing.next_timed(budget)
    }

    fn warm(&self, lookups: &Lookups) {
        let shard_count = self.peers.len();
        if shard_count == 1 {
            return self.shard.store().warm(lookups);
        }
        let ours = lookups.hashes().iter().copied();
        let ours = ours.filter(|hash| shard_of(*hash, shard_count) == self.id);
        self.shard.store().warm(&ours.collect());
    }

    fn command(&mut self, request: &Request<'_>, noreply: bool, output: &mut Output) -> bool {
        match request {
            Request::MetaNoop => output.here().push(reply::META_NOOP),
            Request::Version => output.here().push(text::VERSION_LINE.as_bytes()),
            Request::Verbosity { level } => {
                let level = (*level).min(VERBOSITY_MAX) as usize;
                self.shared.verbosity.store(level, Ordering::Relaxed);
                log::set_max_level(config::log_level(level));
                push_unless(noreply, reply::OK, output);
            }
            Request::FlushAll { delay } => self.flush_all(*delay, noreply, output),
            Request::MemoryLimit { arguments } => self.memory_limit(arguments, noreply, output),
            Request::Snapshot => self.snapshot(noreply, output),
            Request::Shutdown { arguments } => return self.shutdown(arguments, noreply, output),
            Request::Stats { arguments } => self.stats(arguments, output),
            Request::Quit => return false,
            // The session executes everything that is about a key.
            _ => output.here().push(reply::ERROR),
        }
        true
    }

    fn admin(
        &mut self,
        verb: AdminVerb,
        arguments: &[u8],
        noreply: bool,
        output: &mut Output,
    ) -> Next {
        let knobs = &self.shared.knobs;
        match verb {
            AdminVerb::Watch => return self.watch(arguments, output),
            AdminVerb::LruCrawler => return self.crawler(arguments, noreply, output),
            AdminVerb::Lru => push_unless(noreply, knobs.lru(arguments), output),
            AdminVerb::Slabs => push_unless(noreply, knobs.slabs(arguments), output),
            AdminVerb::Config => push_unless(noreply, &knobs.config(arguments), output),
            AdminVerb::RefreshCertificates => match self.shared.refresh_certificates() {
                Some(Ok(())) => push_unless(noreply, reply::OK, output),
                Some(Err(why)) => {
                    log::warn!("refresh_certs: {why}; certificates stay as they were");
                    push_unless(noreply, format!("{why}\r\n").as_bytes(), output);
                }
                None => push_unless(noreply, reply::NO_TLS, output),
            },
        }
        Next::Command
    }

    fn login(&mut self, user: &[u8], password: &[u8]) -> Verdict {
        let Some(door) = &self.shared.door else { return Verdict::Refused };
        let verdict = door.ask(user, password, self.id, self.current);
        match verdict {
            Verdict::Accepted => self.count_login(true),
            Verdict::Refused | Verdict::Busy => self.count_login(false),
            Verdict::Pending => {}
        }
        verdict
    }

    fn dump(&mut self, dump: &mut Dump, output: &mut Output) {
        if dump.shard == self.id {
            let next_part = dump.slice.write(&self.shard, self.now, output.here());
            return dump.went_on(next_part, output.here());
        }
        let ((token, serial), descriptor) = (self.current, self.descriptor);
        if let Some(peer) = &mut self.peers[dump.shard] {
            let reply_to = ReplyTo { token, descriptor, serial, hole: output.open_hole() };
            peer.outbox().push_errand(Errand::Dump(dump.slice), reply_to);
        }
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
