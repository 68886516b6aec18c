//! A request line as its words, for rules that depend on what was asked.
//!
//! No I/O. Splits as servers do: at spaces, up to the line end.

/// The first line of a command.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    line: &'a [u8],
    words: Vec<&'a [u8]>,
}

impl<'a> Request<'a> {
    /// Takes the first line of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let words = line.split(|&byte| byte == b' ').filter(|word| !word.is_empty()).collect();
        Self { line, words }
    }

    /// The line without its end.
    #[must_use]
    pub fn line(&self) -> &'a [u8] {
        self.line
    }

    /// The command's name; empty if the line is.
    #[must_use]
    pub fn verb(&self) -> &'a str {
        std::str::from_utf8(self.word(0)).unwrap_or_default()
    }

    /// A word; empty if there is none.
    #[must_use]
    pub fn word(&self, index: usize) -> &'a [u8] {
        self.words.get(index).copied().unwrap_or_default()
    }

    /// Number of words.
    #[must_use]
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Whether there is no word at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Whether the verb is one of these.
    #[must_use]
    pub fn is(&self, verbs: &[&str]) -> bool {
        verbs.contains(&self.verb())
    }

    /// Whether the last word is `noreply`.
    #[must_use]
    pub fn has_noreply(&self) -> bool {
        self.words.last() == Some(&b"noreply".as_slice())
    }

    /// Whether it is a classic command with a data block.
    #[must_use]
    pub fn is_classic_storage(&self) -> bool {
        self.is(&["set", "add", "replace", "append", "prepend", "cas"])
    }

    /// Whether it is a meta command with a key.
    #[must_use]
    pub fn is_meta(&self) -> bool {
        self.is(&["mg", "ms", "md", "ma", "me"])
    }

    /// The flags of a meta command.
    #[must_use]
    pub fn flags(&self) -> &[&'a [u8]] {
        let first = if self.verb() == "ms" { 3 } else { 2 };
        if self.is_meta() { self.words.get(first..).unwrap_or_default() } else { &[] }
    }

    /// The argument of a flag; `None` if the flag is absent.
    #[must_use]
    pub fn flag(&self, name: u8) -> Option<&'a [u8]> {
        let flag = self.flags().iter().find(|flag| flag.first() == Some(&name))?;
        flag.get(1..)
    }

    /// Every key of the line that is too long.
    #[must_use]
    pub fn has_long_key(&self) -> bool {
        const KEY_BYTES_MAX: usize = 250;
        let keys = match self.verb() {
            "get" | "gets" => 1..self.len(),
            "gat" | "gats" => 2..self.len(),
            _ => 1..2,
        };
        keys.into_iter().any(|index| KEY_BYTES_MAX < self.word(index).len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_flags() {
        let request = Request::new(b"ms  k 3 T5 q \r\nabc\r\n");
        assert_eq!((request.verb(), request.len()), ("ms", 5));
        assert_eq!(request.flag(b'T'), Some(b"5".as_slice()));
        assert_eq!(request.flag(b'q'), Some(b"".as_slice()));
        assert_eq!(request.flag(b'x'), None);
        assert!(Request::new(b"\r\n").is_empty());
        assert!(Request::new(b"set k 0 0 1 noreply\n").has_noreply());
    }
}
