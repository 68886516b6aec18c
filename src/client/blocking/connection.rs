//! A blocking connection: a socket with its time limits, and the requests under way on it. The only
//! file of the blocking face that touches sockets.

use crate::client::blocking::waiting::wait_until;
use crate::client::clock;
use crate::client::config::Config;
use crate::client::error::Error;
use crate::client::net::dialer::{Dialer, handshake_failed};
use crate::client::net::names::Names;
use crate::client::net::socket::{Socket, wait_for};
use crate::client::net::stream::Stream;
use crate::client::placement::key::WireKey;
use crate::client::placement::node::Node;
use crate::client::wire::batch::{Batch, Single};
use crate::client::wire::command::{Expect, ServerCommand};
use crate::client::wire::login;
use crate::client::wire::reply::{Decoder, Reply};
use rustix::event::{PollFd, PollFlags};
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pause before a Unix socket whose queue is full is tried again.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(2);

/// A buffer for requests that has become larger than this is not kept.
const REQUEST_BYTES_KEPT: usize = 64 << 10;

/// What a call may take, and until when.
#[derive(Debug, Clone, Copy)]
pub(in crate::client) struct Limits {
    pub read: Duration,
    pub write: Duration,
    pub deadline: Instant,
}

impl Limits {
    /// What is left of this wait; an error when the whole call is over.
    fn left(&self, step: Duration) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(clock::now()).min(step);
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

/// A connection to one server.
pub(in crate::client) struct Connection {
    stream: Stream<Socket>,
    server: String,
    decoder: Decoder,
    requests: Vec<u8>,
    opaque: u32,
    /// Time-outs as the socket has them.
    read_set: Duration,
    write_set: Duration,
}

// What was sent and received is not shown: it may be a login.
impl fmt::Debug for Connection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Connection").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects to the first address that answers, encrypts and logs in as the dialer says.
    pub(crate) fn open(
        node: &Node,
        names: &Arc<Names>,
        dialer: &Dialer,
        deadline: Instant,
    ) -> Result<Self, Error> {
        let timeout = dialer.timeout;
        let server = node.name();
        let until = deadline.min(clock::now() + timeout);
        let socket = match node.unix_path() {
            Some(path) => connect_unix(&path, until),
            None => connect_tcp(names, until),
        };
        let socket = socket.map_err(|cause| Error::Connect { server: server.clone(), cause })?;
        let mut connection = Self {
            stream: Stream::new(socket, dialer.session(node)?),
            server,
            decoder: Decoder::default(),
            requests: Vec::new(),
            opaque: 0,
            read_set: Duration::ZERO,
            write_set: Duration::ZERO,
        };
        let deadline = deadline.min(clock::now() + timeout);
        let limits = Limits { read: timeout, write: timeout, deadline };
        connection.shake_hands(limits)?;
        connection.log_in(dialer, limits)?;
        Ok(connection)
    }

    fn shake_hands(&mut self, limits: Limits) -> Result<(), Error> {
        let mut shaken = self.stream.try_handshake();
        while let Err(error) = &shaken {
            let waited = match error.kind() {
                ErrorKind::WouldBlock if self.stream.owes() => self.wait(PollFlags::OUT, limits),
                ErrorKind::WouldBlock => self.wait(PollFlags::IN, limits),
                ErrorKind::Interrupted => Ok(()),
                _ => return Err(handshake_failed(&self.server, error)),
            };
            waited.map_err(|error| handshake_failed(&self.server, &error))?;
            shaken = self.stream.try_handshake();
        }
        Ok(())
    }

    fn log_in(&mut self, dialer: &Dialer, limits: Limits) -> Result<(), Error> {
        let Some(login) = &dialer.login else { return Ok(()) };
        let call = self.call(None, limits, |_, out| login.write(out), &mut login::accepted);
        // The password is not kept.
        self.requests = Vec::new();
        match call {
            Call::Clean(result) => result.map_err(login::failed),
            Call::Broken(error) => Err(login::failed(error)),
        }
    }

    /// Whether it can carry another call: not closed by the server, and nothing has arrived that
    /// nobody asked for.
    pub(crate) fn is_usable(&mut self) -> bool {
        self.stream.is_quiet()
    }

    /// Whether it may be kept after a call: everything that arrived was read.
    pub(crate) fn is_clean(&mut self) -> bool {
        self.decoder.is_empty() && !self.stream.holds()
    }

    pub(crate) fn opaque(&mut self) -> &mut u32 {
        &mut self.opaque
    }

    /// Sends one request and waits for its reply. After an error other than a refusal or a value
    /// that cannot be read the connection must be closed, which `Call::is_clean` says.
    pub(crate) fn call<R>(
        &mut self,
        key: Option<&WireKey<'_>>,
        limits: Limits,
        write: impl FnOnce(u32, &mut Vec<u8>) -> Expect,
        convert: &mut impl FnMut(Reply<'_>) -> Result<R, Error>,
    ) -> Call<R> {
        self.opaque = self.opaque.wrapping_add(1);
        self.requests.clear();
        let expect = write(self.opaque, &mut self.requests);
        let requests = std::mem::take(&mut self.requests);
        let call = self.exchange(key, limits, expect, &requests, convert);
        if requests.capacity() <= REQUEST_BYTES_KEPT {
            self.requests = requests;
        }
        call
    }

    fn exchange<R>(
        &mut self,
        key: Option<&WireKey<'_>>,
        limits: Limits,
        expect: Expect,
        requests: &[u8],
        convert: &mut impl FnMut(Reply<'_>) -> Result<R, Error>,
    ) -> Call<R> {
        if let Err(error) = self.send_all(requests, limits) {
            // Half a request is none.
            let error = Error::io(&self.server, "a request to be sent", &error);
            return Call::Broken(error.without_doubt());
        }
        let mut single = Single::new(key, expect);
        loop {
            match self.receive(limits) {
                Ok(0) => return Call::Broken(Error::closed(&self.server)),
                Ok(count) => self.decoder.arrived(count),
                Err(error) => return Call::Broken(Error::io(&self.server, "a reply", &error)),
            }
            match single.advance(&mut self.decoder, &self.server, convert) {
                Ok(true) => break,
                Ok(false) => {}
                Err(fault) => return Call::Broken(Error::fault(&self.server, fault)),
            }
        }
        match single.result {
            Some(result) => Call::Clean(result),
            None => Call::Broken(Error::protocol(&self.server, "no reply")),
        }
    }

    fn send_all(&mut self, mut bytes: &[u8], limits: Limits) -> io::Result<()> {
        if self.stream.is_encrypted() || !Socket::WAITS {
            return self.send_by_poll(bytes, limits);
        }
        while !bytes.is_empty() {
            let left = limits.left(limits.write)?;
            if needs_setting(self.write_set, left) {
                self.stream.socket.set_write_timeout(left)?;
                self.write_set = left;
            }
            match self.stream.socket.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn send_by_poll(&mut self, mut bytes: &[u8], limits: Limits) -> io::Result<()> {
        while !bytes.is_empty() || self.stream.owes() {
            let sent = match bytes.is_empty() {
                false => self.stream.try_send(bytes),
                true => self.stream.try_flush().map(|()| 0),
            };
            match sent {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.wait(PollFlags::OUT, limits)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until the socket can do one of these.
    fn wait(&self, flags: PollFlags, limits: Limits) -> io::Result<()> {
        let step = if flags == PollFlags::OUT { limits.write } else { limits.read };
        let left = limits.left(step)?;
        wait_for(&mut [self.stream.socket.interest(flags)], left);
        Ok(())
    }

    fn receive(&mut self, limits: Limits) -> io::Result<usize> {
        if self.stream.is_encrypted() || !Socket::WAITS {
            return self.receive_by_poll(limits);
        }
        loop {
            let left = limits.left(limits.read)?;
            if needs_setting(self.read_set, left) {
                self.stream.socket.set_read_timeout(left)?;
                self.read_set = left;
            }
            match self.stream.socket.read(self.decoder.room()) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn receive_by_poll(&mut self, limits: Limits) -> io::Result<usize> {
        // Parts of a record are no bytes of a reply yet: the wait goes on.
        let deadline = limits.deadline.min(clock::now() + limits.read);
        let limits = Limits { deadline, ..limits };
        loop {
            match self.stream.try_receive(self.decoder.room()) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let owed = if self.stream.owes() { PollFlags::OUT } else { PollFlags::empty() };
                    self.wait(PollFlags::IN | owed, limits)?;
                }
                result => return result,
            }
        }
    }

    /// What a configuration endpoint says.
    pub(crate) fn ask_for_cluster(node: &Node, config: &Config) -> Result<String, Error> {
        Self::ask(node, config, ServerCommand::ConfigCluster, &mut |reply| match reply {
            Reply::Config(text) => Ok(String::from_utf8_lossy(text).into_owned()),
            other => Err(Error::protocol("", format!("{other:?}"))),
        })
    }

    /// One request on a connection of its own, name resolution included.
    pub(crate) fn ask<R>(
        node: &Node,
        config: &Config,
        command: ServerCommand<'_>,
        convert: &mut impl FnMut(Reply<'_>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let names = Names::new(node);
        let limits = Limits {
            read: config.read_timeout,
            write: config.write_timeout,
            deadline: clock::now() + config.call_timeout,
        };
        let mut connection = Self::open(node, &names, &Dialer::new(config)?, limits.deadline)?;
        let write = |opaque, out: &mut Vec<u8>| command.write(config.protocol(), opaque, out);
        match connection.call(None, limits, write, convert) {
            Call::Clean(result) => result,
            Call::Broken(error) => Err(error),
        }
    }
}

fn connect_tcp(names: &Arc<Names>, until: Instant) -> Result<Socket, String> {
    let found = wait_until(Some(async { Some(names.addresses().await) }), until);
    let addresses = found.ok_or("looking up its name: time ran out")??;
    let mut last = "it has no address".to_owned();
    for address in addresses {
        let left = until.saturating_duration_since(clock::now());
        if left.is_zero() {
            return Err(format!("{address}: time ran out"));
        }
        match Socket::tcp(&address, left) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = format!("{address}: {error}"),
        }
    }
    Err(last)
}

/// Where more callers wait than the server lets wait, the system says so.
fn connect_unix(path: &Path, until: Instant) -> Result<Socket, String> {
    loop {
        match Socket::unix(path) {
            Ok(socket) => return Ok(socket),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if clock::now() >= until {
                    return Err("its queue is full: time ran out".into());
                }
                std::thread::sleep(QUEUE_FULL_PAUSE);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Whether the socket's time-out must be set anew for a wait. Each setting is a call to the system,
/// so one that is up to a sixteenth too long is left as it is.
fn needs_setting(set: Duration, wanted: Duration) -> bool {
    set < wanted - wanted / 16 || set > wanted + wanted / 16
}

/// How a call ended.
pub(in crate::client) enum Call<R> {
    /// The connection can be used again.
    Clean(Result<R, Error>),
    /// It must be closed.
    Broken(Error),
}

/// A batch under way on a connection.
pub(in crate::client) struct Exchange<'c, 'k> {
    pub connection: &'c mut Connection,
    pub batch: Batch<'k>,
    /// Why it ended early; then the connection must be closed.
    pub failure: Option<Error>,
    /// When something was last sent or received.
    pub progress_at: Instant,
}

impl<'c, 'k> Exchange<'c, 'k> {
    pub(crate) fn new(connection: &'c mut Connection, batch: Batch<'k>) -> Self {
        Self { connection, batch, failure: None, progress_at: clock::now() }
    }

    /// How it ended; after a failure, with the places that have no answer.
    pub(crate) fn end(self) -> Result<(), (Error, Vec<usize>)> {
        match self.failure {
            None => Ok(()),
            Some(error) => Err((error, self.batch.unanswered().collect())),
        }
    }

    fn is_open(&self) -> bool {
        self.failure.is_none() && !self.batch.is_done()
    }

    fn send(&mut self) {
        while self.failure.is_none() && !self.batch.unsent().is_empty() {
            match self.connection.stream.try_send(self.batch.unsent()) {
                Ok(count) => {
                    self.batch.sent += count;
                    self.progress_at = clock::now();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => self.fail("a request to be sent", &error),
            }
        }
        if self.failure.is_none()
            && let Err(error) = self.connection.stream.try_flush()
            && !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
        {
            self.fail("a request to be sent", &error);
        }
    }

    /// Whether bytes wait for the socket to take them.
    fn wants_to_send(&self) -> bool {
        !self.batch.unsent().is_empty() || self.connection.stream.owes()
    }

    fn receive(&mut self, sink: &mut impl FnMut(usize, Reply<'_>) -> Result<(), Error>) {
        loop {
            let Connection { stream, decoder, .. } = &mut *self.connection;
            match stream.try_receive(decoder.room()) {
                Ok(count) => self.arrived(count, sink),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => self.fail("replies", &error),
            }
            // What was decrypted and not fetched is nothing the socket would tell of.
            if !self.is_open() || !self.connection.stream.holds() {
                return;
            }
        }
    }

    /// So many bytes were read; none is the end of the connection.
    fn arrived(
        &mut self,
        count: usize,
        sink: &mut impl FnMut(usize, Reply<'_>) -> Result<(), Error>,
    ) {
        let Connection { decoder, server, .. } = &mut *self.connection;
        if count == 0 {
            self.failure = Some(Error::closed(server));
            return;
        }
        decoder.arrived(count);
        self.progress_at = clock::now();
        if let Err(fault) = self.batch.advance(decoder, sink) {
            self.failure = Some(Error::fault(server, fault));
        }
    }

    fn fail(&mut self, waiting_for: &'static str, error: &io::Error) {
        self.failure = Some(Error::io(&self.connection.server, waiting_for, error));
    }
}

/// Drives batches on several connections at once, until each is answered or has failed. The sink
/// gets the index of the exchange and the place in the caller's list.
pub(in crate::client) fn drive(
    exchanges: &mut [Exchange<'_, '_>],
    limits: Limits,
    sink: &mut impl FnMut(usize, usize, Reply<'_>) -> Result<(), Error>,
) {
    exchanges.iter_mut().for_each(Exchange::send);
    loop {
        let now = clock::now();
        let mut wait = limits.deadline.saturating_duration_since(now);
        for exchange in exchanges.iter_mut().filter(|exchange| exchange.is_open()) {
            let left = (exchange.progress_at + limits.read).saturating_duration_since(now);
            wait = wait.min(left);
            if left.is_zero() || now >= limits.deadline {
                exchange.fail("replies", &ErrorKind::TimedOut.into());
            }
        }
        if receive_from_last(exchanges, limits, sink) {
            continue;
        }
        let ready = poll_open(exchanges, wait);
        if ready.is_empty() {
            return;
        }
        for (at, flags) in ready {
            let exchange = &mut exchanges[at];
            if flags.contains(PollFlags::OUT) {
                exchange.send();
            }
            if exchange.is_open() && !(flags - PollFlags::OUT).is_empty() {
                exchange.receive(&mut |place, reply| sink(at, place, reply));
            }
        }
    }
}

/// If one exchange alone is open and has sent everything, waits for its next bytes in the read
/// itself, which saves a call to the system. False if that is not so.
fn receive_from_last(
    exchanges: &mut [Exchange<'_, '_>],
    limits: Limits,
    sink: &mut impl FnMut(usize, usize, Reply<'_>) -> Result<(), Error>,
) -> bool {
    let mut open = exchanges.iter_mut().enumerate().filter(|(_, exchange)| exchange.is_open());
    let (Some((at, last)), None) = (open.next(), open.next()) else { return false };
    if last.wants_to_send() {
        return false;
    }
    match last.connection.receive(limits) {
        Ok(count) => last.arrived(count, &mut |place, reply| sink(at, place, reply)),
        Err(error) => last.fail("replies", &error),
    }
    true
}

/// Waits until some exchange that is open can go on; all those that are open, with what they are
/// ready for. Empty if none is open.
fn poll_open(exchanges: &[Exchange<'_, '_>], wait: Duration) -> Vec<(usize, PollFlags)> {
    let open: Vec<usize> = (0..exchanges.len()).filter(|at| exchanges[*at].is_open()).collect();
    if open.is_empty() {
        return Vec::new();
    }
    let interest = |at: &usize| {
        let flags = if exchanges[*at].wants_to_send() {
            PollFlags::IN | PollFlags::OUT
        } else {
            PollFlags::IN
        };
        exchanges[*at].connection.stream.socket.interest(flags)
    };
    let mut sockets: Vec<PollFd<'_>> = open.iter().map(interest).collect();
    wait_for(&mut sockets, wait);
    open.iter().zip(&sockets).map(|(at, socket)| (*at, socket.revents())).collect()
}
