//! Logging in to servers that ask for it (memcached's and distcached's `-Y` and `-S`). Owns what is
//! said and what the answer means; no I/O. A password never leaves it but towards a server.

use crate::client::error::Error;
use crate::client::wire::command::{Expect, Protocol};
use crate::client::wire::frame;
use crate::client::wire::reply::Reply;
use std::fmt;

/// Longest name and password together; memcached's files have shorter lines.
const LOGIN_BYTES_MAX: usize = 1024;

/// A user and a password, for [`Config::login`](crate::client::Config::login).
///
/// They cross the network as they are, unless the connection is encrypted. `Debug` does not show
/// the password.
///
/// ```
/// use distcache::client::{Client, Config, Login};
///
/// let login = Login::new("bob", "secret");
/// assert_eq!(format!("{login:?}"), "Login { user: \"bob\", .. }");
/// let config = Config { login: Some(login), ..Config::default() };
/// let client = Client::with_config(["10.0.0.1"], config)?;
/// # Ok::<(), distcache::client::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    user: String,
    password: String,
    is_sasl: bool,
}

/// What stands before the answer of a server that refuses a login by SASL.
pub(super) const SASL_REFUSAL: &str = "SASL: ";

impl Login {
    /// This user with this password, in the text protocol (`-Y`). A client refuses them when it is
    /// made if the protocol cannot carry them: names have no blanks and are not empty, and neither
    /// has line ends.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: user.into(), password: password.into(), is_sasl: false }
    }

    /// This user with this password by SASL (`-S`), with the mechanism PLAIN. The client speaks the
    /// binary protocol then, since such servers refuse text. It has no words for some things:
    ///
    /// - `inspect`, `invalidate`, `list_keys`, `Discovery::ConfigCluster` are an `Error::Config`.
    /// - `get_or_compute` has no leases: in each process one caller computes, and of several
    ///   processes the first one's value stays. What somebody deletes meanwhile may be stored all
    ///   the same. `recompute_before` has no effect.
    ///
    /// A server that knows no logins lets the client in. A client refuses user and password when it
    /// is made if the mechanism cannot carry them: a user is not empty, and neither has NULs.
    ///
    /// ```
    /// use distcache::client::{Client, Config, Login};
    ///
    /// let config = Config { login: Some(Login::sasl("bob", "secret")), ..Config::default() };
    /// let client = Client::with_config(["10.0.0.1"], config)?;
    /// // The same in one line.
    /// let client = Client::from_url("memcache+sasl://bob:secret@10.0.0.1")?;
    /// # Ok::<(), distcache::client::Error>(())
    /// ```
    pub fn sasl(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { is_sasl: true, ..Self::new(user, password) }
    }

    /// What is spoken where it is asked for.
    pub(in crate::client) fn protocol(&self) -> Protocol {
        if self.is_sasl { Protocol::Binary } else { Protocol::Text }
    }

    pub(in crate::client) fn check(&self) -> Result<(), Error> {
        let wrong = |what: &str| Err(Error::Config(format!("login: {what}")));
        let has = |text: &str, bytes: &[u8]| text.bytes().any(|byte| bytes.contains(&byte));
        if self.user.len() + self.password.len() > LOGIN_BYTES_MAX {
            return wrong("user and password are too long");
        }
        if self.is_sasl {
            let has_nul = has(&self.user, b"\0") || has(&self.password, b"\0");
            return match self.user.is_empty() || has_nul {
                true => wrong("the user is empty, or user or password have NULs"),
                false => Ok(()),
            };
        }
        if self.user.is_empty() || has(&self.user, b" \t\r\n:\0") {
            return wrong("the user is empty, or has blanks, line ends or colons in its name");
        }
        if has(&self.password, b"\r\n\0") {
            return wrong("the password has line ends");
        }
        Ok(())
    }

    /// Appends the request. Servers look at its length and data alone; the expiry in the past keeps
    /// one that asks for no login from keeping the password as an item.
    pub(in crate::client) fn write(&self, out: &mut Vec<u8>) -> Expect {
        let Self { user, password, is_sasl } = self;
        if *is_sasl {
            return frame::write_login(user, password, out);
        }
        let length = user.len() + 1 + password.len();
        out.extend_from_slice(
            format!("set auth 0 -1 {length}\r\n{user} {password}\r\n").as_bytes(),
        );
        Expect::Line
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Whether a reply lets us in.
pub(in crate::client) fn accepted(reply: Reply<'_>) -> Result<(), Error> {
    match reply {
        Reply::Stored | Reply::Ok => Ok(()),
        other => Err(Error::protocol("", format!("{other:?}"))),
    }
}

/// How a server says that it wants a login, or another one. What it says to a `set` without a login
/// is about the value, which it took for one.
pub(in crate::client) fn is_refusal(line: &str) -> bool {
    [
        "CLIENT_ERROR unauthenticated",
        "CLIENT_ERROR authentication failure",
        "CLIENT_ERROR bad authentication token format",
        "CLIENT_ERROR auth token too long",
    ]
    .contains(&line.trim_end())
        || line.starts_with(SASL_REFUSAL)
}

/// An answer to a login that says neither yes nor no: the server is not to be used now.
pub(in crate::client) fn failed(error: Error) -> Error {
    match error {
        Error::Protocol { server, what, .. } => {
            Error::Connect { server, cause: format!("the answer to the login is {what:?}") }
        }
        // Nothing else was asked.
        error => error.without_doubt(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said() {
        let mut out = Vec::new();
        Login::new("bob", "pa:ss wd").write(&mut out);
        assert_eq!(out, b"set auth 0 -1 12\r\nbob pa:ss wd\r\n");
        for (user, password, fits) in [
            ("bob", "", true),
            ("", "secret", false),
            ("bob smith", "secret", false),
            ("bob\r\nflush_all", "secret", false),
            ("bob", "secret\r\nflush_all", false),
            ("bo:b", "secret", false),
            ("bob", &"x".repeat(1022), false),
        ] {
            assert_eq!(Login::new(user, password).check().is_ok(), fits, "{user:?}");
        }
    }
}
