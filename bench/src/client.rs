//! One plain blocking connection, for asking a server about itself. Owns a socket; never used
//! where time is measured.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::Result;

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

    /// The general statistics as name and value.
    pub fn stats(&mut self) -> Result<HashMap<String, String>> {
        self.send("stats")?;
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
