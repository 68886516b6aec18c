//! How the tool ends: exit statuses, what leads to each, and complaints on standard error.

use distcache::client::Error;
use std::io::{self, Write};

/// What became of a command. Of several, the worst counts: the last in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Status {
    Done,
    /// A key was missing, or a condition for storing it was not met.
    Missing,
    /// A server refused, or said what is no answer.
    Refused,
    /// A server wants a login, or another one.
    Login,
    /// A server could not be reached, or did not answer in time.
    Unavailable,
    /// Output could not be written, or a terminal not be used.
    Output,
    /// What was asked for makes no sense.
    Usage,
}

impl Status {
    /// The number, as `sysexits.h` has it; help and manual list them.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Missing => 1,
            Self::Usage => 64,
            Self::Unavailable => 69,
            Self::Output => 74,
            Self::Refused => 76,
            Self::Login => 77,
        }
    }
}

impl From<&Error> for Status {
    fn from(error: &Error) -> Self {
        match error {
            Error::Config(_) | Error::Key { .. } | Error::Value(_) => Self::Usage,
            Error::Connect { .. }
            | Error::Io { .. }
            | Error::Timeout { .. }
            | Error::Tls { .. }
            | Error::Down { .. }
            | Error::NoServers => Self::Unavailable,
            Error::Login { .. } => Self::Login,
            _ => Self::Refused,
        }
    }
}

/// Why a command was not carried out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub status: Status,
    /// Empty if there is nothing to say.
    text: String,
}

impl Failure {
    /// Says why, and answers with the status.
    pub(crate) fn report(&self) -> Status {
        if !self.text.is_empty() {
            complain("distcache", &self.text);
        }
        self.status
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self { status: Status::Usage, text }
    }
}

impl From<&str> for Failure {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<lexopt::Error> for Failure {
    fn from(error: lexopt::Error) -> Self {
        let hint = match error {
            lexopt::Error::UnexpectedOption(_) => {
                "; --help lists the options; write -- before words that begin with a dash"
            }
            _ => "",
        };
        format!("{error}{hint}").into()
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { status: (&error).into(), text: error.to_string() }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        // Whoever reads has seen enough: `distcache keys | head`.
        let text = match error.kind() {
            io::ErrorKind::BrokenPipe => String::new(),
            _ => error.to_string(),
        };
        Self { status: Status::Output, text }
    }
}

/// A line on standard error; a terminal that is gone is nobody to complain to.
pub(crate) fn complain(about: &str, what: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{about}: {what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_several_counts() {
        let down = Error::Down { server: "a".into() };
        let refused = Error::Refused { server: "a".into(), line: "no".into() };
        let key = Error::Key { what: "too long", key: "k".into() };
        let login = Error::Login { server: "a".into(), answer: "no".into() };
        for (errors, code) in [
            (&[][..], 1),
            (&[&refused], 76),
            (&[&refused, &login], 77),
            (&[&down, &refused, &login], 69),
            (&[&key, &down], 64),
        ] {
            let worst =
                errors.iter().map(|error| Status::from(*error)).fold(Status::Missing, Ord::max);
            assert_eq!(worst.code(), code, "{errors:?}");
        }
    }

    #[test]
    fn a_closed_pipe_is_no_complaint() {
        let closed = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((closed.status.code(), closed.text.as_str()), (74, ""));
        let full = Failure::from(io::Error::from(io::ErrorKind::StorageFull));
        assert!(full.status == Status::Output && !full.text.is_empty());
    }
}
