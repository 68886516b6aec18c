//! What workers send each other: batches of operations there, their replies back.
//!
//! A mail holds all commands of one turn for one other worker, in flat buffers that travel back
//! with the replies and are used again. A worker has a few mails to each other worker and waits
//! when all are under way, so the channels are bounded without ever being full.

use crate::limits::{LOOKUPS_ANNOUNCED_MAX, MAIL_BYTES_MAX, MAIL_IN_FLIGHT_MAX};
use crate::protocol::{Exptime, MetaArgs, StoreArgs, StoreMode};
use crate::server::connection::login::ATTEMPTS_WAITING_MAX;
use crate::server::operator::dump::Slice;
use crate::server::persistence::keeper::Order;
use crate::server::stats::report::{Report, Wanted};
pub use crate::server::worker::parking::Parking;
use crate::shard::Shard;
use crate::shard::operation::{Data, Operation, Verb};
use crate::shard::replies::{Mark, Replies};
use crate::store::{Store, Ticks};
use bytes::Bytes;
use crossbeam::channel::Sender;
use std::sync::Arc;

/// Commands in one mail.
const ENTRIES_MAX: usize = 8192;

/// What arrives at a worker.
pub enum Message {
    /// Operations for this worker's shard.
    Requests(Box<Mail>),
    /// Replies to operations this worker sent.
    Replies(Box<Mail>),
    /// What the keeper wants.
    Order(Order),
    /// Another thread wants a report.
    Report(Ask),
    /// A password was checked.
    Login {
        /// The connection's place and serial number.
        connection: (usize, u64),
        /// It was right.
        accepted: bool,
    },
}

/// A report that a thread asks for; not more than one at a time.
pub struct Ask {
    /// What of it.
    pub wanted: Wanted,
    /// Where it goes, with the worker's number. Has room for a report of each worker.
    pub to: Sender<(usize, Report)>,
}

impl Ask {
    /// Sends the report, unless nobody waits any more.
    pub fn answer(&self, worker: usize, report: Report) {
        let _ = self.to.try_send((worker, report));
    }
}

/// Reports to another thread that may be asked for at a time.
const ASKS_MAX: usize = 1;

/// Orders that may wait in an inbox.
const ORDERS_MAX: usize = 64;

/// Snapshots that the connections of one worker wait for, at most: all of them may be answered at
/// once.
pub const SNAPSHOTS_AWAITED_MAX: usize = 16;

const _: () = assert!(SNAPSHOTS_AWAITED_MAX * 2 <= ORDERS_MAX);

/// Verdicts about logins that may: of those that wait, and the one that is being checked. Those of
/// connections that are gone count too.
const LOGINS_MAX: usize = ATTEMPTS_WAITING_MAX + 1;

/// Which connection a reply belongs to. The serial tells a connection from a later one that got
/// the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReplyTo {
    /// The connection's place in its worker.
    pub token: usize,
    /// The connection's descriptor, for those who watch.
    pub descriptor: i32,
    /// The connection's serial number.
    pub serial: u64,
    /// The hole in its output.
    pub hole: u32,
}

/// Something for a whole worker rather than for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errand {
    /// Remove all items, now or at a time.
    Flush(Option<Ticks>),
    /// Report statistics.
    Report(Wanted),
    /// Set counters to 0.
    ResetCounters,
    /// Count by prefix, or stop.
    Detail(bool),
    /// Set the shard's memory limit in bytes.
    MemoryLimit(u64),
    /// List items.
    Dump(Slice),
}

/// A verb without borrowed parts. Meta arguments lie in the mail, under their number.
#[derive(Debug, Clone, Copy)]
enum PackedVerb {
    Get { with_cas: bool },
    GetAndTouch { with_cas: bool, exptime: Exptime },
    Store(StoreArgs),
    Delete,
    Arithmetic { increment: bool, delta: u64 },
    Touch { exptime: Exptime },
    DropStale,
    MetaGet(u32),
    MetaStore(u32, StoreMode),
    MetaDelete(u32),
    MetaArithmetic(u32),
    MetaDebug(u32),
    Errand(Errand),
}

/// Where the data block of an entry is.
#[derive(Debug, Clone, Copy)]
enum PackedData {
    /// Behind the key: so many bytes.
    Inline(u32),
    /// The next of the owned values.
    Owned,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    hash: u64,
    verb: PackedVerb,
    data: PackedData,
    key_bytes: u8,
    noreply: bool,
    reply_to: ReplyTo,
    reply_end: Mark,
    /// The record that has to be safe before the reply leaves. Of a dump, the part to go on with.
    record: u64,
    /// An errand was not done.
    refused: bool,
}

/// A batch; see the module's text.
#[derive(Default)]
pub struct Mail {
    /// Who sent the requests.
    pub from: usize,
    /// Who executes them.
    pub to: usize,
    entries: Vec<Entry>,
    bytes: Vec<u8>,
    owned: Vec<Bytes>,
    metas: Vec<MetaArgs>,
    replies: Replies,
    reports: Vec<Box<Report>>,
}

impl Mail {
    /// Adds an operation.
    pub fn push(&mut self, operation: Operation<'_>, reply_to: ReplyTo) {
        let Operation { key, hash, noreply, verb } = operation;
        self.bytes.extend_from_slice(key);
        let mut data = PackedData::Inline(0);
        let mut meta = |args: &MetaArgs| {
            self.metas.push(*args);
            (self.metas.len() - 1) as u32
        };
        let (packed, block) = match verb {
            Verb::Get { with_cas } => (PackedVerb::Get { with_cas }, None),
            Verb::GetAndTouch { with_cas, exptime } => {
                (PackedVerb::GetAndTouch { with_cas, exptime }, None)
            }
            Verb::Store(args, block) => (PackedVerb::Store(args), Some(block)),
            Verb::Delete => (PackedVerb::Delete, None),
            Verb::Arithmetic { increment, delta } => {
                (PackedVerb::Arithmetic { increment, delta }, None)
            }
            Verb::Touch { exptime } => (PackedVerb::Touch { exptime }, None),
            Verb::DropStale => (PackedVerb::DropStale, None),
            Verb::MetaGet(args) => (PackedVerb::MetaGet(meta(args)), None),
            Verb::MetaStore(args, mode, block) => {
                (PackedVerb::MetaStore(meta(args), mode), Some(block))
            }
            Verb::MetaDelete(args) => (PackedVerb::MetaDelete(meta(args)), None),
            Verb::MetaArithmetic(args) => (PackedVerb::MetaArithmetic(meta(args)), None),
            Verb::MetaDebug(args) => (PackedVerb::MetaDebug(meta(args)), None),
        };
        match block {
            Some(Data::Slice(slice)) => {
                self.bytes.extend_from_slice(slice);
                data = PackedData::Inline(slice.len() as u32);
            }
            Some(Data::Owned(bytes)) => {
                self.owned.push(bytes);
                data = PackedData::Owned;
            }
            None => {}
        }
        self.push_entry(Entry {
            hash,
            verb: packed,
            data,
            key_bytes: key.len() as u8,
            noreply,
            reply_to,
            reply_end: self.replies.mark(),
            record: 0,
            refused: false,
        });
    }

    /// Adds something for the whole worker. Its reply is empty, or a report.
    pub fn push_errand(&mut self, errand: Errand, reply_to: ReplyTo) {
        self.push_entry(Entry {
            hash: 0,
            verb: PackedVerb::Errand(errand),
            data: PackedData::Inline(0),
            key_bytes: 0,
            noreply: false,
            reply_to,
            reply_end: self.replies.mark(),
            record: 0,
            refused: false,
        });
    }

    fn push_entry(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// Nothing to send.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Holds as much as one mail should.
    pub fn is_full(&self) -> bool {
        self.entries.len() >= ENTRIES_MAX || self.bytes.len() >= MAIL_BYTES_MAX
    }

    /// Executes every operation in order, here at the receiver. `run_errand` does what concerns
    /// the worker.
    pub fn execute(
        &mut self,
        shard: &mut Shard,
        now: Ticks,
        mut run_errand: impl FnMut(&mut Shard, Errand) -> ErrandDone,
    ) {
        let mut at = 0;
        let mut owned = self.owned.drain(..);
        for index in 0..self.entries.len() {
            if index % LOOKUPS_ANNOUNCED_MAX == 0 {
                announce(&self.entries[index..], shard.store());
            }
            let entry = &mut self.entries[index];
            let key_end = at + usize::from(entry.key_bytes);
            let key = &self.bytes[at..key_end];
            let data_end = match entry.data {
                PackedData::Inline(bytes) => key_end + bytes as usize,
                PackedData::Owned => key_end,
            };
            at = data_end;
            let mut data = || match entry.data {
                PackedData::Inline(_) => Data::Slice(&self.bytes[key_end..data_end]),
                PackedData::Owned => owned.next().map_or(Data::Slice(&[]), Data::Owned),
            };
            let meta = |at: u32| &self.metas[at as usize];
            let verb = match entry.verb {
                PackedVerb::Get { with_cas } => Verb::Get { with_cas },
                PackedVerb::GetAndTouch { with_cas, exptime } => {
                    Verb::GetAndTouch { with_cas, exptime }
                }
                PackedVerb::Store(args) => Verb::Store(args, data()),
                PackedVerb::Delete => Verb::Delete,
                PackedVerb::Arithmetic { increment, delta } => {
                    Verb::Arithmetic { increment, delta }
                }
                PackedVerb::Touch { exptime } => Verb::Touch { exptime },
                PackedVerb::DropStale => Verb::DropStale,
                PackedVerb::MetaGet(at) => Verb::MetaGet(meta(at)),
                PackedVerb::MetaStore(at, mode) => Verb::MetaStore(meta(at), mode, data()),
                PackedVerb::MetaDelete(at) => Verb::MetaDelete(meta(at)),
                PackedVerb::MetaArithmetic(at) => Verb::MetaArithmetic(meta(at)),
                PackedVerb::MetaDebug(at) => Verb::MetaDebug(meta(at)),
                PackedVerb::Errand(Errand::Dump(slice)) => {
                    let next_part = slice.write(shard, now, &mut self.replies);
                    // The first part never is one to go on with.
                    entry.record = next_part.unwrap_or(0) as u64;
                    entry.reply_end = self.replies.mark();
                    continue;
                }
                PackedVerb::Errand(errand) => {
                    let done = run_errand(shard, errand);
                    self.reports.extend(done.report);
                    (entry.record, entry.refused) = (done.record, done.refused);
                    entry.reply_end = self.replies.mark();
                    continue;
                }
            };
            let operation = Operation { key, hash: entry.hash, noreply: entry.noreply, verb };
            shard.set_asker(entry.reply_to.descriptor);
            entry.record = shard.execute(operation, now, &mut self.replies);
            entry.reply_end = self.replies.mark();
        }
    }

    /// Hands out the replies, here at the sender: to each connection its part. An errand's reply
    /// is its report, if it made one.
    pub fn deliver(&mut self, mut to: impl FnMut(ReplyTo, Delivery<'_>)) {
        let mut from = Mark::default();
        let mut reports = self.reports.drain(..);
        for entry in &self.entries {
            let errand = |report| {
                let (record, refused) = (entry.record, entry.refused);
                Delivery::Errand(ErrandDone { report, record, refused })
            };
            let delivery = match entry.verb {
                PackedVerb::Errand(Errand::Dump(_)) => {
                    let next_part = usize::try_from(entry.record).ok().filter(|part| *part > 0);
                    Delivery::Slice(&self.replies, from, entry.reply_end, next_part)
                }
                PackedVerb::Errand(Errand::Report(_)) => errand(reports.next()),
                PackedVerb::Errand(_) => errand(None),
                _ => Delivery::Reply(&self.replies, from, entry.reply_end, entry.record),
            };
            to(entry.reply_to, delivery);
            from = entry.reply_end;
        }
    }

    /// Empties the mail and keeps its memory, within reason.
    pub fn recycle(&mut self) {
        self.entries.clear();
        self.metas.clear();
        self.owned.clear();
        self.reports.clear();
        self.bytes.clear();
        self.replies.clear();
        self.entries.shrink_to(ENTRIES_MAX / 8);
        self.metas.shrink_to(ENTRIES_MAX / 8);
        self.owned.shrink_to(ENTRIES_MAX / 8);
        self.replies.values.shrink_to(ENTRIES_MAX / 8);
        self.bytes.shrink_to(MAIL_BYTES_MAX);
        self.replies.bytes.shrink_to(MAIL_BYTES_MAX);
    }
}

/// Has the store bring what the next operations will look up into the processor's caches.
fn announce(entries: &[Entry], store: &Store) {
    let next = entries.iter().take(LOOKUPS_ANNOUNCED_MAX);
    let operations = next.filter(|entry| !matches!(entry.verb, PackedVerb::Errand(_)));
    store.warm(&operations.map(|entry| entry.hash).collect());
}

/// One reply that came by mail.
pub enum Delivery<'a> {
    /// A part of the replies, and the record that has to be safe before it leaves.
    Reply(&'a Replies, Mark, Mark, u64),
    /// A part of the replies, items of a dump, and the part of the index to go on with.
    Slice(&'a Replies, Mark, Mark, Option<usize>),
    /// An errand is done.
    Errand(ErrandDone),
}

/// What became of an errand at one worker.
#[derive(Default)]
pub struct ErrandDone {
    /// What was asked for.
    pub report: Option<Box<Report>>,
    /// The record that has to be safe before the client is told.
    pub record: u64,
    /// It was not done, for the log has failed.
    pub refused: bool,
}

/// How to reach a worker.
#[derive(Clone)]
pub struct Address {
    /// Its inbox.
    pub inbox: Sender<Message>,
    /// Its sleep.
    pub bell: Arc<Bell>,
}

/// A parked flag and what ends the wait.
pub struct Bell {
    /// Whether the worker waits.
    pub parking: Parking,
    /// Ends its wait.
    pub waker: mio::Waker,
}

impl Bell {
    /// Wakes the worker if it waits.
    pub fn ring(&self) {
        if self.parking.must_wake()
            && let Err(error) = self.waker.wake()
        {
            // The worker still wakes at its next tick.
            log::error!("cannot wake a worker: {error}");
        }
    }
}

/// The way from one worker to another.
pub struct Peer {
    address: Address,
    outbox: Box<Mail>,
    spare: Vec<Box<Mail>>,
    in_flight: usize,
}

impl Peer {
    /// A way from worker `from` to worker `to`, with all its mails at home.
    pub fn new(address: Address, from: usize, to: usize) -> Self {
        let mail = || Box::new(Mail { from, to, ..Mail::default() });
        let spare = (0..MAIL_IN_FLIGHT_MAX).map(|_| mail()).collect();
        Self { address, outbox: mail(), spare, in_flight: 0 }
    }

    /// Where the turn's operations for this worker gather.
    pub fn outbox(&mut self) -> &mut Mail {
        &mut self.outbox
    }

    /// Whether the turn may go on adding operations.
    pub fn has_room(&self) -> bool {
        !self.outbox.is_full()
    }

    /// Sends what has gathered, unless all mails are under way.
    pub fn send(&mut self) {
        if self.outbox.is_empty() {
            return;
        }
        let Some(next) = self.spare.pop() else { return };
        let mail = std::mem::replace(&mut self.outbox, next);
        self.in_flight += 1;
        self.post(Message::Requests(mail));
    }

    /// Sends replies back.
    pub fn reply(&self, mail: Box<Mail>) {
        self.post(Message::Replies(mail));
    }

    fn post(&self, message: Message) {
        // Capacity covers all mails there are, so this fails only when the worker has ended, and
        // with it the server.
        let _ = self.address.inbox.try_send(message);
        self.address.bell.ring();
    }

    /// Wakes the worker, for something that is not mail.
    pub fn ring(&self) {
        self.address.bell.ring();
    }

    /// A mail came back with its replies and was read.
    pub fn take_back(&mut self, mut mail: Box<Mail>) {
        mail.recycle();
        self.spare.push(mail);
        self.in_flight -= 1;
    }

    /// Mails under way or waiting to be sent.
    pub fn is_busy(&self) -> bool {
        self.in_flight > 0 || !self.outbox.is_empty()
    }
}

/// Messages an inbox must hold so that no sender ever finds it full.
pub fn inbox_capacity(worker_count: usize) -> usize {
    // From every other worker its mails as requests, and ours back as replies.
    worker_count * (MAIL_IN_FLIGHT_MAX + 1) * 2 + ORDERS_MAX + LOGINS_MAX + ASKS_MAX
}
