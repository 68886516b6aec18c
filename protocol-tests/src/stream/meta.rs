//! Random meta commands: every flag, in any order, sometimes twice, sometimes wrong.

use super::command::{Command, Piece, Traits};
use super::generator::Generator;

/// Keys that are also used in base64, and how they look then.
const BINARY_KEYS: [(&[u8], &str); 3] =
    [(b"binary", "YmluYXJ5"), (b"bin\0 k", "YmluACBr"), (b"num000", "bnVtMDAw")];

/// How one of the keys that are also used in base64 looks then.
pub(crate) fn encoded(key: &[u8]) -> Option<&'static str> {
    BINARY_KEYS.iter().find(|(raw, _)| *raw == key).map(|(_, encoded)| *encoded)
}

/// How often a command gets something wrong.
const MISTAKE_ONE_IN: u32 = 25;

/// A command of random kind.
pub(crate) fn command(generator: &mut Generator) -> Command {
    match generator.random.u32(..100) {
        0..=39 => get(generator),
        40..=69 => set(generator),
        70..=79 => delete(generator),
        80..=95 => arithmetic(generator),
        _ => debug(generator),
    }
}

/// A meta command under construction: flags are shuffled before they are written.
struct Draft {
    key: Vec<u8>,
    /// The key as it is sent.
    sent_key: Vec<u8>,
    flags: Vec<Vec<Piece>>,
}

impl Draft {
    fn new(generator: &mut Generator, key: Vec<u8>) -> Self {
        let mut draft = Self { sent_key: key.clone(), key, flags: Vec::new() };
        if generator.one_in(12) {
            // Numbers stay with keys for numbers.
            let is_number = draft.key.starts_with(b"num");
            let index = if is_number { 2 } else { generator.random.usize(..2) };
            let (key, encoded) = BINARY_KEYS[index];
            draft.key = key.to_vec();
            draft.sent_key = encoded.as_bytes().to_vec();
            draft.flag("b");
        }
        draft
    }

    /// False for keys that hold numbers. When a number needs more room memcached makes a new item,
    /// which has lost the marks for stale items and for winners, and the one for having been read.
    /// The transcripts cover that; here such keys get no marks, and nobody asks for them.
    fn keeps_marks(&self) -> bool {
        !self.key.starts_with(b"num")
    }

    fn flag(&mut self, text: impl AsRef<[u8]>) {
        self.flags.push(vec![Piece::Bytes(text.as_ref().to_vec())]);
    }

    /// Each of these flags with an even chance.
    fn some(&mut self, generator: &mut Generator, flags: &[&str]) {
        for flag in flags {
            if generator.one_in(2) {
                self.flag(flag);
            }
        }
    }

    fn token(&mut self, generator: &mut Generator) {
        let mut command = Command::new("C");
        generator.push_token(&mut command, &self.key);
        self.flags.push(command.pieces);
    }

    /// Flags that all commands know, and mistakes.
    fn common(&mut self, generator: &mut Generator) {
        for flag in ["k", "q"] {
            if generator.one_in(4) {
                self.flag(flag);
            }
        }
        if generator.one_in(4) {
            let bytes_max = if generator.one_in(20) { 40 } else { 12 };
            let opaque = generator.random.usize(..bytes_max);
            self.flag(format!("O{}", "o".repeat(opaque)));
        }
        if generator.one_in(MISTAKE_ONE_IN) {
            let wrong = generator.pick(&[
                "Q",
                "a",
                "9",
                "k",
                "q",
                "v",
                "T",
                "Tx",
                "C",
                "C-1",
                "Cx",
                "N",
                "Nx",
                "M",
                "MQ",
                "D",
                "Dx",
                "J",
                "J-1",
                "F",
                "F-1",
                "Fx",
                "E",
                "Ex",
                "T2147483648",
                "S5",
                "P",
                "L1",
                "x",
                "s",
            ]);
            self.flag(wrong);
        }
    }

    fn finish(mut self, generator: &mut Generator, verb: &str, length: Option<usize>) -> Command {
        generator.random.shuffle(&mut self.flags);
        let mut command = Command::new(format!("{verb} "));
        command.push(&self.sent_key);
        if let Some(length) = length {
            command.push(format!(" {length}"));
        }
        for flag in self.flags {
            command.push(" ");
            for piece in flag {
                match piece {
                    Piece::Bytes(bytes) => command.push(bytes),
                    piece => command.pieces.push(piece),
                }
            }
        }
        command.push("\r\n");
        command.keys.push(self.key);
        command
    }
}

fn get(generator: &mut Generator) -> Command {
    let key = generator.key();
    let mut draft = Draft::new(generator, key);
    let keeps_marks = draft.keeps_marks();
    draft.some(generator, &["v", "s", "f", "t", "c"]);
    if generator.one_in(3) {
        draft.some(generator, if keeps_marks { &["h", "l", "u"] } else { &["l", "u"] });
    }
    if generator.one_in(6) {
        draft.flag(format!("T{}", positive_expiry(generator)));
    }
    if keeps_marks && generator.one_in(5) {
        draft.flag(format!("N{}", generator.expiry()));
        if generator.one_in(3) {
            draft.flag(format!("E{}", generator.explicit_token()));
        }
    }
    if keeps_marks && generator.one_in(5) {
        draft.flag(generator.pick(&["R30", "R1000", "R50000", "R1000000", "R0", "R-1"]));
    }
    if generator.one_in(12) {
        draft.token(generator);
    }
    draft.common(generator);
    let mut command = draft.finish(generator, "mg", None);
    command.traits = Traits { reads: true, ..Traits::default() };
    command
}

/// A time left after `T` with a past expiry is not defined: see the differences.
fn positive_expiry(generator: &mut Generator) -> String {
    if generator.one_in(10) { generator.expiry() } else { "10000".to_owned() }
}

fn set(generator: &mut Generator) -> Command {
    let key = generator.key();
    let mut draft = Draft::new(generator, key);
    if generator.one_in(3) {
        draft.flag(format!("T{}", generator.expiry()));
    }
    if generator.one_in(3) {
        draft.flag(generator.pick(&["F0", "F1", "F65535", "F4294967295"]));
    }
    if generator.one_in(3) {
        draft.flag(generator.pick(&["ME", "MA", "MP", "MR", "MS"]));
    }
    if generator.one_in(5) {
        draft.token(generator);
    }
    // Not with an opaque token that may be too long: memcached then gives the token to whatever
    // this connection stores next.
    let explicit = generator.one_in(8);
    if explicit {
        draft.flag(format!("E{}", generator.explicit_token()));
    }
    if draft.keeps_marks() && generator.one_in(6) {
        draft.flag("I");
    }
    if generator.one_in(8) {
        draft.flag(format!("N{}", generator.expiry()));
    }
    draft.some(generator, &["c", "s"]);
    if !explicit {
        draft.common(generator);
    }
    let (length, value) = generator.value(&draft.key);
    let mut command = draft.finish(generator, "ms", Some(length));
    command.pieces.extend(value);
    command.push("\r\n");
    command
}

fn delete(generator: &mut Generator) -> Command {
    let key = generator.key();
    let mut draft = Draft::new(generator, key);
    if generator.one_in(3) {
        draft.token(generator);
    }
    if draft.keeps_marks() && generator.one_in(2) {
        draft.flag("I");
    }
    if generator.one_in(4) {
        draft.flag("x");
    }
    if generator.one_in(3) {
        draft.flag(format!("T{}", generator.expiry()));
    }
    if generator.one_in(8) {
        draft.flag(format!("E{}", generator.explicit_token()));
    }
    draft.common(generator);
    draft.finish(generator, "md", None)
}

fn arithmetic(generator: &mut Generator) -> Command {
    let key = generator.number_key();
    let mut draft = Draft::new(generator, key);
    draft.some(generator, &["v", "t", "c"]);
    if generator.one_in(3) {
        draft.flag(format!("D{}", generator.delta()));
    }
    if generator.one_in(3) {
        draft.flag(generator.pick(&["MI", "M+", "MD", "M-"]));
    }
    if generator.one_in(3) {
        draft.flag(format!("N{}", generator.expiry()));
        draft.flag(format!("J{}", generator.random.u32(..2000)));
    }
    if generator.one_in(6) {
        draft.flag(format!("T{}", positive_expiry(generator)));
    }
    if generator.one_in(5) {
        draft.token(generator);
    }
    if generator.one_in(8) {
        draft.flag(format!("E{}", generator.explicit_token()));
    }
    draft.common(generator);
    let mut command = draft.finish(generator, "ma", None);
    command.traits = Traits { writes_in_place: true, ..Traits::default() };
    command
}

fn debug(generator: &mut Generator) -> Command {
    let key = generator.key();
    let mut draft = Draft::new(generator, key);
    if !draft.keeps_marks() {
        draft = Draft { key: b"none".to_vec(), sent_key: b"none".to_vec(), flags: Vec::new() };
    }
    draft.finish(generator, "me", None)
}
