//! Puts a damaged directory in order: a new snapshot of what is intact, with the damaged files kept
//! under other names.
//!
//! Does what a start with `--recover=salvage` does, with room for everything and without serving.

use super::request_for_all;
use crate::durable::directory::{DAMAGED_SUFFIX, Random};
use crate::durable::disk::Disk;
use crate::durable::recovery::{self, Report};
use crate::durable::{Error, Recover};
use crate::store::Ticks;
use std::sync::Arc;

/// What was done.
#[derive(Debug)]
pub enum Repaired {
    /// Nothing: the directory starts as it is.
    Intact(Report),
    /// A snapshot of what is intact was written.
    Salvaged {
        /// What that was.
        report: Report,
        /// Items in it.
        items: u64,
        /// Files that were kept under other names, as they are called now.
        aside: Vec<String>,
    },
}

/// Repairs a directory, if it needs that.
///
/// # Errors
/// The system refused, or the files are of a newer version: the directory is as it was.
pub fn repair(disk: Arc<dyn Disk>, now: Ticks, random: Random) -> Result<Repaired, Error> {
    let strict = request_for_all(&*disk, Recover::Strict, now);
    match recovery::read_only(&*disk, &strict) {
        Ok(contents) if contents.report.damages.is_empty() => {
            return Ok(Repaired::Intact(contents.report));
        }
        Err(why) if !why.is_damage() => return Err(why),
        // What a start would mend is mended here as well.
        Ok(_) | Err(_) => {}
    }
    let request = request_for_all(&*disk, Recover::Salvage, now);
    let before = names_aside(&*disk)?;
    let recovered = recovery::open(Arc::clone(&disk), &request, random)?;
    let items = recovered.shards.iter().map(|shard| shard.store.items() as u64).sum();
    let mut aside = names_aside(&*disk)?;
    aside.retain(|name| !before.contains(name));
    Ok(Repaired::Salvaged { report: recovered.report, items, aside })
}

fn names_aside(disk: &dyn Disk) -> Result<Vec<String>, Error> {
    let listed = disk.list().map_err(|why| Error::io("the directory", "cannot be read", why))?;
    let mut names: Vec<String> =
        listed.into_iter().filter(|name| name.contains(DAMAGED_SUFFIX)).collect();
    names.sort();
    Ok(names)
}
