//! The client's settings. Owns defaults and what they mean.

use crate::client::clock;
use crate::client::cluster::discovery::Discovery;
use crate::client::error::Error;
use crate::client::events::Event;
use crate::client::placement::key::{KeyPolicy, KeyRules};
use crate::client::placement::node::Node;
use crate::client::placement::ring::RingKind;
use crate::client::value::AnyCodec;
use crate::client::wire::command::{Protocol, ServerCommand};
use crate::client::wire::login::Login;
use crate::limits::EXPTIME_RELATIVE_SECONDS_MAX;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Copies of a key at most: each costs every write a round trip.
const REPLICAS_MAX: usize = 4;

/// When an item shall expire. Servers count in seconds; parts of one are rounded up.
///
/// ```
/// use distcache::client::Expiry;
/// use std::time::Duration;
///
/// assert_eq!(Expiry::from(Duration::from_millis(1500)), Expiry::In(Duration::from_millis(1500)));
/// assert_eq!(Expiry::default(), Expiry::Never);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expiry {
    /// Never.
    #[default]
    Never,
    /// After this time; zero is at once.
    In(Duration),
    /// At this time; one in the past is at once.
    At(SystemTime),
}

impl From<Duration> for Expiry {
    fn from(after: Duration) -> Self {
        Self::In(after)
    }
}

impl From<SystemTime> for Expiry {
    fn from(at: SystemTime) -> Self {
        Self::At(at)
    }
}

impl Expiry {
    /// As the protocol says it: 0 never, up to 30 days in seconds from now, later as Unix time,
    /// negative at once.
    pub(super) fn exptime(self) -> i64 {
        let up = |duration: Duration| {
            let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
            i64::try_from(seconds).unwrap_or(i64::MAX)
        };
        let exptime = match self {
            Self::Never => 0,
            Self::In(Duration::ZERO) => -1,
            Self::In(after) => match up(after) {
                seconds if seconds <= EXPTIME_RELATIVE_SECONDS_MAX => seconds,
                seconds => seconds.saturating_add_unsigned(clock::unix_seconds()),
            },
            Self::At(at) => match at.duration_since(UNIX_EPOCH) {
                Ok(since) if up(since) > EXPTIME_RELATIVE_SECONDS_MAX => up(since),
                _ => -1,
            },
        };
        // Servers read 32 bits; what lies beyond 2038 is for ever.
        if exptime > i64::from(i32::MAX) { 0 } else { exptime }
    }
}

/// An expiry not later than so many seconds from now.
pub(super) fn capped(exptime: i64, seconds_max: u32) -> i64 {
    let limit = i64::from(seconds_max.max(1));
    match exptime {
        0 => limit,
        ..=-1 => exptime,
        seconds if seconds <= EXPTIME_RELATIVE_SECONDS_MAX => seconds.min(limit),
        unix => unix.min(limit.saturating_add_unsigned(clock::unix_seconds())),
    }
}

/// What becomes of the keys of an ejected server.
///
/// | choice | reads | writes |
/// |---|---|---|
/// | `Error` | `Error::Down` | `Error::Down` |
/// | `Miss` | a miss | dropped: `set` says it is done, everything else that there is no item |
/// | `NextServer` | the next server on the ring | the same, with a short expiry |
/// | `Gutter` | a pool of spare servers | the same, with a short expiry |
///
/// Numbers that must not repeat (`unique_id`, `incr_or`) fail with `Error::Down` in every case.
///
/// Before a server is ejected, each of its failures is an error to a write, since nobody knows
/// whether it was done; to a read it is an error with `Error` and a miss with the other choices.
///
/// ```
/// use distcache::client::{Client, Config, WhenDown};
///
/// let spare = vec!["10.0.1.1".parse()?];
/// let when_down = WhenDown::Gutter { nodes: spare, expiry_seconds_max: 10 };
/// let config = Config { when_down, ..Config::default() };
/// let client = Client::with_config(["10.0.0.1", "10.0.0.2"], config)?;
/// # Ok::<(), distcache::client::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum WhenDown {
    /// Calls fail at once. Right where the data is not a copy of something.
    #[default]
    Error,
    /// As if the cache held nothing.
    Miss,
    /// The next server on the ring stands in.
    NextServer {
        /// Nothing lives longer than this in a place where it does not belong.
        expiry_seconds_max: u32,
    },
    /// Servers that are kept for this stand in, chosen by the same kind of ring.
    Gutter {
        /// The spare servers.
        nodes: Vec<Node>,
        /// Nothing lives longer than this there.
        expiry_seconds_max: u32,
    },
}

/// What keeps old values of a server that comes back from being read, and what stood in for it from
/// being read at its next absence.
///
/// While a server is away, `Miss`, `NextServer` and `Gutter` let writes to its keys go elsewhere.
/// When it is back it may still hold older values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StaleGuard {
    /// Nothing does.
    Off,
    /// The keys written meanwhile by this client are deleted on that server, and on those that
    /// stood in, before it is used again. If there were more, all its items are flushed.
    Repair {
        /// Keys remembered for each server that is away.
        keys_max: usize,
    },
}

/// A function that is told what happens.
///
/// ```
/// use distcache::client::{Client, Config, Event, Listener};
///
/// let listener = Listener::new(|event: &Event| match event {
///     Event::Ejected { server, cause } => eprintln!("{server} is not used any more: {cause}"),
///     other => eprintln!("{other:?}"),
/// });
/// let config = Config { listener: Some(listener), ..Config::default() };
/// let client = Client::with_config(["10.0.0.1", "10.0.0.2"], config)?;
/// # Ok::<(), distcache::client::Error>(())
/// ```
#[derive(Clone)]
pub struct Listener(pub(super) Arc<dyn Fn(&Event) + Send + Sync>);

impl Listener {
    /// Wraps a function. It is called from the thread in which something happens, so it should be
    /// quick and must not call the client.
    pub fn new(listener: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listener))
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Listener")
    }
}

/// The settings of a client.
///
/// ```
/// use distcache::client::{Client, Config, RingKind, WhenDown};
/// use std::time::Duration;
///
/// let config = Config {
///     ring: RingKind::Weighted,
///     key_prefix: "shop:".into(),
///     call_timeout: Duration::from_millis(200),
///     when_down: WhenDown::Miss,
///     ..Config::default()
/// };
/// let client = Client::with_config(["10.0.0.1:11211", "10.0.0.2:11211"], config)?;
/// # Ok::<(), distcache::client::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Config {
    /// How keys are placed on servers.
    pub ring: RingKind,
    /// Put before every key.
    pub key_prefix: String,
    /// The prefix takes part in placing a key. libmemcached and php-memcached place without it.
    pub place_by_prefix: bool,
    /// Only what stands between these two characters of a key places it: twemproxy's `hash_tag`.
    pub hash_tag: Option<(u8, u8)>,
    /// What happens to keys that the text protocol cannot carry.
    pub key_policy: KeyPolicy,
    /// How values become bytes: an [`Encoding`](crate::client::Encoding), or your own
    /// [`Codec`](crate::client::Codec).
    pub codec: AnyCodec,
    /// The expiry of calls that name none.
    pub expiry: Expiry,
    /// Who to say we are to every server, on each connection before its first use. Servers started
    /// with `-Y` or `-S` answer nobody else; for `-S` it is a [`Login::sasl`].
    pub login: Option<Login>,
    /// Whether and how connections are encrypted.
    #[cfg(feature = "tls")]
    pub tls: Option<crate::client::net::tls::Tls>,
    /// Longest wait for a connection to be made, and once more for TLS handshake and login on it.
    pub connect_timeout: Duration,
    /// Longest wait for the next bytes of a reply.
    pub read_timeout: Duration,
    /// Longest wait for the system to take the next bytes of a request.
    pub write_timeout: Duration,
    /// Longest time for a whole call, all waiting included.
    pub call_timeout: Duration,
    /// Connections to each server at a time; further calls wait for one. For the asynchronous face,
    /// those of large requests.
    pub connections_max: usize,
    /// Connections to each server that all calls of the asynchronous face share, each with many
    /// calls at a time. One is enough for most programs.
    pub pipelined_connections: usize,
    /// Connections to each server that are kept while nobody needs them, each for `idle_timeout`.
    pub idle_connections_max: usize,
    /// A connection unused for longer than this is closed.
    pub idle_timeout: Duration,
    /// Failures in a row that eject a server.
    pub failures_max: u32,
    /// Wait before the first probe of an ejected server; each further one waits twice as long.
    pub probe_after: Duration,
    /// Longest wait between two probes, and the wait before a refused login is tried again.
    pub probe_after_max: Duration,
    /// How often servers in use that nobody called meanwhile are probed too, so that one that died
    /// is noticed without calls.
    pub check_every: Option<Duration>,
    /// What becomes of the keys of an ejected server.
    pub when_down: WhenDown,
    /// What keeps old values from being read when it is back.
    pub stale_guard: StaleGuard,
    /// Servers that hold a copy of each key: 1 is none but the owner.
    ///
    /// With two or more, `set`, `delete` and `touch` go to all copies, one after the other, and a
    /// read to one of them: of `zone` if there is one, else in the ring's order; to the next one
    /// on a failure or a miss. Copies are in as many zones ([`Node::with_zone`]) as possible. What
    /// depends on what is there (`add`, `replace`, `append`, `cas`, `update`, `take`, `incr`,
    /// `get_or_compute`, reads with tokens) is decided by the key's owner, with `when_down` while
    /// it is away; the other copies are deleted then, and reads find the owner's. Each copy has
    /// `call_timeout` of its own.
    ///
    /// **Not promised:** that copies are equal. Two programs that write at a time may leave
    /// different values on two servers until the next write, and a write that failed may be on one
    /// of them only. What this client writes while a copy is away is deleted there before it is
    /// used again ([`StaleGuard`]); other programs' clients do that for what they write.
    ///
    /// ```
    /// use distcache::client::{Client, Config};
    ///
    /// let config = Config { replicas: 2, zone: Some("eu-1".into()), ..Config::default() };
    /// let servers = ["10.0.1.1 zone=eu-1", "10.0.2.1 zone=eu-2"];
    /// let client = Client::with_config(servers, config)?;
    /// # Ok::<(), distcache::client::Error>(())
    /// ```
    pub replicas: usize,
    /// Where this program runs: reads go to copies of this zone first.
    pub zone: Option<String>,
    /// For reads with [`Config::replicas`]: a copy is passed over while its server has more than
    /// its part of the calls that this client has under way, by more than so many percent
    /// (consistent hashing with bounded loads: Mirrokni, Thorup and Zadimoghaddam, 2018). 25 is a
    /// usual bound.
    ///
    /// It spreads the reads of one very hot key over its copies. Load is what this client counts
    /// itself, so it is the same for nobody else: a key without copies would then be on servers
    /// that no write or delete reaches, which is why there is no bound without replicas. Copies of
    /// our `zone` are passed over too.
    pub load_percent_max: Option<u32>,
    /// Values that are kept in the process: off by default.
    #[cfg(feature = "near")]
    pub near: Option<crate::client::near::NearCache>,
    /// How long `get_or_compute` lets one caller compute before another may try.
    pub lease: Duration,
    /// When less than this is left of an item's time, `get_or_compute` lets one caller compute it
    /// anew while the others read it, so that nobody ever waits for a key in steady use.
    pub recompute_before: Option<Duration>,
    /// Where the list of servers comes from, if it changes while the program runs.
    pub discovery: Option<Discovery>,
    /// How often that is read.
    pub discovery_every: Duration,
    /// Who is told what happens to servers.
    pub listener: Option<Listener>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ring: RingKind::default(),
            key_prefix: String::new(),
            place_by_prefix: false,
            hash_tag: None,
            key_policy: KeyPolicy::default(),
            codec: AnyCodec::default(),
            expiry: Expiry::default(),
            login: None,
            #[cfg(feature = "tls")]
            tls: None,
            connect_timeout: Duration::from_secs(1),
            read_timeout: Duration::from_secs(1),
            write_timeout: Duration::from_secs(1),
            call_timeout: Duration::from_secs(2),
            connections_max: 64,
            pipelined_connections: 1,
            idle_connections_max: 64,
            idle_timeout: Duration::from_secs(60),
            failures_max: 3,
            probe_after: Duration::from_millis(100),
            probe_after_max: Duration::from_secs(5),
            check_every: Some(Duration::from_secs(5)),
            when_down: WhenDown::default(),
            stale_guard: StaleGuard::Repair { keys_max: 100_000 },
            replicas: 1,
            zone: None,
            load_percent_max: None,
            #[cfg(feature = "near")]
            near: None,
            lease: Duration::from_secs(10),
            recompute_before: None,
            discovery: None,
            discovery_every: Duration::from_secs(30),
            listener: None,
        }
    }
}

impl Config {
    pub(super) fn check(&self) -> Result<(), Error> {
        let timeouts = [
            ("connect_timeout", self.connect_timeout),
            ("read_timeout", self.read_timeout),
            ("write_timeout", self.write_timeout),
            ("call_timeout", self.call_timeout),
            ("probe_after", self.probe_after),
            ("lease", self.lease),
            ("check_every", self.check_every.unwrap_or(self.call_timeout)),
            ("discovery_every", self.discovery_every),
        ];
        let wrong = |what: String| Err(Error::Config(what));
        for (name, timeout) in timeouts {
            if timeout < Duration::from_millis(1) || timeout > Duration::from_secs(86_400) {
                return wrong(format!("{name} is not between a millisecond and a day"));
            }
        }
        if self.connections_max == 0 || self.failures_max == 0 {
            return wrong("connections_max and failures_max are at least 1".into());
        }
        if !(1..=REPLICAS_MAX).contains(&self.replicas) {
            return wrong(format!("replicas is 1 to {REPLICAS_MAX}"));
        }
        if self.load_percent_max.is_some() && !self.has_replicas() {
            return wrong("load_percent_max needs replicas: 2 or more".into());
        }
        if self.pipelined_connections == 0 {
            return wrong("pipelined_connections is at least 1".into());
        }
        #[cfg(feature = "near")]
        if let Some(near) = &self.near {
            near.check()?;
        }
        if self.key_prefix.len() > 200 {
            return wrong("key_prefix leaves no room for keys: 200 bytes at most".into());
        }
        if let Some(Discovery::ConfigCluster(_)) = self.discovery {
            ServerCommand::ConfigCluster.check(self.protocol())?;
        }
        self.login.as_ref().map_or(Ok(()), Login::check)
    }

    pub(super) fn has_replicas(&self) -> bool {
        self.replicas > 1
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.login.as_ref().map_or(Protocol::Text, Login::protocol)
    }

    pub(super) fn key_rules(&self) -> KeyRules {
        KeyRules {
            policy: self.key_policy,
            prefix: self.key_prefix.clone().into_bytes(),
            place_by_prefix: self.place_by_prefix,
            hash_tag: self.hash_tag,
            in_frames: self.protocol() == Protocol::Binary,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiries_as_they_are_sent() {
        let days = |days: u64| Duration::from_secs(days * 86_400);
        for (expiry, expected) in [
            (Expiry::Never, 0),
            (Expiry::In(Duration::ZERO), -1),
            (Expiry::In(Duration::from_millis(1)), 1),
            (Expiry::In(Duration::from_millis(1001)), 2),
            (Expiry::In(days(30)), 2_592_000),
            (Expiry::At(UNIX_EPOCH), -1),
            (Expiry::At(UNIX_EPOCH + days(20_000)), 1_728_000_000),
            (Expiry::In(days(200_000)), 0),
        ] {
            assert_eq!(expiry.exptime(), expected, "{expiry:?}");
        }
        assert!(Expiry::In(days(31)).exptime() > 1_700_000_000);
        for (exptime, expected) in [(0, 10), (5, 5), (3600, 10), (-1, -1)] {
            assert_eq!(capped(exptime, 10), expected);
        }
        assert!(capped(i64::from(i32::MAX), 10) < 2_147_483_647);
    }
}
