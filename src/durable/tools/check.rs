//! Verifies every file of a directory: what is where, and each place that is damaged.
//!
//! The verdict is the recovery's own: a directory that is intact here starts under
//! `--recover=strict`, and one that is not does not. Behind the first damage, where a recovery
//! stops, the files are searched further, so that all of it is named.

use crate::durable::chain::{Chain, read_chain};
use crate::durable::directory::DAMAGED_SUFFIX;
use crate::durable::disk::{Disk, LOCK_NAME};
use crate::durable::manifest::{
    LogEntry, MANIFEST_NAME, Manifest, RunEntry, SnapshotEntry, log_name, snapshot_name,
};
use crate::durable::record::{FileHeader, FileKind, Reader, Step, read_header};
use crate::durable::recovery::{data_names, read_manifest, read_snapshot};
use crate::durable::{Error, ErrorKind};
use std::fmt::{self, Write};

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileState {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Valid records in it.
    pub records: u64,
    /// Items, of a snapshot.
    pub items: Option<u64>,
    /// Bytes of an incomplete last write, which the next start cuts off.
    pub cut_bytes: u64,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Checked {
    /// Which files make up the data. `None`: the directory holds none, or it is not known.
    pub manifest: Option<Manifest>,
    /// The files, in the order in which a recovery reads them.
    pub files: Vec<FileState>,
    /// Every damage.
    pub damages: Vec<Error>,
    /// Files that are not part of the data: left by a step that was cut short.
    pub unnamed: Vec<String>,
    /// Damaged files that were kept.
    pub aside: Vec<String>,
    /// Files of others.
    pub foreign: Vec<String>,
}

/// What a walk through the records of one file found.
#[derive(Default)]
struct Scan {
    bytes: u64,
    records: u64,
    /// Where something else than the next record stands.
    bad: Vec<u64>,
}

/// Verifies a directory.
///
/// # Errors
/// The names of its files cannot be read. What is wrong with files is in the answer.
pub fn check(disk: &dyn Disk) -> Result<Checked, Error> {
    let mut checked = Checked::default();
    match read_manifest(disk) {
        Ok(Some(manifest)) => {
            checked.check_snapshot(disk, &manifest);
            for run in &manifest.runs {
                checked.check_run(disk, manifest.directory_id, run);
            }
            checked.manifest = Some(manifest);
        }
        Ok(None) => {}
        Err(why) => {
            checked.damages.push(why);
            // Without a manifest each file stands for itself.
            let mut names = data_names(disk)?;
            names.sort();
            for name in names {
                checked.scan_file(disk, &name);
            }
        }
    }
    checked.sort_out(disk)?;
    Ok(checked)
}

impl Checked {
    /// What kind of trouble weighs most, if there is any.
    pub fn worst(&self) -> Option<ErrorKind> {
        let order = [ErrorKind::Io, ErrorKind::InUse, ErrorKind::Newer, ErrorKind::Damaged];
        order.into_iter().find(|kind| self.damages.iter().any(|damage| damage.kind == *kind))
    }

    /// Bytes that the next start cuts off.
    pub fn cut_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.cut_bytes).sum()
    }

    fn check_snapshot(&mut self, disk: &dyn Disk, manifest: &Manifest) {
        let Some(snapshot) = &manifest.snapshot else { return };
        for shard in 0..snapshot.files.len() {
            let name = snapshot_name(snapshot.generation, shard);
            let read = read_items(disk, &name, manifest.directory_id, snapshot, shard);
            let scan = scan(disk, &name).unwrap_or_default();
            let (items, damage) = match read {
                Ok((items, damage)) => (Some(items), damage),
                Err(why) => (None, Some(why)),
            };
            let state =
                FileState { name, bytes: scan.bytes, records: scan.records, items, cut_bytes: 0 };
            self.add_damage(damage, &state.name, &scan);
            self.files.push(state);
        }
    }

    fn check_run(&mut self, disk: &dyn Disk, directory_id: u64, run: &RunEntry) {
        for shard in 0..run.shards {
            let of_shard = |set: &crate::durable::manifest::LogSet| {
                Some((set.generation, set.files.get(shard)?.clone()))
            };
            let logs: Vec<(u64, LogEntry)> = run.logs.iter().filter_map(of_shard).collect();
            let mut chain = Chain::default();
            let read = read_chain(disk, directory_id, shard, &logs, &mut chain, &mut |_| ());
            let mut cut_bytes = chain.cut_bytes;
            let mut damage = read.err();
            for (number, (generation, _)) in logs.iter().enumerate() {
                let name = log_name(*generation, shard);
                let scan = scan(disk, &name).unwrap_or_default();
                let mut state = FileState {
                    name,
                    bytes: scan.bytes,
                    records: scan.records,
                    items: None,
                    cut_bytes: 0,
                };
                if chain.ends.get(number).is_some_and(|end| end.bytes < scan.bytes) {
                    // The bytes cut off are a stretch at the end of one file, and all behind it.
                    state.cut_bytes = cut_bytes.min(scan.bytes - chain.ends[number].bytes);
                    cut_bytes -= state.cut_bytes;
                }
                if number >= chain.ends.len() {
                    let here = damage.take_if(|damage| damage.file == state.name);
                    self.add_damage(here, &state.name, &scan);
                }
                self.files.push(state);
            }
            // About a file that is not there, or not in the list.
            self.damages.extend(damage);
        }
    }

    fn scan_file(&mut self, disk: &dyn Disk, name: &str) {
        match scan(disk, name) {
            Err(why) => self.damages.push(why),
            Ok(scan) => {
                self.add_damage(None, name, &scan);
                let (bytes, records) = (scan.bytes, scan.records);
                let name = name.to_owned();
                self.files.push(FileState { name, bytes, records, items: None, cut_bytes: 0 });
            }
        }
    }

    /// Notes the first damage of a file, and further places in it.
    fn add_damage(&mut self, first: Option<Error>, name: &str, scan: &Scan) {
        let known = first.as_ref().and_then(|why| why.offset);
        let further = scan.bad.iter().filter(|at| Some(**at) != known);
        let further = further.map(|at| Error::damaged(name, *at, "no valid record, or misplaced"));
        let is_damaged = first.is_some();
        self.damages.extend(first);
        // A file that the recovery takes may end in a torn write: that is no damage.
        if is_damaged || self.manifest_is_lost() {
            self.damages.extend(further);
        }
    }

    fn manifest_is_lost(&self) -> bool {
        self.damages.first().is_some_and(|damage| damage.file == MANIFEST_NAME)
    }

    /// Says of every file in the directory what it is.
    fn sort_out(&mut self, disk: &dyn Disk) -> Result<(), Error> {
        let listed = disk.list();
        let mut listed = listed.map_err(|why| Error::io("the directory", "cannot be read", why))?;
        listed.sort();
        let data = data_names(disk)?;
        let named = self.manifest.as_ref().map(Manifest::names).unwrap_or_default();
        for name in listed {
            if named.contains(&name) || self.files.iter().any(|file| file.name == name) {
                continue;
            }
            let is_ours = name == LOCK_NAME || name.starts_with(MANIFEST_NAME);
            if name.contains(DAMAGED_SUFFIX) {
                self.aside.push(name);
            } else if data.contains(&name) {
                self.unnamed.push(name);
            } else if !is_ours {
                self.foreign.push(name);
            }
        }
        Ok(())
    }
}

/// How many items a snapshot file holds, and damage that was gone around.
fn read_items(
    disk: &dyn Disk,
    name: &str,
    directory_id: u64,
    snapshot: &SnapshotEntry,
    shard: usize,
) -> Result<(u64, Option<Error>), Error> {
    let entry = &snapshot.files[shard];
    let header = FileHeader {
        kind: FileKind::Snapshot,
        directory_id,
        file_id: entry.file_id,
        generation: snapshot.generation,
        shard: shard as u32,
    };
    let file = disk.open(name).map_err(|why| Error::io(name, "cannot be opened", why))?;
    let mut reader = Reader::open(name, file, &header)?;
    let (_, items, damage) = read_snapshot(name, &mut reader, true, &mut |_, _| (), |_| ())?;
    if damage.is_none() && items != entry.items {
        let what = "not the number of items that the manifest names";
        return Ok((items, Some(Error::damaged(name, 0, what))));
    }
    Ok((items, damage))
}

/// Walks through a file, around damage.
fn scan(disk: &dyn Disk, name: &str) -> Result<Scan, Error> {
    let cannot = |why| Error::io(name, "cannot be read", why);
    let file = disk.open(name).map_err(|why| Error::io(name, "cannot be opened", why))?;
    let bytes = file.len().map_err(cannot)?;
    let mut found = Scan { bytes, ..Scan::default() };
    let header = read_header(name, &*file)?;
    let mut reader = Reader::after_header(name, file, header.file_id)?;
    // Where the numbers of a log begin is known to the manifest and the log before it.
    let mut goes_on = reader.skip_damage_from_here().map_err(cannot)?;
    let mut at = crate::durable::record::FILE_HEADER_BYTES as u64;
    if reader.offset() != at {
        found.bad.push(at);
    }
    while goes_on {
        at = reader.offset();
        match reader.step().map_err(cannot)? {
            Step::Record(_) => found.records += 1,
            Step::End => return Ok(found),
            Step::Bad | Step::Misplaced => {
                found.bad.push(at);
                goes_on = reader.skip_damage_from_here().map_err(cannot)?;
            }
        }
    }
    Ok(found)
}

impl fmt::Display for Checked {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(manifest) = &self.manifest {
            let shards = manifest.runs.last().map_or(0, |run| run.shards);
            let (generation, runs) = (manifest.generation, manifest.runs.len());
            let what = format!("generation {generation}, runs {runs}, shards {shards}");
            writeln!(out, "{MANIFEST_NAME:<24} {what}")?;
        } else if self.damages.is_empty() {
            writeln!(out, "no data")?;
        }
        for file in &self.files {
            let FileState { name, bytes, records, items, cut_bytes } = file;
            let mut line = format!("{name:<24} {bytes:>12} bytes {records:>10} records");
            if let Some(items) = items {
                write!(line, " {items:>10} items")?;
            }
            if *cut_bytes > 0 {
                let end = "of an incomplete last write, which the next start cuts off";
                write!(line, "; {cut_bytes} bytes {end}")?;
            }
            writeln!(out, "{line}")?;
        }
        for (names, what) in [
            (&self.unnamed, "not named by the manifest: the next start removes it"),
            (&self.aside, "damaged, kept by an earlier start or repair"),
            (&self.foreign, "none of ours"),
        ] {
            for name in names {
                writeln!(out, "{name:<24} {what}")?;
            }
        }
        for damage in &self.damages {
            writeln!(out, "DAMAGE {damage}")?;
        }
        let cut_bytes = self.cut_bytes();
        match (self.damages.len(), cut_bytes) {
            (0, 0) => writeln!(out, "intact"),
            (0, _) => writeln!(out, "intact, but for {cut_bytes} bytes to be cut off"),
            (1, _) => writeln!(out, "1 damage"),
            (count, _) => writeln!(out, "{count} damages"),
        }
    }
}
