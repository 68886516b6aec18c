//! Whether a server is to be used. Owns the states and what leads from one to another; time is an
//! argument, and probing is somebody else's work.
//!
//! ```text
//! healthy --(failures_max failures in a row)--> ejected
//! ejected --(a probe succeeds, repairs are done)--> on trial
//! on trial --(a call succeeds)--> healthy
//! on trial --(a call fails)--> ejected, with a longer wait for the next probe
//! ```
//!
//! While a server is ejected nobody sends it anything but probes, each twice as long after the one
//! before, up to a limit.

use crate::client::placement::key::WireKey;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// What is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// In use.
    Healthy,
    /// Back after a probe: in use, and ejected again by a single failure.
    OnTrial,
    /// Not in use.
    Ejected,
}

/// The settings that matter here.
#[derive(Debug, Clone, Copy)]
pub(in crate::client) struct Rules {
    pub failures_max: u32,
    pub probe_after: Duration,
    pub probe_after_max: Duration,
    /// Keys remembered for one ejected server.
    pub repairs_max: usize,
}

/// Keys that were written, or should have been, while their server was away.
#[derive(Debug, Default)]
pub(in crate::client) struct Repairs {
    /// With the servers that stood in.
    pub keys: HashMap<WireKey<'static>, HashSet<usize>>,
    /// More keys than are remembered.
    pub overflow: bool,
}

impl Repairs {
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty() && !self.overflow
    }
}

#[derive(Debug)]
pub(in crate::client) struct Health {
    state: State,
    rules: Rules,
    failures: u32,
    wait: Duration,
    probe_at: Option<Instant>,
    ejected_at: Option<Instant>,
    pub repairs: Repairs,
    /// The last repairs are under way: what would be written elsewhere now would miss them.
    pub is_closing: bool,
}

/// What becomes of a write to a server that is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::client) enum Remembered {
    /// It may go elsewhere: its key will be deleted before the server is used again.
    Kept,
    /// The server is in use after all.
    InUse,
    /// It may not go elsewhere any more, nor to the server yet.
    TooLate,
}

impl Health {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            state: State::Healthy,
            rules,
            failures: 0,
            wait: rules.probe_after,
            probe_at: None,
            ejected_at: None,
            repairs: Repairs::default(),
            is_closing: false,
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// When the next probe is due.
    pub(crate) fn probe_at(&self) -> Option<Instant> {
        self.probe_at
    }

    /// A call succeeded. Returns for how long the server was away if this ends its trial.
    pub(crate) fn succeeded(&mut self, now: Instant) -> Option<Duration> {
        // A call that was under way when the server was ejected says nothing about now.
        if self.state == State::Ejected {
            return None;
        }
        self.failures = 0;
        if self.state == State::Healthy {
            return None;
        }
        self.state = State::Healthy;
        self.wait = self.rules.probe_after;
        self.ejected_at.take().map(|then| now.duration_since(then))
    }

    /// A call failed. Returns true if that ejects the server.
    pub(crate) fn failed(&mut self, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        let ejects = match self.state {
            State::Ejected => false,
            State::OnTrial => {
                self.wait = (self.wait * 2).min(self.rules.probe_after_max);
                true
            }
            State::Healthy => self.failures >= self.rules.failures_max,
        };
        if ejects {
            self.state = State::Ejected;
            self.ejected_at.get_or_insert(now);
            self.probe_at = Some(now + self.wait);
        }
        ejects
    }

    /// A probe failed.
    pub(crate) fn probe_failed(&mut self, now: Instant) {
        if self.state == State::Ejected {
            self.wait = (self.wait * 2).min(self.rules.probe_after_max);
            self.probe_at = Some(now + self.wait);
        }
    }

    /// A probe succeeded and there is nothing left to repair.
    pub(crate) fn readmit(&mut self) {
        debug_assert!(self.repairs.is_empty(), "nobody may read what is to be deleted");
        if self.state == State::Ejected {
            self.state = State::OnTrial;
            self.probe_at = None;
            self.failures = 0;
            self.is_closing = false;
        }
    }

    /// Remembers a key to be deleted before the server is used again.
    pub(crate) fn remember(&mut self, key: &WireKey<'_>, stand_in: Option<usize>) -> Remembered {
        if self.state != State::Ejected {
            return Remembered::InUse;
        }
        if self.is_closing {
            return Remembered::TooLate;
        }
        let known = self.repairs.keys.contains_key(key);
        if !known && self.repairs.keys.len() >= self.rules.repairs_max {
            self.repairs.overflow = true;
            return Remembered::Kept;
        }
        self.repairs.keys.entry(key.clone().into_owned()).or_default().extend(stand_in);
        Remembered::Kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::clock;
    use crate::client::placement::key::Form;
    use std::borrow::Cow;

    const RULES: Rules = Rules {
        failures_max: 3,
        probe_after: Duration::from_millis(100),
        probe_after_max: Duration::from_millis(350),
        repairs_max: 2,
    };

    #[test]
    fn failures_in_a_row_eject() {
        let now = clock::now();
        let mut health = Health::new(RULES);
        for _ in 0..2 {
            assert!(!health.failed(now));
            assert!(!health.failed(now));
            health.succeeded(now);
        }
        assert!(!health.failed(now));
        assert!(!health.failed(now));
        assert!(health.failed(now));
        assert_eq!(health.state(), State::Ejected);
        assert!(!health.failed(now), "once");
        assert_eq!(health.probe_at(), Some(now + RULES.probe_after));
    }

    #[test]
    fn probes_back_off_and_a_failed_trial_ejects_again() {
        let start = clock::now();
        let mut health = Health::new(Rules { failures_max: 1, ..RULES });
        health.failed(start);
        let mut waits = Vec::new();
        for _ in 0..3 {
            health.probe_failed(start);
            waits.push(health.probe_at().unwrap().duration_since(start).as_millis());
        }
        assert_eq!(waits, [200, 350, 350]);
        assert_eq!(health.succeeded(start), None, "a late reply does not readmit");
        assert_eq!(health.state(), State::Ejected);
        health.readmit();
        assert_eq!(health.state(), State::OnTrial);
        assert!(health.failed(start));
        assert_eq!(health.state(), State::Ejected);
        health.readmit();
        let away = Duration::from_secs(1);
        assert_eq!(health.succeeded(start + away), Some(away));
        assert_eq!(health.state(), State::Healthy);
        assert!(health.failed(start), "one failure is enough here");
        assert_eq!(health.probe_at(), Some(start + RULES.probe_after), "the wait starts anew");
    }

    #[test]
    fn keys_are_remembered_while_the_server_is_away() {
        let key = |name: &'static str| WireKey {
            bytes: Cow::Borrowed(name.as_bytes()),
            form: Form::Plain,
        };
        let mut health = Health::new(Rules { failures_max: 1, ..RULES });
        assert_eq!(health.remember(&key("a"), Some(1)), Remembered::InUse);
        health.failed(clock::now());
        for (name, stand_in) in [("a", Some(1)), ("a", Some(2)), ("b", None)] {
            assert_eq!(health.remember(&key(name), stand_in), Remembered::Kept);
        }
        assert_eq!(health.repairs.keys[&key("a")].len(), 2);
        assert!(!health.repairs.overflow);
        assert_eq!(health.remember(&key("c"), None), Remembered::Kept);
        assert!(health.repairs.overflow);
        health.is_closing = true;
        assert_eq!(health.remember(&key("a"), None), Remembered::TooLate);
        health.repairs = Repairs::default();
        health.readmit();
        assert_eq!(health.remember(&key("a"), None), Remembered::InUse);
        assert!(!health.is_closing);
    }
}
