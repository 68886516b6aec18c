//! What a client does without waiting for anybody, the same in both faces: it is made, and it is
//! asked about its servers. The examples are those of the blocking face.

/// Gives the `Client` of a face what does not wait.
macro_rules! what_does_not_wait {
    () => {
        /// Making one, and its servers.
        impl Client {
            /// A client of these servers (see [`Node`] for how they are written; several may stand
            /// in one string, with commas between), with default
            /// settings.
            ///
            /// # Errors
            /// `Error::Config` for an address that makes no sense, `Error::NoServers` for an empty
            /// list.
            ///
            /// ```
            /// use distcache::client::Client;
            ///
            /// let client = Client::connect(["10.0.0.1", "10.0.0.2:11212", "10.0.0.3:11211:2"])?;
            /// assert_eq!(client.servers().len(), 3);
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub fn connect(
                servers: impl IntoIterator<Item = impl AsRef<str>>,
            ) -> Result<Self, Error> {
                Self::with_config(servers, Config::default())
            }

            /// A client with settings of the caller's; see [`Config`] for an example.
            ///
            /// # Errors
            /// `Error::Config` for settings or addresses that make no sense, `Error::NoServers` if
            /// neither
            /// the list nor the discovery names one.
            ///
            /// ```
            /// use distcache::client::{Client, Config};
            ///
            /// let config = Config { key_prefix: "shop:".into(), ..Config::default() };
            /// let client = Client::with_config(["10.0.0.1", "10.0.0.2"], config)?;
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub fn with_config(
                servers: impl IntoIterator<Item = impl AsRef<str>>,
                config: Config,
            ) -> Result<Self, Error> {
                Self::with_nodes(parse_nodes(servers)?, config)
            }

            /// The same with servers as values.
            ///
            /// # Errors
            /// As [`with_config`](Self::with_config).
            ///
            /// ```
            /// use distcache::client::{Client, Config, Node};
            ///
            /// let nodes = vec![Node::tcp("10.0.0.1", 11211), Node::unix("/run/cache.sock")];
            /// let client = Client::with_nodes(nodes, Config::default())?;
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub fn with_nodes(nodes: Vec<Node>, config: Config) -> Result<Self, Error> {
                Ok(Self { shared: Arc::new(Shared(start(nodes, config)?)) })
            }

            /// A client as a URL describes it:
            /// `memcache://user:password@server,server?name=value&name=value`, or `memcaches` for
            /// TLS, and with `+sasl` behind that to log in by SASL. Servers are written as for
            /// [`connect`](Self::connect); user, password and values with `%` and two digits for
            /// what would end them.
            ///
            /// | name | value | of [`Config`] |
            /// |---|---|---|
            /// | `ring` | a kind of ring by its name, such as `spymemcached` | `ring` |
            /// | `prefix` | put before every key | `key_prefix` |
            /// | `expiry_s` | seconds | `expiry` |
            /// | `replicas`, `zone` | copies of each key, where we are | `replicas`, `zone` |
            /// | `timeout_ms`, `connect_timeout_ms` | milliseconds | `call_timeout`, ... |
            /// | `when_down` | `error`, `miss`, or `next` (for a minute at most) | `when_down` |
            ///
            /// # Errors
            /// `Error::Config` for what makes no sense; it does not show the password.
            ///
            /// ```
            /// use distcache::client::Client;
            ///
            /// let url = "memcache://10.0.0.1,10.0.0.2:11212?prefix=shop:&timeout_ms=200";
            /// assert_eq!(Client::from_url(url)?.servers().len(), 2);
            /// # Ok::<(), distcache::client::Error>(())
            /// ```
            pub fn from_url(url: &str) -> Result<Self, Error> {
                let (nodes, config) = crate::client::url::parse(url)?;
                Self::with_nodes(nodes, config)
            }

            /// The servers and how they are.
            ///
            /// ```
            /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
            /// # use distcache::client::Client;
            /// # let client = Client::connect([server.addresses()[0].to_string()])?;
            /// use distcache::client::State;
            ///
            /// assert_eq!(client.servers()[0].state, State::Healthy);
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub fn servers(&self) -> Vec<ServerStatus> {
                self.cluster().statuses()
            }

            /// How long each server took to answer.
            ///
            /// ```
            /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
            /// # use distcache::client::Client;
            /// # let client = Client::connect([server.addresses()[0].to_string()])?;
            /// client.set("n", 7)?;
            /// let (_, latencies) = &client.latencies()[0];
            /// assert_eq!(latencies.count(), 1);
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub fn latencies(&self) -> Vec<(Node, Latencies)> {
                self.cluster().latencies()
            }

            /// The server that owns a key, whether it is up or not; `None` without servers.
            ///
            /// ```
            /// use distcache::client::Client;
            ///
            /// let client = Client::connect(["10.0.1.1", "10.0.1.2", "10.0.1.3", "10.0.1.4"])?;
            /// assert_eq!(client.server_of("foo").unwrap().host(), "10.0.1.3");
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub fn server_of(&self, key: impl AsKey) -> Option<Node> {
                self.cluster().owner(&key).map(|server| server.node.clone())
            }

            /// Adds a server. About one key of so many as there are servers now belongs to it.
            ///
            /// # Errors
            /// `Error::Config` if the address makes no sense or is there already.
            ///
            /// ```
            /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
            /// # use distcache::client::Client;
            /// # let client = Client::connect([server.addresses()[0].to_string()])?;
            /// client.add_server("10.0.0.9:11211")?;
            /// assert_eq!(client.servers().len(), 2);
            /// client.remove_server("10.0.0.9:11211")?;
            /// assert_eq!(client.servers().len(), 1);
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub fn add_server(&self, server: &str) -> Result<(), Error> {
                self.set_servers(self.cluster().nodes_with(server)?)
            }

            /// Removes a server, named by its address or its name.
            ///
            /// # Errors
            /// `Error::Config` if there is none like this.
            ///
            /// ```
            /// use distcache::client::Client;
            ///
            /// let client = Client::connect(["10.0.0.1", "10.0.0.2"])?;
            /// client.remove_server("10.0.0.2")?;
            /// assert!(client.remove_server("10.0.0.2").is_err());
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub fn remove_server(&self, server: &str) -> Result<(), Error> {
                self.set_servers(self.cluster().nodes_without(server)?)
            }

            /// Puts another list of servers in place. Those on both lists keep their connections.
            ///
            /// # Errors
            /// `Error::Config` if a server is named twice.
            ///
            /// ```
            /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
            /// # use distcache::client::Client;
            /// # let client = Client::connect([server.addresses()[0].to_string()])?;
            /// let nodes = vec!["10.0.0.1".parse()?, "10.0.0.2:11212:3".parse()?];
            /// client.set_servers(nodes)?;
            /// assert_eq!(client.servers().len(), 2);
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub fn set_servers(&self, nodes: Vec<Node>) -> Result<(), Error> {
                let set = self.cluster().set_servers(nodes);
                self.cluster().wake_monitor();
                set
            }

            /// Counters since the client was made.
            ///
            /// ```
            /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
            /// # use distcache::client::Client;
            /// # let client = Client::connect([server.addresses()[0].to_string()])?;
            /// client.get::<u8>("none")?;
            /// assert_eq!(client.counters().misses, 1);
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub fn counters(&self) -> Counters {
                self.cluster().counters.read()
            }

            /// What the near cache holds ([`Config::near`]); how often it is read from is in
            /// [`counters`](Self::counters).
            #[cfg(feature = "near")]
            pub fn near_cache(&self) -> crate::client::NearStatus {
                self.cluster().near.status()
            }

            pub(super) fn cluster(&self) -> &Cluster {
                &self.shared.0
            }

            pub(super) fn config(&self) -> &Config {
                &self.shared.0.config
            }
        }
    };
}

pub(in crate::client) use what_does_not_wait;
