//! What survives a crash: logs of changes, snapshots of items, and the manifest that ties them
//! together. The formats are drawn in docs/FORMATS.md, the promises in docs/DURABILITY.md.
//!
//! The only folder that touches files, and it does so behind the [`disk::Disk`] trait. Threads,
//! sockets and the clock are the server's: time comes in as an argument.
//!
//! ```text
//! shard -> Journal -> Log -> file          each turn, by the worker
//!                      |-> Syncer          fdatasync, on a thread of its own for each shard
//! store -> SharedItem -> SnapshotWriter    by the keeper's thread, a bit at a time
//! files -> recovery -> stores              at the start
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `disk` | the file system as a trait, and the real one |
//! | `record` | framing: what makes a record valid |
//! | `change` | what the records of logs and snapshots say |
//! | `journal` | the changes of a turn, as bytes to write |
//! | `log` | writing them; what is acknowledged; syncing |
//! | `manifest` | which files make up the data |
//! | `directory` | the order in which files come, become current and go |
//! | `snapshot` | writing the items of a shard |
//! | `recovery` | files to stores |
//! | `chain` | reading the logs of one shard in order |
//! | `tools` | check, dump and repair a directory that no daemon uses |

pub mod chain;
pub mod change;
pub mod directory;
pub mod disk;
pub mod journal;
pub mod log;
pub mod manifest;
pub mod record;
pub mod recovery;
pub mod snapshot;
pub mod tools;

use std::borrow::Cow;
use std::fmt;
use std::io;

/// When a change counts as safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fsync {
    /// The device has it before the reply leaves.
    Always,
    /// The kernel has it before the reply leaves; the device within two seconds.
    #[default]
    EverySecond,
    /// The kernel has it before the reply leaves, and writes it back when it likes.
    No,
}

/// What to do at the start about files that are damaged or missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Recover {
    /// Refuse to start, and say where the damage is.
    #[default]
    Strict,
    /// Start with what is intact.
    Salvage,
    /// Start empty.
    Discard,
}

/// What to do when the log cannot be written. Under [`Fsync::Always`] the daemon always exits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnLogError {
    /// End the process, with status 74.
    Exit,
    /// Refuse changes until a snapshot has succeeded.
    #[default]
    Refuse,
    /// Go on as if there were no log, until a snapshot has succeeded.
    Serve,
}

/// What is wrong with a file, without its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    what: Cow<'static, str>,
    newer: bool,
}

impl Damage {
    /// Damage described in a few words.
    pub fn new(what: impl Into<Cow<'static, str>>) -> Self {
        Self { what: what.into(), newer: false }
    }

    /// The file is of a later version.
    pub fn newer() -> Self {
        Self { what: "written by a newer distcached".into(), newer: true }
    }
}

/// What kind of trouble an [`Error`] tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// A file is damaged, missing, or not the one that belongs here.
    Damaged,
    /// A file was written by a newer version.
    Newer,
    /// Another process uses the directory.
    InUse,
    /// The system refused an operation.
    Io,
}

/// Why something about the data directory failed.
#[derive(Debug)]
pub struct Error {
    /// What kind of trouble.
    pub kind: ErrorKind,
    /// The file.
    pub file: String,
    /// Where in the file, if it is about a place.
    pub offset: Option<u64>,
    what: Cow<'static, str>,
    source: Option<io::Error>,
}

impl Error {
    /// Damage at an offset of a file.
    pub fn damaged(
        file: impl Into<String>,
        offset: u64,
        what: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::of(file, offset, Damage::new(what))
    }

    /// Damage found in a file.
    pub fn of(file: impl Into<String>, offset: u64, damage: Damage) -> Self {
        let kind = if damage.newer { ErrorKind::Newer } else { ErrorKind::Damaged };
        Self { kind, file: file.into(), offset: Some(offset), what: damage.what, source: None }
    }

    /// The system refused an operation.
    pub fn io(file: impl Into<String>, what: impl Into<Cow<'static, str>>, why: io::Error) -> Self {
        let kind = match why.kind() {
            io::ErrorKind::NotFound => ErrorKind::Damaged,
            io::ErrorKind::WouldBlock => ErrorKind::InUse,
            _ => ErrorKind::Io,
        };
        Self { kind, file: file.into(), offset: None, what: what.into(), source: Some(why) }
    }

    /// Whether `--recover=salvage` may go on in spite of it.
    pub fn is_damage(&self) -> bool {
        self.kind == ErrorKind::Damaged
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.file)?;
        if let Some(offset) = self.offset {
            write!(out, " at offset {offset}")?;
        }
        write!(out, ": {}", self.what)?;
        if let Some(why) = &self.source {
            write!(out, ": {why}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|why| why as _)
    }
}
