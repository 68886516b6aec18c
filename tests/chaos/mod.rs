//! A network that misbehaves: a proxy between a client and a server, told by the test what to do.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What happens to bytes on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Weather {
    /// Nothing.
    Fair,
    /// Each piece waits a few milliseconds.
    Delay,
    /// Now and then an answer arrives after its call has given up.
    Late,
    /// Each byte travels alone.
    Split,
    /// Nothing travels any more, nothing is closed; new connections are accepted.
    Stall,
    /// Now and then a connection is cut.
    Reset,
    /// Now and then a few wrong bytes are put in, or one is lost, on the way to the client.
    Garbage,
    /// What the client sends arrives, what the server answers does not.
    HalfOpen,
    /// Connections are closed at once, old and new.
    Cut,
}

/// Longer than the tests' calls wait for a reply.
const LATE: Duration = Duration::from_millis(90);

pub(crate) const BAD_WEATHER: [Weather; 8] = [
    Weather::Delay,
    Weather::Late,
    Weather::Split,
    Weather::Stall,
    Weather::Reset,
    Weather::Garbage,
    Weather::HalfOpen,
    Weather::Cut,
];

pub(crate) struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    weather: AtomicU8,
    ended: AtomicBool,
    random: AtomicU64,
    target: Mutex<SocketAddr>,
}

impl Shared {
    fn weather(&self) -> Weather {
        let number = self.weather.load(Ordering::Relaxed);
        BAD_WEATHER.into_iter().find(|one| *one as u8 == number).unwrap_or(Weather::Fair)
    }

    fn one_in(&self, count: u64) -> bool {
        let step = |state: u64| Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        let state = self.random.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).unwrap();
        (state >> 33).is_multiple_of(count)
    }
}

impl Proxy {
    pub(crate) fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            weather: AtomicU8::new(Weather::Fair as u8),
            ended: AtomicBool::new(false),
            random: AtomicU64::new(u64::from(address.port())),
            target: Mutex::new(target),
        });
        let accepts = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if accepts.ended.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(client), shared) = (client, Arc::clone(&accepts)) else { continue };
                if shared.weather() != Weather::Cut {
                    std::thread::spawn(move || relay(client, &shared));
                }
            }
        });
        Self { address, shared }
    }

    pub(crate) fn set(&self, weather: Weather) {
        self.shared.weather.store(weather as u8, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn relay(client: TcpStream, shared: &Shared) {
    let Ok(server) = TcpStream::connect(*shared.target.lock().unwrap()) else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    std::thread::scope(|scope| {
        scope.spawn(|| pump(&client, &server, shared, false));
        pump(&server, &client, shared, true);
    });
}

/// Carries bytes one way until either end closes or the weather does.
fn pump(mut from: &TcpStream, mut to: &TcpStream, shared: &Shared, to_client: bool) {
    let mut buffer = [0; 4096];
    from.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    while !shared.ended.load(Ordering::Relaxed) {
        let weather = shared.weather();
        let stalls = weather == Weather::Stall || (weather == Weather::HalfOpen && to_client);
        if stalls {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        }
        if weather == Weather::Cut {
            break;
        }
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {
                continue;
            }
            Err(_) => break,
        };
        // The weather may have changed while bytes were waited for.
        let stalls = shared.weather() == Weather::Stall
            || (shared.weather() == Weather::HalfOpen && to_client);
        if stalls {
            continue;
        }
        let mut bytes = buffer[..count].to_vec();
        match weather {
            Weather::Delay => std::thread::sleep(Duration::from_millis(3)),
            Weather::Late if to_client && shared.one_in(5) => std::thread::sleep(LATE),
            Weather::Reset if shared.one_in(20) => break,
            Weather::Garbage if to_client && shared.one_in(10) => spoil(&mut bytes, shared),
            _ => {}
        }
        let piece_bytes = if weather == Weather::Split { 1 } else { bytes.len().max(1) };
        if bytes.chunks(piece_bytes).any(|piece| to.write_all(piece).is_err()) {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

/// Puts in a line, or loses or adds a byte: what changes the frame. A byte of a value that is
/// another one afterwards is beyond what the protocol can show.
fn spoil(bytes: &mut Vec<u8>, shared: &Shared) {
    let middle = bytes.len() / 2;
    if shared.one_in(3) {
        bytes.splice(0..0, *b"nonsense\r\n");
    } else if shared.one_in(2) {
        bytes.remove(middle);
    } else {
        bytes.insert(middle, b'?');
    }
}

/// Measures calls, and notices when this process did not run for a while: time that passed then is
/// nobody's fault.
pub(crate) struct Stopwatch {
    gap_millis_max: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        let (gap_millis_max, ended) =
            (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (gap, end) = (Arc::clone(&gap_millis_max), Arc::clone(&ended));
        std::thread::spawn(move || {
            let mut last = Instant::now();
            while !end.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(5));
                gap.fetch_max(last.elapsed().as_millis() as u64, Ordering::Relaxed);
                last = Instant::now();
            }
        });
        Self { gap_millis_max, ended }
    }

    /// The longest time in which nothing ran, twice, since a call may meet it more than once.
    pub(crate) fn slack(&self) -> Duration {
        Duration::from_millis(100 + 3 * self.gap_millis_max.load(Ordering::Relaxed))
    }
}

impl Drop for Stopwatch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}
