//! A server as the program names it: address, weight, name. Owns the notation; no I/O.

use crate::client::error::Error;
use crate::client::placement::ring::PORT_DEFAULT;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A server: where it is, and what the ring is to make of it.
///
/// Written `host`, `host:port`, `[ipv6]:port`, `unix:/path` or `/path`, with a weight behind one
/// more colon (`host:port:weight`) and a name behind a blank, as twemproxy's configuration has it.
/// A zone is one more word, such as `zone=eu-1`.
///
/// ```
/// use distcache::client::Node;
///
/// let node: Node = "cache1.example:11212:3 first".parse()?;
/// assert_eq!((node.host(), node.port(), node.weight()), ("cache1.example", 11212, 3));
/// assert_eq!(node.name(), "first");
/// let node: Node = "10.0.0.1 zone=eu-1".parse()?;
/// assert_eq!((node.zone(), node.given_name()), (Some("eu-1"), None));
/// assert_eq!("localhost".parse::<Node>()?.port(), 11211);
/// assert!("localhost:99999".parse::<Node>().is_err());
/// # Ok::<(), distcache::client::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Node {
    host: String,
    port: u16,
    unix: bool,
    weight: u32,
    name: Option<String>,
    zone: Option<String>,
}

impl Node {
    /// A server at a TCP address.
    pub fn tcp(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port, unix: false, weight: 1, name: None, zone: None }
    }

    /// A server at a Unix socket. Systems without them (Windows) fail to connect.
    pub fn unix(path: impl AsRef<Path>) -> Self {
        let host = path.as_ref().to_string_lossy().into_owned();
        Self { host, port: 0, unix: true, weight: 1, name: None, zone: None }
    }

    /// The same server with a weight: one of weight 2 owns twice the keys of one of weight 1. Zero
    /// counts as 1.
    #[must_use]
    pub fn with_weight(self, weight: u32) -> Self {
        Self { weight: weight.max(1), ..self }
    }

    /// The same server with a name of its own. A name that stays lets a server move to another
    /// address with its keys, for the kinds of rings that look at names.
    #[must_use]
    pub fn with_name(self, name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    /// The same server in a zone: a data centre, a rack, whatever fails together. See
    /// `Config::replicas`.
    #[must_use]
    pub fn with_zone(self, zone: impl Into<String>) -> Self {
        Self { zone: Some(zone.into()), ..self }
    }

    /// The host name or IP address; for a Unix socket its path.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port; 0 for a Unix socket.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path of a Unix socket.
    pub fn unix_path(&self) -> Option<PathBuf> {
        self.unix.then(|| PathBuf::from(&self.host))
    }

    /// The weight, at least 1.
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// The name: the one given, or the address.
    pub fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.address())
    }

    /// The name, if one was given.
    pub fn given_name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The zone, if one was given.
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// The address as one writes it.
    pub fn address(&self) -> String {
        match (self.unix, self.host.contains(':')) {
            (true, _) => format!("unix:{}", self.host),
            (false, true) => format!("[{}]:{}", self.host, self.port),
            (false, false) => format!("{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.name())
    }
}

impl FromStr for Node {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |what: &str| {
            Error::Config(format!(
                "{text:?} is no server: {what}; write host:port, host:port:weight or unix:/path"
            ))
        };
        let mut words = text.split_whitespace();
        let address = words.next().unwrap_or_default();
        let (zones, names): (Vec<&str>, Vec<&str>) =
            words.partition(|word| word.starts_with("zone="));
        let name = (!names.is_empty()).then(|| names.join(" "));
        let zone = zones.first().and_then(|zone| zone.split_once('='));
        let zone = zone.map(|(_, zone)| zone.to_owned());
        let node = match address.strip_prefix("unix:") {
            Some(path) => Self::unix(path),
            None if address.starts_with('/') => Self::unix(address),
            None => parse_tcp(address).map_err(wrong)?,
        };
        if node.host.is_empty() {
            return Err(wrong("it has no host"));
        }
        Ok(Self { name, zone, ..node })
    }
}

fn parse_tcp(address: &str) -> Result<Node, &'static str> {
    let (host, numbers) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, behind) = rest.split_once(']').ok_or("the bracket is not closed")?;
            (host, behind.strip_prefix(':').unwrap_or(behind))
        }
        // Several colons and no brackets: an IPv6 address alone.
        None if address.parse::<std::net::Ipv6Addr>().is_ok() => (address, ""),
        None => address.split_once(':').unwrap_or((address, "")),
    };
    let (port, weight) = numbers.split_once(':').unwrap_or((numbers, "1"));
    let port = match port {
        "" => PORT_DEFAULT,
        _ => port.parse().map_err(|_| "its port is no number from 0 to 65535")?,
    };
    let weight: u32 = weight.parse().map_err(|_| "its weight is no number")?;
    if weight == 0 {
        return Err("its weight is 0");
    }
    Ok(Node::tcp(host, port).with_weight(weight))
}
