//! A worker: one thread with a share of the connections.
//!
//! Its loop is the picture of the server:
//!
//! ```text
//! poll -> receive  bytes to operations, each executed on its shard where it was read
//!      -> commit   the turn's changes to the log, if there is one
//!      -> reply    one write for each connection that was answered
//! ```
//!
//! Every step is bounded: a connection gets a number of commands a turn, outputs have a limit.
//! Connections that have more to do than a turn allows wait in line, and each turn takes a few of
//! them: whoever asks for little waits for those few and not for all. A connection whose shard is
//! held by another worker waits until it is called (`shards`).

use super::inbox::{Ask, AskedBy, Bell, Message, Question};
use super::queues::Queues;
use super::router::WorkerRouter;
use crate::durable::progress::Safety;
use crate::limits::{
    LOOKUPS_ANNOUNCED_MAX, READ_BYTES, RECEIVED_TOGETHER_BYTES, SENT_BYTES_PER_TURN,
    VALUE_BYTES_BY_REFERENCE_MIN,
};
use crate::server::connection::output::Flushed;
use crate::server::connection::session::{Progress, Router};
use crate::server::connection::socket::{Arrival, Connection, ConnectionId};
use crate::server::persistence::commit::Gathering;
use crate::server::shared::Shared;
use crate::server::stats::latency::Sent;
use crate::store::Ticks;
use crossbeam::channel::Receiver;
use mio::{Events, Poll, Token};
use slab::Slab;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The waker's place among the connections' tokens.
pub const WAKER: Token = Token(usize::MAX);

/// Longest wait for sockets: expired items are looked for at least this often.
const TICK: Duration = Duration::from_millis(100);

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
    /// Whose turn it is.
    queues: Queues,
    /// How far the log had moved when those connections were looked at.
    log_moves: u64,
    /// Changes that wait for others before they are written.
    gathering: Gathering,
    router: WorkerRouter,
    shared: Arc<Shared>,
    /// Where sockets are read to, and by whom the bytes in it were sent.
    scratch: Box<[u8]>,
    group: Vec<Received>,
    buffers: Vec<Vec<u8>>,
    next_tick: Ticks,
    /// The server stops gracefully: nothing more is read from sockets.
    finishing: bool,
}

/// What a worker is made of.
pub struct Parts {
    /// Where its sockets are registered.
    pub poll: Poll,
    /// What wakes it.
    pub bell: Arc<Bell>,
    /// What it is told.
    pub inbox: Receiver<Message>,
    /// New connections.
    pub arrivals: Receiver<Arrival>,
    /// What its sessions reach.
    pub router: WorkerRouter,
    /// What all threads see.
    pub shared: Arc<Shared>,
}

impl Worker {
    /// A worker about to run.
    pub fn new(parts: Parts) -> Self {
        let Parts { poll, bell, inbox, arrivals, router, shared } = parts;
        Self {
            poll,
            bell,
            inbox,
            arrivals,
            connections: Slab::new(),
            next_serial: 0,
            queues: Queues::default(),
            log_moves: 0,
            gathering: Gathering::default(),
            router,
            shared,
            scratch: vec![0; RECEIVED_TOGETHER_BYTES + READ_BYTES].into_boxed_slice(),
            group: Vec::new(),
            buffers: Vec::new(),
            next_tick: Ticks::default(),
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
    /// left: one that is done goes on answering the questions of the others.
    fn finish(&mut self, events: &mut Events) {
        let until = self.router.now.plus_seconds(GRACE.as_secs());
        self.finishing = true;
        let mut was_idle = false;
        loop {
            if self.wait(events).is_err() {
                return;
            }
            self.turn(events);
            let unsent = self.connections.iter().any(|(_, connection)| {
                connection.places.is_to_be_served() || !connection.all_has_left()
            });
            let idle = !unsent && !self.router.is_asking() && self.inbox.is_empty();
            let all_idle = self.shared.note_idle(was_idle, idle);
            was_idle = idle;
            if all_idle || self.router.now >= until {
                return;
            }
        }
    }

    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let has_work = self.queues.has_turns() || self.queues.has_to_send();
        let busy = has_work || self.gathering.is_holding();
        let overdue = self.next_tick <= self.router.now;
        let timeout = if busy || overdue || !self.may_park() { Duration::ZERO } else { TICK };
        let polled = self.poll.poll(events, Some(timeout));
        self.bell.parking.unpark();
        match polled {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    /// How far the log has moved, if there is one.
    fn log_moves(&self) -> u64 {
        self.shared.durability.as_ref().map_or(0, |durability| durability.alarm.moves())
    }

    /// Parks, unless a message or a call has come or the log has moved meanwhile: see
    /// [`super::parking::Parking`].
    fn may_park(&mut self) -> bool {
        self.bell.parking.park();
        let nothing_came =
            self.inbox.is_empty() && self.arrivals.is_empty() && !self.bell.is_called();
        nothing_came && (!self.queues.has_gated() || self.log_moves() == self.log_moves)
    }

    fn turn(&mut self, events: &Events) {
        self.router.begin_turn();
        let idle = events.is_empty() && !self.queues.has_turns();
        for event in events {
            self.note_event(event);
        }
        while let Ok(arrival) = self.arrivals.try_recv() {
            self.welcome(arrival);
        }
        if self.bell.answer() {
            self.queues.call_waiting();
        }
        self.read_inbox();
        self.serve_ready();
        if self.router.is_asking() {
            // Its own part, and the answer if that is all, need not wait for the next turn.
            self.read_inbox();
            self.read_inbox();
        }
        self.commit(idle);
        self.look_at_gates();
        self.router.tell_watchers();
        self.serve_watchers();
        self.send_replies();
        self.bell.set_waits_for_log(self.queues.has_gated());
        self.router.tell_held();
        if self.router.now >= self.next_tick {
            self.tick();
        }
    }

    /// Has the turn's changes written to the log, if there is one. `idle`: no connection has had
    /// anything to do in this turn.
    fn commit(&mut self, idle: bool) {
        let Some(durability) = &self.shared.durability else { return };
        if !durability.committer.has_work() {
            // Nothing here, or somebody else has seen to it.
            self.gathering.holds(self.router.timing.now, true);
        } else if self.connections.len() < 2 {
            durability.commit_here(self.router.shards());
        } else if !self.gathering.holds(self.router.timing.now, idle) {
            durability.commit();
        }
    }

    fn note_event(&mut self, event: &mio::event::Event) {
        let token = event.token().0;
        let Some(connection) = self.connections.get_mut(token) else { return };
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            connection.readable = true;
            connection.read_closed |= event.is_read_closed();
            if connection.read_closed {
                connection.session.client_leaves();
            }
            if connection.session.has_input() {
                // More of what it is in the middle of.
                self.queues.serve_in_line(token, &mut connection.places);
            } else {
                self.queues.serve_soon(token, &mut connection.places);
            }
        }
        if event.is_writable() && !connection.all_has_left() {
            self.queues.send_soon(token, &mut connection.places);
        }
    }

    /// It wants another turn.
    fn enqueue_again(&mut self, token: usize) {
        self.queues.serve_in_line(token, &mut self.connections[token].places);
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
        self.router.note_connection(&arrival.stream, "");
        let now_seconds = self.router.now.seconds();
        entry.insert(Connection::new(arrival, self.next_serial, now_seconds));
    }

    fn read_inbox(&mut self) {
        // Not more than was there at the start: more may come as fast as it is read.
        for _ in 0..self.inbox.len() {
            match self.inbox.try_recv() {
                Ok(Message::Ask(ask)) => self.do_what_is_asked(ask),
                Ok(Message::Done(report)) => {
                    if let Some((connection, text)) = self.router.broadcast_done(report) {
                        self.answer(connection, &text);
                    }
                }
                Ok(Message::Snapshot { connection, error }) => {
                    let text = self.router.snapshot_done(error);
                    self.answer(connection, &text);
                }
                Ok(Message::Login { connection, accepted }) => {
                    self.login_done(connection, accepted);
                }
                Err(_) => break,
            }
        }
    }

    fn do_what_is_asked(&mut self, Ask { question, by }: Ask) {
        let mut report = self.router.report(question);
        if let Question::Report(wanted) = question
            && wanted.connections
        {
            let now_seconds = self.router.now.seconds();
            let connections = self.connections.iter();
            report.connections = connections.map(|(_, each)| each.report(now_seconds)).collect();
        }
        match by {
            AskedBy::Worker(worker) => self.router.tell_done(worker, Box::new(report)),
            AskedBy::Exporter(sender) => {
                // It has room for a report of each worker, unless it is gone.
                let _ = sender.try_send((self.router.id, report));
            }
        }
    }

    fn login_done(&mut self, id: ConnectionId, accepted: bool) {
        let connection = self.connections.get_mut(id.token).filter(|c| c.serial == id.serial);
        if let Some(connection) = connection
            && connection.session.login_done(accepted)
        {
            self.router.count_login(accepted);
            self.queues.send_soon(id.token, &mut connection.places);
        }
    }

    /// Gives a connection the answer that it waits for, if it is still there.
    fn answer(&mut self, id: ConnectionId, text: &[u8]) {
        let connection = self.connections.get_mut(id.token).filter(|c| c.serial == id.serial);
        if let Some(connection) = connection {
            connection.session.answer(text);
            self.router.count_held(connection);
            self.queues.send_soon(id.token, &mut connection.places);
            if connection.session.can_go_on() {
                // It has waited already: what it said behind that does not go to the end of the
                // line.
                self.queues.serve_soon(id.token, &mut connection.places);
            }
        }
    }

    /// Everybody's whose turn it is.
    fn serve_ready(&mut self) {
        let mut ready = self.queues.take_turns();
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
        self.queues.give_back_turns(ready);
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
            let Some(connection) = self.connections.get_mut(token) else { continue };
            // A group never has a connection twice, though a token may come twice.
            if !connection.places.take_turn() {
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
                        self.router.traffic.bytes_read += bytes_read as u64;
                    }
                    Err(error) => {
                        log::debug!("a connection failed: {error}");
                        self.router.note_tls_error(&connection.stream, &error);
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
        self.router.warm(&keys.map(|key| self.router.hash(key)).collect());
    }

    /// One connection's part of the turn: what it has left from the last one, or what was read.
    fn serve(&mut self, token: usize, received: &[u8]) {
        let connection = &mut self.connections[token];
        if !connection.session.output.has_buffer() {
            let buffer = self.buffers.pop();
            let buffer = buffer.unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES_NEW));
            connection.session.output.give_buffer(buffer);
        }
        let id = ConnectionId { token, serial: connection.serial };
        self.router.set_current(id, connection);
        let mut budget = self.shared.config.requests_per_turn_max;
        let timed = self.router.timing.is_near(budget) || connection.session.is_timed();
        if timed {
            let below = self.router.timing.begin_serving(budget, connection.read_at);
            connection.session.timed_below = below;
        }
        let progress = connection.session.advance(received, &mut budget, &mut self.router);
        if connection.read_closed || connection.ended {
            connection.session.client_leaves();
        }
        if timed {
            connection.session.timed_below = 0;
            self.router.timing.end_serving(budget, &mut connection.probes);
        } else {
            self.router.timing.pass(self.shared.config.requests_per_turn_max - budget);
        }
        if budget < self.shared.config.requests_per_turn_max {
            connection.last_command_seconds = self.router.now.seconds();
        }
        let more = match progress {
            Progress::NeedsInput => connection.readable && !self.finishing,
            Progress::Yielded => {
                self.router.traffic.connection_yields += u64::from(budget == 0);
                connection.read_at.get_or_insert(self.router.timing.now);
                true
            }
            Progress::Busy => {
                connection.read_at.get_or_insert(self.router.timing.now);
                self.queues.serve_when_called(token, &mut connection.places);
                false
            }
            Progress::Waits | Progress::Closing => {
                // What its client keeps waiting is no fault of ours.
                connection.read_at = None;
                false
            }
        };
        self.router.count_held(connection);
        self.queues.send_soon(token, &mut connection.places);
        if more {
            self.enqueue_again(token);
        }
    }

    /// Connections that wait for a log are looked at again.
    fn look_at_gates(&mut self) {
        self.log_moves = self.log_moves();
        for token in self.queues.take_gated() {
            if let Some(connection) = self.connections.get_mut(token) {
                self.queues.look_again(token, &mut connection.places);
            }
        }
    }

    /// One write for each connection: small replies first, then those with much to send, in line,
    /// until the turn's share is used up.
    fn send_replies(&mut self) {
        let mut dirty = self.queues.take_dirty();
        for token in dirty.drain(..) {
            let Some(connection) = self.connections.get_mut(token) else { continue };
            if connection.session.output.pending_bytes() >= VALUE_BYTES_BY_REFERENCE_MIN {
                self.queues.send_in_line(token, &mut connection.places);
            } else {
                self.send(token);
            }
        }
        self.queues.give_back_dirty(dirty);
        let mut room_bytes = SENT_BYTES_PER_TURN;
        for _ in 0..self.queues.sending_count() {
            if room_bytes == 0 {
                break;
            }
            let Some(token) = self.queues.next_sending() else { break };
            room_bytes = room_bytes.saturating_sub(self.send(token));
        }
    }

    /// Writes what may leave and what the socket takes; returns the bytes written.
    fn send(&mut self, token: usize) -> usize {
        let Some(connection) = self.connections.get_mut(token) else { return 0 };
        connection.places.take_sending();
        let output = &mut connection.session.output;
        if !output.gates().is_empty() {
            match self.router.safety(output.gates()) {
                Safety::Safe => output.open_gates(),
                Safety::Pending => {
                    self.queues.gate(token, &mut connection.places);
                    return 0;
                }
                Safety::Lost => {
                    log::debug!("a connection is closed: its changes did not reach the log");
                    self.close(token, "error");
                    return 0;
                }
            }
        }
        match output.flush(&mut connection.stream) {
            Ok((bytes, flushed)) => {
                self.note_sent(token, bytes, flushed);
                bytes
            }
            Err(error) => {
                log::debug!("a client did not take its replies: {error}");
                self.router.note_tls_error(&connection.stream, &error);
                self.close(token, "error");
                0
            }
        }
    }

    fn note_sent(&mut self, token: usize, bytes: usize, flushed: Flushed) {
        let connection = &mut self.connections[token];
        self.router.count_held(connection);
        self.router.traffic.bytes_written += bytes as u64;
        if !connection.probes.is_empty() {
            let Connection { probes, stream, .. } = connection;
            let sent = match flushed {
                Flushed::All => Sent::All,
                Flushed::More => Sent::Waits,
                Flushed::Blocked => Sent::Blocked,
            };
            let moment = (self.router.now, self.shared.clock.moment());
            self.router.timing.end(probes, sent, moment, || stream.peer());
        }
        match flushed {
            Flushed::All => self.all_sent(token),
            Flushed::More => {
                self.queues.send_in_line(token, &mut connection.places);
            }
            Flushed::Blocked => {}
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
            || (connection.session.is_watching()
                && self.router.has_events_for(ConnectionId { token, serial: connection.serial }))
            || (connection.readable && !self.finishing);
        if more && !connection.session.is_closing() {
            self.enqueue_again(token);
        } else if connection.is_done() {
            let reason = if connection.session.has_failed() { "error" } else { "normal" };
            self.close(token, reason);
        }
    }

    /// Hands those who watch what there is to tell, if they have taken what came before.
    fn serve_watchers(&mut self) {
        for (ConnectionId { token, serial }, watcher) in &self.router.watching {
            let connection = self.connections.get_mut(*token).filter(|c| c.serial == *serial);
            if let Some(connection) = connection
                && connection.session.output.is_empty()
                && watcher.has_lines()
            {
                self.shared.watchers.take(watcher, &mut connection.session.output.here().bytes);
                self.queues.send_soon(*token, &mut connection.places);
            }
        }
    }

    fn close(&mut self, token: usize, reason: &str) {
        if self.connections.contains(token) {
            // Closing the descriptor takes it off the poll.
            let connection = self.connections.remove(token);
            self.router.note_connection(&connection.stream, reason);
            if connection.session.is_watching() {
                self.router.forget_watcher(ConnectionId { token, serial: connection.serial });
            }
            self.router.forget_held(&connection);
            self.shared.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// What has to happen now and then, whatever clients do.
    fn tick(&mut self) {
        let now = self.router.now;
        self.shared.note_alive(self.router.id);
        self.router.timing.tick(now);
        self.next_tick = Ticks(now.0 + TICK.as_millis() as u64 * Ticks::PER_SECOND / 1000);
        // Changes may wait for room in the log, and nobody calls then.
        self.queues.call_waiting();
        if self.router.maintain() {
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
            self.router.traffic.idle_kicks += 1;
            self.close(token, "idle_timeout");
        }
    }
}

#[cfg(test)]
mod tests;
