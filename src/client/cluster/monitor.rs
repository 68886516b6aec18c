//! The thread that looks after servers: probes of those that are away, checks of those in use, and
//! the list of servers. Owns when, and what happens before a server is used again.

use crate::client::blocking::connection::{Call, Connection, Exchange, Limits, drive};
#[cfg(feature = "tokio")]
use crate::client::blocking::waiting::wait_until;
use crate::client::clock;
use crate::client::cluster::health::{Repairs, State};
use crate::client::cluster::{Cluster, Server};
use crate::client::error::Error;
use crate::client::events::Event;
use crate::client::operation;
use crate::client::placement::key::WireKey;
use crate::client::wire::batch::Batch;
use crate::client::wire::command::{Command, Effect, ServerCommand};
use crate::client::wire::reply::Reply;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// Longest sleep, so that clock or arithmetic surprises cost no more.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Keys deleted at a time.
const REPAIRS_PER_BATCH: usize = 1000;

/// Rounds of repair in which writes may go elsewhere; in the one after that they fail.
const OPEN_ROUNDS_MAX: usize = 8;

/// Starts the thread; it ends when the cluster is told to.
pub(in crate::client) fn start(cluster: &Arc<Cluster>) -> Result<(), Error> {
    let cluster = Arc::clone(cluster);
    let thread = std::thread::Builder::new().name("distcache-monitor".into());
    let started = thread.spawn(move || Monitor::new(cluster).run());
    started.map(|_| ()).map_err(|error| Error::Config(format!("no thread: {error}")))
}

struct Monitor {
    cluster: Arc<Cluster>,
    discover_at: Option<Instant>,
}

impl Monitor {
    fn new(cluster: Arc<Cluster>) -> Self {
        let discovers = cluster.config.discovery.is_some();
        let discover_at = discovers.then(|| clock::now() + cluster.config.discovery_every);
        Self { cluster, discover_at }
    }

    fn run(mut self) {
        while self.sleep() {
            let now = clock::now();
            if self.discover_at.is_some_and(|at| at <= now) {
                self.discover_at = Some(now + self.cluster.config.discovery_every);
                let cluster = Arc::clone(&self.cluster);
                // Two at a time do no harm: both put a fresh list in place.
                spawn(move || discover(&cluster));
            }
            let topology = self.cluster.topology();
            topology.all().for_each(|server| server.pool.prune(now));
            // Each in a thread of its own: one that does not answer must not hold up the others.
            for server in topology.all() {
                if self.due_at(server).is_some_and(|at| at <= now) {
                    if server.is_in_use() && server.is_heard.swap(false, Ordering::Relaxed) {
                        // Calls have checked it.
                        server.heard_now();
                        continue;
                    }
                    server.is_looked_after.store(true, Ordering::Release);
                    let (cluster, server) = (Arc::clone(&self.cluster), Arc::clone(server));
                    let looked_after = Arc::clone(&server);
                    let started = spawn(move || {
                        look_after(&cluster, &server);
                        server.is_looked_after.store(false, Ordering::Release);
                        cluster.wake_monitor();
                    });
                    if !started {
                        looked_after.health().probe_failed(now);
                        looked_after.heard_now();
                        looked_after.is_looked_after.store(false, Ordering::Release);
                    }
                }
            }
        }
    }

    /// Until something is due; false at the end.
    fn sleep(&self) -> bool {
        let mut ended = self.cluster.ended.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if *ended {
                return false;
            }
            // Under the lock: whoever ejects a server rings the bell under it too.
            let topology = self.cluster.topology();
            let due = topology.all().filter_map(|server| self.due_at(server));
            let next = due.chain(self.discover_at).min();
            let now = clock::now();
            let wait = next.map_or(SLEEP_MAX, |at| at.saturating_duration_since(now));
            if wait.is_zero() {
                return true;
            }
            let waited = self.cluster.bell.wait_timeout(ended, wait.min(SLEEP_MAX));
            ended = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn due_at(&self, server: &Server) -> Option<Instant> {
        if server.is_looked_after.load(Ordering::Acquire) {
            return None;
        }
        if !server.is_in_use() {
            return server.health().probe_at();
        }
        let heard_at = *server.heard_at.lock().unwrap_or_else(PoisonError::into_inner);
        self.cluster.config.check_every.map(|every| heard_at + every)
    }
}

/// Runs something beside the monitor.
fn spawn(work: impl FnOnce() + Send + 'static) -> bool {
    let thread = std::thread::Builder::new().name("distcache-probe".into());
    let started = thread.spawn(work);
    if let Err(error) = &started {
        log::warn!("no thread for a probe: {error}");
    }
    started.is_ok()
}

fn discover(cluster: &Cluster) {
    let config = &cluster.config;
    let Some(discovery) = &config.discovery else { return };
    let read = discovery.read(config).and_then(|nodes| cluster.set_servers(nodes));
    if let Err(error) = read {
        cluster.report(Event::DiscoveryFailed { cause: error.to_string() });
    }
}

fn look_after(cluster: &Cluster, server: &Server) {
    let limits = Limits {
        read: cluster.config.read_timeout,
        write: cluster.config.write_timeout,
        deadline: clock::now() + cluster.config.call_timeout,
    };
    if server.is_in_use() {
        return check(cluster, server);
    }
    let result = match ask_version(cluster, server, limits) {
        Ok(connection) => bring_back(cluster, server, connection),
        Err(error) => Err(error),
    };
    match result {
        Ok((keys_repaired, flushed)) => {
            cluster.counters.repaired.fetch_add(keys_repaired as u64, Ordering::Relaxed);
            let server = server.name.clone();
            cluster.report(Event::OnTrial { server, keys_repaired, flushed });
        }
        Err(error) => {
            server.health().probe_failed(clock::now());
            server.names.look_again();
            let cause = error.to_string();
            cluster.report(Event::ProbeFailed { server: server.name.clone(), cause });
        }
    }
}

/// Asks a server in use for a sign of life, on a connection that is there if one is free. What
/// comes of it is noted as for any other call.
fn check(cluster: &Cluster, server: &Server) {
    if !answers_beside_calls(cluster, server) {
        let version = ServerCommand::Version;
        // Its failure was noted where it failed.
        let _ = cluster.tell(server, version, Effect::Read, operation::version);
    }
    server.heard_now();
    // This was no call, and shall not stand for one at the next check.
    server.is_heard.store(false, Ordering::Relaxed);
}

/// On a connection of the asynchronous face. If not, that says nothing yet: the runtime may be the
/// one that does not go on.
#[cfg(feature = "tokio")]
fn answers_beside_calls(cluster: &Cluster, server: &Server) -> bool {
    let Some(answer) = server.lanes.answers(cluster.config.protocol()) else { return false };
    let answered = wait_until(Some(answer), clock::now() + cluster.config.read_timeout).is_some();
    if answered {
        cluster.succeeded(server);
    }
    answered
}

#[cfg(not(feature = "tokio"))]
fn answers_beside_calls(_: &Cluster, _: &Server) -> bool {
    false
}

/// A fresh connection on which the server has answered.
fn ask_version(cluster: &Cluster, server: &Server, limits: Limits) -> Result<Connection, Error> {
    let dialer = &cluster.dialer;
    let mut connection = Connection::open(&server.node, &server.names, dialer, limits.deadline)?;
    command(cluster, &mut connection, limits, ServerCommand::Version)?;
    server.let_in();
    Ok(connection)
}

fn command(
    cluster: &Cluster,
    connection: &mut Connection,
    limits: Limits,
    command: ServerCommand<'_>,
) -> Result<(), Error> {
    let protocol = cluster.config.protocol();
    let write = |opaque, out: &mut Vec<u8>| command.write(protocol, opaque, out);
    let call = connection.call(None, limits, write, &mut |reply| match reply {
        Reply::Version(_) | Reply::Ok => Ok(()),
        other => Err(Error::protocol("", format!("{other:?}"))),
    });
    match call {
        Call::Clean(result) => result,
        Call::Broken(error) => Err(error),
    }
}

/// Deletes what is out of date on a server that answers again, and lets it back in. Returns how
/// many keys that were and whether everything was flushed.
fn bring_back(
    cluster: &Cluster,
    server: &Server,
    mut connection: Connection,
) -> Result<(usize, bool), Error> {
    let (mut keys, mut flushed) = (0, false);
    for round in 0..=OPEN_ROUNDS_MAX {
        let mut health = server.health();
        if health.state() != State::Ejected {
            return Ok((keys, flushed));
        }
        if health.repairs.is_empty() {
            server.readmit(&mut health);
            return Ok((keys, flushed));
        }
        let repairs = std::mem::take(&mut health.repairs);
        // Writes that go elsewhere are remembered. From the last round on they fail, so that there
        // is an end; nothing waits for what is repaired meanwhile.
        health.is_closing = round == OPEN_ROUNDS_MAX;
        drop(health);
        flushed |= repairs.overflow;
        let repaired = repair(cluster, &mut connection, &repairs);
        if let Err(error) = repaired {
            let mut health = server.health();
            health.is_closing = false;
            health.repairs.overflow |= repairs.overflow;
            for (key, stand_ins) in repairs.keys {
                health.repairs.keys.entry(key).or_default().extend(stand_ins);
            }
            return Err(error);
        }
        keys += repairs.keys.len();
    }
    server.readmit(&mut server.health());
    Ok((keys, flushed))
}

fn repair(cluster: &Cluster, connection: &mut Connection, repairs: &Repairs) -> Result<(), Error> {
    let limits = || Limits {
        read: cluster.config.read_timeout,
        write: cluster.config.write_timeout,
        deadline: clock::now() + cluster.config.call_timeout,
    };
    if repairs.overflow {
        command(cluster, connection, limits(), ServerCommand::FlushAll { delay_seconds: 0 })?;
    } else {
        delete(connection, &repairs.keys.keys().collect::<Vec<_>>(), limits)?;
    }
    // What stood in must not be read at the next absence. If that fails, its short expiry is the
    // second net.
    for stand_in in cluster.topology().all() {
        let keys = repairs.keys.iter().filter(|(_, servers)| servers.contains(&stand_in.id));
        let keys: Vec<&WireKey<'_>> = keys.map(|(key, _)| key).collect();
        if !keys.is_empty() && stand_in.is_in_use() {
            let opened = ask_version(cluster, stand_in, limits());
            let deleted = opened.and_then(|mut connection| delete(&mut connection, &keys, limits));
            if let Err(error) = deleted {
                log::warn!("{}: its copies stay until they expire: {error}", stand_in.name);
            }
        }
    }
    Ok(())
}

fn delete(
    connection: &mut Connection,
    keys: &[&WireKey<'_>],
    limits: impl Fn() -> Limits,
) -> Result<(), Error> {
    for keys in keys.chunks(REPAIRS_PER_BATCH) {
        let keys = keys.iter().enumerate().map(|(at, key)| (at, (*key).clone())).collect();
        let batch = Batch::each(keys, connection.opaque(), |_| Command::Delete);
        let mut exchanges = [Exchange::new(connection, batch)];
        drive(&mut exchanges, limits(), &mut |_, _, reply| match reply {
            Reply::Deleted | Reply::NotFound | Reply::Done(_) => Ok(()),
            other => Err(Error::protocol("", format!("{other:?}"))),
        });
        let [exchange] = exchanges;
        exchange.failure.map_or(Ok(()), Err)?;
    }
    Ok(())
}
