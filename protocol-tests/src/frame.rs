//! Finds the end of a stream of replies.
//!
//! Replies of the text protocol do not say how many follow, and an unexpected error line would
//! desynchronise a client that counts. So every burst of requests ends with `mn`, whose reply `MN`
//! comes last. Values may contain `MN` lines themselves: the framer therefore skips the data blocks
//! announced by `VALUE` and `VA` lines.
//!
//! No I/O: bytes in, number of `MN` lines out.

/// The request that ends a burst.
pub const SENTINEL_REQUEST: &[u8] = b"mn\r\n";
/// Its reply.
pub const SENTINEL_REPLY: &[u8] = b"MN\r\n";

/// Walks over replies as they arrive.
#[derive(Debug, Default)]
pub struct Framer {
    /// Bytes of the stream already looked at, always at the start of a line or of a data block.
    consumed: usize,
    /// Bytes of the data block (its `\r\n` included) that starts at `consumed`.
    block_bytes: usize,
    sentinels: usize,
}

impl Framer {
    /// Looks at the whole stream received so far and returns the number of complete `MN` replies.
    /// Each call must pass the same stream, only longer.
    pub fn sentinels(&mut self, stream: &[u8]) -> usize {
        while self.step(stream).is_some() {}
        self.sentinels
    }

    /// Length of the start of `stream` that ends with the `count`th `MN`; `None` if it holds fewer.
    pub fn length_until(&mut self, stream: &[u8], count: usize) -> Option<usize> {
        while self.sentinels < count {
            self.step(stream)?;
        }
        Some(self.consumed)
    }

    /// Goes past one line, and the data block before it. `None`: the stream ends first.
    fn step(&mut self, stream: &[u8]) -> Option<()> {
        let start = self.consumed + self.block_bytes;
        let line = first_line(stream.get(start..)?)?;
        self.consumed = start + line.len();
        self.block_bytes = data_block_bytes(line);
        self.sentinels += usize::from(line == SENTINEL_REPLY);
        Some(())
    }
}

/// The first line of `bytes` with its `\n`, if it is complete.
#[must_use]
pub fn first_line(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    Some(&bytes[..=end])
}

/// Length of the data block (with its `\r\n`) that follows a reply line; 0 if none does.
#[must_use]
pub fn data_block_bytes(line: &[u8]) -> usize {
    let text = String::from_utf8_lossy(line);
    let mut words = text.split_ascii_whitespace();
    // "VALUE <key> <flags> <bytes> [<cas>]" or "VA <bytes> <flags>*"
    let bytes = match words.next() {
        Some("VALUE") => words.nth(2),
        Some("VA") => words.next(),
        _ => None,
    };
    bytes.and_then(|number| number.parse::<usize>().ok()).map_or(0, |bytes| bytes + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts after each single byte, so that every split of the stream is covered.
    fn check(stream: &[u8], sentinels: usize) {
        let mut framer = Framer::default();
        for end in 0..stream.len() {
            assert!(framer.sentinels(&stream[..end]) <= sentinels);
        }
        assert_eq!(framer.sentinels(stream), sentinels);
    }

    #[test]
    fn counts_sentinels_outside_values() {
        check(b"", 0);
        check(b"MN\r\n", 1);
        check(b"STORED\r\nMN\r\nERROR\r\nMN\r\n", 2);
        check(b"VALUE k 0 4\r\nMN\r\n\r\nEND\r\nMN\r\n", 1);
        check(b"VALUE k 0 4 99\r\nMN\r\n\r\nEND\r\n", 0);
        check(b"VA 6 f0\r\n\nMN\r\n\n\r\nMN\r\n", 1);
        check(b"VALUE k 0 0\r\n\r\nEND\r\nMN\r\n", 1);
    }
}
