//! A connection that carries many calls at a time. Owns the queue of requests, the task that owns
//! the socket, and the end of both; which reply is whose is decided in `wire::pipeline`.
//!
//! ```text
//! callers --(requests, bounded)--> inbox --> task --> socket
//! callers <--(bytes of a reply each)-------- task <-- socket
//! ```
//!
//! The task writes what has gathered in the inbox in one go. A caller that finds nothing under way
//! writes its request itself, which spares it the wait for the task to be woken. A caller that goes
//! away leaves its place in the line: its reply is read and dropped.

use crate::client::asynchronous::socket::{Socket, done, open};
use crate::client::clock;
use crate::client::cluster::{Cluster, Server};
use crate::client::error::Error;
use crate::client::events::count;
use crate::client::net::stream::Stream;
use crate::client::wire::command::{Expect, Protocol, ServerCommand};
use crate::client::wire::pipeline::{Pipeline, Waiting};
use crate::client::wire::reply::{Decoder, Reply};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::runtime;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Sleep, sleep_until, timeout_at};

/// What may wait in one connection's line, in units: one for each request and each of its
/// [`UNIT_BYTES`]. Whoever comes then waits for room.
const QUEUE_UNITS: u32 = 4096;
const UNIT_BYTES: usize = 1 << 10;

/// Turns of the task before other tasks have theirs.
const TURNS_MAX: usize = 16;

/// A buffer for requests that has become larger than this is not kept.
const REQUEST_BYTES_KEPT: usize = 256 << 10;

/// Requests that are sent together, and the replies they wait for.
#[derive(Debug)]
pub(super) struct Request {
    pub bytes: Vec<u8>,
    pub first: Expect,
    pub rest: Vec<Expect>,
}

/// Why there is no reply, or not all of it.
#[derive(Debug)]
pub(super) struct Lost {
    pub error: Error,
    /// What had arrived.
    pub partial: Vec<u8>,
    /// The connection had answered before.
    pub used: bool,
    /// Others were told of the same failure.
    pub is_known: bool,
}

/// How a request was not taken.
pub(super) enum NotTaken {
    /// The connection has ended; nothing was sent.
    Ended,
    Lost(Lost),
}

struct Caller {
    reply: oneshot::Sender<Result<Vec<u8>, Lost>>,
    units: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Takes no further calls, answers those under way.
    Retired,
    /// To be closed at once.
    Broken,
    Ended,
}

struct Inbox {
    phase: Phase,
    requests: Vec<u8>,
    waiting: Vec<Waiting<Caller>>,
    /// Calls that have no reply yet, here and with the task.
    under_way: usize,
    /// For requests that callers write themselves.
    socket: Option<Arc<Socket>>,
    /// Wakes the task.
    task: Option<Waker>,
}

struct Shared {
    inbox: Mutex<Inbox>,
    room: Semaphore,
    /// It is being made; that has time limits of its own.
    is_beginning: AtomicBool,
    /// Reads that brought something.
    heard: AtomicU64,
    /// A call has failed for this connection's sake, and the server was blamed.
    is_known: AtomicBool,
    /// Connections like this one that are open.
    open: Arc<AtomicUsize>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The callers' end of a connection.
pub(super) struct Pipe {
    shared: Arc<Shared>,
    /// Where its task runs.
    pub runtime: runtime::Id,
}

impl std::fmt::Debug for Pipe {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Pipe")
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.retire();
    }
}

impl Pipe {
    /// Begins a connection in a task of the present runtime. Calls may follow at once.
    pub(super) fn begin(
        cluster: &Arc<Cluster>,
        server: &Arc<Server>,
        runtime: &runtime::Handle,
        open: &Arc<AtomicUsize>,
    ) -> Self {
        let inbox = Inbox {
            phase: Phase::Open,
            requests: Vec::new(),
            waiting: Vec::new(),
            under_way: 0,
            socket: None,
            task: None,
        };
        let shared = Arc::new(Shared {
            inbox: Mutex::new(inbox),
            room: Semaphore::new(QUEUE_UNITS as usize),
            is_beginning: AtomicBool::new(true),
            heard: AtomicU64::new(0),
            is_known: AtomicBool::new(false),
            open: Arc::clone(open),
        });
        open.fetch_add(1, Ordering::Relaxed);
        let ending = Ending(Arc::clone(&shared));
        runtime.spawn(run(Arc::clone(cluster), Arc::clone(server), ending));
        Self { shared, runtime: runtime.id() }
    }

    /// Whether it takes calls.
    pub(super) fn is_open(&self) -> bool {
        self.shared.lock().phase == Phase::Open
    }

    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.shared.lock().under_way == 0
    }

    /// Lets it end when the calls under way have their replies.
    pub(super) fn retire(&self) {
        self.enter(Phase::Retired);
    }

    /// Closes it now: what arrives on it cannot be trusted.
    pub(super) fn break_off(&self) {
        self.enter(Phase::Broken);
    }

    fn enter(&self, phase: Phase) {
        let mut inbox = self.shared.lock();
        if inbox.phase != Phase::Ended {
            inbox.phase = phase;
        }
        let task = inbox.task.take();
        drop(inbox);
        task.into_iter().for_each(Waker::wake);
    }

    /// Whether the failure of this connection is news: to be asked before a server is blamed.
    pub(super) fn is_news(&self) -> bool {
        !self.shared.is_known.swap(true, Ordering::Relaxed)
    }

    /// Sends requests and waits for the bytes of their replies: until the deadline, and as long as
    /// something arrives for somebody every `patience`.
    pub(super) async fn ask(
        &self,
        server: &str,
        request: &Request,
        deadline: Instant,
        patience: Duration,
    ) -> Result<Vec<u8>, NotTaken> {
        let timeout = |waiting_for| {
            let error = Error::timeout(server, waiting_for);
            NotTaken::Lost(Lost { error, partial: Vec::new(), used: false, is_known: false })
        };
        let units =
            u32::try_from(request.bytes.len() / UNIT_BYTES).unwrap_or(u32::MAX).saturating_add(1);
        let units = units.min(QUEUE_UNITS);
        let room = timeout_at(deadline.into(), self.shared.room.acquire_many(units)).await;
        let permit = room.map_err(|_| timeout("room in the queue"))?;
        permit.map_err(|_| NotTaken::Ended)?.forget();
        let (heard_before, asked) = (self.heard(), clock::now());
        let mut reply = self.submit(request, units).ok_or(NotTaken::Ended)?;
        loop {
            let (heard, now) = (self.heard(), clock::now());
            match timeout_at(deadline.min(now + patience).into(), &mut reply).await {
                Ok(Ok(Ok(bytes))) => return Ok(bytes),
                Ok(Ok(Err(lost))) => return Err(NotTaken::Lost(lost)),
                Ok(Err(_)) => return Err(NotTaken::Lost(gone(server))),
                Err(_) if self.goes_on(heard) && clock::now() < deadline => {}
                Err(_) => break,
            }
        }
        drop(reply);
        if self.heard() == heard_before && clock::now() - asked >= patience * 3 / 4 {
            // Nothing has arrived for long, for anybody: others shall try another connection. (Not
            // for a call that came at the end of its time: each of those would begin another one.)
            self.retire();
        }
        Err(timeout("a reply"))
    }

    /// The server's answer to a question beside the calls. Needs no runtime where it is awaited.
    pub(super) fn answers(
        &self,
        protocol: Protocol,
    ) -> Option<impl Future<Output = Option<()>> + use<>> {
        let mut bytes = Vec::new();
        let first = ServerCommand::Version.write(protocol, 0, &mut bytes);
        self.shared.room.try_acquire().ok()?.forget();
        let reply = self.submit(&Request { bytes, first, rest: Vec::new() }, 1)?;
        Some(async move {
            let mut decoder = Decoder::from(reply.await.ok()?.ok()?);
            matches!(decoder.next(first), Ok(Some(Reply::Version(_)))).then_some(())
        })
    }

    fn goes_on(&self, heard_before: u64) -> bool {
        self.heard() != heard_before || self.shared.is_beginning.load(Ordering::Relaxed)
    }

    fn heard(&self) -> u64 {
        self.shared.heard.load(Ordering::Relaxed)
    }

    /// Puts requests in the line; `None` if the connection takes no more.
    fn submit(
        &self,
        request: &Request,
        units: u32,
    ) -> Option<oneshot::Receiver<Result<Vec<u8>, Lost>>> {
        let (sender, receiver) = oneshot::channel();
        let caller = Caller { reply: sender, units };
        let Request { bytes, first, rest } = request;
        let waiting = Waiting::new(bytes, *first, rest.clone(), caller);
        let mut inbox = self.shared.lock();
        if inbox.phase != Phase::Open {
            return None;
        }
        // Everything before has its reply, so everything before was sent.
        let direct = inbox.socket.as_ref().filter(|_| inbox.under_way == 0);
        // A failure is for the task to find.
        let sent = direct.and_then(|socket| socket.try_write(bytes).ok()).unwrap_or(0);
        inbox.requests.extend_from_slice(&bytes[sent..]);
        inbox.waiting.push(waiting);
        inbox.under_way += 1;
        let task = if inbox.requests.is_empty() { None } else { inbox.task.take() };
        drop(inbox);
        task.into_iter().for_each(Waker::wake);
        Some(receiver)
    }
}

/// The task is no more, and could not say why: its runtime has ended.
fn gone(server: &str) -> Lost {
    Lost { error: Error::closed(server), partial: Vec::new(), used: true, is_known: true }
}

/// Makes sure that nobody waits for a task that has ended, however it did.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        let mut inbox = self.0.lock();
        inbox.phase = Phase::Ended;
        inbox.socket = None;
        let waiting = std::mem::take(&mut inbox.waiting);
        drop(inbox);
        drop(waiting);
        self.0.room.close();
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn run(cluster: Arc<Cluster>, server: Arc<Server>, ending: Ending) {
    let stream = open(&cluster, &server).await;
    let shared = Arc::clone(&ending.0);
    shared.is_beginning.store(false, Ordering::Relaxed);
    let (pipeline, name) = (Pipeline::default(), server.name.clone());
    let stream = match stream {
        Ok(stream) => stream,
        Err(error) => return end(&shared, pipeline, &error, &error),
    };
    count(&cluster.counters.connections);
    let idle_timeout = cluster.config.idle_timeout;
    // The client may be dropped while its connections end.
    drop((cluster, server));
    if !stream.is_encrypted() {
        shared.lock().socket = Some(Arc::clone(&stream.socket));
    }
    let mut task = Task {
        stream,
        decoder: Decoder::default(),
        pipeline,
        unsent: Vec::new(),
        sent: 0,
        has_yielded: false,
        answered: Vec::new(),
        heard_before: 0,
        idle_timeout,
        shared: Arc::clone(&shared),
        name,
    };
    let mut idle = pin!(sleep_until((clock::now() + idle_timeout).into()));
    let (first, others) = poll_fn(|context| task.poll(context, idle.as_mut())).await;
    end(&shared, task.pipeline, &first, &others);
}

/// Tells all callers: the first in the line what was wrong, the others what that means for them.
fn end(shared: &Shared, mut pipeline: Pipeline<Caller>, first: &Error, others: &Error) {
    let mut inbox = shared.lock();
    inbox.phase = Phase::Ended;
    inbox.socket = None;
    std::mem::take(&mut inbox.waiting).into_iter().for_each(|waiting| pipeline.push(waiting));
    drop(inbox);
    let used = shared.heard.load(Ordering::Relaxed) > 0;
    for (at, (caller, partial)) in pipeline.end().enumerate() {
        let error = if at == 0 { first.clone() } else { others.clone() };
        // Nobody may be there to read it.
        let _ = caller.reply.send(Err(Lost { error, partial, used, is_known: false }));
    }
}

/// What owns the socket.
struct Task {
    stream: Stream<Arc<Socket>>,
    decoder: Decoder,
    pipeline: Pipeline<Caller>,
    /// Callers and their replies, while they are handed over.
    answered: Vec<(Caller, Vec<u8>)>,
    unsent: Vec<u8>,
    sent: usize,
    /// Others had their turns to add to what is to be sent.
    has_yielded: bool,
    heard_before: u64,
    idle_timeout: Duration,
    shared: Arc<Shared>,
    name: String,
}

/// Why a connection ends: for the first call under way, and for the others.
type Why = (Error, Error);

impl Task {
    fn poll(&mut self, context: &mut Context<'_>, idle: Pin<&mut Sleep>) -> Poll<Why> {
        if !self.has_yielded && !self.shared.lock().requests.is_empty() {
            // Those who are about to ask as well shall travel together.
            self.has_yielded = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.has_yielded = false;
        match self.turns(context, idle) {
            Ok(true) => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Ok(false) => Poll::Pending,
            Err(why) => Poll::Ready(why),
        }
    }

    /// Sends and receives what can be; returns whether there may be more to do at once.
    fn turns(&mut self, context: &mut Context<'_>, mut idle: Pin<&mut Sleep>) -> Result<bool, Why> {
        for _ in 0..TURNS_MAX {
            self.take(Some(context.waker()))?;
            let sent = self.send()?;
            let received = self.receive()?;
            if sent || received {
                continue;
            }
            let socket = &self.stream.socket;
            let readable = socket.poll_read_ready(context).is_ready();
            let owes = self.sent < self.unsent.len() || self.stream.owes();
            let writable = owes && socket.poll_write_ready(context).is_ready();
            if readable || writable {
                continue;
            }
            if idle.as_mut().poll(context).is_pending() {
                return Ok(false);
            }
            self.end_if_idle()?;
            idle.as_mut().reset((clock::now() + self.idle_timeout).into());
        }
        Ok(true)
    }

    fn closed(&self) -> Why {
        let closed = Error::closed(&self.name);
        (closed.clone(), closed)
    }

    fn failed(&self, error: &io::Error) -> Why {
        let error = Error::io(&self.name, "a reply", error);
        (error.clone(), error)
    }

    /// Takes what callers have put into the inbox.
    fn take(&mut self, waker: Option<&Waker>) -> Result<(), Why> {
        let mut inbox = self.shared.lock();
        inbox.waiting.drain(..).for_each(|waiting| self.pipeline.push(waiting));
        if self.sent == self.unsent.len() {
            self.unsent.clear();
            self.sent = 0;
            if self.unsent.capacity() > REQUEST_BYTES_KEPT {
                self.unsent = Vec::new();
            }
            std::mem::swap(&mut self.unsent, &mut inbox.requests);
        } else {
            self.unsent.append(&mut inbox.requests);
        }
        if let Some(waker) = waker {
            inbox.task = Some(waker.clone());
        }
        let is_over = match inbox.phase {
            Phase::Open => false,
            // Whoever has given up does not keep it from ending.
            Phase::Retired => self.pipeline.callers().all(|caller| caller.reply.is_closed()),
            Phase::Broken | Phase::Ended => true,
        };
        drop(inbox);
        if is_over { Err(self.closed()) } else { Ok(()) }
    }

    fn send(&mut self) -> Result<bool, Why> {
        let sent = match &self.unsent[self.sent..] {
            [] if self.stream.owes() => done(self.stream.try_flush()).map(|done| done.map(|()| 0)),
            [] => return Ok(false),
            unsent => done(self.stream.try_send(unsent)),
        };
        let sent = sent.map_err(|error| self.failed(&error))?;
        self.sent += sent.unwrap_or(0);
        Ok(sent.is_some())
    }

    fn receive(&mut self) -> Result<bool, Why> {
        let received = done(self.stream.try_receive(self.decoder.room()));
        let Some(count) = received.map_err(|error| self.failed(&error))? else { return Ok(false) };
        if count == 0 {
            return Err(self.closed());
        }
        self.decoder.arrived(count);
        // A request that its caller wrote may have its reply here already.
        self.take(None)?;
        let mut answered = std::mem::take(&mut self.answered);
        let mut hand_over = |caller: Caller, bytes| answered.push((caller, bytes));
        let advanced = self.pipeline.advance(&mut self.decoder, &mut hand_over);
        self.shared.heard.fetch_add(1, Ordering::Relaxed);
        if !answered.is_empty() {
            // Before they go on: they may ask for a connection that is free, and this one is.
            let mut inbox = self.shared.lock();
            inbox.under_way = inbox.under_way.saturating_sub(answered.len());
        }
        self.shared
            .room
            .add_permits(answered.iter().map(|(caller, _)| caller.units as usize).sum());
        for (caller, bytes) in answered.drain(..) {
            // Nobody may be there to read it.
            let _ = caller.reply.send(Ok(bytes));
        }
        self.answered = answered;
        advanced.map_err(|fault| {
            let (_, others) = self.closed();
            (Error::fault(&self.name, fault), others)
        })?;
        Ok(true)
    }

    /// Ends it if nothing has happened for as long as the timer runs.
    fn end_if_idle(&mut self) -> Result<(), Why> {
        let heard = self.shared.heard.load(Ordering::Relaxed);
        let quiet = std::mem::replace(&mut self.heard_before, heard) == heard;
        let mut inbox = self.shared.lock();
        if quiet && inbox.under_way == 0 {
            inbox.phase = Phase::Ended;
            drop(inbox);
            return Err(self.closed());
        }
        Ok(())
    }
}
