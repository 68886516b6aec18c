//! Who computes a value that is missing, and who waits for it. Owns the steps of `get_or_compute`;
//! no I/O, and time is an argument.
//!
//! ```text
//! ask --(value)--> done
//!     --(won, or the cache is away)--> compute --> store over the token --> done
//!     --(taken)--> wait for the flight of this process, or a while --> ask
//! ```
//!
//! The right to compute (a lease) is given back on every way out that stores nothing; if the server
//! does not answer, it expires by itself.

use crate::client::config::{Config, Expiry};
use crate::client::error::Error;
use crate::client::operation::flight::{Flights, Following, Leading, Role};
use crate::client::operation::{Convert, Encoded, Operation};
use crate::client::placement::key::{AsKey, Form, WireKey};
use crate::client::wire::command::{Command, Mode};
use crate::client::wire::outcome::{self, Cas, Leased};
use crate::client::wire::reply::Reply;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Waits for a value that another process computes: from, to.
const PAUSES: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(50)];

/// What a computed value is stored over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::client) enum Ticket {
    /// The place that others wait at, by its token.
    Lease(u64),
    /// An item that cannot be read, by its token.
    Item(u64),
    /// Nothing: the protocol has no leases. Whoever stores first is first.
    Nothing,
}

impl Ticket {
    fn lease(self) -> Option<u64> {
        match self {
            Self::Lease(token) => Some(token),
            _ => None,
        }
    }
}

/// What to do next.
#[derive(Debug)]
pub(in crate::client) enum Step<T> {
    Done(Result<T, Error>),
    /// Compute for this process; store if there is a ticket.
    Compute(Leading, Option<Ticket>),
    /// The time to wait for others is over: give back a lease if there is one, compute, whoever
    /// else does, and store nothing.
    ComputeAlone {
        release: Option<u64>,
    },
    /// Give back a lease if there is one, wait for somebody in this process or else until then, and
    /// ask again.
    Wait {
        release: Option<u64>,
        following: Option<Following>,
        until: Instant,
    },
}

/// One call on its way to a value.
#[derive(Debug)]
pub(in crate::client) struct Lease<'c> {
    flights: &'c Arc<Flights>,
    key: WireKey<'static>,
    give_up_at: Instant,
    pause: Duration,
    /// What a value is stored over where a key has none and there is no lease.
    nothing: Option<Ticket>,
}

impl<'c> Lease<'c> {
    pub(crate) fn new(
        config: &Config,
        flights: &'c Arc<Flights>,
        key: WireKey<'static>,
        now: Instant,
    ) -> Self {
        let nothing = (key.form == Form::Frame).then_some(Ticket::Nothing);
        Self { flights, key, give_up_at: now + config.lease, pause: PAUSES[0], nothing }
    }

    pub(crate) fn next<T>(&mut self, leased: Result<Leased<T>, Error>, now: Instant) -> Step<T> {
        match leased {
            Ok(Leased::Value(value)) => Step::Done(Ok(value)),
            Ok(Leased::Won(token)) => self.join(Some(Ticket::Lease(token)), now),
            Ok(Leased::Spoiled(token)) => self.join(token.map(Ticket::Item), now),
            Ok(Leased::Nowhere) => self.join(self.nothing, now),
            Ok(Leased::Taken) if self.give_up_at <= now => Step::ComputeAlone { release: None },
            Ok(Leased::Taken) => self.wait(now),
            Err(error) if error.is_away() => self.join(None, now),
            Err(error) => Step::Done(Err(error)),
        }
    }

    /// One in this process computes; the others wait for it.
    fn join<T>(&self, ticket: Option<Ticket>, now: Instant) -> Step<T> {
        match self.flights.join(&self.key) {
            Role::First(leading) => Step::Compute(leading, ticket),
            Role::Other(_) if self.give_up_at <= now => {
                Step::ComputeAlone { release: ticket.and_then(Ticket::lease) }
            }
            Role::Other(following) => Step::Wait {
                release: ticket.and_then(Ticket::lease),
                following: Some(following),
                until: self.give_up_at,
            },
        }
    }

    fn wait<T>(&mut self, now: Instant) -> Step<T> {
        let following = self.flights.find(&self.key);
        let pause = self.pause.min(self.give_up_at - now);
        let until = if following.is_some() { self.give_up_at } else { now + pause };
        self.pause = (self.pause * 2).min(PAUSES[1]);
        Step::Wait { release: None, following, until }
    }
}

/// Asks for a value or the right to compute it.
pub(in crate::client) fn ask<T: DeserializeOwned>(
    config: &Config,
) -> Operation<'static, Leased<T>, impl Convert<Leased<T>>> {
    let command = Command::Lease {
        seconds: seconds(config.lease),
        recache: config.recompute_before.map(seconds),
    };
    let convert = |reply: Reply<'_>| outcome::leased(&config.codec, reply);
    let found = |leased: &Leased<T>| matches!(leased, Leased::Value(_));
    Operation { found: Some(found), ..Operation::new(command, convert) }
}

fn seconds(duration: Duration) -> u32 {
    let up = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    u32::try_from(up).unwrap_or(u32::MAX)
}

/// A computed value on its way into the cache.
pub(in crate::client) struct Filling {
    pub key: OwnedKey,
    ticket: Option<Ticket>,
    expiry: Expiry,
    encoded: Result<Encoded, Error>,
}

impl Filling {
    /// Of a value, or of a computation that came to nothing.
    pub(crate) fn new(
        config: &Config,
        key: OwnedKey,
        ticket: Option<Ticket>,
        expiry: Expiry,
        value: Option<&impl Serialize>,
    ) -> Self {
        let encoded = match value {
            Some(value) => Encoded::new(config, value),
            None => Err(Error::Value("nothing was computed".into())),
        };
        Self { key, ticket, expiry, encoded }
    }

    /// What stores it. That fails if the item was deleted or set meanwhile: then the value may be
    /// out of date already.
    pub(crate) fn store(&self) -> Option<Operation<'_, Cas, impl Convert<Cas>>> {
        let mode = match self.ticket? {
            Ticket::Lease(token) | Ticket::Item(token) => Mode::Cas(token),
            Ticket::Nothing => Mode::Add,
        };
        let command = self.encoded.as_ref().ok()?.command(mode, self.expiry);
        Some(Operation::new(command, outcome::cas))
    }

    /// The lease to be given back, after what became of the store if there was one.
    pub(crate) fn to_release(&self, stored: Option<&Result<Cas, Error>>) -> Option<u64> {
        let token = self.ticket.and_then(Ticket::lease)?;
        match stored {
            Some(Ok(_)) => None,
            // A second call would wait as long as the first.
            Some(Err(error)) if error.is_away() => None,
            _ => Some(token),
        }
    }

    /// For those who waited.
    pub(crate) fn into_value(self) -> Option<Encoded> {
        self.encoded.ok()
    }
}

/// A key that outlives the call that named it.
#[derive(Debug, Clone)]
pub(in crate::client) struct OwnedKey {
    key: Vec<u8>,
    placed_by: Option<Vec<u8>>,
}

impl OwnedKey {
    pub(crate) fn new(key: &(impl AsKey + ?Sized)) -> Self {
        let placed_by = key.placed_by().map(Cow::into_owned);
        Self { key: key.as_key().into_owned(), placed_by }
    }
}

impl AsKey for OwnedKey {
    fn as_key(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.key)
    }

    fn placed_by(&self) -> Option<Cow<'_, [u8]>> {
        self.placed_by.as_deref().map(Cow::Borrowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::clock;

    fn key() -> WireKey<'static> {
        WireKey { bytes: Cow::Borrowed(b"k"), form: Form::Plain }
    }

    /// An answer, and the steps of the first caller and of another.
    type Row = (fn() -> Leased<u8>, &'static str, &'static str);

    /// A step in a word.
    fn shown(step: Step<u8>) -> String {
        match step {
            Step::Done(result) => format!("{result:?}").chars().take(9).collect(),
            Step::Compute(_, ticket) => {
                format!("compute {ticket:?}")
            }
            Step::ComputeAlone { release } => format!("alone {release:?}"),
            Step::Wait { release, following, .. } => {
                format!("wait {release:?} {}", following.is_some())
            }
        }
    }

    #[test]
    fn each_answer_has_its_step() {
        let (config, now) = (Config::default(), clock::now());
        let refused = || Error::Refused { server: String::new(), line: String::new() };
        let down = || Error::Down { server: String::new() };
        let login = || Error::Login { server: String::new(), answer: String::new() };
        let answers: [Row; 5] = [
            (|| Leased::Value(1), "Ok(1)", "Ok(1)"),
            (|| Leased::Won(3), "compute Some(Lease(3))", "wait Some(3) true"),
            (|| Leased::Spoiled(Some(3)), "compute Some(Item(3))", "wait None true"),
            (|| Leased::Nowhere, "compute None", "wait None true"),
            (|| Leased::Taken, "wait None false", "wait None true"),
        ];
        let errors =
            [(down(), "compute None"), (login(), "compute None"), (refused(), "Err(Refus")];
        let flights = Arc::new(Flights::default());
        let lease = || Lease::new(&config, &flights, key(), now);
        for (leased, first, other) in answers {
            assert_eq!(shown(lease().next(Ok(leased()), now)), first);
            let Role::First(_leading) = flights.join(&key()) else { panic!() };
            assert_eq!(shown(lease().next(Ok(leased()), now)), other, "while another computes");
        }
        for (error, expected) in errors {
            assert_eq!(shown(lease().next(Err(error), now)), expected);
        }
        // Where there are no leases, nobody else has the right either.
        let in_frames = WireKey { form: Form::Frame, ..key() };
        let mut without = Lease::new(&config, &flights, in_frames, now);
        assert_eq!(shown(without.next(Ok(Leased::Nowhere), now)), "compute Some(Nothing)");
    }

    #[test]
    fn waiting_ends_with_the_lease() {
        let config = Config::default();
        let flights = Arc::new(Flights::default());
        let mut now = clock::now();
        let end = now + config.lease;
        let mut lease = Lease::new(&config, &flights, key(), now);
        let mut waits = 0;
        while let Step::Wait { until, .. } = lease.next::<u8>(Ok(Leased::Taken), now) {
            assert!(until <= end && until - now <= PAUSES[1]);
            now = until;
            waits += 1;
        }
        assert!(waits > 100 && now == end);
        let Role::First(_leading) = flights.join(&key()) else { panic!() };
        let away = Err(Error::Down { server: String::new() });
        let alone = shown(lease.next(away, now));
        assert_eq!(alone, "alone None", "a computation that takes too long");
        let won = Ok(Leased::<u8>::Won(3));
        assert_eq!(shown(lease.next(won, now)), "alone Some(3)", "what was won is given back");
    }

    #[test]
    fn a_lease_is_given_back_unless_it_was_used_or_nobody_listens() {
        let config = Config::default();
        let filling = |value: Option<&str>, is_lease| {
            let ticket = Some(if is_lease { Ticket::Lease(7) } else { Ticket::Item(7) });
            Filling::new(&config, OwnedKey::new("k"), ticket, Expiry::Never, value.as_ref())
        };
        let refused = Err(Error::Refused { server: String::new(), line: String::new() });
        let away = Err(Error::Down { server: String::new() });
        assert_eq!(filling(Some("x"), true).to_release(Some(&Ok(Cas::Stored))), None);
        assert_eq!(filling(Some("x"), true).to_release(Some(&Ok(Cas::Changed))), None);
        assert_eq!(filling(Some("x"), true).to_release(Some(&refused)), Some(7));
        assert_eq!(filling(Some("x"), true).to_release(Some(&away)), None);
        assert_eq!(filling(None, true).to_release(None), Some(7));
        assert_eq!(filling(None, false).to_release(None), None);
        assert!(filling(None, true).store().is_none());
    }
}
