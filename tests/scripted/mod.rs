//! A server that says what the test tells it to: line by line, connection by connection.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Answers a line on a connection; false closes it.
type Script = dyn Fn(&str, &mut TcpStream) -> bool + Send + Sync;

pub(crate) struct Scripted {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    accepted: AtomicUsize,
    lines: Mutex<Vec<String>>,
    ended: AtomicBool,
}

impl Scripted {
    pub(crate) fn start(
        script: impl Fn(&str, &mut TcpStream) -> bool + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            accepted: AtomicUsize::new(0),
            lines: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let (accepts, script): (_, Arc<Script>) = (Arc::clone(&shared), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if accepts.ended.load(Ordering::Relaxed) {
                    return;
                }
                accepts.accepted.fetch_add(1, Ordering::Relaxed);
                let (shared, script) = (Arc::clone(&accepts), Arc::clone(&script));
                let stream = stream.unwrap();
                std::thread::spawn(move || serve(stream, &shared, &*script));
            }
        });
        Self { address, shared }
    }

    /// Connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// How often a line was sent that begins like this.
    pub(crate) fn heard(&self, beginning: &str) -> usize {
        let lines = self.shared.lines.lock().unwrap();
        lines.iter().filter(|line| line.starts_with(beginning)).count()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(mut stream: TcpStream, shared: &Shared, script: &Script) {
    let _ = stream.set_nodelay(true);
    for line in BufReader::new(stream.try_clone().unwrap()).lines() {
        let Ok(line) = line else { return };
        shared.lines.lock().unwrap().push(line.clone());
        if !script(&line, &mut stream) {
            return;
        }
    }
}
