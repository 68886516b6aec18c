//! A copy of a directory that may be in use meanwhile: a snapshot and the logs since, as far as
//! they reach when they are copied.
//!
//! Nothing of the server is needed for it: files only grow at their ends, so that a beginning of
//! the log is a state that the server went through, and files say themselves what they are. One
//! that is removed while it is copied was replaced by a newer snapshot: then all begins again.

use super::check::{Checked, check};
use crate::durable::chain::{Plan, Survey, Told, walk};
use crate::durable::directory::{log_name, snapshot_name};
use crate::durable::disk::{Disk, Growth, append_all};
use crate::durable::reader::Windows;
use crate::durable::{Error, directory};
use std::io;

/// A server that takes snapshots faster than they can be copied is not waited for any longer.
const TRIES_MAX: usize = 5;

/// What is copied at a time.
const PIECE_BYTES: usize = 1 << 20;

/// What was copied.
#[derive(Debug)]
pub struct BackedUp {
    /// Bytes of all files.
    pub bytes: u64,
    /// What the copy holds.
    pub checked: Checked,
}

/// Copies the data of one directory to another, which is empty, and verifies the copy.
///
/// # Errors
/// A directory cannot be read or written, the one is damaged, or the other one is not empty.
pub fn backup(from: &dyn Disk, to: &dyn Disk) -> Result<BackedUp, Error> {
    let present = directory::names(to)?;
    if let Some(name) = present.iter().find(|name| *name != crate::durable::disk::LOCK_NAME) {
        let why = io::ErrorKind::AlreadyExists.into();
        return Err(Error::io(name.clone(), "the new directory is not empty", why));
    }
    let mut tries = 0;
    loop {
        tries += 1;
        let why = match copy(from, to) {
            Ok(bytes) => {
                let checked = check(to)?;
                match checked.damages.first() {
                    None => return Ok(BackedUp { bytes, checked }),
                    Some(why) => why.again(),
                }
            }
            Err(why) => why,
        };
        for name in directory::names(to)?.iter().filter(|name| !present.contains(name)) {
            directory::remove(to, name);
        }
        if tries == TRIES_MAX || !why.is_damage() {
            return Err(why);
        }
    }
}

fn copy(from: &dyn Disk, to: &dyn Disk) -> Result<u64, Error> {
    let windows = Windows::default();
    let Some(survey) = Survey::take(from, false)? else {
        return Err(Error::damaged("the directory", 0, "it holds no data"));
    };
    let mut bytes = 0;
    let plan = survey.plans(&windows)?.into_iter().next();
    let (mut next, mut last) = (None, 0);
    if let Some(plan) = &plan {
        if let Some(number) = plan.snapshot {
            bytes += copy_file(from, to, &snapshot_name(number))?;
        }
        next = plan.logs.first().copied();
    }
    // In order: what is copied of each is a beginning, and whatever follows in time is behind it.
    let mut left = plan.map_or_else(Vec::new, |plan| plan.logs);
    while let Some(number) = next {
        bytes += copy_file(from, to, &log_name(number))?;
        last = number;
        left.retain(|other| *other > number);
        next = left.first().copied().or(named_at_the_end(to, &windows, number)?);
    }
    let identity = survey.identity;
    let log = identity.log.min(last);
    crate::durable::identity::Identity { log, ..identity }.write(to)?;
    directory::sync(to)?;
    Ok(bytes)
}

/// The log that follows the last one that was copied, if what was copied says that there is one.
fn named_at_the_end(to: &dyn Disk, windows: &Windows, last: u64) -> Result<Option<u64>, Error> {
    let Some(survey) = Survey::take(to, true)? else { return Ok(None) };
    if survey.log(last).is_err() {
        // Made, and never begun so far.
        return Ok(None);
    }
    let end =
        walk(&survey, &Plan::of_log(last), windows, Some(&mut Vec::new()), &mut |_: Told<'_>| {
            Ok(())
        })?;
    Ok(end.next)
}

fn copy_file(from: &dyn Disk, to: &dyn Disk, name: &str) -> Result<u64, Error> {
    let source = from.open(name).map_err(|why| Error::io(name, "cannot be opened", why))?;
    let cannot_read = |why| Error::io(name, "cannot be read", why);
    let cannot_write = |why| Error::io(name, "cannot be copied", why);
    let bytes = source.len().map_err(cannot_read)?;
    let copy = to.create(name, Growth::AsWritten).map_err(cannot_write)?;
    let mut piece = vec![0; PIECE_BYTES.min(bytes as usize)];
    let mut offset = 0;
    while offset < bytes {
        let wanted = piece.len().min((bytes - offset) as usize);
        let count = source.read_at(&mut piece[..wanted], offset).map_err(cannot_read)?;
        if count == 0 {
            break;
        }
        append_all(&*copy, &piece[..count]).map_err(cannot_write)?;
        offset += count as u64;
    }
    copy.sync().map_err(cannot_write)?;
    Ok(offset)
}
