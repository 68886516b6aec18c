//! Logging in with `-Y`. Goal: nothing but a right password leads to a command, in every state that
//! a connection can be in before, and the lines are memcached's (1.6.45, observed). Method: a table
//! of conversations with an embedded server, for files of plain and of hashed passwords, in one
//! piece and byte by byte.

#![cfg(feature = "server")]

mod support;

use distcache::server::config::Config;
use distcache::server::{Server, StartError};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use support::{PATIENCE, Users};

/// openssl passwd -6 -salt saltsalt secret
const HASHED: &str = concat!(
    "$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDe",
    "hy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1"
);

fn server(users: &Users) -> Result<Server, StartError> {
    Server::start(Config { workers: 2, auth_file: Some(users.path()), ..Config::default() })
}

/// What the server answers, with `|` for line ends.
fn conversation(server: &Server, said: &[u8], bytes_at_once: usize) -> String {
    let answer = support::conversation(server.addresses()[0], said, bytes_at_once);
    String::from_utf8_lossy(&answer).replace("\r\n", "|")
}

#[test]
fn every_state_before_the_login() {
    let no = "CLIENT_ERROR unauthenticated|";
    let wrong = "CLIENT_ERROR authentication failure|";
    let form = "CLIENT_ERROR bad authentication token format|";
    let long_key = format!("set {} 0 0 10\r\nbob secret\r\n", "k".repeat(300));
    let no_space = format!("set a 0 0 4000\r\n{}\r\nversion\r\n", "x".repeat(4000));
    let long = format!("set a 0 0 300\r\nbob {}\r\n", "x".repeat(296));
    let junk = "x".repeat(3000);
    let list = format!("get {junk}");
    let table: &[(&str, String)] = &[
        ("get a\r\nversion\r\nstats\r\n", no.repeat(3)),
        ("set a 0 0 10\r\nbob secret\r\nget a\r\nmn\r\n", "STORED|END|MN|".into()),
        ("set a 0 0 10 noreply\r\nbob secret\r\nget a\r\n", "STORED|END|".into()),
        ("set a x y 10\r\nbob secret\r\nget a\r\n", "STORED|END|".into()),
        (&long_key, "STORED|".into()),
        ("set a 0 0 9\r\nbob wrong\r\nget a\r\n", format!("{wrong}{no}")),
        ("set a 0 0 9\r\nbob wrong\r\nset a 0 0 10\r\nbob secret\r\n", format!("{wrong}STORED|")),
        ("set a 0 0 8\r\nal pa:ss\r\nget a\r\n", "STORED|END|".into()),
        ("set a 0 0 13\r\nnobody secret\r\n", wrong.into()),
        ("set a 0 0 3\r\nbob\r\n", form.into()),
        ("set a 0 0 0\r\n\r\n", form.into()),
        ("set a 0 0 16\r\nbob secret extra\r\n", wrong.into()),
        ("set a 0 0 12\r\nbob  secret \r\n", wrong.into()),
        ("set a 0 0 7\r\n secret\r\n", wrong.into()),
        ("set a 0 0 4\r\nbob \r\n", wrong.into()),
        (
            "set a 0 0 10\r\nbob secretXXget a\r\n",
            format!("CLIENT_ERROR bad command line termination|{no}"),
        ),
        ("set a 0 0 x\r\nset a 0 0 -1\r\nset a 0 0\r\n", no.repeat(3)),
        ("set a 0 0 99999999999\r\n", no.into()),
        ("set a 0 0 4294967295\r\nversion\r\n", format!("CLIENT_ERROR auth token too long|{no}")),
        (&no_space, format!("{form}{no}")),
        (&long, wrong.into()),
        ("add a 0 0 10\r\nbob secret\r\n", no.repeat(2)),
        ("ms a 10\r\nbob secret\r\n", no.repeat(2)),
        (" set a 0 0 10\r\nbob secret\r\n", no.repeat(2)),
        ("set a 0 0 10\nbob secret\r\n", no.repeat(2)),
        ("shutdown\r\nflush_all\r\nwatch mutations\r\n", no.repeat(3)),
        ("lru_crawler metadump all\r\nversion HTTP/1.1\r\n", no.repeat(2)),
        ("quit\r\nversion\r\n", String::new()),
        ("x\r\nversion\r\n", String::new()),
        ("ab\r\nversion\r\n", String::new()),
        ("abcd\nversion\r\n", String::new()),
        (&junk, String::new()),
        (&list, String::new()),
        ("set a 0 0 10\r\nbob secre", String::new()),
        (
            "set a 0 0 10\r\nbob secret\r\nset a 0 0 9\r\nbob wrong\r\nget a\r\n",
            "STORED|STORED|VALUE a 0 9|bob wrong|END|".into(),
        ),
    ];
    for users in ["bob:secret\nal:pa:ss\n", &format!("bob:{HASHED}\nal:pa:ss\n")] {
        let file = Users::new(users);
        let server = server(&file).unwrap();
        for (said, expected) in table {
            for bytes_at_once in [said.len(), 1] {
                let answer = conversation(&server, said.as_bytes(), bytes_at_once);
                assert_eq!(&answer, expected, "{said:?} by {bytes_at_once}, users {users:?}");
                let flushed =
                    conversation(&server, b"set a 0 0 10\r\nbob secret\r\nflush_all\r\n", 99);
                assert_eq!(flushed, "STORED|OK|");
            }
        }
    }
}

#[test]
fn attempts_are_counted_and_users_read_again() {
    let file = Users::new("bob:secret\n");
    let server = server(&file).unwrap();
    let login = |user: &str, password: &str| {
        let said =
            format!("set a 0 0 {}\r\n{user} {password}\r\n", user.len() + password.len() + 1);
        conversation(&server, said.as_bytes(), 99) == "STORED|"
    };
    assert!(login("bob", "secret") && !login("bob", "wrong"));
    file.write(&format!("eve:{HASHED}\n"));
    assert!(server.reload());
    assert!(login("eve", "secret") && !login("bob", "secret") && !login("eve", "x"));
    // A file that is broken or gone keeps nobody out and lets nobody in.
    file.write("broken\n");
    assert!(server.reload());
    assert!(login("eve", "secret") && !login("broken", ""));
    let said = b"set a 0 0 10\r\neve secret\r\nstats\r\nstats settings\r\n";
    let text = conversation(&server, said, 99);
    for line in ["auth_cmds 8", "auth_errors 4", "binding_protocol ascii"] {
        assert!(text.contains(&format!("|STAT {line}|")), "{line} in {text}");
    }
    let path = file.path().display().to_string();
    assert!(text.contains(&format!("|STAT auth_enabled_ascii {path}|")), "{text}");
}

#[test]
fn a_file_that_cannot_be_used_stops_the_start() {
    for (text, why) in [("", "names no user"), ("nocolon\n", "line 1: expected user:password")] {
        let said = server(&Users::new(text)).map(drop).expect_err(text).to_string();
        assert!(said.contains(why) && said.starts_with("-Y "), "{said}");
    }
    let gone = Users::new("");
    std::fs::remove_file(gone.path()).unwrap();
    assert!(server(&gone).is_err());
}

#[test]
fn guesses_do_not_hold_up_those_who_are_in() {
    let file = Users::new(&format!("bob:{HASHED}\n"));
    let server = server(&file).unwrap();
    let mut inside = TcpStream::connect(server.addresses()[0]).unwrap();
    inside.set_nodelay(true).unwrap();
    inside.set_read_timeout(Some(PATIENCE)).unwrap();
    inside.write_all(b"set a 0 0 10\r\nbob secret\r\n").unwrap();
    inside.read_exact(&mut [0; 8]).unwrap();
    let mut guessers: Vec<TcpStream> = Vec::new();
    for _ in 0..400 {
        let mut guesser = TcpStream::connect(server.addresses()[0]).unwrap();
        guesser.write_all(b"set a 0 0 9\r\nbob guess\r\n").unwrap();
        guessers.push(guesser);
    }
    let start = Instant::now();
    for _ in 0..20 {
        inside.write_all(b"mn\r\n").unwrap();
        inside.read_exact(&mut [0; 4]).unwrap();
    }
    let took = start.elapsed();
    // Each guess takes over a millisecond of work: behind all of them this would take far longer.
    let guesses = guessers.iter_mut().map(|guesser| {
        guesser.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = [0; 128];
        let count = guesser.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..count]).into_owned()
    });
    let answers: Vec<String> = guesses.collect();
    let all = start.elapsed();
    let busy = answers.iter().filter(|answer| answer.starts_with("SERVER_ERROR too many")).count();
    let refused = answers.iter().filter(|answer| answer.contains("authentication failure")).count();
    assert_eq!(busy + refused, 400, "{answers:?}");
    assert!(took < all, "{took:?} of {all:?}");
}

/// Guesses of clients that do not wait for the answer come after the logins of those who do, and
/// what one guess can cost is bounded.
#[test]
fn guesses_do_not_hold_up_logins() {
    let file = Users::new(&format!("bob:{HASHED}\n"));
    let server = server(&file).unwrap();
    let guess = format!("set a 0 0 4094\r\nbob {}\r\n", "x".repeat(4090));
    let short = "set a 0 0 9\r\nbob wrong\r\n";
    for number in 0..300 {
        let mut stream = TcpStream::connect(server.addresses()[0]).unwrap();
        let guess = if number % 2 == 0 { guess.as_str() } else { short };
        stream.write_all(guess.as_bytes()).unwrap();
    }
    let mut honest = TcpStream::connect(server.addresses()[0]).unwrap();
    honest.set_read_timeout(Some(PATIENCE)).unwrap();
    let start = Instant::now();
    honest.write_all(b"set a 0 0 10\r\nbob secret\r\n").unwrap();
    let mut answer = [0; 8];
    honest.read_exact(&mut answer).unwrap();
    let took = start.elapsed();
    assert_eq!(&answer, b"STORED\r\n", "after {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
}
