//! Files and directories on Unix.
//!
//! Owns no file: it is given them open.

use nix::sys::uio::pwritev;
use rustix::fs::{Dir, fstatvfs};
use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, chown, fchown};
use std::path::Path;

/// Has a file that is made get the access `mode`.
pub fn with_mode(options: &mut OpenOptions, mode: u32) -> &mut OpenOptions {
    options.mode(mode)
}

/// Makes directories with the access `mode`.
pub fn directory_builder(mode: u32) -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.mode(mode);
    builder
}

/// Whose a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    user: u32,
    group: u32,
}

impl Owner {
    /// Of a file that is there.
    pub fn of(found: &Metadata) -> Self {
        Self { user: found.uid(), group: found.gid() }
    }

    /// Whether it is another one than root, and this process is root: then files that it makes are
    /// to be given away.
    pub fn is_served_by_root(&self) -> bool {
        self.user != 0 && rustix::process::geteuid().is_root()
    }

    /// Gives the owner an open file.
    ///
    /// # Errors
    /// Those of the system: only root may.
    pub fn give(&self, file: &File) -> io::Result<()> {
        fchown(file, Some(self.user), Some(self.group))
    }

    /// Gives the owner the file of that name.
    ///
    /// # Errors
    /// As [`Owner::give`].
    pub fn give_path(&self, path: &Path) -> io::Result<()> {
        chown(path, Some(self.user), Some(self.group))
    }
}

/// An open directory.
#[derive(Debug)]
pub struct Directory {
    file: File,
}

impl Directory {
    /// Opens one.
    ///
    /// # Errors
    /// Those of the system: not there, no permission.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::open(path)? })
    }

    /// Whose it is.
    ///
    /// # Errors
    /// Those of the system.
    pub fn owner(&self) -> io::Result<Owner> {
        Ok(Owner::of(&self.file.metadata()?))
    }

    /// The names of what is in it; one that is not text is none of ours.
    ///
    /// # Errors
    /// Those of the system.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        // Not the standard library's, which panics if the directory cannot be closed.
        for entry in Dir::read_from(&self.file)? {
            let entry = entry?;
            let name = entry.file_name().to_str().ok();
            names.extend(name.filter(|name| ![".", ".."].contains(name)).map(str::to_owned));
        }
        Ok(names)
    }

    /// Makes created, renamed and removed names durable.
    ///
    /// # Errors
    /// Those of the system.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Bytes that its disk still takes.
    ///
    /// # Errors
    /// Those of the system.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let disk = fstatvfs(&self.file)?;
        // What is reserved for root is not for us, and root has no use for a full disk either.
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

/// Opens a file for reading, and for a sync of what others have written.
///
/// # Errors
/// Those of the system.
pub fn open_to_sync(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// Writes at a place in a file; may write less than given.
///
/// # Errors
/// Those of the system.
pub fn write_at(file: &File, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
    let offset = i64::try_from(offset).map_err(io::Error::other)?;
    Ok(pwritev(file, slices, offset)?)
}

/// Reads from a place in a file; may read less than there is.
///
/// # Errors
/// Those of the system.
pub fn read_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    file.read_at(into, offset)
}

/// Lets the system forget what it keeps of a file in memory. What is not synced stays.
///
/// # Errors
/// Those of the system.
#[cfg(not(target_vendor = "apple"))]
pub fn forget(file: &File) -> io::Result<()> {
    Ok(rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?)
}

/// macOS keeps what it likes.
///
/// # Errors
/// None.
#[cfg(target_vendor = "apple")]
pub fn forget(_file: &File) -> io::Result<()> {
    Ok(())
}
