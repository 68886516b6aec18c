//! Sockets of tokio, and how a connection on one begins: connect, encrypt, log in. Owns waiting for
//! them.

use crate::client::clock;
use crate::client::cluster::{Cluster, Server};
use crate::client::error::Error;
use crate::client::net::dialer::handshake_failed;
use crate::client::net::stream::{self, Stream};
#[cfg(not(unix))]
use crate::client::net::unix_absent::UnixStream;
use crate::client::wire::batch::Single;
use crate::client::wire::login;
use crate::client::wire::reply::{Decoder, Reply};
use std::future::Future;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout_at};

/// Pause before a Unix socket whose queue is full is tried again.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(2);

#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

macro_rules! on_socket {
    ($self:expr, $socket:ident => $call:expr) => {
        match $self {
            Socket::Tcp($socket) => $call,
            Socket::Unix($socket) => $call,
        }
    };
}

impl Socket {
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        on_socket!(self, socket => socket.try_write(bytes))
    }

    pub(super) fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_socket!(self, socket => socket.poll_read_ready(context))
    }

    pub(super) fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_socket!(self, socket => socket.poll_write_ready(context))
    }

    /// Waits until it can do one of these.
    async fn ready(&self, interest: Interest) -> io::Result<()> {
        on_socket!(self, socket => socket.ready(interest).await.map(|_| ()))
    }
}

impl stream::Socket for Arc<Socket> {
    fn try_read(&self, room: &mut [u8]) -> io::Result<usize> {
        on_socket!(&**self, socket => socket.try_read(room))
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        Socket::try_write(self, bytes)
    }
}

/// What a socket did, or that it must be waited for.
pub(super) fn done<R>(result: io::Result<R>) -> io::Result<Option<R>> {
    match result {
        Ok(result) => Ok(Some(result)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(None),
        Err(error) => Err(error),
    }
}

/// A connection, encrypted if it is to be, on which we are logged in.
pub(super) async fn open(cluster: &Cluster, server: &Server) -> Result<Stream<Arc<Socket>>, Error> {
    let timeout = cluster.config.connect_timeout;
    let session = cluster.dialer.session(&server.node)?;
    let socket = connect(server, clock::now() + timeout).await?;
    let mut stream = Stream::new(Arc::new(socket), session);
    let until = clock::now() + timeout;
    let shaken = timeout_at(until.into(), shake_hands(&mut stream)).await;
    shaken
        .unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
        .map_err(|error| handshake_failed(&server.name, &error))?;
    if cluster.dialer.login.is_some() {
        let entered = timeout_at(until.into(), log_in(cluster, server, &mut stream)).await;
        entered.unwrap_or_else(|_| Err(timeout_of(server, "a reply"))).map_err(login::failed)?;
        server.let_in();
    }
    Ok(stream)
}

fn timeout_of(server: &Server, waiting_for: &'static str) -> Error {
    Error::timeout(&server.name, waiting_for)
}

async fn connect(server: &Server, until: Instant) -> Result<Socket, Error> {
    let failed = |cause: String| Error::Connect { server: server.name.clone(), cause };
    let late = |what: &str| failed(format!("{what}: time ran out"));
    if let Some(path) = server.node.unix_path() {
        let connected = timeout_at(until.into(), connect_unix(&path)).await;
        let stream = connected.map_err(|_| late("its queue is full"))?;
        return Ok(Socket::Unix(stream.map_err(|error| failed(error.to_string()))?));
    }
    let addresses = timeout_at(until.into(), server.names.addresses()).await;
    let addresses = addresses.map_err(|_| late("looking up its name"))?.map_err(failed)?;
    let mut last = None;
    for address in addresses {
        match timeout_at(until.into(), TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true).map_err(|error| failed(error.to_string()))?;
                return Ok(Socket::Tcp(stream));
            }
            Ok(Err(error)) => last = Some(failed(format!("{address}: {error}"))),
            Err(_) => last = Some(late(&address.to_string())),
        }
    }
    Err(last.unwrap_or_else(|| failed("it has no address".into())))
}

/// Where more callers wait than the server lets wait, the system says so at once.
async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == ErrorKind::WouldBlock => sleep(QUEUE_FULL_PAUSE).await,
            result => return result,
        }
    }
}

async fn shake_hands(stream: &mut Stream<Arc<Socket>>) -> io::Result<()> {
    while done(stream.try_handshake())?.is_none() {
        let interest = if stream.owes() { Interest::WRITABLE } else { Interest::READABLE };
        stream.socket.ready(interest).await?;
    }
    Ok(())
}

async fn log_in(
    cluster: &Cluster,
    server: &Server,
    stream: &mut Stream<Arc<Socket>>,
) -> Result<(), Error> {
    let Some(login) = &cluster.dialer.login else { return Ok(()) };
    let failed = |error: io::Error| Error::io(&server.name, "a reply", &error);
    let mut requests = Vec::new();
    let expect = login.write(&mut requests);
    let (mut single, mut decoder) = (Single::new(None, expect), Decoder::default());
    let mut unsent = requests.as_slice();
    loop {
        let sent = match unsent {
            [] => done(stream.try_flush()).map_err(failed)?.map(|()| 0),
            unsent => done(stream.try_send(unsent)).map_err(failed)?,
        };
        unsent = &unsent[sent.unwrap_or(0)..];
        match done(stream.try_receive(decoder.room())).map_err(failed)? {
            Some(0) => return Err(Error::closed(&server.name)),
            Some(count) => {
                decoder.arrived(count);
                let convert = &mut |reply: Reply<'_>| login::accepted(reply);
                let advanced = single.advance(&mut decoder, &server.name, convert);
                if advanced.map_err(|fault| Error::fault(&server.name, fault))? {
                    break;
                }
            }
            None if sent.is_some() && !unsent.is_empty() => {}
            None => {
                let sends = !unsent.is_empty() || stream.owes();
                let both = Interest::READABLE | Interest::WRITABLE;
                let interest = if sends { both } else { Interest::READABLE };
                stream.socket.ready(interest).await.map_err(failed)?;
            }
        }
    }
    if !decoder.is_empty() {
        return Err(Error::protocol(&server.name, "more than an answer to the login"));
    }
    single.result.unwrap_or(Ok(()))
}

/// Several futures at once; all results, in order.
pub(super) async fn all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut results: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        let mut open = false;
        for (future, result) in futures.iter_mut().zip(&mut results) {
            if result.is_none() {
                match future.as_mut().poll(context) {
                    Poll::Ready(output) => *result = Some(output),
                    Poll::Pending => open = true,
                }
            }
        }
        if open { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    results.into_iter().flatten().collect()
}
