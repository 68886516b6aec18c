//! The order in which files are made, become current and go: every step leaves a directory that
//! recovers, whatever the next one does.
//!
//! ```text
//! run:       logs made and synced -> manifest names them -> they are written to
//! snapshot:  logs of the next generation made, named -> workers switch -> items written, synced
//!            -> those logs synced -> manifest names the snapshot -> what is older is removed
//! ```
//!
//! Owns the manifest. Does not read logs or snapshots.

use super::Error;
use super::change::Start;
use super::disk::{Disk, Growth, append_all};
use super::log::LogFile;
use super::manifest::{
    LogEnd, LogEntry, LogSet, MANIFEST_NAME, Manifest, RunEntry, SnapshotEntry, SnapshotFileEntry,
    generation_of, log_name, snapshot_name,
};
use super::record::{FileHeader, FileKind};
use super::snapshot::{Finished, SnapshotWriter};
use std::io;
use std::sync::Arc;

/// Where random numbers come from.
pub type Random = Box<dyn FnMut() -> io::Result<u64> + Send>;

/// Segment sequences for tokens that the manifest grants at a time: half of them are 512 MiB of
/// changes in the smallest segments.
pub const TOKENS_GRANTED: u64 = 1 << 16;

/// A damaged file that is kept gets this behind its name.
pub const DAMAGED_SUFFIX: &str = ".damaged";

/// See the module's text.
pub struct Directory {
    disk: Arc<dyn Disk>,
    manifest: Manifest,
    random: Random,
    log_growth: Growth,
    /// The generation that was to be published last. If that failed, its files may be named by the
    /// manifest on the disk all the same.
    published: u64,
}

/// A snapshot file that is being written.
pub struct SnapshotFile {
    /// Its writer.
    pub writer: SnapshotWriter,
    /// Its name, for messages.
    pub name: String,
    file_id: u64,
}

/// A snapshot file that is whole and on the device.
#[derive(Debug, Clone, Copy)]
pub struct FinishedFile {
    file_id: u64,
    /// What it holds.
    pub finished: Finished,
}

impl SnapshotFile {
    /// Ends the file.
    ///
    /// # Errors
    /// As [`SnapshotWriter::finish`].
    pub fn finish(self) -> Result<FinishedFile, Error> {
        let finished = self.writer.finish();
        let finished = finished.map_err(|why| Error::io(self.name, "cannot be written", why))?;
        Ok(FinishedFile { file_id: self.file_id, finished })
    }
}

impl Directory {
    /// Takes over a directory with the manifest it has, or is to have.
    pub fn new(disk: Arc<dyn Disk>, manifest: Manifest, random: Random) -> Self {
        Self { disk, manifest, random, log_growth: Growth::AsWritten, published: 0 }
    }

    /// How logs that are made from here on grow.
    pub fn set_log_growth(&mut self, growth: Growth) {
        self.log_growth = growth;
    }

    /// The manifest as it was last written, or is about to be.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Bytes that its disk still takes; all there are if the system does not say.
    pub fn free_bytes(&self) -> u64 {
        self.disk.free_bytes().unwrap_or(u64::MAX)
    }

    /// The disk.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Starts a run with logs of its own, behind what was recovered: `ends` says how far each log
    /// of each earlier run counts.
    ///
    /// # Errors
    /// The system refused; the directory is as it was.
    pub fn begin_run(
        &mut self,
        shards: usize,
        ends: &[Vec<Vec<LogEnd>>],
    ) -> Result<Vec<LogFile>, Error> {
        let mut manifest = self.manifest.clone();
        for (run, ends) in manifest.runs.iter_mut().zip(ends) {
            for (set, ends) in run.logs.iter_mut().zip(ends) {
                for (shard, (file, end)) in set.files.iter_mut().zip(ends).enumerate() {
                    self.sync_log(&log_name(set.generation, shard))?;
                    file.end = Some(*end);
                }
            }
        }
        manifest.runs.push(RunEntry { shards, logs: Vec::new() });
        manifest.token_ceiling += TOKENS_GRANTED;
        self.begin_logs_in(manifest, Some(1))
    }

    /// Makes the logs of the next generation and names them in the manifest.
    ///
    /// # Errors
    /// The system refused; the present logs stay in use.
    pub fn begin_logs(&mut self) -> Result<Vec<LogFile>, Error> {
        self.begin_logs_in(self.manifest.clone(), None)
    }

    fn begin_logs_in(
        &mut self,
        mut manifest: Manifest,
        first_sequence: Option<u64>,
    ) -> Result<Vec<LogFile>, Error> {
        let files = self.make_logs(&mut manifest, first_sequence)?;
        manifest.write(&*self.disk)?;
        self.manifest = manifest;
        Ok(files)
    }

    /// Makes the logs of a run of their own, which the manifest does not name before
    /// [`Directory::publish`]: until then everything is as it was, and from then on only the
    /// snapshot published counts.
    ///
    /// # Errors
    /// The system refused; the directory is as it was.
    pub fn start_over(&mut self, shards: usize) -> Result<Vec<LogFile>, Error> {
        let mut manifest = self.manifest.clone();
        manifest.damaged_through = manifest.generation;
        manifest.snapshot = None;
        manifest.runs = vec![RunEntry { shards, logs: Vec::new() }];
        manifest.token_ceiling += TOKENS_GRANTED;
        let files = self.make_logs(&mut manifest, Some(1))?;
        self.keep_manifest()?;
        self.manifest = manifest;
        Ok(files)
    }

    /// Copies the manifest to another name.
    fn keep_manifest(&self) -> Result<(), Error> {
        let copied = (|| {
            let file = match self.disk.open(MANIFEST_NAME) {
                Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
                other => other?,
            };
            let mut bytes = vec![0; file.len()? as usize];
            let count = file.read_at(&mut bytes, 0)?;
            let copy = self.disk.create(&self.name_aside(MANIFEST_NAME)?, Growth::AsWritten)?;
            append_all(&*copy, &bytes[..count])?;
            copy.sync()
        })();
        copied.map_err(|why| Error::io(MANIFEST_NAME, "cannot be copied", why))
    }

    /// A name under which nothing is there yet.
    fn name_aside(&self, name: &str) -> io::Result<String> {
        let taken = self.disk.list()?;
        let plain = format!("{name}{DAMAGED_SUFFIX}");
        let numbered = (2..).map(|number: u64| format!("{plain}.{number}"));
        let mut names = std::iter::once(plain.clone()).chain(numbered);
        names.find(|name| !taken.contains(name)).ok_or(io::ErrorKind::AlreadyExists.into())
    }

    fn make_logs(
        &mut self,
        manifest: &mut Manifest,
        first_sequence: Option<u64>,
    ) -> Result<Vec<LogFile>, Error> {
        manifest.generation += 1;
        // The number is used up even if this fails: a half-made file is never taken for another.
        self.manifest.generation = manifest.generation;
        let shards = manifest.runs.last().map_or(0, |run| run.shards);
        let made: Result<Vec<_>, _> =
            (0..shards).map(|shard| self.create_log(manifest, shard)).collect();
        let made = made.and_then(|files| self.sync_directory().map(|()| files));
        if made.is_err() {
            self.remove_made(log_name, manifest.generation, shards);
        }
        let files = made?;
        let entries = files.iter().map(|file| LogEntry {
            file_id: file.header.file_id,
            first_sequence,
            end: None,
        });
        let set = LogSet { generation: manifest.generation, files: entries.collect() };
        if let Some(run) = manifest.runs.last_mut() {
            run.logs.push(set);
        }
        Ok(files)
    }

    /// Makes a log of an earlier run durable: it may have been read from the kernel's memory, and
    /// the manifest is about to say how far it was recovered. Were the power cut then, less of it
    /// would look like damage.
    fn sync_log(&self, name: &str) -> Result<(), Error> {
        let synced = self.disk.open(name).and_then(|file| file.sync());
        synced.map_err(|why| Error::io(name, "cannot be synced", why))
    }

    fn create_log(&mut self, manifest: &Manifest, shard: usize) -> Result<LogFile, Error> {
        let name = log_name(manifest.generation, shard);
        let cannot = |why| Error::io(name.clone(), "cannot be made", why);
        let header = FileHeader {
            kind: FileKind::Log,
            directory_id: manifest.directory_id,
            file_id: (self.random)().map_err(cannot)?,
            generation: manifest.generation,
            shard: shard as u32,
        };
        let file = self.disk.create(&name, self.log_growth).map_err(cannot)?;
        append_all(&*file, &header.pack()).map_err(cannot)?;
        file.sync().map_err(cannot)?;
        Ok(LogFile { name, header, file })
    }

    fn sync_directory(&self) -> Result<(), Error> {
        let synced = self.disk.sync_directory();
        synced.map_err(|why| Error::io("the data directory", "cannot be synced", why))
    }

    /// Makes the snapshot file of a shard, in the newest generation.
    ///
    /// # Errors
    /// The system refused.
    pub fn begin_snapshot(&mut self, shard: usize, start: Start) -> Result<SnapshotFile, Error> {
        let generation = self.manifest.generation;
        let name = snapshot_name(generation, shard);
        let cannot = |why| Error::io(name.clone(), "cannot be made", why);
        let header = FileHeader {
            kind: FileKind::Snapshot,
            directory_id: self.manifest.directory_id,
            file_id: (self.random)().map_err(cannot)?,
            generation,
            shard: shard as u32,
        };
        let file = self.disk.create(&name, Growth::AsWritten).map_err(cannot)?;
        let writer = SnapshotWriter::begin(file, &header, start).map_err(cannot)?;
        Ok(SnapshotFile { writer, name, file_id: header.file_id })
    }

    /// Makes a snapshot of the newest generation current. Its logs must be on the device up to
    /// what the snapshot shows. `first_sequences` are those of the logs. What is older is removed
    /// then.
    ///
    /// # Errors
    /// The manifest could not be replaced, or it is not known whether it was: all files stay.
    pub fn publish(
        &mut self,
        taken_at_seconds: u64,
        files: &[FinishedFile],
        first_sequences: &[u64],
    ) -> Result<(), Error> {
        self.sync_directory()?;
        self.published = self.manifest.generation;
        let mut manifest = self.manifest.clone();
        let generation = manifest.generation;
        let entries = files.iter().map(|file| SnapshotFileEntry {
            file_id: file.file_id,
            bytes: file.finished.bytes,
            items: file.finished.items,
        });
        let files = entries.collect();
        manifest.snapshot = Some(SnapshotEntry { generation, taken_at_seconds, files });
        let mut run = manifest.runs.pop();
        if let Some(run) = &mut run {
            run.logs.retain(|set| set.generation == generation);
            for set in &mut run.logs {
                for (file, sequence) in set.files.iter_mut().zip(first_sequences) {
                    file.first_sequence = Some(*sequence);
                }
            }
        }
        manifest.runs = run.into_iter().collect();
        manifest.write(&*self.disk)?;
        self.manifest = manifest;
        self.remove_unnamed();
        Ok(())
    }

    /// Removes the files of a snapshot that came to nothing, unless the manifest may name them.
    pub fn abandon_snapshot(&mut self) {
        let generation = self.manifest.generation;
        if self.published == generation {
            return;
        }
        let shards = self.manifest.runs.last().map_or(0, |run| run.shards);
        self.remove_made(snapshot_name, generation, shards);
    }

    /// Removes what there is of a set of files that no manifest names.
    fn remove_made(&self, name: fn(u64, usize) -> String, generation: u64, shards: usize) {
        for shard in 0..shards {
            // It may never have been made; and what stays is removed at the next start.
            let _ = self.disk.remove(&name(generation, shard));
        }
    }

    /// Grants more tokens, if those granted may soon be used up.
    ///
    /// # Errors
    /// The manifest could not be replaced.
    pub fn grant_tokens(&mut self, sequence_now: u64) -> Result<(), Error> {
        if sequence_now + TOKENS_GRANTED / 2 < self.manifest.token_ceiling {
            return Ok(());
        }
        let mut manifest = self.manifest.clone();
        manifest.token_ceiling = sequence_now + TOKENS_GRANTED;
        manifest.write(&*self.disk)?;
        self.manifest = manifest;
        Ok(())
    }

    /// Removes logs and snapshots that the manifest does not name: older ones, and those of steps
    /// that a crash cut short. Those that were damaged only get another name.
    pub fn remove_unnamed(&self) {
        let named = self.manifest.names();
        let listed = self.disk.list().unwrap_or_default();
        for name in listed.iter().filter(|name| !named.contains(name)) {
            let Some(generation) = generation_of(name) else { continue };
            let gone = if generation <= self.manifest.damaged_through {
                self.name_aside(name).and_then(|aside| self.disk.rename(name, &aside))
            } else {
                self.disk.remove(name)
            };
            if let Err(why) = gone {
                log::warn!("{name}: no longer needed, but cannot be removed: {why}");
            }
        }
    }
}
