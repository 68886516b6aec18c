//! What a server may answer after a crash. Owns the history of each key (the mutations issued, and
//! which of them were acknowledged when), the states that follow from it, and the verdict on a
//! state found after a restart. No I/O; time is an argument.
//!
//! A key has one writer, which sends its mutations over one connection. So the mutations of a key
//! have one order, and what recovery yields must be the state behind one of them:
//!
//! ```text
//! steps        0 (found at the last restart)   1    2    3    4    5
//! acknowledged yes                             yes  yes  yes  no   no
//!                                                        ^^^^^^^^^^^^^ allowed after a kill
//! ```

use std::sync::Arc;
use std::time::Instant;

/// How far the expiry told by a server may be from the one asked for: its clock ticks in seconds.
const EXPIRY_TOLERANCE_S: u64 = 2;

/// Whose rules apply where they differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// memcached's text protocol.
    Text,
    /// Redis.
    Resp,
}

/// A mutation of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Set {
        value: Arc<[u8]>,
        flags: u32,
        expires: u64,
    },
    Delete,
    Append(Arc<[u8]>),
    Incr(u64),
    Decr(u64),
    Touch(u64),
    /// Of all keys; a step in the history of each.
    Flush,
}

/// What is stored under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub value: Arc<[u8]>,
    pub flags: u32,
    /// Unix seconds; 0 for never.
    pub expires: u64,
}

pub(crate) type State = Option<Item>;

/// A reply to a mutation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Done,
    /// There is no such key.
    Missing,
    Number(u64),
    /// The server says that it cannot.
    Refused(String),
    /// None of these.
    Garbage(String),
}

/// What the writer knows of a mutation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Sent; no reply received.
    Pending,
    Acknowledged(Instant, Reply),
    /// Refused: it may have taken effect or not.
    Doubtful,
}

/// What a read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    pub value: Vec<u8>,
    /// `None` if the protocol has no flags.
    pub flags: Option<u32>,
    /// Seconds left; `None` if it never expires.
    pub ttl_s: Option<u64>,
}

#[derive(Clone, Debug)]
struct Step {
    /// Position in the stream of the writer.
    position: u64,
    op: Op,
    outcome: Outcome,
}

/// The mutations of one key since the last restart.
#[derive(Clone, Debug, Default)]
pub struct History {
    baseline: State,
    steps: Vec<Step>,
}

/// What is wrong with a state found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Nothing there, though something acknowledged should be.
    Lost,
    /// An older value than the acknowledged one.
    Stale,
    /// A value there, though its removal was acknowledged.
    Resurrected,
    /// Value as issued, but with other flags or another expiry.
    Attributes,
    /// A value that this key never had.
    Wrong,
    /// A reply, before the crash, that no possible state explains.
    Reply,
}

/// The verdict on one key.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    pub fault: Option<Fault>,
    /// Acknowledged mutations whose effect is gone.
    pub lost: u64,
    /// When the first of them was acknowledged; `None` also if it was before the last restart.
    pub lost_since: Option<Instant>,
    /// The state found belongs to none of the steps.
    pub unexplained: bool,
    /// Positions in the stream, from and to (exclusive), behind which the key had this state.
    pub intervals: Vec<(u64, u64)>,
}

/// The state behind `op`, and the reply that says so.
fn apply(dialect: Dialect, op: &Op, state: &State) -> (State, Reply) {
    let changed = |state: &State, value: Vec<u8>, reply: Reply| {
        let (flags, expires) = state.as_ref().map_or((0, 0), |item| (item.flags, item.expires));
        (Some(Item { value: value.into(), flags, expires }), reply)
    };
    let current = || state.as_ref().map_or(Some(0), |item| number(&item.value));
    match (op, state) {
        (Op::Set { value, flags, expires }, _) => {
            // Redis has no flags: a read says nothing of them, so any will do.
            let item = Item { value: value.clone(), flags: *flags, expires: *expires };
            (Some(item), Reply::Done)
        }
        (Op::Flush, _) => (None, Reply::Done),
        (Op::Delete | Op::Touch(_), None) => (None, Reply::Missing),
        (Op::Append(_) | Op::Incr(_) | Op::Decr(_), None) if dialect == Dialect::Text => {
            (None, Reply::Missing)
        }
        (Op::Delete, Some(_)) => (None, Reply::Done),
        (Op::Touch(expires), Some(item)) => {
            (Some(Item { expires: *expires, ..item.clone() }), Reply::Done)
        }
        (Op::Append(tail), _) => {
            let mut value = state.as_ref().map_or_else(Vec::new, |item| item.value.to_vec());
            value.extend_from_slice(tail);
            changed(state, value, Reply::Done)
        }
        (Op::Incr(delta) | Op::Decr(delta), _) => {
            let Some(before) = current() else { return (state.clone(), Reply::Missing) };
            let after = match op {
                Op::Incr(_) => before.wrapping_add(*delta),
                _ => before.saturating_sub(*delta),
            };
            changed(state, after.to_string().into_bytes(), Reply::Number(after))
        }
    }
}

/// A counter. memcached leaves blanks behind a number that has become shorter.
fn number(value: &[u8]) -> Option<u64> {
    str::from_utf8(value).ok()?.trim_end().parse().ok()
}

fn same_value(expected: &[u8], found: &[u8]) -> bool {
    expected == found || (number(expected).is_some() && number(expected) == number(found))
}

/// Whether a read at `now` (unix seconds) may find this of an item in that state.
fn fits(state: &State, observed: Option<&Observed>, now: u64) -> bool {
    match (state, observed) {
        (None, None) => true,
        (Some(item), None) => item.expires != 0 && item.expires <= now + EXPIRY_TOLERANCE_S,
        (None, Some(_)) => false,
        (Some(item), Some(found)) => {
            let expiry = match (item.expires, found.ttl_s) {
                (0, left) => left.is_none(),
                (_, None) => false,
                (expires, Some(left)) => expires.abs_diff(now + left) <= EXPIRY_TOLERANCE_S,
            };
            let flags = found.flags.is_none_or(|flags| flags == item.flags);
            expiry && flags && same_value(&item.value, &found.value)
        }
    }
}

impl History {
    /// Notes a mutation that is about to be sent. Returns the number of its step.
    pub fn issue(&mut self, position: u64, op: Op) -> usize {
        self.steps.push(Step { position, op, outcome: Outcome::Pending });
        self.steps.len() - 1
    }

    /// The mutation of a step.
    pub fn op(&self, step: usize) -> &Op {
        &self.steps[step].op
    }

    /// Notes the reply.
    pub fn settle(&mut self, step: usize, outcome: Outcome) {
        self.steps[step].outcome = outcome;
    }

    /// The states possible behind the baseline and each step, and the first step whose reply none
    /// of them explains. `strict`: a mutation without a reply is followed by none that took
    /// effect unless it did; false where the disk failed in between.
    fn states(&self, dialect: Dialect, strict: bool) -> (Vec<Vec<State>>, Option<usize>) {
        let mut all = vec![vec![self.baseline.clone()]];
        let mut unexplained = None;
        for (at, step) in self.steps.iter().enumerate() {
            let before = &all[at];
            let mut after = Vec::new();
            for state in before {
                let (next, reply) = apply(dialect, &step.op, state);
                // An item with an expiry may have gone by itself.
                let may_be_gone = state.as_ref().is_some_and(|item| item.expires != 0);
                let explained = match &step.outcome {
                    Outcome::Acknowledged(_, seen) => *seen == reply || may_be_gone,
                    _ => true,
                };
                if explained {
                    after.push(next);
                }
            }
            if after.is_empty() {
                unexplained = unexplained.or(Some(at));
                after = before.iter().map(|state| apply(dialect, &step.op, state).0).collect();
            }
            let may_have_failed = match step.outcome {
                Outcome::Acknowledged(..) => false,
                Outcome::Pending => !strict,
                Outcome::Doubtful => true,
            };
            if may_have_failed {
                for state in before {
                    if !after.contains(state) {
                        after.push(state.clone());
                    }
                }
            }
            all.push(after);
        }
        (all, unexplained)
    }

    /// Judges what a read at `now` (unix seconds) found after a crash at `crash`; replies received
    /// later than that do not count.
    pub fn judge(
        &self,
        dialect: Dialect,
        strict: bool,
        observed: Option<&Observed>,
        now: u64,
        crash: Instant,
    ) -> Verdict {
        let (states, unexplained_reply) = self.states(dialect, strict);
        let fitting = |at: &usize| states[*at].iter().any(|state| fits(state, observed, now));
        let matched: Vec<usize> = (0..states.len()).filter(fitting).collect();
        let mut verdict = Verdict { unexplained: matched.is_empty(), ..Verdict::default() };
        let from = |at: usize| if at == 0 { 0 } else { self.steps[at - 1].position };
        let to = |at: usize| self.steps.get(at).map_or(u64::MAX, |step| step.position);
        verdict.intervals = matched.iter().map(|&at| (from(at), to(at))).collect();
        let last = matched.last().copied().unwrap_or(0);
        for step in &self.steps[last..] {
            if let Outcome::Acknowledged(when, _) = step.outcome
                && when < crash
            {
                verdict.lost += 1;
                verdict.lost_since.get_or_insert(when);
            }
        }
        if verdict.unexplained {
            verdict.fault = Some(self.unexplained(&states, observed));
            // What was there at the last restart was acknowledged as well.
            verdict.lost = verdict.lost.max(1);
            verdict.lost_since = None;
        } else if verdict.lost > 0 {
            let gone = states.iter().rev().flatten().next().is_some_and(Option::is_none);
            verdict.fault = Some(match (observed, gone) {
                (None, _) => Fault::Lost,
                (Some(_), true) => Fault::Resurrected,
                (Some(_), false) => Fault::Stale,
            });
        } else if unexplained_reply.is_some() {
            verdict.fault = Some(Fault::Reply);
        }
        verdict
    }

    /// Whether a read while the server runs finds what the replies so far allow.
    pub fn agrees(&self, dialect: Dialect, observed: Option<&Observed>, now: u64) -> bool {
        let (states, _) = self.states(dialect, false);
        states.last().is_some_and(|last| last.iter().any(|state| fits(state, observed, now)))
    }

    /// What kind of fault a state is that belongs to none of the steps.
    fn unexplained(&self, states: &[Vec<State>], observed: Option<&Observed>) -> Fault {
        let Some(found) = observed else { return Fault::Lost };
        let known = states.iter().flatten().flatten();
        if known.into_iter().any(|item| same_value(&item.value, &found.value)) {
            Fault::Attributes
        } else if self.baseline.is_none() && self.steps.is_empty() {
            Fault::Resurrected
        } else {
            Fault::Wrong
        }
    }

    /// Starts anew from what was found after a restart.
    pub fn rebase(&mut self, dialect: Dialect, observed: Option<&Observed>, now: u64) {
        let (states, _) = self.states(dialect, false);
        let known = states.into_iter().rev().flatten();
        let matched = known.into_iter().find(|state| fits(state, observed, now));
        self.baseline = matched.unwrap_or_else(|| observed.map(|found| found.as_item(now)));
        self.steps.clear();
    }

    /// For messages: what was there at the last restart and the last few mutations.
    pub fn summary(&self) -> String {
        let mut text = format!("at first {}", describe(&self.baseline));
        let skipped = self.steps.len().saturating_sub(4);
        if skipped > 0 {
            text += &format!("; {skipped} mutations");
        }
        for step in &self.steps[skipped..] {
            let outcome = match &step.outcome {
                Outcome::Acknowledged(_, reply) => format!("{reply:?}"),
                outcome => format!("{outcome:?}"),
            };
            let op = match &step.op {
                Op::Set { value, flags, expires } => {
                    format!("set {} {flags} {expires}", shorten(value))
                }
                Op::Append(tail) => format!("append {}", shorten(tail)),
                op => format!("{op:?}"),
            };
            text += &format!("; {op} -> {outcome}");
        }
        text
    }

    /// Acknowledged mutations since the last restart.
    pub fn acknowledged(&self) -> u64 {
        let acknowledged =
            |step: &&Step| matches!(step.outcome, Outcome::Acknowledged(_, ref r) if is_success(r));
        self.steps.iter().filter(acknowledged).count() as u64
    }

    /// Acknowledged mutations whose reply came later than `when`.
    pub fn acknowledged_after(&self, when: Instant) -> u64 {
        let late = |step: &&Step| match &step.outcome {
            Outcome::Acknowledged(at, reply) => *at > when && is_success(reply),
            _ => false,
        };
        self.steps.iter().filter(late).count() as u64
    }
}

fn shorten(value: &[u8]) -> String {
    let start = &value[..value.len().min(24)];
    format!("{} ({} bytes)", start.escape_ascii(), value.len())
}

fn describe(state: &State) -> String {
    match state {
        Some(item) => format!("{} {} {}", shorten(&item.value), item.flags, item.expires),
        None => "nothing".to_owned(),
    }
}

/// Whether the reply tells of a change.
fn is_success(reply: &Reply) -> bool {
    matches!(reply, Reply::Done | Reply::Number(_))
}

impl Observed {
    fn as_item(&self, now: u64) -> Item {
        Item {
            value: self.value.as_slice().into(),
            flags: self.flags.unwrap_or(0),
            expires: self.ttl_s.map_or(0, |left| now + left),
        }
    }
}

/// Whether one prefix of the writer's stream explains the states of all its keys; `keys` holds the
/// intervals of each. True without keys.
pub(crate) fn one_prefix(keys: &[Vec<(u64, u64)>]) -> bool {
    let mut events: Vec<(u64, i64)> = Vec::new();
    for intervals in keys {
        // Neighbouring intervals join, so that none is counted twice at one position.
        for &(from, to) in intervals {
            events.push((from, 1));
            events.push((to, -1));
        }
    }
    // Ends come before starts at the same position: intervals exclude their end.
    events.sort_unstable();
    let mut open = 0;
    let mut most = 0;
    for (_, change) in events {
        open += change;
        most = most.max(open);
    }
    most >= keys.len() as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NOW: u64 = 1_000_000;

    fn set(value: &str) -> Op {
        Op::Set { value: value.as_bytes().into(), flags: 7, expires: 0 }
    }

    fn found(value: &str) -> Option<Observed> {
        Some(Observed { value: value.into(), flags: Some(7), ttl_s: None })
    }

    /// A history of steps, `true` for acknowledged, and the fault and loss of a state found.
    fn check(steps: &[(Op, Option<Reply>)], observed: Option<Observed>) -> (Option<Fault>, u64) {
        let start = Instant::now();
        let mut history = History::default();
        for (at, (op, reply)) in steps.iter().enumerate() {
            let step = history.issue(at as u64 + 1, op.clone());
            if let Some(reply) = reply {
                history.settle(step, Outcome::Acknowledged(start, reply.clone()));
            }
        }
        let crash = start + Duration::from_secs(1);
        let verdict = history.judge(Dialect::Text, true, observed.as_ref(), NOW, crash);
        (verdict.fault, verdict.lost)
    }

    #[test]
    fn faults_by_history() {
        use Fault::{Attributes, Lost, Resurrected, Stale, Wrong};
        let done = Some(Reply::Done);
        let two = [(set("a"), done.clone()), (set("b"), done.clone())];
        assert_eq!(check(&two, found("b")), (None, 0));
        assert_eq!(check(&two, found("a")), (Some(Stale), 1));
        assert_eq!(check(&two, None), (Some(Lost), 2));
        assert_eq!(check(&two, found("c")), (Some(Wrong), 2));
        let other_flags = Observed { flags: Some(8), ..found("b").unwrap() };
        assert_eq!(check(&two, Some(other_flags)), (Some(Attributes), 2));
        let other_expiry = Observed { ttl_s: Some(60), ..found("b").unwrap() };
        assert_eq!(check(&two, Some(other_expiry)), (Some(Attributes), 2));

        let pending = [(set("a"), done.clone()), (set("b"), None), (set("c"), None)];
        for value in ["a", "b", "c"] {
            assert_eq!(check(&pending, found(value)), (None, 0), "{value}");
        }
        let deleted = [(set("a"), done.clone()), (Op::Delete, done.clone())];
        assert_eq!(check(&deleted, None), (None, 0));
        assert_eq!(check(&deleted, found("a")), (Some(Resurrected), 1));
        let flushed = [(set("a"), done.clone()), (Op::Flush, None)];
        assert_eq!(check(&flushed, None), (None, 0));
        assert_eq!(check(&flushed, found("a")), (None, 0));
        let appended = [(set("a"), done.clone()), (Op::Append(b"b"[..].into()), done.clone())];
        assert_eq!(check(&appended, found("ab")), (None, 0));
        assert_eq!(check(&appended, found("a")), (Some(Stale), 1));
        assert_eq!(check(&appended, found("abb")), (Some(Wrong), 2));
    }

    #[test]
    fn counters_are_exact() {
        let done = Some(Reply::Done);
        let counted =
            |result| [(set("100"), done.clone()), (Op::Decr(1), Some(Reply::Number(result)))];
        assert_eq!(check(&counted(99), found("99 ")), (None, 0));
        assert_eq!(check(&counted(99), found("100")), (Some(Fault::Stale), 1));
        assert_eq!(check(&counted(98), found("99")), (Some(Fault::Reply), 0));
        assert_eq!(check(&counted(99), found("98")), (Some(Fault::Wrong), 2));
    }

    #[test]
    fn refused_mutations_may_have_happened() {
        let mut history = History::default();
        let now = Instant::now();
        let step = history.issue(1, set("100"));
        history.settle(step, Outcome::Acknowledged(now, Reply::Done));
        let step = history.issue(2, Op::Incr(1));
        history.settle(step, Outcome::Doubtful);
        let step = history.issue(3, Op::Incr(10));
        history.settle(step, Outcome::Acknowledged(now, Reply::Number(110)));
        let crash = now + Duration::from_secs(1);
        let fault = |value: &str| {
            history.judge(Dialect::Text, false, found(value).as_ref(), NOW, crash).fault
        };
        assert_eq!(fault("110"), None);
        assert_eq!(fault("111"), Some(Fault::Wrong));
    }

    #[test]
    fn replies_after_the_crash_do_not_count() {
        let mut history = History::default();
        let crash = Instant::now();
        let step = history.issue(1, set("a"));
        let late = crash + Duration::from_millis(1);
        history.settle(step, Outcome::Acknowledged(late, Reply::Done));
        let verdict = history.judge(Dialect::Text, true, None, NOW, crash);
        assert_eq!((verdict.fault, verdict.lost), (None, 0));
    }

    #[test]
    fn expired_items_may_be_gone_and_must_not_stay() {
        let item = |expires| Some(Item { value: b"a"[..].into(), flags: 7, expires });
        let left = |ttl_s| Some(Observed { ttl_s, ..found("a").unwrap() });
        assert!(fits(&item(NOW - 1), None, NOW));
        assert!(!fits(&item(NOW + 10), None, NOW));
        assert!(fits(&item(NOW + 10), left(Some(9)).as_ref(), NOW));
        assert!(!fits(&item(NOW + 10), left(Some(20)).as_ref(), NOW));
        assert!(!fits(&item(NOW + 10), left(None).as_ref(), NOW));
        assert!(!fits(&item(NOW - 10), left(Some(0)).as_ref(), NOW));
    }

    #[test]
    fn redis_appends_to_nothing() {
        let (state, _) = apply(Dialect::Resp, &Op::Append(b"x"[..].into()), &None);
        assert_eq!(state.unwrap().value.as_ref(), b"x");
        assert_eq!(apply(Dialect::Text, &Op::Append(b"x"[..].into()), &None).1, Reply::Missing);
    }

    #[test]
    fn prefixes_of_a_stream() {
        assert!(one_prefix(&[]));
        assert!(one_prefix(&[vec![(0, 5)], vec![(3, u64::MAX)]]));
        assert!(!one_prefix(&[vec![(0, 3)], vec![(3, u64::MAX)]]));
        assert!(one_prefix(&[vec![(0, 3), (7, 9)], vec![(8, u64::MAX)]]));
        assert!(!one_prefix(&[vec![(0, 3), (7, 8)], vec![(8, 9)]]));
    }
}
