//! A whole differential run: generate, play, count, and on failure a minimised reproduction.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use super::command::Slot;
use super::generator::Generator;
use super::session::{Difference, Outcome, Session, common_lines};
use super::shrink::shrink;
use crate::differences::State;
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
    /// Differences without a rule.
    pub unexplained: Vec<Reproduction>,
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

/// What to play.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Repeats the same commands.
    pub seed: u64,
    /// How many commands.
    pub commands: usize,
    /// Ends after so many differences without a rule. Every one is minimised, and both servers are
    /// emptied before going on.
    pub failures_max: usize,
}

/// Plays random commands to both servers.
///
/// # Errors
/// A connection failed.
pub fn run(left: &Target, right: &Target, plan: Plan) -> io::Result<Report> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let mut session = Session::new(left, right);
    let mut generator = Generator::new(plan.seed, now, !session.pair().has_old_memcached());
    session.reset()?;
    let mut report = Report::default();
    let mut history: Vec<Slot> = Vec::new();
    while report.commands < plan.commands && report.unexplained.len() < plan.failures_max {
        let batch = session.next_batch(&mut generator);
        let outcomes = session.play(&batch)?;
        report.commands += batch.iter().map(|slot| slot.commands.len()).sum::<usize>();
        for (slot, outcome) in batch.into_iter().zip(outcomes) {
            history.push(slot);
            match outcome {
                Outcome::Same => report.same += 1,
                Outcome::Explained(rule) => {
                    *report.explained.entry(rule.id).or_default() += 1;
                    if rule.state == State::Lost {
                        session.reset()?;
                        history.clear();
                        break;
                    }
                }
                Outcome::Unexplained(difference) => {
                    let history = std::mem::take(&mut history);
                    report.unexplained.push(reproduce(&mut session, history, difference));
                    session.reset()?;
                    break;
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
    // Looking for a short history may take minutes; who watches sees this much at once.
    if let Some(slot) = history.last() {
        let found = Reproduction { slots: vec![slot.clone()], difference, repeatable: true };
        eprintln!("looking for a short history of {found}");
        return shorten(session, history, found.difference);
    }
    Reproduction { slots: Vec::new(), difference, repeatable: false }
}

fn shorten(session: &mut Session<'_>, history: Vec<Slot>, difference: Difference) -> Reproduction {
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
            match outcome {
                Outcome::Unexplained(difference) => return Ok(Some(difference)),
                Outcome::Explained(rule) if rule.state == State::Lost => return Ok(None),
                Outcome::Explained(_) | Outcome::Same => {}
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
        let Difference { request, left, right } = &self.difference;
        let shared = common_lines(left, right);
        writeln!(f, "  request: {}", escape(request))?;
        writeln!(f, "  the first {shared} bytes of the replies are the same, then")?;
        writeln!(f, "  left:    {}", escape(&left[shared..]))?;
        write!(f, "  right:   {}", escape(&right[shared..]))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} commands to each server", self.commands)?;
        writeln!(f, "{:>8}  slots with the same replies", self.same)?;
        for (id, count) in &self.explained {
            writeln!(f, "{count:>8}  differing: {id}")?;
        }
        writeln!(f, "{:>8}  unexplained", self.unexplained.len())?;
        self.unexplained.iter().try_for_each(|reproduction| writeln!(f, "{reproduction}"))
    }
}
