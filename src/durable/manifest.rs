//! The manifest: the one file that says which snapshot and which logs make up the data.
//!
//! ```text
//! distcache manifest 1 <crc32c of the rest, 8 hex digits> <bytes of the rest>\n
//! { ... }                                                     JSON, for people to read
//! ```
//!
//! Replaced as a whole: written under another name, synced, renamed, the directory synced.

use super::disk::{Disk, Growth, append_all};
use super::record::FORMAT;
use super::{Damage, Error};
use crc32c::crc32c;
use serde::{Deserialize, Serialize};
use std::io;

/// The name of the manifest.
pub const MANIFEST_NAME: &str = "MANIFEST";
const MANIFEST_NEXT_NAME: &str = "MANIFEST.next";
const FIRST_WORDS: &str = "distcache manifest";
/// A manifest names a few hundred files at most.
const MANIFEST_BYTES_MAX: u64 = 64 << 20;

/// Which files make up the data; see the module's text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Random; in the header of every file.
    pub directory_id: u64,
    /// The newest generation in use.
    pub generation: u64,
    /// The secret of the key hash, so that a key stays with its shard from run to run.
    pub hash_secret: [u64; 2],
    /// No CAS token from segments of this sequence on was ever handed out.
    pub token_ceiling: u64,
    /// Files up to this generation that are not named are kept under another name, for they were
    /// damaged; later ones are removed.
    #[serde(default)]
    pub damaged_through: u64,
    /// The items to start from.
    pub snapshot: Option<SnapshotEntry>,
    /// The logs to replay on top, in the order of the runs that wrote them.
    pub runs: Vec<RunEntry>,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotEntry {
    /// Its generation.
    pub generation: u64,
    /// When it was begun, in seconds since 1970.
    pub taken_at_seconds: u64,
    /// One file for each shard.
    pub files: Vec<SnapshotFileEntry>,
}

/// The snapshot of one shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotFileEntry {
    /// In its header.
    pub file_id: u64,
    /// Its size.
    pub bytes: u64,
    /// Items in it.
    pub items: u64,
}

/// The logs of one run of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEntry {
    /// Shards the keys were spread over.
    pub shards: usize,
    /// The logs by generation.
    pub logs: Vec<LogSet>,
}

/// The logs of all shards between two snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSet {
    /// Their generation.
    pub generation: u64,
    /// One file for each shard.
    pub files: Vec<LogEntry>,
}

/// One log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// In its header.
    pub file_id: u64,
    /// The sequence of its first record, once the logs before it are gone.
    pub first_sequence: Option<u64>,
    /// What of it counts, if its run is over and it has been recovered once.
    pub end: Option<LogEnd>,
}

/// How far a log is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEnd {
    /// Bytes that count.
    pub bytes: u64,
    /// The sequence of the last record.
    pub sequence: u64,
}

/// The name of a log file.
pub fn log_name(generation: u64, shard: usize) -> String {
    format!("log-{generation:08}-{shard:03}")
}

/// The name of a snapshot file.
pub fn snapshot_name(generation: u64, shard: usize) -> String {
    format!("snapshot-{generation:08}-{shard:03}")
}

/// Whether a name is one that this layer gives to logs and snapshots; their generation.
pub fn generation_of(name: &str) -> Option<u64> {
    let rest = name.strip_prefix("log-").or_else(|| name.strip_prefix("snapshot-"))?;
    let (generation, shard) = rest.split_once('-')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits(generation) && digits(shard) { generation.parse().ok() } else { None }
}

impl Manifest {
    /// The names of all files it counts on.
    pub fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        if let Some(snapshot) = &self.snapshot {
            let shards = 0..snapshot.files.len();
            names.extend(shards.map(|shard| snapshot_name(snapshot.generation, shard)));
        }
        for set in self.runs.iter().flat_map(|run| &run.logs) {
            names.extend((0..set.files.len()).map(|shard| log_name(set.generation, shard)));
        }
        names
    }

    /// Reads the manifest. `None`: there is none.
    ///
    /// # Errors
    /// It cannot be read, is damaged, or is of a newer version.
    pub fn read(disk: &dyn Disk) -> Result<Option<Self>, Error> {
        let cannot = |why| Error::io(MANIFEST_NAME, "cannot be read", why);
        let file = match disk.open(MANIFEST_NAME) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(cannot)?,
        };
        let file_bytes = file.len().map_err(cannot)?;
        if file_bytes > MANIFEST_BYTES_MAX {
            return Err(Error::damaged(MANIFEST_NAME, 0, "far too long"));
        }
        let mut bytes = vec![0; file_bytes as usize];
        let count = file.read_at(&mut bytes, 0).map_err(cannot)?;
        let manifest = Self::unpack(&bytes[..count]);
        manifest.map(Some).map_err(|damage| Error::of(MANIFEST_NAME, 0, damage))
    }

    fn unpack(bytes: &[u8]) -> Result<Self, Damage> {
        let text = std::str::from_utf8(bytes).map_err(|_| Damage::new("not a text"))?;
        let (head, body) =
            text.split_once('\n').ok_or(Damage::new("it ends within its first line"))?;
        let words = head.strip_prefix(FIRST_WORDS).and_then(|rest| rest.strip_prefix(' '));
        let words = words.ok_or(Damage::new("the first line is none of a manifest"))?;
        let mut words = words.split(' ');
        if words.next().and_then(|word| word.parse().ok()) != Some(FORMAT) {
            return Err(Damage::newer());
        }
        let expected = format!("{:08x} {}", crc32c(body.as_bytes()), body.len());
        if words.collect::<Vec<_>>().join(" ") != expected {
            return Err(Damage::new("the checksum is wrong"));
        }
        serde_json::from_str(body).map_err(|why| Damage::new(format!("not understood: {why}")))
    }

    fn pack(&self) -> Result<String, Error> {
        let cannot = |why| Error::io(MANIFEST_NAME, "cannot be written", io::Error::other(why));
        let body = serde_json::to_string_pretty(self).map_err(cannot)? + "\n";
        let crc = crc32c(body.as_bytes());
        Ok(format!("{FIRST_WORDS} {FORMAT} {crc:08x} {}\n{body}", body.len()))
    }

    /// Makes this the manifest, durably.
    ///
    /// # Errors
    /// The system refused; the manifest before it may or may not have been replaced.
    pub fn write(&self, disk: &dyn Disk) -> Result<(), Error> {
        let text = self.pack()?;
        let written = (|| {
            let file = disk.create(MANIFEST_NEXT_NAME, Growth::AsWritten)?;
            append_all(&*file, text.as_bytes())?;
            file.sync()?;
            disk.rename(MANIFEST_NEXT_NAME, MANIFEST_NAME)?;
            disk.sync_directory()
        })();
        written.map_err(|why| Error::io(MANIFEST_NAME, "cannot be written", why))
    }
}
