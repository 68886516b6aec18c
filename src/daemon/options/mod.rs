//! The command line: memcached's flags, read into [`Settings`] the way getopt reads them.
//!
//! Owns what each flag is called, which values it takes, what it means here, and the help text.
//! [`parse_in`] is a pure function: the environment variables, the number of cores and the name
//! service it needs come in as [`Surroundings`], and what is to be said is in the value it returns.
//! Never prints, logs or exits, and leaves no file or socket open.
//!
//! A flag falls into one of three groups:
//!
//! - heeded: changes the [`Config`], and is listed by `-h`;
//! - accepted: about slabs, LRUs or hash tables, which do not exist here. Checked as memcached
//!   checks it, shown by `stats settings`, named in one warning, not listed by `-h`;
//! - refused: ignoring it would be dangerous. `NOT_OFFERED` has them all.

mod durability;
mod extended;
mod file;
mod listen;
mod observe;
#[cfg(test)]
mod tests;
mod tls;
mod values;

use std::ffi::{OsStr, OsString};
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

pub use crate::daemon::os::Exit;
use crate::server::config::{
    AcceptedOnly, COMPAT_VERSION, Config, ConfigError, Listener, PORT_DEFAULT, Protocol,
    WORKERS_LIMIT,
};
use durability::DurabilityDraft;
use tls::TlsDraft;
use values::{
    auth_file, backlog, chunk_size, cluster_file, connections, growth_factor, item_bytes,
    listen_on, memory, napi_ids, pid_file, prefix_delimiter, protocol, requests_per_turn, tcp_port,
    udp_port, unix_mode, unix_socket, user, workers,
};

/// What the flags ask for.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Serve.
    Run(Box<Settings>),
    /// Write this text to standard output and exit with 0 (`-h`, `-V`, `-i`).
    Print(String),
}

/// Everything the flags say.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// For the server itself.
    pub config: Config,
    /// For the process around it.
    pub process: ProcessSettings,
    /// One line each, to be logged as warnings once there is a log.
    pub warnings: Vec<String>,
}

/// What to do to the process before it serves. A program that embeds a server has no use for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessSettings {
    /// Go to the background (`-d`).
    pub daemonize: bool,
    /// Write the process number there (`-P`).
    pub pid_file: Option<PathBuf>,
    /// `--log-file`: where the log goes instead of standard error.
    pub log_file: Option<PathBuf>,
    /// Become this user when started as root (`-u`).
    pub user: Option<String>,
    /// Keep all memory from being paged out (`-k`).
    pub lock_memory: bool,
    /// Raise the core file limit, and stay in the working directory with `-d` (`-r`).
    pub core_dumps: bool,
}

/// What the meaning of flags depends on beside the flags.
pub struct Surroundings<'a> {
    /// `MEMCACHED_PORT_FILENAME`, where test tools want the ports.
    pub port_file: Option<PathBuf>,
    /// `MEMCACHED_SASL_PWDB`, where memcached's `-S` finds users.
    pub sasl_file: Option<PathBuf>,
    /// How many threads the machine runs at a time: the default of `-t`.
    pub cores: usize,
    /// Whether the machine has IPv6. If not, it is quietly left out of "all interfaces" and out
    /// of the addresses of a name.
    pub ipv6: bool,
    /// The addresses of a host name, with the port filled in.
    pub resolve: &'a dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>>,
}

impl Surroundings<'_> {
    /// Those of this process, as they are now.
    pub fn of_this_process() -> Self {
        Self {
            port_file: std::env::var_os("MEMCACHED_PORT_FILENAME").map(PathBuf::from),
            sasl_file: std::env::var_os("MEMCACHED_SASL_PWDB").map(PathBuf::from),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            // A kernel can know the protocol with no address configured, as in many containers,
            // so trying the loopback address is the only sure way to tell.
            ipv6: TcpListener::bind("[::1]:0").is_ok(),
            resolve: &|host, port| Ok((host, port).to_socket_addrs()?.collect()),
        }
    }
}

/// What memcached offers and this server does not (yet), where going on regardless would open a
/// cache that was meant to be closed, lose data that was meant to be kept, or answer in the wrong
/// protocol. By the flag as it is written; a final `*` stands for any ending. A feature that
/// arrives deletes its rows and gives its flags an effect in the tables.
const NOT_OFFERED: [(&str, &str); 5] = [
    ("-e", "items would not survive the restart"),
    ("-o ext_path", "items have to fit in memory; drop the option and set -m accordingly"),
    ("-o proxy_*", "this server keeps items itself and does not pass requests on"),
    ("-o sock_cookie_id", "sockets would go unmarked, and firewall rules would miss them"),
    ("-l proto[proxy]", "this server keeps items itself and does not pass requests on"),
];

/// Refuses what [`NOT_OFFERED`] lists.
fn refuse_not_offered(flag: &str) -> Result<(), Exit> {
    let matches = |row: &&(&str, &str)| match row.0.strip_suffix('*') {
        Some(start) => flag.starts_with(start),
        None => flag == row.0,
    };
    match NOT_OFFERED.iter().find(matches) {
        Some((_, why)) => Err(Exit::usage(format!("{flag} is not offered: {why}"))),
        None => Ok(()),
    }
}

/// One option.
struct Opt {
    short: char,
    /// Without the dashes; empty where memcached has no long form.
    long: &'static str,
    effect: Effect,
    /// How `-h` calls the value; empty if it takes none.
    value: &'static str,
    /// What `-h` says, line by line; empty for an option that does nothing here.
    help: &'static str,
}

/// What an option does. The variants are also what tells whether it takes a value.
enum Effect {
    /// Takes no value.
    Flag(fn(&mut Draft)),
    /// Takes a value, attached or as the next word.
    Value(fn(&mut Draft, &OsStr) -> Result<(), Exit>),
    /// Takes no value as `-v`, but memcached declares that `--verbose=x` may have one; unused.
    Verbose,
    /// Ends parsing.
    Print(fn() -> String),
}

use Effect::{Flag, Print, Value};

const fn opt(
    short: char,
    long: &'static str,
    value: &'static str,
    effect: Effect,
    help: &'static str,
) -> Opt {
    Opt { short, long, effect, value, help }
}

/// An option that only stands for a row of [`NOT_OFFERED`], which is looked at first.
const fn refused(short: char, long: &'static str) -> Opt {
    Opt { short, long, effect: Flag(|_| ()), value: "", help: "" }
}

/// Every option, in the order of the help text. Skipped by rustfmt so that a row stays a row.
#[rustfmt::skip]
static OPTIONS: [Opt; 51] = [
    opt('p', "port", "<num>", Value(tcp_port), "TCP port (default: 11211; 0: none; -1: any free)"),
    opt('U', "udp-port", "<num>", Value(udp_port), ""),
    opt('s', "unix-socket", "<file>", Value(unix_socket), "Unix socket to listen on, not TCP"),
    opt('a', "unix-mask", "<mask>", Value(unix_mode), "access to it, in octal (default: 700)"),
    opt('A', "enable-shutdown", "", Flag(|draft| draft.config().shutdown = true),
        "obey the \"shutdown\" command"),
    opt('l', "listen", "<addr>", Value(listen_on),
        "address to listen on (default: all); separate\n\
         several by commas: host, ip:port, [ip6]:port;\n\
         with -Z, before it notls: (no TLS there), btls:\n\
         (no client certificate) or mtls: (one required)"),
    opt('d', "daemon", "", Flag(|draft| draft.process().daemonize = true), "run as a daemon"),
    opt('r', "enable-coredumps", "", Flag(|draft| draft.process().core_dumps = true),
        "maximize core file limit"),
    opt('u', "user", "<user>", Value(user), "identity to assume when started as root"),
    opt('m', "memory-limit", "<num>", Value(memory), "megabytes for items (default: 64)"),
    opt('M', "disable-evictions", "", Flag(|draft| draft.config().evict = false),
        "answer an error when memory is full instead of\n\
         evicting"),
    opt('c', "conn-limit", "<num>", Value(connections), "connections at a time (default: 1024)"),
    opt('k', "lock-memory", "", Flag(|draft| draft.process().lock_memory = true),
        "keep all memory from being paged out"),
    opt('v', "verbose", "", Effect::Verbose,
        "say more; -vv: commands and replies, -vvv: all\n\
         (the environment variable RUST_LOG wins)"),
    opt('h', "help", "", Print(help_text), "print this help and exit"),
    opt('i', "license", "", Print(license_text), "print the license and exit"),
    opt('V', "version", "", Print(version_text), "print the version and exit"),
    opt('P', "pidfile", "<file>", Value(pid_file), "save the process number in <file>"),
    opt('f', "slab-growth-factor", "<num>", Value(growth_factor), ""),
    opt('n', "slab-min-size", "<bytes>", Value(chunk_size), ""),
    opt('L', "enable-largepages", "", Flag(|draft| draft.unused("-L")), ""),
    opt('D', "", "<char>", Value(prefix_delimiter),
        "character that ends the prefix of a key (default:\n\
         \":\"); turns \"stats detail\" on from the start"),
    opt('t', "threads", "<num>", Value(workers), "threads (default: the number of cores)"),
    opt('R', "max-reqs-per-event", "<num>", Value(requests_per_turn),
        "requests of one connection before others get\n\
         their turn (default: 20)"),
    opt('C', "disable-cas", "", Flag(|draft| draft.config().cas = false), "disable use of CAS"),
    opt('b', "listen-backlog", "<num>", Value(backlog), "listen queue length (default: 1024)"),
    opt('B', "protocol", "<name>", Value(protocol),
        "ascii, binary, or auto: the first byte of a\n\
         connection tells (default: auto)"),
    opt('I', "max-item-size", "<num>", Value(item_bytes),
        "largest item (default: 1m, min: 1k, max: 1024m)"),
    opt('S', "enable-sasl", "", Flag(|draft| draft.config().sasl = true),
        "clients of the binary protocol have to log in by\n\
         SASL, mechanism PLAIN, as a user of -Y or of the\n\
         file that MEMCACHED_SASL_PWDB names; without -Y,\n\
         clients of the text protocol are refused"),
    opt('F', "disable-flush-all", "", Flag(|draft| draft.config().flush = false),
        "disable flush_all command"),
    opt('X', "disable-dumping", "", Flag(|draft| draft.config().dump = false),
        "disable what lists keys: stats cachedump, hotkeys\n\
         and bigkeys, lru_crawler metadump"),
    opt('W', "disable-watch", "", Flag(|draft| draft.config().watch = false),
        "disable watch commands"),
    opt('Y', "auth-file", "<file>", Value(auth_file),
        "clients have to log in; <file> has lines of\n\
         user:password, the password plain or as made by\n\
         \"openssl passwd -6\", and is read again on SIGHUP"),
    refused('e', "memory-file"),
    opt('Z', "enable-ssl", "", Flag(|draft| draft.tls.enabled = true),
        "enable TLS; with -o ssl_chain_cert and ssl_key,\n\
         which are read again on SIGHUP"),
    opt('o', "extended", "<list>", Value(extended::apply), "comma separated list of"),
    opt('N', "napi-ids", "<num>", Value(napi_ids), ""),
    opt(LONG_ONLY, "config", "<file>", Value(values::nested_config),
        "flags from a file, one a line, as in Debian's\n\
         memcached.conf; -d in it is skipped"),
    opt(LONG_ONLY, "cluster-file", "<file>", Value(cluster_file),
        "what \"config get cluster\" answers: a line with a\n\
         version number, then nodes as host|address|port;\n\
         read again on SIGHUP"),
    opt(LONG_ONLY, "data-dir", "<dir>", Value(durability::data_dir),
        "keep the data in <dir>: come back with it after a\n\
         stop or a crash (default: nothing is kept)"),
    opt(LONG_ONLY, "fsync", "<mode>", Value(durability::fsync),
        "always: each change is on the device before its\n\
         reply; everysec: at most two seconds are at stake\n\
         when power fails (default); no: up to the kernel"),
    opt(LONG_ONLY, "snapshot-interval", "<sec>", Value(durability::snapshot_interval),
        "seconds between snapshots, taken when something\n\
         has changed (default: 60; 0: only when asked,\n\
         or before the logs are too large)"),
    opt(LONG_ONLY, "snapshot-growth", "<percent>", Value(durability::snapshot_growth),
        "how much the log grows first, in percent of the\n\
         data (default: 50; small data: whatever it grows)"),
    opt(LONG_ONLY, "snapshot-bytes-per-second", "<n>", Value(durability::snapshot_rate),
        "bytes of a snapshot written in a second, such as\n\
         50m (default: 0, as fast as it goes)"),
    opt(LONG_ONLY, "snapshot-on-exit", "", Flag(durability::snapshot_on_exit),
        "take a snapshot before the end: the next start is\n\
         quicker, and the stop takes as long as that"),
    opt(LONG_ONLY, "log-bytes-max", "<n>", Value(durability::log_bytes_max),
        "bytes of logs at which changes wait, such as 2g\n\
         (default: twice -m, and 512m)"),
    opt(LONG_ONLY, "recover", "<mode>", Value(durability::recover),
        "damaged files: refuse to start (strict, default),\n\
         take what is intact (salvage), or start empty if\n\
         there is damage (discard)"),
    opt(LONG_ONLY, "on-log-error", "<mode>", Value(durability::on_log_error),
        "a log that cannot be written: refuse changes\n\
         (default), serve without it, or exit"),
    opt(LONG_ONLY, "metrics-address", "<addr>", Value(observe::metrics_address),
        "serve metrics for Prometheus at host:port, path\n\
         /metrics, to whoever asks (default: nowhere)"),
    opt(LONG_ONLY, "slow-command-us", "<num>", Value(observe::slow_command),
        "log commands that take so many microseconds, and\n\
         time all instead of some (default: 0, none)"),
    opt(LONG_ONLY, "log-file", "<file>", Value(observe::log_file),
        "append the log to <file> instead of standard\n\
         error; it is opened again on SIGHUP"),
];

/// In place of the letter of an option that has none.
const LONG_ONLY: char = '\0';

/// What has been read so far.
struct Draft {
    settings: Settings,
    /// `-s`
    socket: Option<PathBuf>,
    /// `-p` was given, so `-U` does not move the TCP port.
    tcp_port_given: bool,
    /// `-B`, whatever it said.
    protocol_given: bool,
    /// `-t`
    workers_given: Option<usize>,
    /// `-N`
    napi_ids: usize,
    /// `-o slab_sizes`
    slab_sizes: Option<String>,
    /// Flags that were accepted for memcached's sake, as they are written.
    unused: Vec<String>,
    /// `--data-dir` and what goes with it.
    durability: DurabilityDraft,
    /// `--metrics-address`
    metrics_address: Option<String>,
    /// `-Z` and what goes with it.
    tls: TlsDraft,
}

impl Draft {
    fn new(around: &Surroundings<'_>) -> Self {
        let config = Config {
            listeners: Vec::new(),
            workers: around.cores.clamp(1, WORKERS_LIMIT),
            port_file: around.port_file.clone(),
            sasl_file: around.sasl_file.clone(),
            accepted_only: AcceptedOnly { tcp_port: PORT_DEFAULT.into(), ..Default::default() },
            ..Config::default()
        };
        let process = ProcessSettings::default();
        Self {
            settings: Settings { config, process, warnings: Vec::new() },
            socket: None,
            tcp_port_given: false,
            protocol_given: false,
            workers_given: None,
            napi_ids: 0,
            slab_sizes: None,
            unused: Vec::new(),
            durability: DurabilityDraft::default(),
            metrics_address: None,
            tls: TlsDraft::default(),
        }
    }

    fn config(&mut self) -> &mut Config {
        &mut self.settings.config
    }

    fn accepted(&mut self) -> &mut AcceptedOnly {
        &mut self.settings.config.accepted_only
    }

    fn process(&mut self) -> &mut ProcessSettings {
        &mut self.settings.process
    }

    fn warn(&mut self, line: impl Into<String>) {
        self.settings.warnings.push(line.into());
    }

    /// Notes a flag that has no effect here.
    fn unused(&mut self, flag: &str) {
        if !self.unused.iter().any(|known| known == flag) {
            self.unused.push(flag.to_owned());
        }
    }
}

/// Reads the command line of this process, its name first.
///
/// # Errors
/// Flags that cannot be followed, with memcached's exit code and a message that says what to do.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Action, Exit> {
    let args = file::expand(args, |path| std::fs::read_to_string(path))?;
    parse_in(args, &Surroundings::of_this_process())
}

/// Reads a command line, the program's name first, as it would be read in `around`.
///
/// # Errors
/// As [`parse`].
pub fn parse_in(
    args: impl IntoIterator<Item = OsString>,
    around: &Surroundings<'_>,
) -> Result<Action, Exit> {
    let mut parser = lexopt::Parser::from_iter(args);
    // As in getopt, the value of `-D=` is an equals sign.
    parser.set_short_equals(false);
    let mut draft = Draft::new(around);
    while let Some(given) = next_option(&mut parser, &mut draft)? {
        match given.option.effect {
            Flag(apply) => apply(&mut draft),
            Value(apply) => apply(&mut draft, &given.value)?,
            Effect::Verbose => {
                draft.config().verbosity = draft.config().verbosity.saturating_add(1);
            }
            Print(text) => return Ok(Action::Print(text())),
        }
    }
    Ok(Action::Run(Box::new(finish(draft, around)?)))
}

// Reading words as getopt_long does

struct Given {
    option: &'static Opt,
    /// Empty for an option that takes none.
    value: OsString,
}

/// The next option with its value; words that are not options are skipped, as getopt skips them.
fn next_option(parser: &mut lexopt::Parser, draft: &mut Draft) -> Result<Option<Given>, Exit> {
    let program = parser.bin_name().unwrap_or("distcached").to_owned();
    // The two lines that memcached's getopt and main() print, which scripts know.
    let illegal = |complaint: String| {
        Exit::failure(format!(
            "{program}: {complaint}\nIllegal argument \"?\"\nTry '{program} -h' for the options."
        ))
    };
    loop {
        // Errors of `next` are about values that nobody took, and `value_of` takes them all.
        let arg = parser.next().map_err(|why| illegal(why.to_string()))?;
        let (found, is_long) = match arg {
            None => return Ok(None),
            Some(lexopt::Arg::Short(letter)) => (find_short(letter), false),
            Some(lexopt::Arg::Long(name)) => (find_long(name), true),
            Some(lexopt::Arg::Value(word)) => {
                let word = word.display();
                draft.warn(format!("\"{word}\" is not an option and is ignored"));
                continue;
            }
        };
        let option = found.map_err(&illegal)?;
        refuse_not_offered(&format!("-{}", option.short))?;
        let value = value_of(parser, option, is_long).map_err(&illegal)?;
        return Ok(Some(Given { option, value }));
    }
}

fn find_short(letter: char) -> Result<&'static Opt, String> {
    let found = OPTIONS.iter().find(|option| option.short == letter);
    found.ok_or_else(|| format!("invalid option -- '{letter}'"))
}

/// An exact name, or the beginning of just one.
fn find_long(name: &str) -> Result<&'static Opt, String> {
    if let Some(exact) = OPTIONS.iter().find(|option| option.long == name && !name.is_empty()) {
        return Ok(exact);
    }
    let begins = |option: &&Opt| !option.long.is_empty() && option.long.starts_with(name);
    let candidates: Vec<&Opt> = OPTIONS.iter().filter(begins).collect();
    match candidates[..] {
        [] => Err(format!("unrecognized option '--{name}'")),
        [one] => Ok(one),
        _ => {
            let names: String =
                candidates.iter().map(|option| format!(" '--{}'", option.long)).collect();
            Err(format!("option '--{name}' is ambiguous; possibilities:{names}"))
        }
    }
}

fn value_of(parser: &mut lexopt::Parser, option: &Opt, is_long: bool) -> Result<OsString, String> {
    match option.effect {
        Value(_) => match parser.value() {
            Ok(value) => Ok(without_leading_blanks(value)),
            Err(_) if is_long => Err(format!("option '--{}' requires an argument", option.long)),
            Err(_) => Err(format!("option requires an argument -- '{}'", option.short)),
        },
        // Behind a short flag the rest of the word is more flags, behind a long one a value.
        _ if !is_long => Ok(OsString::new()),
        Effect::Verbose => Ok(parser.optional_value().unwrap_or_default()),
        Flag(_) | Print(_) => match parser.optional_value() {
            Some(_) => Err(format!("option '--{}' doesn't allow an argument", option.long)),
            None => Ok(OsString::new()),
        },
    }
}

/// memcached drops them from every value, for `-l " 127.0.0.1"` in configuration files.
fn without_leading_blanks(value: OsString) -> OsString {
    OsString::from_vec(value.as_bytes().trim_ascii_start().to_vec())
}

// What can only be decided when all options are known

/// memcached's default of `-t`, which `-N` is measured by when `-t` is not given.
const MEMCACHED_WORKERS: usize = 4;

fn finish(mut draft: Draft, around: &Surroundings<'_>) -> Result<Settings, Exit> {
    let invalid = |why: ConfigError| Exit::usage(why.to_string());
    draft.config().check().map_err(invalid)?;
    // As memcached: asked for by name, "either" would promise what cannot be kept.
    let either = draft.config().protocol == Protocol::Either && draft.protocol_given;
    if either && draft.config().sasl && draft.config().auth_file.is_none() {
        return Err(invalid(ConfigError::TextWithSasl));
    }

    let workers = draft.workers_given.unwrap_or(MEMCACHED_WORKERS);
    if workers < draft.napi_ids {
        let ids = draft.napi_ids;
        return Err(Exit::usage(format!(
            "-N: {ids} NAPI ids are more than the {workers} threads; lower -N or raise -t"
        )));
    }
    let ids = draft.napi_ids.to_string();
    draft.accepted().set_unused("num_napi_ids", ids);
    extended::check(&draft)?;

    draft.config().tls = tls::finish(&mut draft)?;
    listeners(&mut draft, around)?;
    if let Some(given) = draft.metrics_address.take() {
        draft.config().metrics_address = Some(observe::resolve(&given, around)?);
    }
    draft.config().check().map_err(invalid)?;
    match std::mem::take(&mut draft.durability).finish() {
        Ok(settings) => draft.config().durability = settings,
        Err(option) => draft.warn(format!("{option} has no effect without --data-dir")),
    }
    if draft.workers_given.is_some_and(|workers| 64 < workers) {
        draft.warn("more than 64 threads (-t) are not recommended: use the number of cores");
    }
    if !draft.unused.is_empty() {
        let flags = draft.unused.join(", ");
        draft.warn(format!("accepted as memcached accepts them, but without effect here: {flags}"));
    }
    Ok(draft.settings)
}

/// Where to listen, and what is spoken where.
fn listeners(draft: &mut Draft, around: &Surroundings<'_>) -> Result<(), Exit> {
    let udp_port = draft.accepted().udp_port;
    if udp_port != 0 {
        draft.warn("UDP (-U) is not offered: clients have to use TCP or a Unix socket");
        if !draft.tcp_port_given {
            draft.accepted().tcp_port = udp_port;
        }
    }
    if let Some(path) = draft.socket.take() {
        draft.config().port_file = None;
        if draft.accepted().inter.is_some() {
            draft.warn("-s replaces TCP: the addresses of -l are not listened on");
        }
        draft.config().listeners = vec![Listener::Unix(path, draft.accepted().unix_mode)];
        return Ok(());
    }
    let accepted = draft.accepted();
    let Ok(port) = u16::try_from(accepted.tcp_port.max(0)) else {
        return Err(Exit::usage(format!("-p: {} is not a port", accepted.tcp_port)));
    };
    if accepted.tcp_port == 0 {
        draft.warn("nothing to listen on: -p 0 without -s");
        draft.config().listeners = Vec::new();
        return Ok(());
    }
    let inter = accepted.inter.clone();
    let clients = draft.config().tls.as_ref().map(|tls| tls.clients);
    let listeners = listen::listeners(inter.as_deref(), port, clients, around)?;
    let own = listeners.iter().filter_map(|(listener, protocol)| match listener {
        Listener::Tcp(address) | Listener::Tls(address, _) => Some((*address, (*protocol)?)),
        Listener::Unix(..) => None,
    });
    draft.config().protocols = own.collect();
    draft.config().listeners = listeners.into_iter().map(|(listener, _)| listener).collect();
    Ok(())
}

// Texts

/// The first number of `-V` and `-h` is what tools compare, so it is memcached's; the second line
/// has this program's own.
fn version_text() -> String {
    let own = env!("CARGO_PKG_VERSION");
    format!("distcached {COMPAT_VERSION}\ndistcache {own}\n")
}

fn license_text() -> String {
    format!(
        "{}\ndistcache may be used under either license of: {}\n",
        version_text(),
        env!("CARGO_PKG_LICENSE")
    )
}

/// Where the explanations of `-h` start.
const HELP_COLUMN: usize = 30;

/// Only what works: tools search this text to learn what is built in.
fn help_text() -> String {
    let mut text = version_text();
    for option in OPTIONS.iter().filter(|option| !option.help.is_empty()) {
        let name = match option {
            Opt { short: LONG_ONLY, long, value: "", .. } => format!("--{long}"),
            Opt { short: LONG_ONLY, long, value, .. } => format!("--{long}={value}"),
            Opt { short, long: "", value, .. } => format!("-{short} {value}"),
            Opt { short, long, value: "", .. } => format!("-{short}, --{long}"),
            Opt { short, long, value, .. } => format!("-{short}, --{long}={value}"),
        };
        explain(&mut text, &name, option.help);
        if option.short == 'o' {
            extended::explain_all(&mut text);
        }
    }
    text.push_str("Other options of memcached are accepted where ignoring them does no harm.\n");
    text.push_str("Tools for data directories: distcached check, dump, repair, load (-h: how).\n");
    text
}

/// Appends `name` and, from [`HELP_COLUMN`] on, the lines of `help`.
fn explain(text: &mut String, name: &str, help: &str) {
    let mut name = name;
    for line in help.lines() {
        text.push_str(&format!("{name:<HELP_COLUMN$} {line}\n"));
        name = "";
    }
}
