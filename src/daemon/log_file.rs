//! The file of `--log-file`: lines are appended, and after a rotation it is opened again.
//!
//! Owns the file. What is logged, and in which form, is the logger's.

use crate::system;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// For the daemon's user and its group: addresses of clients are in it.
const MODE: u32 = 0o640;

/// A log file; its clones write to the same one.
#[derive(Debug, Clone)]
pub struct LogFile {
    path: Arc<Path>,
    file: Arc<Mutex<File>>,
}

impl LogFile {
    /// Opens a file for appending; it is made if it is not there.
    ///
    /// # Errors
    /// Those of the system: no such directory, no permission.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let file = append_to(&path)?;
        Ok(Self { path: path.into(), file: Arc::new(Mutex::new(file)) })
    }

    /// Opens the file of that name again: another one, after a rotation.
    ///
    /// # Errors
    /// As [`LogFile::open`]. Lines go to the file that was open before, then.
    pub fn reopen(&self) -> io::Result<()> {
        let file = append_to(&self.path)?;
        *self.lock() = file;
        Ok(())
    }

    /// Its name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn lock(&self) -> MutexGuard<'_, File> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.lock().write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    system::with_mode(OpenOptions::new().append(true).create(true), MODE).open(path)
}
