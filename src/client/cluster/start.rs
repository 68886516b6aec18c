//! How a client begins: its list of servers, and the thread that looks after them.

use crate::client::cluster::{Cluster, monitor};
use crate::client::config::Config;
use crate::client::error::Error;
use crate::client::placement::node::Node;
use std::sync::Arc;

/// Nodes from a program's list of addresses, each of which may be several with commas between;
/// empty ones are left out.
pub(in crate::client) fn parse_nodes(
    servers: impl IntoIterator<Item = impl AsRef<str>>,
) -> Result<Vec<Node>, Error> {
    let mut nodes = Vec::new();
    for list in servers {
        let servers = list.as_ref().split(',').map(str::trim);
        for server in servers.filter(|server| !server.is_empty()) {
            nodes.push(server.parse()?);
        }
    }
    Ok(nodes)
}

/// Makes the cluster of a new client, with the list of servers its discovery names.
pub(in crate::client) fn start(nodes: Vec<Node>, config: Config) -> Result<Arc<Cluster>, Error> {
    config.check()?;
    let nodes = match &config.discovery {
        // A source that fails at the start is no reason to give up if servers are named as well.
        Some(discovery) => discovery.read(&config).or_else(|error| match nodes.is_empty() {
            true => Err(error),
            false => Ok(nodes),
        })?,
        None if nodes.is_empty() => return Err(Error::NoServers),
        None => nodes,
    };
    let cluster = Arc::new(Cluster::new(nodes, config)?);
    monitor::start(&cluster)?;
    Ok(cluster)
}

/// What all clones of a client hold; the last one ends the cluster.
#[derive(Debug)]
pub(in crate::client) struct Shared(pub Arc<Cluster>);

impl Drop for Shared {
    fn drop(&mut self) {
        self.0.end();
    }
}
