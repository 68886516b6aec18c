//! What a worker's sessions reach: the shards, the clock of the turn, and what is counted.
//!
//! Kept apart from the worker's connections so that one of them can be served while this executes
//! its commands. Commands that are not about a key are in `server_commands`.

use super::broadcast::Broadcasts;
use super::inbox::{Address, Message};
use super::shards::Shards;
use crate::durable::progress::Safety;
use crate::limits::{READ_BYTES, SHARDS_MAX};
use crate::protocol::Request;
use crate::server::connection::login::Verdict;
use crate::server::connection::output::{Gate, Output};
use crate::server::connection::session::{Next, Refused, Router, Target, Timed};
use crate::server::connection::socket::{Connection, ConnectionId, Stream};
use crate::server::operator::compat::CLASS;
use crate::server::operator::dump::Dump;
use crate::server::operator::watch::Watcher;
use crate::server::persistence::status::Durability;
use crate::server::shared::Shared;
use crate::server::stats::latency::Timing;
use crate::server::stats::report::{Report, Traffic};
use crate::server::stats::sizing::Feeder;
use crate::shard::events::{Events, Kinds};
use crate::shard::operation::{Operation, Verb};
use crate::shard::{Rules, Shard, item_fits};
use crate::store::Ticks;
use crate::store::hash::KeyHasher;
use crate::store::lookups::Lookups;
use std::sync::Arc;

/// What connections hold, data blocks that are arriving above all, may take all of the memory limit
/// but one part in so many: what is uploaded takes the place of what is stored, as with memcached,
/// where it has it from the beginning.
const KEPT_FROM_HELD_SHARE: u64 = 8;

/// Ticks in which the sweep goes once through all segments.
const SWEEP_ROUND_TICKS: usize = 40;

/// A round of the sweep.
#[derive(Debug, Clone, Copy, Default)]
struct SweepRound {
    /// Ticks of it so far.
    ticks: usize,
    /// When it began.
    since: Ticks,
    /// Items ever looked at by then.
    examined: u64,
    /// Expired items ever removed by then.
    reclaimed: u64,
}

/// A set of shards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShardSet(u64);

const _: () = assert!(SHARDS_MAX <= u64::BITS as usize, "a shard has a bit in a `ShardSet`");

impl ShardSet {
    /// Adds one.
    #[inline]
    pub fn insert(&mut self, shard: usize) {
        self.0 |= 1 << shard;
    }

    /// Whether it is among them.
    pub fn contains(self, shard: usize) -> bool {
        self.0 & 1 << shard != 0
    }

    /// Empties the set and returns what was in it.
    pub fn take(&mut self) -> impl Iterator<Item = usize> + use<> {
        let mut left = std::mem::take(&mut self.0);
        std::iter::from_fn(move || {
            let shard = (left != 0).then(|| left.trailing_zeros() as usize);
            left &= left.wrapping_sub(1);
            shard
        })
    }
}

/// What a router is made of.
pub struct Parts {
    /// The worker's number.
    pub id: usize,
    /// The shards.
    pub shards: Arc<Shards>,
    /// The hash that spreads keys over them.
    pub hasher: KeyHasher,
    /// What commands do.
    pub rules: Rules,
    /// How to reach all workers.
    pub workers: Vec<Address>,
    /// What all threads see.
    pub shared: Arc<Shared>,
}

/// See the module's text.
pub struct WorkerRouter {
    /// This worker's number.
    pub id: usize,
    pub(super) shards: Arc<Shards>,
    hasher: KeyHasher,
    rules: Rules,
    /// The time of this turn.
    pub now: Ticks,
    /// The connection being served.
    pub current: ConnectionId,
    /// Its descriptor.
    descriptor: i32,
    /// Somebody watches: shards note what happens.
    pub(super) watched: bool,
    /// Shards that may have something to tell those who watch.
    eventful: ShardSet,
    /// Connections that came and went.
    events: Events,
    /// What the sweep did, as those who watch were last told.
    sweep: SweepRound,
    /// Connections of this worker that watch.
    pub watching: Vec<(ConnectionId, Arc<Watcher>)>,
    /// Memory that this worker's connections have come to hold since it was last told.
    held_bytes_more: i64,
    /// Counters that are not the shards'.
    pub traffic: Traffic,
    /// How long commands take.
    pub timing: Timing,
    /// What the shards' samples are played with.
    feeder: Feeder,
    pub(super) broadcasts: Broadcasts,
    /// Snapshots that connections wait for.
    pub(super) snapshots_awaited: usize,
    pub(super) shared: Arc<Shared>,
}

impl WorkerRouter {
    /// The router of a worker.
    pub fn new(parts: Parts) -> Self {
        let Parts { id, shards, hasher, rules, workers, shared } = parts;
        Self {
            id,
            shards,
            hasher,
            rules,
            now: shared.clock.now(),
            current: ConnectionId::default(),
            descriptor: 0,
            watched: false,
            eventful: ShardSet::default(),
            events: Events::default(),
            sweep: SweepRound { since: shared.clock.now(), ..SweepRound::default() },
            watching: Vec::new(),
            held_bytes_more: 0,
            traffic: Traffic::default(),
            timing: Timing::new(shared.config.slow_command_us),
            feeder: Feeder::default(),
            broadcasts: Broadcasts::new(id, workers),
            snapshots_awaited: 0,
            shared,
        }
    }

    /// The shards.
    pub fn shards(&self) -> &Shards {
        &self.shards
    }

    /// A turn begins.
    pub fn begin_turn(&mut self) {
        (self.now, self.timing.now) = self.shared.clock.read();
        let wanted = self.shared.watchers.wanted();
        self.watched = wanted != Kinds::default();
        self.events.want(wanted);
    }

    /// Commands that follow come from this connection.
    pub fn set_current(&mut self, id: ConnectionId, connection: &Connection) {
        self.current = id;
        self.descriptor = connection.stream.descriptor();
    }

    /// Tells those who watch what has happened here.
    pub fn tell_watchers(&mut self) {
        let (shared, now) = (&self.shared, self.now);
        let workers = self.broadcasts.workers();
        let tell = |events: &mut Events| {
            shared.watchers.tell(events, now, |worker| workers[worker].bell.ring());
        };
        for shard in self.eventful.take() {
            // Written down elsewhere than under the lock.
            let events = self.shards.hold(shard).take_events(now);
            if let Some(mut events) = events {
                tell(&mut events);
            }
        }
        if self.watched {
            tell(&mut self.events);
        }
    }

    /// Tells those who watch that what came on a connection was no TLS, or not the right one.
    pub fn note_tls_error(&mut self, stream: &Stream, error: &std::io::Error) {
        if !error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
            return;
        }
        self.events.add(Kinds::CONNECTIONS, |line| {
            let descriptor = stream.descriptor();
            let text = format!("type=conntlserr fd={descriptor} msg={error}\n");
            line.extend_from_slice(text.as_bytes());
        });
    }

    /// Tells those who watch that a connection came (`reason` is empty) or went.
    pub fn note_connection(&mut self, stream: &Stream, reason: &str) {
        if log::log_enabled!(log::Level::Debug) {
            let (descriptor, peer) = (stream.descriptor(), stream.peer());
            match reason {
                "" => log::debug!("<{descriptor} new connection from {peer}"),
                reason => log::debug!("<{descriptor} connection closed: {reason}"),
            }
        }
        self.events.add(Kinds::CONNECTIONS, |line| {
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
    pub fn has_events_for(&self, connection: ConnectionId) -> bool {
        self.watching.iter().any(|(id, watcher)| *id == connection && watcher.has_lines())
    }

    /// A connection is gone: it watches no more.
    pub fn forget_watcher(&mut self, connection: ConnectionId) {
        if let Some(at) = self.watching.iter().position(|watching| watching.0 == connection) {
            let (_, watcher) = self.watching.swap_remove(at);
            self.shared.watchers.remove(&watcher);
            self.watch_shards();
        }
    }

    /// Has the shards note what is watched.
    pub(super) fn watch_shards(&self) {
        for mut shard in self.shards.each() {
            // Read anew for each: another worker may be on the same errand.
            shard.watch(self.shared.watchers.wanted());
        }
    }

    /// Follows the memory that a connection holds outside the store.
    pub fn count_held(&mut self, connection: &mut Connection) {
        let held_bytes = connection.session.held_bytes();
        self.held_bytes_more += held_bytes as i64 - connection.held_bytes as i64;
        connection.held_bytes = held_bytes;
    }

    /// A connection is gone with what it held.
    pub fn forget_held(&mut self, connection: &Connection) {
        self.held_bytes_more -= connection.held_bytes as i64;
    }

    /// Tells the other threads how much memory this worker's connections hold.
    pub fn tell_held(&mut self) {
        if self.held_bytes_more != 0 {
            self.shared.budget.add_held_bytes(std::mem::take(&mut self.held_bytes_more));
        }
    }

    /// Work between commands on this worker's part of the shards. Answers whether there is more to
    /// do right away.
    pub fn maintain(&mut self) -> bool {
        let (count, workers) = (self.shards.count(), self.shared.config.workers);
        let mut more = false;
        for at in (self.id..count).step_by(workers) {
            // Whoever holds it is at work on it; there is another tick.
            let Some(mut shard) = self.shards.hold_if_free(at) else { continue };
            let segments = shard.store().segment_count_max();
            more |= shard.maintain(self.now, segments.div_ceil(SWEEP_ROUND_TICKS));
            if self.watched {
                self.eventful.insert(at);
            }
        }
        self.sweep.ticks += 1;
        if self.sweep.ticks >= SWEEP_ROUND_TICKS {
            self.note_sweep();
        }
        let own = (self.id..count).step_by(workers);
        let (sizing, limit_bytes) = (&self.shared.sizing, self.shared.budget.limit_bytes());
        more | self.feeder.feed(sizing, &self.shards, own, self.now, limit_bytes)
    }

    /// The sweep has been through this worker's part of the shards. Told as memcached tells of a
    /// run of its crawler.
    fn note_sweep(&mut self) {
        let mut round = SweepRound { since: self.now, ..SweepRound::default() };
        for at in (self.id..self.shards.count()).step_by(self.shared.config.workers) {
            let counters = self.shards.hold(at).store().counters();
            round.examined += counters.swept;
            round.reclaimed += counters.reclaimed;
        }
        let before = std::mem::replace(&mut self.sweep, round);
        let examined = round.examined.saturating_sub(before.examined);
        let reclaimed = round.reclaimed.saturating_sub(before.reclaimed);
        let elapsed = self.now.seconds().saturating_sub(before.since.seconds());
        if examined == 0 {
            return;
        }
        self.events.add(Kinds::SYSTEM, |line| {
            let text = format!(
                "type=lru_crawler crawler={CLASS} lru=cold low_mark=0 next_reclaims=0 since_run=0 \
                 next_run=0 elapsed={elapsed} examined={examined} reclaimed={reclaimed}\n"
            );
            line.extend_from_slice(text.as_bytes());
        });
    }

    /// Answers are still to come that this worker asked for.
    pub fn is_asking(&self) -> bool {
        !self.broadcasts.is_empty()
    }

    /// Tells a worker that what it asked of all is done here.
    pub fn tell_done(&self, worker: usize, report: Box<Report>) {
        if let Some(address) = self.broadcasts.workers().get(worker) {
            address.send(Message::Done(report));
        }
    }

    /// Whether changes have to wait: they come faster than the device takes them.
    #[inline]
    fn must_wait(&self, shard: &Shard) -> bool {
        let is_full = |durability: &Arc<Durability>| durability.committer.is_full();
        let waits =
            shard.has_much_to_write() || self.shared.durability.as_ref().is_some_and(is_full);
        // One that will be refused need not wait for that.
        waits && !shard.is_refusing()
    }

    /// Whether replies behind these gates may leave.
    pub fn safety(&self, gates: &[Gate]) -> Safety {
        let Some(durability) = &self.shared.durability else { return Safety::Safe };
        let mut all = Safety::Safe;
        for gate in gates {
            match durability.committer.progress().safety(gate.shard, gate.sequence) {
                Safety::Lost => return Safety::Lost,
                Safety::Pending => all = Safety::Pending,
                Safety::Safe => {}
            }
        }
        all
    }
}

impl Router for WorkerRouter {
    #[inline]
    fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash(key)
    }

    #[inline]
    fn execute<'a>(
        &mut self,
        target: Target<'a>,
        verb: impl FnOnce() -> Verb<'a>,
        output: &mut Output,
    ) -> bool {
        let Target { key, hash, form, changes } = target;
        let at = self.shards.of(hash);
        let Some(mut shard) = self.shards.try_hold(at, self.id) else { return false };
        if changes && self.must_wait(&shard) {
            return false;
        }
        if self.watched {
            shard.set_asker(self.descriptor);
            self.eventful.insert(at);
        }
        let operation = Operation { key, hash, form, verb: verb() };
        let sequence = shard.execute(operation, self.now, output.here());
        drop(shard);
        if sequence != 0 {
            output.wait_for(Gate { shard: at, sequence });
        }
        true
    }

    fn descriptor(&self) -> i32 {
        self.descriptor
    }

    fn executed(&mut self, timed: Timed<'_>) {
        self.timing.begin(timed, self.hasher.hash(timed.key));
    }

    fn next_timed(&mut self, budget: usize) -> usize {
        self.timing.next_timed(budget)
    }

    fn warm(&self, lookups: &Lookups) {
        let hashes = lookups.hashes();
        let mut seen = ShardSet::default();
        for (at, hash) in hashes.iter().enumerate() {
            let shard = self.shards.of(*hash);
            if seen.contains(shard) {
                continue;
            }
            seen.insert(shard);
            let ours = hashes[at..].iter().copied().filter(|hash| self.shards.of(*hash) == shard);
            if let Some(held) = self.shards.hold_if_free(shard) {
                held.store().warm(&ours.collect());
            }
        }
    }

    fn command(&mut self, request: &Request<'_>, noreply: bool, output: &mut Output) -> Next {
        self.server_command(request, noreply, output)
    }

    fn dump(&mut self, dump: &mut Dump, output: &mut Output) -> bool {
        let Some(shard) = self.shards.try_hold(dump.shard, self.id) else { return false };
        let next_part = dump.slice.write(&shard, self.now, output.here());
        drop(shard);
        dump.went_on(next_part, output.here());
        true
    }

    fn login(&mut self, user: &[u8], password: &[u8]) -> Verdict {
        let Some(users) = &self.shared.users else { return Verdict::Refused };
        let verdict = users.ask(user, password, self.id, self.current);
        match &verdict {
            Verdict::Accepted => self.count_login(true),
            Verdict::Refused | Verdict::Busy => self.count_login(false),
            Verdict::Pending(_) => {}
        }
        verdict
    }

    fn refused_login(&mut self) {
        self.count_login(false);
    }

    fn refused_protocol(&mut self, is_binary: bool) {
        self.traffic.refused_protocols += 1;
        let (is, other) = if is_binary { ("binary", "text") } else { ("text", "binary") };
        // The first one is news; whoever comes again and again does not fill the log.
        let level = match self.traffic.refused_protocols {
            1 => log::Level::Warn,
            _ => log::Level::Info,
        };
        log::log!(
            level,
            "closed a client of the {is} protocol: its listener is for the {other} protocol \
             (-B, -S, -Y, -l proto[...])"
        );
    }

    fn item_fits(&self, key: &[u8], flags: u32, value_bytes: usize) -> bool {
        item_fits(&self.rules, key.len(), flags, value_bytes)
    }

    fn may_hold(&self, block_bytes: usize) -> bool {
        // Small blocks always: without them nothing could be stored at all.
        if block_bytes <= READ_BYTES {
            return true;
        }
        let limit_bytes = self.shared.budget.limit_bytes();
        let held_bytes_max = limit_bytes - limit_bytes / KEPT_FROM_HELD_SHARE;
        let held_bytes =
            self.shared.budget.held_bytes().saturating_add_signed(self.held_bytes_more);
        held_bytes.saturating_add(block_bytes as u64) <= held_bytes_max
    }

    fn refused(&mut self, why: Refused) {
        match why {
            Refused::TooLarge => self.traffic.store_too_large += 1,
            Refused::NoMemory => self.traffic.store_no_memory += 1,
        }
    }
}
