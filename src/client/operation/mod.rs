//! Every call as a value: what is sent, what it means to other servers, what its reply is to the
//! caller. Owns the operations and what leads from one step of a call to the next; no I/O and no
//! waiting, which are all that the two faces add.
//!
//! | file | what it decides |
//! |---|---|
//! | `mod` | what each operation sends, and how its reply converts |
//! | `attempt` | where a call goes, whether it is sent again, what a failure means |
//! | `many` | which keys go to which server, and whose results are whose |
//! | `batch` | mixed commands of one call |
//! | `update` | reading, changing and storing until nobody interfered |
//! | `lease` | who computes a missing value, and who waits |
//! | `flight` | one computation of a key in this process, and those who wait for it |

pub(in crate::client) mod attempt;
pub(in crate::client) mod batch;
pub(in crate::client) mod flight;
pub(in crate::client) mod lease;
pub(in crate::client) mod many;
pub(in crate::client) mod update;

use crate::client::config::{Config, Expiry};
use crate::client::error::Error;
use crate::client::operation::update::Read;
use crate::client::value::AnyCodec;
use crate::client::wire::command::{Command, Copying, Effect, Mode, ServerCommand};
use crate::client::wire::outcome::{self, Cas, Inspection, Look, Raw, Versioned};
use crate::client::wire::reply::{Item, Reply};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

/// What a reply is to the caller.
pub(in crate::client) trait Convert<R>:
    Fn(Reply<'_>) -> Result<R, Error>
{
}

impl<R, F: Fn(Reply<'_>) -> Result<R, Error>> Convert<R> for F {}

/// What a result becomes.
type Blank<R> = fn(Result<R, Error>) -> Result<R, Error>;

/// One call about one key.
pub(in crate::client) struct Operation<'a, R, F> {
    pub command: Command<'a>,
    pub effect: Effect,
    convert: F,
    /// For reads that count as hits or misses: whether something was found.
    pub found: Option<fn(&R) -> bool>,
    /// What the result becomes if the item is no value but the place of one that somebody computes.
    /// `None`: the operation does not mind.
    blank: Option<Blank<R>>,
    /// The reply was an item without bytes or flags, which such a place looks like.
    empty: bool,
    /// The reply was that there is nothing.
    missed: bool,
    /// What is read is to be kept in this process.
    keeps: bool,
    brought: Option<Encoded>,
}

/// What a further copy of a key is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::client) enum ToCopy<'a> {
    /// The same read again.
    Read(Command<'a>),
    /// What keeps it from being out of date.
    Write(Command<'a>),
}

impl<'a, R, F: Convert<R>> Operation<'a, R, F> {
    fn new(command: Command<'a>, convert: F) -> Self {
        let effect = command.effect();
        Self {
            command,
            effect,
            convert,
            found: None,
            blank: None,
            empty: false,
            missed: false,
            keeps: false,
            brought: None,
        }
    }

    /// The result that a reply stands for.
    pub(super) fn read(&mut self, reply: Reply<'_>) -> Result<R, Error> {
        self.empty = may_be_place(&reply);
        self.missed = matches!(reply, Reply::NotFound);
        if self.keeps && !self.empty {
            self.brought = Encoded::of(&reply);
        }
        (self.convert)(reply)
    }

    /// What the next copy is sent after this result; `None`: it need not be asked.
    pub(super) fn to_copy(&self, result: &Result<R, Error>) -> Option<ToCopy<'a>> {
        let failed = result.as_ref().is_err_and(Error::is_away);
        if self.command.asks_copies() && (self.missed || failed) {
            return Some(ToCopy::Read(self.command));
        }
        let writes = self.effect != Effect::Read;
        writes.then(|| ToCopy::Write(self.command.for_copies()))
    }

    /// The result after another copy was read: that one's if it has something. Otherwise what the
    /// first one said stands, be it that there is nothing or why it said nothing.
    pub(super) fn better(
        &self,
        before: Result<R, Error>,
        read: Result<R, Error>,
    ) -> Result<R, Error> {
        match (&read, self.missed) {
            (Ok(_), false) => read,
            (Err(error), _) if self.effect != Effect::Read && error.is_in_doubt() => {
                before.map_err(Error::doubted)
            }
            _ => before,
        }
    }

    /// The result after another copy was written.
    pub(super) fn written(
        &self,
        result: Result<R, Error>,
        copied: Result<(), Error>,
    ) -> Result<R, Error> {
        written(&self.command, result, copied)
    }

    /// Whether the result may come from the place of a value that somebody computes.
    pub(super) fn may_be_blank(&self, result: &Result<R, Error>) -> bool {
        let not_a_number = || match result {
            Err(Error::Refused { line, .. }) => is_no_number(line),
            _ => false,
        };
        self.blank.is_some() && (self.empty || not_a_number())
    }

    /// Whether the item has to be looked at before the command is sent: what is appended to the
    /// place of a value being computed would be taken for that value.
    pub(super) fn looks_first(&self) -> bool {
        matches!(self.command, Command::Extend { .. })
    }

    /// The result, if it does: there is nothing.
    pub(super) fn blanked(&mut self, result: Result<R, Error>) -> Result<R, Error> {
        self.missed = true;
        match self.blank {
            Some(blank) => blank(result),
            None => result,
        }
    }
}

/// The result of a write after another copy was sent the same, or what keeps it from being out of
/// date. Once one of them is or may be written, an error of the other leaves the write in doubt.
fn written<R>(
    command: &Command<'_>,
    result: Result<R, Error>,
    copied: Result<(), Error>,
) -> Result<R, Error> {
    let is_same = command.copying() == Copying::WriteAll;
    match (result, copied) {
        (Ok(_), Err(error)) => Err(error.doubted()),
        (Err(error), copied) if is_same && copied.as_ref().err().is_none_or(Error::is_in_doubt) => {
            Err(error.doubted())
        }
        (result, _) => result,
    }
}

/// What counting says to a value that is no number, and to the place of one being computed.
fn is_no_number(line: &str) -> bool {
    line.contains("non-numeric")
}

/// Whether a reply is such as the place of a value being computed gets.
fn may_be_place(reply: &Reply<'_>) -> bool {
    match reply {
        Reply::Value(item) => item.data.is_empty() && item.flags == 0,
        Reply::Refused(line) => is_no_number(line),
        _ => false,
    }
}

/// A read that finds something or does not.
fn reading<'a, R, F: Convert<Option<R>>>(
    command: Command<'a>,
    convert: F,
) -> Operation<'a, Option<R>, F> {
    let (found, blank) = (Some(Option::is_some as fn(&_) -> bool), Some(none as fn(_) -> _));
    Operation { found, blank, ..Operation::new(command, convert) }
}

fn none<R>(_: Result<Option<R>, Error>) -> Result<Option<R>, Error> {
    Ok(None)
}

pub(in crate::client) fn get<T: DeserializeOwned>(
    config: &Config,
) -> Operation<'static, Option<T>, impl Convert<Option<T>>> {
    reading(Command::Get { token: false }, |reply: Reply<'_>| outcome::value(&config.codec, reply))
}

pub(in crate::client) fn get_versioned<T: DeserializeOwned>(
    config: &Config,
) -> Operation<'static, Option<Versioned<T>>, impl Convert<Option<Versioned<T>>>> {
    let convert = |reply: Reply<'_>| outcome::versioned(&config.codec, reply);
    reading(Command::Get { token: true }, convert)
}

pub(in crate::client) fn get_raw() -> Operation<'static, Option<Raw>, impl Convert<Option<Raw>>> {
    reading(Command::Get { token: false }, outcome::raw)
}

/// Bytes with their token, if there are any.
type VersionedBytes = Option<Versioned<Vec<u8>>>;

pub(in crate::client) fn get_raw_versioned()
-> Operation<'static, VersionedBytes, impl Convert<VersionedBytes>> {
    let convert = |reply: Reply<'_>| outcome::versioned_by(reply, |item| Ok(item.data.to_vec()));
    reading(Command::Get { token: true }, convert)
}

pub(in crate::client) fn get_and_touch<T: DeserializeOwned>(
    config: &Config,
    expiry: Expiry,
) -> Operation<'static, Option<T>, impl Convert<Option<T>>> {
    let command = Command::GetAndTouch { exptime: expiry.exptime() };
    reading(command, |reply: Reply<'_>| outcome::value(&config.codec, reply))
}

/// What `update` reads: the token also of an item that is no value.
pub(in crate::client) fn read_for_update<T: DeserializeOwned>(
    config: &Config,
) -> Operation<'static, Read<T>, impl Convert<Read<T>>> {
    let convert = |reply: Reply<'_>| Read::new(&config.codec, reply);
    let found = |read: &Read<T>| read.value.is_some();
    let blank = |read: Result<Read<T>, Error>| read.map(|read| Read { value: None, ..read });
    let operation = Operation::new(Command::Get { token: true }, convert);
    Operation { found: Some(found), blank: Some(blank), ..operation }
}

pub(in crate::client) fn inspect()
-> Operation<'static, Option<Inspection>, impl Convert<Option<Inspection>>> {
    Operation::new(Command::Inspect, outcome::inspection)
}

/// Whether there is an item, and whether it is the place of a value that somebody computes.
pub(in crate::client) fn look() -> Operation<'static, Look, impl Convert<Look>> {
    Operation::new(Command::Inspect, outcome::look)
}

/// The command to send after a look; `None` if there is nothing to extend.
pub(in crate::client) fn extending(command: Command<'_>, look: Look) -> Option<Command<'_>> {
    match (command, look) {
        (command, Look::Unknown) => Some(command),
        (_, Look::Nothing | Look::Place(_)) => None,
        (Command::Extend { front, data, .. }, Look::Item(token)) => {
            Some(Command::Extend { front, data, token: Some(token) })
        }
        (command, Look::Item(_)) => Some(command),
    }
}

/// Bytes and flags on their way into a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::client) struct Encoded {
    pub data: Vec<u8>,
    pub flags: u32,
}

impl Encoded {
    pub(super) fn new(config: &Config, value: &(impl Serialize + ?Sized)) -> Result<Self, Error> {
        Self::with(&config.codec, value)
    }

    pub(super) fn with(codec: &AnyCodec, value: &(impl Serialize + ?Sized)) -> Result<Self, Error> {
        let (data, flags) = codec.encode(value)?;
        Ok(Self { data, flags })
    }

    /// What a reply brought.
    pub(super) fn of(reply: &Reply<'_>) -> Option<Self> {
        match reply {
            Reply::Value(item) => Some(Self { data: item.data.to_vec(), flags: item.flags }),
            _ => None,
        }
    }

    /// As a server would have it.
    pub(super) fn as_reply(&self) -> Reply<'_> {
        Reply::Value(Item { data: &self.data, flags: self.flags, ..Item::default() })
    }

    /// The value again; `None` if it is no `T`.
    pub(super) fn value<T: DeserializeOwned>(&self, config: &Config) -> Option<T> {
        config.codec.decode(&self.data, self.flags).ok()
    }

    pub(super) fn command(&self, mode: Mode, expiry: Expiry) -> Command<'_> {
        let Self { data, flags } = self;
        Command::Store { mode, flags: *flags, exptime: expiry.exptime(), data }
    }
}

pub(in crate::client) fn set(
    value: &Encoded,
    expiry: Expiry,
) -> Operation<'_, (), impl Convert<()>> {
    Operation::new(value.command(Mode::Set, expiry), outcome::set)
}

pub(in crate::client) fn set_raw(
    data: &[u8],
    flags: u32,
    expiry: Expiry,
) -> Operation<'_, (), impl Convert<()>> {
    let exptime = expiry.exptime();
    Operation::new(Command::Store { mode: Mode::Set, flags, exptime, data }, outcome::set)
}

/// Stores or does not: `add`, `replace`, and what `update` ends with.
pub(in crate::client) fn store(
    value: &Encoded,
    mode: Mode,
    expiry: Expiry,
) -> Operation<'_, bool, impl Convert<bool>> {
    Operation::new(value.command(mode, expiry), outcome::stored)
}

/// Appends, or at the front. `Changed`: somebody interfered, and it is to be tried again.
pub(in crate::client) fn extend(front: bool, data: &[u8]) -> Operation<'_, Cas, impl Convert<Cas>> {
    Operation::new(Command::Extend { front, data, token: None }, outcome::cas)
}

pub(in crate::client) fn cas(
    value: &Encoded,
    token: u64,
    expiry: Expiry,
) -> Operation<'_, Cas, impl Convert<Cas>> {
    Operation::new(value.command(Mode::Cas(token), expiry), outcome::cas)
}

pub(in crate::client) fn delete() -> Operation<'static, bool, impl Convert<bool>> {
    Operation::new(Command::Delete, outcome::existed)
}

pub(in crate::client) fn touch(expiry: Expiry) -> Operation<'static, bool, impl Convert<bool>> {
    Operation::new(Command::Touch { exptime: expiry.exptime() }, outcome::existed)
}

pub(in crate::client) fn invalidate(
    expiry: Expiry,
) -> Operation<'static, bool, impl Convert<bool>> {
    Operation::new(Command::Invalidate { exptime: expiry.exptime() }, outcome::existed)
}

/// Up or down from the number there is.
pub(in crate::client) fn count(
    up: bool,
    delta: u64,
) -> Operation<'static, Option<u64>, impl Convert<Option<u64>>> {
    let operation = Operation::new(Command::Count { up, delta }, outcome::number);
    Operation { blank: Some(none), ..operation }
}

/// Counting up or down, starting at `initial`. Nothing stands in for the key's own server.
pub(in crate::client) struct Counting {
    up: bool,
    delta: u64,
    initial: u64,
    expiry: Expiry,
    /// `initial`, as it is stored.
    digits: String,
}

impl Counting {
    pub(super) fn new(up: bool, delta: u64, initial: u64, expiry: Expiry) -> Self {
        Self { up, delta, initial, expiry, digits: initial.to_string() }
    }

    /// For so many numbers that nobody else gets.
    pub(super) fn unique(count: u64) -> Result<Self, Error> {
        match count {
            1..=0x8000_0000_0000_0000 => Ok(Self::new(true, count, count, Expiry::Never)),
            _ => Err(Error::Config("unique_ids: ask for 1 to 2^63".into())),
        }
    }

    /// The number; `None` if there is the place of a value being computed.
    pub(super) fn count(&self) -> Operation<'static, Option<u64>, impl Convert<Option<u64>>> {
        let Self { up, delta, initial, expiry, .. } = *self;
        let command = Command::CountFrom { up, delta, initial, exptime: expiry.exptime() };
        Operation { blank: Some(none), ..Operation::new(command, outcome::number) }
    }

    /// Begins in such a place. Who computes stores nothing then.
    pub(super) fn begin(&self, token: u64) -> Operation<'_, bool, impl Convert<bool>> {
        let (mode, exptime, data) =
            (Mode::Cas(token), self.expiry.exptime(), self.digits.as_bytes());
        let command = Command::Store { mode, flags: 0, exptime, data };
        Operation { effect: Effect::Exact, ..Operation::new(command, outcome::stored) }
    }

    pub(super) fn initial(&self) -> u64 {
        self.initial
    }
}

/// The numbers up to the one that was counted.
pub(in crate::client) fn unique_ids(last: u64, count: u64) -> Result<Range<u64>, Error> {
    // A counter that somebody else has set below is theirs to explain.
    let first = last.checked_sub(count).map(|before| before + 1);
    let first = first.ok_or_else(|| Error::Value(format!("the counter is at {last}")))?;
    Ok(first..last.saturating_add(1))
}

/// Deletes an item if it is still the one with this token: a value that was taken, or a lease that
/// is given back.
pub(in crate::client) fn delete_version(
    token: u64,
) -> Operation<'static, bool, impl Convert<bool>> {
    Operation::new(Command::DeleteVersion { token }, outcome::existed)
}

pub(in crate::client) fn version(reply: Reply<'_>) -> Result<String, Error> {
    match reply {
        Reply::Version(version) => Ok(version.to_owned()),
        other => Err(Error::protocol("", format!("{other:?}"))),
    }
}

pub(in crate::client) fn flushed(reply: Reply<'_>) -> Result<(), Error> {
    match reply {
        Reply::Ok => Ok(()),
        other => Err(Error::protocol("", format!("{other:?}"))),
    }
}

pub(in crate::client) fn flush_all(delay: Option<Duration>) -> ServerCommand<'static> {
    let seconds = delay.unwrap_or_default().as_secs();
    ServerCommand::FlushAll { delay_seconds: u32::try_from(seconds).unwrap_or(u32::MAX) }
}

/// Asks for statistics, unless the word would be a command of its own.
pub(in crate::client) fn stats(which: &str) -> Result<ServerCommand<'_>, Error> {
    match which.bytes().any(|byte| byte.is_ascii_control()) {
        true => Err(Error::Config("stats: control characters".into())),
        false => Ok(ServerCommand::Stats(which)),
    }
}

pub(in crate::client) type Statistics = BTreeMap<String, String>;
