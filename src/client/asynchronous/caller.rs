//! How the asynchronous face makes a call: connection, request, reply. Owns waiting for them; what
//! is sent, where it goes and what a failure means is decided in `operation`.

use crate::client::asynchronous::lanes::Lane;
use crate::client::asynchronous::pipe::{Lost, NotTaken, Request};
use crate::client::asynchronous::socket::all;
use crate::client::clock;
use crate::client::cluster::{Cluster, Server};
use crate::client::error::Error;
use crate::client::observe::{MANY, Watch};
use crate::client::operation::attempt::Attempt;
use crate::client::operation::many::{Bulk, Group, Slots};
use crate::client::operation::{self, Convert, Operation, ToCopy, extending};
use crate::client::placement::key::{AsKey, WireKey};
use crate::client::wire::batch::{Batch, Single};
use crate::client::wire::command::{Command, Effect, Expect, ServerCommand};
use crate::client::wire::outcome::{Look, Many};
use crate::client::wire::reply::{Decoder, Reply};
use std::sync::Arc;
use std::time::Instant;

/// Requests of more bytes than this travel on a connection of their own, and so do those that are
/// likely to be answered with more.
const SHARED_BYTES_MAX: usize = 32 << 10;

/// Calls about more keys than this do too, since their replies are as long.
const SHARED_KEYS_MAX: usize = 128;

/// Connections that end just when a call wants to take them, before that is an error.
const ENDED_MAX: usize = 8;

/// Makes calls on the servers of a cluster.
#[derive(Debug, Clone, Copy)]
pub(super) struct Calls<'c>(pub &'c Arc<Cluster>);

/// What is asked, and whether it or the answer is so large that others had to wait for it.
struct Sent<'r> {
    request: &'r Request,
    is_large: bool,
    deadline: Instant,
}

/// Notes whether the value of a key is large; `known`: it was taken for that.
fn learn(server: &Server, key: &[u8], known: bool, bytes: usize) {
    match bytes > SHARED_BYTES_MAX {
        true => server.lanes.large.add(key),
        false if known => server.lanes.large.remove(key),
        false => {}
    }
}

impl<'c> Calls<'c> {
    fn deadline(self) -> Instant {
        clock::now() + self.0.config.call_timeout
    }

    /// The bytes of the replies, with the connection they came on.
    async fn exchange<'s>(
        self,
        server: &'s Arc<Server>,
        sent: &Sent<'_>,
    ) -> Result<(Lane<'s>, Vec<u8>), (Option<Lane<'s>>, Lost)> {
        let _under_way = server.begin();
        let lost = |error| Lost { error, partial: Vec::new(), used: false, is_known: false };
        let is_large = sent.is_large || sent.request.bytes.len() > SHARED_BYTES_MAX;
        for _ in 0..ENDED_MAX {
            let lane = match is_large {
                true => server.lanes.own(self.0, server, sent.deadline).await,
                false => server.lanes.shared(self.0, server),
            };
            let lane = lane.map_err(|error| (None, lost(error)))?;
            let config = &self.0.config;
            let patience = config.read_timeout.min(config.call_timeout);
            let asked = lane.pipe.ask(&server.name, sent.request, sent.deadline, patience).await;
            match asked {
                Ok(bytes) => return Ok((lane, bytes)),
                Err(NotTaken::Lost(lost)) => return Err((Some(lane), lost)),
                Err(NotTaken::Ended) => {}
            }
        }
        Err((None, lost(Error::closed(&server.name).without_doubt())))
    }

    /// Blames the server for a failure, once for each connection.
    fn blame(self, server: &Server, lane: Option<&Lane<'_>>, lost: &Lost) {
        // Running out of time is each call's own.
        let is_own = matches!(lost.error, Error::Timeout { .. }) || lane.is_none();
        if is_own || (!lost.is_known && lane.is_some_and(|lane| lane.pipe.is_news())) {
            self.0.failed(server, &lost.error);
        }
    }

    /// One request to one server. `name` is the operation's, for those who watch.
    async fn ask<R>(
        self,
        name: &'static str,
        server: &Arc<Server>,
        key: Option<&WireKey<'_>>,
        effect: Effect,
        write: impl Fn(u32, &mut Vec<u8>) -> Expect,
        convert: &mut impl FnMut(Reply<'_>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let watch = Watch::begin(server, name);
        let result = watch.around(self.ask_unwatched(server, key, effect, write, convert)).await;
        watch.end(result.as_ref().err());
        result
    }

    async fn ask_unwatched<R>(
        self,
        server: &Arc<Server>,
        key: Option<&WireKey<'_>>,
        effect: Effect,
        write: impl Fn(u32, &mut Vec<u8>) -> Expect,
        convert: &mut impl FnMut(Reply<'_>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let deadline = self.deadline();
        let mut request = Request { bytes: Vec::new(), first: Expect::Line, rest: Vec::new() };
        request.first = write(server.lanes.opaque(1), &mut request.bytes);
        let known = key.is_some_and(|key| server.lanes.large.has(&key.bytes));
        let sent = Sent { request: &request, is_large: known, deadline };
        let mut attempt = Attempt::new(effect);
        loop {
            let (lane, bytes) = match self.exchange(server, &sent).await {
                Ok(answered) => answered,
                Err((_, lost)) if attempt.again(self.0, &lost.error, lost.used) => continue,
                Err((None, lost)) if matches!(lost.error, Error::Login { .. }) => {
                    // The refusal stands, and was told.
                    return Err(lost.error);
                }
                Err((lane, lost)) => {
                    self.blame(server, lane.as_ref(), &lost);
                    return Err(lost.error);
                }
            };
            if let Some(key) = key {
                learn(server, &key.bytes, known, bytes.len().max(request.bytes.len()));
            }
            let mut single = Single::new(key, request.first);
            let advanced = single.advance(&mut Decoder::from(bytes), &server.name, convert);
            let error = match (advanced, single.result) {
                (Ok(true), Some(result)) => {
                    self.0.succeeded(server);
                    return result;
                }
                (Err(fault), _) => Error::fault(&server.name, fault),
                _ => Error::protocol(&server.name, "no reply"),
            };
            lane.pipe.break_off();
            self.0.failed(server, &error);
            return Err(error);
        }
    }

    /// One operation on one key.
    pub(super) async fn call<R, F: Convert<R>>(
        self,
        key: &(impl AsKey + ?Sized),
        mut operation: Operation<'_, R, F>,
    ) -> Result<R, Error> {
        let begun = self.0.begin(key, &mut operation)?;
        let mut target = begun.target(operation.command);
        if operation.looks_first()
            && let Some((server, command)) = target
        {
            let look = self.look(&server, &begun.key).await?;
            target = extending(command, look).map(|extending| (server, extending));
        }
        let mut result = match target {
            Some((server, command)) => {
                self.first(&server, &begun.key, command, &mut operation).await
            }
            None => begun.unasked(&mut operation),
        };
        for copy in &begun.copies {
            let Some(to_copy) = operation.to_copy(&result) else { break };
            result = self.copied(copy, &begun.key, to_copy, &mut operation, result).await;
        }
        self.0.settle(begun, operation, result)
    }

    /// The result of the first server of a key.
    async fn first<R, F: Convert<R>>(
        self,
        server: &Arc<Server>,
        key: &WireKey<'_>,
        command: Command<'_>,
        operation: &mut Operation<'_, R, F>,
    ) -> Result<R, Error> {
        let write = |opaque, out: &mut Vec<u8>| command.write(key, opaque, out);
        let effect = operation.effect;
        let convert = &mut |reply: Reply<'_>| operation.read(reply);
        let result = self.ask(command.name(), server, Some(key), effect, write, convert).await;
        if result.is_ok() {
            server.answered(&command);
        }
        self.seen(server, key, operation, result).await
    }

    /// The result, unless what was read is the place of a value that somebody computes.
    async fn seen<R, F: Convert<R>>(
        self,
        server: &Arc<Server>,
        key: &WireKey<'_>,
        operation: &mut Operation<'_, R, F>,
        result: Result<R, Error>,
    ) -> Result<R, Error> {
        if !operation.may_be_blank(&result) {
            return result;
        }
        match self.look(server, key).await {
            Ok(Look::Place(_)) => operation.blanked(result),
            _ => result,
        }
    }

    /// The result, after another copy of the key was asked as well.
    async fn copied<R, F: Convert<R>>(
        self,
        copy: &Arc<Server>,
        key: &WireKey<'_>,
        to_copy: ToCopy<'_>,
        operation: &mut Operation<'_, R, F>,
        result: Result<R, Error>,
    ) -> Result<R, Error> {
        let (ToCopy::Read(command) | ToCopy::Write(command)) = to_copy;
        let write = |opaque, out: &mut Vec<u8>| command.write(key, opaque, out);
        if let ToCopy::Write(_) = to_copy {
            let copied = self
                .ask(command.name(), copy, Some(key), Effect::Write, write, &mut |_| Ok(()))
                .await;
            return operation.written(result, copied);
        }
        let convert = &mut |reply: Reply<'_>| operation.read(reply);
        let read =
            self.ask(command.name(), copy, Some(key), command.effect(), write, convert).await;
        let read = self.seen(copy, key, operation, read).await;
        operation.better(result, read)
    }

    /// What an item is. If the server cannot be asked that, it says nothing against it.
    async fn look(self, server: &Arc<Server>, key: &WireKey<'_>) -> Result<Look, Error> {
        if server.has_no_meta() {
            return Ok(Look::Unknown);
        }
        let mut request = Request { bytes: Vec::new(), first: Expect::Line, rest: Vec::new() };
        let opaque = server.lanes.opaque(1);
        request.first = Command::Inspect.write(key, opaque, &mut request.bytes);
        let sent = Sent { request: &request, is_large: false, deadline: self.deadline() };
        let exchanged = self.exchange(server, &sent).await;
        server.looked(exchanged.map_err(|(_, lost)| lost.error).and_then(|(_, bytes)| {
            let convert = &mut |reply: Reply<'_>| operation::look().read(reply);
            let mut single = Single::new(Some(key), request.first);
            let advanced = single.advance(&mut Decoder::from(bytes), &server.name, convert);
            advanced.map_err(|fault| Error::fault(&server.name, fault))?;
            single.result.unwrap_or_else(|| Err(Error::protocol(&server.name, "no reply")))
        }))
    }

    /// One request that is not about a key.
    pub(super) async fn tell<R>(
        self,
        server: &Arc<Server>,
        command: ServerCommand<'_>,
        effect: Effect,
        mut convert: impl FnMut(Reply<'_>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let protocol = self.0.config.protocol();
        command.check(protocol)?;
        let write = |opaque, out: &mut Vec<u8>| command.write(protocol, opaque, out);
        let told = self.ask(command.name(), server, None, effect, write, &mut convert).await;
        told.map_err(|error| command.doubted(error))
    }

    /// Commands about many keys, to all their servers at once.
    pub(super) async fn call_many<K: AsKey, T>(self, keys: &[K], bulk: &impl Bulk<T>) -> Many<T> {
        let mut slots = Slots::new(keys.len());
        let (groups, mut copied) = self.0.split(keys, bulk, &mut slots);
        self.ask_all(groups, bulk, &mut slots).await;
        self.blank(keys, &mut slots).await;
        while let Some((groups, copies)) = self.0.next_copies(keys, bulk, &mut copied, &slots) {
            let mut read = Slots::new(keys.len());
            self.ask_all(groups, &copies, &mut read).await;
            self.blank(keys, &mut read).await;
            slots.merge(&copies, read);
        }
        slots.finish(self.0, bulk)
    }

    /// One request or many to each of several servers, at once.
    async fn ask_all<'k, T>(
        self,
        groups: Vec<Group<'k>>,
        bulk: &impl Bulk<T>,
        slots: &mut Slots<T>,
    ) {
        let deadline = self.deadline();
        let ask = |group: Group<'k>| {
            let (server, count) = (Arc::clone(&group.server), group.keys.len());
            let known = |(_, key): &(usize, WireKey<'_>)| server.lanes.large.has(&key.bytes);
            let is_large = count > SHARED_KEYS_MAX || group.keys.iter().any(known);
            // The numbers of a batch are counted up before each is used.
            let mut opaque = server.lanes.opaque(count).wrapping_sub(1);
            let batch = bulk.requests(group, &mut opaque);
            self.batch(server, batch, is_large, deadline)
        };
        let answers = all(groups.into_iter().map(ask).collect()).await;
        for Answer { server, mut batch, bytes, lost } in answers {
            let mut sink = |at, reply: Reply<'_>| {
                if let Reply::Value(item) = &reply
                    && !item.key.is_empty()
                {
                    learn(&server, item.key, true, item.data.len());
                }
                slots.fill(&server, at, reply, bulk)
            };
            let advanced = batch.advance(&mut Decoder::from(bytes), &mut sink);
            let fault = advanced.err().map(|fault| Error::fault(&server.name, fault));
            if let Some(error) = &fault {
                // No telling whose the other replies on that connection were.
                server.lanes.retire();
                self.0.failed(&server, error);
            }
            match fault.or(lost) {
                Some(error) => slots.fail(self.0, batch.unanswered(), &error, bulk),
                None => self.0.succeeded(&server),
            }
        }
    }

    /// The requests to one server.
    async fn batch<'k>(
        self,
        server: Arc<Server>,
        batch: Batch<'k>,
        is_large: bool,
        deadline: Instant,
    ) -> Answer<'k> {
        let mut expects = batch.expects().into_iter();
        let Some(first) = expects.next() else {
            return Answer { server, batch, bytes: Vec::new(), lost: None };
        };
        let (bytes, rest) = (batch.requests.clone(), expects.collect());
        let request = Request { bytes, first, rest };
        let sent = Sent { request: &request, is_large, deadline };
        let watch = Watch::begin(&server, MANY);
        let (bytes, lost) = match watch.around(self.exchange(&server, &sent)).await {
            Ok((_, bytes)) => (bytes, None),
            Err((lane, lost)) => {
                if !matches!((&lane, &lost.error), (None, Error::Login { .. })) {
                    self.blame(&server, lane.as_ref(), &lost);
                }
                (lost.partial, Some(lost.error))
            }
        };
        watch.end(lost.as_ref());
        Answer { server, batch, bytes, lost }
    }

    /// Among items that look like it, takes the places of values being computed for missing.
    async fn blank<K: AsKey, T>(self, keys: &[K], slots: &mut Slots<T>) {
        for (at, server) in std::mem::take(&mut slots.doubtful) {
            let Ok((key, _)) = self.0.wire(&keys[at]) else { continue };
            if matches!(self.look(&server, &key).await, Ok(Look::Place(_))) {
                slots.open(at);
            }
        }
    }
}

/// What one server answered to a batch.
struct Answer<'k> {
    server: Arc<Server>,
    batch: Batch<'k>,
    bytes: Vec<u8>,
    lost: Option<Error>,
}
