//! A whole differential run: generate, play, count, and on failure a minimised reproduction.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use super::command::Slot;
use super::generator::Generator;
use super::session::{Difference, Outcome, Session};
use super::shrink::shrink;
use crate::target::Target;
use crate::transcript::template::escape;

/// Slots remembered for a reproduction. Items live as long as their keys are not used, so older
/// slots hardly ever matter.
const HISTORY_SLOTS_MAX: usize = 60_000;
/// Slots played together when a difference is reproduced.
const REPLAY_SLOTS: usize = 40;

/// What a run found.
#[derive(Debug, Default)]
pub struct Report {
    /// Commands sent to each server.
    pub commands: usize,
    /// Slots that compared the same.
    pub same: usize,
    /// Slots that differed as a rule allows, by the rule's name.
    pub explained: BTreeMap<&'static str, usize>,
    /// The first difference without a rule; the run ends there.
    pub unexplained: Option<Reproduction>,
}

/// The commands that lead to a difference.
#[derive(Debug)]
pub struct Reproduction {
    /// In order, from empty servers.
    pub slots: Vec<Slot>,
    /// The difference, as first seen.
    pub difference: Difference,
    /// Whether playing `slots` shows a difference again.
    pub repeatable: bool,
}

/// Plays `commands` random commands to both servers.
///
/// # Errors
/// A connection failed.
pub fn run(left: &Target, right: &Target, seed: u64, commands: usize) -> io::Result<Report> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut generator = Generator::new(seed, i64::try_from(now).unwrap_or(i64::MAX));
    let mut session = Session::new(left, right);
    session.reset()?;
    let mut report = Report::default();
    let mut history: Vec<Slot> = Vec::new();
    while report.commands < commands {
        let batch = session.next_batch(&mut generator);
        let outcomes = session.play(&batch)?;
        report.commands += batch.iter().map(|slot| slot.commands.len()).sum::<usize>();
        for (slot, outcome) in batch.into_iter().zip(outcomes) {
            history.push(slot);
            match outcome {
                Outcome::Same => report.same += 1,
                Outcome::Explained(rule) => *report.explained.entry(rule.id).or_default() += 1,
                Outcome::Unexplained(difference) => {
                    report.unexplained = Some(reproduce(&mut session, history, difference));
                    return Ok(report);
                }
            }
        }
        if HISTORY_SLOTS_MAX < history.len() {
            history.drain(..HISTORY_SLOTS_MAX / 2);
        }
    }
    Ok(report)
}

/// Looks for a short history that shows a difference, beginning with the most likely ones.
fn reproduce(
    session: &mut Session<'_>,
    history: Vec<Slot>,
    difference: Difference,
) -> Reproduction {
    let mut fails = |slots: &[Slot]| matches!(replay(session, slots), Ok(Some(_)));
    let same_keys = sharing_keys(&history);
    let recent = history[history.len().saturating_sub(2000)..].to_vec();
    for candidate in [same_keys, recent, history.clone()] {
        if fails(&candidate) {
            let slots = shrink(candidate, fails);
            // What the short version answers is easier to understand than the first finding.
            let shown = replay(session, &slots).ok().flatten();
            let repeatable = shown.is_some();
            return Reproduction { slots, difference: shown.unwrap_or(difference), repeatable };
        }
    }
    let slots = history.last().cloned().into_iter().collect();
    Reproduction { slots, difference, repeatable: false }
}

/// The slots that use a key of the last one.
fn sharing_keys(history: &[Slot]) -> Vec<Slot> {
    let keys = |slot: &Slot| -> Vec<Vec<u8>> {
        slot.commands.iter().flat_map(|command| command.keys.clone()).collect()
    };
    let wanted = history.last().map(keys).unwrap_or_default();
    let shares = |slot: &&Slot| keys(slot).iter().any(|key| wanted.contains(key));
    let mut slots: Vec<Slot> = history.iter().filter(shares).cloned().collect();
    if wanted.is_empty() {
        slots.extend(history.last().cloned());
    }
    slots
}

/// Plays slots to empty servers; returns the first difference.
fn replay(session: &mut Session<'_>, slots: &[Slot]) -> io::Result<Option<Difference>> {
    session.reset()?;
    let mut rest = slots;
    while !rest.is_empty() {
        let end = rest.iter().position(Slot::closes).map_or(rest.len(), |index| index + 1);
        let (batch, after) = rest.split_at(end.min(REPLAY_SLOTS));
        for outcome in session.play(batch)? {
            if let Outcome::Unexplained(difference) = outcome {
                return Ok(Some(difference));
            }
        }
        rest = after;
    }
    Ok(None)
}

impl fmt::Display for Reproduction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let note = if self.repeatable { "" } else { " (did not happen again)" };
        writeln!(f, "an unexplained difference{note}; one line per slot:")?;
        for slot in &self.slots {
            let commands: Vec<String> = slot.commands.iter().map(|it| it.display()).collect();
            writeln!(f, "    {}", commands.concat())?;
        }
        writeln!(f, "  request: {}", escape(&self.difference.request))?;
        writeln!(f, "  left:    {}", escape(&self.difference.left))?;
        write!(f, "  right:   {}", escape(&self.difference.right))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} commands to each server", self.commands)?;
        writeln!(f, "{:>8}  slots with the same replies", self.same)?;
        for (id, count) in &self.explained {
            writeln!(f, "{count:>8}  differing: {id}")?;
        }
        writeln!(f, "{:>8}  unexplained", usize::from(self.unexplained.is_some()))?;
        match &self.unexplained {
            Some(reproduction) => writeln!(f, "{reproduction}"),
            None => Ok(()),
        }
    }
}
