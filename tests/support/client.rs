//! A client of a daemon or an embedded server, which knows nothing of the protocol but lines.

use super::PATIENCE;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

/// A client that waits for its answers, and not for ever.
pub(crate) struct Client(pub BufReader<TcpStream>);

/// A connection on which nothing takes longer than it may.
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

impl Client {
    pub(crate) fn at(address: SocketAddr) -> Self {
        Self(BufReader::new(connect(address)))
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// A line without its end.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "closed after {line:?}");
        line.trim_end_matches(['\r', '\n']).to_owned()
    }

    /// Sends something and checks the one line of the answer.
    #[track_caller]
    pub(crate) fn check(&mut self, said: &str, answer: &str) {
        self.send(said);
        assert_eq!(self.line(), answer, "to {said:?}");
    }

    /// The lines up to one that reads `last`, that one left out.
    pub(crate) fn lines_to(&mut self, last: &str) -> Vec<String> {
        std::iter::from_fn(|| Some(self.line()).filter(|line| line != last)).collect()
    }

    /// Sends commands and drops what they answer.
    pub(crate) fn run(&mut self, commands: &str) {
        for some in commands.as_bytes().chunks(16 << 10) {
            self.send(str::from_utf8(some).unwrap());
        }
        self.send("mn\r\n");
        self.lines_to("MN");
    }

    /// The lines of a part of `stats`, without `STAT`.
    pub(crate) fn stats(&mut self, topic: &str) -> Vec<String> {
        self.send(format!("stats {topic}").trim_end());
        self.send("\r\n");
        let lines = self.lines_to("END");
        let stat = |line: &String| line.strip_prefix("STAT ").expect(line).to_owned();
        lines.iter().map(stat).collect()
    }

    /// One of the numbers of `stats`.
    pub(crate) fn stat(&mut self, name: &str) -> u64 {
        let stats = self.stats("");
        let value = stats.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.expect(name).parse().unwrap()
    }
}

/// Everything the server at this address answers until it closes, which it is asked to at the end
/// of what is said. It may close before.
pub(crate) fn conversation(address: SocketAddr, said: &[u8], bytes_at_once: usize) -> Vec<u8> {
    let mut stream = connect(address);
    for piece in said.chunks(bytes_at_once) {
        if stream.write_all(piece).is_err() {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    // A server that closes while bytes are under way resets the connection.
    let _ = stream.read_to_end(&mut answer);
    answer
}
