//! The binary protocol at a server's sockets. Goal: it is spoken where it may be, in whatever
//! pieces frames arrive; lengths that lie hurt nobody; nothing but a right password leads to a
//! command where SASL is asked for. Method: tables of conversations with embedded servers, in one
//! piece and byte by byte. What each command answers is compared with memcached by
//! `protocol-tests`.
#![cfg(feature = "server")]

mod support;

use distcache::server::Server;
use distcache::server::config::{Config, Listener, Protocol};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use support::{PATIENCE, Users};

/// How long a server is given to say something that it should not.
const SILENCE: Duration = Duration::from_millis(100);

/// openssl passwd -6 -salt saltsalt secret
const HASHED: &str = concat!(
    "$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDe",
    "hy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1"
);

/// Extras of a set without flags and expiry.
const PLAIN: [u8; 8] = [0; 8];

fn header(opcode: u8, key_bytes: u16, extras_bytes: u8, body_bytes: u32) -> Vec<u8> {
    let mut bytes = vec![0x80, opcode];
    bytes.extend(key_bytes.to_be_bytes());
    bytes.extend([extras_bytes, 0, 0, 0]);
    bytes.extend(body_bytes.to_be_bytes());
    bytes.extend([0; 12]);
    bytes
}

fn frame(opcode: u8, extras: &[u8], key: &str, value: &[u8]) -> Vec<u8> {
    let body_bytes = (extras.len() + key.len() + value.len()) as u32;
    let mut bytes = header(opcode, key.len() as u16, extras.len() as u8, body_bytes);
    bytes.extend([extras, key.as_bytes(), value].concat());
    bytes
}

fn set(key: &str, value: &[u8]) -> Vec<u8> {
    frame(0x01, &PLAIN, key, value)
}

fn get(key: &str) -> Vec<u8> {
    frame(0x00, b"", key, b"")
}

fn noop() -> Vec<u8> {
    frame(0x0a, b"", "", b"")
}

fn login(opcode: u8, message: &str) -> Vec<u8> {
    frame(opcode, b"", "PLAIN", message.as_bytes())
}

/// Replies as text: opcode, status, then key and value if there are any.
fn shown(mut stream: &[u8]) -> String {
    let mut text = String::new();
    while let Some(header) = stream.get(..24).filter(|header| header[0] == 0x81) {
        let key_bytes = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let body_bytes = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
        let (body, rest) = stream[24..].split_at(body_bytes as usize);
        let (key, value) = body[usize::from(header[4])..].split_at(key_bytes);
        let status = u16::from_be_bytes([header[6], header[7]]);
        write!(text, "{:02x} {status:02x}", header[1]).unwrap();
        for part in [key, value].into_iter().filter(|part| !part.is_empty()) {
            write!(text, " {}", String::from_utf8_lossy(part)).unwrap();
        }
        text.push('|');
        stream = rest;
    }
    text + &String::from_utf8_lossy(stream).replace("\r\n", "|")
}

/// What the server at this address answers, as text.
fn conversation_at(address: SocketAddr, said: &[u8], bytes_at_once: usize) -> String {
    shown(&support::conversation(address, said, bytes_at_once))
}

fn conversation(server: &Server, said: &[u8]) -> String {
    conversation_at(server.addresses()[0], said, usize::MAX)
}

/// In one piece and byte by byte.
fn check(server: &Server, said: &[Vec<u8>], expected: &str) {
    let said = said.concat();
    for bytes_at_once in [usize::MAX, 1] {
        let answer = conversation_at(server.addresses()[0], &said, bytes_at_once);
        assert_eq!(answer, expected, "{bytes_at_once} at once: {}", said.escape_ascii());
    }
}

fn start(config: Config) -> Server {
    Server::start(Config { workers: 2, ..config }).unwrap()
}

fn with_sasl(users: &Users) -> Server {
    start(Config { sasl: true, auth_file: Some(users.path()), ..Config::default() })
}

fn statistic(server: &Server, name: &str) -> u64 {
    let stats = conversation(server, b"stats\r\nquit\r\n");
    let line = stats.split('|').find_map(|line| line.strip_prefix(&format!("STAT {name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {stats}")).parse().unwrap()
}

#[test]
fn the_first_byte_decides_where_both_are_spoken() {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let text = &b"set t 0 0 1\r\n1\r\nget t\r\n"[..];
    let stored = "STORED|VALUE t 0 1|1|END|";
    let binary = [set("b", b"2"), get("b")].concat();
    let (answered, closed) = ("01 00|00 00 2|", "");
    for (protocol, own, to_text, to_binary) in [
        (Protocol::Either, None, stored, answered),
        (Protocol::Text, None, stored, closed),
        (Protocol::Binary, None, closed, answered),
        (Protocol::Text, Some(Protocol::Either), stored, answered),
        (Protocol::Either, Some(Protocol::Text), stored, closed),
        (Protocol::Either, Some(Protocol::Binary), closed, answered),
    ] {
        let listeners = vec![Listener::Tcp(any)];
        let protocols = own.map(|own| (any, own)).into_iter().collect();
        let server = start(Config { protocol, protocols, listeners, ..Config::default() });
        for bytes_at_once in [usize::MAX, 1] {
            let answer = |said| conversation_at(server.addresses()[0], said, bytes_at_once);
            assert_eq!(answer(text), to_text, "{protocol:?} {own:?}");
            assert_eq!(answer(&binary), to_binary, "{protocol:?} {own:?}");
        }
    }
}

#[test]
fn a_client_of_the_other_protocol_is_closed_at_once() {
    let metrics_address = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let config = Config { protocol: Protocol::Text, metrics_address, ..Config::default() };
    let server = start(config);
    let mut stream = TcpStream::connect(server.addresses()[0]).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&[0x80]).unwrap();
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0, "without waiting for a whole frame");
    let metrics = server.metrics_address().unwrap();
    let mut scrape = TcpStream::connect(metrics).unwrap();
    scrape.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    scrape.read_to_string(&mut text).unwrap();
    assert!(text.contains("connections_protocol_closed_total 1\n"), "{text}");
}

#[test]
fn both_protocols_see_the_same_items() {
    let server = start(Config::default());
    check(&server, &[set("k", b"10"), frame(0x0e, b"", "k", b"0")], "01 00|0e 00|");
    assert_eq!(conversation(&server, b"incr k 1\r\nget k\r\n"), "101|VALUE k 0 3|101|END|");
    let mut sum = 5u64.to_be_bytes().to_vec();
    sum.extend([0; 12]);
    assert_eq!(conversation(&server, &frame(0x05, &sum, "k", b"")), "05 00 \0\0\0\0\0\0\0j|");
    check(&server, &[get("k"), get("none")], "00 00 106|00 01 Not found|");
    // Keys that no line could hold.
    let odd = "a b\r\nc\0";
    check(&server, &[set(odd, b"1"), frame(0x0c, b"", odd, b"")], &format!("01 00|0c 00 {odd} 1|"));
}

#[test]
fn quiet_commands_answer_only_what_is_not_ordinary() {
    let server = start(Config::default());
    let text = "Not found";
    check(
        &server,
        &[
            frame(0x11, &PLAIN, "q", b"1"),
            frame(0x12, &PLAIN, "q", b"2"),
            frame(0x13, &PLAIN, "none", b"2"),
            frame(0x09, b"", "none", b""),
            frame(0x0d, b"", "none", b""),
            frame(0x0d, b"", "q", b""),
            frame(0x1e, &[0; 4], "none", b""),
            frame(0x24, &[0; 4], "q", b""),
            frame(0x19, b"", "q", b"0"),
            frame(0x19, b"", "none", b"0"),
            frame(0x14, b"", "q", b""),
            frame(0x14, b"", "q", b""),
            frame(0x18, b"", "", b""),
            noop(),
            frame(0x17, b"", "", b""),
            noop(),
        ],
        &format!(
            "12 02 Data exists for key.|13 01 {text}|0d 00 q 1|24 00 q 1|19 05 Not stored.|\
             14 01 {text}|0a 00|"
        ),
    );
    check(&server, &[noop(), frame(0x07, b"", "", b""), noop()], "0a 00|07 00|");
}

/// What stands before the key.
enum Extras {
    None,
    /// Flags, and no expiry.
    Stored,
    Expiry,
    /// What is added or taken off, and whether a number that is missing is made (of 7).
    Sum(u64, bool),
}

impl Extras {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::None => Vec::new(),
            Self::Stored => [0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 0].into(),
            Self::Expiry => 100u32.to_be_bytes().into(),
            Self::Sum(delta, creates) => {
                let expiry = if *creates { 0 } else { u32::MAX };
                let numbers = [delta.to_be_bytes(), 7u64.to_be_bytes()].concat();
                [&numbers[..], &expiry.to_be_bytes()].concat()
            }
        }
    }
}

/// A token that no item has.
const STALE: u64 = 0xffff_ffff_ffff;

/// Opcode, extras, key, value and token of a request; its answer, if there is one: status, extras,
/// key, value, and whether there is a token. One after the other, as memcached 1.6.18 answers them.
#[rustfmt::skip]
const OUTCOMES: &[(u8, Extras, &str, &str, u64, &str)] = &[
    (0x01, Extras::Stored, "k", "5", 0, "00 token"),
    (0x01, Extras::Stored, "k", "6", STALE, "02 Data exists for key."),
    (0x01, Extras::Stored, "none", "6", STALE, "01 Not found"),
    (0x02, Extras::Stored, "k", "7", 0, "02 Data exists for key."),
    (0x02, Extras::Stored, "new", "7", 0, "00 token"),
    (0x02, Extras::Stored, "new", "7", STALE, "02 Data exists for key."),
    (0x03, Extras::Stored, "k", "8", 0, "00 token"),
    (0x03, Extras::Stored, "none", "8", 0, "01 Not found"),
    (0x03, Extras::Stored, "none", "8", STALE, "01 Not found"),
    (0x11, Extras::Stored, "k", "9", 0, "-"),
    (0x11, Extras::Stored, "k", "9", STALE, "02 Data exists for key."),
    (0x12, Extras::Stored, "k", "9", 0, "02 Data exists for key."),
    (0x12, Extras::Stored, "newq", "1", 0, "-"),
    (0x13, Extras::Stored, "k", "10", 0, "-"),
    (0x13, Extras::Stored, "none", "10", 0, "01 Not found"),
    (0x00, Extras::None, "k", "", 0, "00 deadbeef 10 token"),
    (0x00, Extras::None, "none", "", 0, "01 Not found"),
    (0x09, Extras::None, "k", "", 0, "00 deadbeef 10 token"),
    (0x09, Extras::None, "none", "", 0, "-"),
    (0x0c, Extras::None, "k", "", 0, "00 deadbeef k 10 token"),
    (0x0c, Extras::None, "none", "", 0, "01 none"),
    (0x0d, Extras::None, "k", "", 0, "00 deadbeef k 10 token"),
    (0x0d, Extras::None, "none", "", 0, "-"),
    (0x1d, Extras::Expiry, "k", "", 0, "00 deadbeef 10 token"),
    (0x1d, Extras::Expiry, "none", "", 0, "01 Not found"),
    (0x1e, Extras::Expiry, "k", "", 0, "00 deadbeef 10 token"),
    (0x1e, Extras::Expiry, "none", "", 0, "-"),
    (0x23, Extras::Expiry, "k", "", 0, "00 deadbeef k 10 token"),
    (0x23, Extras::Expiry, "none", "", 0, "01 none"),
    (0x24, Extras::Expiry, "k", "", 0, "00 deadbeef k 10 token"),
    (0x24, Extras::Expiry, "none", "", 0, "-"),
    (0x1c, Extras::Expiry, "k", "", 0, "00 deadbeef token"),
    (0x1c, Extras::Expiry, "none", "", 0, "01 Not found"),
    (0x0e, Extras::None, "k", "a", 0, "00 token"),
    (0x0e, Extras::None, "none", "a", 0, "05 Not stored."),
    (0x0e, Extras::None, "k", "a", STALE, "02 Data exists for key."),
    (0x0f, Extras::None, "k", "b", 0, "00 token"),
    (0x0f, Extras::None, "none", "b", 0, "05 Not stored."),
    (0x0f, Extras::None, "k", "b", STALE, "02 Data exists for key."),
    (0x19, Extras::None, "k", "c", 0, "-"),
    (0x19, Extras::None, "none", "c", 0, "05 Not stored."),
    (0x1a, Extras::None, "k", "d", 0, "-"),
    (0x1a, Extras::None, "none", "d", 0, "05 Not stored."),
    (0x00, Extras::None, "k", "", 0, "00 deadbeef db10ac token"),
    (0x05, Extras::Sum(3, true), "n", "", 0, "00 7 token"),
    (0x05, Extras::Sum(3, true), "n", "", 0, "00 10 token"),
    (0x05, Extras::Sum(3, true), "n", "", STALE, "02 Data exists for key."),
    (0x05, Extras::Sum(3, false), "none", "", 0, "01 Not found"),
    (0x05, Extras::Sum(3, true), "k", "", 0, "06 Non-numeric server-side value for incr or decr"),
    (0x06, Extras::Sum(4, true), "n", "", 0, "00 6 token"),
    (0x06, Extras::Sum(40, true), "n", "", 0, "00 0 token"),
    (0x06, Extras::Sum(4, true), "m", "", 0, "00 7 token"),
    (0x06, Extras::Sum(3, false), "none", "", 0, "01 Not found"),
    (0x06, Extras::Sum(3, true), "k", "", 0, "06 Non-numeric server-side value for incr or decr"),
    (0x15, Extras::Sum(3, true), "n", "", 0, "-"),
    (0x15, Extras::Sum(3, false), "none", "", 0, "01 Not found"),
    (0x15, Extras::Sum(3, true), "k", "", 0, "06 Non-numeric server-side value for incr or decr"),
    (0x16, Extras::Sum(1, true), "n", "", 0, "-"),
    (0x16, Extras::Sum(3, false), "none", "", 0, "01 Not found"),
    (0x16, Extras::Sum(3, true), "k", "", 0, "06 Non-numeric server-side value for incr or decr"),
    (0x00, Extras::None, "n", "", 0, "00 00000000 2  token"),
    (0x04, Extras::None, "k", "", STALE, "02 Data exists for key."),
    (0x04, Extras::None, "k", "", 0, "00"),
    (0x04, Extras::None, "k", "", 0, "01 Not found"),
    (0x14, Extras::None, "new", "", STALE, "02 Data exists for key."),
    (0x14, Extras::None, "new", "", 0, "-"),
    (0x14, Extras::None, "new", "", 0, "01 Not found"),
    (0x20, Extras::None, "", "", 0, "81 Unknown command"),
    (0x21, Extras::None, "PLAIN", "\0a\0b", 0, "81 Unknown command"),
    (0x22, Extras::None, "PLAIN", "\0a\0b", 0, "81 Unknown command"),
    (0x1f, Extras::None, "", "", 0, "81 Unknown command"),
    (0x0a, Extras::None, "", "", 0, "00"),
    (0x08, Extras::None, "", "", 0, "00"),
    (0x00, Extras::None, "n", "", 0, "01 Not found"),
    (0x08, Extras::Expiry, "", "", 0, "00"),
    (0x18, Extras::None, "", "", 0, "-"),
    (0x18, Extras::Expiry, "", "", 0, "-"),
    (0x10, Extras::None, "nonsense", "", 0, "01 Not found"),
];

/// Every opcode with everything that may come of it, loud and quiet, bit for bit.
#[test]
fn what_each_opcode_answers() {
    let server = start(Config::default());
    let mut said = Vec::new();
    for (opaque, (opcode, extras, key, value, token, _)) in (1u32..).zip(OUTCOMES) {
        let mut bytes = frame(*opcode, &extras.bytes(), key, value.as_bytes());
        bytes[12..16].copy_from_slice(&opaque.to_be_bytes());
        bytes[16..24].copy_from_slice(&token.to_be_bytes());
        said.push(bytes);
    }
    said.push(noop());
    let mut stream = TcpStream::connect(server.addresses()[0]).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&said.concat()).unwrap();
    let mut answers = read_frame(&mut stream);
    for (opaque, (opcode, extras, key, _, token, expected)) in (1u32..).zip(OUTCOMES) {
        let what = format!("{opcode:#04x} {} {key} {token}", extras.bytes().escape_ascii());
        let is_its = answers.0[12..16] == opaque.to_be_bytes();
        assert_eq!(is_its, *expected != "-", "{what}: {answers:?}");
        if is_its {
            assert_eq!(told(&answers.0, &answers.1, *opcode), *expected, "{what}");
            answers = read_frame(&mut stream);
        }
    }
    assert_eq!(answers.0[..2], [0x81, 0x0a], "nothing is left over");
}

fn read_frame(stream: &mut TcpStream) -> ([u8; 24], Vec<u8>) {
    let mut header = [0; 24];
    stream.read_exact(&mut header).unwrap();
    let length = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
    let mut body = vec![0; length as usize];
    stream.read_exact(&mut body).unwrap();
    (header, body)
}

/// All of an answer as [`OUTCOMES`] has it.
fn told(header: &[u8; 24], body: &[u8], opcode: u8) -> String {
    assert_eq!((header[0], header[1], header[5], header[6]), (0x81, opcode, 0, 0));
    let (extras, rest) = body.split_at(usize::from(header[4]));
    let (key, value) = rest.split_at(usize::from(u16::from_be_bytes([header[2], header[3]])));
    let mut words = vec![format!("{:02x}", header[7])];
    if !extras.is_empty() {
        words.push(extras.iter().map(|byte| format!("{byte:02x}")).collect());
    }
    match <[u8; 8]>::try_from(value) {
        Ok(number) if matches!(opcode, 0x05 | 0x06) => {
            words.push(u64::from_be_bytes(number).to_string());
        }
        _ => {
            let parts = [key, value].into_iter().filter(|part| !part.is_empty());
            words.extend(parts.map(|part| String::from_utf8_lossy(part).into_owned()));
        }
    }
    if header[16..] != [0; 8] {
        words.push("token".into());
    }
    words.join(" ")
}

/// Full, and nothing may leave (`-M`).
#[test]
fn a_full_server_says_so() {
    let server = start(Config { memory_bytes_max: 8 << 20, evict: false, ..Config::default() });
    let value = vec![b'v'; 500_000];
    let sets: Vec<Vec<u8>> = (0..30).map(|at| set(&format!("key{at}"), &value)).collect();
    let answer = conversation(&server, &[sets.concat(), noop()].concat());
    assert!(answer.starts_with("01 00|"), "{answer}");
    assert!(answer.ends_with("01 82 Out of memory allocating item|0a 00|"), "{answer}");
    let large = vec![b'v'; 500_000];
    let quiet = frame(0x11, &PLAIN, "more", &large);
    check(&server, &[quiet, noop()], "11 82 Out of memory allocating item|0a 00|");
    // Small items, until there is room for none.
    let sum = Extras::Sum(1, true).bytes();
    let refused = (0..200).find_map(|batch| {
        let number = |at| frame(0x15, &sum, &format!("{batch}-{at:0240}"), b"");
        let numbers: Vec<Vec<u8>> = (0..500).map(number).collect();
        let answer = conversation(&server, &numbers.concat());
        (!answer.is_empty()).then_some(answer)
    });
    let refused = refused.expect("full at last");
    assert!(refused.ends_with("15 82 Out of memory allocating new item|"), "{refused}");
}

/// Lengths at their ends, and bodies that do not come. Each closes the connection or is answered;
/// none holds up others or makes the server keep what was only announced.
#[test]
fn lengths_that_lie() {
    let server = start(Config { item_bytes_max: 1024, ..Config::default() });
    let unknown = "01 81 Unknown command|";
    let invalid = "01 04 Invalid arguments|";
    let large = vec![b'x'; 5000];
    for (said, expected) in [
        (vec![header(0x01, 0, 0, 0), noop()], invalid),
        (vec![header(0x01, 1, 0, 0), noop()], unknown),
        (vec![header(0x01, 10, 8, 9), noop()], unknown),
        (vec![header(0x01, 1, 255, 200), noop()], unknown),
        (vec![header(0x01, 0, 200, 199), noop()], unknown),
        (vec![header(0x01, 65535, 255, 65790), noop()], invalid),
        (vec![header(0x01, 1, 8, 1 << 31), noop()], invalid),
        (vec![header(0x01, 1, 8, (1 << 31) - 1), noop()], invalid),
        (vec![header(0x01, 1, 8, u32::MAX), noop()], invalid),
        // Not all of the key, or of the value, before the end.
        (vec![header(0x01, 3, 8, 20), b"\0\0\0\0\0\0\0\0k".to_vec()], ""),
        (vec![header(0x01, 1, 8, 20), b"\0\0\0\0\0\0\0\0k12345".to_vec()], ""),
        (vec![header(0x00, 3, 0, 3)], ""),
        (vec![b"\x80".to_vec()], ""),
        // Swallowed, and on it goes.
        (vec![set("k", &large), noop()], "01 03 Too large.|0a 00|"),
        (vec![frame(0x11, &PLAIN, "k", &large), noop()], "11 03 Too large.|0a 00|"),
        (vec![frame(0x40, b"extra", "key", b"value"), noop()], "40 81 Unknown command|0a 00|"),
        (vec![frame(0x21, b"", "PLAIN", b"\0a\0b"), noop()], "21 81 Unknown command|0a 00|"),
        // What follows is no frame.
        (vec![noop(), b"version\r\n".to_vec(), noop()], "0a 00|"),
        (vec![get("k"), vec![0x81; 24], noop()], "00 01 Not found|"),
    ] {
        check(&server, &said, expected);
    }
    // A gibibyte that is announced and does not come takes no room from others.
    let waiting: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = TcpStream::connect(server.addresses()[0]).unwrap();
            stream.write_all(&header(0x01, 1, 8, 1 << 30)).unwrap();
            stream
        })
        .collect();
    check(&server, &[set("k", b"1"), get("k")], "01 00|00 00 1|");
    drop(waiting);
}

#[test]
fn a_value_too_large_takes_what_a_set_would_have_replaced() {
    let server = start(Config { item_bytes_max: 1024, ..Config::default() });
    let large = vec![b'x'; 5000];
    for (opcode, stays) in [(0x01, false), (0x11, false), (0x02, true), (0x03, true), (0x0e, true)]
    {
        let extras = if opcode == 0x0e { &b""[..] } else { &PLAIN };
        let said = [set("k", b"old"), frame(opcode, extras, "k", &large), get("k")].concat();
        let expected = if stays { "00 00 old" } else { "00 01 Not found" };
        let expected = format!("01 00|{opcode:02x} 03 Too large.|{expected}|");
        assert_eq!(conversation(&server, &said), expected);
    }
}

/// 16 MiB of quiet sets in one go, without a reply to any: nothing waits to be sent.
#[test]
fn a_flood_of_quiet_sets() {
    let server = start(Config::default());
    let mut stream = TcpStream::connect(server.addresses()[0]).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let sets = 16 << 10;
    let value = vec![b'v'; 1000];
    for number in 0..sets {
        stream.write_all(&frame(0x11, &PLAIN, &format!("key{number}"), &value)).unwrap();
    }
    stream.write_all(&noop()).unwrap();
    let mut answer = [0; 24];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(shown(&answer), "0a 00|");
    assert_eq!(statistic(&server, "cmd_set"), sets);
    assert_eq!(statistic(&server, "curr_items"), sets);
}

#[test]
fn statistics_of_every_kind() {
    let server = start(Config::default());
    let stat = |what: &str| conversation(&server, &frame(0x10, b"", what, b""));
    for (what, part) in [
        ("", "10 00 pid "),
        ("", "10 00 version 1.6."),
        ("settings", "10 00 binding_protocol auto-negotiate|"),
        ("items", "10 00|"),
        ("slabs", "10 00 active_slabs "),
        ("conns", "10 00 "),
        ("sizes", "10 00 sizes_status disabled|"),
        ("detail on", "10 00|"),
        ("detail dump", "10 00|"),
        ("reset", "10 00|"),
    ] {
        let said = stat(what);
        assert!(said.contains(part) && said.ends_with("10 00|"), "{what}: {said}");
    }
    for unknown in ["nothing", "detail", "detail x", "\r\nstats", "items\0"] {
        assert_eq!(stat(unknown), "10 01 Not found|", "{unknown:?}");
    }
    assert_eq!(conversation(&server, &set("pre:k", b"1")), "01 00|");
    let prefixes = stat("detail dump");
    assert!(
        prefixes.starts_with("10 00 detailed PREFIX pre get 0 hit 0 set 1 del 0"),
        "{prefixes}"
    );
    let frames = stat("").matches("10 00").count();
    let lines = conversation(&server, b"stats\r\nquit\r\n").matches("STAT ").count();
    assert_eq!(frames, lines + 1, "the same statistics, and an end");
}

#[test]
fn what_is_switched_off() {
    let server = start(Config { flush: false, cas: false, ..Config::default() });
    let refused = "08 20 Auth failure.|";
    check(&server, &[frame(0x08, b"", "", b"")], refused);
    let mut token = set("k", b"1");
    token[23] = 1;
    check(&server, &[set("k", b"1"), token], "01 00|01 02 Data exists for key.|");
}

/// Nothing is done before a login, and the login is memcached's (1.6.45, observed).
#[test]
fn logins() {
    let no = "20 Auth failure.|";
    let right = || login(0x21, "\0bob\0secret");
    let wrong = || login(0x21, "\0bob\0wrong");
    let long = frame(0x21, b"", &"M".repeat(33), b"x");
    let guess = format!("\0bob\0{}", "x".repeat(4000));
    let longer = format!("\0bob\0{}", "x".repeat(5000));
    let table: Vec<(Vec<Vec<u8>>, String)> = vec![
        (vec![get("k"), noop()], format!("00 {no}")),
        (vec![noop(), noop()], format!("0a {no}")),
        (vec![set("k", b"1"), noop()], format!("01 {no}")),
        (vec![frame(0x11, &PLAIN, "k", b"1"), noop()], format!("11 {no}")),
        (vec![frame(0x10, b"", "", b"")], format!("10 {no}")),
        (vec![frame(0x07, b"", "", b"")], format!("07 {no}")),
        (vec![frame(0x40, b"", "", b"")], format!("40 {no}")),
        (vec![frame(0x20, b"", "", b"")], "20 00 PLAIN|".into()),
        (vec![right(), noop()], "21 00 Authenticated|0a 00|".into()),
        (vec![wrong(), noop()], format!("21 {no}0a {no}")),
        (vec![wrong(), right(), noop()], format!("21 {no}21 00 Authenticated|0a 00|")),
        (vec![login(0x21, "\0nobody\0secret")], format!("21 {no}")),
        (vec![login(0x21, "bob\0bob\0secret")], "21 00 Authenticated|".into()),
        (vec![login(0x21, "al\0bob\0secret")], format!("21 {no}")),
        (vec![login(0x21, "\0bob\0secret\0")], format!("21 {no}")),
        (vec![login(0x21, "bob secret")], format!("21 {no}")),
        (vec![frame(0x21, b"", "CRAM-MD5", b"")], format!("21 {no}")),
        (
            vec![login(0x21, ""), login(0x22, "\0bob\0secret"), noop()],
            "21 21|22 00 Authenticated|0a 00|".into(),
        ),
        (
            vec![login(0x21, ""), login(0x22, "\0bob\0wrong"), noop()],
            format!("21 21|22 {no}0a {no}"),
        ),
        // A step that nothing was started for (CVE-2013-7239 kept what a failure should end).
        (vec![login(0x22, "\0bob\0secret"), noop()], format!("22 {no}0a {no}")),
        (vec![right(), wrong(), noop()], format!("21 00 Authenticated|21 {no}0a {no}")),
        (
            vec![right(), login(0x22, "\0bob\0secret"), noop()],
            format!("21 00 Authenticated|22 {no}0a {no}"),
        ),
        (
            vec![right(), long.clone(), noop()],
            format!("21 00 Authenticated|21 04 Invalid arguments|0a {no}"),
        ),
        (vec![login(0x21, &guess), right(), noop()], format!("21 {no}21 00 Authenticated|0a 00|")),
        (vec![login(0x21, &longer), right(), noop()], format!("21 {no}21 00 Authenticated|0a 00|")),
        (vec![header(0x21, 5, 0, 1 << 29), b"PLAIN".to_vec()], format!("21 {no}")),
        (vec![frame(0x21, b"", "", b"x"), noop()], "21 04 Invalid arguments|".into()),
        (vec![right(), set("k", b"1"), get("k")], "21 00 Authenticated|01 00|00 00 1|".into()),
    ];
    for users in ["bob:secret\nal:x\n", &format!("al:x\nbob:{HASHED}\n")] {
        let users = Users::new(users);
        let server = with_sasl(&users);
        for (said, expected) in &table {
            check(&server, said, expected);
        }
        let version = conversation(&server, &frame(0x0b, b"", "", b""));
        assert!(version.starts_with("0b 00 1.6."), "{version}");
        // Text has its own login, with the same users.
        let text = conversation(&server, b"get a\r\nset a 0 0 10\r\nbob secret\r\nget a\r\n");
        assert_eq!(text, "CLIENT_ERROR unauthenticated|STORED|END|");
    }
}

#[test]
fn users_of_memcacheds_own_file() {
    let users = Users::new("bob:secret:1000\n");
    let config = Config { sasl: true, sasl_file: Some(users.path()), ..Config::default() };
    let server = start(config);
    check(&server, &[login(0x21, "\0bob\0secret"), noop()], "21 00 Authenticated|0a 00|");
    check(&server, &[login(0x21, "\0bob\0secret:1000"), noop()], "21 00 Authenticated|0a 00|");
    check(
        &server,
        &[login(0x21, "\0bob\0secret:"), noop()],
        "21 20 Auth failure.|0a 20 Auth failure.|",
    );
    assert_eq!(conversation(&server, b"version\r\n"), "", "text clients could not log in");
}

#[test]
fn without_sasl_there_is_none() {
    let users = Users::new("bob:secret\n");
    let server = start(Config { auth_file: Some(users.path()), ..Config::default() });
    assert_eq!(conversation(&server, &login(0x21, "\0bob\0secret")), "", "-Y is for text alone");
    let server = start(Config::default());
    check(&server, &[frame(0x20, b"", "", b""), noop()], "20 81 Unknown command|0a 00|");
    let broken = Users::new("bob\n");
    let refused =
        Server::start(Config { sasl: true, sasl_file: Some(broken.path()), ..Config::default() });
    let Err(why) = refused else { panic!("a file that is no file of users") };
    assert!(why.to_string().contains("MEMCACHED_SASL_PWDB"), "{why}");
}

/// CVE-2026-47783: the time that a wrong user took told which users there are. Hashing dwarfs all
/// else, and is done whether or not there is such a user.
#[test]
fn a_user_there_is_not_takes_as_long_as_a_wrong_password() {
    let users = Users::new(&format!("bob:{HASHED}\n"));
    let server = with_sasl(&users);
    let time = |message: &str| {
        let start = Instant::now();
        assert_eq!(conversation(&server, &login(0x21, message)), "21 20 Auth failure.|");
        start.elapsed()
    };
    // A busy machine makes some take long; without a hash, none would take as long as one with.
    let mut shortest = [PATIENCE; 2];
    for _ in 0..100 {
        for (shortest, message) in shortest.iter_mut().zip(["\0bob\0wrong!", "\0eve\0wrong!"]) {
            *shortest = time(message).min(*shortest);
        }
        let [there, not_there] = shortest;
        if there < not_there * 2 && not_there < there * 2 {
            return;
        }
    }
    panic!("{shortest:?}");
}

#[test]
fn a_server_says_nothing_before_a_frame_is_whole() {
    let server = start(Config::default());
    let mut stream = TcpStream::connect(server.addresses()[0]).unwrap();
    let whole = [set("k", b"value"), noop()].concat();
    let (first, rest) = whole.split_at(set("k", b"value").len() - 1);
    stream.write_all(first).unwrap();
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    let silent = stream.read(&mut [0; 1]).unwrap_err().kind();
    assert!(matches!(silent, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{silent:?}");
    stream.write_all(rest).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answers = [0; 48];
    stream.read_exact(&mut answers).unwrap();
    assert_eq!(shown(&answers), "01 00|0a 00|");
}

/// What watchers are told does not depend on the protocol.
#[test]
fn watchers_see_no_difference() {
    let server = start(Config::default());
    let mut watcher = TcpStream::connect(server.addresses()[0]).unwrap();
    watcher.set_read_timeout(Some(PATIENCE)).unwrap();
    watcher.write_all(b"watch mutations deletions\r\n").unwrap();
    watcher.read_exact(&mut [0; 4]).unwrap();
    let mut stale = set("k", b"4");
    stale[23] = 1;
    let mut number = 5u64.to_be_bytes().to_vec();
    number.extend([0; 12]);
    let said = [
        set("k", b"1"),
        frame(0x11, &PLAIN, "k", b"2"),
        frame(0x02, &PLAIN, "k", b"3"),
        frame(0x13, &PLAIN, "none", b"3"),
        stale,
        frame(0x19, b"", "none", b"4"),
        frame(0x05, &number, "n", b""),
        frame(0x14, b"", "k", b""),
        frame(0x04, b"", "none", b""),
    ];
    conversation(&server, &said.concat());
    let mut lines = Vec::new();
    for line in BufReader::new(watcher).lines() {
        let line = line.unwrap();
        let words = |name: &str| {
            let word = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            word.unwrap_or("-").to_owned()
        };
        lines.push([words("key"), words("type"), words("status"), words("cmd")].join(" "));
        if lines.len() == 8 {
            break;
        }
    }
    // Of one key they come in order; of others, as their shards are asked.
    lines.sort_by_key(|line| line.split(' ').next().map(str::to_owned));
    assert_eq!(
        lines,
        [
            "k item_store stored set",
            "k item_store stored set",
            "k item_store not_stored add",
            "k item_store exists cas",
            "k deleted - delete",
            "n item_store stored add",
            "none item_store not_stored replace",
            "none item_store not_stored append",
        ]
    );
}
