//! A directory to stores, and the beginning of a new run: what happens at the start.
//!
//! ```text
//! look at the ends of all files -> a snapshot that looks whole, and the logs from there on
//! -> read them, build stores -> remove what is superseded -> a log for this run -> note it
//! ```
//!
//! If something in them is damaged, an older snapshot and the logs since may do: both are kept
//! until the newer one has been read once. Nothing is changed before everything has been read.
//!
//! Owns the order of these steps; judging files is `chain`'s, building stores `build`'s.

use super::build::{Blueprint, BuiltShard, EndOfBuild, Feeder, build, is_believed};
use super::chain::{End, Plan, Survey, Told, walk};
use super::change::{Begin, Begun, Start};
use super::directory::{self, Random, log_name, log_number, snapshot_name, snapshot_number};
use super::disk::{Disk, Growth};
use super::identity::{IDENTITY_NAMES, Identity};
use super::log::{Log, NextLog, TOKENS_GRANTED};
use super::reader::Windows;
use super::snapshot::{SnapshotFile, SnapshotWriter};
use super::{Error, ErrorKind, Recover};
use crate::store::Ticks;
use crate::store::hash::KeyHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Few enough that tokens stay below 2^53 for clients that read them as floating point.
const TOKEN_START_BITS: u32 = 20;

/// How to recover.
#[derive(Clone)]
pub struct Request {
    /// Shards of a directory that is new; one that is not keeps its number.
    pub shards: usize,
    /// Threads that build stores.
    pub threads: usize,
    /// Memory of all stores together.
    pub memory_bytes_max: u64,
    /// Evict to make room.
    pub evict: bool,
    /// Drop what is too much for the memory limit even if nothing is to be evicted.
    pub may_drop: bool,
    /// What to do about damage.
    pub mode: Recover,
    /// How logs grow.
    pub log_growth: Growth,
    /// The present time.
    pub now: Ticks,
    /// Set by somebody who wants it to end.
    pub stop: Arc<AtomicBool>,
    /// Hears of bytes read, and how many there are.
    pub progress: Arc<dyn Fn(u64, u64) + Send + Sync>,
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
    /// Bytes of an incomplete last write, cut off.
    pub cut_bytes: u64,
    /// Damage that was gone around with nothing lost, or with a loss if that was wanted.
    pub damages: Vec<String>,
    /// Bytes read.
    pub bytes: u64,
}

/// The snapshot that a recovery started from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// Its number.
    pub number: u64,
    /// When it was begun.
    pub taken_at: Ticks,
    /// Its size.
    pub bytes: u64,
    /// Items in it.
    pub items: u64,
}

/// What is in a directory.
pub struct Contents {
    /// What is the same for the life of it. `None`: there is no data.
    pub identity: Option<Identity>,
    /// One for each shard.
    pub shards: Vec<BuiltShard>,
    /// What was done.
    pub report: Report,
}

/// A directory ready for a new run.
pub struct Recovered {
    /// What is the same for the life of it.
    pub identity: Identity,
    /// One for each shard.
    pub shards: Vec<BuiltShard>,
    /// The new run's log, and why it cannot be written if that is so.
    pub log: Log,
    /// Why there is no log.
    pub log_failure: Option<Error>,
    /// The last sequence of each shard before this run.
    pub sequences: Vec<u64>,
    /// Where the oldest log that is there begins.
    pub oldest_position: u64,
    /// Where the log begins that is to be replayed at the next start.
    pub base_position: u64,
    /// The snapshot that counts.
    pub base: Option<Base>,
    /// No file has this number or a higher one.
    pub next_number: u64,
    /// The hash that spreads keys over shards.
    pub hasher: KeyHasher,
    /// What was done.
    pub report: Report,
    /// Where random numbers come from.
    pub random: Random,
}

/// Everything that was read, and from what.
struct Read {
    shards: Vec<BuiltShard>,
    end: End,
    start: Option<Start>,
    plan: Plan,
    now: Ticks,
}

/// Reads what [`open`] would, and changes nothing: for tools.
///
/// # Errors
/// As [`open`].
pub fn read_only(disk: &dyn Disk, request: &Request) -> Result<Contents, Error> {
    let mut report = Report::default();
    let Some(survey) = Survey::take(disk, request.mode == Recover::Salvage)? else {
        return Ok(Contents { identity: None, shards: Vec::new(), report });
    };
    report.damages.extend(survey.identity_damage.iter().map(Error::to_string));
    let read = Recovery::new(&survey, request).run(&mut report)?;
    let shards = read.map_or_else(Vec::new, |read| read.shards);
    Ok(Contents { identity: Some(survey.identity), shards, report })
}

/// Recovers a directory and begins a new run in it.
///
/// # Errors
/// Files are damaged or missing (and the request is strict), of another version, the end was asked
/// for, or the system refused. Nothing was changed then, unless the last step itself was refused.
pub fn open(disk: Arc<dyn Disk>, request: &Request, random: Random) -> Result<Recovered, Error> {
    let mut opening = Opening { disk, request, random, report: Report::default() };
    let survey = Survey::take(&*opening.disk, request.mode == Recover::Salvage);
    let survey = match survey {
        Ok(Some(survey)) => survey,
        Ok(None) => return opening.begin_anew(None),
        Err(why) => return opening.discard_or(why, None),
    };
    opening.report.damages.extend(survey.identity_damage.iter().map(Error::to_string));
    let recovery = Recovery::new(&survey, request);
    match recovery.run(&mut opening.report) {
        Ok(Some(read)) if recovery.lost.load(Ordering::Relaxed) => opening.salvage(&survey, read),
        Ok(Some(read)) => {
            if request.mode == Recover::Discard {
                log::warn!("nothing is damaged: --recover=discard has discarded nothing");
            }
            opening.begin_run(&survey, read)
        }
        Ok(None) => opening.begin_anew(Some(survey.identity)),
        Err(why) => opening.discard_or(why, Some(survey.identity)),
    }
}

struct Recovery<'a> {
    survey: &'a Survey,
    request: &'a Request,
    hasher: KeyHasher,
    windows: Windows,
    /// Damage was gone around with a loss.
    lost: AtomicBool,
}

impl<'a> Recovery<'a> {
    fn new(survey: &'a Survey, request: &'a Request) -> Self {
        let hasher = KeyHasher::new(survey.identity.hash_secret);
        let (windows, lost) = (Windows::default(), AtomicBool::new(false));
        Self { survey, request, hasher, windows, lost }
    }

    /// Reads the best there is. `None`: there is no data.
    fn run(&self, report: &mut Report) -> Result<Option<Read>, Error> {
        let mut first_damage = None;
        match self.survey.plans(&self.windows) {
            Ok(plans) if plans.is_empty() => return Ok(None),
            Ok(plans) => {
                for plan in plans {
                    self.note_unusable(&plan);
                    match self.read(plan, report, None) {
                        Err(why) if why.is_damage() => {
                            log::warn!("{why}");
                            report.damages.push(why.to_string());
                            first_damage.get_or_insert(why);
                        }
                        other => return other.map(Some),
                    }
                }
            }
            Err(why) if why.is_damage() => first_damage = Some(why),
            Err(why) => return Err(why),
        }
        let Some(why) = first_damage else { return Ok(None) };
        if self.request.mode != Recover::Salvage {
            return Err(why);
        }
        self.lost.store(true, Ordering::Relaxed);
        let mut damages = vec![why];
        let read = self.read(self.survey.salvage_plan(), report, Some(&mut damages));
        for damage in &damages {
            log::warn!("salvage: {damage}");
        }
        report.damages.extend(damages.iter().map(Error::to_string));
        report.damages.dedup();
        read.map(Some)
    }

    /// Says which newer snapshots are not used.
    fn note_unusable(&self, plan: &Plan) {
        let newest = plan.snapshot.unwrap_or(0);
        for snapshot in self.survey.snapshots.range(newest + 1..).map(|(_, file)| file) {
            if let Err(why) = snapshot {
                log::info!("{why}: an older one and the logs since are used");
            }
        }
    }

    fn blueprint(&self) -> Blueprint {
        Blueprint {
            shards: self.survey.identity.shards as usize,
            threads: self.request.threads,
            memory_bytes_max: self.request.memory_bytes_max,
            evict: self.request.evict,
            hasher: self.hasher.clone(),
            stop: Arc::clone(&self.request.stop),
        }
    }

    fn read(
        &self,
        plan: Plan,
        report: &mut Report,
        mut damages: Option<&mut Vec<Error>>,
    ) -> Result<Read, Error> {
        let snapshot = plan.snapshot.map(|number| self.survey.snapshot(number)).transpose()?;
        let total = self.bytes_of(&plan);
        let mut done = 0;
        let mut watch = |bytes: u64| {
            done += bytes;
            (self.request.progress)(done, total);
            match self.request.stop.load(Ordering::Relaxed) {
                true => Err(Error::interrupted("the recovery")),
                false => Ok(()),
            }
        };
        watch(0)?;
        let blueprint = self.blueprint();
        let tokens = self.survey.token_ceiling();
        let (shards, (start, end, now), wrong) = build(&blueprint, tokens, |feeder| {
            let start = match snapshot {
                Some(snapshot) => {
                    read_snapshot(snapshot, self, damages.as_deref_mut(), feeder, &mut watch)?
                }
                None => None,
            };
            let end = self.read_logs(&plan, damages.as_deref_mut(), feeder, &mut watch)?;
            if let Some(snapshot) = snapshot.filter(|it| it.finish.shows > end.position) {
                let what = "it shows changes that the log has lost";
                let damage = Error::damaged(&snapshot.name, 0, what);
                match &mut damages {
                    Some(damages) => damages.push(damage),
                    None => return Err(damage),
                }
            }
            let (now, expire) = self.time_now(end.time);
            let may_drop = self.request.evict || self.request.may_drop;
            feeder.end(EndOfBuild { now, expire, may_drop });
            Ok((start, end, now))
        })?;
        if let Some(damage) = wrong {
            let damage = Error::of("a record", 0, damage);
            match &mut damages {
                Some(damages) => damages.push(damage),
                None => return Err(damage),
            }
        }
        self.check_items(snapshot, &shards, damages)?;
        report.snapshot_items = shards.iter().map(|shard| shard.snapshot_items).sum();
        report.dropped_items = shards.iter().map(|shard| shard.dropped).sum();
        (report.log_changes, report.cut_bytes, report.bytes) = (end.changes, end.cut_bytes, total);
        Ok(Read { shards, end, start, plan, now })
    }

    fn check_items(
        &self,
        snapshot: Option<&SnapshotFile>,
        shards: &[BuiltShard],
        damages: Option<&mut Vec<Error>>,
    ) -> Result<(), Error> {
        let Some(snapshot) = snapshot else { return Ok(()) };
        let items: u64 = shards.iter().map(|shard| shard.snapshot_items).sum();
        if items == snapshot.finish.items || damages.is_some() {
            return Ok(());
        }
        Err(Error::damaged(&snapshot.name, 0, "not as many items as it says"))
    }

    fn bytes_of(&self, plan: &Plan) -> u64 {
        let log_bytes = |number: &u64| self.survey.log(*number).map_or(0, |log| log.bytes);
        let snapshot = plan.snapshot.and_then(|number| self.survey.snapshot(number).ok());
        let logs: u64 = plan.logs.iter().map(log_bytes).sum();
        logs + snapshot.map_or(0, |snapshot| snapshot.bytes)
    }

    fn read_logs(
        &self,
        plan: &Plan,
        damages: Option<&mut Vec<Error>>,
        feeder: &mut Feeder,
        watch: &mut dyn FnMut(u64) -> Result<(), Error>,
    ) -> Result<End, Error> {
        let mut unwatched = 0;
        walk(self.survey, plan, &self.windows, damages, &mut |told| {
            match told {
                Told::Change(window, record) => {
                    feeder.record(window, record);
                    unwatched += super::record::record_bytes(record.found.body_bytes) as u64;
                    if unwatched >= WATCH_BYTES {
                        watch(std::mem::take(&mut unwatched))?;
                    }
                }
                Told::Time(time) => feeder.time(time),
                Told::Run(time) => feeder.run(time),
            }
            Ok(())
        })
    }

    /// The time by which things are over, and whether it is the log's, which is ahead of the clock.
    fn time_now(&self, newest: Ticks) -> (Ticks, bool) {
        let now = self.request.now;
        match is_believed(newest, now) {
            false if newest > now => {
                log::warn!("the log is more than a day ahead of the clock, which is believed");
                (now, false)
            }
            false => (now, false),
            true => {
                let seconds = (newest.0 - now.0).div_ceil(Ticks::PER_SECOND);
                log::warn!("the clock is {seconds} s behind the log, which is believed");
                (newest, true)
            }
        }
    }
}

/// How often somebody is told how far the reading has come, and asked whether to go on.
const WATCH_BYTES: u64 = 1 << 20;

fn read_snapshot(
    snapshot: &SnapshotFile,
    recovery: &Recovery<'_>,
    damages: Option<&mut Vec<Error>>,
    feeder: &mut Feeder,
    watch: &mut dyn FnMut(u64) -> Result<(), Error>,
) -> Result<Option<Start>, Error> {
    let mut unwatched = 0;
    let start = snapshot.start(&recovery.windows)?;
    if let Some(start) = &start {
        feeder.start(start.clone());
    }
    snapshot.read(&recovery.windows, damages, &mut |window, record| {
        feeder.record(window, record);
        unwatched += super::record::record_bytes(record.found.body_bytes) as u64;
        if unwatched >= WATCH_BYTES {
            watch(std::mem::take(&mut unwatched))?;
        }
        Ok(())
    })?;
    Ok(start)
}

/// The steps behind the reading.
struct Opening<'a> {
    disk: Arc<dyn Disk>,
    request: &'a Request,
    random: Random,
    report: Report,
}

impl Opening<'_> {
    /// An empty directory, if what there is is to be discarded.
    fn discard_or(mut self, why: Error, identity: Option<Identity>) -> Result<Recovered, Error> {
        if self.request.mode != Recover::Discard || !why.is_damage() {
            return Err(why);
        }
        log::warn!("{why}: the data is discarded, its files are kept under other names");
        self.report.damages.push(why.to_string());
        for name in directory::names(&*self.disk)? {
            let is_identity = IDENTITY_NAMES.contains(&name.as_str()) && identity.is_none();
            if log_number(&name).or(snapshot_number(&name)).is_some() || is_identity {
                directory::put_aside(&*self.disk, &name);
            }
        }
        directory::sync(&*self.disk)?;
        self.begin_anew(identity)
    }

    fn word(&mut self) -> Result<u64, Error> {
        (self.random)().map_err(|why| Error::io("random numbers", "not to be had", why))
    }

    /// The first log of a directory without data.
    fn begin_anew(mut self, identity: Option<Identity>) -> Result<Recovered, Error> {
        let identity = match identity {
            Some(identity) => Identity { log: 0, ..identity },
            None => Identity {
                directory_id: self.word()?,
                hash_secret: [self.word()?, self.word()?],
                shards: self.request.shards as u32,
                log: 0,
            },
        };
        // First, so that no log is ever there without it.
        identity.write(&*self.disk)?;
        // Random, so that tokens of a directory that was discarded are not repeated.
        let tokens = self.word()? >> (u64::BITS - TOKEN_START_BITS);
        let survey = Survey::take(&*self.disk, false)?;
        let number = survey.map_or(0, |survey| survey.newest_number()) + 1;
        let hasher = KeyHasher::new(identity.hash_secret);
        let blueprint = Blueprint {
            shards: identity.shards as usize,
            threads: 1,
            memory_bytes_max: self.request.memory_bytes_max,
            evict: self.request.evict,
            hasher,
            stop: Arc::clone(&self.request.stop),
        };
        let now = self.request.now;
        let (shards, (), _) = build(&blueprint, tokens, |feeder| {
            feeder.end(EndOfBuild { now, expire: false, may_drop: false });
            Ok(())
        })?;
        let begin = Begin {
            how: Begun::First,
            position: 0,
            time: now,
            token_ceiling: tokens + TOKENS_GRANTED,
            sequences: vec![0; shards.len()],
        };
        let newest_read = number - 1;
        let run = Run { identity, shards, begin, predecessor: (0, 0), number, newest_read };
        let base = Where { oldest_position: 0, base_position: 0, base: None };
        self.begin_log(run, base)
    }

    /// A new log behind those that were read.
    fn begin_run(self, survey: &Survey, read: Read) -> Result<Recovered, Error> {
        self.check_memory(&read)?;
        self.remove_superseded(survey, &read);
        let first = survey.log(read.plan.logs[0])?;
        // It may have been read from the kernel's memory, and the next log is about to say how far
        // it reaches. Were the power cut then, less of it would look like damage.
        for number in &read.plan.logs {
            let log = survey.log(*number)?;
            let synced = log.file().sync();
            synced.map_err(|why| Error::io(&log.name, "cannot be synced", why))?;
        }
        let snapshot = read.plan.snapshot.map(|number| survey.snapshot(number)).transpose()?;
        let base = snapshot.map(|snapshot| Base {
            number: snapshot.header.number,
            taken_at: read.start.as_ref().map_or(Ticks::default(), |start| start.taken_at),
            bytes: snapshot.bytes,
            items: snapshot.finish.items,
        });
        let base = Where {
            oldest_position: first.begin.position,
            base_position: first.begin.position,
            base,
        };
        let number = survey.newest_number() + 1;
        let begin = self.begin_of(&read, Begun::Start);
        let (identity, shards, predecessor) = (survey.identity, read.shards, read.end.log);
        let newest_read = predecessor.0;
        self.begin_log(Run { identity, shards, begin, predecessor, number, newest_read }, base)
    }

    fn begin_of(&self, read: &Read, how: Begun) -> Begin {
        let used = read.shards.iter().map(|shard| shard.store.sequence_now()).max().unwrap_or(0);
        Begin {
            how,
            position: read.end.position,
            time: self.request.now,
            token_ceiling: used + TOKENS_GRANTED,
            sequences: read.end.sequences.clone(),
        }
    }

    /// Without eviction, what does not fit is not dropped unless that is wanted.
    fn check_memory(&self, read: &Read) -> Result<(), Error> {
        let live: u64 = read.shards.iter().map(|shard| shard.store.live_bytes()).sum();
        let (limit, dropped) = (self.request.memory_bytes_max, self.report.dropped_items);
        let may_drop = self.request.evict || self.request.may_drop;
        if !may_drop && (live > limit || dropped > 0) {
            let needed = live.max(limit).div_ceil(1 << 20);
            return Err(Error::memory(format!(
                "its items take {needed} MiB and more, and nothing is to be evicted (-M): start \
                 with a larger -m, or without -M, or with --recover=salvage to drop what does not \
                 fit"
            )));
        }
        if dropped > 0 {
            log::warn!("{dropped} items found no room in memory and were dropped (-m)");
        }
        Ok(())
    }

    /// Removes logs and snapshots that do not count any more: older ones, and those of steps that
    /// were cut short. What a salvage has gone around gets another name. Newer logs, which were
    /// never begun or cut off as a whole, stay until this run's is begun: the last one that counts
    /// may name one of them.
    fn remove_superseded(&self, survey: &Survey, read: &Read) {
        let aside = read.start.as_ref().map_or(&[][..], |start| &start.aside);
        let newest = read.plan.snapshot.unwrap_or(0);
        let mut any = false;
        let mut gone = |name: String, damaged: bool| {
            any = true;
            if damaged || aside.contains(&name) {
                directory::put_aside(&*self.disk, &name);
            } else {
                directory::remove(&*self.disk, &name);
            }
        };
        let last = read.plan.logs.last().copied().unwrap_or(0);
        let older = survey.logs.range(..last).map(|(number, _)| number);
        for number in older.filter(|number| !read.plan.logs.contains(number)) {
            gone(log_name(*number), false);
        }
        for (number, file) in &survey.snapshots {
            // One that looked whole, and was not.
            let damaged = *number > newest && file.is_ok();
            if Some(*number) != read.plan.snapshot {
                gone(snapshot_name(*number), damaged);
            }
        }
        if any && let Err(why) = directory::sync(&*self.disk) {
            log::warn!("{why}");
        }
    }

    /// Writes what is intact to a snapshot with a log of its own. Until it is whole, everything is
    /// as it was. What was there is removed then, or kept under another name if it is damaged.
    fn salvage(mut self, survey: &Survey, mut read: Read) -> Result<Recovered, Error> {
        let begin = self.begin_of(&read, Begun::Afresh);
        let number = survey.newest_number() + 1;
        let mentioned = |name: &String| {
            self.report.damages.iter().any(|damage| damage.starts_with(name.as_str()))
        };
        let data = directory::names(&*self.disk)?.into_iter();
        let data = data.filter(|name| log_number(name).or(snapshot_number(name)).is_some());
        let aside: Vec<String> = data.filter(mentioned).collect();
        let flush_at = read.shards.iter().map(|shard| shard.flush_at).collect();
        let start = Start { taken_at: read.now, flush_at, aside };
        // Its position has to be above everything that a snapshot may have shown.
        let shown = survey.snapshots.values().flatten().map(|file| file.finish.shows).max();
        let begin = Begin { position: begin.position.max(shown.unwrap_or(0)), ..begin };
        let identity = survey.identity;
        let next = NextLog::make(
            &*self.disk,
            &identity,
            number,
            (0, 0),
            self.request.log_growth,
            &mut self.random,
        )?;
        let cannot = |why| Error::io(log_name(number), "cannot be written", why);
        let begin_bytes = next.begin(&begin).map_err(cannot)?;
        next.file().sync().map_err(cannot)?;
        let mut writer =
            SnapshotWriter::begin(&*self.disk, &identity, number, &start, &mut self.random)?;
        write_shards(&mut writer, &read.shards)?;
        writer.end_items()?;
        let finished = writer.finish(begin.position + begin_bytes)?;
        read.plan = Plan { snapshot: Some(number), ..Plan::of_log(number) };
        read.start = Some(start);
        self.remove_superseded(survey, &read);
        let base =
            Base { number, taken_at: read.now, bytes: finished.bytes, items: finished.items };
        let base = Where {
            oldest_position: begin.position,
            base_position: begin.position,
            base: Some(base),
        };
        let log = Log::new(next, &begin, begin_bytes);
        let identity = Identity { log: number, ..identity };
        identity.write(&*self.disk)?;
        // What is in the snapshot is as it is: nothing is left to be recorded of the replay.
        for shard in &mut read.shards {
            shard.evicted.clear();
            shard.flushed = false;
        }
        let (shards, newest_read) = (read.shards, number);
        let run = Run { identity, shards, begin, predecessor: (0, 0), number, newest_read };
        Ok(self.recovered(run, base, log, None))
    }

    fn begin_log(mut self, run: Run, base: Where) -> Result<Recovered, Error> {
        let is_new = run.begin.how == Begun::First;
        match self.try_begin_log(&run) {
            Ok(log) => Ok(self.recovered(run, base, log, None)),
            // What there is can be served, if not changed. A directory without data is of no use.
            Err(why) if why.kind == ErrorKind::Io && !is_new => {
                let begin = &run.begin;
                let log = Log::new(NextLog::none(&run.identity, run.predecessor), begin, 0);
                Ok(self.recovered(run, base, log, Some(why)))
            }
            Err(why) => Err(why),
        }
    }

    fn try_begin_log(&mut self, run: &Run) -> Result<Log, Error> {
        let Run { identity, begin, predecessor, number, .. } = run;
        let growth = self.request.log_growth;
        let disk = &*self.disk;
        let next = NextLog::make(disk, identity, *number, *predecessor, growth, &mut self.random)?;
        let cannot = |why| Error::io(log_name(*number), "cannot be written", why);
        let begin_bytes = next.begin(begin).map_err(cannot)?;
        next.file().sync().map_err(cannot)?;
        Identity { log: *number, ..*identity }.write(disk)?;
        self.remove_newer(run.newest_read, *number);
        Ok(Log::new(next, begin, begin_bytes))
    }

    /// Removes logs between the last one that was read and this run's.
    fn remove_newer(&self, newest_read: u64, number: u64) {
        let names = directory::names(&*self.disk).unwrap_or_default();
        for name in names {
            if log_number(&name).is_some_and(|other| newest_read < other && other < number) {
                directory::remove(&*self.disk, &name);
            }
        }
    }

    fn recovered(self, run: Run, base: Where, log: Log, log_failure: Option<Error>) -> Recovered {
        Recovered {
            hasher: KeyHasher::new(run.identity.hash_secret),
            identity: run.identity,
            shards: run.shards,
            log,
            log_failure,
            sequences: run.begin.sequences,
            oldest_position: base.oldest_position,
            base_position: base.base_position,
            base: base.base,
            next_number: run.number + 1,
            report: self.report,
            random: self.random,
        }
    }
}

/// A run that is about to begin.
struct Run {
    identity: Identity,
    shards: Vec<BuiltShard>,
    begin: Begin,
    predecessor: (u64, u64),
    number: u64,
    /// The last log that was read.
    newest_read: u64,
}

/// What the next start would read.
struct Where {
    oldest_position: u64,
    base_position: u64,
    base: Option<Base>,
}

/// Writes the items of all shards, a part of each in turn: the next start builds them side by side.
fn write_shards(writer: &mut SnapshotWriter, shards: &[BuiltShard]) -> Result<(), Error> {
    let mut left: Vec<usize> = (0..shards.len()).collect();
    let mut part = 0;
    while !left.is_empty() {
        let mut failed = None;
        left.retain(|shard| {
            writer.begin_shard(*shard);
            shards[*shard].store.share_part(part, |item, popularity| {
                if failed.is_none() {
                    failed = writer.add(&item, popularity).err();
                }
            })
        });
        if let Some(why) = failed {
            return Err(why);
        }
        writer.write_gathered()?;
        part += 1;
    }
    Ok(())
}
