//! One plain blocking connection, for asking a server about itself. Owns a socket; never used
//! where time is measured.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::wire::{Protocol, Reply};
use crate::{Result, frames};

const TIMEOUT: Duration = Duration::from_secs(20);

/// A connection for one command at a time.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    /// Connects.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, TIMEOUT)
            .map_err(|e| format!("connecting to {address}: {e}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { reader: BufReader::with_capacity(1024, stream) })
    }

    /// The server's version, such as `1.6.18`.
    pub fn version(&mut self) -> Result<String> {
        self.send("version")?;
        let line = self.line()?;
        match line.strip_prefix("VERSION ") {
            Some(version) => Ok(version.to_owned()),
            None => Err(format!("the answer to version was \"{line}\"").into()),
        }
    }

    /// Waits until the server has answered something: its version, or Redis's `PONG`.
    pub fn greet(&mut self, protocol: Protocol) -> Result<()> {
        match protocol {
            Protocol::Text => self.version().map(drop),
            Protocol::Resp => match self.ask("PING")?.as_str() {
                "+PONG" => Ok(()),
                line => Err(format!("the answer to PING was \"{line}\"").into()),
            },
        }
    }

    /// The same in the binary protocol, which the connection speaks from then on.
    pub fn greet_in_frames(&mut self) -> Result<()> {
        let mut noop = Vec::new();
        frames::push_noop(&mut noop);
        self.reader.get_mut().write_all(&noop)?;
        let mut answer = vec![0; noop.len()];
        self.reader.read_exact(&mut answer)?;
        match frames::parse(&answer) {
            Some((Reply::End, _)) => Ok(()),
            other => Err(format!("the answer to a noop was {other:?}").into()),
        }
    }

    /// The first line of the answer to a command that is answered with one line.
    pub fn ask(&mut self, command: &str) -> Result<String> {
        self.send(command)?;
        self.line()
    }

    /// Waits for answers for as long as this.
    pub fn set_timeout(&mut self, time: Duration) -> Result<()> {
        Ok(self.reader.get_ref().set_read_timeout(Some(time))?)
    }

    /// A section of Redis's `INFO` as name and value.
    pub fn info(&mut self, section: &str) -> Result<HashMap<String, String>> {
        let header = self.ask(&format!("INFO {section}"))?;
        let length = header.strip_prefix('$').and_then(|digits| digits.parse::<usize>().ok());
        let length = length.ok_or_else(|| format!("the answer to INFO was \"{header}\""))?;
        let mut text = vec![0; length + 2];
        self.reader.read_exact(&mut text)?;
        let text = String::from_utf8_lossy(&text);
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// The general statistics as name and value.
    pub fn stats(&mut self) -> Result<HashMap<String, String>> {
        self.stats_of("stats")
    }

    /// The answer to a command such as `stats persistence` as name and value.
    pub fn stats_of(&mut self, command: &str) -> Result<HashMap<String, String>> {
        self.send(command)?;
        let mut stats = HashMap::new();
        loop {
            let line = self.line()?;
            let mut fields = line.splitn(3, ' ');
            match (fields.next(), fields.next(), fields.next()) {
                (Some("STAT"), Some(name), value) => {
                    stats.insert(name.to_owned(), value.unwrap_or_default().to_owned());
                }
                (Some("END"), ..) => return Ok(stats),
                _ => return Err(format!("in the answer to stats: \"{line}\"").into()),
            }
        }
    }

    /// The socket, with nothing read ahead.
    pub fn into_stream(self) -> TcpStream {
        debug_assert!(self.reader.buffer().is_empty(), "unread replies would be lost");
        self.reader.into_inner()
    }

    fn send(&mut self, command: &str) -> Result<()> {
        Ok(self.reader.get_mut().write_all(format!("{command}\r\n").as_bytes())?)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err("the server closed the connection".into());
        }
        Ok(line.trim_end().to_owned())
    }
}

/// A statistic as a number.
pub fn stat(stats: &HashMap<String, String>, name: &str) -> Result<u64> {
    let text = stats.get(name).ok_or_else(|| format!("the server has no statistic \"{name}\""))?;
    text.parse().map_err(|_| format!("statistic {name} is \"{text}\", not a number").into())
}
