//! A running server to test: `distcached` inside this process, or an external binary.
//!
//! The one place that knows how `distcached` is started. Dropping a target ends its server.

use std::env;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use distcache::server::Server;
use distcache::server::config::Config;

use crate::flags::ServerFlags;
use crate::identity::{Identity, Version};
use crate::process::ServerProcess;
use crate::wire::{Connection, REPLY_TIMEOUT};

/// A server that listens on 127.0.0.1 until it is dropped.
#[derive(Debug)]
pub struct Target {
    identity: Identity,
    server: Running,
}

enum Running {
    Embedded { address: SocketAddr, _server: Server },
    External(ServerProcess),
}

impl Target {
    /// Starts the server under test: the binary named by the environment variable `DISTCACHED`, or
    /// else the library, with its workers as threads of this process.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_distcached(flags: &ServerFlags) -> io::Result<Self> {
        if let Some(binary) = env::var_os("DISTCACHED") {
            return Self::start_external(Path::new(&binary), flags, Identity::Distcached);
        }
        let mut config = Config::default();
        flags.apply(&mut config).map_err(io::Error::other)?;
        let server = Server::start(config).map_err(io::Error::other)?;
        let address = server.addresses().first().copied();
        let address = address.ok_or_else(|| io::Error::other("the server has no TCP address"))?;
        let server = Running::Embedded { address, _server: server };
        Ok(Self { identity: Identity::Distcached, server })
    }

    /// Starts a binary that may be either server; its file name tells.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_binary(binary: &Path, flags: &ServerFlags) -> io::Result<Self> {
        let name = binary.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("memcached") {
            return Self::start_memcached(binary, flags);
        }
        Self::start_external(binary, flags, Identity::Distcached)
    }

    /// Starts a memcached binary and asks for its version.
    ///
    /// # Errors
    /// It does not start, or does not name a version.
    pub fn start_memcached(binary: &Path, flags: &ServerFlags) -> io::Result<Self> {
        let mut target = Self::start_external(binary, flags, Identity::Distcached)?;
        target.identity = Identity::Memcached(ask_version(target.address())?);
        Ok(target)
    }

    fn start_external(binary: &Path, flags: &ServerFlags, identity: Identity) -> io::Result<Self> {
        let server = ServerProcess::start(binary, flags.arguments())?;
        Ok(Self { identity, server: Running::External(server) })
    }

    /// Which server this is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        match &self.server {
            Running::Embedded { address, .. } => *address,
            Running::External(process) => process.address(),
        }
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// What the socket reports.
    pub fn connect(&self) -> io::Result<Connection> {
        Connection::open(self.address())
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded { address, .. } => write!(f, "Embedded({address})"),
            Self::External(process) => write!(f, "External({process:?})"),
        }
    }
}

fn ask_version(address: SocketAddr) -> io::Result<Version> {
    let mut connection = Connection::open(address)?;
    connection.send(b"version\r\nmn\r\n")?;
    let reply = connection.receive(1, REPLY_TIMEOUT)?.bytes;
    let text = String::from_utf8_lossy(&reply);
    let version = text.strip_prefix("VERSION ").and_then(|text| text.split_whitespace().next());
    version
        .ok_or_else(|| format!("no version in {text:?}"))
        .and_then(str::parse)
        .map_err(io::Error::other)
}
