//! What the daemon is told to do: one value of [`Config`] holds every setting.
//!
//! Built by the command line (`crate::daemon::options`) or by hand when a program embeds the
//! server. Owns the defaults and the checks between settings; never reads the environment, files or
//! time.

use crate::durable::{Fsync, OnLogError, Recover};
use crate::limits::{ITEM_BYTES_LIMIT_MAX, ITEM_BYTES_LIMIT_MIN};
use crate::server::connection::session::{Admission, Spoken};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The memcached release whose behaviour is offered. Clients and tools switch features on this
/// number, so `version`, `-V` and `-h` all give it.
pub const COMPAT_VERSION: &str = "1.6.45";

/// The TCP port where clients look for a cache unless told otherwise.
pub const PORT_DEFAULT: u16 = 11211;

/// The most workers a server starts. Far above any use: it stops a slip of the finger (`-t 11211`)
/// before it becomes that many threads.
pub const WORKERS_LIMIT: usize = 1024;

/// Access mode of a Unix socket unless `-a` says otherwise: the owner only.
pub const UNIX_MODE_DEFAULT: u32 = 0o700;

const _: () = assert!(UNIX_MODE_DEFAULT <= 0o777);

/// Every setting of a server. `Config::default()` is what `memcached` without flags would use,
/// except that it listens on a free port of 127.0.0.1, as tests and embedding programs want.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where connections are accepted.
    pub listeners: Vec<Listener>,
    /// Number of workers, each with its own share of keys (`-t`).
    pub workers: usize,
    /// Memory for items, index included, in bytes (`-m`, there in megabytes).
    pub memory_bytes_max: u64,
    /// Make room by evicting (true) or answer `SERVER_ERROR out of memory` (`-M`: false).
    pub evict: bool,
    /// Connections at a time (`-c`).
    pub connections_max: usize,
    /// Refuse connections beyond the limit with an error line (true, memcached's default) or leave
    /// them in the listen queue (`-o no_maxconns_fast`).
    pub connections_refuse_fast: bool,
    /// Commands of one connection in one turn before the others get theirs (`-R`).
    pub requests_per_turn_max: usize,
    /// Listen queue length (`-b`).
    pub backlog: u32,
    /// Largest item, key and header included, in bytes (`-I`).
    pub item_bytes_max: u32,
    /// Hand out and check CAS tokens (`-C`: false).
    pub cas: bool,
    /// Allow `flush_all` (`-F`: false).
    pub flush: bool,
    /// Allow `stats cachedump`, `stats detail`, `lru_crawler metadump` (`-X`: false).
    pub dump: bool,
    /// Allow `watch` (`-W`: false).
    pub watch: bool,
    /// Allow `shutdown` (`-A`).
    pub shutdown: bool,
    /// Close a connection silent for so many seconds; 0: never (`-o idle_timeout`).
    pub idle_timeout_seconds: u32,
    /// Character that ends the prefix of a key in `stats detail` (`-D`).
    pub prefix_delimiter: u8,
    /// Count per prefix from the start (`-D` turns it on).
    pub detail: bool,
    /// 0 errors and warnings, 1 more, 2 commands and replies (`-v`).
    pub verbosity: u8,
    /// File that receives the bound ports, as `TCP INET: 11211` lines
    /// (environment `MEMCACHED_PORT_FILENAME`).
    pub port_file: Option<PathBuf>,
    /// Describes the cluster for `config get cluster` (`--cluster-file`).
    pub cluster_file: Option<PathBuf>,
    /// What clients may speak (`-B`).
    pub protocol: Protocol,
    /// Listeners that have another one of their own (`-l proto[...]:`).
    pub protocols: Vec<(SocketAddr, Protocol)>,
    /// Users and their passwords; with them clients of the text protocol have to log in first
    /// (`-Y`), and with [`Config::sasl`] those of the binary protocol too.
    pub auth_file: Option<PathBuf>,
    /// Clients of the binary protocol have to log in by SASL (`-S`). Those of the text protocol are
    /// refused then, unless there is an [`Config::auth_file`].
    pub sasl: bool,
    /// Further users, with plain passwords, as memcached reads them (environment
    /// `MEMCACHED_SASL_PWDB`); without `sasl` it is not read.
    pub sasl_file: Option<PathBuf>,
    /// Certificates for [`Listener::Tls`] (`-Z`).
    pub tls: Option<TlsConfig>,
    /// Keep the data on disk; `None`: nothing touches it (`--data-dir`).
    pub durability: Option<DurabilityConfig>,
    /// Where Prometheus finds the metrics (`--metrics-address`).
    pub metrics_address: Option<SocketAddr>,
    /// Commands that take so many microseconds are logged; 0: none are (`--slow-command-us`).
    pub slow_command_us: u64,
    /// Settings of memcached that mean nothing here, kept for `stats settings`.
    pub accepted_only: AcceptedOnly,
}

/// What clients of a listener may speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// Either protocol: the first byte of a connection tells.
    #[default]
    Either,
    /// The text protocol.
    Text,
    /// The binary protocol.
    Binary,
}

impl Protocol {
    /// memcached's name, in `stats settings`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Either => "auto-negotiate",
            Self::Text => "ascii",
            Self::Binary => "binary",
        }
    }
}

/// Where data is kept, and how safely.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DurabilityConfig {
    /// The directory; made if it is not there (`--data-dir`).
    pub directory: PathBuf,
    /// When a change is safe (`--fsync`).
    pub fsync: Fsync,
    /// Time between snapshots; 0: only when asked (`--snapshot-interval`).
    pub snapshot_interval_seconds: u32,
    /// How much the log grows before a snapshot, in percent of the data (`--snapshot-growth`).
    pub snapshot_growth_percent: u32,
    /// Bytes of a snapshot written in a second; 0: no bound (`--snapshot-bytes-per-second`).
    pub snapshot_bytes_per_second: u64,
    /// Take a snapshot before the end (`--snapshot-on-exit`).
    pub snapshot_on_exit: bool,
    /// Most bytes of logs; 0: by the memory limit (`--log-bytes-max`).
    pub log_bytes_max: u64,
    /// What to do about damaged files (`--recover`).
    pub recover: Recover,
    /// What to do when the log cannot be written (`--on-log-error`).
    pub on_log_error: OnLogError,
}

impl Default for DurabilityConfig {
    fn default() -> Self {
        Self {
            directory: PathBuf::new(),
            fsync: Fsync::default(),
            snapshot_interval_seconds: 60,
            snapshot_growth_percent: 50,
            snapshot_bytes_per_second: 0,
            snapshot_on_exit: false,
            log_bytes_max: 0,
            recover: Recover::default(),
            on_log_error: OnLogError::default(),
        }
    }
}

/// What TLS is done with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// The server's certificate and those between it and its authority, in PEM format
    /// (`-o ssl_chain_cert`).
    pub chain_cert: PathBuf,
    /// Its private key (`-o ssl_key`).
    pub key: PathBuf,
    /// Of the private key (`-o ssl_keyformat`).
    pub key_format: KeyFormat,
    /// Authorities of clients' certificates, in PEM format (`-o ssl_ca_cert`).
    pub ca_cert: Option<PathBuf>,
    /// Cipher suites of TLS 1.2, by OpenSSL's names; `None`: all there are (`-o ssl_ciphers`).
    pub ciphers: Option<String>,
    /// What clients have to speak at least (`-o ssl_min_version`).
    pub min_version: TlsVersion,
    /// Let clients resume sessions (`-o ssl_session_cache`).
    pub session_cache: bool,
    /// What is asked of clients where the listener does not say (`-o ssl_verify_mode`). For sockets
    /// that a service manager hands over: a [`Listener::Tls`] says it itself.
    pub clients: ClientCertificates,
    /// `-o ssl_verify_mode` as `stats settings` shows it: OpenSSL's number of it.
    pub verify_mode: u8,
    /// `-o ssl_wbuf_size` in bytes, only for `stats settings`.
    pub write_buffer_bytes: u64,
    /// `-o ssl_kernel_tls`, only for `stats settings`.
    pub kernel_tls: bool,
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self {
            chain_cert: PathBuf::new(),
            key: PathBuf::new(),
            key_format: KeyFormat::Pem,
            ca_cert: None,
            ciphers: None,
            min_version: TlsVersion::V1_2,
            session_cache: false,
            clients: ClientCertificates::Ignored,
            verify_mode: 0,
            write_buffer_bytes: 16 << 10,
            kernel_tls: false,
        }
    }
}

/// How a private key is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFormat {
    /// In base64 between two lines.
    Pem,
    /// As bytes.
    Der,
}

/// Versions of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2
    V1_2,
    /// 1.3
    V1_3,
}

/// What is asked of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Nothing.
    Ignored,
    /// A certificate is verified if the client has one.
    Optional,
    /// Without a certificate it is not served.
    Required,
}

/// One place to accept connections.
#[derive(Debug, Clone, PartialEq)]
pub enum Listener {
    /// A TCP address; port 0 binds a free one.
    Tcp(SocketAddr),
    /// A TCP address where clients have to speak TLS, and what is asked of them.
    Tls(SocketAddr, ClientCertificates),
    /// A Unix socket: path and access mode (`-s`, `-a`).
    Unix(PathBuf, u32),
}

/// Values that memcached would act on and `distcached` only repeats in `stats settings`.
#[derive(Debug, Clone, PartialEq)]
pub struct AcceptedOnly {
    /// `-f`
    pub growth_factor: f64,
    /// `-n`
    pub chunk_size: u32,
    /// `-l` as given, for `stats settings` `inter`.
    pub inter: Option<String>,
    /// `-p` as given.
    pub tcp_port: i64,
    /// `-U` as given.
    pub udp_port: i64,
    /// `-a`, kept apart from the listeners because `stats settings` `umask` shows it (in octal)
    /// for a server without a Unix socket too.
    pub unix_mode: u32,
    /// `-o hash_algorithm`
    pub hash_algorithm: String,
    /// `-e`
    pub memory_file: Option<PathBuf>,
    /// The lines of [`UNUSED_SETTINGS`], in its order, with the values that were given.
    pub unused: Vec<(&'static str, String)>,
}

impl AcceptedOnly {
    /// The value of one line of [`UNUSED_SETTINGS`]; `None` for a name that is not among them.
    pub fn unused(&self, name: &str) -> Option<&str> {
        self.unused.iter().find(|line| line.0 == name).map(|line| line.1.as_str())
    }

    /// Remembers the value of one line of [`UNUSED_SETTINGS`].
    pub(crate) fn set_unused(&mut self, name: &'static str, value: impl Into<String>) {
        let line = self.unused.iter_mut().find(|line| line.0 == name);
        debug_assert!(line.is_some(), "{name} is a row of UNUSED_SETTINGS");
        if let Some(line) = line {
            line.1 = value.into();
        }
    }
}

/// `stats settings` about slabs, LRUs, crawlers, buffers and flash, which do not exist here: the
/// names as memcached prints them, with the values of a memcached started without flags.
pub const UNUSED_SETTINGS: [(&str, &str); 34] = [
    ("hashpower_init", "0"),
    ("slab_reassign", "yes"),
    ("slab_automove", "1"),
    ("slab_automove_ratio", "0.80"),
    ("slab_automove_window", "10"),
    ("slab_chunk_max", "524288"),
    ("lru_crawler", "yes"),
    ("lru_crawler_sleep", "100"),
    ("lru_crawler_tocrawl", "0"),
    ("tail_repair_time", "0"),
    ("lru_maintainer_thread", "yes"),
    ("lru_segmented", "yes"),
    ("hot_lru_pct", "20"),
    ("warm_lru_pct", "40"),
    ("hot_max_factor", "0.20"),
    ("warm_max_factor", "2.00"),
    ("temp_lru", "no"),
    ("temporary_ttl", "61"),
    ("watcher_logbuf_size", "262144"),
    ("worker_logbuf_size", "65536"),
    ("read_buf_mem_limit", "0"),
    ("track_sizes", "no"),
    ("ext_item_size", "512"),
    ("ext_item_age", "4294967295"),
    ("ext_low_ttl", "0"),
    ("ext_recache_rate", "2000"),
    ("ext_wbuf_size", "4194304"),
    ("ext_compact_under", "0"),
    ("ext_drop_under", "0"),
    ("ext_max_sleep", "1000000"),
    ("ext_max_frag", "0.80"),
    ("slab_automove_freeratio", "0.010"),
    ("ext_drop_unread", "no"),
    ("num_napi_ids", "0"),
];

/// Why a [`Config`] cannot be served. The text names the flag to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigError {
    /// No worker, or more than [`WORKERS_LIMIT`].
    Workers(usize),
    /// No connection could ever be accepted.
    Connections,
    /// A connection would never get a turn.
    RequestsPerTurn,
    /// Items limited to fewer bytes than [`ITEM_BYTES_LIMIT_MIN`].
    ItemTooSmall(u32),
    /// An item could take more than half of the memory, so that two would not fit.
    ItemAboveHalfOfMemory(u32),
    /// Items allowed to be larger than [`ITEM_BYTES_LIMIT_MAX`].
    ItemTooLarge(u32),
    /// TLS without a certificate.
    NoCertificate,
    /// Clients' certificates are asked for, and nothing to verify them by.
    NoAuthority,
    /// SASL without anything to know users by.
    NoUsers,
    /// A listener for the text protocol, whose clients could not log in.
    TextWithSasl,
    /// A listener for the binary protocol, whose clients could not log in.
    BinaryWithoutSasl,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workers(count) => {
                write!(out, "{count} threads asked for: -t goes from 1 to {WORKERS_LIMIT}")
            }
            Self::Connections => write!(out, "no connections allowed: -c must be 1 or more"),
            Self::RequestsPerTurn => write!(out, "no requests per event: -R must be 1 or more"),
            Self::ItemTooSmall(bytes) => write!(
                out,
                "items limited to {bytes} bytes: -I cannot be less than {ITEM_BYTES_LIMIT_MIN} \
                 bytes (1k)"
            ),
            Self::ItemAboveHalfOfMemory(bytes) => write!(
                out,
                "items of up to {bytes} bytes need at least twice that memory: lower -I (now \
                 {bytes} bytes) or raise -m (megabytes)"
            ),
            Self::ItemTooLarge(bytes) => write!(
                out,
                "items of up to {bytes} bytes asked for: -I cannot be above a gigabyte (1024m)"
            ),
            Self::NoCertificate => {
                write!(out, "TLS needs -o ssl_chain_cert=FILE and -o ssl_key=FILE")
            }
            Self::NoAuthority => write!(
                out,
                "clients' certificates are verified by the authorities of -o ssl_ca_cert=FILE"
            ),
            Self::NoUsers => write!(
                out,
                "-S knows users by -Y FILE or by the file that MEMCACHED_SASL_PWDB names: give \
                 one, with a line user:password for each user of the sasldb, which is not read \
                 (sasldblistusers2 shows their names; set passwords anew, plain or as made by \
                 \"openssl passwd -6\")"
            ),
            Self::TextWithSasl => write!(
                out,
                "SASL (-S) is for the binary protocol: without -Y FILE, clients of the text \
                 protocol could not log in (leave out -B ascii, -B auto and proto[ascii])"
            ),
            Self::BinaryWithoutSasl => write!(
                out,
                "-Y is for the text protocol: without -S, clients of the binary protocol could not \
                 log in (leave out -B binary and proto[binary])"
            ),
        }
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Checks each setting and how they relate. A server started with a configuration that passes
    /// may still fail for reasons of the machine: an address in use, no memory, too few files.
    ///
    /// # Errors
    /// The first setting that cannot be served.
    pub fn check(&self) -> Result<(), ConfigError> {
        let rules = [
            ((1..=WORKERS_LIMIT).contains(&self.workers), ConfigError::Workers(self.workers)),
            (self.connections_max >= 1, ConfigError::Connections),
            (self.requests_per_turn_max >= 1, ConfigError::RequestsPerTurn),
            (
                self.item_bytes_max >= ITEM_BYTES_LIMIT_MIN,
                ConfigError::ItemTooSmall(self.item_bytes_max),
            ),
            (
                u64::from(self.item_bytes_max) <= self.memory_bytes_max / 2,
                ConfigError::ItemAboveHalfOfMemory(self.item_bytes_max),
            ),
            (
                self.item_bytes_max <= ITEM_BYTES_LIMIT_MAX,
                ConfigError::ItemTooLarge(self.item_bytes_max),
            ),
        ];
        rules.into_iter().find(|rule| !rule.0).map_or(Ok(()), |rule| Err(rule.1))?;
        self.check_logins()?;
        self.listeners.iter().try_for_each(|listener| self.check_tls(listener))
    }

    fn check_logins(&self) -> Result<(), ConfigError> {
        if self.sasl && self.auth_file.is_none() && self.sasl_file.is_none() {
            return Err(ConfigError::NoUsers);
        }
        let others = self.protocols.iter().map(|(_, protocol)| *protocol);
        others.chain([self.protocol]).try_for_each(|protocol| match protocol {
            Protocol::Text if self.sasl && self.auth_file.is_none() => {
                Err(ConfigError::TextWithSasl)
            }
            Protocol::Binary if self.auth_file.is_some() && !self.sasl => {
                Err(ConfigError::BinaryWithoutSasl)
            }
            _ => Ok(()),
        })
    }

    /// What is spoken at a listener for this protocol, and what at the others if it has none of
    /// its own.
    pub(crate) fn spoken(&self, protocol: Option<Protocol>) -> Spoken {
        let protocol = protocol.unwrap_or(self.protocol);
        let with_login = self.auth_file.is_some();
        Spoken {
            text: match protocol {
                Protocol::Binary => Admission::No,
                _ if with_login => Admission::AfterLogin,
                _ if self.sasl => Admission::No,
                _ => Admission::Free,
            },
            binary: match protocol {
                Protocol::Text => Admission::No,
                _ if self.sasl => Admission::AfterLogin,
                _ if with_login => Admission::No,
                _ => Admission::Free,
            },
        }
    }

    fn check_tls(&self, listener: &Listener) -> Result<(), ConfigError> {
        let Listener::Tls(_, clients) = listener else { return Ok(()) };
        let tls = self.tls.as_ref().ok_or(ConfigError::NoCertificate)?;
        match clients {
            ClientCertificates::Ignored => Ok(()),
            _ if tls.ca_cert.is_some() => Ok(()),
            _ => Err(ConfigError::NoAuthority),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listeners: vec![Listener::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))],
            workers: 4,
            memory_bytes_max: 64 << 20,
            evict: true,
            connections_max: 1024,
            connections_refuse_fast: true,
            requests_per_turn_max: 20,
            backlog: 1024,
            item_bytes_max: 1 << 20,
            cas: true,
            flush: true,
            dump: true,
            watch: true,
            shutdown: false,
            idle_timeout_seconds: 0,
            prefix_delimiter: b':',
            detail: false,
            verbosity: 0,
            port_file: None,
            cluster_file: None,
            protocol: Protocol::default(),
            protocols: Vec::new(),
            auth_file: None,
            sasl: false,
            sasl_file: None,
            tls: None,
            durability: None,
            metrics_address: None,
            slow_command_us: 0,
            accepted_only: AcceptedOnly::default(),
        }
    }
}

impl Default for AcceptedOnly {
    fn default() -> Self {
        Self {
            growth_factor: 1.25,
            chunk_size: 48,
            inter: None,
            tcp_port: 0,
            udp_port: 0,
            unix_mode: UNIX_MODE_DEFAULT,
            hash_algorithm: "murmur3".to_owned(),
            memory_file: None,
            unused: UNUSED_SETTINGS.map(|(name, value)| (name, value.to_owned())).into(),
        }
    }
}

/// What is logged at each `-v` or `verbosity`.
pub fn log_level(verbosity: usize) -> log::LevelFilter {
    match verbosity {
        0 => log::LevelFilter::Warn,
        1 => log::LevelFilter::Info,
        2 => log::LevelFilter::Debug,
        _ => log::LevelFilter::Trace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut Config), expect: Result<(), ConfigError>) {
        let mut config = Config::default();
        change(&mut config);
        assert_eq!(config.check(), expect);
    }

    #[test]
    fn settings_are_checked_one_by_one_and_together() {
        use ConfigError::*;
        check(|_| (), Ok(()));
        check(|c| c.workers = 0, Err(Workers(0)));
        check(|c| c.workers = 1025, Err(Workers(1025)));
        check(|c| c.connections_max = 0, Err(Connections));
        check(|c| c.requests_per_turn_max = 0, Err(RequestsPerTurn));
        check(|c| c.item_bytes_max = 1023, Err(ItemTooSmall(1023)));
        check(|c| c.item_bytes_max = 1024, Ok(()));
        check(|c| c.item_bytes_max = 32 << 20, Ok(()));
        check(|c| c.item_bytes_max = (32 << 20) + 1, Err(ItemAboveHalfOfMemory((32 << 20) + 1)));
        check(|c| c.memory_bytes_max = 2 << 20, Ok(()));
        check(|c| c.memory_bytes_max = 1 << 20, Err(ItemAboveHalfOfMemory(1 << 20)));
        let more_than_a_gigabyte = |c: &mut Config| {
            c.memory_bytes_max = 8 << 30;
            c.item_bytes_max = (1 << 30) + 1;
        };
        check(more_than_a_gigabyte, Err(ItemTooLarge((1 << 30) + 1)));
        let tls = |clients, ca_cert: Option<&str>| {
            let ca_cert = ca_cert.map(PathBuf::from);
            move |c: &mut Config| {
                c.listeners = vec![Listener::Tls(SocketAddr::from(([127, 0, 0, 1], 0)), clients)];
                c.tls = Some(TlsConfig { ca_cert, ..TlsConfig::default() });
            }
        };
        check(tls(ClientCertificates::Ignored, None), Ok(()));
        check(tls(ClientCertificates::Required, None), Err(NoAuthority));
        check(tls(ClientCertificates::Optional, None), Err(NoAuthority));
        check(tls(ClientCertificates::Required, Some("ca")), Ok(()));
        let without = |c: &mut Config| {
            tls(ClientCertificates::Ignored, None)(c);
            c.tls = None;
        };
        check(without, Err(NoCertificate));
    }

    #[test]
    fn who_may_speak_what() {
        use Admission::{AfterLogin, Free, No};
        use Protocol::{Binary, Either, Text};
        let nobody = Err(ConfigError::NoUsers);
        let text = Err(ConfigError::TextWithSasl);
        let binary = Err(ConfigError::BinaryWithoutSasl);
        for (protocol, auth_file, sasl, sasl_file, expected) in [
            (Either, false, false, false, Ok((Free, Free))),
            (Text, false, false, false, Ok((Free, No))),
            (Binary, false, false, false, Ok((No, Free))),
            (Either, true, false, false, Ok((AfterLogin, No))),
            (Text, true, false, true, Ok((AfterLogin, No))),
            (Binary, true, false, false, binary),
            (Either, false, true, false, nobody),
            (Either, false, true, true, Ok((No, AfterLogin))),
            (Text, false, true, true, text),
            (Binary, false, true, true, Ok((No, AfterLogin))),
            (Either, true, true, false, Ok((AfterLogin, AfterLogin))),
            (Text, true, true, true, Ok((AfterLogin, No))),
            (Binary, true, true, true, Ok((No, AfterLogin))),
            (Either, false, false, true, Ok((Free, Free))),
        ] {
            let file = |given: bool| given.then(|| PathBuf::from("users"));
            let (auth_file, sasl_file) = (file(auth_file), file(sasl_file));
            let config = Config { protocol, auth_file, sasl, sasl_file, ..Config::default() };
            let spoken = config.spoken(None);
            let admitted = config.check().map(|()| (spoken.text, spoken.binary));
            assert_eq!(admitted, expected, "{config:?}");
            let at = SocketAddr::from(([127, 0, 0, 1], 5));
            let at_one = Config { protocol: Either, protocols: vec![(at, protocol)], ..config };
            assert_eq!(at_one.spoken(Some(protocol)), spoken);
            assert_eq!(at_one.check().err(), expected.err(), "{at_one:?}");
        }
    }

    #[test]
    fn unused_settings_are_remembered_by_name() {
        let mut accepted = AcceptedOnly::default();
        assert_eq!(accepted.unused("slab_automove"), Some("1"));
        accepted.set_unused("slab_automove", "0");
        assert_eq!(accepted.unused("slab_automove"), Some("0"));
        assert_eq!(accepted.unused("maxbytes"), None);
        assert_eq!(accepted.unused.len(), UNUSED_SETTINGS.len());
    }
}
