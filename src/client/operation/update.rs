//! Changing a value that others may change too: read, change, store if it is still what was read,
//! and again. Owns how often and with which pauses; no I/O.

use crate::client::error::Error;
use crate::client::value::AnyCodec;
use crate::client::wire::command::Mode;
use crate::client::wire::outcome;
use crate::client::wire::reply::Reply;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Attempts before an update gives up.
const ATTEMPTS_MAX: u32 = 100;

/// What was read.
pub(in crate::client) struct Read<T> {
    /// Of the item, whether or not it is a value.
    pub token: Option<u64>,
    pub value: Option<Result<T, Error>>,
}

impl<T: DeserializeOwned> Read<T> {
    pub(crate) fn new(codec: &AnyCodec, reply: Reply<'_>) -> Result<Self, Error> {
        let read = outcome::item(reply, |item| {
            let no_token = || Error::protocol("", "a value without its token");
            let token = item.token.ok_or_else(no_token)?;
            Ok(Self { token: Some(token), value: Some(codec.decode(item.data, item.flags)) })
        })?;
        Ok(read.unwrap_or(Self { token: None, value: None }))
    }
}

/// An update under way.
#[derive(Debug, Default)]
pub(in crate::client) struct Update {
    attempts: u32,
}

impl Update {
    /// What `change` makes of the value, and how it is to be stored; `None` if it is to be left.
    pub(crate) fn change<T>(
        read: Read<T>,
        change: impl FnOnce(Option<T>) -> Option<T>,
    ) -> Result<Option<(T, Mode)>, Error> {
        let mode = read.token.map_or(Mode::Add, Mode::Cas);
        Ok(change(read.value.transpose()?).map(|value| (value, mode)))
    }

    /// Somebody interfered: how long to pause before the next attempt. Pauses grow and differ, so
    /// that callers do not meet again and again.
    pub(crate) fn again(&mut self) -> Result<Duration, Error> {
        self.attempts += 1;
        if self.attempts == ATTEMPTS_MAX {
            return Err(Error::Contended { attempts: self.attempts });
        }
        let micros_max = 100 * self.attempts.min(20);
        Ok(Duration::from_micros(u64::from(getrandom::u32().unwrap_or(0) % micros_max)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_pauses_and_gives_up() {
        let mut update = Update::default();
        let pauses: Vec<_> = (0..ATTEMPTS_MAX).map(|_| update.again()).collect();
        let (last, pauses) = pauses.split_last().unwrap();
        assert!(pauses.iter().all(|pause| *pause.as_ref().unwrap() < Duration::from_millis(2)));
        assert_eq!(*last, Err(Error::Contended { attempts: ATTEMPTS_MAX }));
    }

    #[test]
    fn what_was_read_says_how_to_store() {
        for (token, value, expected) in [
            (None, None, Some((1, Mode::Add))),
            (Some(7), Some(Ok(1)), Some((2, Mode::Cas(7)))),
            (Some(7), None, Some((1, Mode::Cas(7)))),
            (Some(7), Some(Ok(9)), None),
        ] {
            let change = |value: Option<u32>| match value {
                Some(9) => None,
                value => Some(value.unwrap_or(0) + 1),
            };
            assert_eq!(Update::change(Read { token, value }, change), Ok(expected));
        }
        let spoiled = Read::<u32> { token: Some(7), value: Some(Err(Error::NoServers)) };
        assert_eq!(Update::change(spoiled, |_| Some(1)), Err(Error::NoServers));
    }
}
