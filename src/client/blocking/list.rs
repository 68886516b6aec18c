//! Lists of the keys that servers hold: for people and tools, not for programs at work.

use crate::client::blocking::client::Client;
use crate::client::placement::node::Node;
use crate::client::wire::command::{Effect, ServerCommand};
use crate::client::wire::listing;
use crate::client::wire::outcome::PerServer;
use crate::client::wire::reply::Reply;

impl Client {
    /// Hands over every key of every server, one server after the other, as the server stores it:
    /// with `Config::key_prefix`. The order is the server's own; keys stored meanwhile may be
    /// missing. A server's whole list has to arrive within `Config::call_timeout`.
    ///
    /// By `lru_crawler metadump all`, which servers can be told to refuse.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// client.set("brazil", "football")?;
    /// let mut keys = Vec::new();
    /// for (node, listed) in client.list_keys(|_, key| keys.push(key.to_vec())) {
    ///     listed.map_err(|error| format!("the list of {node} is not complete: {error}"))?;
    /// }
    /// assert_eq!(keys, [b"brazil"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn list_keys(&self, mut each: impl FnMut(&Node, &[u8])) -> PerServer<()> {
        let topology = self.cluster().topology();
        let mut answers = Vec::with_capacity(topology.servers.len());
        for server in &topology.servers {
            let mut each = |key: &[u8]| each(&server.node, key);
            let convert = |reply: Reply<'_>| listing::key(reply, &mut each);
            // Not a read: after half a list nothing may be asked again.
            let asked =
                self.cluster().tell(server, ServerCommand::ListKeys, Effect::Write, convert);
            answers.push((server.node.clone(), asked));
        }
        answers
    }
}
