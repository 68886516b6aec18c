//! The built daemon, ended and started anew. Goal: what was said to it in the text and the binary
//! protocol is there after a kill, after a stop that a client asks for, and from a snapshot; no
//! second one takes its directory; and what a system does not have is refused by name. Method:
//! processes with a data directory, plain sockets, every wait bounded. Runs on every system.

#![cfg(feature = "server")]

mod support;

use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use support::{Client, Daemon};
use tempfile::TempDir;

const OPCODE_GET: u8 = 0x00;
const OPCODE_SET: u8 = 0x01;
const HEADER_BYTES: usize = 24;

fn data_dir(path: &Path) -> String {
    format!("--data-dir={}", path.display())
}

/// One request of the binary protocol, and the value it is answered with.
fn binary(client: &mut Client, opcode: u8, extras: &[u8], key: &str, value: &str) -> Vec<u8> {
    let body_bytes = extras.len() + key.len() + value.len();
    let mut request = vec![0; HEADER_BYTES];
    (request[0], request[1]) = (0x80, opcode);
    request[2..4].copy_from_slice(&(key.len() as u16).to_be_bytes());
    request[4] = extras.len() as u8;
    request[8..12].copy_from_slice(&(body_bytes as u32).to_be_bytes());
    request.extend([extras, key.as_bytes(), value.as_bytes()].concat());
    client.0.get_mut().write_all(&request).unwrap();
    let mut header = [0; HEADER_BYTES];
    client.0.read_exact(&mut header).unwrap();
    assert_eq!(header[..2], [0x81, opcode]);
    assert_eq!(header[6..8], [0, 0], "an error of opcode {opcode}");
    let body_bytes = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
    let mut body = vec![0; body_bytes as usize];
    client.0.read_exact(&mut body).unwrap();
    body.split_off(usize::from(header[4]))
}

/// How a server is ended.
#[derive(Debug, Clone, Copy)]
enum Ending {
    Kill,
    Shutdown,
    ShutdownGraceful,
    KillAfterSnapshot,
}

fn end(mut daemon: Daemon, ending: Ending) {
    let mut client = Client::at(daemon.address);
    match ending {
        Ending::Kill => daemon.process.kill().unwrap(),
        Ending::Shutdown => client.send("shutdown\r\n"),
        Ending::ShutdownGraceful => client.send("shutdown graceful\r\n"),
        Ending::KillAfterSnapshot => {
            client.send("snapshot\r\n");
            assert_eq!(client.line(), "OK");
            daemon.process.kill().unwrap();
        }
    }
    let status = daemon.process.wait().unwrap();
    let stopped = matches!(ending, Ending::Shutdown | Ending::ShutdownGraceful);
    assert!(!stopped || status.success(), "{ending:?}: {status}");
}

#[test]
fn items_are_there_after_every_ending() {
    let directory = TempDir::new().unwrap();
    let data = data_dir(directory.path());
    let flags = [&data[..], "-A", "--fsync=always", "--snapshot-interval=0"];
    let large = "v".repeat(300_000);
    let endings =
        [Ending::Kill, Ending::Shutdown, Ending::KillAfterSnapshot, Ending::ShutdownGraceful];
    for (round, ending) in endings.into_iter().enumerate() {
        let daemon = Daemon::start(&flags);
        let mut client = Client::at(daemon.address);
        client.run(&format!("set text{round} {round} 0 5\r\nhello\r\n"));
        client.run(&format!("set large 0 0 {}\r\n{large}\r\nincr number 1\r\n", large.len()));
        client.run("add number 0 0 1\r\n0\r\n");
        let extras = [0, 0, 0, 7, 0, 0, 0, 0];
        let mut other = Client::at(daemon.address);
        binary(&mut other, OPCODE_SET, &extras, &format!("binary{round}"), "world");
        end(daemon, ending);

        let daemon = Daemon::start(&flags);
        let (mut client, mut other) = (Client::at(daemon.address), Client::at(daemon.address));
        for round in 0..=round {
            client.send(&format!("mg text{round} v f\r\n"));
            let expected = [format!("VA 5 f{round}"), "hello".to_owned()];
            assert_eq!([client.line(), client.line()], expected, "{ending:?}");
            let value = binary(&mut other, OPCODE_GET, &[], &format!("binary{round}"), "");
            assert_eq!(value, b"world", "{ending:?}");
        }
        client.send("get large number\r\n");
        let found = client.lines_to("END");
        let number = round.to_string();
        assert_eq!([&found[1], &found[3]], [&large, &number], "{ending:?}");
        end(daemon, Ending::Kill);
    }
}

/// A start with these flags ends by itself, and says why.
fn check_refused(flags: &[&str], code: i32, why: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_distcached"));
    support::stay_root(&mut command);
    let output = command.args(flags).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(why), "{flags:?}: {said}");
    assert_eq!(output.status.code(), Some(code), "{flags:?}: {said}");
}

#[test]
fn a_directory_is_served_by_one_daemon() {
    let directory = TempDir::new().unwrap();
    let data = data_dir(directory.path());
    let _first = Daemon::start(&[&data]);
    check_refused(&["-l", "127.0.0.1", "-p", "-1", &data], 75, "used by another process");
}

/// Ports are not taken from a server that has them, as some flags of sockets allow.
#[test]
fn a_port_is_served_by_one_daemon() {
    let first = Daemon::start(&[]);
    let port = first.address.port().to_string();
    check_refused(&["-l", "127.0.0.1", "-p", &port], 71, "another program listens there");
}

#[cfg(windows)]
#[test]
fn what_is_not_there_is_refused_by_name() {
    for flags in [&["-d"][..], &["-k"], &["-r"], &["-s", "x"], &["-u", "x"], &["--daemon"]] {
        check_refused(flags, 64, "is not there on windows");
    }
}
