//! A running server to test: `distcached` or an external binary.
//!
//! The one place that knows how `distcached` is started. Dropping a target ends its server.

use std::env;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use crate::flags::ServerFlags;
use crate::identity::{Identity, Version};
use crate::process::{ServerProcess, memcached_binaries};
use crate::wire::{Connection, REPLY_TIMEOUT};

/// A server that listens on 127.0.0.1 until it is dropped.
#[derive(Debug)]
pub struct Target {
    identity: Identity,
    server: ServerProcess,
}

impl Target {
    /// Starts the server under test.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_distcached(flags: &ServerFlags) -> io::Result<Self> {
        if let Some(binary) = env::var_os("DISTCACHED") {
            let server = ServerProcess::start(Path::new(&binary), flags.arguments())?;
            return Ok(Self { identity: Identity::Distcached, server });
        }
        // Until the embedded server exists: the first memcached, under its own name.
        match memcached_binaries().first() {
            Some(binary) => Self::start_memcached(binary, flags),
            None => Err(io::Error::other("neither DISTCACHED nor a memcached is there")),
        }
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
        let server = ServerProcess::start(binary, flags.arguments())?;
        Ok(Self { identity: Identity::Distcached, server })
    }

    /// Starts a memcached binary and asks for its version.
    ///
    /// # Errors
    /// It does not start, or does not name a version.
    pub fn start_memcached(binary: &Path, flags: &ServerFlags) -> io::Result<Self> {
        let server = ServerProcess::start(binary, flags.arguments())?;
        let identity = Identity::Memcached(ask_version(server.address())?);
        Ok(Self { identity, server })
    }

    /// Which server this is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// What the socket reports.
    pub fn connect(&self) -> io::Result<Connection> {
        Connection::open(self.address())
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
