//! Mixed commands of one call. Owns their list in the order of the program, and what each answer
//! is; which goes to which server is decided in `many`. No I/O.

use crate::client::config::{Config, Expiry};
use crate::client::error::Error;
use crate::client::operation::Encoded;
use crate::client::operation::lease::OwnedKey;
use crate::client::operation::many::Bulk;
use crate::client::placement::key::AsKey;
use crate::client::value::AnyCodec;
use crate::client::wire::command::{Command, Mode};
use crate::client::wire::outcome;
use crate::client::wire::reply::Reply;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Commands about many keys, sent together: one round trip to each server, to all of them at once.
/// Made by `Client::batch`, carried out by `run`.
///
/// The answers are in the order of the commands, each a result of its own: a server that fails
/// costs its own. Commands about one key are carried out in their order; between keys on different
/// servers there is none, and other programs' commands may come in between: this is no transaction.
/// What takes two steps (`append`, `incr_or`, `update`, `take`, `get_or_compute`) is not among
/// them.
///
/// A `get` of a key that a later command of the same batch writes may show an empty value where
/// another caller of `get_or_compute` has begun to compute one.
///
/// ```
/// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
/// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
/// client.set("visits", 41)?;
/// let batch = client.batch().get("user").set("name", "Pel\u{e9}").incr("visits", 1);
/// let answers = batch.run().all()?;
/// assert_eq!(answers[0].value::<String>()?, None);
/// assert!(answers[1].is_done());
/// assert_eq!(answers[2].number(), Some(42));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "nothing is sent before it is run"]
pub struct Batch<C> {
    pub(in crate::client) client: C,
    pub(in crate::client) commands: Commands,
}

/// What one command of a [`Batch`] came to.
#[derive(Debug, Clone)]
pub struct Answer(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Value(Option<Encoded>, AnyCodec),
    Done(bool),
    Number(Option<u64>),
}

impl Answer {
    /// What a `get` or `get_and_touch` found, as a `T`.
    ///
    /// # Errors
    /// `Error::Value` if it is no `T`, or no value was asked for.
    pub fn value<T: DeserializeOwned>(&self) -> Result<Option<T>, Error> {
        match &self.0 {
            Kind::Value(None, _) => Ok(None),
            Kind::Value(Some(found), codec) => codec.decode(&found.data, found.flags).map(Some),
            _ => Err(Error::Value("this command of the batch asks for no value".into())),
        }
    }

    /// The number that `incr` or `decr` made; `None` if there was no item.
    pub fn number(&self) -> Option<u64> {
        match self.0 {
            Kind::Number(number) => number,
            _ => None,
        }
    }

    /// Whether there was something to read, count, replace, touch or delete; for `add`, whether
    /// there was nothing; for `set`, always.
    pub fn is_done(&self) -> bool {
        match self.0 {
            Kind::Value(ref found, _) => found.is_some(),
            Kind::Done(done) => done,
            Kind::Number(number) => number.is_some(),
        }
    }

    /// Whether a read found something; nothing of other commands.
    pub(in crate::client) fn found(&self) -> Option<bool> {
        matches!(self.0, Kind::Value(..)).then(|| self.is_done())
    }
}

/// One command, with what it stores.
#[derive(Debug)]
enum One {
    Plain(Command<'static>),
    Store(Mode, Expiry, Result<Encoded, Error>),
}

/// The commands of a batch and their keys.
#[derive(Debug)]
pub(in crate::client) struct Commands {
    config_expiry: Expiry,
    codec: AnyCodec,
    pub keys: Vec<OwnedKey>,
    list: Vec<One>,
}

impl Commands {
    pub(crate) fn new(config: &Config) -> Self {
        let (config_expiry, codec) = (config.expiry, config.codec.clone());
        Self { config_expiry, codec, keys: Vec::new(), list: Vec::new() }
    }

    fn push(&mut self, key: &impl AsKey, one: One) {
        self.keys.push(OwnedKey::new(key));
        self.list.push(one);
    }

    fn store(&mut self, key: &impl AsKey, value: &impl Serialize, mode: Mode, expiry: Expiry) {
        let encoded = Encoded::with(&self.codec, value);
        self.push(key, One::Store(mode, expiry, encoded));
    }
}

impl Bulk<Answer> for Commands {
    fn command(&self, at: usize) -> Command<'_> {
        match &self.list[at] {
            One::Plain(command) => *command,
            One::Store(mode, expiry, Ok(value)) => value.command(*mode, *expiry),
            One::Store(.., Err(_)) => Command::Delete,
        }
    }

    fn convert(&self, at: usize, reply: Reply<'_>) -> Result<Answer, Error> {
        let kind = match &self.list[at] {
            One::Plain(Command::Get { .. } | Command::GetAndTouch { .. }) => {
                let found = outcome::raw(reply)?;
                let found = found.map(|raw| Encoded { data: raw.bytes, flags: raw.flags });
                Kind::Value(found, self.codec.clone())
            }
            One::Plain(Command::Count { .. }) => Kind::Number(outcome::number(reply)?),
            One::Plain(_) => Kind::Done(outcome::existed(reply)?),
            One::Store(..) => Kind::Done(outcome::stored(reply)?),
        };
        Ok(Answer(kind))
    }

    fn in_order(&self) -> bool {
        true
    }

    fn unsendable(&self, at: usize) -> Option<&Error> {
        match &self.list[at] {
            One::Store(.., Err(error)) => Some(error),
            _ => None,
        }
    }
}

impl<C> Batch<C> {
    pub(in crate::client) fn new(client: C, config: &Config) -> Self {
        Self { client, commands: Commands::new(config) }
    }

    fn plain(mut self, key: impl AsKey, command: Command<'static>) -> Self {
        self.commands.push(&key, One::Plain(command));
        self
    }

    fn store(mut self, key: impl AsKey, value: impl Serialize, mode: Mode, expiry: Expiry) -> Self {
        self.commands.store(&key, &value, mode, expiry);
        self
    }

    /// Reads a value: [`Answer::value`].
    pub fn get(self, key: impl AsKey) -> Self {
        self.plain(key, Command::Get { token: false })
    }

    /// Reads a value and sets its expiry anew.
    pub fn get_and_touch(self, key: impl AsKey, expiry: impl Into<Expiry>) -> Self {
        self.plain(key, Command::GetAndTouch { exptime: expiry.into().exptime() })
    }

    /// Stores a value, with the default expiry. One that cannot be encoded is the error of this
    /// command alone.
    pub fn set(self, key: impl AsKey, value: impl Serialize) -> Self {
        let expiry = self.commands.config_expiry;
        self.set_with(key, value, expiry)
    }

    /// Stores a value with an expiry.
    pub fn set_with(
        self,
        key: impl AsKey,
        value: impl Serialize,
        expiry: impl Into<Expiry>,
    ) -> Self {
        self.store(key, value, Mode::Set, expiry.into())
    }

    /// Stores a value with an expiry if the key has none.
    pub fn add_with(
        self,
        key: impl AsKey,
        value: impl Serialize,
        expiry: impl Into<Expiry>,
    ) -> Self {
        self.store(key, value, Mode::Add, expiry.into())
    }

    /// Stores a value with an expiry if the key has one already.
    pub fn replace_with(
        self,
        key: impl AsKey,
        value: impl Serialize,
        expiry: impl Into<Expiry>,
    ) -> Self {
        self.store(key, value, Mode::Replace, expiry.into())
    }

    /// Deletes an item.
    pub fn delete(self, key: impl AsKey) -> Self {
        self.plain(key, Command::Delete)
    }

    /// Sets the expiry of an item.
    pub fn touch(self, key: impl AsKey, expiry: impl Into<Expiry>) -> Self {
        self.plain(key, Command::Touch { exptime: expiry.into().exptime() })
    }

    /// Adds to a number: [`Answer::number`].
    pub fn incr(self, key: impl AsKey, delta: u64) -> Self {
        self.plain(key, Command::Count { up: true, delta })
    }

    /// Subtracts from a number, not below 0.
    pub fn decr(self, key: impl AsKey, delta: u64) -> Self {
        self.plain(key, Command::Count { up: false, delta })
    }
}
