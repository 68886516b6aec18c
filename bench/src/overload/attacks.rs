//! Clients that do what they should not. Owns one function for each kind of attack: it opens its
//! connections, says that it is under way, and goes on until told to stop; what it returns is how
//! much it did. An attack fails if the server answers what it must not, never for being slow.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::rounds::Signals;
use crate::Result;
use crate::client::Client;
use crate::load::{Load, Plan, Until};
use crate::population::Population;
use crate::stream::{Popularity, StreamSpec};

/// What a connection too many is told.
pub const TOO_MANY_CONNECTIONS: &[u8] = b"ERROR Too many open connections\r\n";
/// Below `-I`, which counts what memcached adds to an item.
pub const LARGE_VALUE_BYTES: usize = 1_000_000;
/// A line without an end.
pub const LONG_LINE_BYTES: usize = 1 << 20;

/// The server's backlog must not overflow: after so many, one waits for a reply.
const CONNECTS_AT_ONCE: usize = 128;
/// In which all slow clients send one byte.
const SLOW_CYCLE: Duration = Duration::from_secs(1);
const SLOW_SLICES: usize = 20;
const TIMEOUT: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(50);
const CHUNK_BYTES: usize = 64 << 10;
/// Long enough for a server to act on what it was sent.
const SETTLE: Duration = Duration::from_millis(500);

/// A connection that is closed at once, by a reset: waiting ends would use up the ports.
pub fn dial(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

/// Opens `count` connections and waits until all are accepted.
pub fn dial_many(address: SocketAddr, count: usize) -> Result<Vec<TcpStream>> {
    let mut streams = Vec::with_capacity(count);
    for index in 0..count {
        let mut stream = dial(address).map_err(|e| format!("connection {index}: {e}"))?;
        if index % CONNECTS_AT_ONCE == CONNECTS_AT_ONCE - 1 || index + 1 == count {
            ask(&mut stream, b"version\r\n", b"\r\n")?;
        }
        streams.push(stream);
    }
    Ok(streams)
}

/// Sends a request and reads up to the end of its reply.
pub fn ask(stream: &mut TcpStream, request: &[u8], end: &[u8]) -> Result<Vec<u8>> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(request)?;
    let mut reply = Vec::new();
    let mut chunk = [0; 4096];
    while !reply.ends_with(end) {
        match stream.read(&mut chunk)? {
            0 => return Err("the server closed a connection".into()),
            count => reply.extend_from_slice(&chunk[..count]),
        }
    }
    Ok(reply)
}

/// Stores a value of that size; answers what the server says.
pub fn store(stream: &mut TcpStream, key: &str, value_bytes: usize) -> Result<Vec<u8>> {
    store_by("set", stream, key, value_bytes)
}

fn store_by(verb: &str, stream: &mut TcpStream, key: &str, value_bytes: usize) -> Result<Vec<u8>> {
    let mut request = format!("{verb} {key} 0 0 {value_bytes}\r\n").into_bytes();
    request.resize(request.len() + value_bytes, b'v');
    request.extend_from_slice(b"\r\n");
    ask(stream, &request, b"\r\n")
}

/// Many connections: every other one is idle, the rest send one byte of a line a second. Returns
/// the connections that are still open in the end.
pub fn slowloris(address: SocketAddr, count: usize, signals: &Signals) -> Result<u64> {
    let mut streams = dial_many(address, count)?;
    signals.ready();
    let slice_length = count.div_ceil(SLOW_SLICES);
    let mut closed = 0;
    while !signals.stopped() {
        for slice in streams.chunks_mut(slice_length) {
            signals.sleep(SLOW_CYCLE / SLOW_SLICES as u32);
            let slow = slice.iter_mut().step_by(2);
            closed += slow.map(|stream| u64::from(stream.write(b"g").is_err())).sum::<u64>();
        }
    }
    Ok(count as u64 - closed)
}

/// Clients that ask for a large value a thousand times and read nothing.
pub fn slow_reader(address: SocketAddr, clients: usize, signals: &Signals) -> Result<u64> {
    const GETS: usize = 1000;
    let mut streams = dial_many(address, clients)?;
    expect(&store(&mut streams[0], "large", LARGE_VALUE_BYTES)?, b"STORED\r\n")?;
    let requests = b"get large\r\n".repeat(GETS);
    for stream in &mut streams {
        stream.write_all(&requests)?;
    }
    // Until the kernel's buffers are full the clients are as good as reading: that is `multiget`.
    signals.sleep(SETTLE);
    signals.ready();
    signals.sleep(TIMEOUT);
    Ok(clients as u64)
}

/// Clients that ask for long lists of the statistics, many at once, and read nothing.
pub fn lists(address: SocketAddr, clients: usize, signals: &Signals) -> Result<u64> {
    const KEYS: usize = 50_000;
    const LISTS: usize = 7;
    let mut streams = dial_many(address, clients)?;
    // A prefix of its own for each key makes a line of its own.
    ask(&mut streams[0], b"stats detail on\r\n", b"OK\r\n")?;
    let sets: String =
        (0..KEYS).map(|number| format!("set p{number}:k 0 0 1 noreply\r\nv\r\n")).collect();
    ask(&mut streams[0], (sets + "version\r\n").as_bytes(), b"\r\n")?;
    let requests = b"stats cachedump 1 0\r\nstats detail dump\r\nstats conns\r\n".repeat(LISTS);
    for stream in &mut streams {
        stream.write_all(&requests)?;
    }
    signals.sleep(SETTLE);
    signals.ready();
    signals.sleep(TIMEOUT);
    Ok(clients as u64)
}

/// Clients that ask for all large values and read nothing; after each, the values are replaced, so
/// that what one client refers to nobody else does. Returns how often values were replaced.
pub fn pinned(address: SocketAddr, clients: usize, signals: &Signals) -> Result<u64> {
    const KEYS: usize = 8;
    let mut writer = dial(address)?;
    let names: Vec<String> = (0..KEYS).map(|number| format!("pinned{number}")).collect();
    let request = format!("get {}\r\n", names.join(" "));
    let mut streams = dial_many(address, clients)?;
    let mut replaced = 0;
    for stream in &mut streams {
        for name in &names {
            // Refusals for want of memory are fine.
            let reply = store(&mut writer, name, LARGE_VALUE_BYTES)?;
            replaced += u64::from(reply == b"STORED\r\n");
        }
        // A server short of memory may have closed it.
        if stream.write_all(request.as_bytes()).is_ok() {
            stream.set_read_timeout(Some(SHORT))?;
            // The first byte tells that the values are under way.
            let _ = stream.peek(&mut [0]);
        }
        if signals.stopped() {
            break;
        }
    }
    signals.ready();
    signals.sleep(TIMEOUT);
    Ok(replaced)
}

/// Clients that ask for a list of all keys, of which there are many, and read nothing.
pub fn dump(address: SocketAddr, clients: usize, signals: &Signals) -> Result<u64> {
    const KEYS: usize = 100_000;
    let mut writer = dial(address)?;
    let mut sets = Vec::new();
    for number in 0..KEYS {
        write!(sets, "set dumped-key-number-{number:09} 0 0 1 noreply\r\nx\r\n")?;
    }
    sets.extend_from_slice(b"version\r\n");
    ask(&mut writer, &sets, b"\r\n")?;
    let mut streams = dial_many(address, clients)?;
    for stream in &mut streams {
        stream.write_all(b"lru_crawler metadump all\r\n")?;
    }
    signals.sleep(SETTLE);
    signals.ready();
    signals.sleep(TIMEOUT);
    Ok(clients as u64)
}

/// Connections beyond `-c` at a rate: each must be told so, in exactly these words, and closed.
/// Returns refusals per second.
pub fn flood(address: SocketAddr, places: usize, rate: f64, signals: &Signals) -> Result<u64> {
    let mut idle = Vec::new();
    // Fill the places first.
    loop {
        if idle.len() > places {
            return Err(format!("more than {places} connections are served").into());
        }
        let mut stream = dial(address)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        // It may be closed before it is written to.
        let _ = stream.write_all(b"version\r\n");
        let mut first = [0];
        if !matches!(stream.read(&mut first), Ok(1)) || first[0] == TOO_MANY_CONNECTIONS[0] {
            break;
        }
        idle.push(stream);
    }
    signals.ready();
    let begin = Instant::now();
    let mut refused = 0;
    while !signals.stopped() {
        let due = begin + Duration::from_secs_f64(refused as f64 / rate);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let mut stream = dial(address)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let mut reply = Vec::new();
        let read = stream.read_to_end(&mut reply);
        read.map_err(|e| format!("a connection too many: {e}"))?;
        expect(&reply, TOO_MANY_CONNECTIONS)?;
        refused += 1;
    }
    Ok((refused as f64 / begin.elapsed().as_secs_f64()) as u64)
}

/// Many connections ask for one key as fast as they are answered. Returns gets per second.
pub fn hot_shard(address: SocketAddr, connections: usize, signals: &Signals) -> Result<u64> {
    let population = Arc::new(Population::new(1, "20".parse()?, "32".parse()?)?);
    let stream = StreamSpec { popularity: Popularity::Uniform, once: 0.0, seed: 1 };
    let plan = Plan { connections, pipeline: 16, ..Plan::new(address, population, stream) };
    crate::load::fill(&plan, 1)?;
    let mut load = Load::connect(&plan)?;
    signals.ready();
    let (begin, mut gets) = (Instant::now(), 0);
    while !signals.stopped() {
        let outcome = load.run(Until::Elapsed(SHORT))?;
        outcome.check()?;
        gets += outcome.operations;
    }
    Ok((gets as f64 / begin.elapsed().as_secs_f64()) as u64)
}

/// One client writes `commands` commands in one go, reads the replies, and does so again. Returns
/// commands per second.
pub fn pipeline(address: SocketAddr, commands: usize, signals: &Signals) -> Result<u64> {
    let mut stream = dial(address)?;
    expect(&store(&mut stream, "pipelined", 32)?, b"STORED\r\n")?;
    let reply_bytes = ask(&mut stream, b"get pipelined\r\n", b"END\r\n")?.len();
    let requests = b"get pipelined\r\n".repeat(commands);
    let mut reader = stream.try_clone()?;
    signals.ready();
    let (begin, mut done) = (Instant::now(), 0);
    while !signals.stopped() {
        let mut left = commands * reply_bytes;
        let mut chunk = vec![0; CHUNK_BYTES];
        thread::scope(|scope| {
            let writer = scope.spawn(|| stream.write_all(&requests));
            while left > 0 {
                match reader.read(&mut chunk)? {
                    0 => return Err("the server closed the connection".into()),
                    count => left = left.saturating_sub(count),
                }
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(
                writer.join().map_err(|_| "the writer panicked")??,
            )
        })?;
        done += commands;
    }
    Ok((done as f64 / begin.elapsed().as_secs_f64()) as u64)
}

/// Clients ask for a hundred large values at once, again and again; every other one reads slowly.
/// Returns MiB per second.
pub fn multiget(address: SocketAddr, clients: usize, signals: &Signals) -> Result<u64> {
    const KEYS: usize = 100;
    let mut writer = dial(address)?;
    let names: Vec<String> = (0..KEYS).map(|number| format!("many{number}")).collect();
    for name in &names {
        // They are there from the second round on.
        store_by("add", &mut writer, name, LARGE_VALUE_BYTES)?;
    }
    let request = format!("get {}\r\n", names.join(" ")).into_bytes();
    let streams = dial_many(address, clients)?;
    signals.ready();
    let begin = Instant::now();
    let bytes = thread::scope(|scope| {
        let read = |(index, stream): (usize, TcpStream)| {
            let request = &request;
            scope.spawn(move || read_values(stream, request, index % 2 == 1, signals))
        };
        let readers: Vec<_> = streams.into_iter().enumerate().map(read).collect();
        let mut bytes = 0;
        for reader in readers {
            bytes += reader.join().map_err(|_| "a reader panicked")??;
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(bytes)
    })?;
    Ok((bytes as f64 / begin.elapsed().as_secs_f64()) as u64 >> 20)
}

fn read_values(
    mut stream: TcpStream,
    request: &[u8],
    is_slow: bool,
    signals: &Signals,
) -> Result<u64> {
    stream.set_read_timeout(Some(SHORT))?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut bytes = 0;
    stream.write_all(request)?;
    while !signals.stopped() {
        match stream.read(&mut chunk) {
            Ok(0) => return Err("the server closed a connection".into()),
            Ok(count) => {
                bytes += count as u64;
                if chunk[..count].ends_with(b"\r\nEND\r\n") {
                    stream.write_all(request)?;
                }
            }
            Err(error) if is_wait(error.kind()) => {}
            Err(error) => return Err(error.into()),
        }
        if is_slow {
            signals.sleep(SHORT / 5);
        }
    }
    Ok(bytes)
}

/// Connections each send a mebibyte without a line end: half of them junk, half a list of keys.
/// Junk must be closed. Returns the lists that were taken to the end.
pub fn long_lines(address: SocketAddr, count: usize, signals: &Signals) -> Result<u64> {
    let junk = vec![b'A'; LONG_LINE_BYTES];
    let mut keys = b"get ".to_vec();
    keys.extend(b"k ".iter().cycle().take(LONG_LINE_BYTES - keys.len()));
    let mut streams = dial_many(address, count)?;
    let mut sent = vec![0; count];
    for stream in &streams {
        stream.set_nonblocking(true)?;
    }
    signals.ready();
    let lines = [&junk, &keys];
    let mut moved = true;
    while moved && !signals.stopped() {
        moved = false;
        for (index, stream) in streams.iter_mut().enumerate() {
            let left = &lines[index % 2][sent[index]..];
            match stream.write(&left[..left.len().min(CHUNK_BYTES)]) {
                Ok(bytes) => sent[index] += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // Closed: it will not be asked again.
                Err(_) => sent[index] = LONG_LINE_BYTES,
            }
            moved |= sent[index] < LONG_LINE_BYTES;
        }
    }
    thread::sleep(SETTLE);
    let is_open = |stream: &mut TcpStream| match stream.read(&mut [0]) {
        Ok(count) => count > 0,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    };
    let open: Vec<bool> = streams.iter_mut().map(is_open).collect();
    let junk_open = open.iter().step_by(2).filter(|open| **open).count();
    if junk_open > 0 {
        return Err(format!("{junk_open} connections with endless junk are still open").into());
    }
    signals.sleep(TIMEOUT);
    Ok(open.iter().skip(1).step_by(2).filter(|open| **open).count() as u64)
}

/// Clients that send each byte of their commands by itself. Returns bytes per second.
pub fn byte_at_a_time(address: SocketAddr, clients: usize, signals: &Signals) -> Result<u64> {
    const COMMAND: &[u8] = b"get none\r\n";
    let mut streams = dial_many(address, clients)?;
    for stream in &streams {
        stream.set_nonblocking(true)?;
    }
    signals.ready();
    let (begin, mut bytes) = (Instant::now(), 0);
    let mut replies = [0; 4096];
    while !signals.stopped() {
        for byte in COMMAND {
            for stream in &mut streams {
                stream.write_all(&[*byte])?;
                bytes += 1;
            }
        }
        for stream in &mut streams {
            match stream.read(&mut replies) {
                Ok(0) => return Err("the server closed a connection".into()),
                Ok(count) if replies[..count].starts_with(b"END\r\n") => {}
                Ok(count) => return Err(unexpected(&replies[..count])),
                Err(error) if is_wait(error.kind()) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok((f64::from(bytes) / begin.elapsed().as_secs_f64()) as u64)
}

/// Whether one more client is served.
pub fn is_served(address: SocketAddr, time_max: Duration) -> bool {
    let ask = || -> Result<String> {
        let mut client = Client::connect(address)?;
        client.set_timeout(time_max)?;
        client.version()
    };
    ask().is_ok()
}

fn is_wait(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

fn expect(reply: &[u8], expected: &[u8]) -> Result<()> {
    if reply == expected { Ok(()) } else { Err(unexpected(reply)) }
}

fn unexpected(reply: &[u8]) -> Box<dyn std::error::Error + Send + Sync> {
    let shown = &reply[..reply.len().min(80)];
    format!("the server answered \"{}\"", shown.escape_ascii()).into()
}
