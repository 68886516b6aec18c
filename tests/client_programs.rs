//! Programs as users write them, from end to end. Goal: sessions are shared with programs in PHP
//! and Python, and a server that is killed costs its keys at most. Method: PHP and Python programs
//! change what the client has stored; a call about a thousand keys while a server ends.

#![cfg(all(feature = "server", feature = "client"))]

use distcache::client::{Client, Config, Error, WhenDown};
use distcache::server::Server;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::process::Command;
use std::time::{Duration, Instant};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Session {
    user: String,
    visits: Vec<String>,
}

/// Adds a visit, as a PHP program does.
const PHP: &str = r#"
$memcached = new Memcached();
$memcached->addServer("127.0.0.1", (int) $argv[1]);
$session = json_decode($memcached->get("session:7"), true);
$session["visits"][] = "php";
exit($memcached->set("session:7", json_encode($session), 60) ? 0 : 1);
"#;

/// The same in Python, with what its standard library has.
const PYTHON: &str = r#"
import json, socket, sys
stream = socket.create_connection(("127.0.0.1", int(sys.argv[1]))).makefile("rwb")
stream.write(b"get session:7\r\n")
stream.flush()
header = stream.readline().split()
assert header[2] == b"0", header
session = json.loads(stream.read(int(header[3]) + 2))
assert stream.readline() == b"END\r\n"
session["visits"].append("python")
data = json.dumps(session).encode()
stream.write(b"set session:7 0 60 %d\r\n%b\r\n" % (len(data), data))
stream.flush()
assert stream.readline() == b"STORED\r\n"
"#;

/// Whether it could be run; that it failed is an error.
fn run(program: &str, check: &[&str], arguments: &[&str]) -> bool {
    let has = Command::new(program).args(check).output();
    if !has.is_ok_and(|output| output.status.success()) {
        println!("skipped: no {program} with what it needs");
        return false;
    }
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    true
}

#[test]
fn sessions_are_shared_with_php_and_python() {
    let server = Server::bind("127.0.0.1:0").unwrap();
    let client = Client::connect([server.addresses()[0].to_string()]).unwrap();
    let port = server.addresses()[0].port().to_string();
    let session = Session { user: "Pel\u{e9}".into(), visits: vec!["rust".into()] };
    client.set("session:7", serde_json::to_string(&session).unwrap()).unwrap();
    let mut visits = vec!["rust"];
    let has_memcached = ["-r", "exit(class_exists('Memcached') ? 0 : 1);"];
    if run("php", &has_memcached, &["-r", PHP, "--", &port]) {
        visits.push("php");
    }
    if run("python3", &["-c", "import json"], &["-c", PYTHON, &port]) {
        visits.push("python");
    }
    let read: Session = client.get("session:7").unwrap().unwrap();
    assert_eq!(
        (read.user.as_str(), read.visits),
        ("Pel\u{e9}", visits.iter().map(|visit| (*visit).to_owned()).collect())
    );
}

#[test]
fn a_thousand_keys_while_a_server_is_killed() {
    let mut servers: Vec<Server> = (0..4).map(|_| Server::bind("127.0.0.1:0").unwrap()).collect();
    let addresses: Vec<_> =
        servers.iter().map(|server| server.addresses()[0].to_string()).collect();
    for (when_down, replicas) in [(WhenDown::Miss, 1), (WhenDown::Error, 2)] {
        let config = Config { when_down, replicas, check_every: None, ..Config::default() };
        let client = Client::with_config(&addresses[..servers.len()], config).unwrap();
        client.set_many((0..1000u32).map(|key| (key, key))).all().unwrap();
        let gone = servers.pop().unwrap();
        let port = gone.addresses()[0].port();
        let killed = std::thread::spawn(move || drop(gone));
        let start = Instant::now();
        for round in 0..20 {
            let found: Result<HashMap<u32, u32>, Error> = client.get_map(0..1000);
            let found = found.unwrap();
            assert!(found.iter().all(|(key, value)| key == value));
            let is_there =
                |key: &u32| replicas > 1 || client.server_of(key).unwrap().port() != port;
            let lost = (0..1000).filter(is_there).filter(|key| !found.contains_key(key)).count();
            assert_eq!(lost, 0, "round {round}, {replicas} copies");
        }
        killed.join().unwrap();
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    }
}
