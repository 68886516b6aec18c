//! A well-behaved client beside an attacker, in rounds. Owns the two of them and the order: others
//! alone, then under attack, again and again, so that a noisy machine hits both alike. Says nothing
//! of what the figures should be.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::subject::Subject;
use crate::Result;
use crate::load::{self, Load, Plan, Until};
use crate::population::Population;
use crate::scenarios::KEY_SIZE;
use crate::stream::{Popularity, StreamSpec};

/// Keys that others ask for, of 32 bytes each.
const KEYS: u64 = 10_000;
const WARM_UP: Duration = Duration::from_millis(200);
/// An attack that is not under way after this long fails.
const READY_MAX: Duration = Duration::from_secs(60);
const READY_POLL: Duration = Duration::from_millis(5);
const RESIDENT_POLL: Duration = Duration::from_millis(20);
/// Attackers come from elsewhere: here they take the processor only when nobody else wants it. (A
/// niced thread keeps the processor until its time slice ends, whoever wakes up, on Linux 6.12 and
/// later: others and the server waited 2 to 6 ms each time.)
const ATTACKER_LAST: &[&str] = &["--idle", "--pid", "0"];
/// So that how long others' own client waits for a processor is not in their latency.
const OTHERS_FIRST: &[&str] = &["--fifo", "--reset-on-fork", "--pid", "1"];
/// Between an attack and the next measurement without one, or less if measurements are shorter.
const REST: Duration = Duration::from_millis(300);

/// Microseconds: median, 99th percentile, maximum.
pub type Latency = [f64; 3];

/// How others are measured.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Gets per second.
    pub rate: f64,
    /// Connections they share.
    pub connections: usize,
    /// Length of one measurement.
    pub time: Duration,
    /// Measurements without and with the attack.
    pub rounds: usize,
    /// Seed of the stream.
    pub seed: u64,
    /// How long a server may take to notice closed connections.
    pub settle: Duration,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Rounds {
    /// Others alone.
    pub before: Vec<Latency>,
    /// Others beside the attack.
    pub during: Vec<Latency>,
    /// Memory of the server before the first attack.
    pub resident_before: u64,
    /// The most it had during attacks.
    pub resident_peak: u64,
    /// Cores the server used during attacks.
    pub cpu: Vec<f64>,
    /// What each attack says it did.
    pub done: Vec<u64>,
    /// Descriptors of the server before the first attack.
    pub descriptors_before: usize,
    /// And after the last.
    pub descriptors_after: usize,
}

impl Rounds {
    /// Growth of the server's memory, in bytes.
    pub fn growth(&self) -> u64 {
        self.resident_peak.saturating_sub(self.resident_before)
    }
}

/// How an attack and its measurement tell each other where they are.
#[derive(Debug, Default)]
pub struct Signals {
    ready: AtomicBool,
    stop: AtomicBool,
}

impl Signals {
    /// The attack is under way.
    pub fn ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    /// The attack has to end.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Sleeps for that long, or less if the attack has to end.
    pub fn sleep(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.stopped() && Instant::now() < until {
            thread::sleep(READY_POLL.min(time));
        }
    }
}

/// Attacks until told to stop; says how much it did.
pub type Attack<'a> = dyn FnMut(&Signals) -> Result<u64> + Send + 'a;

/// The well-behaved client, connected.
#[derive(Debug)]
pub struct Others {
    load: Load,
    time: Duration,
}

impl Others {
    /// Stores the keys and connects.
    pub fn connect(subject: &Subject, pace: &Pace) -> Result<Self> {
        let population = Arc::new(Population::new(KEYS, KEY_SIZE.parse()?, "32".parse()?)?);
        let stream = StreamSpec { popularity: Popularity::Uniform, once: 0.0, seed: pace.seed };
        let plan = Plan {
            connections: pace.connections,
            rate: Some(pace.rate),
            ..Plan::new(subject.address, population, stream)
        };
        load::fill(&plan, KEYS)?;
        let mut load = Load::connect(&plan)?;
        load.run(Until::Elapsed(WARM_UP))?.check()?;
        Ok(Self { load, time: pace.time })
    }

    /// Latency for the length of one measurement.
    pub fn measure(&mut self) -> Result<Latency> {
        let outcome = self.load.run(Until::Elapsed(self.time))?;
        outcome.check()?;
        Ok([50.0, 99.0, 100.0].map(|percent| outcome.latency_us(percent)))
    }
}

/// Sets how this thread is scheduled, by `chrt`; says whether it could be. Threads and processes
/// begun from here on do not inherit it if `policy` says so.
fn schedule(policy: &[&str]) -> bool {
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    let mut chrt = Command::new("chrt");
    chrt.args(policy).arg(&thread).stderr(Stdio::null());
    chrt.status().is_ok_and(|status| status.success())
}

/// Runs the rounds.
pub fn run(subject: &Subject, pace: &Pace, attack: &mut Attack<'_>) -> Result<Rounds> {
    if !schedule(OTHERS_FIRST) {
        eprintln!("no chrt, or not root: latencies have the time others' client waits to run");
    }
    let mut others = Others::connect(subject, pace)?;
    let mut rounds = Rounds {
        before: Vec::new(),
        during: Vec::new(),
        resident_before: subject.resident_bytes()?,
        resident_peak: 0,
        cpu: Vec::new(),
        done: Vec::new(),
        descriptors_before: subject.descriptors()?,
        descriptors_after: 0,
    };
    for _ in 0..pace.rounds {
        rounds.before.push(others.measure()?);
        one_attack(subject, &mut others, attack, &mut rounds)?;
        let settled = subject.descriptors_settled(rounds.descriptors_before, pace.settle);
        rounds.descriptors_after = settled?;
        thread::sleep(REST.min(pace.time));
    }
    Ok(rounds)
}

fn one_attack(
    subject: &Subject,
    others: &mut Others,
    attack: &mut Attack<'_>,
    rounds: &mut Rounds,
) -> Result<()> {
    let signals = Signals::default();
    let peak = AtomicU64::new(rounds.resident_peak);
    thread::scope(|scope| {
        let attacker = scope.spawn(|| {
            if !schedule(ATTACKER_LAST) {
                eprintln!("no chrt: the attacker takes processor time from others and the server");
            }
            let done = attack(&signals);
            signals.ready();
            done
        });
        let watcher = scope.spawn(|| {
            while !signals.stopped() {
                let now = subject.resident_bytes().unwrap_or(0);
                peak.fetch_max(now, Ordering::Relaxed);
                thread::sleep(RESIDENT_POLL);
            }
        });
        let measured = await_ready(&signals).and_then(|()| {
            let (begin, cpu) = (Instant::now(), subject.cpu()?);
            let latency = others.measure()?;
            let used = subject.cpu()?.saturating_sub(cpu);
            rounds.cpu.push(used.as_secs_f64() / begin.elapsed().as_secs_f64());
            rounds.during.push(latency);
            Ok(())
        });
        signals.stop.store(true, Ordering::Release);
        let done = attacker.join().map_err(|_| "the attacker panicked")?;
        watcher.join().map_err(|_| "the watcher panicked")?;
        // The attacker's own trouble explains the measurement's.
        rounds.done.push(done.map_err(|e| format!("attack: {e}"))?);
        measured.map_err(|e| format!("others: {e}"))?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    })?;
    rounds.resident_peak = peak.into_inner();
    Ok(())
}

fn await_ready(signals: &Signals) -> Result<()> {
    let deadline = Instant::now() + READY_MAX;
    while !signals.ready.load(Ordering::Acquire) {
        if Instant::now() > deadline {
            return Err("the attack does not get under way".into());
        }
        thread::sleep(READY_POLL);
    }
    Ok(())
}
