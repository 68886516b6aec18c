//! What it takes to make a connection, ready to use: how long it may take, who we are, and whether
//! it is encrypted. Owns no connection.

use crate::client::config::Config;
use crate::client::error::Error;
use crate::client::net::tls::{self, Session};
use crate::client::placement::node::Node;
use crate::client::wire::login::Login;
use std::io;
use std::time::Duration;

/// Made once for a client.
#[derive(Debug, Clone)]
pub(in crate::client) struct Dialer {
    pub timeout: Duration,
    pub login: Option<Login>,
    tls: Option<tls::Prepared>,
}

impl Dialer {
    /// Reads the files that the settings name.
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        Ok(Self { timeout: config.connect_timeout, login: config.login.clone(), tls: tls(config)? })
    }

    /// What encrypts a new connection to a server, if anything does.
    pub(crate) fn session(&self, node: &Node) -> Result<Option<Session>, Error> {
        self.tls.as_ref().map_or(Ok(None), |tls| tls.session(node))
    }
}

#[cfg(feature = "tls")]
fn tls(config: &Config) -> Result<Option<tls::Prepared>, Error> {
    config.tls.as_ref().map(tls::Tls::prepare).transpose()
}

#[cfg(not(feature = "tls"))]
fn tls(_config: &Config) -> Result<Option<tls::Prepared>, Error> {
    Ok(None)
}

/// What a handshake that failed is to the caller.
pub(in crate::client) fn handshake_failed(server: &str, error: &io::Error) -> Error {
    match Error::io(server, "the TLS handshake", error) {
        Error::Io { server, cause, in_doubt, .. } => Error::Tls { server, cause, in_doubt },
        error => error,
    }
}
