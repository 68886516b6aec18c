//! Metrics for Prometheus: a thread that answers `GET /metrics` on a port of its own.
//!
//! It asks each worker for a report, as `stats` does, so workers spend one message on a scrape and
//! never see its socket. A scraper that is slow or silent holds up nobody: when there are too many,
//! the one that has waited longest makes room, and each is closed when its time is over. Speaks as
//! much HTTP as that takes: one request a connection, its head bounded, its body not read. Owns the
//! sockets; the text is in `text`.

use super::prometheus as text;
use crate::server::clock::Stopwatch;
use crate::server::config::Config;
use crate::server::shared::Shared;
use crate::server::stats::report::{Report, Wanted};
use crate::server::worker::inbox::{Address, Ask, AskedBy, Message, Question};
use crate::server::worker::shards::Shards;
use crossbeam::channel::{Receiver, Sender, bounded};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Scrapers at a time; further ones take the place of the oldest that has not asked yet.
const SCRAPERS_MAX: usize = 16;

/// Descriptors this needs: scrapers, listener, poll, waker.
pub const DESCRIPTORS: u64 = SCRAPERS_MAX as u64 + 3;

/// Connections taken in one go, so that those that have asked get their answers in between.
const ACCEPTS_MAX: usize = SCRAPERS_MAX / 2;

/// A request's line and headers.
const REQUEST_BYTES_MAX: usize = 8 << 10;

/// What is read of a request that has been answered, so that the answer is not lost with it.
const DROPPED_BYTES_MAX: usize = 64 << 10;

/// From being accepted to being closed.
const SCRAPE_TIME_MAX: Duration = Duration::from_secs(5);

/// Workers that have not reported by then fail the scrape.
const REPORT_TIME_MAX: Duration = Duration::from_secs(2);

/// Longest wait: time-outs and a stop that does not wake the thread are noticed then.
const TICK: Duration = Duration::from_millis(250);

const READ_BYTES: usize = 4 << 10;

const LISTENER: Token = Token(usize::MAX - 1);
const WAKER: Token = Token(usize::MAX);

/// Binds the address of `--metrics-address`, if there is one.
///
/// # Errors
/// Those of bind and listen. The text names the address.
pub fn bind(config: &Config) -> io::Result<Option<std::net::TcpListener>> {
    let bind = |address: SocketAddr| {
        let named = |why: io::Error| io::Error::new(why.kind(), format!("{why} at {address}"));
        std::net::TcpListener::bind(address).map_err(named)
    };
    config.metrics_address.map(bind).transpose()
}

/// The thread's state.
pub struct Exporter {
    poll: Poll,
    listener: TcpListener,
    /// Scrapers may wait to be accepted.
    arriving: bool,
    scrapes: Slab<Scrape>,
    workers: Vec<Address>,
    /// Workers that were asked and have not answered: each has one question at most.
    asked: Vec<bool>,
    reports: Receiver<(usize, Report)>,
    /// Where workers send them.
    reports_to: Sender<(usize, Report)>,
    shards: Arc<Shards>,
    shared: Arc<Shared>,
}

/// One scraper.
struct Scrape {
    stream: TcpStream,
    since: Stopwatch,
    stage: Stage,
    /// It asks for the head of the answer alone.
    head: bool,
}

enum Stage {
    /// The request is arriving.
    Reading(Vec<u8>),
    /// It is whole; metrics are to be gathered.
    Wanting,
    /// The answer is leaving: all of it, and how much has.
    Writing(Vec<u8>, usize),
    /// The answer has left; what still comes is dropped, so much so far.
    Closing(usize),
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    /// It is not whole yet.
    Incomplete,
    Metrics,
    /// Whether the process is alive.
    Alive,
    /// Whether it serves.
    Ready,
    /// Answer this status.
    Refused(&'static str),
}

/// What to do with a scraper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Wait,
    Close,
}

impl Exporter {
    /// Gets ready. Also returns the address, and what wakes the thread, to stop it.
    ///
    /// # Errors
    /// Those of the poll and of the socket.
    pub fn new(
        listener: std::net::TcpListener,
        workers: Vec<Address>,
        shards: Arc<Shards>,
        shared: Arc<Shared>,
    ) -> io::Result<(Self, SocketAddr, Waker)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let mut listener = TcpListener::from_std(listener);
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let (reports_to, reports) = bounded(workers.len());
        let exporter = Self {
            poll,
            listener,
            arriving: false,
            scrapes: Slab::new(),
            asked: vec![false; workers.len()],
            reports,
            reports_to,
            workers,
            shards,
            shared,
        };
        Ok((exporter, address, waker))
    }

    /// Answers until the server stops.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(SCRAPERS_MAX + 2);
        while !self.shared.stopping() {
            if let Err(error) = self.poll.poll(&mut events, Some(TICK))
                && error.kind() != ErrorKind::Interrupted
            {
                log::error!("cannot wait for scrapers: {error}; metrics are served no more");
                return;
            }
            for event in &events {
                match event.token() {
                    WAKER => {}
                    LISTENER => self.arriving = true,
                    Token(at) => self.serve(at),
                }
            }
            if self.arriving {
                self.accept();
            }
            self.answer_wanting();
            self.scrapes.retain(|_, scrape| scrape.since.elapsed() < SCRAPE_TIME_MAX);
        }
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTS_MAX {
            if self.scrapes.len() >= SCRAPERS_MAX {
                self.make_room();
            }
            match self.listener.accept() {
                Ok((stream, _)) => self.welcome(stream),
                Err(error) => {
                    // Out of descriptors: tried again at the next tick.
                    self.arriving = error.kind() != ErrorKind::WouldBlock;
                    return;
                }
            }
        }
    }

    /// Hangs up on the oldest of those that have asked for nothing, or else the oldest of all.
    fn make_room(&mut self) {
        let oldest = self.scrapes.iter().max_by_key(|(_, scrape)| {
            (matches!(scrape.stage, Stage::Reading(_)), scrape.since.elapsed())
        });
        if let Some((at, _)) = oldest {
            self.scrapes.remove(at);
        }
    }

    fn welcome(&mut self, mut stream: TcpStream) {
        let entry = self.scrapes.vacant_entry();
        let at = entry.key();
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut stream, Token(at), interest) {
            return log::warn!("cannot watch a scraper: {error}; it is closed");
        }
        let stage = Stage::Reading(Vec::new());
        entry.insert(Scrape { stream, since: Stopwatch::start(), stage, head: false });
        self.serve(at);
    }

    fn serve(&mut self, at: usize) {
        if let Some(scrape) = self.scrapes.get_mut(at)
            && scrape.go_on() == Next::Close
        {
            self.scrapes.remove(at);
        }
    }

    /// Gathers once for all whose request is whole.
    fn answer_wanting(&mut self) {
        let wants = |scrape: &Scrape| matches!(scrape.stage, Stage::Wanting);
        let waiting: Vec<usize> =
            self.scrapes.iter().filter(|(_, scrape)| wants(scrape)).map(|(at, _)| at).collect();
        if waiting.is_empty() {
            return;
        }
        let answer = match self.gather() {
            Some(reports) => {
                answer("200 OK", text::CONTENT_TYPE, &text::of(&reports, &self.shared))
            }
            None => refusal("503 Service Unavailable"),
        };
        for at in waiting {
            let scrape = &mut self.scrapes[at];
            scrape.stage = Stage::Writing(part_of(answer.clone(), scrape.head), 0);
            self.serve(at);
        }
    }

    /// A report of every worker and shard; `None` if a worker does not answer in time. It is not
    /// asked again before it has, so that its inbox has room for others.
    fn gather(&mut self) -> Option<Vec<Report>> {
        while let Ok((worker, _)) = self.reports.try_recv() {
            self.asked[worker] = false;
        }
        let wanted = Wanted { latencies: true, ..Wanted::default() };
        for (address, asked) in self.workers.iter().zip(&mut self.asked) {
            if !std::mem::replace(asked, true) {
                let by = AskedBy::Exporter(self.reports_to.clone());
                address.send(Message::Ask(Ask { question: Question::Report(wanted), by }));
            }
        }
        let since = Stopwatch::start();
        let mut reports = Vec::with_capacity(self.workers.len() + self.shards.count());
        while reports.len() < self.workers.len() {
            let left = REPORT_TIME_MAX.checked_sub(since.elapsed())?;
            let (worker, report) = self.reports.recv_timeout(left).ok()?;
            self.asked[worker] = false;
            reports.push(report);
        }
        let now = self.shared.clock.now();
        reports.extend(self.shards.each().map(|shard| Report::of_shard(&shard, wanted, now)));
        Some(reports)
    }
}

impl Scrape {
    /// Does what the socket allows now. Edge-triggered: each stage goes on until it cannot.
    fn go_on(&mut self) -> Next {
        loop {
            let done = match &mut self.stage {
                Stage::Reading(request) => read_request(&mut self.stream, request, &mut self.head),
                Stage::Wanting => return Next::Wait,
                Stage::Writing(answer, sent) => write_answer(&mut self.stream, answer, sent),
                Stage::Closing(dropped) => drop_rest(&mut self.stream, dropped),
            };
            match done {
                Ok(Some(stage)) => self.stage = stage,
                Ok(None) => return Next::Close,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Next::Wait,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Next::Close,
            }
        }
    }
}

fn read_request(
    stream: &mut TcpStream,
    request: &mut Vec<u8>,
    head: &mut bool,
) -> io::Result<Option<Stage>> {
    loop {
        *head = request.starts_with(HEAD);
        let answer = match understand(request) {
            Request::Incomplete => None,
            Request::Metrics => return Ok(Some(Stage::Wanting)),
            Request::Alive | Request::Ready => Some(yes()),
            Request::Refused(status) => Some(refusal(status)),
        };
        if let Some(answer) = answer {
            return Ok(Some(Stage::Writing(part_of(answer, *head), 0)));
        }
        let mut buffer = [0; READ_BYTES];
        let bytes = stream.read(&mut buffer)?;
        if bytes == 0 {
            return Ok(None);
        }
        request.extend_from_slice(&buffer[..bytes]);
    }
}

fn write_answer(
    stream: &mut TcpStream,
    answer: &[u8],
    sent: &mut usize,
) -> io::Result<Option<Stage>> {
    while *sent < answer.len() {
        match stream.write(&answer[*sent..])? {
            0 => return Ok(None),
            bytes => *sent += bytes,
        }
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(Some(Stage::Closing(0)))
}

/// Closing with bytes unread would reset the connection, and the answer with it.
fn drop_rest(stream: &mut TcpStream, dropped: &mut usize) -> io::Result<Option<Stage>> {
    while *dropped < DROPPED_BYTES_MAX {
        match stream.read(&mut [0; READ_BYTES])? {
            0 => return Ok(None),
            bytes => *dropped += bytes,
        }
    }
    Ok(None)
}

/// What the bytes so far ask for.
fn understand(request: &[u8]) -> Request {
    let ends = |end: &[u8]| memchr::memmem::find(request, end);
    // A line feed alone ends a line too (RFC 9112, 2.2).
    if ends(b"\r\n\r\n").or_else(|| ends(b"\n\n")).is_none() {
        let too_large = request.len() >= REQUEST_BYTES_MAX;
        let refused = Request::Refused("431 Request Header Fields Too Large");
        return if too_large { refused } else { Request::Incomplete };
    }
    let line = request.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Request::Refused("400 Bad Request");
    };
    if !version.starts_with(b"HTTP/1.") {
        return Request::Refused("400 Bad Request");
    }
    let known = match target.split(|byte| *byte == b'?').next() {
        Some(b"/metrics") => Request::Metrics,
        Some(b"/livez") => Request::Alive,
        Some(b"/readyz") => Request::Ready,
        _ => return Request::Refused("404 Not Found"),
    };
    if method != b"GET" && method != b"HEAD" {
        return Request::Refused("405 Method Not Allowed");
    }
    known
}

/// How a request for the head of an answer begins.
const HEAD: &[u8] = b"HEAD ";

/// An answer, or its head.
fn part_of(mut answer: Vec<u8>, head: bool) -> Vec<u8> {
    let end = memchr::memmem::find(&answer, b"\r\n\r\n").filter(|_| head);
    answer.truncate(end.map_or(answer.len(), |end| end + b"\r\n\r\n".len()));
    answer
}

/// Whether a request is whole, or too large to become so.
pub(super) fn is_whole(request: &[u8]) -> bool {
    understand(request) != Request::Incomplete
}

/// The answer to a whole request while data is being recovered: alive, and not ready.
pub(super) fn while_recovering(request: &[u8], progress: &str) -> Vec<u8> {
    let answer = match understand(request) {
        Request::Alive => yes(),
        Request::Metrics | Request::Ready => {
            answer("503 Service Unavailable", "text/plain; charset=utf-8", progress)
        }
        Request::Refused(status) => refusal(status),
        Request::Incomplete => refusal("408 Request Timeout"),
    };
    part_of(answer, request.starts_with(HEAD))
}

fn yes() -> Vec<u8> {
    answer("200 OK", "text/plain; charset=utf-8", "ok\n")
}

fn refusal(status: &str) -> Vec<u8> {
    answer(status, "text/plain; charset=utf-8", &format!("{status}\n"))
}

fn answer(status: &str, content_type: &str, body: &str) -> Vec<u8> {
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
         {allow}Connection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_understood() {
        use Request::*;
        let long = format!("GET /metrics HTTP/1.1\r\nx: {}", "x".repeat(REQUEST_BYTES_MAX));
        for (request, expected) in [
            ("", Incomplete),
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n", Incomplete),
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", Metrics),
            ("GET /metrics HTTP/1.0\n\n", Metrics),
            ("GET /metrics?name[]=up HTTP/1.1\r\n\r\n", Metrics),
            ("HEAD /metrics HTTP/1.1\r\n\r\n", Metrics),
            ("GET /livez HTTP/1.1\r\n\r\n", Alive),
            ("GET /readyz HTTP/1.1\r\n\r\n", Ready),
            ("GET / HTTP/1.1\r\n\r\n", Refused("404 Not Found")),
            ("GET /metrics/ HTTP/1.1\r\n\r\n", Refused("404 Not Found")),
            ("POST /metrics HTTP/1.1\r\n\r\n", Refused("405 Method Not Allowed")),
            ("GET /metrics HTTP/2.0\r\n\r\n", Refused("400 Bad Request")),
            ("GET /metrics\r\n\r\n", Refused("400 Bad Request")),
            ("GET  /metrics HTTP/1.1\r\n\r\n", Refused("400 Bad Request")),
            ("\r\n\r\n", Refused("400 Bad Request")),
            (&long, Refused("431 Request Header Fields Too Large")),
        ] {
            assert_eq!(understand(request.as_bytes()), expected, "{request:?}");
        }
    }
}
