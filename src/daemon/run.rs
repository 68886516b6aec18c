//! A server as a daemon: takes parsed flags, puts the steps of starting and stopping in order, and
//! waits for signals between the two.
//!
//! Owns that order and nothing else: the steps themselves are in `os`, the sockets and the work in
//! `crate::server`. Programs that embed a server start it directly and never come here: this module
//! changes the whole process (identity, signals, log).

use std::io::{self, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use env_logger::Target;
use log::{LevelFilter, info, warn};

use super::{background, systemd};
use crate::daemon::log_file::LogFile;
use crate::daemon::options::Settings;
use crate::daemon::os::{self, Exit, Order, Signalled};
use crate::durable::{self, ErrorKind};
use crate::server::config::{self, Config, Listener};
use crate::server::connection::listener::{self, Bound};
use crate::server::connection::tls::Tls;
use crate::server::stats::exporter;
use crate::server::{Hooks, Server, StartError};

/// Files the process opens beside connections: standard streams, log, pid file, signal pipe,
/// listeners, and some to spare for what a library opens in passing.
const DESCRIPTORS_BASE: u64 = 32;

/// Files of a data directory that are open at a time, at most: the directory and its lock, logs
/// that are not synced yet, the one that comes next, a snapshot, and what is looked at in passing.
const DESCRIPTORS_DATA: u64 = 32;

/// Files each worker opens for itself: its poll, its waker, and some to spare.
const DESCRIPTORS_PER_WORKER: u64 = 4;

/// Serves until a signal says stop. Returns the exit code: 0 after a stop, one of `os`'s codes when
/// the start failed, which has been explained on standard error by then.
pub fn run(settings: Settings) -> ExitCode {
    if settings.process.daemonize && !background::is_waited_for() {
        return background::start(&settings.words).unwrap_or_else(|exit| report(&exit));
    }
    let log_file = match start_log(settings.config.verbosity, settings.process.log_file.clone()) {
        Ok(log_file) => log_file,
        Err(exit) => return report(&exit),
    };
    for warning in &settings.warnings {
        warn!("{warning}");
    }
    match serve(settings, log_file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => report(&exit),
    }
}

/// Explains on standard error why the process ends, and returns its exit code.
pub fn report(exit: &Exit) -> ExitCode {
    // Standard error may be closed, and then there is nobody left to tell.
    let _ = writeln!(std::io::stderr(), "{exit}");
    ExitCode::from(exit.code)
}

/// RUST_LOG wins; else `-v` decides: warnings, with each `-v` then information, commands, all.
fn start_log(verbosity: u8, path: Option<PathBuf>) -> Result<Option<LogFile>, Exit> {
    let level = config::log_level(usize::from(verbosity));
    let mut builder = env_logger::Builder::new();
    builder.filter_level(level).filter_module(ANNOUNCED, LevelFilter::Info).parse_default_env();
    let mut log_file = None;
    if let Some(path) = path {
        // -d moves to `/`, from where it is opened again.
        let path = std::path::absolute(&path).unwrap_or(path);
        let refused = |why| Exit::os(format!("--log-file: {}: {why}", path.display()));
        let file = LogFile::open(path.clone()).map_err(refused)?;
        builder.target(Target::Pipe(Box::new(file.clone())));
        log_file = Some(file);
    }
    // Only fails when a log is there already, and then that one is used.
    let _ = builder.try_init();
    Ok(log_file)
}

/// The steps in order.
fn serve(settings: Settings, log_file: Option<LogFile>) -> Result<(), Exit> {
    let Settings { mut config, mut process, .. } = settings;
    if process.daemonize && !process.core_dumps {
        // The daemon works in `/`, but names on the command line were meant from here.
        make_paths_absolute(&mut config, &mut process.pid_file);
    }
    if process.core_dumps {
        os::allow_core_dumps()?;
    }
    let identity = os::identity(process.user.as_deref())?;
    allow_descriptors(&mut config)?;
    let workers = u64::try_from(config.workers).unwrap_or(u64::MAX);
    os::check_address_space(config.memory_bytes_max, workers)?;

    // The key may be one that only root can read.
    let tls = config.tls.as_ref().map(Tls::open).transpose();
    let tls = tls.map_err(|why| Exit::usage(why.to_string()))?;
    if let (Some(identity), Some(kept)) = (&identity, &config.durability) {
        // What goes wrong here is said when the directory is opened.
        let _ = identity.make_directory(&kept.directory);
    }
    let bound = bind_as(identity.as_ref(), &config)?;
    let metrics = exporter::bind(&config).map_err(|why| {
        Exit::os(format!("failed to listen for --metrics-address: {why}{}", hint_of(&why)))
    })?;
    if process.lock_memory {
        os::lock_memory();
    }

    let orders = Orders::listen(log_file)?;
    let port_file = config.port_file.clone();
    let snapshot_on_exit = config.durability.as_ref().is_some_and(|kept| kept.snapshot_on_exit);
    let keep_errors = 0 < config.verbosity && orders.log_file.is_none();
    let server = start(config, bound, metrics, tls, orders.signalled.asked())?;
    let pid_file = process.pid_file.as_deref().and_then(os::PidFile::write);
    if let Some(path) = port_file {
        write_port_file(&path, &server);
    }
    systemd::send_signs_of_life(&server);
    systemd::ready();
    announce(&server, identity.as_ref(), orders.log_file.is_some());
    if process.daemonize {
        background::detach(process.core_dumps, keep_errors)?;
    }
    orders.wait_and_stop(server, snapshot_on_exit);
    // Without -d memcached leaves the file, and a supervisor may look for it there.
    if let Some(file) = pid_file.filter(|_| process.daemonize) {
        file.remove();
    }
    Ok(())
}

/// Where the line that says "ready" is logged, at whatever `-v`.
const ANNOUNCED: &str = "distcached::ready";

/// Says in one line what has been started, to whoever started it, and to the log file.
fn announce(server: &Server, identity: Option<&os::Identity>, to_log_file: bool) {
    let (own, config) = (env!("CARGO_PKG_VERSION"), server.config());
    let places = server.listeners().join(", ");
    let places = if places.is_empty() { "nowhere".to_owned() } else { places };
    let (memory, threads) = (config.memory_bytes_max >> 20, config.workers);
    let data = match &config.durability {
        Some(kept) => format!("data in {}", kept.directory.display()),
        None => "data is not kept (--data-dir keeps it)".to_owned(),
    };
    let user = identity.map(|identity| format!(", as user {}", identity.name()));
    let user = user.unwrap_or_default();
    let compat = config::COMPAT_VERSION;
    let line = format!(
        "distcached {own} (as memcached {compat}) ready: {places}; {memory} MB of memory, \
         {threads} threads; {data}{user}"
    );
    if to_log_file {
        info!(target: ANNOUNCED, "{line}");
    }
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Listens and becomes the user who serves. Ports below 1024 need root; socket files are to belong
/// to the user we become. Sockets that a service manager hands over replace all of ours.
fn bind_as(identity: Option<&os::Identity>, config: &Config) -> Result<Vec<Bound>, Exit> {
    let become_user = || identity.map_or(Ok(()), os::drop_privileges);
    let inherited = systemd::inherited_listeners(config);
    let inherited = inherited.map_err(|why| Exit::os(format!("LISTEN_FDS: {why}")))?;
    if !inherited.is_empty() {
        info!("listening on {} sockets of the service manager, not on -l, -p, -s", inherited.len());
        become_user()?;
        return Ok(inherited);
    }
    if config.listeners.iter().any(|at| matches!(at, Listener::Unix(..))) {
        become_user()?;
        return bind(config);
    }
    let bound = bind(config)?;
    become_user()?;
    Ok(bound)
}

fn make_paths_absolute(config: &mut Config, pid_file: &mut Option<PathBuf>) {
    let sockets = config.listeners.iter_mut().filter_map(|at| match at {
        Listener::Unix(path, _) => Some(path),
        Listener::Tcp(_) | Listener::Tls(..) => None,
    });
    let data = config.durability.iter_mut().map(|settings| &mut settings.directory);
    let tls = config
        .tls
        .iter_mut()
        .flat_map(|tls| [&mut tls.chain_cert, &mut tls.key].into_iter().chain(&mut tls.ca_cert));
    let users = config.auth_file.iter_mut().chain(&mut config.sasl_file);
    let read = users.chain(&mut config.cluster_file).chain(tls);
    for path in sockets.chain(pid_file).chain(&mut config.port_file).chain(data).chain(read) {
        match std::path::absolute(&*path) {
            Ok(absolute) => *path = absolute,
            Err(why) => warn!("{}: {why}; it will be taken from /", path.display()),
        }
    }
}

fn allow_descriptors(config: &mut Config) -> Result<(), Exit> {
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let workers = count(config.workers).saturating_mul(DESCRIPTORS_PER_WORKER);
    let metrics = config.metrics_address.map_or(0, |_| exporter::DESCRIPTORS);
    let data = config.durability.as_ref().map_or(0, |_| DESCRIPTORS_DATA);
    let reserve = DESCRIPTORS_BASE + count(config.listeners.len()) + workers + metrics + data;
    let connections = os::allow_descriptors(count(config.connections_max), reserve)?;
    config.connections_max = usize::try_from(connections).unwrap_or(config.connections_max);
    Ok(())
}

/// Listens everywhere `config` says.
fn bind(config: &Config) -> Result<Vec<Bound>, Exit> {
    let is_unix = |at: &Listener| matches!(at, Listener::Unix(..));
    let refused = |why: io::Error| {
        let has_unix = config.listeners.iter().any(is_unix);
        let hint = if has_unix { String::new() } else { hint_of(&why) };
        Exit::os(format!("{}: {why}{hint}", what_failed(config)))
    };
    listener::bind(config).map_err(refused)
}

/// What to do about an address that cannot be listened on, in a line of its own.
fn hint_of(why: &io::Error) -> String {
    match why.kind() {
        io::ErrorKind::AddrInUse => format!(
            "\nanother program listens there (\"{}\" shows which): end it, or choose another \
             port with -p",
            os::LIST_LISTENERS
        ),
        io::ErrorKind::AddrNotAvailable => format!(
            "\nthis machine has no such address (\"{}\" shows those it has)",
            os::LIST_ADDRESSES
        ),
        io::ErrorKind::PermissionDenied => {
            "\nports below 1024 are root's: start as root, or choose another port with -p"
                .to_owned()
        }
        _ => String::new(),
    }
}

/// The words before the reason, as memcached has them: scripts look for them.
fn what_failed(config: &Config) -> String {
    let unix = config.listeners.iter().find_map(|at| match at {
        Listener::Unix(path, _) => Some(path),
        Listener::Tcp(_) | Listener::Tls(..) => None,
    });
    match (unix, &config.accepted_only.inter) {
        (Some(path), _) => format!("failed to listen on UNIX socket: {}", path.display()),
        (None, Some(list)) => format!("failed to listen on one of interface(s) {list}"),
        (None, None) => {
            format!("failed to listen on TCP port {}", config.accepted_only.tcp_port)
        }
    }
}

fn start(
    config: Config,
    bound: Vec<Bound>,
    metrics: Option<TcpListener>,
    tls: Option<Tls>,
    stop_recovery: Arc<AtomicBool>,
) -> Result<Server, Exit> {
    let hooks = Hooks {
        stop_recovery: Some(stop_recovery),
        metrics,
        stop: Some(Box::new(os::ask_to_stop)),
        fatal: Some(Box::new(|| std::process::exit(os::EX_IOERR.into()))),
        tls,
    };
    let directory = config.durability.as_ref().map(|kept| kept.directory.clone());
    let directory = directory.unwrap_or_default();
    Server::start_bound(config, bound, hooks).map_err(|why| match why {
        StartError::Data(why) => refuse_data(&why, &directory),
        why => Exit::failure(format!("failed to start: {why}")),
    })
}

/// The exit code and the next step for each kind of trouble with the data directory.
fn refuse_data(why: &durable::Error, directory: &Path) -> Exit {
    let at = directory.display();
    let (code, hint) = match why.kind {
        ErrorKind::Damaged => (
            os::EX_DATAERR,
            format!(
                "look at it with \"distcached check {at}\"; --recover=salvage starts with what is \
                 intact, --recover=discard starts empty"
            ),
        ),
        ErrorKind::OtherVersion => {
            (os::EX_CONFIG, "use that version, or another --data-dir".to_owned())
        }
        ErrorKind::Memory => (os::EX_CONFIG, "see -m and -M".to_owned()),
        ErrorKind::Interrupted => (0, "nothing was changed".to_owned()),
        ErrorKind::InUse => {
            (os::EX_TEMPFAIL, "end the other process, or use another --data-dir".to_owned())
        }
        ErrorKind::Io => (os::EX_IOERR, os::what_to_do_about(directory)),
    };
    Exit { code, message: format!("failed to use the data directory: {why}\n{hint}") }
}

fn write_port_file(path: &Path, server: &Server) {
    if let Err(why) = os::write_port_file(path, server.addresses()) {
        warn!("failed to write the ports file {}: {why}", path.display());
    }
}

/// What is told from outside, and the log file that is opened again on SIGHUP.
struct Orders {
    signalled: Signalled,
    log_file: Option<LogFile>,
}

impl Orders {
    fn listen(log_file: Option<LogFile>) -> Result<Self, Exit> {
        let refused = |why: io::Error| Exit::os(format!("cannot listen for signals: {why}"));
        Ok(Self { signalled: Signalled::listen().map_err(refused)?, log_file })
    }

    /// Blocks until an order ends the server, then ends it.
    fn wait_and_stop(mut self, server: Server, snapshot_on_exit: bool) {
        let stopping = self.signalled.stopping();
        let mut graceful = false;
        for order in self.signalled.orders() {
            match order {
                Order::Reload => {
                    self.log_file.iter().for_each(reopen);
                    if !server.reload() && self.log_file.is_none() {
                        info!("SIGHUP: there is nothing to reload, going on");
                    }
                    continue;
                }
                Order::StopGracefully => {
                    warn!("SIGUSR1: gracefully stopping");
                    graceful = true;
                }
                Order::Stop(signal) => info!("signal {signal}: stopping"),
            }
            break;
        }
        stopping.store(true, Ordering::Relaxed);
        systemd::stopping();
        last_snapshot(&server, snapshot_on_exit);
        if graceful { server.stop_gracefully() } else { server.stop() }
    }
}

fn reopen(log_file: &LogFile) {
    match log_file.reopen() {
        Ok(()) => info!("SIGHUP: the log goes on here"),
        Err(why) => {
            let path = log_file.path().display();
            warn!("{path} cannot be opened again: {why}; the log goes on in the old file");
        }
    }
}

/// A snapshot makes the next start quick. Nothing is lost without one: the logs have it all.
fn last_snapshot(server: &Server, wanted: bool) {
    if wanted && let Err(why) = server.snapshot() {
        warn!("no last snapshot: {why}");
    }
}
