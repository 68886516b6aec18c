//! What is the same for the life of a directory: its id, the secret of the key hash, over how many
//! shards keys are spread. Written when the directory is made; each start notes its log in it, so
//! that one that is lost is missed.
//!
//! ```text
//! distcache identity 2
//! { ... }                                                     JSON, for people to read
//! checksum <crc32c of everything before this line, 8 hex digits>
//! ```
//!
//! Two copies, replaced one after the other: written under another name, synced, renamed. One that
//! is lost or damaged is written anew. Without both, headers of logs and snapshots say the same.

use super::disk::{Disk, Growth, append_all};
use super::record::FORMAT;
use super::{Damage, Error};
use crate::limits::SHARDS_MAX;
use crc32c::crc32c;
use serde::{Deserialize, Serialize};
use std::io;

/// The names of the two copies.
pub const IDENTITY_NAMES: [&str; 2] = ["IDENTITY", "IDENTITY.2"];
/// A copy on its way; never read.
const IDENTITY_NEXT_NAME: &str = "IDENTITY.next";
const FIRST_WORDS: &str = "distcache identity ";
const LAST_WORD: &str = "checksum ";
const IDENTITY_BYTES_MAX: u64 = 4096;

/// What version 1 of the formats had in this one's place.
const MANIFEST_NAME: &str = "MANIFEST";

/// See the module's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Random; in the header of every file.
    pub directory_id: u64,
    /// The secret of the key hash, so that a key stays with its shard from run to run.
    pub hash_secret: [u64; 2],
    /// Shards the keys are spread over.
    pub shards: u32,
    /// The log that the last start began: it has to be there, or a snapshot begun later.
    pub log: u64,
}

/// What was found of it.
#[derive(Debug)]
pub struct FoundIdentity {
    /// What it says.
    pub identity: Identity,
    /// What is wrong with one of the copies: it is to be written anew.
    pub damage: Option<Error>,
}

impl Identity {
    /// Reads both copies. `None`: there is none.
    ///
    /// # Errors
    /// They cannot be read, both are damaged, or they are another version's.
    pub fn read(disk: &dyn Disk) -> Result<Option<FoundIdentity>, Error> {
        let copies = IDENTITY_NAMES.map(|name| read_copy(disk, name));
        match copies {
            [Ok(None), Ok(None)] => Ok(None),
            [Ok(Some(one)), Ok(Some(two))] => {
                // Cut short between the two, a start has noted its log in one of them.
                let identity = if one.log >= two.log { one } else { two };
                let differ = Identity { log: 0, ..one } != Identity { log: 0, ..two };
                let what = "it says another thing than its copy";
                let damage = differ.then(|| Error::damaged(IDENTITY_NAMES[1], 0, what));
                Ok(Some(FoundIdentity { identity, damage }))
            }
            [Ok(Some(identity)), other] | [other, Ok(Some(identity))] => {
                let lost = || Error::damaged("IDENTITY", 0, "one of its two copies is missing");
                let damage = other.err().unwrap_or_else(lost);
                Ok(Some(FoundIdentity { identity, damage: Some(damage) }))
            }
            [Err(why), _] | [_, Err(why)] => Err(why),
        }
    }

    /// Makes both copies say this, durably.
    ///
    /// # Errors
    /// The system refused; each copy is as it was or new.
    pub fn write(&self, disk: &dyn Disk) -> Result<(), Error> {
        let cannot = |why| Error::io(IDENTITY_NAMES[0], "cannot be written", why);
        let text = self.pack().map_err(cannot)?;
        for name in IDENTITY_NAMES.iter().rev() {
            let written = (|| {
                let file = disk.create(IDENTITY_NEXT_NAME, Growth::AsWritten)?;
                append_all(&*file, text.as_bytes())?;
                file.sync()?;
                disk.rename(IDENTITY_NEXT_NAME, name)?;
                disk.sync_directory()
            })();
            written.map_err(cannot)?;
        }
        Ok(())
    }

    fn pack(&self) -> io::Result<String> {
        let body = serde_json::to_string_pretty(self).map_err(io::Error::other)?;
        let text = format!("{FIRST_WORDS}{FORMAT}\n{body}\n");
        Ok(format!("{text}{LAST_WORD}{:08x}\n", crc32c(text.as_bytes())))
    }

    /// The checksum comes before the version: a flipped bit in the version is damage.
    fn unpack(bytes: &[u8]) -> Result<Self, Damage> {
        let text = std::str::from_utf8(bytes).map_err(|_| Damage::new("not a text"))?;
        let at = text.rfind(LAST_WORD).ok_or(Damage::new("it has lost its end"))?;
        let (told, checksum) = text.split_at(at);
        if checksum != format!("{LAST_WORD}{:08x}\n", crc32c(told.as_bytes())) {
            return Err(Damage::new("the checksum is wrong"));
        }
        let told = told.strip_prefix(FIRST_WORDS).ok_or(Damage::new("no identity"))?;
        let (format, body) = told.split_once('\n').ok_or(Damage::new("nothing in it"))?;
        if format.parse() != Ok(FORMAT) {
            return Err(Damage::newer());
        }
        let why = |why| Damage::new(format!("not understood: {why}"));
        let identity: Self = serde_json::from_str(body).map_err(why)?;
        if identity.shards == 0 || identity.shards as usize > SHARDS_MAX {
            return Err(Damage::new("an impossible number of shards"));
        }
        Ok(identity)
    }
}

fn read_copy(disk: &dyn Disk, name: &str) -> Result<Option<Identity>, Error> {
    let cannot = |why| Error::io(name, "cannot be read", why);
    let file = match disk.open(name) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(cannot)?,
    };
    let file_bytes = file.len().map_err(cannot)?;
    if file_bytes > IDENTITY_BYTES_MAX {
        return Err(Error::damaged(name, 0, "far too long"));
    }
    let mut bytes = vec![0; file_bytes as usize];
    let count = file.read_at(&mut bytes, 0).map_err(cannot)?;
    Identity::unpack(&bytes[..count]).map(Some).map_err(|damage| Error::of(name, 0, damage))
}

/// Refuses a directory of a version that had no identity.
///
/// # Errors
/// It is one, or its names cannot be read.
pub fn refuse_older(disk: &dyn Disk) -> Result<(), Error> {
    let names = disk.list().map_err(|why| Error::io("the directory", "cannot be read", why))?;
    let has_log = |name: &String| name.strip_prefix("log-").is_some_and(|rest| rest.contains('-'));
    if names.iter().any(|name| name == MANIFEST_NAME) || names.iter().any(has_log) {
        return Err(Error::other_version(
            MANIFEST_NAME,
            "written by an older distcached, in a format that was never released and is not read \
             any more; write its items with the old program's \"dump\", and load them into a new \
             directory",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_damage_and_another_version_is_not() {
        let identity = Identity { directory_id: 1, hash_secret: [2, 3], shards: 4, log: 5 };
        let text = identity.pack().unwrap();
        assert_eq!(Identity::unpack(text.as_bytes()), Ok(identity));
        for bit in 0..text.len() * 8 {
            let mut bytes = text.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let read = Identity::unpack(&bytes);
            assert!(read.is_err() && read != Err(Damage::newer()), "bit {bit}: {read:?}");
        }
        let told = text.split(LAST_WORD).next().unwrap().replace("identity 2", "identity 3");
        let newer = format!("{told}{LAST_WORD}{:08x}\n", crc32c(told.as_bytes()));
        assert_eq!(Identity::unpack(newer.as_bytes()), Err(Damage::newer()));
    }
}
