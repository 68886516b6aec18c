//! Files and directories on Windows.
//!
//! Owns no file: it is given them open. Access and owner of what is made come from the directory
//! around it; names cannot be synced apart from files.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, IoSlice};
use std::os::windows::fs::FileExt;
use std::path::{Path, PathBuf};

/// Who may open a file is inherited from its directory.
pub fn with_mode(options: &mut OpenOptions, _mode: u32) -> &mut OpenOptions {
    options
}

/// Who may open a directory is inherited from the one around it.
pub fn directory_builder(_mode: u32) -> DirBuilder {
    DirBuilder::new()
}

/// Whose a file is: there is nobody to give one to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner;

impl Owner {
    /// Of a file that is there.
    pub fn of(_found: &Metadata) -> Self {
        Self
    }

    /// Never.
    pub fn is_served_by_root(&self) -> bool {
        false
    }

    /// Changes nothing.
    ///
    /// # Errors
    /// None.
    pub fn give(&self, _file: &File) -> io::Result<()> {
        Ok(())
    }

    /// Changes nothing.
    ///
    /// # Errors
    /// None.
    pub fn give_path(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
}

/// A directory that is there, by its name: the standard library opens files only.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Looks whether it is there.
    ///
    /// # Errors
    /// Those of the system; `NotADirectory`.
    pub fn open(path: &Path) -> io::Result<Self> {
        if !fs::metadata(path)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self { path: path.to_owned() })
    }

    /// Whose it is.
    ///
    /// # Errors
    /// None.
    pub fn owner(&self) -> io::Result<Owner> {
        Ok(Owner)
    }

    /// The names of what is in it; one that is not text is none of ours.
    ///
    /// # Errors
    /// Those of the system.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    /// Does nothing: a directory cannot be synced. NTFS keeps names in a journal of its own, in
    /// their order.
    ///
    /// # Errors
    /// None.
    pub fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    /// The standard library does not say.
    ///
    /// # Errors
    /// Always.
    pub fn free_bytes(&self) -> io::Result<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Opens a file for reading, and for a sync of what others have written: only who may write may
/// sync.
///
/// # Errors
/// Those of the system.
pub fn open_to_sync(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// Writes at a place in a file; may write less than given, one slice at most.
///
/// # Errors
/// Those of the system.
pub fn write_at(file: &File, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
    match slices.iter().find(|slice| !slice.is_empty()) {
        Some(slice) => file.seek_write(slice, offset),
        None => Ok(0),
    }
}

/// Reads from a place in a file; may read less than there is.
///
/// # Errors
/// Those of the system.
pub fn read_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    file.seek_read(into, offset)
}

/// The system keeps what it likes.
///
/// # Errors
/// None.
pub fn forget(_file: &File) -> io::Result<()> {
    Ok(())
}
