//! Files to stores: what happens at the start.
//!
//! The shards of a run are recovered side by side, each in the shape in which it was written: the
//! manifest keeps the secret of the key hash and the number of shards. Where the next run wants
//! another number of shards, the stores are reshaped in between. Every start begins new logs; the
//! old ones stay until a snapshot has replaced them.
//!
//! Owns the order of these steps. Reading logs is `chain`'s, files and manifest are `directory`'s.

use super::chain::{Assembly, Chain, read_chain};
use super::change::{Change, Finish, Start, kind, visit_items};
use super::directory::{Directory, FinishedFile, Random};
use super::disk::{Disk, Growth};
use super::log::LogFile;
use super::manifest::{
    LogEnd, LogEntry, MANIFEST_NAME, Manifest, RunEntry, SnapshotEntry, generation_of,
    snapshot_name,
};
use super::record::{
    CONTINUES, FILE_HEADER_BYTES, FileHeader, FileKind, RECORD_KIND_AT, Reader, Step, record_bytes,
};
use super::{Error, Recover};
use crate::store::budget::Budget;
use crate::store::hash::{KeyHasher, shard_of};
use crate::store::{Attributes, Settings, Store, Stored, Ticks, TokenRule};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Progress is logged so many times, if there are many bytes.
const PROGRESS_STEPS: u64 = 10;
const PROGRESS_BYTES_MIN: u64 = 256 << 20;

/// How to recover.
#[derive(Clone)]
pub struct Request {
    /// Shards wanted.
    pub shards: usize,
    /// Threads to use.
    pub threads: usize,
    /// Memory of all stores together.
    pub memory_bytes_max: u64,
    /// Evict to make room.
    pub evict: bool,
    /// What to do about damage.
    pub mode: Recover,
    /// How the new run's logs grow.
    pub log_growth: Growth,
    /// The present time.
    pub now: Ticks,
}

/// What was recovered, of one shard.
pub struct RecoveredShard {
    /// Its items.
    pub store: Store,
    /// When everything in it is to go.
    pub flush_at: Option<Ticks>,
}

/// What the recovery did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Items read from the snapshot.
    pub snapshot_items: u64,
    /// Changes read from logs.
    pub log_changes: u64,
    /// Items for which there was no memory.
    pub dropped_items: u64,
    /// Bytes of incomplete last records, cut off.
    pub cut_bytes: u64,
    /// Damage that was gone around (`--recover salvage`).
    pub damages: Vec<String>,
}

/// A directory ready for a new run.
pub struct Recovered {
    /// The directory.
    pub directory: Directory,
    /// One for each shard wanted.
    pub shards: Vec<RecoveredShard>,
    /// The new run's logs.
    pub logs: Vec<LogFile>,
    /// The hash that spreads keys over shards.
    pub hasher: KeyHasher,
    /// What was done.
    pub report: Report,
    /// A snapshot soon would make the next start quicker.
    pub wants_snapshot: bool,
}

/// Recovers a directory and begins a new run in it.
///
/// # Errors
/// Files are damaged or missing (and the request is strict), of a newer version, or the system
/// refused.
pub fn open(disk: Arc<dyn Disk>, request: &Request, random: Random) -> Result<Recovered, Error> {
    let mut random = random;
    let (manifest, damage) = match read_manifest(&*disk) {
        Ok(Some(manifest)) if request.mode != Recover::Discard => (manifest, None),
        Ok(_) => (fresh_manifest(&*disk, &mut random)?, None),
        Err(why) if request.mode == Recover::Discard && why.is_damage() => {
            (fresh_manifest(&*disk, &mut random)?, None)
        }
        Err(why) => rebuild_if_salvaging(&*disk, request, &mut random, why)?,
    };
    let hasher = KeyHasher::new(manifest.hash_secret);
    let mut recovery = Recovery::new(&*disk, request, &manifest, hasher.clone());
    recovery.note_rebuilt(damage);
    let (shards, ends) = recovery.run(&manifest)?;
    let report = recovery.report;
    for what in &report.damages {
        log::warn!("salvage: {what}");
    }
    let had_data = manifest.snapshot.is_some() || !manifest.runs.is_empty();
    let wants_snapshot = report.log_changes > 0;
    let start_over = request.mode == Recover::Discard || !report.damages.is_empty();
    let mut directory = Directory::new(disk, manifest, random);
    directory.set_log_growth(request.log_growth);
    let logs = if start_over {
        start_over_with(&mut directory, &shards, request)?
    } else {
        directory.begin_run(request.shards, &ends)?
    };
    if !start_over {
        directory.remove_unnamed();
    }
    let wants_snapshot = wants_snapshot && had_data && !start_over;
    Ok(Recovered { directory, shards, logs, hasher, report, wants_snapshot })
}

/// What is in a directory, without a new run.
pub struct Contents {
    /// One for each shard wanted.
    pub shards: Vec<RecoveredShard>,
    /// What was done.
    pub report: Report,
}

/// Reads what [`open`] would, and changes nothing: for tools.
///
/// # Errors
/// As [`open`].
pub fn read_only(
    disk: &dyn Disk,
    request: &Request,
    mut random: Random,
) -> Result<Contents, Error> {
    let (manifest, damage) = match read_manifest(disk) {
        Ok(Some(manifest)) => (manifest, None),
        Ok(None) => return Ok(Contents { shards: Vec::new(), report: Report::default() }),
        Err(why) => rebuild_if_salvaging(disk, request, &mut random, why)?,
    };
    let hasher = KeyHasher::new(manifest.hash_secret);
    let mut recovery = Recovery::new(disk, request, &manifest, hasher);
    recovery.note_rebuilt(damage);
    let (shards, _) = recovery.run(&manifest)?;
    Ok(Contents { shards, report: recovery.report })
}

/// Another manifest for one that is lost or damaged, if that is wanted.
fn rebuild_if_salvaging(
    disk: &dyn Disk,
    request: &Request,
    random: &mut Random,
    why: Error,
) -> Result<(Manifest, Option<Error>), Error> {
    if request.mode == Recover::Salvage && why.is_damage() {
        return Ok((rebuild_manifest(disk, random)?, Some(why)));
    }
    Err(why)
}

/// The manifest, or none if the directory holds no data.
pub(super) fn read_manifest(disk: &dyn Disk) -> Result<Option<Manifest>, Error> {
    let read = Manifest::read(disk)?;
    if read.is_some() {
        return Ok(read);
    }
    // A first start that was cut short leaves logs without records.
    for name in data_names(disk)? {
        let file = disk.open(&name).map_err(|why| Error::io(&name, "cannot be opened", why))?;
        let reader = Reader::after_header(&name, file, 0)?;
        let left = reader.bytes_left_before_zeros();
        if left.map_err(|why| Error::io(&name, "cannot be read", why))? > 0 {
            let what = format!("missing, but {name} holds data");
            return Err(Error::damaged(MANIFEST_NAME, 0, what));
        }
    }
    Ok(None)
}

pub(super) fn data_names(disk: &dyn Disk) -> Result<Vec<String>, Error> {
    let listed =
        disk.list().map_err(|why| Error::io("the data directory", "cannot be read", why))?;
    Ok(listed.into_iter().filter(|name| generation_of(name).is_some()).collect())
}

/// A manifest without data, whose generations are above those of files that are there.
fn fresh_manifest(disk: &dyn Disk, random: &mut Random) -> Result<Manifest, Error> {
    let newest = data_names(disk)?.iter().filter_map(|name| generation_of(name)).max();
    let mut word = || random().map_err(|why| Error::io("random numbers", "not to be had", why));
    Ok(Manifest {
        directory_id: word()?,
        generation: newest.unwrap_or(0),
        hash_secret: [word()?, word()?],
        // Random, so that tokens of a directory that was discarded are not repeated either.
        token_ceiling: word()? >> (u64::BITS - TOKEN_START_BITS),
        damaged_through: 0,
        snapshot: None,
        runs: Vec::new(),
    })
}

/// Few enough that tokens stay below 2^53 for clients that read them as floating point.
const TOKEN_START_BITS: u32 = 20;

/// The best manifest for a directory whose own is lost: the newest snapshot that has all its
/// shards, and the logs from its generation on.
fn rebuild_manifest(disk: &dyn Disk, random: &mut Random) -> Result<Manifest, Error> {
    let mut manifest = fresh_manifest(disk, random)?;
    // Tokens of the lost manifest are not known: far above any.
    manifest.token_ceiling += 1 << (TOKEN_START_BITS + 4);
    let found = files_found(disk)?;
    let of = |kind, generation| {
        found
            .iter()
            .filter(move |found| found.header.kind == kind && found.header.generation == generation)
    };
    let has_all_shards = |generation: &u64| {
        let logs = of(FileKind::Log, *generation).count();
        logs > 0 && of(FileKind::Snapshot, *generation).count() == logs
    };
    let is_finished =
        |generation: &u64| of(FileKind::Snapshot, *generation).all(|found| found.is_finished);
    let mut generations: Vec<u64> = found.iter().map(|found| found.header.generation).collect();
    generations.dedup();
    let complete: Vec<u64> = generations.iter().rev().copied().filter(has_all_shards).collect();
    // One that was being written when the process ended is a last resort.
    let base = complete.iter().copied().find(is_finished).or(complete.first().copied());
    manifest.directory_id = found.last().map_or(0, |found| found.header.directory_id);
    manifest.snapshot = base.map(|generation| SnapshotEntry {
        generation,
        taken_at_seconds: 0,
        files: of(FileKind::Snapshot, generation)
            .map(|found| super::manifest::SnapshotFileEntry {
                file_id: found.header.file_id,
                bytes: found.bytes,
                items: u64::MAX,
            })
            .collect(),
    });
    for generation in generations.into_iter().filter(|generation| *generation >= base.unwrap_or(0))
    {
        let files: Vec<LogEntry> = of(FileKind::Log, generation)
            .map(|found| LogEntry {
                file_id: found.header.file_id,
                first_sequence: None,
                end: None,
            })
            .collect();
        // Where one run ends and the next begins is not known; each log stands for itself.
        if !files.is_empty() {
            let set = super::manifest::LogSet { generation, files };
            manifest.runs.push(RunEntry { shards: set.files.len(), logs: vec![set] });
        }
    }
    Ok(manifest)
}

/// A log or snapshot as its own header tells it.
struct FoundFile {
    header: FileHeader,
    bytes: u64,
    /// It ends as a snapshot that was written to its end.
    is_finished: bool,
}

/// The files with a valid header, by generation and shard.
fn files_found(disk: &dyn Disk) -> Result<Vec<FoundFile>, Error> {
    let mut found = Vec::new();
    for name in data_names(disk)? {
        let Ok(file) = disk.open(&name) else { continue };
        if let Ok(header) = super::record::read_header(&name, &*file) {
            let bytes = file.len().unwrap_or(0);
            let mut last = [0; record_bytes(Finish::BYTES)];
            let at = bytes.saturating_sub(last.len() as u64);
            let is_finished = file.read_at(&mut last, at).is_ok()
                && bytes > FILE_HEADER_BYTES as u64
                && last[RECORD_KIND_AT] == kind::FINISH;
            found.push(FoundFile { header, bytes, is_finished });
        }
    }
    found.sort_by_key(|found| (found.header.generation, found.header.shard));
    Ok(found)
}

/// A directory that holds just what is in the stores. What was there is kept under other names:
/// the files are given them once the new manifest is in force, and by a later start if this one is
/// cut short.
fn start_over_with(
    directory: &mut Directory,
    shards: &[RecoveredShard],
    request: &Request,
) -> Result<Vec<LogFile>, Error> {
    let logs = directory.start_over(shards.len())?;
    let mut finished: Vec<FinishedFile> = Vec::new();
    for (number, shard) in shards.iter().enumerate() {
        let start = Start { taken_at: request.now, flush_at: shard.flush_at };
        let mut file = directory.begin_snapshot(number, start)?;
        let mut failed = None;
        let mut part = 0;
        let mut add = |item: crate::store::SharedItem, popularity| {
            if failed.is_none() {
                failed = file.writer.add(&item, popularity).err();
            }
        };
        while shard.store.share_part(part, &mut add) {
            part += 1;
        }
        if let Some(why) = failed {
            return Err(Error::io(file.name, "cannot be written", why));
        }
        finished.push(file.finish()?);
    }
    let first_sequences = vec![1; shards.len()];
    directory.publish(request.now.seconds(), &finished, &first_sequences)?;
    Ok(logs)
}

/// Stores and delayed flushes, and how far each log of each run counts: by run, by generation, by
/// shard.
type Rebuilt = (Vec<RecoveredShard>, Vec<Vec<Vec<LogEnd>>>);

struct Recovery<'a> {
    disk: &'a dyn Disk,
    request: &'a Request,
    directory_id: u64,
    sequence_start: u64,
    hasher: KeyHasher,
    report: Report,
    progress: Progress,
    /// The secret of the key hash is another one than the files were written with.
    respread: bool,
}

/// What one shard's files gave.
#[derive(Default)]
struct Outcome {
    items: u64,
    changes: u64,
    dropped: u64,
    cut_bytes: u64,
    ends: Vec<LogEnd>,
    error: Option<Error>,
}

impl<'a> Recovery<'a> {
    fn new(
        disk: &'a dyn Disk,
        request: &'a Request,
        manifest: &Manifest,
        hasher: KeyHasher,
    ) -> Self {
        Self {
            disk,
            request,
            directory_id: manifest.directory_id,
            sequence_start: manifest.token_ceiling,
            hasher,
            report: Report::default(),
            progress: Progress::new(disk, manifest),
            respread: false,
        }
    }

    /// Notes that the manifest is not the one that the files were written under.
    fn note_rebuilt(&mut self, damage: Option<Error>) {
        self.respread = damage.is_some();
        self.report.damages.extend(damage.map(|why| why.to_string()));
    }

    fn run(&mut self, manifest: &Manifest) -> Result<Rebuilt, Error> {
        let mut shards: Vec<RecoveredShard> = Vec::new();
        if let Some(snapshot) = &manifest.snapshot {
            shards = self.empty_shards(snapshot.files.len());
            let outcomes = self.side_by_side(&mut shards, |this, number, shard| {
                this.load_snapshot(number, shard, snapshot)
            });
            self.count(outcomes)?;
        }
        let mut ends = Vec::new();
        for run in &manifest.runs {
            if shards.len() != run.shards {
                shards = self.spread(shards, run.shards);
            }
            let mut outcomes = self
                .side_by_side(&mut shards, |this, number, shard| this.replay(number, shard, run));
            ends.push(ends_by_set(run, &mut outcomes));
            self.count(outcomes)?;
            // All in such a shard was stored before: it would have been flushed else. The next run
            // may mix its items with those of shards that were flushed in time.
            let is_due = |shard: &&mut RecoveredShard| {
                shard.flush_at.is_some_and(|at| at <= self.request.now)
            };
            for shard in shards.iter_mut().filter(is_due) {
                shard.store.flush();
                shard.flush_at = None;
            }
        }
        let count = self.request.shards;
        let keep = shards.len() == count && !self.respread;
        Ok((if keep { shards } else { self.spread(shards, count) }, ends))
    }

    fn empty_shards(&self, count: usize) -> Vec<RecoveredShard> {
        let settings = Settings {
            budget: Budget::new(self.request.memory_bytes_max, count),
            evict: self.request.evict,
            hasher: self.hasher.clone(),
            sequence_start: self.sequence_start,
        };
        let shard = || RecoveredShard { store: Store::new(settings.clone()), flush_at: None };
        (0..count).map(|_| shard()).collect()
    }

    /// Spreads the items over another number of shards.
    fn spread(&mut self, shards: Vec<RecoveredShard>, count: usize) -> Vec<RecoveredShard> {
        let mut reshaped = self.empty_shards(count);
        let flush_at = shards.iter().filter_map(|shard| shard.flush_at).min();
        for shard in &mut reshaped {
            shard.flush_at = flush_at;
        }
        let now = self.request.now;
        let mut dropped = 0;
        for shard in shards {
            shard.store.into_items(now, |stored, popularity| {
                let hash = self.hasher.hash(stored.key);
                let store = &mut reshaped[shard_of(hash, count)].store;
                dropped += u64::from(store.restore(hash, stored, Some(popularity), now).is_err());
            });
        }
        self.report.dropped_items += dropped;
        reshaped
    }

    /// Does something for every shard, on as many threads as were asked for.
    fn side_by_side(
        &self,
        shards: &mut [RecoveredShard],
        work: impl Fn(&Self, usize, &mut RecoveredShard) -> Outcome + Sync,
    ) -> Vec<Outcome> {
        let threads = self.request.threads.clamp(1, shards.len().max(1));
        let next = AtomicUsize::new(0);
        let places: Vec<_> = shards
            .iter_mut()
            .map(|shard| std::sync::Mutex::new((shard, Outcome::default())))
            .collect();
        let run = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(place) = places.get(number) else { return };
                let mut place = place.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                let (shard, outcome) = &mut *place;
                *outcome = work(self, number, shard);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(run);
            }
            run();
        });
        let places = places.into_iter();
        places.map(|place| place.into_inner().unwrap_or_else(|e| e.into_inner()).1).collect()
    }

    fn count(&mut self, outcomes: Vec<Outcome>) -> Result<(), Error> {
        for outcome in outcomes {
            self.report.snapshot_items += outcome.items;
            self.report.log_changes += outcome.changes;
            self.report.dropped_items += outcome.dropped;
            self.report.cut_bytes += outcome.cut_bytes;
            match outcome.error {
                None => {}
                Some(why) if self.request.mode == Recover::Salvage && why.is_damage() => {
                    self.report.damages.push(why.to_string());
                }
                Some(why) => return Err(why),
            }
        }
        Ok(())
    }

    fn load_snapshot(
        &self,
        number: usize,
        shard: &mut RecoveredShard,
        snapshot: &SnapshotEntry,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let name = snapshot_name(snapshot.generation, number);
        let entry = &snapshot.files[number];
        let header = FileHeader {
            kind: FileKind::Snapshot,
            directory_id: self.directory_id,
            file_id: entry.file_id,
            generation: snapshot.generation,
            shard: number as u32,
        };
        let opened = self.disk.open(&name).map_err(|why| Error::io(&name, "cannot be opened", why));
        let reader = opened.and_then(|file| Reader::open(&name, file, &header));
        let mut reader = match reader {
            Ok(reader) => reader,
            Err(why) => {
                outcome.error = Some(why);
                return outcome;
            }
        };
        let now = self.request.now;
        let mut restore = |stored: Stored<'_>, popularity: u8| {
            outcome.items += 1;
            let deadline = stored.header.attributes.deadline;
            if deadline.is_none_or(|deadline| deadline > now) {
                let hash = self.hasher.hash(stored.key);
                let restored = shard.store.restore(hash, stored, Some(popularity), now);
                outcome.dropped += u64::from(restored.is_err());
            }
        };
        let salvage = self.request.mode == Recover::Salvage;
        let read = read_snapshot(&name, &mut reader, salvage, &mut restore, |bytes| {
            self.progress.add(bytes);
        });
        match read {
            Ok((start, items, damage)) => {
                shard.flush_at = start.and_then(|start| start.flush_at);
                outcome.error = damage;
                if outcome.error.is_none() && items != entry.items && entry.items != u64::MAX {
                    let what = "not the number of items that the manifest names";
                    outcome.error = Some(Error::damaged(name, 0, what));
                }
            }
            Err(why) => outcome.error = Some(why),
        }
        outcome
    }

    fn replay(&self, number: usize, shard: &mut RecoveredShard, run: &RunEntry) -> Outcome {
        let logs: Vec<(u64, LogEntry)> = run
            .logs
            .iter()
            .filter_map(|set| Some((set.generation, set.files.get(number)?.clone())))
            .collect();
        let mut chain = Chain::default();
        let mut dropped = 0;
        let (now, hasher) = (self.request.now, &self.hasher);
        let mut apply = |change: Change<'_>| dropped += apply(shard, hasher, change, now);
        let read = read_chain(self.disk, self.directory_id, number, &logs, &mut chain, &mut apply);
        self.progress.add(chain.bytes);
        let Chain { changes, cut_bytes, ends, .. } = chain;
        if cut_bytes > 0 {
            log::warn!(
                "shard {number}: {cut_bytes} bytes of an incomplete last write were cut off"
            );
        }
        Outcome { changes, dropped, cut_bytes, ends, error: read.err(), ..Outcome::default() }
    }
}

/// Ends by generation and shard, from those by shard and generation.
fn ends_by_set(run: &RunEntry, outcomes: &mut [Outcome]) -> Vec<Vec<LogEnd>> {
    let of_set =
        |set: usize| outcomes.iter().filter_map(|outcome| outcome.ends.get(set).copied()).collect();
    (0..run.logs.len()).map(of_set).collect()
}

/// Does to a shard what a change says. Returns how many items were dropped for want of memory.
pub fn apply(
    shard: &mut RecoveredShard,
    hasher: &KeyHasher,
    change: Change<'_>,
    now: Ticks,
) -> u64 {
    let store = &mut shard.store;
    let is_over = |deadline: Option<Ticks>| deadline.is_some_and(|deadline| deadline <= now);
    match change {
        Change::Put(stored) if !is_over(stored.header.attributes.deadline) => {
            let hash = hasher.hash(stored.key);
            return u64::from(store.restore(hash, stored, None, now).is_err());
        }
        Change::Attributes(key, attributes) if !is_over(attributes.deadline) => {
            let hash = hasher.hash(key);
            if let Ok(handle) = store.find(hash, key, now) {
                // Tokens of earlier runs match nothing.
                let attributes = Attributes { cas: None, ..attributes };
                let changed = store.rewrite(hash, handle, attributes, TokenRule::Keep, now);
                if changed.is_err() {
                    store.remove(handle);
                    return 1;
                }
            }
        }
        Change::Put(Stored { key, .. }) | Change::Attributes(key, _) | Change::Delete(key) => {
            if let Ok(handle) = store.find(hasher.hash(key), key, now) {
                store.remove(handle);
            }
        }
        Change::Flush => {
            store.flush();
            shard.flush_at = None;
        }
        Change::FlushAt(at) => shard.flush_at = Some(at),
    }
    0
}

/// Reads a snapshot: what it begins with, its items, and damage that was gone around.
///
/// # Errors
/// The file cannot be read, or is damaged (and `salvage` is false).
pub fn read_snapshot(
    name: &str,
    reader: &mut Reader,
    salvage: bool,
    restore: &mut dyn FnMut(Stored<'_>, u8),
    progress: impl Fn(u64),
) -> Result<(Option<Start>, u64, Option<Error>), Error> {
    let mut start = None;
    let mut damage = None;
    let mut items = 0;
    let mut assembly = Assembly::default();
    loop {
        let (at, sequence) = (reader.offset(), reader.sequence());
        let step = reader.step().map_err(|why| Error::io(name, "cannot be read", why))?;
        let understood = match step {
            Step::Record(record) => {
                progress(record.body.len() as u64);
                let mut restore = |stored: Stored<'_>, popularity| {
                    items += 1;
                    restore(stored, popularity);
                };
                match record.kind & !CONTINUES {
                    kind::START => Start::unpack(record.body).map(|it| start = Some(it)),
                    kind::ITEMS => visit_items(record.body, &mut restore),
                    kind::LARGE_ITEM => {
                        match assembly.add(record.kind, record.body, at, sequence) {
                            Ok(true) => visit_items(&assembly.take(), &mut restore),
                            Ok(false) => Ok(()),
                            Err(why) => Err(why),
                        }
                    }
                    kind::FINISH => match Finish::unpack(record.body) {
                        Ok(finish) if finish.items == items || damage.is_some() => {
                            return Ok((start, items, damage));
                        }
                        Ok(_) => Err(super::Damage::new("items are missing")),
                        Err(why) => Err(why),
                    },
                    _ => Err(super::Damage::new("a record of no known kind")),
                }
            }
            Step::End => Err(super::Damage::new("the snapshot has lost its end")),
            Step::Bad => Err(super::Damage::new("a record is damaged")),
            Step::Misplaced => Err(super::Damage::new("a record is out of place")),
        };
        let Err(why) = understood else { continue };
        let why = Error::of(name, at, why);
        if !salvage {
            return Err(why);
        }
        damage.get_or_insert(why);
        assembly.take();
        // Behind a record that was valid but wrong the reader stands already.
        let moved = reader.offset() > at;
        if !moved && !reader.skip_damage().map_err(|why| Error::io(name, "cannot be read", why))? {
            return Ok((start, items, damage));
        }
    }
}

/// Logs how far the reading has come.
struct Progress {
    total_bytes: u64,
    done_bytes: AtomicU64,
}

impl Progress {
    fn new(disk: &dyn Disk, manifest: &Manifest) -> Self {
        let bytes_of = |name: &String| disk.open(name).and_then(|file| file.len()).unwrap_or(0);
        let total_bytes = manifest.names().iter().map(bytes_of).sum();
        Self { total_bytes, done_bytes: AtomicU64::new(0) }
    }

    fn add(&self, bytes: u64) {
        let before = self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
        if self.total_bytes < PROGRESS_BYTES_MIN {
            return;
        }
        let step = (self.total_bytes / PROGRESS_STEPS).max(1);
        if before / step != (before + bytes) / step {
            let (done, total) = ((before + bytes) >> 20, self.total_bytes >> 20);
            log::info!("recovery: {done} of {total} MiB read");
        }
    }
}
