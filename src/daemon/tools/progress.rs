//! How far a tool has come with a data directory: a bar on standard error, if that is a terminal.
//!
//! A [`Watched`] disk counts what is read through it against the size of all files. A file that is
//! read twice makes the whole larger. Owns the bar; what is read and why is the tool's.

use crate::durable::disk::{Disk, DiskFile, Growth, LOCK_NAME};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, IoSlice};
use std::sync::Arc;

/// A bar of this shape; the default one if the shape is not understood.
pub(super) fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// A disk whose reads are counted. The bar goes when it is dropped.
pub(super) struct Watched<D> {
    disk: D,
    bar: ProgressBar,
}

impl<D: Disk> Watched<D> {
    /// Counts from now on. Files whose size is not known do not make the whole larger.
    pub(super) fn new(disk: D) -> Self {
        let names = disk.list().unwrap_or_default();
        let names = names.iter().filter(|name| *name != LOCK_NAME);
        let sizes = names.filter_map(|name| disk.open(name).and_then(|it| it.len()).ok());
        let bar = ProgressBar::new(sizes.sum());
        bar.set_style(style("{bar:40} {bytes}/{total_bytes} read, {eta} left"));
        Self { disk, bar }
    }
}

impl<D> Drop for Watched<D> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl<D: Disk> Disk for Watched<D> {
    fn create(&self, name: &str, growth: Growth) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.create(name, growth)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(name)?;
        Ok(Arc::new(WatchedFile { file, bar: self.bar.clone() }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.disk.sync_directory()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }
}

struct WatchedFile {
    file: Arc<dyn DiskFile>,
    bar: ProgressBar,
}

impl DiskFile for WatchedFile {
    fn append(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.file.append(slices)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.file.read_at(into, offset)?;
        self.bar.inc(bytes as u64);
        let position = self.bar.position();
        if self.bar.length().is_some_and(|length| length < position) {
            self.bar.set_length(position);
        }
        Ok(bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn forget(&self) {
        self.file.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::disk::{Access, RealDisk, append_all};

    #[test]
    fn what_is_read_is_counted_against_all_there_is() {
        let directory = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(directory.path(), Access::Exclusive).unwrap();
        for (name, bytes) in [("log-1", 300), ("snapshot-1", 700)] {
            let file = disk.create(name, Growth::AsWritten).unwrap();
            append_all(&*file, &vec![7; bytes]).unwrap();
        }
        let watched = Watched::new(disk);
        assert_eq!((watched.bar.position(), watched.bar.length()), (0, Some(1000)));
        let mut into = [0; 1000];
        for (name, so_far, length) in
            [("log-1", 300, 1000), ("snapshot-1", 1000, 1000), ("log-1", 1300, 1300)]
        {
            watched.open(name).unwrap().read_at(&mut into, 0).unwrap();
            assert_eq!(watched.bar.position(), so_far, "{name}");
            assert_eq!(watched.bar.length(), Some(length), "{name}");
        }
    }
}
