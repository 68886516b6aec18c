//! A worker: one thread with a share of the connections and one shard of the keys.
//!
//! Its loop is the picture of the server:
//!
//! ```text
//! poll -> receive  bytes to operations; ours to the shard, others to the outbox of their worker
//!      -> execute  mail of other workers, in order of arrival
//!      -> commit   the turn's changes to the log, if there is one
//!      -> post     one mail to each other worker with the turn's operations, and replies back
//!      -> reply    one write for each connection whose replies are complete
//! ```
//!
//! With one worker no mail is ever sent. Every step is bounded: a connection gets a number of
//! commands a turn, mails are few, outputs have a limit. Connections that have more to do than a
//! turn allows wait in line, and each turn takes a few of them: whoever asks for little waits for
//! those few and not for all.

use crate::durable::log::Safety;
use crate::limits::{
    CONTINUING_PER_TURN, LOOKUPS_ANNOUNCED_MAX, READ_BYTES, RECEIVED_TOGETHER_BYTES,
    SENT_BYTES_PER_TURN, VALUE_BYTES_BY_REFERENCE_MIN,
};
use crate::server::connection::output::{Flushed, Gate};
use crate::server::connection::session::{Progress, Router};
use crate::server::connection::socket::{Arrival, Connection};
use crate::server::persistence::keep::Keep;
use crate::server::persistence::keeper::Order;
use crate::server::shared::Shared;
use crate::server::stats::report::{Report, Wanted};
use crate::server::worker::mail::{Bell, Delivery, ErrandDone, Mail, Message};
use crate::server::worker::router::{Answer, Core};
use crate::store::Ticks;
use crossbeam::channel::Receiver;
use mio::{Events, Poll, Token};
use slab::Slab;
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The waker's place among the connections' tokens.
pub const WAKER: Token = Token(usize::MAX);

/// Longest wait for sockets: expired items are looked for at least this often.
const TICK: Duration = Duration::from_millis(100);

/// Ticks in which the sweep goes once through all segments.
const SWEEP_ROUND_TICKS: usize = 40;

/// A graceful stop waits this long for clients to take their replies.
const GRACE: Duration = Duration::from_secs(2);

/// Output buffers kept for reuse, and the largest one worth keeping.
const BUFFERS_MAX: usize = EVENTS_MAX;
const BUFFER_BYTES_MAX: usize = 64 << 10;
const BUFFER_BYTES_NEW: usize = 1 << 10;

/// Sockets looked at in one turn: more of them would only push each other's bytes out of the
/// processor's caches between reading and replying.
const EVENTS_MAX: usize = 128;

/// A connection whose turn it is, and where the bytes are that were read from it.
struct Received {
    token: usize,
    bytes: Range<usize>,
}

/// See the module's text.
pub struct Worker {
    poll: Poll,
    bell: Arc<Bell>,
    inbox: Receiver<Message>,
    arrivals: Receiver<Arrival>,
    connections: Slab<Connection>,
    next_serial: u64,
    /// Connections to serve in the next turn.
    ready: Vec<usize>,
    /// Connections that had their turn and want another: a few are served in each.
    continuing: VecDeque<usize>,
    /// Connections with replies to send.
    dirty: Vec<usize>,
    /// Connections with more to send than a turn has room for; they are marked dirty too.
    sending: VecDeque<usize>,
    /// Connections whose replies wait for a log.
    gated: Vec<usize>,
    /// How far logs were synced when those connections were looked at.
    sync_mark: u64,
    /// The log of the shard, if data is kept.
    keep: Option<Keep>,
    core: Core,
    shared: Arc<Shared>,
    /// Where sockets are read to, and by whom the bytes in it were sent.
    scratch: Box<[u8]>,
    group: Vec<Received>,
    buffers: Vec<Vec<u8>>,
    next_tick: Ticks,
    turn_number: u64,
    /// The server stops gracefully: nothing more is read from sockets.
    finishing: bool,
}

/// What a worker is made of.
pub struct Parts {
    /// Where its sockets are registered.
    pub poll: Poll,
    /// What wakes it.
    pub bell: Arc<Bell>,
    /// Mail of other workers.
    pub inbox: Receiver<Message>,
    /// New connections.
    pub arrivals: Receiver<Arrival>,
    /// Shard, peers and counters.
    pub core: Core,
    /// The log of the shard, if data is kept.
    pub keep: Option<Keep>,
    /// What all threads see.
    pub shared: Arc<Shared>,
}

impl Worker {
    /// A worker about to run.
    pub fn new(parts: Parts) -> Self {
        let Parts { poll, bell, inbox, arrivals, core, keep, shared } = parts;
        Self {
            poll,
            bell,
            inbox,
            arrivals,
            connections: Slab::new(),
            next_serial: 0,
            ready: Vec::new(),
            continuing: VecDeque::new(),
            sending: VecDeque::new(),
            dirty: Vec::new(),
            gated: Vec::new(),
            sync_mark: 0,
            keep,
            core,
            shared,
            scratch: vec![0; RECEIVED_TOGETHER_BYTES + READ_BYTES].into_boxed_slice(),
            group: Vec::new(),
            buffers: Vec::new(),
            next_tick: Ticks::default(),
            turn_number: 0,
            finishing: false,
        }
    }

    /// Takes turns until the server stops.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        while !self.shared.stopping() {
            if let Err(error) = self.wait(&mut events) {
                // Without one worker the others would wait for its replies: better start anew.
                log::error!("a worker cannot wait for its sockets: {error}; the server stops");
                self.shared.ask_to_stop(false);
                break;
            }
            self.turn(&events);
        }
        if self.shared.stopping_gracefully() {
            self.finish(&mut events);
        }
        let open = self.connections.len();
        self.shared.connections.fetch_sub(open, Ordering::Relaxed);
    }

    /// Answers what was received, for as long as the grace lasts or until no worker has anything
    /// left: one that is done goes on answering the mail of the others.
    fn finish(&mut self, events: &mut Events) {
        let until = self.core.now.plus_seconds(GRACE.as_secs());
        self.finishing = true;
        let mut was_idle = false;
        loop {
            if self.wait(events).is_err() {
                return;
            }
            self.turn(events);
            let unsent = self
                .connections
                .iter()
                .any(|(_, connection)| connection.queued || !connection.all_has_left());
            let idle = !unsent && !self.core.is_busy() && self.inbox.is_empty();
            let all_idle = self.shared.note_idle(was_idle, idle);
            was_idle = idle;
            if all_idle || self.core.now >= until {
                return;
            }
        }
    }

    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let keeps_on = self.keep.as_ref().is_some_and(|keep| keep.has_more(&mut self.core.shard));
        let can_serve = self.has_ready() && self.core.has_room();
        let can_send = !self.dirty.is_empty() || !self.sending.is_empty();
        let busy = keeps_on || can_serve || can_send;
        let overdue = self.next_tick <= self.core.now;
        let timeout = if busy || overdue || !self.may_park() { Duration::ZERO } else { TICK };
        let polled = self.poll.poll(events, Some(timeout));
        self.bell.parking.unpark();
        match polled {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    fn has_ready(&self) -> bool {
        !self.ready.is_empty() || !self.continuing.is_empty()
    }

    /// Parks, unless a message has arrived or a log was synced meanwhile: see
    /// [`crate::server::worker::mail::Parking`].
    fn may_park(&mut self) -> bool {
        self.bell.parking.park();
        let nothing_came = self.inbox.is_empty() && self.arrivals.is_empty();
        let Some(keep) = &self.keep else { return nothing_came };
        let synced = !self.gated.is_empty() && keep.sync_mark() != self.sync_mark;
        nothing_came && !synced && !keep.has_more(&mut self.core.shard)
    }

    fn turn(&mut self, events: &Events) {
        self.turn_number += 1;
        (self.core.now, self.core.timing.now) = self.shared.clock.read();
        let idle = events.is_empty() && !self.has_ready();
        // What waited for a sync to end goes first, so that the device need not wait for us.
        self.commit(idle);
        self.core.shard.watch(self.shared.watchers.wanted());
        for event in events {
            self.note_event(event);
        }
        while let Ok(arrival) = self.arrivals.try_recv() {
            self.welcome(arrival);
        }
        let mail = self.read_mail();
        self.serve_ready();
        self.report_late();
        self.commit(idle);
        self.core.post(mail);
        self.look_at_gates();
        self.core.tell_watchers();
        self.serve_watchers();
        self.send_replies();
        if let Some(keep) = &mut self.keep {
            keep.walk(&mut self.core.shard);
        }
        if self.core.now >= self.next_tick {
            self.tick();
        }
    }

    /// Writes the log, if data is kept. `idle`: no connection has anything to do in this turn.
    fn commit(&mut self, idle: bool) {
        if let Some(keep) = &mut self.keep {
            let Core { shard, now, timing, .. } = &mut self.core;
            keep.commit(shard, *now, timing.now, idle);
        }
    }

    fn note_event(&mut self, event: &mio::event::Event) {
        let token = event.token().0;
        let Some(connection) = self.connections.get_mut(token) else { return };
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            connection.readable = true;
            connection.read_closed |= event.is_read_closed();
            if !connection.queued {
                connection.queued = true;
                if connection.session.has_input() {
                    // More of what it is in the middle of.
                    self.continuing.push_back(token);
                } else {
                    self.ready.push(token);
                }
            }
        }
        if event.is_writable() && !connection.all_has_left() {
            Self::mark_dirty(&mut self.dirty, connection, token);
        }
    }

    /// It wants another turn.
    fn enqueue_again(&mut self, token: usize) {
        let connection = &mut self.connections[token];
        if !connection.queued {
            connection.queued = true;
            self.continuing.push_back(token);
        }
    }

    fn mark_dirty(dirty: &mut Vec<usize>, connection: &mut Connection, token: usize) {
        if !connection.dirty {
            connection.dirty = true;
            dirty.push(token);
        }
    }

    fn welcome(&mut self, mut arrival: Arrival) {
        let entry = self.connections.vacant_entry();
        let token = Token(entry.key());
        if let Err(error) = arrival.stream.register(self.poll.registry(), token) {
            log::warn!("cannot watch a new connection: {error}; it is closed");
            self.shared.connections.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        self.next_serial += 1;
        self.core.note_connection(&arrival.stream, "");
        let now_seconds = self.core.now.seconds();
        let connection = entry.insert(Connection::new(arrival, self.next_serial, now_seconds));
        if self.shared.door.is_some() {
            connection.session.require_login();
        }
    }

    /// Executes the mail of other workers and hands out the replies to ours. Returns the executed
    /// mails, to go back once their effects may be seen.
    fn read_mail(&mut self) -> Vec<Box<Mail>> {
        let mut executed = Vec::new();
        // Not more than was there at the start: more may come as fast as it is read.
        for _ in 0..self.inbox.len() {
            match self.inbox.try_recv() {
                Ok(Message::Requests(mut mail)) => {
                    self.execute_mail(&mut mail);
                    executed.push(mail);
                }
                Ok(Message::Replies(mut mail)) => {
                    self.deliver(&mut mail);
                    self.core.take_back(mail);
                }
                Ok(Message::Order(order)) => self.obey(order),
                Ok(Message::Report(ask)) => ask.answer(self.core.id, self.report(ask.wanted)),
                Ok(Message::Login { connection, accepted }) => {
                    self.login_done(connection, accepted);
                }
                Err(_) => break,
            }
        }
        executed
    }

    fn login_done(&mut self, (token, serial): (usize, u64), accepted: bool) {
        let connection = self.connections.get_mut(token).filter(|c| c.serial == serial);
        if let Some(connection) = connection
            && connection.session.login_done(accepted)
        {
            self.core.count_login(accepted);
            Self::mark_dirty(&mut self.dirty, connection, token);
        }
    }

    fn execute_mail(&mut self, mail: &mut Mail) {
        let connections = &self.connections;
        let Core { shard, now, traffic, timing, .. } = &mut self.core;
        let now = *now;
        mail.execute(shard, now, |shard, errand| {
            Core::run_errand((shard, traffic, timing), errand, now, |wanted| {
                report_connections(connections, wanted, now)
            })
        });
    }

    fn deliver(&mut self, mail: &mut Mail) {
        let Self { connections, core, dirty, .. } = self;
        let worker = mail.to;
        mail.deliver(|reply_to, delivery| match delivery {
            Delivery::Reply(replies, from, to, sequence) => {
                let connection = connections.get_mut(reply_to.token);
                if let Some(connection) = connection.filter(|c| c.serial == reply_to.serial) {
                    let output = &mut connection.session.output;
                    output.wait_for(Gate { shard: worker, sequence });
                    output.fill_hole(reply_to.hole, replies, from, to);
                    Self::mark_dirty(dirty, connection, reply_to.token);
                }
            }
            Delivery::Slice(replies, from, to, next_part) => {
                let connection = connections.get_mut(reply_to.token);
                if let Some(connection) = connection.filter(|c| c.serial == reply_to.serial) {
                    let session = &mut connection.session;
                    session.output.fill_hole(reply_to.hole, replies, from, to);
                    session.dump_went_on(next_part);
                    Self::mark_dirty(dirty, connection, reply_to.token);
                }
            }
            Delivery::Errand(done) => {
                if let Some(answer) = core.errand_done(reply_to.serial, worker, done) {
                    Self::answer(connections, dirty, answer);
                }
            }
        });
    }

    /// Puts the answer to an errand into its connection's output, if that is still there.
    fn answer(connections: &mut Slab<Connection>, dirty: &mut Vec<usize>, answer: Answer) {
        let reply_to = answer.reply_to;
        let connection = connections.get_mut(reply_to.token);
        if let Some(connection) = connection.filter(|c| c.serial == reply_to.serial) {
            answer.fill(&mut connection.session.output);
            Self::mark_dirty(dirty, connection, reply_to.token);
        }
    }

    fn obey(&mut self, order: Order) {
        if let Order::Done { errand_id, error } = order {
            if let Some(answer) = self.core.snapshot_done(errand_id, error) {
                Self::answer(&mut self.connections, &mut self.dirty, answer);
            }
        } else if let Some(keep) = &mut self.keep {
            keep.obey(order, &mut self.core.shard, self.core.now);
        }
    }

    /// Who has just sent something goes first; of those who have had turns and want more, a few:
    /// many of them do not make a turn long for the others.
    fn serve_ready(&mut self) {
        let again = if self.core.has_room() { CONTINUING_PER_TURN } else { 0 };
        let mut ready = std::mem::take(&mut self.ready);
        ready.extend(self.continuing.drain(..again.min(self.continuing.len())));
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut group = std::mem::take(&mut self.group);
        let mut tokens = ready.drain(..);
        loop {
            self.receive(&mut tokens, &mut scratch, &mut group);
            if group.is_empty() {
                break;
            }
            self.announce(&group, &scratch);
            for Received { token, bytes } in group.drain(..) {
                self.serve(token, &scratch[bytes]);
            }
        }
        drop(tokens);
        (self.scratch, self.group) = (scratch, group);
        if self.ready.is_empty() {
            // Keeps the memory of the list.
            self.ready = ready;
        }
    }

    /// Reads from the next few connections whose turn it is.
    fn receive(
        &mut self,
        tokens: &mut impl Iterator<Item = usize>,
        scratch: &mut [u8],
        group: &mut Vec<Received>,
    ) {
        let mut end = 0;
        while group.len() < LOOKUPS_ANNOUNCED_MAX
            && end <= RECEIVED_TOGETHER_BYTES
            && let Some(token) = tokens.next()
        {
            if !self.core.has_room() {
                // The other workers are behind: sockets wait until mail comes back.
                self.ready.push(token);
                continue;
            }
            let Some(connection) = self.connections.get_mut(token) else { continue };
            // A connection that was closed while it was queued has left its token behind, and
            // another one has that now: a group never has a connection twice.
            if !std::mem::take(&mut connection.queued) || connection.gated {
                // Behind a gate, it goes on when its replies have left.
                continue;
            }
            let mut bytes = end..end;
            // What it has left from the last turn comes first.
            if !connection.session.can_go_on() && connection.readable && !self.finishing {
                match connection.receive(&mut scratch[end..][..READ_BYTES]) {
                    Ok(None) => {}
                    Ok(Some(bytes_read)) => {
                        bytes.end += bytes_read;
                        connection.read_at = None;
                        self.core.traffic.bytes_read += bytes_read as u64;
                    }
                    Err(error) => {
                        log::debug!("a connection failed: {error}");
                        self.close(token, "error");
                        continue;
                    }
                }
            }
            end = bytes.end;
            group.push(Received { token, bytes });
        }
    }

    /// Has the store bring what the commands of these connections will look up into the processor's
    /// caches: one by one, each of them would wait for memory. (Pipelines the session announces by
    /// itself.)
    fn announce(&self, group: &[Received], scratch: &[u8]) {
        if group.len() < 2 {
            return;
        }
        let keys = group.iter().filter_map(|Received { token, bytes }| {
            self.connections[*token].session.peek_only_key(&scratch[bytes.clone()])
        });
        self.core.warm(&keys.map(|key| self.core.hash(key)).collect());
    }

    /// One connection's part of the turn: what it has left from the last one, or what was read.
    fn serve(&mut self, token: usize, received: &[u8]) {
        let connection = &mut self.connections[token];
        if !connection.session.output.has_buffer() {
            let buffer = self.buffers.pop();
            let buffer = buffer.unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES_NEW));
            connection.session.output.give_buffer(buffer);
        }
        self.core.set_current(token, connection);
        let mut budget = self.shared.config.requests_per_turn_max;
        let timed = self.core.timing.is_near(budget) || connection.session.is_timed();
        if timed {
            let below = self.core.timing.begin_serving(budget, connection.read_at);
            connection.session.timed_below = below;
        }
        let progress = connection.session.advance(received, &mut budget, &mut self.core);
        if timed {
            connection.session.timed_below = 0;
            self.core.timing.end_serving(budget, &mut connection.probes);
        } else {
            self.core.timing.pass(self.shared.config.requests_per_turn_max - budget);
        }
        if budget < self.shared.config.requests_per_turn_max {
            connection.last_command_seconds = self.core.now.seconds();
        }
        let more = match progress {
            Progress::NeedsInput => connection.readable && !self.finishing,
            Progress::Yielded => {
                self.core.traffic.connection_yields += u64::from(budget == 0);
                connection.read_at.get_or_insert(self.core.timing.now);
                if budget == self.shared.config.requests_per_turn_max && !self.core.has_room() {
                    // The others of its group have used up the room: it was its turn.
                    connection.queued = true;
                    self.ready.push(token);
                }
                true
            }
            Progress::OutputFull | Progress::Closing => {
                // What its client keeps waiting is no fault of ours.
                connection.read_at = None;
                false
            }
        };
        self.core.count_held(connection);
        Self::mark_dirty(&mut self.dirty, connection, token);
        if more {
            self.enqueue_again(token);
        }
    }

    /// What this worker tells about itself.
    fn report(&self, wanted: Wanted) -> Report {
        let core = &self.core;
        let mut report = Report::of_shard(&core.shard, wanted, core.now);
        report.of_worker(&core.traffic, &core.timing, wanted);
        report.connections = report_connections(&self.connections, wanted, core.now);
        report
    }

    /// Completes the reports that were put off until no connection was being served.
    fn report_late(&mut self) {
        for (errand_id, wanted) in std::mem::take(&mut self.core.late_reports) {
            let report = Box::new(self.report(wanted));
            let Self { connections, core, dirty, .. } = self;
            let done = ErrandDone { report: Some(report), ..ErrandDone::default() };
            if let Some(answer) = core.errand_done(errand_id, core.id, done) {
                Self::answer(connections, dirty, answer);
            }
        }
    }

    /// Connections that wait for a log are looked at again.
    fn look_at_gates(&mut self) {
        if let Some(keep) = &self.keep {
            self.sync_mark = keep.sync_mark();
        }
        for token in std::mem::take(&mut self.gated) {
            let connection = self.connections.get_mut(token);
            if let Some(connection) = connection.filter(|connection| connection.gated) {
                connection.gated = false;
                Self::mark_dirty(&mut self.dirty, connection, token);
            }
        }
    }

    /// One write for each connection: small replies first, then those with much to send, in line,
    /// until the turn's share is used up.
    fn send_replies(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for token in dirty.drain(..) {
            let Some(connection) = self.connections.get(token) else { continue };
            if connection.session.output.pending_bytes() >= VALUE_BYTES_BY_REFERENCE_MIN {
                self.sending.push_back(token);
            } else {
                self.send(token);
            }
        }
        // Keeps the memory of the list.
        self.dirty = dirty;
        let mut room_bytes = SENT_BYTES_PER_TURN;
        for _ in 0..self.sending.len() {
            if room_bytes == 0 {
                break;
            }
            let Some(token) = self.sending.pop_front() else { break };
            room_bytes = room_bytes.saturating_sub(self.send(token));
        }
    }

    /// Writes what may leave and what the socket takes; returns the bytes written.
    fn send(&mut self, token: usize) -> usize {
        let Some(connection) = self.connections.get_mut(token) else { return 0 };
        connection.dirty = false;
        let output = &mut connection.session.output;
        if !output.gates().is_empty() {
            match self.core.safety(output.gates()) {
                Safety::Safe => output.open_gates(),
                Safety::Pending => {
                    connection.gated = true;
                    self.gated.push(token);
                    return 0;
                }
                Safety::Lost => {
                    log::debug!("a connection is closed: its changes did not reach the log");
                    self.close(token, "error");
                    return 0;
                }
            }
        }
        match output.flush(self.turn_number, &mut connection.stream) {
            Ok((bytes, flushed)) => {
                self.note_sent(token, bytes, flushed);
                bytes
            }
            Err(error) => {
                log::debug!("a client did not take its replies: {error}");
                self.close(token, "error");
                0
            }
        }
    }

    fn note_sent(&mut self, token: usize, bytes: usize, flushed: Flushed) {
        let connection = &mut self.connections[token];
        self.core.count_held(connection);
        self.core.traffic.bytes_written += bytes as u64;
        if !connection.probes.is_empty() {
            let Connection { probes, stream, session, .. } = connection;
            let sent = session.output.sent(flushed);
            let moment = (self.core.now, self.shared.clock.moment());
            self.core.timing.end(probes, sent, moment, || stream.peer());
        }
        match flushed {
            Flushed::All => self.all_sent(token),
            Flushed::More => {
                connection.dirty = true;
                self.sending.push_back(token);
            }
            Flushed::Waiting | Flushed::Blocked => {}
        }
    }

    fn all_sent(&mut self, token: usize) {
        let connection = &mut self.connections[token];
        let buffer = connection.session.output.take_buffer();
        if buffer.capacity() <= BUFFER_BYTES_MAX && self.buffers.len() < BUFFERS_MAX {
            self.buffers.push(buffer);
        }
        // It may have stopped because its output was full.
        let more = connection.session.can_go_on()
            || (connection.session.is_watching() && self.core.has_events_for(token))
            || (connection.readable && !self.finishing);
        if more && !connection.session.is_closing() {
            self.enqueue_again(token);
        } else if connection.is_done() {
            self.close(token, "normal");
        }
    }

    /// Hands those who watch what there is to tell, if they have taken what came before.
    fn serve_watchers(&mut self) {
        for (token, serial, watcher) in &self.core.watching {
            let connection = self.connections.get_mut(*token).filter(|c| c.serial == *serial);
            if let Some(connection) = connection
                && connection.session.output.is_empty()
                && watcher.has_lines()
            {
                self.shared.watchers.take(watcher, &mut connection.session.output.here().bytes);
                Self::mark_dirty(&mut self.dirty, connection, *token);
            }
        }
    }

    fn close(&mut self, token: usize, reason: &str) {
        if self.connections.contains(token) {
            // Closing the descriptor takes it off the poll.
            let connection = self.connections.remove(token);
            self.core.note_connection(&connection.stream, reason);
            if connection.session.is_watching() {
                self.core.forget_watcher(token);
            }
            self.core.forget_held(&connection);
            self.shared.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// What has to happen now and then, whatever clients do.
    fn tick(&mut self) {
        let now = self.core.now;
        self.shared.note_alive(self.core.id);
        self.core.timing.tick(now);
        self.next_tick = Ticks(now.0 + TICK.as_millis() as u64 * Ticks::PER_SECOND / 1000);
        let segments = self.core.shard.store().segment_count_max();
        if let Some(keep) = &mut self.keep {
            keep.tick(self.core.shard.store());
        }
        if self.core.shard.maintain(now, segments.div_ceil(SWEEP_ROUND_TICKS)) {
            // There is more to do: a little in each turn.
            self.next_tick = now;
        }
        let timeout = u64::from(self.shared.config.idle_timeout_seconds);
        if timeout > 0 {
            self.close_idle(now.seconds(), timeout);
        }
    }

    fn close_idle(&mut self, now_seconds: u64, timeout: u64) {
        let is_idle = |connection: &Connection| {
            connection.session.is_idle()
                && now_seconds.saturating_sub(connection.last_command_seconds) > timeout
        };
        let idle: Vec<usize> = self
            .connections
            .iter()
            .filter(|(_, connection)| is_idle(connection))
            .map(|(token, _)| token)
            .collect();
        for token in idle {
            self.core.traffic.idle_kicks += 1;
            self.close(token, "idle_timeout");
        }
    }
}

fn report_connections(
    connections: &Slab<Connection>,
    wanted: Wanted,
    now: Ticks,
) -> Vec<crate::server::stats::report::ConnectionReport> {
    if !wanted.connections {
        return Vec::new();
    }
    connections.iter().map(|(_, connection)| connection.report(now.seconds())).collect()
}

#[cfg(test)]
mod tests;
