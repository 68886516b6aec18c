//! The files of a directory by their names: making one, removing it, putting it aside.
//!
//! Owns no state: what is in a directory is asked of the disk.

use super::Error;
use super::disk::{Disk, DiskFile, Growth, append_all};
use super::record::FileHeader;
use std::io;
use std::sync::Arc;

/// Where random numbers come from.
pub type Random = Box<dyn FnMut() -> io::Result<u64> + Send>;

/// A damaged file that is kept gets this behind its name.
pub const DAMAGED_SUFFIX: &str = ".damaged";

/// The name of a log.
pub fn log_name(number: u64) -> String {
    format!("log-{number:08}")
}

/// The name of a snapshot, by the log from which on changes are to be replayed.
pub fn snapshot_name(number: u64) -> String {
    format!("snapshot-{number:08}")
}

/// The number of a log's name.
pub fn log_number(name: &str) -> Option<u64> {
    number_of(name, "log-")
}

/// The number of a snapshot's name.
pub fn snapshot_number(name: &str) -> Option<u64> {
    number_of(name, "snapshot-")
}

fn number_of(name: &str, prefix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?;
    let is_number = digits.len() >= 8 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number)
}

/// The names of all files, sorted.
///
/// # Errors
/// Those of the system.
pub fn names(disk: &dyn Disk) -> Result<Vec<String>, Error> {
    let listed = disk.list();
    let mut names = listed.map_err(|why| Error::io("the directory", "cannot be read", why))?;
    names.sort();
    Ok(names)
}

/// Makes the names of files durable.
///
/// # Errors
/// Those of the system.
pub fn sync(disk: &dyn Disk) -> Result<(), Error> {
    disk.sync_directory().map_err(|why| Error::io("the directory", "cannot be synced", why))
}

/// Makes a file that holds nothing but its header, durably. One that cannot be made is not left
/// behind.
///
/// # Errors
/// The system refused.
pub fn create(
    disk: &dyn Disk,
    name: &str,
    header: &FileHeader,
    growth: Growth,
) -> Result<Arc<dyn DiskFile>, Error> {
    let made = (|| {
        let file = disk.create(name, growth)?;
        append_all(&*file, &header.pack())?;
        file.sync()?;
        disk.sync_directory()?;
        Ok(file)
    })();
    made.map_err(|why| {
        // It may never have been there; and what stays is removed at the next start.
        let _ = disk.remove(name);
        Error::io(name, "cannot be made", why)
    })
}

/// Removes a file that is no longer needed; if it cannot be removed, the next start tries again.
pub fn remove(disk: &dyn Disk, name: &str) {
    if let Err(why) = disk.remove(name) {
        log::warn!("{name}: no longer needed, but cannot be removed: {why}");
    }
}

/// Gives a file another name, under which it is never read.
pub fn put_aside(disk: &dyn Disk, name: &str) {
    let renamed = name_aside(disk, name).and_then(|aside| {
        log::warn!("{name}: damaged, kept as {aside}");
        disk.rename(name, &aside)
    });
    if let Err(why) = renamed {
        log::warn!("{name}: damaged, and cannot be given another name: {why}");
    }
}

/// A name under which nothing is there yet.
fn name_aside(disk: &dyn Disk, name: &str) -> io::Result<String> {
    let taken = disk.list()?;
    let plain = format!("{name}{DAMAGED_SUFFIX}");
    let numbered = (2..).map(|number: u64| format!("{plain}.{number}"));
    let mut names = std::iter::once(plain.clone()).chain(numbered);
    names.find(|name| !taken.contains(name)).ok_or(io::ErrorKind::AlreadyExists.into())
}

/// Bytes of all files there are; what cannot be asked counts as nothing.
pub fn bytes(disk: &dyn Disk) -> u64 {
    let bytes_of = |name: &String| disk.open(name).and_then(|file| file.len()).unwrap_or(0);
    disk.list().unwrap_or_default().iter().map(bytes_of).sum()
}
