//! Verifies every file of a directory: what is where, and each place that is damaged.
//!
//! The verdict is the recovery's own: a directory of which this says that it starts does so under
//! `--recover=strict`, and another one does not. Behind the first damage, where a recovery stops,
//! the files are searched further, so that all of it is named.

use crate::durable::chain::{Plan, Survey, Told, walk};
use crate::durable::change::{Change, kind, visit_items};
use crate::durable::directory::{self, DAMAGED_SUFFIX, log_number, snapshot_number};
use crate::durable::disk::{Disk, LOCK_NAME};
use crate::durable::identity::IDENTITY_NAMES;
use crate::durable::reader::Windows;
use crate::durable::record::CONTINUES;
use crate::durable::{Damage, Error, ErrorKind};
use std::fmt::{self, Write};

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileState {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// What it is good for.
    pub role: &'static str,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Checked {
    /// Shards the keys are spread over. `None`: the directory holds no data, or it is not known.
    pub shards: Option<u32>,
    /// The files.
    pub files: Vec<FileState>,
    /// Items of the snapshot, and changes of logs on top of it.
    pub snapshot_items: u64,
    /// Changes in the logs.
    pub log_changes: u64,
    /// Bytes of an incomplete last write, which the next start cuts off.
    pub cut_bytes: u64,
    /// Damage that makes a strict start impossible.
    pub damages: Vec<Error>,
    /// Damage that a start makes whole again.
    pub mended: Vec<Error>,
}

/// Verifies a directory.
///
/// # Errors
/// The names of its files cannot be read. What is wrong with files is in the answer.
pub fn check(disk: &dyn Disk) -> Result<Checked, Error> {
    let mut checked = Checked::default();
    let mut plan = None;
    match Survey::take(disk, false) {
        Ok(Some(survey)) => plan = checked.check_files(survey),
        Ok(None) => {}
        Err(why) => {
            checked.damages.push(why);
            if let Ok(Some(survey)) = Survey::take(disk, true) {
                checked.search_further(&survey);
            }
        }
    }
    checked.sort_out(disk, plan.as_ref())?;
    Ok(checked)
}

impl Checked {
    /// Whether a daemon starts on it.
    pub fn starts(&self) -> bool {
        self.damages.is_empty()
    }

    /// What kind of trouble weighs most, if there is any.
    pub fn worst(&self) -> Option<ErrorKind> {
        let order = [ErrorKind::Io, ErrorKind::InUse, ErrorKind::OtherVersion, ErrorKind::Damaged];
        order.into_iter().find(|kind| self.damages.iter().any(|damage| damage.kind == *kind))
    }

    fn check_files(&mut self, survey: Survey) -> Option<Plan> {
        self.shards = Some(survey.identity.shards);
        self.mended.extend(survey.identity_damage.as_ref().map(Error::again));
        let plans = match survey.plans(&Windows::default()) {
            Ok(plans) => plans,
            Err(why) => {
                self.damages.push(why);
                self.search_further(&survey);
                return None;
            }
        };
        let is_empty = plans.is_empty();
        let mut damages = Vec::new();
        for plan in plans {
            match self.check_plan(&survey, &plan) {
                Ok(()) => {
                    self.mended.extend(damages);
                    return Some(plan);
                }
                Err(why) => damages.push(why),
            }
        }
        if !is_empty {
            self.damages.extend(damages);
            self.search_further(&survey);
        }
        None
    }

    /// Reads what a recovery would, and keeps nothing.
    fn check_plan(&mut self, survey: &Survey, plan: &Plan) -> Result<(), Error> {
        let windows = Windows::default();
        let mut items = 0;
        let snapshot = plan.snapshot.map(|number| survey.snapshot(number)).transpose()?;
        if let Some(snapshot) = snapshot {
            snapshot.read(&windows, None, &mut |window, record| {
                let body = &window[record.body.clone()];
                let counted = match record.found.kind & !CONTINUES {
                    kind::ITEMS => visit_items(body, |_, _| items += 1),
                    kind::LARGE_ITEM => {
                        items += 1;
                        Ok(())
                    }
                    _ => Ok(()),
                };
                counted.map_err(|why| Error::of(&snapshot.name, record.offset, why))
            })?;
            if items != snapshot.finish.items {
                let what = "not as many items as it says";
                return Err(Error::damaged(&snapshot.name, 0, what));
            }
        }
        let end = walk(survey, plan, &windows, None, &mut |told| {
            let Told::Change(window, record) = told else { return Ok(()) };
            let (kind, body) = (record.found.kind, &window[record.body.clone()]);
            if kind & CONTINUES != 0 || kind == kind::REST {
                return Ok(());
            }
            let change = Change::unpack(kind, body);
            let change = change.and_then(|it| it.ok_or(Damage::new("a record of no known kind")));
            change.map(|_| ()).map_err(|why| Error::of("a record", record.offset, why))
        })?;
        if let Some(snapshot) = snapshot.filter(|it| it.finish.shows > end.position) {
            let what = "it shows changes that the log has lost";
            return Err(Error::damaged(&snapshot.name, 0, what));
        }
        (self.snapshot_items, self.log_changes) = (items, end.changes);
        self.cut_bytes = end.cut_bytes;
        Ok(())
    }

    /// Names every damage of every file.
    fn search_further(&mut self, survey: &Survey) {
        let (windows, mut found) = (Windows::default(), Vec::new());
        for snapshot in survey.snapshots.values().flatten() {
            let read = snapshot.read(&windows, Some(&mut found), &mut |_, _| Ok(()));
            found.extend(read.err());
        }
        for log in survey.logs.values() {
            found.extend(log.as_ref().err().map(Error::again));
        }
        for number in survey.salvage_plan().logs {
            let read =
                walk(survey, &Plan::of_log(number), &windows, Some(&mut found), &mut |_| Ok(()));
            found.extend(read.err());
        }
        for damage in found {
            let is_same =
                |other: &Error| (&other.file, other.offset) == (&damage.file, damage.offset);
            if !self.damages.iter().any(is_same) {
                self.damages.push(damage);
            }
        }
    }

    /// Says of every file in the directory what it is.
    fn sort_out(&mut self, disk: &dyn Disk, plan: Option<&Plan>) -> Result<(), Error> {
        for name in directory::names(disk)? {
            let bytes = disk.open(&name).and_then(|file| file.len()).unwrap_or(0);
            let role = match (log_number(&name), snapshot_number(&name), plan) {
                _ if name == LOCK_NAME => continue,
                _ if IDENTITY_NAMES.contains(&name.as_str()) => "what the directory is",
                _ if name.contains(DAMAGED_SUFFIX) => "damaged, kept by an earlier start",
                (Some(log), _, Some(plan)) if plan.logs.contains(&log) => "changes",
                (_, Some(snapshot), Some(plan)) if plan.snapshot == Some(snapshot) => "items",
                (Some(_), _, None) => "changes, not all of them readable",
                (_, Some(_), None) => "items, not all of them readable",
                (Some(_), _, _) | (_, Some(_), _) => "not needed: the next start removes it",
                (None, None, _) => "none of ours",
            };
            self.files.push(FileState { name, bytes, role });
        }
        Ok(())
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.shards {
            Some(shards) => writeln!(
                out,
                "{shards} shards; {} items in the snapshot, {} changes behind it",
                self.snapshot_items, self.log_changes
            )?,
            None if self.damages.is_empty() => writeln!(out, "no data")?,
            None => {}
        }
        for FileState { name, bytes, role } in &self.files {
            writeln!(out, "{name:<24} {bytes:>12} bytes  {role}")?;
        }
        for damage in &self.mended {
            writeln!(out, "mended by a start: {damage}")?;
        }
        for damage in &self.damages {
            writeln!(out, "DAMAGE {damage}")?;
        }
        let mut verdict = match self.damages.len() {
            0 => "intact".to_owned(),
            1 => "1 damage".to_owned(),
            count => format!("{count} damages"),
        };
        if self.cut_bytes > 0 {
            let cut = self.cut_bytes;
            write!(verdict, ", but for {cut} bytes to be cut off")?;
        }
        writeln!(out, "{verdict}")
    }
}
