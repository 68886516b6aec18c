//! The steps of a snapshot, modelled: another log, items, what they show made safe, last record,
//! read back, older files removed. Every step may fail, the log may fail between any two, and the
//! process may be killed or the power cut at any moment.
//!
//! Goal: a start always finds a whole snapshot with the complete log since, or the complete log:
//! all that clients were told, and nothing that is mixed of two moments. Method: plain enumeration
//! of all orders of a few changes, commits, syncs, steps and failures; for each state every disk
//! that a kill or a loss of power can leave is recovered from. The rules that are kept on the way
//! are each dropped once to see that the model notices.
//!
//! What is real and what is not: nothing here is the daemon's code. Steps are those of
//! `durable::snapshotter` and `durable::committer`, the judgement of what is found that of
//! `durable::chain` and `durable::recovery`, in the same order and with the same conditions.
//! Changes are numbers: a state is how many of them it shows. A file that is not synced is there or
//! not; the bytes of records are the subject of `tests/durability`.
//!
//! Run: `cargo test -p models`.

use std::collections::HashSet;

/// Bounds of one history. With these there are some hundred thousand states.
const CHANGES_MAX: u8 = 3;
const SNAPSHOTS_MAX: u8 = 2;
const FAILURES_MAX: u8 = 2;

/// What the daemon keeps to.
#[derive(Debug, Clone, Copy)]
struct Rules {
    /// The name of a new file is on the device before the file is used.
    sync_names: bool,
    /// A sync of the log is of all files that it is not done with.
    sync_all_logs: bool,
    /// What failed to be written or synced is left alone.
    leave_failed_log: bool,
    /// A log begun after a failure counts only with a snapshot of its own.
    fresh_log_needs_snapshot: bool,
    /// The log is on the device up to what a snapshot shows before its last record is written.
    sync_log_before_last_record: bool,
    /// So is the rest of the snapshot.
    sync_items_before_last_record: bool,
    /// The last record is on the device before anything is made of it.
    sync_last_record: bool,
    /// Changes that were refused are taken again only if the log is still good.
    accept_with_good_log: bool,
    /// A snapshot is read before older files go.
    read_back: bool,
    /// And before changes are taken again.
    accept_what_was_read: bool,
    /// They go at the end.
    remove_last: bool,
    /// A start takes a log that is made, and has lost its beginning, for the end of the log before.
    lost_log_is_an_end: bool,
    /// It does without a log begun after a failure whose snapshot cannot be read, if nobody was
    /// told of what is in it.
    go_around_fresh_log: bool,
}

/// As `durable::snapshotter` does it.
const AS_BUILT: Rules = Rules {
    sync_names: true,
    sync_all_logs: true,
    leave_failed_log: true,
    fresh_log_needs_snapshot: true,
    sync_log_before_last_record: true,
    sync_items_before_last_record: true,
    sync_last_record: true,
    accept_with_good_log: true,
    read_back: true,
    accept_what_was_read: true,
    remove_last: true,
    lost_log_is_an_end: true,
    go_around_fresh_log: true,
};

/// Whether something is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    Absent,
    /// In the kernel's memory.
    Written,
    OnDevice,
    /// A name that is removed there, and not yet on the device.
    Leaving,
}

impl Part {
    fn synced(self) -> Self {
        match self {
            Self::Written => Self::OnDevice,
            Self::Leaving => Self::Absent,
            other => other,
        }
    }

    /// What a crash leaves of it.
    fn after(self, crash: &mut Crash) -> bool {
        match self {
            Self::Absent => false,
            Self::OnDevice => true,
            Self::Written => !crash.loses(),
            Self::Leaving => crash.loses(),
        }
    }
}

/// One way for a crash to end: which of the things that are not synced are lost.
struct Crash {
    power: bool,
    lost: u32,
    asked: u32,
}

impl Crash {
    fn loses(&mut self) -> bool {
        let lost = self.lost >> self.asked & 1 == 1;
        self.asked += u32::from(self.power);
        self.power && lost
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Begun {
    First,
    Roll,
    Afresh,
}

/// A log: changes above `base` are in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Log {
    number: u8,
    name: Part,
    begun: Part,
    how: Begun,
    before: u8,
    base: u8,
    written: u8,
    synced: u8,
    /// Says that a snapshot counts: changes were taken again.
    notes_snapshot: Part,
    /// A sync has failed: later ones succeed, and nothing comes of them.
    lies: bool,
}

impl Log {
    fn sync(&mut self) {
        if !self.lies {
            (self.begun, self.synced) = (self.begun.synced(), self.written);
            self.notes_snapshot = self.notes_snapshot.synced();
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Snapshot {
    number: u8,
    name: Part,
    body: Part,
    last_record: Part,
    /// The newest change that its items show, and what its last record says of that.
    items: u8,
    shows: u8,
    rotten: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    MakeLog,
    Roll,
    MakeSnapshot,
    Items,
    WaitForLog,
    SyncItems,
    LastRecord,
    SyncLastRecord,
    ReadBack,
    Accept,
    RemoveOlder,
    SyncNames,
}

const STEPS: [Step; 12] = [
    Step::MakeLog,
    Step::Roll,
    Step::MakeSnapshot,
    Step::Items,
    Step::WaitForLog,
    Step::SyncItems,
    Step::LastRecord,
    Step::SyncLastRecord,
    Step::ReadBack,
    Step::Accept,
    Step::RemoveOlder,
    Step::SyncNames,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    logs: Vec<Log>,
    snapshots: Vec<Snapshot>,
    /// The log that is written, by its place.
    current: usize,
    /// Changes in memory; those told to clients if the process is killed, or the power cut.
    done: u8,
    told: u8,
    told_synced: u8,
    log_failed: bool,
    refusing: bool,
    step: usize,
    snapshots_begun: u8,
    failures: u8,
}

impl State {
    fn first() -> Self {
        let log = Log {
            number: 1,
            name: Part::OnDevice,
            begun: Part::OnDevice,
            how: Begun::First,
            before: 0,
            base: 0,
            written: 0,
            synced: 0,
            notes_snapshot: Part::Absent,
            lies: false,
        };
        Self {
            logs: vec![log],
            snapshots: Vec::new(),
            current: 0,
            done: 0,
            told: 0,
            told_synced: 0,
            log_failed: false,
            refusing: false,
            step: 0,
            snapshots_begun: 0,
            failures: 0,
        }
    }

    fn log(&mut self) -> &mut Log {
        &mut self.logs[self.current]
    }

    fn snapshot(&mut self) -> &mut Snapshot {
        self.snapshots.last_mut().expect("one is being written")
    }

    fn new_name(rules: Rules) -> Part {
        if rules.sync_names { Part::OnDevice } else { Part::Written }
    }

    /// Everything that can happen next.
    fn successors(&self, rules: Rules) -> Vec<Self> {
        let mut all = Vec::new();
        let mut add = |change: &dyn Fn(&mut Self)| {
            let mut next = self.clone();
            change(&mut next);
            all.push(next);
        };
        if self.done < CHANGES_MAX && !self.refusing {
            add(&Self::change);
        }
        if !self.log_failed {
            add(&Self::commit);
            add(&|next| next.sync(rules));
        }
        let may_fail = self.failures < FAILURES_MAX;
        if may_fail && !self.log_failed {
            add(&|next| next.fail_log(rules));
        }
        if self.snapshots_begun < SNAPSHOTS_MAX {
            add(&|next| next.take_step(rules));
            if may_fail {
                add(&|next| next.fail_step(rules, false));
                add(&|next| next.fail_step(rules, true));
            }
            if may_fail && STEPS[self.step] == Step::SyncLastRecord {
                add(&|next| {
                    next.failures += 1;
                    next.snapshot().rotten = true;
                    next.take_step(rules);
                });
            }
        }
        all
    }

    fn change(&mut self) {
        self.done += 1;
        if self.log_failed {
            // Taken though there is no log: nothing holds the reply back.
            self.tell(self.done, self.done);
        }
    }

    fn commit(&mut self) {
        let done = self.done;
        self.log().written = done;
        self.tell(done, self.told_synced);
    }

    /// Replies leave. What was changed when the log failed is never told.
    fn tell(&mut self, written: u8, synced: u8) {
        if !self.refusing {
            (self.told, self.told_synced) = (self.told.max(written), self.told_synced.max(synced));
        }
    }

    fn sync(&mut self, rules: Rules) {
        let current = self.current;
        for (at, log) in self.logs.iter_mut().enumerate().take(current + 1) {
            if at == current || rules.sync_all_logs {
                log.sync();
            }
        }
        let written = self.log().written;
        self.tell(self.told, written);
    }

    fn fail_log(&mut self, rules: Rules) {
        self.failures += 1;
        if rules.leave_failed_log {
            (self.log_failed, self.refusing) = (true, true);
        } else {
            self.log().lies = true;
        }
    }

    fn take_step(&mut self, rules: Rules) {
        let done = self.done;
        match STEPS[self.step] {
            Step::MakeLog => self.make_log(rules),
            Step::Roll => self.roll(),
            Step::MakeSnapshot => self.make_snapshot(rules),
            Step::Items => {
                let snapshot = self.snapshot();
                (snapshot.body, snapshot.items) = (Part::Written, done);
            }
            Step::WaitForLog if self.log_failed => return self.give_up(true),
            Step::WaitForLog => {
                self.commit();
                if rules.sync_log_before_last_record {
                    self.sync(rules);
                }
                self.snapshot().shows = done;
            }
            Step::SyncItems if rules.sync_items_before_last_record => {
                self.snapshot().body = Part::OnDevice;
            }
            Step::LastRecord => self.snapshot().last_record = Part::Written,
            Step::SyncLastRecord if rules.sync_last_record => {
                let snapshot = self.snapshot();
                (snapshot.body, snapshot.last_record) = (Part::OnDevice, Part::OnDevice);
                if !rules.accept_what_was_read {
                    self.accept(rules);
                }
            }
            Step::Accept => self.accept(rules),
            Step::ReadBack if rules.read_back && self.snapshot().rotten => {
                return self.begin_next();
            }
            Step::RemoveOlder if rules.remove_last => self.remove_older(),
            Step::SyncNames => self.sync_names(),
            Step::SyncItems | Step::SyncLastRecord | Step::ReadBack | Step::RemoveOlder => {}
        }
        self.step += 1;
        if self.step == STEPS.len() {
            self.begin_next();
        }
    }

    fn make_log(&mut self, rules: Rules) {
        let number = self.logs.iter().map(|log| log.number).max().unwrap_or(0) + 1;
        self.logs.push(Log {
            number,
            name: Self::new_name(rules),
            begun: Part::Absent,
            how: Begun::Roll,
            before: self.logs[self.current].number,
            base: 0,
            written: 0,
            synced: 0,
            notes_snapshot: Part::Absent,
            lies: false,
        });
    }

    fn roll(&mut self) {
        let (base, afresh) = match self.log_failed {
            true => (self.done, true),
            false => (self.log().written, false),
        };
        self.current = self.logs.len() - 1;
        let log = self.log();
        (log.begun, log.base, log.written, log.synced) = (Part::Written, base, base, base);
        if afresh {
            (log.how, log.before) = (Begun::Afresh, 0);
            self.log_failed = false;
        }
    }

    fn make_snapshot(&mut self, rules: Rules) {
        let number = self.log().number;
        let (body, last_record) = (Part::Absent, Part::Absent);
        let name = Self::new_name(rules);
        let snapshot =
            Snapshot { number, name, body, last_record, items: 0, shows: 0, rotten: false };
        self.snapshots.push(snapshot);
        if !rules.remove_last {
            self.remove_older();
        }
    }

    fn accept(&mut self, rules: Rules) {
        if self.log_failed && rules.accept_with_good_log {
            return;
        }
        let shows = self.snapshot().shows;
        if std::mem::take(&mut self.refusing) {
            self.log().notes_snapshot = Part::Written;
            self.tell(shows, shows);
        }
    }

    fn remove_older(&mut self) {
        let number = self.snapshot().number;
        let logs = self.logs.iter_mut().filter(|log| log.number < number);
        logs.for_each(|log| log.name = Part::Leaving);
        let snapshots = self.snapshots.iter_mut().filter(|it| it.number < number);
        snapshots.for_each(|snapshot| snapshot.name = Part::Leaving);
    }

    fn sync_names(&mut self) {
        self.logs.iter_mut().for_each(|log| log.name = log.name.synced());
        self.snapshots.iter_mut().for_each(|snapshot| snapshot.name = snapshot.name.synced());
    }

    /// The present step fails; `stays`: so does removing what was begun.
    fn fail_step(&mut self, rules: Rules, stays: bool) {
        self.failures += 1;
        match STEPS[self.step] {
            Step::Roll if !self.log_failed => {
                self.failures -= 1;
                self.fail_log(rules);
                self.begin_next();
            }
            Step::LastRecord | Step::SyncLastRecord => {
                self.snapshot().last_record = Part::Written;
                self.give_up(!stays);
            }
            Step::Items | Step::WaitForLog | Step::SyncItems => self.give_up(!stays),
            _ => self.begin_next(),
        }
    }

    fn give_up(&mut self, removed: bool) {
        if removed {
            self.snapshot().name = Part::Leaving;
        }
        self.begin_next();
    }

    fn begin_next(&mut self) {
        self.step = 0;
        self.snapshots_begun += 1;
    }

    /// What is wrong with what a crash may leave, if anything is.
    fn fault(&self, rules: Rules) -> Option<String> {
        for power in [false, true] {
            let mut lost = 0;
            loop {
                let mut crash = Crash { power, lost, asked: 0 };
                let found = Found::after(self, &mut crash);
                let told = if power { self.told_synced } else { self.told };
                let wrong = match found.recover(rules) {
                    _ if found.snapshots.iter().any(|it| !it.sound && !it.rotten) => {
                        Some("what a crash left looks like damage".to_owned())
                    }
                    None => Some("refused to start".to_owned()),
                    Some(at) if at < told || self.done < at => {
                        Some(format!("{at} of {told} to {} changes are back", self.done))
                    }
                    Some(_) => None,
                };
                if let Some(wrong) = wrong {
                    return Some(format!("{wrong}: power {power}, {found:?}, of {self:?}"));
                }
                lost += 1;
                if lost >> crash.asked != 0 {
                    break;
                }
            }
        }
        None
    }
}

/// What a start finds.
#[derive(Debug)]
struct Found {
    /// Those that are there, and those that were begun.
    made: Vec<u8>,
    logs: Vec<FoundLog>,
    /// Those with a last record.
    snapshots: Vec<FoundSnapshot>,
}

#[derive(Debug)]
struct FoundLog {
    number: u8,
    how: Begun,
    before: u8,
    base: u8,
    end: u8,
    notes_snapshot: bool,
}

#[derive(Debug)]
struct FoundSnapshot {
    number: u8,
    items: u8,
    shows: u8,
    /// All of it is there; and it is so because the device has lost a bit.
    sound: bool,
    rotten: bool,
}

impl Found {
    fn after(state: &State, crash: &mut Crash) -> Self {
        let (mut made, mut logs, mut snapshots) = (Vec::new(), Vec::new(), Vec::new());
        for log in &state.logs {
            let is_there = log.name.after(crash);
            made.extend(is_there.then_some(log.number));
            let is_there = log.begun.after(crash) && is_there;
            let torn = log.synced < log.written && crash.loses();
            let notes_snapshot = log.notes_snapshot.after(crash);
            if is_there {
                let Log { number, how, before, base, .. } = *log;
                let end = if torn { log.synced } else { log.written };
                logs.push(FoundLog { number, how, before, base, end, notes_snapshot });
            }
        }
        for snapshot in &state.snapshots {
            let is_there = snapshot.name.after(crash) & snapshot.last_record.after(crash);
            let sound = snapshot.body.after(crash) && !snapshot.rotten;
            if is_there {
                let Snapshot { number, items, shows, rotten, .. } = *snapshot;
                snapshots.push(FoundSnapshot { number, items, shows, sound, rotten });
            }
        }
        Self { made, logs, snapshots }
    }

    /// How many changes are back; `None`: the start is refused, or shows a mixture.
    fn recover(&self, rules: Rules) -> Option<u8> {
        let mut below = u8::MAX;
        // Behind a log of which nothing reached the device.
        let mut behind = Vec::new();
        loop {
            let head = self.logs.iter().filter(|log| log.number < below).max_by_key(|it| it.number);
            let path = self.path_to(head?);
            for at in (0..path.len()).rev() {
                let of_log = |it: &&FoundSnapshot| it.number == path[at].number;
                let Some(snapshot) = self.snapshots.iter().find(of_log) else { continue };
                if let Some(end) = self.read(Some(snapshot), &path[at..], &behind) {
                    // Items of later than the end of the log are a mixture.
                    return (snapshot.items <= end).then_some(end);
                }
            }
            let root = path[0];
            below = root.number;
            let has_snapshot = self.snapshots.iter().any(|it| it.number >= root.number);
            let was_told = path.iter().any(|log| log.notes_snapshot);
            match root.how {
                Begun::First => return self.read(None, &path, &behind),
                Begun::Afresh if !rules.fresh_log_needs_snapshot => {
                    // What was there before it is not.
                    let end = self.read(None, &path, &behind);
                    return end.filter(|_| root.base == 0);
                }
                Begun::Afresh if was_told => return None,
                Begun::Afresh if has_snapshot && !rules.go_around_fresh_log => return None,
                Begun::Afresh => behind.clear(),
                Begun::Roll if !self.made.contains(&root.before) => return None,
                Begun::Roll if !rules.lost_log_is_an_end => return None,
                Begun::Roll => behind.extend(path.iter().map(|log| log.number)),
            }
        }
    }

    fn path_to<'a>(&'a self, head: &'a FoundLog) -> Vec<&'a FoundLog> {
        let mut path = vec![head];
        while path[0].how == Begun::Roll {
            let before = self.logs.iter().find(|log| log.number == path[0].before);
            let Some(before) = before else { break };
            path.insert(0, before);
        }
        path
    }

    /// The end of the log; `None`: something is damaged.
    fn read(
        &self,
        snapshot: Option<&FoundSnapshot>,
        path: &[&FoundLog],
        behind: &[u8],
    ) -> Option<u8> {
        let mut end = path[0].base;
        let mut torn = !behind.is_empty();
        for log in path {
            if log.base != end {
                torn = true;
                break;
            }
            end = log.end;
        }
        let numbers = path.iter().map(|log| log.number).chain(behind.iter().copied());
        let is_of_path = |it: &&FoundSnapshot| numbers.clone().any(|number| number == it.number);
        let shows_more = |it: &FoundSnapshot| it.shows > end;
        let damaged = torn && self.snapshots.iter().filter(is_of_path).any(shows_more);
        let unusable = snapshot.is_some_and(|it| !it.sound || shows_more(it));
        (!damaged && !unusable).then_some(end)
    }
}

/// Drops a rule.
type Change = fn(&mut Rules);

/// Goes through all histories; answers how many states there are, or the first fault.
fn explore(rules: Rules) -> Result<usize, String> {
    let first = State::first();
    let mut seen = HashSet::from([first.clone()]);
    let mut left = vec![first];
    while let Some(state) = left.pop() {
        if let Some(fault) = state.fault(rules) {
            return Err(fault);
        }
        for next in state.successors(rules) {
            if seen.insert(next.clone()) {
                left.push(next);
            }
        }
    }
    Ok(seen.len())
}

#[test]
fn a_start_finds_everything_whatever_fails_and_whenever_it_ends() {
    let states = explore(AS_BUILT).unwrap();
    println!("{states} states");
    assert!(states > 10_000, "{states}: too few to mean anything");
}

#[test]
fn each_rule_is_needed() {
    let broken: [(&str, Change); 13] = [
        ("sync_names", |rules| rules.sync_names = false),
        ("sync_all_logs", |rules| rules.sync_all_logs = false),
        ("leave_failed_log", |rules| rules.leave_failed_log = false),
        ("fresh_log_needs_snapshot", |rules| rules.fresh_log_needs_snapshot = false),
        ("sync_log_before_last_record", |rules| rules.sync_log_before_last_record = false),
        ("sync_items_before_last_record", |rules| rules.sync_items_before_last_record = false),
        ("sync_last_record", |rules| rules.sync_last_record = false),
        ("accept_with_good_log", |rules| rules.accept_with_good_log = false),
        ("read_back", |rules| rules.read_back = false),
        ("accept_what_was_read", |rules| rules.accept_what_was_read = false),
        ("remove_last", |rules| rules.remove_last = false),
        ("lost_log_is_an_end", |rules| rules.lost_log_is_an_end = false),
        ("go_around_fresh_log", |rules| rules.go_around_fresh_log = false),
    ];
    for (name, drop_rule) in broken {
        let mut rules = AS_BUILT;
        drop_rule(&mut rules);
        let fault = explore(rules).expect_err(name);
        println!("without {name}: {}", fault.split(':').next().unwrap_or_default());
    }
}
