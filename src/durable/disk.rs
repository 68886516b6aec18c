//! The few things the durability layer asks of a file system, as traits, so that tests can put a
//! disk underneath that fails, fills up or loses power at any call.
//!
//! Owns the one implementation that touches real files. Knows nothing of formats.

use crate::system::{self, Directory, Owner};
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Only the daemon's user may read the data.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// How a file grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Growth {
    /// With what is written.
    AsWritten,
    /// Ahead of it, by zeros: then a sync has no new size to record, and takes half the time. The
    /// file may end in zeros.
    Ahead,
}

/// Zeros written ahead at a time.
const AHEAD_BYTES: usize = 1 << 20;
static ZEROS: [u8; 32 << 10] = [0; 32 << 10];
const _: () = assert!(AHEAD_BYTES.is_multiple_of(ZEROS.len()));

/// One directory of files, all of it ours.
pub trait Disk: Send + Sync {
    /// Creates an empty file; one of that name is emptied.
    ///
    /// # Errors
    /// Those of the system: no space, no permission.
    fn create(&self, name: &str, growth: Growth) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file for reading.
    ///
    /// # Errors
    /// Those of the system: not there, no permission.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// The names of all files.
    ///
    /// # Errors
    /// Those of the system.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Gives a file another name; a file of that name is replaced in one step.
    ///
    /// # Errors
    /// Those of the system.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// Those of the system.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes created, renamed and removed names durable.
    ///
    /// # Errors
    /// Those of the system; what was not durable before may be lost then.
    fn sync_directory(&self) -> io::Result<()>;

    /// Bytes that can still be written.
    ///
    /// # Errors
    /// Those of the system.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// One open file. Written only at its end.
pub trait DiskFile: Send + Sync {
    /// Writes at the end. May write less than given, as `writev` does.
    ///
    /// # Errors
    /// Those of the system: no space, a failing device.
    fn append(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// The device failed. What was written since the last success may be gone, and a second call
    /// would not tell: the file must not be used further.
    fn sync(&self) -> io::Result<()>;

    /// Reads from an offset; less than asked for only at the end of the file.
    ///
    /// # Errors
    /// Those of the system.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Bytes in the file.
    ///
    /// # Errors
    /// Those of the system.
    fn len(&self) -> io::Result<u64>;

    /// Lets the system forget what it keeps of the file in memory, so that reading it comes from
    /// the device. What is not synced stays. Only advice.
    fn forget(&self) {}

    /// No bytes in the file.
    ///
    /// # Errors
    /// Those of the system.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// Writes all of `bytes` at the end of a file.
///
/// # Errors
/// Those of [`DiskFile::append`]; a part may have been written then.
pub fn append_all(file: &dyn DiskFile, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.append(&[IoSlice::new(bytes)]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = bytes.get(count..).unwrap_or(&[]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A directory of the file system.
pub struct RealDisk {
    path: PathBuf,
    directory: Directory,
    access: Access,
    /// Held for as long as the disk is in use.
    _lock: Option<File>,
    /// Whose files are to be, if root makes them for somebody else.
    owner: Option<Owner>,
}

/// Whether a directory is taken for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// By this process alone; the directory is made if it is not there.
    Exclusive,
    /// For reading, beside others that read. Nothing is made, so a copy on a read-only medium does.
    Shared,
    /// For reading, whoever writes it meanwhile: files may grow and vanish.
    Beside,
}

/// The file whose lock says that a directory is in use.
pub const LOCK_NAME: &str = "LOCK";

impl RealDisk {
    /// Opens a directory.
    ///
    /// # Errors
    /// It cannot be made or read; `WouldBlock`: another process has it.
    pub fn open(path: &Path, access: Access) -> io::Result<Self> {
        if access == Access::Exclusive {
            make_directory(path)?;
        }
        let directory = Directory::open(path)?;
        let lock = match access {
            Access::Beside => None,
            Access::Shared => match File::open(path.join(LOCK_NAME)) {
                Err(why) if why.kind() == io::ErrorKind::NotFound => None,
                lock => {
                    let lock = lock?;
                    lock.try_lock_shared().map_err(|why| who_has(path, why))?;
                    Some(lock)
                }
            },
            Access::Exclusive => {
                let mut options = OpenOptions::new();
                options.create(true).truncate(false).write(true);
                let mut lock =
                    system::with_mode(&mut options, FILE_MODE).open(path.join(LOCK_NAME))?;
                lock.try_lock().map_err(|why| who_has(path, why))?;
                // For whoever finds it locked. Without space there is nothing to say.
                let _ = lock.set_len(0);
                let _ = writeln!(lock, "{}", std::process::id());
                Some(lock)
            }
        };
        let owner = Some(directory.owner()?).filter(Owner::is_served_by_root);
        Ok(Self { path: path.to_owned(), directory, access, _lock: lock, owner })
    }
}

/// Names the process that has a directory, if it has said who it is.
fn who_has(path: &Path, why: fs::TryLockError) -> io::Error {
    let fs::TryLockError::WouldBlock = why else { return why.into() };
    let text = fs::read_to_string(path.join(LOCK_NAME)).unwrap_or_default();
    match text.trim().parse::<u32>() {
        Ok(process) => io::Error::new(io::ErrorKind::WouldBlock, format!("process {process}")),
        Err(_) => io::ErrorKind::WouldBlock.into(),
    }
}

/// Makes a directory that survives a crash: its parent is synced.
fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    system::directory_builder(DIRECTORY_MODE).recursive(true).create(path)?;
    match path.canonicalize()?.parent() {
        Some(parent) => Directory::open(parent)?.sync(),
        None => Ok(()),
    }
}

impl Disk for RealDisk {
    fn create(&self, name: &str, growth: Growth) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).read(true).write(true);
        let file = system::with_mode(&mut options, FILE_MODE).open(self.path.join(name))?;
        if let Some(owner) = self.owner {
            owner.give(&file)?;
        }
        Ok(Arc::new(RealFile { file, growth, ends: Mutex::new(Ends::default()) }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.path.join(name);
        let file = match self.access {
            // What a recovery relies on is synced first.
            Access::Exclusive => system::open_to_sync(&path)?,
            Access::Shared | Access::Beside => File::open(path)?,
        };
        let (growth, ends) = (Growth::AsWritten, Mutex::new(Ends::default()));
        Ok(Arc::new(RealFile { file, growth, ends }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.directory.names()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.directory.sync()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.directory.free_bytes()
    }
}

fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match system::write_at(file, &[IoSlice::new(bytes)], offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = bytes.get(count..).unwrap_or(&[]);
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

struct RealFile {
    file: File,
    growth: Growth,
    ends: Mutex<Ends>,
}

/// Where a file that is being written ends.
#[derive(Default)]
struct Ends {
    /// Behind the last byte that was appended.
    written: u64,
    /// Behind the zeros.
    ahead: u64,
}

impl RealFile {
    /// Held while writing, so that zeros never land on records.
    fn lock(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn grow_ahead(&self) -> io::Result<()> {
        let mut ends = self.lock();
        if ends.ahead >= ends.written + AHEAD_BYTES as u64 / 2 {
            return Ok(());
        }
        let from = ends.ahead.max(ends.written);
        // A few pages over and over: so many would have to come from memory.
        for at in 0..(AHEAD_BYTES / ZEROS.len()) as u64 {
            write_all_at(&self.file, &ZEROS, from + at * ZEROS.len() as u64)?;
        }
        ends.ahead = from + AHEAD_BYTES as u64;
        Ok(())
    }
}

impl DiskFile for RealFile {
    fn append(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut ends = self.lock();
        let count = system::write_at(&self.file, slices, ends.written)?;
        ends.written += count as u64;
        Ok(count)
    }

    fn sync(&self) -> io::Result<()> {
        // Without space for zeros there may still be some for records.
        if self.growth == Growth::Ahead
            && let Err(why) = self.grow_ahead()
        {
            log::debug!("no zeros written ahead: {why}");
        }
        self.file.sync_data()
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < into.len() {
            match system::read_at(&self.file, &mut into[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn forget(&self) {
        if let Err(why) = system::forget(&self.file) {
            log::debug!("the system keeps a file in memory: {why}");
        }
    }
}
