//! Where a changing list of servers comes from. Owns the formats; the monitor decides when to read.

use crate::client::blocking::connection::Connection;
use crate::client::config::Config;
use crate::client::error::Error;
use crate::client::placement::node::Node;
use std::net::ToSocketAddrs;
use std::path::PathBuf;

/// A source of the list of servers.
///
/// The list is read in the background; if that fails or gives none, the list in use stays.
///
/// ```
/// use distcache::client::{Client, Config, Discovery};
///
/// let path = std::env::temp_dir().join("distcache-doc-servers");
/// std::fs::write(&path, "# one server a line\n10.0.0.1:11211\n10.0.0.2:11211:2\n").unwrap();
/// let discovery = Some(Discovery::File(path));
/// let client = Client::with_config([""; 0], Config { discovery, ..Config::default() })?;
/// assert_eq!(client.servers().len(), 2);
/// # Ok::<(), distcache::client::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Discovery {
    /// A file with one server a line, as [`Node`] is written; `#` starts a comment.
    File(PathBuf),
    /// All addresses that a name stands for, in numerical order.
    Dns {
        /// The name.
        host: String,
        /// The port of every server.
        port: u16,
    },
    /// `config get cluster`, asked of this server: ElastiCache's configuration endpoint and what
    /// imitates it.
    ConfigCluster(Node),
}

impl Discovery {
    /// The servers as of now.
    pub(in crate::client) fn read(&self, config: &Config) -> Result<Vec<Node>, Error> {
        let nodes = match self {
            Self::File(path) => {
                let text = std::fs::read_to_string(path);
                let path = path.display();
                parse_file(&text.map_err(|error| Error::Config(format!("{path}: {error}")))?)?
            }
            Self::Dns { host, port } => {
                let found = (host.as_str(), *port).to_socket_addrs();
                let found = found.map_err(|error| Error::Config(format!("{host}: {error}")))?;
                let mut addresses: Vec<_> = found.collect();
                addresses.sort_unstable();
                addresses.dedup();
                addresses.iter().map(|address| Node::tcp(address.ip().to_string(), *port)).collect()
            }
            Self::ConfigCluster(node) => {
                parse_cluster(&Connection::ask_for_cluster(node, config)?)?
            }
        };
        if nodes.is_empty() { Err(Error::NoServers) } else { Ok(nodes) }
    }
}

fn parse_file(text: &str) -> Result<Vec<Node>, Error> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty()).map(str::parse).collect()
}

/// A version on the first line, then `host|ip|port` for each server.
fn parse_cluster(text: &str) -> Result<Vec<Node>, Error> {
    let wrong = || Error::Config(format!("not a cluster configuration: {text:?}"));
    let servers = text.lines().nth(1).ok_or_else(wrong)?;
    let parse = |server: &str| {
        let mut parts = server.split('|');
        let (host, ip, port) = (parts.next()?, parts.next()?, parts.next()?.parse().ok()?);
        Some(Node::tcp(if host.is_empty() { ip } else { host }, port))
    };
    servers.split_whitespace().map(|server| parse(server).ok_or_else(wrong)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        let names = |nodes: Result<Vec<Node>, Error>| {
            nodes.map(|nodes| nodes.iter().map(Node::address).collect::<Vec<_>>().join(" ")).ok()
        };
        for (text, expected) in
            [("a:1\n\n# x\nb:2:3 # y\n", Some("a:1 b:2")), ("", Some("")), ("a:x\n", None)]
        {
            assert_eq!(names(parse_file(text)).as_deref(), expected, "{text:?}");
        }
        for (text, expected) in [
            (
                "12\na.example|10.0.0.1|11211 |10.0.0.2|11212\n",
                Some("a.example:11211 10.0.0.2:11212"),
            ),
            ("12\n", None),
            ("12\na|b\n", None),
        ] {
            assert_eq!(names(parse_cluster(text)).as_deref(), expected, "{text:?}");
        }
    }
}
