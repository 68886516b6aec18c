//! The metrics port before there is anything to measure: while data is recovered it answers that
//! the process is alive and not ready, and how far it has come.
//!
//! Owns a thread that ends when the server is ready; then `exporter` takes the port over. One
//! request at a time, with a short patience: nobody but probes asks then.

use super::exporter;
use crate::server::clock::Stopwatch;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle, sleep};
use std::time::Duration;

/// Between looks for somebody who asks.
const LOOK: Duration = Duration::from_millis(20);

/// Who has not asked by then is hung up on.
const PATIENCE: Duration = Duration::from_millis(250);

/// A request's line and headers.
const REQUEST_BYTES_MAX: usize = 4 << 10;

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
            while !ended.load(Ordering::Relaxed) {
                match listener.accept() {
                    // Whoever goes away early has his reasons.
                    Ok((stream, _)) => _ = answer(stream, &recovering),
                    Err(_) => sleep(LOOK),
                }
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

fn answer(mut stream: TcpStream, recovering: &Recovering) -> io::Result<()> {
    let since = Stopwatch::start();
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = Vec::new();
    while since.elapsed() < PATIENCE && request.len() < REQUEST_BYTES_MAX {
        let mut buffer = [0; 512];
        let bytes = stream.read(&mut buffer)?;
        request.extend_from_slice(&buffer[..bytes]);
        if bytes == 0 || request.ends_with(b"\r\n\r\n") || request.ends_with(b"\n\n") {
            break;
        }
    }
    stream.write_all(&exporter::while_recovering(&request, &recovering.text()))?;
    stream.shutdown(Shutdown::Write)
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
        assert!(ask("/livez").starts_with("HTTP/1.1 200 OK\r\n"));
        for path in ["/readyz", "/metrics"] {
            let answer = ask(path);
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
            assert!(answer.ends_with("not ready: 3 of 7 bytes of the data directory are read\n"));
        }
        assert!(ask("/").starts_with("HTTP/1.1 404 "));
        drop(waiting);
    }
}
