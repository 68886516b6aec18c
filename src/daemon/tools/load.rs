//! Stores items in a running server: pipelined, quiet, and with every refusal counted.
//!
//! Commands are sent in batches that end in `mn`. While the server works at one, the next is sent;
//! its `MN` says that the batch is done, and every line before it is about something that went
//! wrong. Owns the connection to the server; where the items come from is the caller's.

use super::stream::Command;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A batch is full at so many bytes or commands: few enough that the answers to them fit what the
/// sockets hold while nobody reads.
const BATCH_BYTES: usize = 256 << 10;
const BATCH_COMMANDS: usize = 512;

/// Batches on their way.
const BATCHES_IN_FLIGHT_MAX: usize = 2;

/// A server that is silent for so long is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 4096;

/// What ends a load.
#[derive(Debug)]
pub enum Trouble {
    /// The server that is loaded cannot be reached, or does not understand.
    Target(String),
    /// The source cannot be read.
    Source(String),
    /// The dump is damaged.
    Stream(String),
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Items sent.
    pub items: u64,
    /// Commands that the server refused.
    pub refused: u64,
    /// Its first answer to one of them.
    pub first_refusal: Option<String>,
}

/// See the module's text.
pub struct Loader {
    to_server: BufWriter<TcpStream>,
    from_server: BufReader<TcpStream>,
    batch_bytes: usize,
    batch_commands: usize,
    in_flight: usize,
    loaded: Loaded,
}

/// Connects to a server that is not waited for without end.
pub(super) fn connect(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads a line without its end.
pub(super) fn read_line(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    io::Read::take(&mut *from, ANSWER_BYTES_MAX).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server hung up"));
    }
    line.truncate(line.strip_suffix(b"\r").map_or(line.len(), <[u8]>::len));
    Ok(line)
}

impl Loader {
    /// Connects to the server to be loaded.
    pub fn connect(address: &str) -> io::Result<Self> {
        let stream = connect(address)?;
        Ok(Self {
            to_server: BufWriter::with_capacity(BATCH_BYTES, stream.try_clone()?),
            from_server: BufReader::new(stream),
            batch_bytes: 0,
            batch_commands: 0,
            in_flight: 0,
            loaded: Loaded::default(),
        })
    }

    /// What was done so far.
    pub fn loaded(&self) -> Loaded {
        self.loaded.clone()
    }

    /// Sends a command, now or with those that follow.
    pub fn push(&mut self, command: &Command) -> Result<(), Trouble> {
        self.write(command).map_err(target)?;
        if self.batch_bytes >= BATCH_BYTES || self.batch_commands >= BATCH_COMMANDS {
            self.end_batch()?;
        }
        Ok(())
    }

    fn write(&mut self, Command { line, value }: &Command) -> io::Result<()> {
        self.to_server.write_all(line)?;
        self.to_server.write_all(b"\r\n")?;
        self.batch_bytes += line.len();
        self.batch_commands += 1;
        if let Some(value) = value {
            self.to_server.write_all(value)?;
            self.to_server.write_all(b"\r\n")?;
            self.batch_bytes += value.len();
            self.loaded.items += 1;
        }
        Ok(())
    }

    fn end_batch(&mut self) -> Result<(), Trouble> {
        self.to_server.write_all(b"mn\r\n").map_err(target)?;
        self.to_server.flush().map_err(target)?;
        (self.batch_bytes, self.batch_commands) = (0, 0);
        self.in_flight += 1;
        while self.in_flight >= BATCHES_IN_FLIGHT_MAX {
            self.read_answers()?;
        }
        Ok(())
    }

    fn read_answers(&mut self) -> Result<(), Trouble> {
        loop {
            let line = read_line(&mut self.from_server).map_err(target)?;
            match &line[..] {
                b"MN" => break,
                b"ERROR" => {
                    let why = "it does not know meta commands; memcached does since 1.6";
                    return Err(Trouble::Target(why.to_owned()));
                }
                // To `mg`; and to `md` of an item that had to make room already.
                line if line.starts_with(b"HD") || line == b"EN" || line.starts_with(b"NF") => {}
                line => {
                    self.loaded.refused += 1;
                    let text = || String::from_utf8_lossy(line).into_owned();
                    self.loaded.first_refusal.get_or_insert_with(text);
                }
            }
        }
        self.in_flight -= 1;
        Ok(())
    }

    /// Waits until the server has executed everything.
    pub fn finish(&mut self) -> Result<(), Trouble> {
        self.end_batch()?;
        while self.in_flight > 0 {
            self.read_answers()?;
        }
        Ok(())
    }
}

fn target(why: io::Error) -> Trouble {
    Trouble::Target(why.to_string())
}
