//! What can go wrong in a call, and what to do about it. Owns the texts.

use crate::client::net::tls;
use crate::client::wire::login;
use crate::client::wire::reply::Fault;
use std::fmt;
use std::io;

/// Why a call failed. Each text says what to look at.
///
/// ```
/// use distcache::client::{Client, Error};
///
/// let client = Client::connect(["localhost:2050"])?;
/// let refused = client.set("a key with blanks", "x");
/// assert!(matches!(refused, Err(Error::Key { .. })));
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The settings or a server's address make no sense.
    Config(String),
    /// The key cannot be sent as it is; see `KeyPolicy`.
    Key {
        /// What is wrong with it.
        what: &'static str,
        /// Its beginning, printable.
        key: String,
    },
    /// A value could not be turned into bytes, or the bytes found are no value of the type asked
    /// for.
    Value(String),
    /// The server could not be reached. Nothing was sent.
    Connect {
        /// Which server.
        server: String,
        /// What the system says.
        cause: String,
    },
    /// The connection broke.
    Io {
        /// Which server.
        server: String,
        /// The kind of failure.
        kind: io::ErrorKind,
        /// What the system says.
        cause: String,
        /// Whether a write may have been done.
        in_doubt: bool,
    },
    /// The time set for this ran out.
    Timeout {
        /// Which server.
        server: String,
        /// What was waited for.
        waiting_for: &'static str,
        /// Whether a write may have been done.
        in_doubt: bool,
    },
    /// An encrypted connection could not be made, or broke. Text and cause say which certificate to
    /// look at.
    Tls {
        /// Which server.
        server: String,
        /// What is wrong.
        cause: String,
        /// Whether a write may have been done.
        in_doubt: bool,
    },
    /// The server sent what is no answer to the request. The connection was closed.
    Protocol {
        /// Which server.
        server: String,
        /// What was wrong.
        what: String,
        /// Whether a write may have been done.
        in_doubt: bool,
    },
    /// The server refused the request, in its words.
    Refused {
        /// Which server.
        server: String,
        /// Its answer.
        line: String,
    },
    /// The server is ejected after failures; nothing was sent. Probes look for its return.
    Down {
        /// Which server.
        server: String,
    },
    /// The server wants a login, or another one than it was given. It is not asked again for
    /// `Config::probe_after_max`; calls meanwhile fail with this.
    Login {
        /// Which server.
        server: String,
        /// Its answer.
        answer: String,
    },
    /// Of a key with copies on several servers, one was not written, for this reason, and another
    /// was or may have been.
    Partial {
        /// Why one was not.
        cause: Box<Error>,
    },
    /// There are no servers.
    NoServers,
    /// Others changed the item each time between reading and writing.
    Contended {
        /// How often it was tried.
        attempts: u32,
    },
}

/// What is waited for once a request was sent, or a part of it.
const SENT: [&str; 3] = ["a request to be sent", "a reply", "replies"];

impl Error {
    /// Whether the server or the way to it failed, rather than the request being wrong: what counts
    /// towards ejecting it.
    ///
    /// ```
    /// use distcache::client::{Client, Error};
    ///
    /// let client = Client::connect(["127.0.0.1:1"])?;
    /// assert!(client.get::<u8>("a").unwrap_err().is_failure_of_server(), "nobody listens there");
    /// assert!(!client.get::<u8>("a key").unwrap_err().is_failure_of_server(), "no key");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn is_failure_of_server(&self) -> bool {
        matches!(
            self.cause(),
            Self::Connect { .. }
                | Self::Io { .. }
                | Self::Timeout { .. }
                | Self::Tls { .. }
                | Self::Protocol { .. }
        )
    }

    /// Whether a server was not there to answer, for whatever reason.
    ///
    /// ```
    /// use distcache::client::{Client, Error};
    ///
    /// let client = Client::connect(["127.0.0.1:1"])?;
    /// let found = match client.get::<String>("a") {
    ///     Err(error) if error.is_unavailable() => None,
    ///     found => found?,
    /// };
    /// assert_eq!(found, None);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn is_unavailable(&self) -> bool {
        self.is_failure_of_server() || matches!(self.cause(), Self::Down { .. })
    }

    /// Whether the call was a write that may or may not have been done. After any other error it
    /// was not done; reads are never in doubt.
    ///
    /// ```
    /// use distcache::client::{Client, Error};
    ///
    /// let client = Client::connect(["127.0.0.1:1"])?;
    /// let error = client.set("a", 1).unwrap_err();
    /// assert!(!error.is_in_doubt(), "{error}");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn is_in_doubt(&self) -> bool {
        match self {
            Self::Io { in_doubt, .. }
            | Self::Timeout { in_doubt, .. }
            | Self::Tls { in_doubt, .. }
            | Self::Protocol { in_doubt, .. } => *in_doubt,
            Self::Partial { .. } => true,
            _ => false,
        }
    }

    /// What went wrong at a server.
    fn cause(&self) -> &Self {
        match self {
            Self::Partial { cause } => cause,
            error => error,
        }
    }

    /// The same where a write of another copy of the key is done, or may be.
    pub(super) fn doubted(self) -> Self {
        let is_of_server = self.is_away() || matches!(self, Self::Refused { .. });
        match is_of_server && !self.is_in_doubt() {
            true => Self::Partial { cause: Box::new(self) },
            false => self,
        }
    }

    /// The same where there was nothing to be done, or it was certainly not done.
    pub(super) fn without_doubt(mut self) -> Self {
        if let Self::Io { in_doubt, .. }
        | Self::Timeout { in_doubt, .. }
        | Self::Tls { in_doubt, .. }
        | Self::Protocol { in_doubt, .. } = &mut self
        {
            *in_doubt = false;
        }
        self
    }

    /// Whether the cache is of no use now: nobody answers, or we are not let in. Where a cache that
    /// is away counts as one that holds nothing, so does this.
    pub(super) fn is_away(&self) -> bool {
        self.is_unavailable() || matches!(self.cause(), Self::Login { .. })
    }

    pub(super) fn io(server: &str, waiting_for: &'static str, error: &io::Error) -> Self {
        let in_doubt = SENT.contains(&waiting_for);
        if let Some(cause) = tls::cause(error) {
            return Self::Tls { server: server.to_owned(), cause, in_doubt };
        }
        match error.kind() {
            // What a socket with a time-out says when it runs out.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                Self::timeout(server, waiting_for)
            }
            kind => {
                Self::Io { server: server.to_owned(), kind, cause: error.to_string(), in_doubt }
            }
        }
    }

    pub(super) fn timeout(server: &str, waiting_for: &'static str) -> Self {
        let in_doubt = SENT.contains(&waiting_for);
        Self::Timeout { server: server.to_owned(), waiting_for, in_doubt }
    }

    pub(super) fn closed(server: &str) -> Self {
        Self::Io {
            server: server.to_owned(),
            kind: io::ErrorKind::UnexpectedEof,
            cause: "it closed the connection".to_owned(),
            in_doubt: true,
        }
    }

    /// What arrived is no reply to what was asked. A refused login is one of these, whatever was
    /// asked.
    pub(super) fn fault(server: &str, Fault(what): Fault) -> Self {
        match login::is_refusal(&what) {
            true => Self::Login { server: server.to_owned(), answer: what },
            false => Self::protocol(server, what),
        }
    }

    pub(super) fn protocol(server: &str, what: impl Into<String>) -> Self {
        Self::Protocol { server: server.to_owned(), what: what.into(), in_doubt: true }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let doubt = if self.is_in_doubt() { "; a write may or may not be done" } else { "" };
        match self {
            Self::Config(what) => write!(out, "settings: {what}"),
            Self::Key { what, key } => write!(
                out,
                "key {key:?}: {what}; use another one, or a KeyPolicy that encodes or hashes it"
            ),
            Self::Value(what) => write!(out, "value: {what}"),
            Self::Connect { server, cause } => {
                write!(
                    out,
                    "{server}: cannot connect: {cause}; is it running, is the address right?"
                )
            }
            Self::Io { server, cause, .. } => {
                write!(out, "{server}: connection lost: {cause}{doubt}")
            }
            Self::Timeout { server, waiting_for, .. } => {
                let unsent = if SENT.contains(waiting_for) { "" } else { "; nothing was sent" };
                write!(out, "{server}: time ran out waiting for {waiting_for}{doubt}{unsent}")
            }
            Self::Tls { server, cause, .. } => write!(
                out,
                "{server}: no encrypted connection: {cause}{doubt}; is TLS on at that port, are \
                 roots, server name and our certificate right?"
            ),
            Self::Protocol { server, what, .. } => write!(
                out,
                "{server}: not an answer to the request: {what}{doubt}; is that a memcached server?"
            ),
            Self::Refused { server, line } => write!(out, "{server} refuses: {line}"),
            Self::Down { server } => {
                write!(out, "{server} is ejected after failures; probes look for its return")
            }
            Self::Login { server, answer } => write!(
                out,
                "{server} lets nobody in without the right login: {answer}; set Config::login to a \
                 user and password that its file of users has (-Y; with -S a Login::sasl)"
            ),
            Self::Partial { cause } => {
                write!(out, "{cause}; another copy of the key was written, or may have been{doubt}")
            }
            Self::NoServers => write!(out, "no servers: name at least one, or check the discovery"),
            Self::Contended { attempts } => write!(
                out,
                "others changed the item during each of {attempts} attempts; try again later"
            ),
        }
    }
}

impl std::error::Error for Error {}
