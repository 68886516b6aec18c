//! The metrics port before there is anything to measure: while data is recovered it answers that
//! the process is alive and not ready, and how far it has come.
//!
//! Owns a thread that ends when the server is ready; then `exporter` takes the port over. Nobody
//! but probes asks then; who is silent holds up nobody, and makes room for who comes later.

use super::exporter;
use crate::server::clock::Stopwatch;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle, sleep};
use std::time::Duration;

/// Between looks for somebody who asks.
const LOOK: Duration = Duration::from_millis(20);

/// Who has not asked by then is hung up on.
const PATIENCE: Duration = Duration::from_secs(1);

/// Who is listened to at a time.
const CALLERS_MAX: usize = 16;

/// How far the recovery of data has come.
#[derive(Debug, Default)]
pub struct Recovering {
    done_bytes: AtomicU64,
    total_bytes: AtomicU64,
}

impl Recovering {
    /// So much of so much is read.
    pub fn note(&self, done_bytes: u64, total_bytes: u64) {
        self.done_bytes.store(done_bytes, Ordering::Relaxed);
        self.total_bytes.store(total_bytes, Ordering::Relaxed);
    }

    fn text(&self) -> String {
        let (done, total) = (&self.done_bytes, &self.total_bytes);
        let (done, total) = (done.load(Ordering::Relaxed), total.load(Ordering::Relaxed));
        format!("not ready: {done} of {total} bytes of the data directory are read\n")
    }
}

/// The thread; dropping it ends it.
pub struct Waiting {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Waiting {
    /// Answers on a port from now on.
    ///
    /// # Errors
    /// The system refuses a thread, or another handle of the socket.
    pub fn start(listener: &TcpListener, recovering: Arc<Recovering>) -> io::Result<Self> {
        let listener = listener.try_clone()?;
        listener.set_nonblocking(true)?;
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        let run = move || {
            let mut callers = VecDeque::new();
            while !ended.load(Ordering::Relaxed) {
                while let Ok((stream, _)) = listener.accept() {
                    callers.push_back(Caller::new(stream));
                    if callers.len() > CALLERS_MAX {
                        hear(&mut callers, &recovering);
                    }
                }
                hear(&mut callers, &recovering);
                sleep(LOOK);
            }
        };
        let thread = Builder::new().name("waiting".to_owned()).spawn(run)?;
        Ok(Self { over, thread: Some(thread) })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing to say about how it ended.
            let _ = thread.join();
        }
    }
}

/// Somebody who may ask something.
struct Caller {
    stream: TcpStream,
    since: Stopwatch,
    request: Vec<u8>,
}

impl Caller {
    fn new(stream: TcpStream) -> Self {
        Self { stream, since: Stopwatch::start(), request: Vec::new() }
    }

    /// Reads what is there, and answers a whole request. Answers whether there is more to wait for.
    fn hear(&mut self, recovering: &Recovering) -> io::Result<bool> {
        self.stream.set_nonblocking(true)?;
        let mut buffer = [0; 512];
        while !exporter::is_whole(&self.request) {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(bytes) => self.request.extend_from_slice(&buffer[..bytes]),
                Err(why) if why.kind() == ErrorKind::WouldBlock => {
                    return Ok(self.since.elapsed() < PATIENCE);
                }
                Err(why) => return Err(why),
            }
        }
        // Short enough for any socket.
        let answer = exporter::while_recovering(&self.request, &recovering.text());
        self.stream.write_all(&answer)?;
        self.stream.shutdown(Shutdown::Write)?;
        Ok(false)
    }
}

/// Whoever goes away early has his reasons.
fn hear(callers: &mut VecDeque<Caller>, recovering: &Recovering) {
    callers.retain_mut(|caller| caller.hear(recovering).unwrap_or(false));
    // The oldest go first.
    let surplus = callers.len().saturating_sub(CALLERS_MAX);
    callers.drain(..surplus);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_answered_until_it_is_over() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let recovering = Arc::new(Recovering::default());
        let waiting = Waiting::start(&listener, Arc::clone(&recovering)).unwrap();
        recovering.note(3, 7);
        let ask = |path: &str| {
            let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        };
        // Who says nothing holds up nobody.
        let connect = |_| TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let silent: Vec<TcpStream> = (0..100).map(connect).collect();
        let since = Stopwatch::start();
        assert!(ask("/livez").starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
        drop(silent);
        for path in ["/readyz", "/metrics"] {
            let answer = ask(path);
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
            assert!(answer.ends_with("not ready: 3 of 7 bytes of the data directory are read\n"));
        }
        assert!(ask("/").starts_with("HTTP/1.1 404 "));
        drop(waiting);
    }
}
