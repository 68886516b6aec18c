//! The servers of a client, and which of them a key goes to. Owns the list, the ring, the health of
//! each server and the memory of what was written elsewhere; both faces share it. No sockets.

pub(in crate::client) mod discovery;
pub(in crate::client) mod health;
pub(in crate::client) mod monitor;
pub(in crate::client) mod replicas;
pub(in crate::client) mod start;

use crate::client::blocking::connection::Connection;
use crate::client::blocking::pool::{self, Pool};
use crate::client::clock;
use crate::client::cluster::health::{Health, Remembered, Rules, State};
use crate::client::config::{Config, StaleGuard, WhenDown, capped};
use crate::client::error::Error;
use crate::client::events::{Event, LiveCounters, ServerStatus, count};
use crate::client::latency::{Latencies, LiveLatencies};
use crate::client::near::Near;
use crate::client::net::dialer::Dialer;
use crate::client::net::names::Names;
use crate::client::observe;
use crate::client::operation::flight::Flights;
use crate::client::placement::key::{AsKey, KeyRules, WireKey};
use crate::client::placement::node::Node;
use crate::client::placement::ring::Ring;
use crate::client::wire::command::{Command, Effect, Protocol};
use crate::client::wire::outcome::Look;
use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// A server that closes the connection at so many looks in a row does not know how to look.
const LOOKS_FAILED_MAX: u32 = 2;

/// One server, as long as it is on the list.
#[derive(Debug)]
pub(in crate::client) struct Server {
    /// Never given to another server.
    pub id: usize,
    pub node: Node,
    pub name: String,
    pub names: Arc<Names>,
    /// What `health` says, to be read without its lock.
    in_use: AtomicBool,
    /// No failure since the last success: a success need not be noted.
    untroubled: AtomicBool,
    health: Mutex<Health>,
    pub pool: Pool<Connection>,
    #[cfg(feature = "tokio")]
    pub lanes: crate::client::asynchronous::lanes::Lanes,
    failures: AtomicU64,
    pub latencies: LiveLatencies,
    /// The refusal of our login that stands, and until when it is not tried again.
    refusal: Mutex<Option<(Error, Instant)>>,
    /// A probe or a check is under way.
    pub is_looked_after: AtomicBool,
    /// Frames are spoken to it, which have no meta commands.
    is_binary: bool,
    /// Looks in a row that came to nothing.
    looks_failed: AtomicU32,
    /// It has answered a call since the last check.
    pub is_heard: AtomicBool,
    /// When it was last checked, or would have been.
    pub heard_at: Mutex<Instant>,
    /// Calls of this client that it has not answered yet.
    under_way: AtomicUsize,
}

/// A call under way, until it is dropped.
#[derive(Debug)]
pub(in crate::client) struct UnderWay<'s>(&'s AtomicUsize);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Server {
    fn new(id: usize, node: Node, config: &Config) -> Self {
        let repairs_max = match config.stale_guard {
            StaleGuard::Off => 0,
            StaleGuard::Repair { keys_max } => keys_max,
        };
        let rules = Rules {
            failures_max: config.failures_max,
            probe_after: config.probe_after,
            probe_after_max: config.probe_after_max.max(config.probe_after),
            repairs_max,
        };
        Self {
            id,
            name: node.name(),
            names: Names::new(&node),
            node,
            in_use: AtomicBool::new(true),
            untroubled: AtomicBool::new(true),
            health: Mutex::new(Health::new(rules)),
            pool: Pool::new(pool::Limits {
                connections_max: config.connections_max,
                idle_max: config.idle_connections_max,
                idle_timeout: config.idle_timeout,
            }),
            #[cfg(feature = "tokio")]
            lanes: crate::client::asynchronous::lanes::Lanes::new(config),
            failures: AtomicU64::new(0),
            latencies: LiveLatencies::default(),
            refusal: Mutex::new(None),
            is_looked_after: AtomicBool::new(false),
            is_binary: config.protocol() == Protocol::Binary,
            looks_failed: AtomicU32::new(0),
            is_heard: AtomicBool::new(false),
            heard_at: Mutex::new(clock::now()),
            under_way: AtomicUsize::new(0),
        }
    }

    pub(super) fn is_in_use(&self) -> bool {
        self.in_use.load(Ordering::Acquire)
    }

    pub(super) fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn heard_now(&self) {
        *self.heard_at.lock().unwrap_or_else(PoisonError::into_inner) = clock::now();
    }

    /// Whether it does not know the meta commands, and so has no places of values being computed.
    pub(super) fn has_no_meta(&self) -> bool {
        self.is_binary || self.looks_failed.load(Ordering::Relaxed) >= LOOKS_FAILED_MAX
    }

    /// A command was answered. One that only the meta commands have shows that they are known.
    pub(super) fn answered(&self, command: &Command<'_>) {
        let is_meta = matches!(command, Command::Lease { .. } | Command::Inspect);
        if is_meta && self.looks_failed.load(Ordering::Relaxed) > 0 {
            self.looks_failed.store(0, Ordering::Relaxed);
        }
    }

    /// What a look at an item came to. Servers without the meta commands refuse it: they are not
    /// asked again. Proxies may close the connection instead, but once that may be a restart.
    pub(super) fn looked(&self, look: Result<Look, Error>) -> Result<Look, Error> {
        match look {
            Err(Error::Refused { .. } | Error::Protocol { .. }) => {
                self.looks_failed.store(LOOKS_FAILED_MAX, Ordering::Relaxed);
                Ok(Look::Unknown)
            }
            Err(Error::Io { .. }) => {
                self.looks_failed.fetch_add(1, Ordering::Relaxed);
                Ok(Look::Unknown)
            }
            Ok(look) => {
                self.looks_failed.store(0, Ordering::Relaxed);
                Ok(look)
            }
            // A look changes nothing.
            Err(error) => Err(error.without_doubt()),
        }
    }

    /// A call begins.
    pub(super) fn begin(&self) -> UnderWay<'_> {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(&self.under_way)
    }

    /// Calls that are under way.
    pub(super) fn load(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Closes what nobody uses at this moment.
    pub(super) fn close_idle(&self) {
        self.pool.clear();
    }

    /// Closes all connections, those in use when their calls have ended.
    pub(super) fn close(&self) {
        self.close_idle();
        #[cfg(feature = "tokio")]
        self.lanes.retire();
    }

    fn connections(&self) -> usize {
        #[cfg(feature = "tokio")]
        let pipelined = self.lanes.open();
        #[cfg(not(feature = "tokio"))]
        let pipelined = 0;
        self.pool.open() + pipelined
    }

    /// The refusal of our login, as long as it stands. When its time is over, one caller may try.
    pub(super) fn may_log_in(&self, now: Instant, wait: Duration) -> Result<(), Error> {
        match &mut *self.refusal() {
            Some((error, until)) if now < *until => Err(error.clone()),
            Some((_, until)) => {
                *until = now + wait;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// A new connection was let in.
    pub(super) fn let_in(&self) {
        *self.refusal() = None;
    }

    fn refusal(&self) -> MutexGuard<'_, Option<(Error, Instant)>> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Back in use after a probe.
    pub(super) fn readmit(&self, health: &mut Health) {
        health.readmit();
        // It may be another version now.
        self.looks_failed.store(0, Ordering::Relaxed);
        self.untroubled.store(false, Ordering::Release);
        self.in_use.store(health.state() != State::Ejected, Ordering::Release);
    }

    fn status(&self) -> ServerStatus {
        ServerStatus {
            node: self.node.clone(),
            state: self.health().state(),
            connections: self.connections(),
            failures: self.failures.load(Ordering::Relaxed),
        }
    }
}

/// The servers and their ring, at one moment.
#[derive(Debug)]
pub(in crate::client) struct Topology {
    pub servers: Vec<Arc<Server>>,
    ring: Ring,
    pub gutter: Vec<Arc<Server>>,
    gutter_ring: Ring,
}

impl Topology {
    /// All servers, those that stand in included.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Server>> {
        self.servers.iter().chain(&self.gutter)
    }
}

impl Topology {
    /// Index of the server that owns a key, if it is in use.
    pub(super) fn owner_in_use(&self, placing: &[u8]) -> Option<usize> {
        self.ring.owner(placing).filter(|owner| self.servers[*owner].is_in_use())
    }
}

/// Where a request goes.
pub(in crate::client) enum Route {
    /// To the owner of the key.
    Owner(Arc<Server>),
    /// To another server; stored items live for at most so many seconds.
    StandIn(Arc<Server>, u32),
    /// Nowhere: a miss.
    Nowhere,
}

/// What both faces and the monitor share.
#[derive(Debug)]
pub(in crate::client) struct Cluster {
    pub config: Config,
    pub dialer: Dialer,
    pub rules: KeyRules,
    topology: RwLock<Arc<Topology>>,
    /// Held while another one is made.
    changing: Mutex<()>,
    next_id: AtomicUsize,
    pub counters: LiveCounters,
    /// Values that this process computes.
    pub flights: Arc<Flights>,
    /// Values that are kept in it.
    pub near: Near,
    /// Something for the monitor to look at, or the end.
    pub bell: Condvar,
    pub ended: Mutex<bool>,
}

impl Cluster {
    pub(super) fn new(nodes: Vec<Node>, config: Config) -> Result<Self, Error> {
        config.check()?;
        let cluster = Self {
            rules: config.key_rules(),
            dialer: Dialer::new(&config)?,
            topology: RwLock::new(Arc::new(Topology {
                servers: Vec::new(),
                ring: Ring::new(&config.ring, &[]),
                gutter: Vec::new(),
                gutter_ring: Ring::new(&config.ring, &[]),
            })),
            changing: Mutex::new(()),
            next_id: AtomicUsize::new(0),
            counters: LiveCounters::default(),
            flights: Arc::default(),
            near: Near::new(&config),
            bell: Condvar::new(),
            ended: Mutex::new(false),
            config,
        };
        cluster.set_servers(nodes)?;
        Ok(cluster)
    }

    pub(super) fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.topology.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another list of servers in place. Those that stay keep their connections and their
    /// health.
    pub(super) fn set_servers(&self, nodes: Vec<Node>) -> Result<(), Error> {
        let mut addresses = HashSet::new();
        if let Some(twice) = nodes.iter().find(|node| !addresses.insert(node.address())) {
            return Err(Error::Config(format!("{} is named twice", twice.address())));
        }
        let gutter_nodes = match &self.config.when_down {
            WhenDown::Gutter { nodes, .. } => nodes.clone(),
            _ => Vec::new(),
        };
        // One list after the other; who makes calls waits for none of this.
        let changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.topology();
        let make = |list: &[Arc<Server>], node: &Node| {
            let known = list.iter().find(|server| server.node == *node);
            known.cloned().unwrap_or_else(|| {
                let id = self.next_id.fetch_add(1, Ordering::Relaxed);
                Arc::new(Server::new(id, node.clone(), &self.config))
            })
        };
        let servers: Vec<_> = nodes.iter().map(|node| make(&before.servers, node)).collect();
        let gutter = gutter_nodes.iter().map(|node| make(&before.gutter, node)).collect();
        let topology = Arc::new(Topology {
            ring: Ring::new(&self.config.ring, &nodes),
            gutter_ring: Ring::new(&self.config.ring, &gutter_nodes),
            servers: servers.clone(),
            gutter,
        });
        *self.topology.write().unwrap_or_else(PoisonError::into_inner) = topology;
        drop(changing);
        let gone = |list: &[Arc<Server>], from: &[Arc<Server>]| {
            let is_gone = |server: &&Arc<Server>| list.iter().all(|other| other.id != server.id);
            from.iter().filter(is_gone).cloned().collect::<Vec<_>>()
        };
        let (removed, added) = (gone(&servers, &before.servers), gone(&before.servers, &servers));
        removed.iter().for_each(|server| server.close());
        if !(added.is_empty() && removed.is_empty()) {
            let names = |list: Vec<Arc<Server>>| list.iter().map(|one| one.name.clone()).collect();
            self.report(Event::ServersChanged { added: names(added), removed: names(removed) });
        }
        Ok(())
    }

    fn nodes(&self) -> Vec<Node> {
        self.topology().servers.iter().map(|server| server.node.clone()).collect()
    }

    /// The list with one server more.
    pub(super) fn nodes_with(&self, server: &str) -> Result<Vec<Node>, Error> {
        let mut nodes = self.nodes();
        nodes.push(server.parse()?);
        Ok(nodes)
    }

    /// The list without a server, named by its address or its name.
    pub(super) fn nodes_without(&self, server: &str) -> Result<Vec<Node>, Error> {
        let address = server.parse::<Node>().map(|node| node.address()).unwrap_or_default();
        let mut nodes = self.nodes();
        let before = nodes.len();
        nodes.retain(|node| node.address() != address && node.name() != server);
        match nodes.len() == before {
            true => Err(Error::Config(format!("{server} is not one of the servers"))),
            false => Ok(nodes),
        }
    }

    pub(super) fn statuses(&self) -> Vec<ServerStatus> {
        self.topology().servers.iter().map(|server| server.status()).collect()
    }

    pub(super) fn latencies(&self) -> Vec<(Node, Latencies)> {
        let read = |server: &Arc<Server>| (server.node.clone(), server.latencies.read());
        self.topology().servers.iter().map(read).collect()
    }

    /// The server that owns a key, whether it is there or not.
    pub(super) fn owner(&self, key: &(impl AsKey + ?Sized)) -> Option<Arc<Server>> {
        let (bytes, placed_by) = (key.as_key(), key.placed_by());
        let placing = self.rules.placing(&bytes, placed_by.as_deref());
        let topology = self.topology();
        Some(Arc::clone(&topology.servers[topology.ring.owner(&placing)?]))
    }

    /// Where a request goes. A write that goes elsewhere is remembered.
    pub(super) fn route(
        &self,
        topology: &Topology,
        placing: &[u8],
        key: &WireKey<'_>,
        effect: Effect,
    ) -> Result<Route, Error> {
        let Some(owner) = topology.ring.owner(placing) else { return Err(Error::NoServers) };
        let owner = &topology.servers[owner];
        if owner.is_in_use() {
            return Ok(Route::Owner(Arc::clone(owner)));
        }
        let down = || Err(Error::Down { server: owner.name.clone() });
        let (stand_in, seconds_max) = match &self.config.when_down {
            _ if effect == Effect::Exact => return down(),
            WhenDown::Error => return down(),
            WhenDown::Miss => (None, 0),
            WhenDown::NextServer { expiry_seconds_max } => {
                let order = topology.ring.owners(placing);
                let next = order.into_iter().map(|at| &topology.servers[at]);
                let next = next.skip(1).find(|server| server.is_in_use());
                let Some(next) = next else { return down() };
                (Some(next), *expiry_seconds_max)
            }
            WhenDown::Gutter { expiry_seconds_max, .. } => {
                let order = topology.gutter_ring.owners(placing);
                let spare = order.into_iter().filter_map(|at| topology.gutter.get(at));
                let Some(spare) = spare.into_iter().find(|server| server.is_in_use()) else {
                    return down();
                };
                (Some(spare), *expiry_seconds_max)
            }
        };
        let guarded = self.config.stale_guard != StaleGuard::Off;
        if guarded && effect == Effect::Write {
            let remembered = owner.health().remember(key, stand_in.map(|server| server.id));
            match remembered {
                Remembered::Kept => {}
                // It came back between the two looks.
                Remembered::InUse => return Ok(Route::Owner(Arc::clone(owner))),
                Remembered::TooLate => return down(),
            }
        }
        Ok(match stand_in {
            Some(server) => {
                count(&self.counters.diverted);
                Route::StandIn(Arc::clone(server), seconds_max)
            }
            None => {
                count(&self.counters.dropped);
                Route::Nowhere
            }
        })
    }

    /// A call to a server ended well.
    pub(super) fn succeeded(&self, server: &Server) {
        if !server.is_heard.load(Ordering::Relaxed) {
            server.is_heard.store(true, Ordering::Relaxed);
        }
        if server.untroubled.load(Ordering::Acquire) {
            return;
        }
        let now = clock::now();
        if self.config.login.is_none() {
            server.let_in();
        }
        let mut health = server.health();
        server.untroubled.store(health.state() != State::Ejected, Ordering::Release);
        let away = health.succeeded(now);
        drop(health);
        if let Some(away) = away {
            count(&self.counters.rejoins);
            self.report(Event::Rejoined { server: server.name.clone(), away });
        }
    }

    /// A call to a server failed, for a reason that speaks against it.
    pub(super) fn failed(&self, server: &Server, error: &Error) {
        count(&self.counters.failures);
        server.failures.fetch_add(1, Ordering::Relaxed);
        if matches!(error, Error::Timeout { .. }) {
            count(&self.counters.timeouts);
        }
        if matches!(error, Error::Login { .. }) {
            return self.login_refused(server, error);
        }
        let mut health = server.health();
        server.untroubled.store(false, Ordering::Release);
        let ejects = health.failed(clock::now());
        if ejects {
            server.in_use.store(false, Ordering::Release);
        }
        drop(health);
        // Other connections to it are likely to be as dead as this one.
        server.close_idle();
        if ejects {
            server.close();
            count(&self.counters.ejections);
            self.wake_monitor();
            let cause = error.to_string();
            self.report(Event::Ejected { server: server.name.clone(), cause });
        }
    }

    /// The server is there and does not want us. That says nothing against it, so it stays in use,
    /// but it is left alone for a while: guessing is what this would look like.
    fn login_refused(&self, server: &Server, error: &Error) {
        let until = clock::now() + self.config.probe_after_max;
        let before = server.refusal().replace((error.clone(), until));
        // The next success is to be noted.
        server.untroubled.store(false, Ordering::Release);
        if before.is_none() {
            let cause = error.to_string();
            self.report(Event::LoginRefused { server: server.name.clone(), cause });
        }
    }

    /// Whether a read that failed is to be taken for a miss.
    pub(super) fn forgives_reads(&self) -> bool {
        self.config.when_down != WhenDown::Error
    }

    pub(super) fn wake_monitor(&self) {
        // Under the lock, or the monitor might just have looked and be about to sleep.
        let _ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        self.bell.notify_all();
    }

    pub(super) fn end(&self) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.bell.notify_all();
        self.topology().all().for_each(|server| server.close());
    }

    pub(super) fn report(&self, event: Event) {
        log::debug!("{event:?}");
        observe::event(&event);
        if let Some(listener) = &self.config.listener {
            (listener.0)(&event);
        }
    }

    /// A key as the caller names it, as it is sent and as it is placed.
    pub(super) fn wire<'k>(
        &self,
        key: &'k (impl AsKey + ?Sized),
    ) -> Result<(WireKey<'k>, Cow<'k, [u8]>), Error> {
        let bytes = key.as_key();
        let placing = match (&bytes, key.placed_by()) {
            // The common case allocates nothing.
            (Cow::Borrowed(bytes), None) => self.rules.placing(bytes, None),
            (bytes, by) => Cow::Owned(self.rules.placing(bytes, by.as_deref()).into_owned()),
        };
        Ok((self.rules.wire(bytes)?, placing))
    }
}

/// A command as it goes to a stand-in.
pub(in crate::client) fn for_stand_in(command: Command<'_>, seconds_max: u32) -> Command<'_> {
    let cap = |exptime| capped(exptime, seconds_max);
    match command {
        Command::Store { mode, flags, exptime, data } => {
            Command::Store { mode, flags, exptime: cap(exptime), data }
        }
        Command::Touch { exptime } => Command::Touch { exptime: cap(exptime) },
        Command::GetAndTouch { exptime } => Command::GetAndTouch { exptime: cap(exptime) },
        Command::Invalidate { exptime } => Command::Invalidate { exptime: cap(exptime) },
        other => other,
    }
}
