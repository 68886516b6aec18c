//! The conversation of a SASL login (RFC 4422), with its one mechanism, PLAIN (RFC 4616).
//!
//! ```text
//!             message refused, or wrong password
//!          .----------------------------------------.
//!          v                                        |
//!        Out --start, with a message--> Checked -----+--right password--> In
//!          ^ |                             ^                              |
//!          | `--start, empty--> Started ---' step                         |
//!          `-------------- any start or step, before it is looked at -----'
//! ```
//!
//! Knows no passwords: it says what is to be checked and is told the outcome.

use crate::limits::{LOGIN_BYTES_MAX, MECHANISM_BYTES_MAX};

/// What clients may choose from, as they are told.
pub const MECHANISMS: &[u8] = b"PLAIN";

/// Where a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum At {
    #[default]
    Out,
    /// The mechanism was chosen, and its message is to come.
    Started,
    In,
}

/// The login of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sasl {
    at: At,
}

/// What a message of the client leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard<'a> {
    /// The client is to send another message.
    Continue,
    /// Whether this user has this password is to be found out.
    Check {
        /// The user.
        user: &'a [u8],
        /// The password.
        password: &'a [u8],
    },
    /// No mechanism of ours, or not its message.
    Refused,
}

/// Why the message of a login is not read at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oversized {
    /// The name of the mechanism.
    Mechanism,
    /// The message.
    Message,
}

impl Sasl {
    /// Whether commands may be executed.
    pub fn is_in(&self) -> bool {
        self.at == At::In
    }

    /// Whether a message of these lengths may be waited for. Whoever sends another is out.
    ///
    /// # Errors
    /// Which part is too long.
    pub fn announce(&mut self, mechanism: &[u8], message_bytes: usize) -> Result<(), Oversized> {
        let oversized = if mechanism.len() > MECHANISM_BYTES_MAX {
            Oversized::Mechanism
        } else if message_bytes > LOGIN_BYTES_MAX {
            Oversized::Message
        } else {
            return Ok(());
        };
        self.at = At::Out;
        Err(oversized)
    }

    /// Takes a message. Whatever it says, a login of before is over: one that fails must not leave
    /// the connection with the rights of the one that succeeded (CVE-2013-7239).
    pub fn hear<'a>(&mut self, is_step: bool, mechanism: &[u8], message: &'a [u8]) -> Heard<'a> {
        let was = std::mem::take(&mut self.at);
        if is_step && was != At::Started || !mechanism.eq_ignore_ascii_case(MECHANISMS) {
            return Heard::Refused;
        }
        if !is_step && message.is_empty() {
            self.at = At::Started;
            return Heard::Continue;
        }
        match plain(message) {
            Some((user, password)) => Heard::Check { user, password },
            None => Heard::Refused,
        }
    }

    /// What was to be checked was right.
    pub fn accept(&mut self) {
        self.at = At::In;
    }
}

/// `[authorize-as] NUL user NUL password`. Nobody acts for another here.
fn plain(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = message.split(|byte| *byte == 0);
    let (authorized, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    let acts_as_itself = authorized.is_empty() || authorized == user;
    let is_whole = parts.next().is_none() && !user.is_empty();
    (acts_as_itself && is_whole).then_some((user, password))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<'a>(user: &'a str, password: &'a str) -> Heard<'a> {
        Heard::Check { user: user.as_bytes(), password: password.as_bytes() }
    }

    #[test]
    fn messages() {
        for (is_step, mechanism, message, expected) in [
            (false, "PLAIN", "\0bob\0secret", check("bob", "secret")),
            (false, "plain", "bob\0bob\0secret", check("bob", "secret")),
            (false, "PLAIN", "\0bob\0", check("bob", "")),
            (false, "PLAIN", "", Heard::Continue),
            (false, "PLAIN", "al\0bob\0secret", Heard::Refused),
            (false, "PLAIN", "\0\0secret", Heard::Refused),
            (false, "PLAIN", "bob", Heard::Refused),
            (false, "PLAIN", "\0bob", Heard::Refused),
            (false, "PLAIN", "\0bob\0sec\0ret", Heard::Refused),
            (false, "CRAM-MD5", "", Heard::Refused),
            (false, "PLAIN ", "\0bob\0secret", Heard::Refused),
            (true, "PLAIN", "\0bob\0secret", Heard::Refused),
        ] {
            let heard = Sasl::default().hear(is_step, mechanism.as_bytes(), message.as_bytes());
            assert_eq!(heard, expected, "{is_step} {mechanism} {message:?}");
        }
    }

    #[test]
    fn a_step_goes_on_with_what_was_started_and_only_once() {
        let mut sasl = Sasl::default();
        assert_eq!(sasl.hear(false, b"PLAIN", b""), Heard::Continue);
        assert_eq!(sasl.hear(true, b"PLAIN", b"\0bob\0secret"), check("bob", "secret"));
        assert_eq!(sasl.hear(true, b"PLAIN", b"\0bob\0secret"), Heard::Refused);
    }

    /// CVE-2013-7239: a failed attempt left what an earlier one had earned.
    #[test]
    fn an_attempt_ends_the_login_before_it() {
        for (is_step, mechanism, message) in [
            (false, "PLAIN", "\0bob\0wrong"),
            (false, "PLAIN", ""),
            (false, "PLAIN", "nonsense"),
            (false, "NONE", "\0bob\0secret"),
            (true, "PLAIN", "\0bob\0secret"),
        ] {
            let mut sasl = Sasl::default();
            sasl.hear(false, b"PLAIN", b"\0bob\0secret");
            sasl.accept();
            assert!(sasl.is_in());
            sasl.hear(is_step, mechanism.as_bytes(), message.as_bytes());
            assert!(!sasl.is_in(), "{is_step} {mechanism} {message:?}");
        }
        let mut sasl = Sasl { at: At::In };
        assert_eq!(sasl.announce(b"PLAIN", 1 << 20), Err(Oversized::Message));
        assert!(!sasl.is_in());
    }
}
