//! What survives a crash: one log of changes, and snapshots of items. Files explain themselves:
//! what counts follows from what each of them says. The formats are drawn in docs/FORMATS.md, the
//! promises in docs/DURABILITY.md.
//!
//! The only folder that touches files, and it does so behind the [`disk::Disk`] trait. Threads and
//! sockets are the server's, and so is the clock: time comes in as an argument.
//!
//! ```text
//! shard -> Journal -> Committer -> Log -> file      records of all shards, one write
//!                         |-> fdatasync             one for all shards
//! store -> SharedItem -> Snapshotter -> file        a bit at a time
//! files -> recovery -> stores                       at the start
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `disk` | the file system as a trait, and the real one |
//! | `record` | framing: what makes a header and a record valid |
//! | `change` | what the records of logs and snapshots say |
//! | `reader` | the records of one file, torn ends and damage |
//! | `identity` | what is the same for the life of a directory |
//! | `directory` | names of files; making, removing and putting aside |
//! | `journal` | the changes of a shard, as bytes to write |
//! | `progress` | how far each shard's records have come |
//! | `log` | the file being written |
//! | `committer` | who writes when; what is acknowledged; failures |
//! | `turn` | one at a time, without waiting |
//! | `snapshot` | the items of all shards in one file |
//! | `snapshotter` | when a snapshot is due, and its steps |
//! | `chain` | which files make up the data, and reading the logs in order |
//! | `build` | records to stores, on all processors |
//! | `recovery` | a directory to stores, and the beginning of a new run |
//! | `measure` | histograms of latency |
//! | `tools` | check, dump, repair and back up a directory |

pub mod build;
pub mod chain;
pub mod change;
pub mod committer;
pub mod directory;
pub mod disk;
pub mod identity;
pub mod journal;
pub mod log;
pub mod measure;
pub mod progress;
pub mod reader;
pub mod record;
pub mod recovery;
pub mod snapshot;
pub mod snapshotter;
pub mod tools;
pub mod turn;

mod atomic {
    pub(super) use std::sync::atomic::{AtomicBool, Ordering};
}

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
    /// Start empty if there is damage, and as always if there is none.
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

impl fmt::Display for Damage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.what)
    }
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
    /// Files were written by another version, whose formats this one does not read.
    OtherVersion,
    /// Another process uses the directory.
    InUse,
    /// The system refused an operation.
    Io,
    /// There is not enough memory for what is to be kept.
    Memory,
    /// Somebody wants it to end.
    Interrupted,
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
        let kind = if damage.newer { ErrorKind::OtherVersion } else { ErrorKind::Damaged };
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

    /// Another version's files.
    pub fn other_version(file: impl Into<String>, what: impl Into<Cow<'static, str>>) -> Self {
        let kind = ErrorKind::OtherVersion;
        Self { kind, file: file.into(), offset: None, what: what.into(), source: None }
    }

    /// Not enough memory.
    pub fn memory(what: impl Into<Cow<'static, str>>) -> Self {
        let (kind, file) = (ErrorKind::Memory, "the data directory".to_owned());
        Self { kind, file, offset: None, what: what.into(), source: None }
    }

    /// The end of something was asked for.
    pub fn interrupted(what: &str) -> Self {
        let (kind, file) = (ErrorKind::Interrupted, what.to_owned());
        Self {
            kind,
            file,
            offset: None,
            what: "given up, for the end was asked for".into(),
            source: None,
        }
    }

    /// The same once more, without what the system said.
    pub fn again(&self) -> Self {
        let Self { kind, file, offset, what, .. } = self;
        Self { kind: *kind, file: file.clone(), offset: *offset, what: what.clone(), source: None }
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
