//! One crash, from load to verdict. Owns the writers' threads, the comparison of what is found
//! after a restart with what the writers know, and the tally of a run. Knows nothing of how the
//! crash is made.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::client::{Connection, End, Pace, Seen, drive, unix_now};
use crate::model::{Fault, Verdict, one_prefix};
use crate::options::Options;
use crate::server::{Policy, Spec};
use crate::stream::Stream;

/// What `everysec` may lose, by contract.
const EVERYSEC_WINDOW_MAX: Duration = Duration::from_secs(2);
const EXAMPLES_MAX: usize = 8;
/// Reading back, the first reply may wait for recovery.
const READ_BACK_TIME_MAX: Duration = Duration::from_secs(60);

/// As fast as replies come, in batches.
pub(crate) const FULL_SPEED: Pace = Pace { batch_max: 32, pause: Duration::ZERO };

/// The writers of a run.
pub(crate) fn streams(options: &Options, spec: &Spec) -> Vec<Stream> {
    let stream = |writer| Stream::new(spec.dialect, writer, options.keys, options.seed);
    (0..options.clients).map(stream).collect()
}

/// Runs the writers while `during` runs; it makes the crash.
pub(crate) fn load<R>(
    streams: &mut [Stream],
    address: SocketAddr,
    pace: Pace,
    during: impl FnOnce() -> R,
) -> (R, Vec<Seen>) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let run = |stream| scope.spawn(|| drive(stream, address, &stop, pace));
        let writers: Vec<_> = streams.iter_mut().map(run).collect();
        let result = during();
        stop.store(true, Ordering::Relaxed);
        let join = |writer: std::thread::ScopedJoinHandle<'_, Seen>| {
            writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        (result, writers.into_iter().map(join).collect())
    })
}

/// What a crash may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Of the process: nothing acknowledged.
    Process,
    /// Of the power: what the policy says.
    Power(Policy),
    /// None happened, or the disk failed: nothing acknowledged, but mutations whose reply was
    /// not received may have failed singly.
    Disk,
}

impl Crash {
    /// Whether something acknowledged so long before the crash may be lost.
    fn allows_loss_of(self, age: Option<Duration>) -> bool {
        match self {
            Self::Process | Self::Disk | Self::Power(Policy::Always) => false,
            Self::Power(Policy::Everysec) => age.is_some_and(|age| age <= EVERYSEC_WINDOW_MAX),
            Self::Power(Policy::No) => age.is_some(),
        }
    }
}

/// The figures of a run.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub rounds: u64,
    pub acknowledged: u64,
    pub keys_checked: u64,
    /// Acknowledged mutations whose effect is gone.
    pub lost: u64,
    /// Age at the crash of the oldest of them.
    pub oldest_lost: Duration,
    /// Keys by fault.
    pub faults: BTreeMap<Fault, u64>,
    /// Keys whose state is none that they ever had.
    pub unexplained: u64,
    /// Streams of which no prefix explains the states of all keys.
    pub prefix_broken: u64,
    pub prefix_checked: u64,
    pub start_failures: u64,
    pub hung: u64,
    pub refused: u64,
    pub slowest_start: Duration,
    /// Violations that are none of the above.
    pub others: u64,
    pub examples: Vec<String>,
}

impl Tally {
    /// Keeps the first few things worth reading.
    pub fn example(&mut self, text: String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(text);
        }
    }

    /// A violation that has no column of its own.
    pub fn violation(&mut self, text: String) {
        self.others += 1;
        self.example(text);
    }

    /// Takes in what writers saw.
    pub fn note(&mut self, seen: &[Seen]) {
        for writer in seen {
            self.refused += writer.refused;
            if writer.end == Some(End::Hung) {
                self.hung += 1;
                self.example("a reply was missing for 10 s".to_owned());
            }
            if let Some(line) = &writer.garbage {
                self.violation(format!("reply that is none: {line:?}"));
            }
        }
    }

    /// Whether the contract was broken.
    pub fn is_broken(&self, crash: Crash) -> bool {
        let loses = self.lost > 0 && !crash.allows_loss_of(Some(self.oldest_lost));
        let wrong = self
            .faults
            .iter()
            .any(|(fault, _)| matches!(fault, Fault::Wrong | Fault::Attributes | Fault::Reply));
        let counts =
            [self.unexplained, self.prefix_broken, self.start_failures, self.hung, self.others];
        loses || wrong || counts.iter().any(|&count| count > 0)
    }

    fn take(
        &mut self,
        verdict: &Verdict,
        (kind, crash): (Crash, Instant),
        describe: impl FnOnce() -> String,
    ) {
        self.keys_checked += 1;
        self.lost += verdict.lost;
        self.unexplained += u64::from(verdict.unexplained);
        if let Some(since) = verdict.lost_since {
            self.oldest_lost = self.oldest_lost.max(crash - since);
        }
        if let Some(fault) = verdict.fault {
            *self.faults.entry(fault).or_default() += 1;
            let age = verdict.lost_since.map(|since| crash - since);
            if verdict.unexplained || !kind.allows_loss_of(age) {
                self.example(describe());
            }
        }
    }

    fn faults_of(&self, fault: Fault) -> u64 {
        self.faults.get(&fault).copied().unwrap_or(0)
    }

    /// The heading that fits `row`.
    pub fn heading() -> &'static str {
        "| server | fsync | crash | rounds | acknowledged | keys checked | lost | oldest lost \
         | lost/stale/resurrected | attributes/wrong/reply | prefix | start failures | hung \
         | slowest start | result |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    }

    /// A row of the table.
    pub fn row(&self, spec: &Spec, what: &str, crash: Crash) -> String {
        use Fault::{Attributes, Lost, Reply, Resurrected, Stale, Wrong};
        let of = |fault| self.faults_of(fault);
        let prefix = match self.prefix_checked {
            0 => "-".to_owned(),
            checked => format!("{}/{checked}", checked - self.prefix_broken),
        };
        format!(
            "| {} | {} | {what} | {} | {} | {} | {} | {:.2} s | {}/{}/{} | {}/{}/{} | {prefix} \
             | {} | {} | {:.2} s | {} |",
            spec.name(),
            spec.policy.name(),
            self.rounds,
            self.acknowledged,
            self.keys_checked,
            self.lost,
            self.oldest_lost.as_secs_f64(),
            of(Lost),
            of(Stale),
            of(Resurrected),
            of(Attributes),
            of(Wrong),
            of(Reply),
            self.start_failures,
            self.hung,
            self.slowest_start.as_secs_f64(),
            if self.is_broken(crash) { "BROKEN" } else { "kept" },
        )
    }

    /// The first few faults, one a line, on standard error.
    pub fn print_examples(&self) {
        for example in &self.examples {
            eprintln!("  {example}");
        }
    }
}

/// Reads everything back from a restarted server and judges it; then starts the histories anew.
pub(crate) fn check(
    streams: &mut [Stream],
    address: SocketAddr,
    spec: &Spec,
    crash: (Crash, Instant),
    tally: &mut Tally,
) -> io::Result<()> {
    let (kind, crash) = crash;
    let strict = kind != Crash::Disk;
    for (writer, stream) in streams.iter_mut().enumerate() {
        let mut connection = Connection::open_patient(address, spec.dialect, READ_BACK_TIME_MAX)?;
        let found = connection.read_back(stream)?;
        let now = unix_now();
        let dialect = spec.dialect;
        let mut intervals = Vec::with_capacity(found.len());
        for (key, observed) in stream.keys.iter_mut().zip(&found) {
            tally.acknowledged += key.history.acknowledged();
            let observed = observed.as_ref();
            let verdict = key.history.judge(dialect, strict, observed, now, crash);
            tally.take(&verdict, (kind, crash), || {
                let name = key.name.escape_ascii();
                let value = observed.map(|found| {
                    let start = &found.value[..found.value.len().min(40)];
                    format!("{} {:?} {:?}", start.escape_ascii(), found.flags, found.ttl_s)
                });
                let history = key.history.summary();
                format!("writer {writer} {name}: {:?}; found {value:?}; {history}", verdict.fault)
            });
            intervals.push(verdict.intervals);
            key.history.rebase(dialect, observed, now);
        }
        if spec.has_one_log() && strict {
            tally.prefix_checked += 1;
            if !one_prefix(&intervals) {
                tally.prefix_broken += 1;
                tally.example(format!("writer {writer}: no prefix of its stream"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_has_its_promise() {
        let lost = Tally { lost: 3, oldest_lost: Duration::from_secs(1), ..Tally::default() };
        let old = Tally { oldest_lost: Duration::from_millis(2001), ..lost.clone() };
        let torn = Tally { prefix_broken: 1, ..Tally::default() };
        let wrong = Tally { faults: BTreeMap::from([(Fault::Wrong, 1)]), ..Tally::default() };
        let power = Crash::Power;
        let cases = [
            (&lost, Crash::Process, true),
            (&lost, power(Policy::Always), true),
            (&lost, power(Policy::Everysec), false),
            (&old, power(Policy::Everysec), true),
            (&old, power(Policy::No), false),
            (&torn, power(Policy::No), true),
            (&wrong, power(Policy::No), true),
            (&Tally::default(), Crash::Process, false),
        ];
        for (at, (tally, crash, broken)) in cases.into_iter().enumerate() {
            assert_eq!(tally.is_broken(crash), broken, "case {at}");
        }
    }
}
