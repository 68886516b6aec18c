//! Every option of the command line: what it is called, what it does, and what `-h` says of it.
//!
//! Owns the table, in the order and the groups of the help text. What values mean is in `values`
//! and its neighbours; how words are read is in the parent module.

use super::values::{
    auth_file, backlog, chunk_size, cluster_file, connections, growth_factor, item_bytes,
    listen_on, memory, memory_file, napi_ids, nested_config, pid_file, prefix_delimiter, protocol,
    requests_per_turn, tcp_port, udp_port, unix_mode, unix_socket, user, workers,
};
use super::{Draft, Exit, durability, extended, observe, texts};
use std::ffi::OsStr;

/// One option.
pub(super) struct Opt {
    pub(super) short: char,
    /// Without the dashes; empty where memcached has no long form.
    pub(super) long: &'static str,
    pub(super) effect: Effect,
    /// How `-h` calls the value; empty if it takes none.
    pub(super) value: &'static str,
    /// What `-h` says, line by line; empty for an option that does nothing here.
    pub(super) help: &'static str,
}

/// What an option does. The variants are also what tells whether it takes a value.
pub(super) enum Effect {
    /// Takes no value.
    Flag(fn(&mut Draft)),
    /// Takes a value, attached or as the next word.
    Value(fn(&mut Draft, &OsStr) -> Result<(), Exit>),
    /// Takes no value as `-v`, but memcached declares that `--verbose=x` may have one; unused.
    Verbose,
    /// Ends parsing: a text for a program of this name.
    Print(fn(&str) -> String),
}

use Effect::{Flag, Print, Value};

/// In place of the letter of an option that has none.
pub(super) const LONG_ONLY: char = '\0';

const fn opt(
    short: char,
    long: &'static str,
    value: &'static str,
    effect: Effect,
    help: &'static str,
) -> Opt {
    Opt { short, long, effect, value, help }
}

/// Options under one heading of `-h`.
pub(super) struct Group {
    pub(super) heading: &'static str,
    pub(super) options: &'static [Opt],
}

/// Every option, in the order of the help text.
pub(super) fn options() -> impl Iterator<Item = &'static Opt> {
    GROUPS.iter().flat_map(|group| group.options)
}

pub(super) static GROUPS: [Group; 9] = [
    Group { heading: "Memory", options: &MEMORY },
    Group { heading: "Data", options: &DATA },
    Group { heading: "Network", options: &NETWORK },
    Group { heading: "Who may do what", options: &ACCESS },
    Group { heading: "The process", options: &PROCESS },
    Group { heading: "What it tells", options: &OBSERVE },
    Group { heading: "Texts", options: &TEXTS },
    Group { heading: "Extended options", options: &EXTENDED },
    Group { heading: "", options: &WITHOUT_EFFECT },
];

// Skipped by rustfmt so that a row stays a row.

#[rustfmt::skip]
static MEMORY: [Opt; 5] = [
    opt('m', "memory-limit", "<num>", Value(memory), "megabytes for items (default: 64)"),
    opt('M', "disable-evictions", "", Flag(|draft| draft.config().evict = false),
        "answer an error when memory is full instead of\n\
         evicting"),
    opt('I', "max-item-size", "<num>", Value(item_bytes),
        "largest item (default: 1m, min: 1k, max: 1024m)"),
    opt('k', "lock-memory", "", Flag(|draft| draft.process().lock_memory = true),
        "keep all memory from being paged out"),
    opt('C', "disable-cas", "", Flag(|draft| draft.config().cas = false), "disable use of CAS"),
];

#[rustfmt::skip]
static DATA: [Opt; 10] = [
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
    opt('e', "memory-file", "<file>", Value(memory_file),
        "as --data-dir=<file>.data, for command lines that\n\
         keep items in a memory file"),
];

#[rustfmt::skip]
static NETWORK: [Opt; 9] = [
    opt('l', "listen", "<addr>", Value(listen_on),
        "address to listen on (default: all); separate\n\
         several by commas: host, ip:port, [ip6]:port;\n\
         with -Z, before it notls: (no TLS there), btls:\n\
         (no client certificate) or mtls: (one required)"),
    opt('p', "port", "<num>", Value(tcp_port), "TCP port (default: 11211; 0: none; -1: any free)"),
    opt('s', "unix-socket", "<file>", Value(unix_socket), "Unix socket to listen on, not TCP"),
    opt('a', "unix-mask", "<mask>", Value(unix_mode), "access to it, in octal (default: 700)"),
    opt('c', "conn-limit", "<num>", Value(connections), "connections at a time (default: 1024)"),
    opt('t', "threads", "<num>", Value(workers), "threads (default: the number of cores)"),
    opt('R', "max-reqs-per-event", "<num>", Value(requests_per_turn),
        "requests of one connection before others get\n\
         their turn (default: 20)"),
    opt('b', "listen-backlog", "<num>", Value(backlog), "listen queue length (default: 1024)"),
    opt('B', "protocol", "<name>", Value(protocol),
        "ascii, binary, or auto: the first byte of a\n\
         connection tells (default: auto)"),
];

#[rustfmt::skip]
static ACCESS: [Opt; 7] = [
    opt('Y', "auth-file", "<file>", Value(auth_file),
        "clients have to log in; <file> has lines of\n\
         user:password, the password plain or as made by\n\
         \"openssl passwd -6\", and is read again on SIGHUP"),
    opt('S', "enable-sasl", "", Flag(|draft| draft.config().sasl = true),
        "clients of the binary protocol have to log in by\n\
         SASL, mechanism PLAIN, as a user of -Y or of the\n\
         file that MEMCACHED_SASL_PWDB names; without -Y,\n\
         clients of the text protocol are refused"),
    opt('Z', "enable-ssl", "", Flag(|draft| draft.tls.enabled = true),
        "enable TLS; with -o ssl_chain_cert and ssl_key,\n\
         which are read again on SIGHUP"),
    opt('A', "enable-shutdown", "", Flag(|draft| draft.config().shutdown = true),
        "obey the \"shutdown\" command"),
    opt('F', "disable-flush-all", "", Flag(|draft| draft.config().flush = false),
        "disable flush_all command"),
    opt('X', "disable-dumping", "", Flag(|draft| draft.config().dump = false),
        "disable what lists keys: stats cachedump, hotkeys\n\
         and bigkeys, lru_crawler metadump"),
    opt('W', "disable-watch", "", Flag(|draft| draft.config().watch = false),
        "disable watch commands"),
];

#[rustfmt::skip]
static PROCESS: [Opt; 6] = [
    opt('d', "daemon", "", Flag(|draft| draft.process().daemonize = true),
        "run as a daemon; returns once it is ready, or\n\
         with the exit status of a start that failed"),
    opt('u', "user", "<user>", Value(user),
        "identity to assume when started as root (default:\n\
         nobody; root stays root)"),
    opt('P', "pidfile", "<file>", Value(pid_file), "save the process number in <file>"),
    opt('r', "enable-coredumps", "", Flag(|draft| draft.process().core_dumps = true),
        "maximize core file limit"),
    opt(LONG_ONLY, "config", "<file>", Value(nested_config),
        "flags from a file, one a line, as in Debian's\n\
         memcached.conf; -d in it is skipped"),
    opt(LONG_ONLY, "cluster-file", "<file>", Value(cluster_file),
        "what \"config get cluster\" answers: a line with a\n\
         version number, then nodes as host|address|port;\n\
         read again on SIGHUP"),
];

#[rustfmt::skip]
static OBSERVE: [Opt; 5] = [
    opt('v', "verbose", "", Effect::Verbose,
        "say more; -vv: commands and replies, -vvv: all\n\
         (the environment variable RUST_LOG wins)"),
    opt(LONG_ONLY, "log-file", "<file>", Value(observe::log_file),
        "append the log to <file> instead of standard\n\
         error; it is opened again on SIGHUP"),
    opt(LONG_ONLY, "metrics-address", "<addr>", Value(observe::metrics_address),
        "serve metrics for Prometheus at host:port, path\n\
         /metrics, to whoever asks (default: nowhere)"),
    opt(LONG_ONLY, "slow-command-us", "<num>", Value(observe::slow_command),
        "log commands that take so many microseconds, and\n\
         time all instead of some (default: 0, none)"),
    opt('D', "", "<char>", Value(prefix_delimiter),
        "character that ends the prefix of a key (default:\n\
         \":\"); turns \"stats detail\" on from the start"),
];

#[rustfmt::skip]
static TEXTS: [Opt; 3] = [
    opt('h', "help", "", Print(texts::help), "print this help and exit"),
    opt('V', "version", "", Print(texts::version), "print the version and exit"),
    opt('i', "license", "", Print(texts::license), "print the license and exit"),
];

#[rustfmt::skip]
static EXTENDED: [Opt; 1] = [
    opt('o', "extended", "<list>", Value(extended::apply), "comma separated list of"),
];

/// About what does not exist here. Checked as memcached checks it, and not listed by `-h`.
#[rustfmt::skip]
static WITHOUT_EFFECT: [Opt; 5] = [
    opt('U', "udp-port", "<num>", Value(udp_port), ""),
    opt('f', "slab-growth-factor", "<num>", Value(growth_factor), ""),
    opt('n', "slab-min-size", "<bytes>", Value(chunk_size), ""),
    opt('L', "enable-largepages", "", Flag(|draft| draft.unused("-L")), ""),
    opt('N', "napi-ids", "<num>", Value(napi_ids), ""),
];
