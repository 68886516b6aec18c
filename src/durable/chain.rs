//! Which files make up the data, and reading the logs among them in order: which records count,
//! where a torn end is cut off, and what is damage.
//!
//! Every log names the one before it, so what counts follows from the newest one that holds
//! something, backward to a snapshot or to the first of all. Owns these judgements; what changes do
//! is the caller's.
//!
//! ```text
//! log 5 <- log 6 <- log 7         log 8: made, nothing in it: stands for nothing
//!          snapshot 6: its items, then the changes of logs 6 and 7
//! ```
//!
//! The log may end in a torn write: it is cut off at the first place that holds no valid record, if
//! nothing valid follows, or only behind a hole of zeros, which the device never got. Neither may
//! lie before a place that is known to have been on the device. Everything else is damage.

use super::change::{Begin, Begun, Mark, kind, unpack_number, unpack_time};
use super::directory::{self, log_name, log_number, snapshot_name, snapshot_number};
use super::disk::{Disk, DiskFile};
use super::identity::{IDENTITY_NAMES, Identity, refuse_older};
use super::reader::{Behind, Reader, Record, Step, Window, Windows, read_header};
use super::record::{FILE_HEADER_BYTES, FileHeader, FileKind, NO_SHARD, Seed};
use super::snapshot::SnapshotFile;
use super::{Error, ErrorKind};
use crate::store::Ticks;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A log that holds something.
#[derive(Clone)]
pub struct LogFile {
    /// Its name.
    pub name: String,
    /// Its header.
    pub header: FileHeader,
    /// What it begins with.
    pub begin: Begin,
    /// Where its second record is.
    pub second_at: u64,
    /// Its size.
    pub bytes: u64,
    file: Arc<dyn DiskFile>,
}

impl LogFile {
    /// The file.
    pub fn file(&self) -> &Arc<dyn DiskFile> {
        &self.file
    }
}

/// What is in a directory, by the ends of its files.
pub struct Survey {
    /// What is the same for all of them.
    pub identity: Identity,
    /// What is wrong with it: to be written anew.
    pub identity_damage: Option<Error>,
    /// Logs by number. `None`: made, and never begun.
    pub logs: BTreeMap<u64, Result<Option<LogFile>, Error>>,
    /// Snapshots by number; an error: of no use as a whole.
    pub snapshots: BTreeMap<u64, Result<SnapshotFile, Error>>,
}

/// Files to recover from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The snapshot to load first.
    pub snapshot: Option<u64>,
    /// The logs to replay, in order.
    pub logs: Vec<u64>,
    /// Logs behind one of which nothing reached the device: cut off as a whole.
    pub behind: Vec<u64>,
}

impl Plan {
    /// A log by itself.
    pub fn of_log(number: u64) -> Self {
        Self { snapshot: None, logs: vec![number], behind: Vec::new() }
    }
}

impl Survey {
    /// Looks at all files. `None`: there is no data. `rebuild`: without an identity, take it from
    /// the headers of the files.
    ///
    /// # Errors
    /// The directory cannot be read, is another version's, or has lost its identity.
    pub fn take(disk: &dyn Disk, rebuild: bool) -> Result<Option<Self>, Error> {
        let names = directory::names(disk)?;
        let has_data =
            names.iter().any(|name| log_number(name).or(snapshot_number(name)).is_some());
        let found = match Identity::read(disk) {
            Ok(None) if !has_data => {
                refuse_older(disk)?;
                return Ok(None);
            }
            Ok(None) => {
                refuse_older(disk)?;
                Err(Error::damaged(IDENTITY_NAMES[0], 0, "missing, but there is data"))
            }
            Ok(Some(found)) => Ok((found.identity, found.damage)),
            Err(why) => Err(why),
        };
        let (identity, identity_damage) = match found {
            Ok(found) => found,
            Err(why) if rebuild && why.is_damage() => match rebuild_identity(disk, &names) {
                Some(identity) => (identity, Some(why)),
                None => return Err(why),
            },
            Err(why) => return Err(why),
        };
        let mut survey =
            Self { identity, identity_damage, logs: BTreeMap::new(), snapshots: BTreeMap::new() };
        survey.look(disk, &names)?;
        Ok(Some(survey))
    }

    fn look(&mut self, disk: &dyn Disk, names: &[String]) -> Result<(), Error> {
        let bad = |why: Error| match why.kind {
            ErrorKind::Damaged => Ok(why),
            _ => Err(why),
        };
        for name in names {
            if let Some(number) = log_number(name) {
                let log = match open_log(disk, name, number, &self.identity) {
                    Ok(log) => Ok(log),
                    Err(why) => Err(bad(why)?),
                };
                self.logs.insert(number, log);
            }
            if let Some(number) = snapshot_number(name) {
                let file = SnapshotFile::open(disk, number);
                let file = file.and_then(|file| {
                    let is_ours = file.header.directory_id == self.identity.directory_id
                        && file.header.shards == self.identity.shards;
                    let what = "another directory's file";
                    if is_ours { Ok(file) } else { Err(Error::damaged(name, 0, what)) }
                });
                let file = match file {
                    Ok(file) => Ok(file),
                    Err(why) => Err(bad(why)?),
                };
                self.snapshots.insert(number, file);
            }
        }
        Ok(())
    }

    /// The highest number that any file has.
    pub fn newest_number(&self) -> u64 {
        let newest = |number: Option<&u64>| number.copied().unwrap_or(0);
        newest(self.logs.keys().next_back()).max(newest(self.snapshots.keys().next_back()))
    }

    /// A log that holds something.
    pub fn log(&self, number: u64) -> Result<&LogFile, Error> {
        match self.logs.get(&number) {
            Some(Ok(Some(log))) => Ok(log),
            Some(Err(why)) => Err(why.again()),
            Some(Ok(None)) => {
                Err(Error::damaged(log_name(number), FILE_HEADER_BYTES as u64, "it has lost all"))
            }
            None => Err(Error::damaged(log_name(number), 0, "missing")),
        }
    }

    /// A snapshot that looks whole.
    pub fn snapshot(&self, number: u64) -> Result<&SnapshotFile, Error> {
        match self.snapshots.get(&number) {
            Some(Ok(snapshot)) => Ok(snapshot),
            Some(Err(why)) => Err(why.again()),
            None => Err(Error::damaged(snapshot_name(number), 0, "missing")),
        }
    }

    /// Files that make up all of the data: the best choice first. Empty: there is no data.
    ///
    /// # Errors
    /// No choice is complete.
    pub fn plans(&self, windows: &Windows) -> Result<Vec<Plan>, Error> {
        let mut plans = Vec::new();
        match self.add_plans(&mut plans, windows) {
            // Of what is older something may be missing: it is there for want of better.
            Err(why) if plans.is_empty() || !why.is_damage() => Err(why),
            Ok(()) | Err(_) => Ok(plans),
        }
    }

    fn add_plans(&self, plans: &mut Vec<Plan>, windows: &Windows) -> Result<(), Error> {
        let (mut below, mut behind, mut lost) = (u64::MAX, Vec::new(), None);
        loop {
            // A log that cannot be read may hold what counts.
            let holds_data = |log: &Result<Option<LogFile>, Error>| !matches!(log, Ok(None));
            let head = self.logs.range(..below).rev().find(|(_, log)| holds_data(log));
            let Some((head, _)) = head else {
                return match lost {
                    Some(why) => Err(why),
                    None if self.identity.log == 0 => Ok(()),
                    None => Err(self.missing(self.identity.log)),
                };
            };
            let (path, root) = self.path_to(*head);
            let found = self.plans_along(&path, &root, &behind);
            let is_missed = |plan: &Plan| {
                let first = plan.logs.first().copied().unwrap_or(0);
                self.identity.log >= first && !plan.logs.contains(&self.identity.log)
            };
            if found.iter().any(is_missed) {
                return Err(lost.unwrap_or_else(|| self.missing(self.identity.log)));
            }
            let is_found = !found.is_empty();
            plans.extend(found);
            match root {
                // Begun after a failure, for a snapshot that was never finished, or may turn out to
                // be of no use: nothing that it holds was told to anybody.
                Root::Afresh(number) if !self.holds_told_changes(&path, windows)? => {
                    (below, behind) = (number, Vec::new());
                }
                Root::First | Root::Afresh(_) | Root::Broken(_) | Root::Lost(..) if is_found => {
                    return Ok(());
                }
                Root::Lost(number, why) => {
                    (below, lost) = (number, Some(why));
                    behind.splice(..0, path);
                }
                Root::Afresh(number) => return Err(self.missing_snapshot(number, &path)),
                Root::Broken(why) => {
                    return Err(self.unusable_snapshot(&path).unwrap_or(why));
                }
                Root::First => return Err(self.missing(1)),
            }
        }
    }

    fn missing(&self, number: u64) -> Error {
        self.log(number).err().unwrap_or_else(|| {
            Error::damaged(log_name(number), 0, "it does not go with the other logs")
        })
    }

    fn missing_snapshot(&self, number: u64, path: &[u64]) -> Error {
        let missing = || Error::damaged(snapshot_name(number), 0, "missing");
        self.unusable_snapshot(path).unwrap_or_else(missing)
    }

    /// What is wrong with the newest snapshot that would have done.
    fn unusable_snapshot(&self, path: &[u64]) -> Option<Error> {
        let mut snapshots = path.iter().rev().filter_map(|number| self.snapshots.get(number));
        snapshots.find_map(|snapshot| snapshot.as_ref().err().map(Error::again))
    }

    /// The logs that lead to this one, in order, as far back as they go.
    fn path_to(&self, head: u64) -> (Vec<u64>, Root) {
        let mut path = Vec::new();
        let mut number = head;
        let root = loop {
            let log = match (self.log(number), self.logs.get(&number)) {
                (Ok(log), _) => log,
                (Err(why), Some(Ok(None))) if !self.has_start(&path) => {
                    break Root::Lost(number, why);
                }
                (Err(why), _) => break Root::Broken(why),
            };
            if let Some(successor) = path.last()
                && let Ok(successor) = self.log(*successor)
                && successor.header.predecessor != (number, log.header.file_id)
            {
                let what = "another file in this one's place";
                break Root::Broken(Error::damaged(&log.name, 0, what));
            }
            path.push(number);
            match log.begin.how {
                Begun::First => break Root::First,
                Begun::Afresh => break Root::Afresh(number),
                Begun::Start | Begun::Roll if log.header.predecessor.0 >= number => {
                    let what = "it names no log before it";
                    break Root::Broken(Error::damaged(&log.name, 0, what));
                }
                Begun::Start | Begun::Roll => number = log.header.predecessor.0,
            }
        };
        path.reverse();
        (path, root)
    }

    /// Whether a start went on in one of these logs: what was there before was on the device.
    fn has_start(&self, path: &[u64]) -> bool {
        let is_start =
            |number: &u64| self.log(*number).is_ok_and(|it| it.begin.how == Begun::Start);
        path.iter().any(is_start)
    }

    fn plans_along(&self, path: &[u64], root: &Root, behind: &[u64]) -> Vec<Plan> {
        let plan = |snapshot, logs: &[u64]| Plan {
            snapshot,
            logs: logs.to_vec(),
            behind: behind.to_vec(),
        };
        let mut plans = Vec::new();
        for (at, number) in path.iter().enumerate().rev() {
            if self.snapshot(*number).is_ok() {
                plans.push(plan(Some(*number), &path[at..]));
            }
        }
        if matches!(root, Root::First) {
            plans.push(plan(None, path));
        }
        plans
    }

    /// Whether a log says that a snapshot counts: from then on changes were taken.
    fn holds_told_changes(&self, path: &[u64], windows: &Windows) -> Result<bool, Error> {
        for number in path {
            let log = self.log(*number)?;
            let mut found = false;
            visit_own(log, log.second_at, windows, self.seed(), |kind, _| {
                found |= kind == kind::SNAPSHOT;
            })?;
            if found {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// No CAS token of a segment sequence at or above this was ever handed out.
    pub fn token_ceiling(&self) -> u64 {
        let begun = self.logs.values().flatten().flatten();
        begun.map(|log| log.begin.token_ceiling).max().unwrap_or(0)
    }

    /// What the checksums of logs begin with.
    pub fn seed(&self) -> Seed {
        Seed::of(self.identity.directory_id)
    }

    /// The best there is of a damaged directory: a snapshot that looks whole, or else any, and all
    /// logs from there on.
    pub fn salvage_plan(&self) -> Plan {
        let snapshot = self.snapshots.iter().rev().find(|(_, file)| file.is_ok());
        let snapshot = snapshot.map(|(number, _)| *number);
        let first = snapshot.unwrap_or(0);
        let begun = self.logs.range(first..).filter(|(_, log)| matches!(log, Ok(Some(_))));
        let logs = begun.map(|(number, _)| *number).collect();
        Plan { snapshot, logs, behind: Vec::new() }
    }
}

/// Where a path of logs begins.
enum Root {
    /// With the first log of all.
    First,
    /// With a log that needs a snapshot.
    Afresh(u64),
    /// With one whose predecessor is not there, or not what it should be.
    Broken(Error),
    /// With one whose predecessor was made, and has lost all: nothing of it reached the device,
    /// unless something says that it did.
    Lost(u64, Error),
}

/// The identity as the first valid header tells it.
fn rebuild_identity(disk: &dyn Disk, names: &[String]) -> Option<Identity> {
    let data = names.iter().filter(|name| log_number(name).or(snapshot_number(name)).is_some());
    let mut headers = data.filter_map(|name| {
        let file = disk.open(name).ok()?;
        read_header(name, &*file).ok()
    });
    let header = headers.next()?;
    let FileHeader { directory_id, hash_secret, shards, .. } = header;
    Some(Identity { directory_id, hash_secret, shards, log: 0 })
}

/// Looks at the beginning of a log. `None`: it was never begun, or what it began with never reached
/// the device.
fn open_log(
    disk: &dyn Disk,
    name: &str,
    number: u64,
    identity: &Identity,
) -> Result<Option<LogFile>, Error> {
    let cannot = |why| Error::io(name, "cannot be read", why);
    let file = disk.open(name).map_err(|why| Error::io(name, "cannot be opened", why))?;
    let seed = Seed::of(identity.directory_id);
    let mut reader = Reader::new(Arc::clone(&file), seed, &Windows::default()).map_err(cannot)?;
    let header = match read_header(name, &*file) {
        Ok(header) => header,
        Err(why) if !why.is_damage() => return Err(why),
        Err(why) => {
            let holds_records = match reader.step().map_err(cannot)? {
                Step::Record(_) => true,
                Step::End => false,
                Step::Bad => reader.skip_damage().map_err(cannot)?,
            };
            return if holds_records { Err(why) } else { Ok(None) };
        }
    };
    let is_it = header.kind == FileKind::Log
        && header.number == number
        && header.directory_id == identity.directory_id
        && header.shards == identity.shards;
    if !is_it {
        return Err(Error::damaged(name, 0, "another file in this one's place"));
    }
    let at = reader.offset();
    match reader.step().map_err(cannot)? {
        Step::Record(record) if record.found.kind == kind::BEGIN => {
            let begin = Begin::unpack(reader.body(&record), identity.shards as usize);
            let begin = begin.map_err(|why| Error::of(name, at, why))?;
            let bytes = file.len().map_err(cannot)?;
            let (name, second_at) = (name.to_owned(), reader.offset());
            Ok(Some(LogFile { name, header, begin, second_at, bytes, file }))
        }
        Step::Record(_) => Err(Error::damaged(name, at, "its first record is out of place")),
        Step::End => Ok(None),
        Step::Bad => match reader.behind().map_err(cannot)? {
            Behind::Records => Err(Error::damaged(name, at, "its first record is damaged")),
            Behind::Nothing | Behind::AfterHole => Ok(None),
        },
    }
}

/// Calls `visit` with the kind and body of every valid record that is about the log itself, from an
/// offset on, around damage.
fn visit_own(
    log: &LogFile,
    from: u64,
    windows: &Windows,
    seed: Seed,
    mut visit: impl FnMut(u8, &[u8]),
) -> Result<(), Error> {
    let cannot = |why| Error::io(&log.name, "cannot be read", why);
    let mut reader = Reader::new(Arc::clone(&log.file), seed, windows).map_err(cannot)?;
    reader.go_to(from);
    loop {
        match reader.step().map_err(cannot)? {
            Step::Record(record) if record.found.shard == NO_SHARD => {
                visit(record.found.kind, reader.body(&record));
            }
            Step::Record(_) => {}
            Step::End => return Ok(()),
            Step::Bad if !reader.skip_damage().map_err(cannot)? => return Ok(()),
            Step::Bad => {}
        }
    }
}

/// What a walk through the logs hands out.
pub enum Told<'a> {
    /// A change, or a piece of one; the shard is known to exist.
    Change(&'a Arc<Window>, &'a Record),
    /// It was this time, or later.
    Time(Ticks),
    /// Another run begins, by a clock that says this: it may be behind the one before.
    Run(Ticks),
}

/// How far the log was found to reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The last log that counts, as the header of the next one is to name it.
    pub log: (u64, u64),
    /// Where the log as a whole ends.
    pub position: u64,
    /// Where that is in the last log.
    pub offset: u64,
    /// The last sequence of each shard.
    pub sequences: Vec<u64>,
    /// The newest time in it, by the clock of the last run.
    pub time: Ticks,
    /// Records handed out.
    pub changes: u64,
    /// Bytes that were cut off.
    pub cut_bytes: u64,
    /// The log that the last one names as the next, whether or not it was begun.
    pub next: Option<u64>,
}

/// Reads logs in order.
pub struct Walk<'a> {
    survey: &'a Survey,
    logs: &'a [u64],
    behind: &'a [u64],
    windows: &'a Windows,
    deliver: &'a mut dyn FnMut(Told<'_>) -> Result<(), Error>,
    /// Where damage is noted that is gone around; `None`: none is.
    damages: Option<&'a mut Vec<Error>>,
    end: End,
}

/// How the reading of one log ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Where the next one, if any, says.
    Whole,
    /// Before that, in a torn write.
    Torn,
}

/// Reads the logs of a plan; `deliver` gets the changes in order. On damage it has got those before
/// it; with `damages` there, all that are intact.
///
/// # Errors
/// A log is damaged, missing, or does not continue the one before; `deliver` wants no more.
pub fn walk(
    survey: &Survey,
    plan: &Plan,
    windows: &Windows,
    damages: Option<&mut Vec<Error>>,
    deliver: &mut dyn FnMut(Told<'_>) -> Result<(), Error>,
) -> Result<End, Error> {
    let end = End {
        log: (0, 0),
        position: 0,
        offset: 0,
        sequences: vec![0; survey.identity.shards as usize],
        time: Ticks::default(),
        changes: 0,
        cut_bytes: 0,
        next: None,
    };
    let (logs, behind) = (&plan.logs[..], &plan.behind[..]);
    let mut walk = Walk { survey, logs, behind, windows, deliver, damages, end };
    let mut read = 0;
    while read < logs.len() {
        read += 1;
        if walk.read_log(read - 1)? == Ending::Torn {
            break;
        }
    }
    walk.drop_behind(read)?;
    Ok(walk.end)
}

impl Walk<'_> {
    /// Damage: the end of the walk, or noted.
    fn damaged(&mut self, damage: Error) -> Result<(), Error> {
        match &mut self.damages {
            Some(damages) => {
                damages.push(damage);
                Ok(())
            }
            None => Err(damage),
        }
    }

    fn begin_run(&mut self, time: Ticks) -> Result<(), Error> {
        self.end.time = time;
        (self.deliver)(Told::Run(time))
    }

    fn note_time(&mut self, time: Ticks) -> Result<(), Error> {
        if time > self.end.time {
            self.end.time = time;
            (self.deliver)(Told::Time(time))?;
        }
        Ok(())
    }

    fn begin_log(&mut self, at: usize, log: &LogFile) -> Result<(), Error> {
        let begin = &log.begin;
        let continues =
            begin.position == self.end.position && begin.sequences == self.end.sequences;
        if at > 0 && !continues {
            let what = "it does not continue the log before it";
            self.damaged(Error::damaged(&log.name, FILE_HEADER_BYTES as u64, what))?;
        }
        self.end.log = (log.header.number, log.header.file_id);
        self.end.next = None;
        self.end.position = begin.position + log.second_at;
        self.end.offset = log.second_at;
        self.end.sequences.clone_from(&begin.sequences);
        match begin.how {
            Begun::First | Begun::Start => self.begin_run(begin.time),
            Begun::Roll | Begun::Afresh => self.note_time(begin.time),
        }
    }

    fn read_log(&mut self, at: usize) -> Result<Ending, Error> {
        let survey = self.survey;
        let log = survey.log(self.logs[at])?;
        self.begin_log(at, log)?;
        let cannot = |why| Error::io(&log.name, "cannot be read", why);
        let file = Arc::clone(&log.file);
        let mut reader = Reader::new(file, survey.seed(), self.windows).map_err(cannot)?;
        reader.go_to(log.second_at);
        let next = self.logs.get(at + 1).map(|next| survey.log(*next)).transpose()?;
        let limit = next.and_then(|next| next.begin.position.checked_sub(log.begin.position));
        reader.end_at(limit.unwrap_or(u64::MAX));
        let mut own_sequence = 1;
        loop {
            let offset = reader.offset();
            let record = match reader.step().map_err(cannot)? {
                Step::Record(record) => record,
                Step::End if limit.is_none_or(|limit| limit == offset) => break,
                Step::End | Step::Bad => {
                    match self.judge(at, log, &mut reader)? {
                        None => return Ok(Ending::Torn),
                        Some(damage) => self.damaged(damage)?,
                    }
                    if !reader.skip_damage().map_err(cannot)? {
                        break;
                    }
                    continue;
                }
            };
            let is_last = self.take(log, &reader, &record, &mut own_sequence)?;
            self.end.offset = reader.offset();
            self.end.position = log.begin.position + reader.offset();
            if is_last {
                break;
            }
        }
        Ok(Ending::Whole)
    }

    /// Looks whether a record is the one that belongs here, and hands it out. Answers whether it is
    /// the last one of its log.
    fn take(
        &mut self,
        log: &LogFile,
        reader: &Reader,
        record: &Record,
        own_sequence: &mut u64,
    ) -> Result<bool, Error> {
        let own = record.found.shard == NO_SHARD;
        let before = match self.end.sequences.get_mut(usize::from(record.found.shard)) {
            Some(sequence) => sequence,
            None if own => own_sequence,
            None => {
                let damage = Error::damaged(&log.name, record.offset, "no such shard");
                return self.damaged(damage).map(|()| false);
            }
        };
        let ahead = record.found.sequence.wrapping_sub(*before as u32);
        if ahead != 1 {
            let what = "records are missing, repeated or in another order";
            // Of what is behind damage, only later records are taken.
            let is_later = ahead > 0 && ahead < u32::MAX / 2;
            if is_later {
                *before += u64::from(ahead);
            }
            self.damaged(Error::damaged(&log.name, record.offset, what))?;
            if !is_later {
                return Ok(false);
            }
        } else {
            *before += 1;
        }
        if own {
            return self.take_own(log, reader, record);
        }
        self.end.changes += 1;
        if record.found.kind == kind::EXPIRE
            && let Ok(time) = unpack_time(reader.body(record))
        {
            self.note_time(time)?;
        }
        (self.deliver)(Told::Change(reader.window(), record)).map(|()| false)
    }

    fn take_own(&mut self, log: &LogFile, reader: &Reader, record: &Record) -> Result<bool, Error> {
        let wrong = |damage| Error::of(&log.name, record.offset, damage);
        let body = reader.body(record);
        match record.found.kind {
            kind::MARK => {
                let mark = Mark::unpack(body).map_err(wrong)?;
                self.note_time(mark.time)?;
            }
            kind::END => {
                let next = unpack_number(body).map_err(wrong)?;
                self.end.next = Some(next);
                // Where another start went on, it may have removed one that was never begun.
                let is_last = self.logs.last() == Some(&log.header.number);
                if is_last && !self.survey.logs.contains_key(&next) {
                    self.damaged(Error::damaged(log_name(next), 0, "missing"))?;
                }
                return Ok(true);
            }
            kind::SNAPSHOT => {}
            _ => {
                let what = "a record of no known kind";
                self.damaged(Error::damaged(&log.name, record.offset, what))?;
            }
        }
        Ok(false)
    }

    /// What to think of a place that holds no valid record. `None`: it may be cut off.
    fn judge(
        &mut self,
        at: usize,
        log: &LogFile,
        reader: &mut Reader,
    ) -> Result<Option<Error>, Error> {
        let cannot = |why| Error::io(&log.name, "cannot be read", why);
        let offset = reader.offset();
        let damaged = |what| Ok(Some(Error::damaged(&log.name, offset, what)));
        if self.was_synced_beyond(at, log, offset)? {
            return damaged("damaged or lost, though it was on the device");
        }
        match reader.behind().map_err(cannot)? {
            Behind::Records => damaged("a record is damaged, and others follow it"),
            Behind::Nothing | Behind::AfterHole => {
                let bytes = reader.bytes_left_before_zeros().map_err(cannot)?;
                self.end.cut_bytes += bytes;
                Ok(None)
            }
        }
    }

    /// Whether something later says that the log was on the device beyond an offset of a file: a
    /// snapshot, the beginning of a later run, or a mark.
    fn was_synced_beyond(&self, at: usize, log: &LogFile, offset: u64) -> Result<bool, Error> {
        let position = log.begin.position + offset;
        let mut snapshots = self.survey.snapshots.values().flatten();
        if snapshots.any(|it| it.finish.shows > position && !self.is_of_another(it.header.number)) {
            return Ok(true);
        }
        let mut found = false;
        for (place, number) in self.logs.iter().chain(self.behind).enumerate().skip(at) {
            let later = self.survey.log(*number)?;
            let from = if place == at { offset } else { later.second_at };
            found |=
                place > at && later.begin.how == Begun::Start && later.begin.position > position;
            visit_own(later, from, self.windows, self.survey.seed(), |kind, body| {
                let mark = Mark::unpack(body).ok().filter(|_| kind == kind::MARK);
                found |= mark.is_some_and(|mark| mark.synced > position);
            })?;
        }
        Ok(found)
    }

    /// Whether a snapshot is of a log that was begun after the failure of these: it says nothing of
    /// them.
    fn is_of_another(&self, number: u64) -> bool {
        let mut read = self.logs.iter().chain(self.behind);
        let is_afresh = self.survey.log(number).is_ok_and(|log| log.begin.how == Begun::Afresh);
        is_afresh && !read.any(|other| *other == number)
    }

    /// Drops the logs behind those that were read, up to a torn end or to one that has lost all:
    /// none of them was on the device.
    fn drop_behind(&mut self, read: usize) -> Result<(), Error> {
        if !self.behind.is_empty() && read == self.logs.len() {
            let (log, offset) = (self.survey.log(self.logs[read - 1])?, self.end.offset);
            if self.was_synced_beyond(read - 1, log, offset)? {
                let what = "what follows it is lost, though it was on the device";
                self.damaged(Error::damaged(&log.name, offset, what))?;
            }
        }
        for number in self.logs[read..].iter().chain(self.behind) {
            let log = self.survey.log(*number)?;
            self.end.cut_bytes += log.bytes - FILE_HEADER_BYTES as u64;
        }
        Ok(())
    }
}
