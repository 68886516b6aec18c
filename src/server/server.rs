//! A running server: from settings to threads, and back.
//!
//! Owns the order of starting and stopping, and what an embedding program sees of it. Reads no
//! flags, handles no signals: that is `crate::daemon`.

use crate::durable;
use crate::limits::{SHARD_MEMORY_BYTES_MAX, SHARD_MEMORY_BYTES_MIN, SHARDS_MAX};
use crate::server::clock::Clock;
use crate::server::config::{Config, ConfigError, Listener};
use crate::server::connection::listener;
use crate::server::connection::listener::{Acceptor, Bound, Limits, WorkerQueue};
use crate::server::connection::login::{PasswordChecker, UserFile, Users};
use crate::server::connection::socket::Arrival;
use crate::server::connection::tls::{Tls, TlsError};
use crate::server::persistence::start::{self, Keeping, Opened};
use crate::server::shared::Shared;
use crate::server::stats::exporter;
use crate::server::stats::waiting::{Recovering, Waiting};
use crate::server::worker::inbox::{self, Address, Bell, Message};
use crate::server::worker::router::WorkerRouter;
use crate::server::worker::shards::Shards;
use crate::server::worker::turn::{Parts, Worker};
use crate::server::worker::{router, turn};
use crate::shard::{Rules, Shard};
use crate::store::Settings;
use crate::store::budget::Budget;
use crate::store::hash::KeyHasher;
use crossbeam::channel::{Receiver, Sender, bounded};
use mio::{Poll, Waker};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

/// Connections on their way to a worker.
const ARRIVALS_MAX: usize = 1024;

/// Random bits in the start of the segment sequence: enough that tokens of an earlier run do not
/// match, few enough that tokens stay below 2^53 for clients that read them as floating point.
const SEQUENCE_START_BITS: u32 = 20;

/// A running server. Stops when it is dropped.
///
/// ```
/// use distcache::server::Server;
/// use std::io::{BufRead, BufReader, Write};
///
/// let server = Server::bind("127.0.0.1:0")?;
/// let mut client = std::net::TcpStream::connect(server.addresses()[0])?;
/// client.write_all(b"version\r\n")?;
/// let mut line = String::new();
/// BufReader::new(client).read_line(&mut line)?;
/// assert!(line.starts_with("VERSION 1.6"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Server {
    addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
    /// Of the threads that accept connections and serve metrics.
    wakers: Vec<Waker>,
    metrics_address: Option<SocketAddr>,
    bells: Vec<Arc<Bell>>,
    threads: Vec<JoinHandle<()>>,
    keeping: Option<Keeping>,
}

/// Why a server did not start.
#[derive(Debug)]
pub enum StartError {
    /// The settings contradict each other; the text names the flag to change.
    Config(ConfigError),
    /// An address could not be resolved or bound, or the system refused a resource.
    Io(io::Error),
    /// The data directory cannot be used; the text names the file.
    Data(durable::Error),
    /// A file that a flag names cannot be used: the flag, the file, and why.
    File(&'static str, PathBuf, io::Error),
    /// Certificates cannot be used; the text names the file.
    Tls(TlsError),
}

impl fmt::Display for StartError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(out),
            Self::Io(error) => error.fmt(out),
            Self::Data(error) => error.fmt(out),
            Self::Tls(error) => error.fmt(out),
            Self::File(flag, path, why) => write!(out, "{flag} {}: {why}", path.display()),
        }
    }
}

impl std::error::Error for StartError {}

impl From<ConfigError> for StartError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<TlsError> for StartError {
    fn from(error: TlsError) -> Self {
        Self::Tls(error)
    }
}

impl From<durable::Error> for StartError {
    fn from(error: durable::Error) -> Self {
        Self::Data(error)
    }
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What `shutdown` does; the argument says whether gracefully.
pub type StopHook = Box<dyn Fn(bool) + Send + Sync>;

/// What happens when changes cannot be made safe and must not be served either.
pub type FatalHook = Box<dyn Fn() + Send + Sync>;

/// What the process around a server does for it.
#[derive(Default)]
pub struct Hooks {
    /// Without one, `shutdown` stops the server.
    pub stop: Option<StopHook>,
    /// Without one, the server stops.
    pub fatal: Option<FatalHook>,
    /// The socket for metrics, if it is bound already.
    pub metrics: Option<TcpListener>,
    /// Certificates that the process has read while it might. Without, the server reads them.
    pub tls: Option<Tls>,
    /// Set by somebody who wants the end while data is being recovered.
    pub stop_recovery: Option<Arc<AtomicBool>>,
}

impl Server {
    /// Starts a server with default settings at an address such as `"localhost:2050"`; port 0 takes
    /// a free one.
    ///
    /// # Errors
    /// The address does not resolve or cannot be bound.
    pub fn bind(address: impl ToSocketAddrs) -> Result<Self, StartError> {
        // A name may stand for several addresses; one of them is meant.
        let mut last_error = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in address.to_socket_addrs()? {
            let listeners = vec![Listener::Tcp(address)];
            let config = Config { listeners, ..Config::default() };
            match listener::bind(&config) {
                Ok(bound) => return Self::start_bound(config, bound, Hooks::default()),
                Err(error) => last_error = error,
            }
        }
        Err(last_error.into())
    }

    /// Starts a server.
    ///
    /// # Errors
    /// The settings contradict each other, or an address cannot be bound.
    pub fn start(config: Config) -> Result<Self, StartError> {
        config.check()?;
        let bound = listener::bind(&config)?;
        Self::start_bound(config, bound, Hooks::default())
    }

    /// Starts a server on sockets that are bound already. If data is kept, it is recovered first:
    /// clients that try to connect meanwhile are refused.
    ///
    /// # Errors
    /// The settings contradict each other, the data directory cannot be used, or the system refuses
    /// polls or threads.
    pub fn start_bound(
        config: Config,
        bound: Vec<Bound>,
        mut hooks: Hooks,
    ) -> Result<Self, StartError> {
        config.check()?;
        let metrics = match hooks.metrics.take() {
            Some(listener) => Some(listener),
            None => exporter::bind(&config)?,
        };
        let addresses = bound.iter().filter_map(Bound::tcp_address).collect();
        let listeners = bound.iter().map(Bound::describe).collect();
        let clock = Clock::start();
        hooks.tls = open_tls(&config, &bound, hooks.tls, clock)?;
        let (users, checker) = open_users(&config)?;
        let stop = hooks.stop_recovery.take().unwrap_or_default();
        let count = shard_count_for(&config);
        let opened = config.durability.as_ref();
        let opened = opened.map(|settings| {
            let recovering = Arc::new(Recovering::default());
            // Until the data is there, the port of the metrics says so.
            let waiting = metrics.as_ref().map(|at| Waiting::start(at, Arc::clone(&recovering)));
            let _waiting = waiting.transpose()?;
            let opened = start::open(settings, &config, count, clock, (stop, recovering));
            opened.map_err(StartError::from)
        });
        let mut opened = opened.transpose()?;
        let durability = opened.as_ref().map(|opened| Arc::clone(&opened.durability));
        let budget = match &opened {
            Some(opened) => opened.budget(),
            None => Budget::new(config.memory_bytes_max, count),
        };
        let shared =
            Arc::new(Shared::new(config, clock, budget, listeners, durability, users, hooks));
        load_cluster(&shared)?;
        let Workers { queues, parts, addresses: addresses_of_workers, shards } =
            make_workers(&shared, opened.as_mut())?;
        let limits = Limits {
            connections_max: shared.config.connections_max,
            refuse_fast: shared.config.connections_refuse_fast,
        };
        let bells = queues.iter().map(|queue| Arc::clone(&queue.bell)).collect();
        let (acceptor, acceptor_waker) = Acceptor::new(bound, queues, Arc::clone(&shared), limits)?;
        let threads = Vec::new();
        let (wakers, metrics_address, keeping) = (vec![acceptor_waker], None, None);
        let mut server =
            Self { addresses, shared, wakers, metrics_address, bells, threads, keeping };
        if let Some(listener) = metrics {
            server.export(listener, addresses_of_workers.clone(), Arc::clone(&shards))?;
        }
        if let Some(checker) = checker {
            let workers = addresses_of_workers.clone();
            // Not waited for: it ends when the last worker has let go of the users.
            std::thread::Builder::new()
                .name("login".to_owned())
                .spawn(move || checker.run(&workers))?;
        }
        let keeping = opened.map(|it| it.start(&server.shared, &shards, addresses_of_workers));
        server.keeping = keeping.transpose()?;
        for (id, parts) in parts.into_iter().enumerate() {
            let worker = Worker::new(parts);
            server.spawn(format!("worker-{id}"), move || worker.run())?;
        }
        server.spawn("listener".to_owned(), move || acceptor.run())?;
        Ok(server)
    }

    fn export(
        &mut self,
        listener: TcpListener,
        workers: Vec<Address>,
        shards: Arc<Shards>,
    ) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let (exporter, address, waker) =
            exporter::Exporter::new(listener, workers, shards, shared)?;
        log::info!("metrics at http://{address}/metrics");
        self.metrics_address = Some(address);
        self.wakers.push(waker);
        self.spawn("metrics".to_owned(), move || exporter.run())
    }

    fn spawn(&mut self, name: String, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let thread = std::thread::Builder::new().name(name).spawn(run)?;
        self.threads.push(thread);
        Ok(())
    }

    /// The TCP addresses it listens on, with the ports it got.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The settings it was started with.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Where it listens: `tcp:127.0.0.1:11211`, `unix:/run/cache`.
    pub fn listeners(&self) -> Vec<&str> {
        self.shared.listeners.iter().map(|(_, place)| place.as_str()).collect()
    }

    /// Where it serves metrics, if it does.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Ends the server at once. Connections are closed; what was not answered may or may not have
    /// been done.
    pub fn stop(self) {
        drop(self);
    }

    /// Ends the server after answering what it has received, for at most a few seconds.
    pub fn stop_gracefully(mut self) {
        self.end(true);
    }

    /// For others to see whether the workers are alive.
    pub fn pulse(&self) -> Pulse {
        Pulse(Arc::clone(&self.shared))
    }

    /// Reads the files of users, certificates and the cluster again. What cannot be read stays as
    /// it was, and the log says why. Answers whether there was anything to read.
    pub fn reload(&self) -> bool {
        let shared = &self.shared;
        if let Some(users) = &shared.users {
            match users.reload() {
                Ok(()) => {
                    for file in users.files() {
                        log::info!("read {} again", file.path.display());
                    }
                }
                Err((file, why)) => {
                    let (named_by, path) = (file.named_by, file.path.display());
                    log::warn!("{named_by} {path}: {why}; users stay");
                }
            }
        }
        match shared.refresh_certificates() {
            Some(Ok(())) => log::info!("read the certificates again"),
            Some(Err(why)) => log::warn!("{why}; certificates stay as they were"),
            None => {}
        }
        if let Err(why) = load_cluster(shared) {
            log::warn!("{why}; the cluster stays as it was");
        }
        shared.users.is_some() || shared.tls.is_some() || shared.config.cluster_file.is_some()
    }

    /// Whether there is a data directory.
    pub fn keeps_data(&self) -> bool {
        self.keeping.is_some()
    }

    /// Writes a snapshot and waits until it is safe.
    ///
    /// # Errors
    /// Why there is none: the server keeps no data, or the disk refused.
    pub fn snapshot(&self) -> Result<(), String> {
        match &self.keeping {
            Some(keeping) => keeping.snapshot(),
            None => Err("the server keeps no data".to_owned()),
        }
    }

    fn end(&mut self, gracefully: bool) {
        self.shared.stop(gracefully);
        // A thread that is not woken notices at its next tick.
        for waker in &self.wakers {
            let _ = waker.wake();
        }
        for bell in &self.bells {
            let _ = bell.waker.wake();
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a thread of the server ended in a panic");
            }
        }
        if let Some(keeping) = self.keeping.take() {
            keeping.end();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end(false);
    }
}

/// Whether a server's workers are alive.
pub struct Pulse(Arc<Shared>);

impl Pulse {
    /// Every worker has taken a turn since the last call, which they do several times a second.
    pub fn beats(&self) -> bool {
        self.0.all_alive()
    }

    /// The server has been told to end.
    pub fn is_over(&self) -> bool {
        self.0.stopping()
    }
}

fn open_users(config: &Config) -> Result<(Option<Users>, Option<PasswordChecker>), StartError> {
    let file = |path: &Option<PathBuf>, named_by, is_password_database| {
        path.clone().map(|path| UserFile { path, named_by, is_password_database })
    };
    let sasl_file = file(&config.sasl_file, "MEMCACHED_SASL_PWDB", true).filter(|_| config.sasl);
    let files: Vec<_> = file(&config.auth_file, "-Y", false).into_iter().chain(sasl_file).collect();
    if files.is_empty() {
        return Ok((None, None));
    }
    match Users::open(files) {
        Ok((users, checker)) => Ok((Some(users), Some(checker))),
        Err((file, why)) => Err(StartError::File(file.named_by, file.path, why)),
    }
}

/// The certificates, read now unless they were before.
fn open_tls(
    config: &Config,
    bound: &[Bound],
    opened: Option<Tls>,
    clock: Clock,
) -> Result<Option<Tls>, StartError> {
    let tls = match (opened, &config.tls) {
        (Some(tls), _) => Some(tls),
        (None, Some(settings)) => Some(Tls::open(settings)?),
        (None, None) => None,
    };
    match &tls {
        Some(tls) => tls.note_refreshed(clock.now().seconds()),
        None if bound.iter().any(|bound| matches!(bound, Bound::Tls(..))) => {
            return Err(ConfigError::NoCertificate.into());
        }
        None => {}
    }
    Ok(tls)
}

fn load_cluster(shared: &Shared) -> Result<(), StartError> {
    let Some(path) = &shared.config.cluster_file else { return Ok(()) };
    let loaded = shared.compat_settings.load_cluster(path);
    loaded.map_err(|why| StartError::File("--cluster-file", path.clone(), why))
}

/// One worker's ends of the channels.
struct Wiring {
    poll: Poll,
    bell: Arc<Bell>,
    inbox: (Sender<Message>, Receiver<Message>),
    arrivals: (Sender<Arrival>, Receiver<Arrival>),
}

fn wire(worker_count: usize) -> io::Result<Wiring> {
    let poll = Poll::new()?;
    let waker = Waker::new(poll.registry(), turn::WAKER)?;
    Ok(Wiring {
        poll,
        bell: Arc::new(Bell::new(waker)),
        inbox: bounded(inbox::inbox_capacity(worker_count)),
        arrivals: bounded(ARRIVALS_MAX),
    })
}

/// The workers before they run.
struct Workers {
    /// Where connections go.
    queues: Vec<WorkerQueue>,
    /// What they are made of.
    parts: Vec<Parts>,
    /// How to reach them.
    addresses: Vec<Address>,
    /// What they execute on.
    shards: Arc<Shards>,
}

fn make_workers(shared: &Arc<Shared>, opened: Option<&mut Opened>) -> io::Result<Workers> {
    let config = &shared.config;
    let rules = Rules {
        item_bytes_max: config.item_bytes_max,
        cas: config.cas,
        prefix_delimiter: config.prefix_delimiter,
    };
    let (shards, hasher) = make_shards(shared, rules, opened)?;
    let wirings: Vec<Wiring> =
        (0..config.workers).map(|_| wire(config.workers)).collect::<io::Result<_>>()?;
    let bells: Vec<_> = wirings.iter().map(|wiring| Arc::clone(&wiring.bell)).collect();
    let shards = Arc::new(Shards::new(shards, bells));
    let addresses: Vec<Address> = wirings
        .iter()
        .map(|wiring| Address { inbox: wiring.inbox.0.clone(), bell: Arc::clone(&wiring.bell) })
        .collect();
    let queues = wirings
        .iter()
        .map(|wiring| WorkerQueue {
            arrivals: wiring.arrivals.0.clone(),
            bell: Arc::clone(&wiring.bell),
        })
        .collect();
    let parts = wirings.into_iter().enumerate().map(|(id, wiring)| {
        let router = WorkerRouter::new(router::Parts {
            id,
            shards: Arc::clone(&shards),
            hasher: hasher.clone(),
            rules,
            workers: addresses.clone(),
            shared: Arc::clone(shared),
        });
        Parts {
            poll: wiring.poll,
            bell: wiring.bell,
            inbox: wiring.inbox.1,
            arrivals: wiring.arrivals.1,
            router,
            shared: Arc::clone(shared),
        }
    });
    let parts = parts.collect();
    Ok(Workers { queues, parts, addresses, shards })
}

/// The shards, empty or as recovered, and the hash that spreads keys over them.
fn make_shards(
    shared: &Shared,
    rules: Rules,
    opened: Option<&mut Opened>,
) -> io::Result<(Vec<Shard>, KeyHasher)> {
    let Shared { config, budget, .. } = shared;
    let mut shards = Vec::new();
    let hasher = match opened {
        Some(opened) => {
            shards.extend(opened.take_shards().map(|opened| {
                let mut shard = Shard::with_store(opened.store, rules);
                shard.record_in(opened.journal, opened.flush_at);
                shard
            }));
            opened.hasher.clone()
        }
        None => {
            let secrets = random_words()?;
            let hasher = KeyHasher::new([secrets[0], secrets[1]]);
            let count = shard_count_for(config);
            let settings = Settings {
                budget: Arc::clone(budget),
                evict: config.evict,
                hasher: hasher.clone(),
                sequence_start: secrets[2] >> (u64::BITS - SEQUENCE_START_BITS),
            };
            shards.extend((0..count).map(|_| Shard::new(settings.clone(), rules)));
            hasher
        }
    };
    shards.iter_mut().for_each(|shard| shard.set_detail(config.detail));
    Ok((shards, hasher))
}

/// More shards than workers, so that these seldom meet, and not many more: what a pipeline asks of
/// one shard is brought from memory together, and every shard writes to a segment of its own. Each
/// has to hold a few of the largest items, and has no more memory than it can number segments in.
/// A worker alone needs one, unless there is a data directory, which keeps its number when there
/// are more workers later.
fn shard_count_for(config: &Config) -> usize {
    let wanted = match config.workers {
        1 if config.durability.is_none() => 1,
        workers => (workers + 1).next_power_of_two(),
    };
    let needed = config.memory_bytes_max.div_ceil(SHARD_MEMORY_BYTES_MAX);
    let needed = usize::try_from(needed).unwrap_or(SHARDS_MAX).next_power_of_two();
    let wanted = wanted.max(needed).min(SHARDS_MAX);
    let bytes_min = SHARD_MEMORY_BYTES_MIN.max(u64::from(config.item_bytes_max) * 4);
    let room_for = usize::try_from(config.memory_bytes_max / bytes_min).unwrap_or(usize::MAX);
    let room_for = room_for.max(1);
    // The largest power of two that fits.
    wanted.min(if room_for.is_power_of_two() { room_for } else { room_for.next_power_of_two() / 2 })
}

fn random_words() -> io::Result<[u64; 3]> {
    let mut words = [0; 3];
    for word in &mut words {
        *word = getrandom::u64().map_err(io::Error::other)?;
    }
    Ok(words)
}
