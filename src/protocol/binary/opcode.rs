//! What the opcodes ask for.
//!
//! Most commands come in two forms, of which the quiet one is not answered in the ordinary case:
//! a get that misses, a change that is made. Errors are always answered.

use crate::protocol::request::StoreMode;

/// The byte that says what is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Opcode(pub u8);

/// What an opcode asks for, quiet or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// A value, with its key or without: see [`Opcode::returns_key`].
    Get,
    /// A value, and another expiry for it.
    GetAndTouch,
    /// Another expiry.
    Touch,
    /// To store a value; conditions on its token are not in the mode.
    Store(StoreMode),
    /// To delete an item.
    Delete,
    /// To add to a number, or to subtract from it.
    Arithmetic {
        /// Add.
        increment: bool,
    },
    /// To empty the cache.
    Flush,
    /// An answer, behind all others.
    Noop,
    /// The version.
    Version,
    /// Statistics.
    Stats,
    /// Another level of logging.
    Verbosity,
    /// To close the connection.
    Quit,
    /// The mechanisms of SASL.
    SaslMechanisms,
    /// To log in.
    SaslStart,
    /// The next message of a login.
    SaslStep,
}

/// Opcode, command, whether it is quiet, whether its answer holds the key.
#[rustfmt::skip]
const COMMANDS: [(u8, Command, bool, bool); 36] = [
    (0x00, Command::Get,                                 false, false),
    (0x01, Command::Store(StoreMode::Set),               false, false),
    (0x02, Command::Store(StoreMode::Add),               false, false),
    (0x03, Command::Store(StoreMode::Replace),           false, false),
    (0x04, Command::Delete,                              false, false),
    (0x05, Command::Arithmetic { increment: true },      false, false),
    (0x06, Command::Arithmetic { increment: false },     false, false),
    (0x07, Command::Quit,                                false, false),
    (0x08, Command::Flush,                               false, false),
    (0x09, Command::Get,                                 true,  false),
    (0x0a, Command::Noop,                                false, false),
    (0x0b, Command::Version,                             false, false),
    (0x0c, Command::Get,                                 false, true),
    (0x0d, Command::Get,                                 true,  true),
    (0x0e, Command::Store(StoreMode::Append),            false, false),
    (0x0f, Command::Store(StoreMode::Prepend),           false, false),
    (0x10, Command::Stats,                               false, false),
    (0x11, Command::Store(StoreMode::Set),               true,  false),
    (0x12, Command::Store(StoreMode::Add),               true,  false),
    (0x13, Command::Store(StoreMode::Replace),           true,  false),
    (0x14, Command::Delete,                              true,  false),
    (0x15, Command::Arithmetic { increment: true },      true,  false),
    (0x16, Command::Arithmetic { increment: false },     true,  false),
    (0x17, Command::Quit,                                true,  false),
    (0x18, Command::Flush,                               true,  false),
    (0x19, Command::Store(StoreMode::Append),            true,  false),
    (0x1a, Command::Store(StoreMode::Prepend),           true,  false),
    (0x1b, Command::Verbosity,                           false, false),
    (0x1c, Command::Touch,                               false, false),
    (0x1d, Command::GetAndTouch,                         false, false),
    (0x1e, Command::GetAndTouch,                         true,  false),
    (0x20, Command::SaslMechanisms,                      false, false),
    (0x21, Command::SaslStart,                           false, false),
    (0x22, Command::SaslStep,                            false, false),
    (0x23, Command::GetAndTouch,                         false, true),
    (0x24, Command::GetAndTouch,                         true,  true),
];

/// What is known of an opcode.
#[derive(Debug, Clone, Copy)]
struct Known {
    command: Option<Command>,
    is_quiet: bool,
    returns_key: bool,
}

const LIMIT: usize = 0x40;

/// [`COMMANDS`] by opcode.
static KNOWN: [Known; LIMIT] = {
    let mut known = [Known { command: None, is_quiet: false, returns_key: false }; LIMIT];
    let mut at = 0;
    while at < COMMANDS.len() {
        let (opcode, command, is_quiet, returns_key) = COMMANDS[at];
        assert!(known[opcode as usize].command.is_none(), "an opcode means one thing");
        known[opcode as usize] = Known { command: Some(command), is_quiet, returns_key };
        at += 1;
    }
    known
};

impl Opcode {
    /// The answer to `stat`.
    pub const STAT: Self = Self(0x10);

    #[inline]
    fn known(self) -> Option<&'static Known> {
        KNOWN.get(usize::from(self.0))
    }

    /// What it asks for. `None`: no command.
    #[inline]
    pub fn command(self) -> Option<Command> {
        self.known()?.command
    }

    /// Whether the ordinary case is not answered.
    #[inline]
    pub fn is_quiet(self) -> bool {
        self.known().is_some_and(|known| known.is_quiet)
    }

    /// Whether the answer holds the key.
    #[inline]
    pub fn returns_key(self) -> bool {
        self.known().is_some_and(|known| known.returns_key)
    }

    /// Whether the command may come before a login.
    pub fn needs_no_login(self) -> bool {
        matches!(
            self.command(),
            Some(
                Command::Version | Command::SaslMechanisms | Command::SaslStart | Command::SaslStep
            )
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_command_is_the_other_one_of_its_pair() {
        let loud_of = [
            (0x09, 0x00),
            (0x0d, 0x0c),
            (0x11, 0x01),
            (0x12, 0x02),
            (0x13, 0x03),
            (0x14, 0x04),
            (0x15, 0x05),
            (0x16, 0x06),
            (0x17, 0x07),
            (0x18, 0x08),
            (0x19, 0x0e),
            (0x1a, 0x0f),
            (0x1e, 0x1d),
            (0x24, 0x23),
        ];
        for (quiet, loud) in loud_of {
            let (quiet, loud) = (Opcode(quiet), Opcode(loud));
            assert!(quiet.command().is_some(), "{quiet:?}");
            assert_eq!(quiet.command(), loud.command(), "{quiet:?}");
            assert_eq!(quiet.returns_key(), loud.returns_key(), "{quiet:?}");
            assert!(quiet.is_quiet() && !loud.is_quiet(), "{quiet:?}");
        }
        let quiet = (0..=255).filter(|byte| Opcode(*byte).is_quiet()).count();
        assert_eq!(quiet, loud_of.len());
    }

    #[test]
    fn opcodes_that_mean_nothing() {
        for byte in [0x1f, 0x25, 0x30, 0x3c, 0x3f, 0x40, 0x80, 0xff] {
            assert_eq!(Opcode(byte).command(), None, "{byte:#04x}");
        }
    }
}
