//! Random requests that are wrong, and data blocks that do not end where their length says.
//!
//! Every one is isolated by sentinels: its replies, and how many there are, differ between
//! versions.
//! Junk that a server may take for a command starts with `z`, which no command does.

use super::command::{Command, Piece, Traits};
use super::generator::Generator;

const ISOLATED: Traits =
    Traits { isolated: true, reads: false, writes_in_place: false, closes: false };

/// A wrong line, with a data block where the line announces one.
pub(super) fn command(generator: &mut Generator) -> Command {
    let mut command = match generator.random.u32(..8) {
        0 => unknown(generator),
        1 => too_few_words(generator),
        2 => long_key(generator),
        3 => wrong_length(generator),
        4 => wrong_number(generator),
        5 => many_words(generator),
        6 => delete_with_delay(generator),
        _ => junk(generator),
    };
    command.traits = ISOLATED;
    command
}

fn unknown(generator: &mut Generator) -> Command {
    Command::new(generator.pick(&[
        "zget k\r\n",
        "GET k\r\n",
        "gett k\r\n",
        "zz noreply\r\n",
        "zz with words noreply\r\n",
        "mz k\r\n",
        "zz\r\n",
        "z\r\n",
        "\r\n",
        "\n",
        "zz\n",
        "    \r\n",
        " get none\r\n",
        "  mg none\r\n",
        "HTTP/1.1 zz\r\n",
    ]))
}

fn too_few_words(generator: &mut Generator) -> Command {
    let verb = generator.pick(&[
        "get", "gets", "gat", "gats", "set", "add", "replace", "append", "prepend", "cas",
        "delete", "incr", "decr", "touch", "mg", "ms", "md", "ma", "me",
    ]);
    let rest = match verb {
        "gat" | "gats" => generator.pick(&["", " 0"]),
        "incr" | "decr" | "touch" => generator.pick(&["", " k", " k noreply"]),
        "set" | "add" | "replace" | "append" | "prepend" | "cas" => {
            generator.pick(&["", " k", " k 0", " k 0 0", " k 0 noreply"])
        }
        "ms" => generator.pick(&["", " k"]),
        _ => "",
    };
    Command::new(format!("{verb}{rest}\r\n"))
}

fn long_key(generator: &mut Generator) -> Command {
    let key = "z".repeat(generator.random.usize(251..400));
    let verb = generator.pick(&[
        "get", "gets", "gat 0", "delete", "incr", "touch", "mg", "md", "ma", "me", "set", "append",
        "ms", "get none",
    ]);
    Command::new(match verb {
        "incr" | "touch" => format!("{verb} {key} 1\r\n"),
        "set" | "append" => format!("{verb} {key} 0 0 4\r\nzzzz\r\n"),
        "ms" => format!("ms {key} 4\r\nzzzz\r\n"),
        _ => format!("{verb} {key}\r\n"),
    })
}

/// Lengths that are refused at once; what would be the data is then a command.
fn wrong_length(generator: &mut Generator) -> Command {
    let length = generator.pick(&["-1", "x", "1x", "-2147483648", "z", "1.0", "--1"]);
    let verb = generator.pick(&["set", "add", "replace", "append", "prepend", "cas", "ms"]);
    let key = String::from_utf8_lossy(&generator.number_key()).into_owned();
    let noreply = if generator.one_in(4) { " noreply" } else { "" };
    let line = match verb {
        "ms" => format!("ms {key} {length}\r\nzzzz\r\n"),
        "cas" => format!("cas {key} 0 0 {length} 1{noreply}\r\nzzzz\r\n"),
        _ => format!("{verb} {key} 0 0 {length}{noreply}\r\nzzzz\r\n"),
    };
    Command { keys: vec![key.into_bytes()], ..Command::new(line) }
}

/// Other numbers that are refused; the data block is swallowed.
fn wrong_number(generator: &mut Generator) -> Command {
    let wrong = generator.pick(&["x", "1x", "", "99999999999999999999", "1.0"]);
    let wrong = if wrong.is_empty() { "z" } else { wrong };
    let noreply = if generator.one_in(4) { " noreply" } else { "" };
    let key = String::from_utf8_lossy(&generator.number_key()).into_owned();
    let line = match generator.random.u32(..9) {
        0 => format!("set {key} {wrong} 0 4{noreply}\r\nzzzz\r\n"),
        1 => format!("add {key} 0 {wrong} 4{noreply}\r\nzzzz\r\n"),
        2 => format!("cas {key} 0 0 4 {wrong}{noreply}\r\nzzzz\r\n"),
        3 => format!("touch {key} {wrong}{noreply}\r\n"),
        4 => format!("gat {wrong} {key}\r\n"),
        5 => format!("incr {key} {wrong}{noreply}\r\n"),
        6 => format!("set {key} 4294967296 0 4{noreply}\r\nzzzz\r\n"),
        7 => format!("append {key} -1 0 4{noreply}\r\nzzzz\r\n"),
        _ => format!("touch {key} 4294967296{noreply}\r\n"),
    };
    Command { keys: vec![key.into_bytes()], ..Command::new(line) }
}

fn many_words(generator: &mut Generator) -> Command {
    let words = " z".repeat(generator.random.usize(1..40));
    let verb = generator.pick(&["zz", "mg k", "version", "mn", "touch none 0", "incr none 1"]);
    let sentinels = usize::from(verb == "mn");
    Command { sentinels, ..Command::new(format!("{verb}{words}\r\n")) }
}

fn delete_with_delay(generator: &mut Generator) -> Command {
    let delay = generator.pick(&["10", "-1", "x", "0 0", "noreply 0", "10 noreply"]);
    generator.with_key("delete", &format!(" {delay}\r\n"))
}

/// Arbitrary bytes in one line, short enough not to be taken for an attack.
fn junk(generator: &mut Generator) -> Command {
    let length = generator.random.usize(..200);
    let mut line = b"zz".to_vec();
    line.extend((0..length).map(|_| match generator.random.u8(..) {
        b'\n' => b' ',
        byte => byte,
    }));
    line.extend_from_slice(b" z\r\n");
    Command::new(line)
}

/// A data block that is longer or shorter than announced. When it is longer, what is left is a line
/// of `z`; when it is shorter, it takes the lines of `z` that follow.
pub(super) fn bad_data(generator: &mut Generator) -> Command {
    let key = generator.key();
    let announced = generator.random.usize(..200);
    let noreply = if generator.one_in(5) { " noreply" } else { "" };
    let verb = generator.pick(&["set", "set", "add", "replace", "append", "prepend", "cas", "ms"]);
    let mut command = Command::new(format!("{verb} "));
    command.push(&key);
    command.push(match verb {
        "ms" => format!(" {announced}{}\r\n", generator.pick(&["", " q", " c k", " O1"])),
        "cas" => format!(" 0 0 {announced} 1{noreply}\r\n"),
        _ => format!(" 0 0 {announced}{noreply}\r\n"),
    });
    if generator.one_in(2) {
        // At least four bytes more than the block and its line end.
        let extra = generator.random.usize(6..50);
        command.pieces.push(Piece::Run(b'z', announced + extra));
        command.push("\r\n");
    } else {
        let sent = generator.random.usize(..=announced);
        command.pieces.push(Piece::Run(b'z', sent));
        command.push("\r\nzzzz\r\n");
        // Fill up to the announced end, then one more line that is a command of its own.
        let missing = (announced + 2).saturating_sub(sent + 8);
        command.pieces.push(Piece::Run(b'z', missing));
        command.push("zzzz\r\n");
    }
    if verb == "ms" {
        // memcached gives the token of a failed ms to what this connection stores next.
        command.push("set zzzz 0 0 0 noreply\r\n\r\n");
    }
    command.keys.push(key);
    command.traits = ISOLATED;
    command
}
