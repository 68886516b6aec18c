//! Stores items in a running server: pipelined, quiet, and with every refusal counted.
//!
//! Commands are sent in batches that end in `mn`. While the server works at one, the next is sent;
//! its `MN` says that the batch is done, and every line before it is about something that went
//! wrong. Owns what is said to the server; where the items come from is the caller's.

use super::peer::{Link, Peer, read_line};
use super::stream::Command;
use std::io::{self, Write};

/// A batch is full at so many bytes or commands: few enough that the answers to them fit what the
/// sockets hold while nobody reads.
const BATCH_BYTES: usize = 256 << 10;
const BATCH_COMMANDS: usize = 512;

/// Batches on their way.
const BATCHES_IN_FLIGHT_MAX: usize = 2;

/// What ends a load.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The server that is loaded cannot be reached, or does not understand.
    Target(String),
    /// The source cannot be read.
    Source(String),
    /// The dump is damaged.
    Stream(String),
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Loaded {
    /// Items sent.
    pub items: u64,
    /// Items that were not to be stored over others, and met some.
    pub met: u64,
    /// Commands that the server refused.
    pub refused: u64,
    /// Its first answer to one of them.
    pub first_refusal: Option<String>,
}

/// See the module's text.
pub(super) struct Loader {
    server: Link,
    /// Commands that have not been sent.
    batch: Vec<u8>,
    batch_commands: usize,
    in_flight: usize,
    loaded: Loaded,
}

impl Loader {
    /// Connects to the server to be loaded.
    pub(super) fn connect(peer: &Peer) -> io::Result<Self> {
        Ok(Self {
            server: peer.connect()?,
            batch: Vec::new(),
            batch_commands: 0,
            in_flight: 0,
            loaded: Loaded::default(),
        })
    }

    /// What was done so far.
    pub(super) fn loaded(&self) -> Loaded {
        self.loaded.clone()
    }

    /// Sends a command, now or with those that follow.
    pub(super) fn push(&mut self, Command { line, value }: &Command) -> Result<(), Trouble> {
        self.batch.extend_from_slice(line);
        self.batch.extend_from_slice(b"\r\n");
        self.batch_commands += 1;
        if let Some(value) = value {
            self.batch.extend_from_slice(value);
            self.batch.extend_from_slice(b"\r\n");
            self.loaded.items += 1;
        }
        if self.batch.len() >= BATCH_BYTES || self.batch_commands >= BATCH_COMMANDS {
            self.end_batch()?;
        }
        Ok(())
    }

    fn end_batch(&mut self) -> Result<(), Trouble> {
        self.batch.extend_from_slice(b"mn\r\n");
        let server = self.server.get_mut();
        server.write_all(&self.batch).and_then(|()| server.flush()).map_err(target)?;
        self.batch.clear();
        self.batch_commands = 0;
        self.in_flight += 1;
        while self.in_flight >= BATCHES_IN_FLIGHT_MAX {
            self.read_answers()?;
        }
        Ok(())
    }

    fn read_answers(&mut self) -> Result<(), Trouble> {
        loop {
            let line = read_line(&mut self.server).map_err(target)?;
            match &line[..] {
                b"MN" => break,
                b"ERROR" => {
                    let why = "it does not know meta commands; memcached does since 1.6";
                    return Err(Trouble::Target(why.to_owned()));
                }
                // To `mg`; and to `md` of an item that had to make room already.
                line if line.starts_with(b"HD") || line == b"EN" || line.starts_with(b"NF") => {}
                line if line.starts_with(b"NS") => self.loaded.met += 1,
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
    pub(super) fn finish(&mut self) -> Result<(), Trouble> {
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
