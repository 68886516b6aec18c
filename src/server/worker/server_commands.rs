//! Commands that are not about a key. What is for all shards goes through them one after the
//! other, each for a moment; what workers count is asked of them (`broadcast`).
//!
//! Owns no state: a part of the router, in a file of its own.

use super::broadcast::Asked;
use super::inbox::{Question, SNAPSHOTS_AWAITED_MAX};
use super::router::WorkerRouter;
use crate::protocol::parse::words;
use crate::protocol::{AdminVerb, Exptime, Request, number, reply};
use crate::server::config;
use crate::server::connection::output::{Gate, Output};
use crate::server::connection::session::Next;
use crate::server::connection::socket::ConnectionId;
use crate::server::operator::compat;
use crate::server::operator::dump::{Dump, Form};
use crate::server::operator::watch;
use crate::server::persistence::status::{Asker, Note};
use crate::server::stats::report::{Report, Wanted};
use crate::server::stats::text::{self, Topic};
use crate::store::Ticks;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Highest level `verbosity` sets.
const VERBOSITY_MAX: u32 = 2;

/// `cache_memlimit` in megabytes: smallest, and above which bytes must have been meant.
const MEMORY_LIMIT_MEGABYTES_MIN: u32 = 8;
const MEMORY_LIMIT_MEGABYTES_MAX: u32 = 1_000_000_000;

/// Statistics that list things are refused while connections hold more than this and one part in
/// [`HELD_SHARE_LISTS`] of the memory limit: clients that ask for lists and do not read them would
/// fill the memory.
const HELD_BYTES_LISTS: u64 = 16 << 20;
const HELD_SHARE_LISTS: u64 = 8;

impl WorkerRouter {
    pub(super) fn server_command(
        &mut self,
        request: &Request<'_>,
        noreply: bool,
        output: &mut Output,
    ) -> Next {
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
            Request::MemoryLimit { arguments } => {
                let line = self.memory_limit(arguments);
                push_unless(noreply, line, output);
            }
            Request::Snapshot => return self.snapshot(noreply, output),
            Request::Shutdown { arguments } => return self.shutdown(arguments, noreply, output),
            Request::Stats { arguments } => return self.stats(arguments, output),
            Request::Admin { verb, arguments } => {
                return self.admin(*verb, arguments, noreply, output);
            }
            Request::Quit => return Next::Close,
            // The session executes everything that is about a key.
            _ => output.here().push(reply::ERROR),
        }
        Next::Command
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
        let mut refused = false;
        for at_shard in 0..self.shards.count() {
            let mut shard = self.shards.hold(at_shard);
            if shard.is_refusing() {
                refused = true;
                continue;
            }
            match at {
                None => shard.flush(),
                Some(at) => shard.flush_later(at),
            }
            // While the log has failed and is done without, nothing was recorded.
            let journal = shard.journal().filter(|journal| !journal.is_paused());
            let sequence = journal.map_or(0, |journal| journal.sequence());
            output.wait_for(Gate { shard: at_shard, sequence });
        }
        push_unless(noreply, if refused { reply::LOG_UNAVAILABLE } else { reply::OK }, output);
    }

    fn memory_limit(&mut self, arguments: &[u8]) -> &'static [u8] {
        match words(arguments).next().and_then(number::strict_u32) {
            None => reply::ERROR,
            Some(megabytes) if megabytes < MEMORY_LIMIT_MEGABYTES_MIN => {
                reply::MEMORY_LIMIT_TOO_SMALL
            }
            Some(megabytes) if megabytes > MEMORY_LIMIT_MEGABYTES_MAX => {
                reply::MEMORY_LIMIT_IS_MEGABYTES
            }
            Some(megabytes) => {
                let bytes = u64::from(megabytes) << 20;
                self.shared.budget.set_limit_bytes(bytes);
                log::info!("memory limit set to {megabytes} MB");
                reply::OK
            }
        }
    }

    fn snapshot(&mut self, noreply: bool, output: &mut Output) -> Next {
        let Some(durability) = self.shared.durability.clone() else {
            push_unless(noreply, reply::NO_DATA_DIRECTORY, output);
            return Next::Command;
        };
        if self.snapshots_awaited == SNAPSHOTS_AWAITED_MAX {
            push_unless(noreply, reply::SNAPSHOTS_AWAITED, output);
            return Next::Command;
        }
        if noreply {
            durability.tell(Note::Wanted(Asker::Nobody));
            return Next::Command;
        }
        self.snapshots_awaited += 1;
        let (worker, connection) = (self.id, self.current);
        durability.tell(Note::Wanted(Asker::Worker { worker, connection }));
        Next::Await
    }

    /// A snapshot that a connection here asked for was taken, or not.
    pub fn snapshot_done(&mut self, error: Option<String>) -> Vec<u8> {
        self.snapshots_awaited -= 1;
        match error {
            None => reply::OK.to_vec(),
            Some(why) => format!("SERVER_ERROR no snapshot: {why}\r\n").into_bytes(),
        }
    }

    fn shutdown(&mut self, arguments: &[u8], noreply: bool, output: &mut Output) -> Next {
        if !self.shared.config.shutdown {
            push_unless(noreply, reply::SHUTDOWN_NOT_ENABLED, output);
            return Next::Command;
        }
        let mut arguments = words(arguments);
        let gracefully = match (arguments.next(), arguments.next()) {
            (None, _) => false,
            (Some(b"graceful"), None) => true,
            _ => {
                output.here().push(reply::SHUTDOWN_MODE);
                return Next::Command;
            }
        };
        log::warn!("shutdown: a client asked the server to stop");
        self.shared.ask_to_stop(gracefully);
        Next::Close
    }

    fn stats(&mut self, arguments: &[u8], output: &mut Output) -> Next {
        match text::understand(arguments, &self.shared) {
            text::Question::Answer(line) => output.here().push(line),
            text::Question::Text(text) => output.here().push(&text),
            text::Question::Ask(_, wanted) if wanted.lists() && self.holds_much() => {
                output.here().push(reply::OUT_OF_MEMORY_STATS);
            }
            text::Question::Ask(topic, wanted) if topic.asks_workers() => {
                let (question, asked) = (Question::Report(wanted), Asked::Stats(topic));
                self.broadcasts.ask(self.current, question, asked);
                return Next::Await;
            }
            text::Question::Ask(topic, wanted) => {
                let text = self.compose(topic, wanted, Vec::new());
                output.here().push(&text);
            }
            text::Question::Reset => {
                self.shared.reset_counters();
                self.shards.each().for_each(|mut shard| shard.reset_counters());
                self.broadcasts.ask(self.current, Question::Reset, Asked::Reset);
                return Next::Await;
            }
            text::Question::Detail(on) => {
                self.shared.detail.store(on, Ordering::Relaxed);
                self.shards.each().for_each(|mut shard| shard.set_detail(on));
                output.here().push(reply::OK);
            }
        }
        Next::Command
    }

    /// Connections hold so much that lists have to wait.
    fn holds_much(&self) -> bool {
        let budget = &self.shared.budget;
        budget.held_bytes() > HELD_BYTES_LISTS + budget.limit_bytes() / HELD_SHARE_LISTS
    }

    /// A part of the statistics, from what workers have told and what the shards know.
    fn compose(&self, topic: Topic, wanted: Wanted, mut reports: Vec<Box<Report>>) -> Vec<u8> {
        let shards = self.shards.each().map(|shard| Report::of_shard(&shard, wanted, self.now));
        reports.extend(shards.map(Box::new));
        text::compose(topic, &reports, &self.shared)
    }

    /// What this worker counts, its connections apart.
    pub fn report(&mut self, question: Question) -> Report {
        match question {
            Question::Report(wanted) => Report::of_worker(&self.traffic, &self.timing, wanted),
            Question::Reset => {
                self.traffic = Default::default();
                self.timing.reset();
                Report::default()
            }
        }
    }

    /// A worker has done what was asked of all. Returns the answer, and whose it is, when it was
    /// the last one.
    pub fn broadcast_done(&mut self, report: Box<Report>) -> Option<(ConnectionId, Vec<u8>)> {
        let (connection, asked, reports) = self.broadcasts.done(report)?;
        let text = match asked {
            Asked::Reset => reply::RESET.to_vec(),
            Asked::Stats(topic) => self.compose(topic, Wanted::default(), reports),
        };
        Some((connection, text))
    }

    fn admin(
        &mut self,
        verb: AdminVerb,
        arguments: &[u8],
        noreply: bool,
        output: &mut Output,
    ) -> Next {
        let compat_settings = &self.shared.compat_settings;
        match verb {
            AdminVerb::Watch => return self.watch(arguments, output),
            AdminVerb::LruCrawler => return self.crawler(arguments, noreply, output),
            AdminVerb::Lru => push_unless(noreply, compat_settings.lru(arguments), output),
            AdminVerb::Slabs => push_unless(noreply, compat_settings.slabs(arguments), output),
            AdminVerb::Config => push_unless(noreply, &compat_settings.config(arguments), output),
            AdminVerb::Extstore => {
                push_unless(noreply, compat_settings.extstore(arguments), output);
            }
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

    fn watch(&mut self, arguments: &[u8], output: &mut Output) -> Next {
        let refused = if !self.shared.config.watch {
            reply::WATCH_NOT_ALLOWED
        } else if !output.is_empty() {
            reply::WATCH_PIPELINED
        } else if let Some(wanted) = watch::understand(arguments) {
            match self.shared.watchers.add(wanted, self.id) {
                Some(watcher) => {
                    self.watching.push((self.current, Arc::clone(&watcher)));
                    self.watch_shards();
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
        if self.shared.compat_settings.crawler_disabled() {
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
        Ok(Dump::new(form, if holds_items { self.shards.count() } else { 0 }))
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
            (None, ..) => Err(self.shared.compat_settings.lru_crawler(arguments)),
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
}

fn push_unless(noreply: bool, line: &[u8], output: &mut Output) {
    if !noreply {
        output.here().push(line);
    }
}
