//! The command line: memcached's flags, read into [`Settings`] the way getopt reads them.
//!
//! Owns how words become settings, and what is decided when all of them are known; what each flag
//! is called is in `table`, which values it takes in `values` and its neighbours.
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
mod table;
#[cfg(test)]
mod tests;
mod texts;
mod tls;
mod values;

use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::PathBuf;

pub use crate::daemon::os::Exit;
use crate::daemon::os::FLAGS_ABSENT;
use crate::server::config::{
    AcceptedOnly, Config, ConfigError, Listener, PORT_DEFAULT, Protocol, WORKERS_LIMIT,
};
use crate::system;
use durability::DurabilityDraft;
use table::Effect::{Flag, Print, Value};
use table::{Effect, Opt, options};
use tls::TlsDraft;

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
    /// The command line they were read from, with files of flags in the place of their names.
    /// Empty if it was not that of this process.
    pub words: Vec<OsString>,
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
    /// Flags that this system has nothing for, and why.
    pub absent: &'static [(char, &'static str)],
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
            absent: FLAGS_ABSENT,
            resolve: &|host, port| Ok((host, port).to_socket_addrs()?.collect()),
        }
    }
}

/// What memcached offers and this server does not (yet), where going on regardless would open a
/// cache that was meant to be closed, lose data that was meant to be kept, or answer in the wrong
/// protocol. By the flag as it is written; a final `*` stands for any ending. A feature that
/// arrives deletes its rows and gives its flags an effect in the tables.
const NOT_OFFERED: [(&str, &str); 3] = [
    (
        "-o proxy_*",
        "this server keeps items itself and does not pass requests on; let clients know all \
         servers, or put memcached's proxy before them",
    ),
    (
        "-o sock_cookie_id",
        "sockets would go unmarked, and firewall rules would miss them; let the rules go by port \
         or by user",
    ),
    (
        "-l proto[proxy]",
        "this server keeps items itself and does not pass requests on; let clients know all \
         servers, or put memcached's proxy before them",
    ),
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

/// This program, where its name is not known.
const PROGRAM: &str = "distcached";

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
    /// `-e`
    memory_file: Option<PathBuf>,
    /// `-o ext_path`
    flash: bool,
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
            settings: Settings { config, process, warnings: Vec::new(), words: Vec::new() },
            socket: None,
            tcp_port_given: false,
            protocol_given: false,
            workers_given: None,
            napi_ids: 0,
            slab_sizes: None,
            unused: Vec::new(),
            memory_file: None,
            flash: false,
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
    let (words, warnings) = file::expand(args, |path| std::fs::read(path))?;
    let mut action = parse_in(words.clone(), &Surroundings::of_this_process())?;
    if let Action::Run(settings) = &mut action {
        settings.warnings.splice(0..0, warnings);
        settings.words = words;
    }
    Ok(action)
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
    let program = parser.bin_name().unwrap_or(PROGRAM).to_owned();
    let mut draft = Draft::new(around);
    while let Some(given) = next_option(&mut parser, &mut draft)? {
        refuse_absent(given.option, around)?;
        match given.option.effect {
            Flag(apply) => apply(&mut draft),
            Value(apply) => apply(&mut draft, &given.value)?,
            Effect::Verbose => {
                draft.config().verbosity = draft.config().verbosity.saturating_add(1);
            }
            Print(text) => return Ok(Action::Print(text(&program))),
        }
    }
    Ok(Action::Run(Box::new(finish(draft, around)?)))
}

/// What a system does not have is not let pass in silence.
fn refuse_absent(option: &Opt, around: &Surroundings<'_>) -> Result<(), Exit> {
    match around.absent.iter().find(|(short, _)| *short == option.short) {
        Some((short, why)) => {
            let system = std::env::consts::OS;
            Err(Exit::usage(format!("-{short} is not there on {system}: {why}")))
        }
        None => Ok(()),
    }
}

/// The text of `-h`, for a program of this name.
pub fn help_text(program: &str) -> String {
    texts::help(program)
}

// Reading words as getopt_long does

struct Given {
    option: &'static Opt,
    /// Empty for an option that takes none.
    value: OsString,
}

/// The next option with its value; words that are not options are skipped, as getopt skips them.
fn next_option(parser: &mut lexopt::Parser, draft: &mut Draft) -> Result<Option<Given>, Exit> {
    let program = parser.bin_name().unwrap_or(PROGRAM).to_owned();
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
        let value = value_of(parser, option, is_long).map_err(&illegal)?;
        return Ok(Some(Given { option, value }));
    }
}

fn find_short(letter: char) -> Result<&'static Opt, String> {
    let found = options().find(|option| option.short == letter);
    found.ok_or_else(|| format!("invalid option -- '{letter}'"))
}

/// An exact name, or the beginning of just one.
fn find_long(name: &str) -> Result<&'static Opt, String> {
    if let Some(exact) = options().find(|option| option.long == name && !name.is_empty()) {
        return Ok(exact);
    }
    let begins = |option: &&Opt| !option.long.is_empty() && option.long.starts_with(name);
    let candidates: Vec<&Opt> = options().filter(begins).collect();
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
    match value.as_encoded_bytes() {
        [first, ..] if first.is_ascii_whitespace() => {
            system::os_string(value.as_encoded_bytes().trim_ascii_start().to_vec())
        }
        _ => value,
    }
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
    durability(&mut draft);
    if draft.flash {
        draft.warn(
            "-o ext_path: there is no flash tier; items are kept in memory as far as -m goes, and \
             the file is not used",
        );
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

/// Where data is kept, if anywhere.
fn durability(draft: &mut Draft) {
    if let Some(file) = draft.memory_file.take() {
        let memory_bytes_max = draft.config().memory_bytes_max;
        let directory = draft.durability.keep_beside(&file, memory_bytes_max);
        if let Some(directory) = directory {
            let (file, directory) = (file.display(), directory.display());
            draft.warn(format!(
                "-e {file}: the data is kept in the directory {directory}, at every kind of stop \
                 (as by --data-dir={directory})"
            ));
        }
        draft.accepted().memory_file = Some(file);
    }
    match std::mem::take(&mut draft.durability).finish() {
        Ok(settings) => draft.config().durability = settings,
        Err(option) => draft.warn(format!("{option} has no effect without --data-dir")),
    }
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
