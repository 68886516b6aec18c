//! What operators see beyond memcached's statistics: latencies, hot and big keys, slow commands.
//! Goal: each number is what it is called, keys show only where they may, and a client that does
//! not read is not taken for a slow server. Method: an embedded server or the built daemon, plain
//! sockets, every wait with a limit.

#![cfg(feature = "server")]

mod support;

use distcache::server::Server;
use distcache::server::config::Config;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use support::{Client, Daemon, PATIENCE};

fn server(workers: usize, change: impl FnOnce(&mut Config)) -> Server {
    let mut config = Config { workers, memory_bytes_max: 256 << 20, ..Config::default() };
    change(&mut config);
    Server::start(config).unwrap()
}

/// A line of `stats hotkeys` or `bigkeys`: rank, and values by name.
fn ranked(line: &str) -> (usize, HashMap<&str, &str>) {
    let mut words = line.split(' ');
    let rank = words.next().unwrap().parse().expect(line);
    (rank, words.map(|word| word.split_once('=').expect(line)).collect())
}

#[test]
fn latencies_are_told_by_command() {
    const EACH: usize = 6_000;
    for workers in [1, 2] {
        let server = server(workers, |_| ());
        let mut client = Client::at(server.addresses()[0]);
        assert!(client.stats("latency").is_empty(), "nothing was timed yet");
        let mut commands = String::new();
        for at in 0..EACH {
            let key = at % 100;
            write!(commands, "set k{key} 0 0 1\r\n1\r\nget k{key} other\r\ngat 0 k{key}\r\n")
                .unwrap();
            write!(commands, "incr k{key} 1\r\ntouch k{key} 0\r\ndelete none{at}\r\n").unwrap();
            write!(commands, "ms m{key} 1\r\n1\r\nmg m{key} v\r\nma m{key}\r\nmd none\r\n")
                .unwrap();
        }
        client.run(&commands);
        let lines = client.stats("latency");
        let mut numbers: HashMap<&str, Vec<u64>> = HashMap::new();
        let names = ["count", "p50_us", "p99_us", "p999_us", "max_us"].iter().cycle();
        for (line, expected) in lines.iter().zip(names) {
            let (name, value) = line.split_once(' ').unwrap();
            let (command, name) = name.split_once(':').unwrap();
            assert_eq!(name, *expected, "{line}");
            numbers.entry(command).or_default().push(value.parse().unwrap());
        }
        let mut seen: Vec<&str> = numbers.keys().copied().collect();
        seen.sort_unstable();
        let all = ["delete", "gat", "get", "incr", "ma", "md", "mg", "ms", "set", "touch"];
        assert_eq!(seen, all);
        for (command, values) in &numbers {
            let [count, p50, p99, p999, max] = values[..] else { panic!("{command}: {values:?}") };
            // One in 128 is timed, and not in step with commands that repeat.
            let fair = EACH as u64 / 128;
            assert!((fair / 3..fair * 3).contains(&count), "{command}: {count} timed");
            assert!(0 < p50 && p50 <= p99 && p99 <= p999 && p999 <= max, "{command}: {values:?}");
            assert!(max < PATIENCE.as_micros() as u64, "{command}: {values:?}");
        }
        client.send("stats reset\r\n");
        assert_eq!(client.line(), "RESET");
        assert!(client.stats("latency").is_empty());
    }
}

#[test]
fn waiting_for_the_rest_of_a_value_is_the_client_s_time() {
    let server = server(1, |config| config.slow_command_us = 60_000_000);
    let mut client = Client::at(server.addresses()[0]);
    // The value takes more than one read; it counts from the last.
    client.send("set k 0 0 100000\r\nbegins");
    std::thread::sleep(Duration::from_millis(300));
    client.send(&format!("{}\r\n", "x".repeat(99_994)));
    assert_eq!(client.line(), "STORED");
    let lines = client.stats("latency");
    assert_eq!(lines[0], "set:count 1");
    let max: u64 = lines[4].strip_prefix("set:max_us ").unwrap().parse().unwrap();
    assert!(max < 300_000, "{max} us");
}

#[test]
fn hot_keys_have_their_share() {
    for workers in [1, 2] {
        let server = server(workers, |_| ());
        let mut client = Client::at(server.addresses()[0]);
        let large = "x".repeat(5_000);
        client.run(&format!("set hot 0 0 5000\r\n{large}\r\nms aCBv 3 b\r\nabc\r\n"));
        let mut commands = String::new();
        for at in 0..20_000 {
            // Half for one key, a quarter for one of two bytes that have to be escaped, the rest
            // for keys asked for once.
            let rare = format!("get rare{at}\r\n");
            commands += ["get hot\r\n", "get hot\r\n", "mg aCBv b v\r\n", &rare][at % 4];
        }
        client.run(&commands);
        let lines = client.stats("hotkeys");
        assert!((2..=20).contains(&lines.len()), "{lines:?}");
        let check = |line: &str, rank: usize, key: &str, share: std::ops::Range<f64>, bytes| {
            let (found, values) = ranked(line);
            assert_eq!((found, values["key"], values["bytes"]), (rank, key, bytes), "{line}");
            assert!(share.contains(&values["share"].parse::<f64>().unwrap()), "{line}");
            assert_eq!(values["share"].split_once('.').unwrap().1.len(), 1, "{line}");
            assert!(values["ops_per_second"].parse::<u64>().unwrap() > 0, "{line}");
        };
        check(&lines[0], 1, "hot", 40.0..60.0, "5000");
        check(&lines[1], 2, "h%20o", 15.0..35.0, "3");
        for (line, rank) in lines[2..].iter().zip(3..) {
            let (found, values) = ranked(line);
            assert_eq!(found, rank);
            assert!(values["share"].parse::<f64>().unwrap() < 3.0, "{line}");
        }
        let lines = client.stats("bigkeys");
        let (first, values) = ranked(&lines[0]);
        assert_eq!((first, values["key"], values["bytes"]), (1, "hot", "5000"));
        client.send("stats reset\r\n");
        client.lines_to("RESET");
        assert!(client.stats("hotkeys").is_empty() && client.stats("bigkeys").is_empty());
    }
}

#[test]
fn a_client_that_repeats_itself_does_not_fool_the_sample() {
    let server = server(1, |_| ());
    let mut client = Client::at(server.addresses()[0]);
    // One period is as long as the mean distance of samples.
    let period: String = (0..64).map(|at| format!("get key{at}\r\n")).collect();
    client.run(&period.repeat(600));
    for line in client.stats("hotkeys") {
        let share: f64 = ranked(&line).1["share"].parse().unwrap();
        assert!(share < 6.0, "{line}: fair is 1.6 %");
    }
}

#[test]
fn big_keys_are_the_largest_values_stored() {
    let server = server(2, |_| ());
    let mut client = Client::at(server.addresses()[0]);
    let mut commands = String::new();
    for at in 0..30_000 {
        let bytes = if at % 100 < 25 { 1_000 + at % 100 } else { 10 };
        write!(commands, "set k{} 0 0 {bytes}\r\n{}\r\n", at % 100, "x".repeat(bytes)).unwrap();
    }
    client.run(&commands);
    let lines = client.stats("bigkeys");
    assert_eq!(lines.len(), 20);
    let sizes: Vec<usize> =
        lines.iter().map(|line| ranked(line).1["bytes"].parse().unwrap()).collect();
    assert!(sizes.is_sorted_by(|a, b| a >= b), "{sizes:?}");
    let large = sizes.iter().filter(|bytes| **bytes >= 1_000).count();
    assert_eq!(large, 20, "{sizes:?}");
    assert!(ranked(&lines[0]).1["key"].starts_with("k2"), "{lines:?}");
}

#[test]
fn lists_of_keys_are_dumps() {
    let server = server(1, |config| config.dump = false);
    let mut client = Client::at(server.addresses()[0]);
    for topic in ["hotkeys", "bigkeys"] {
        client.send(&format!("stats {topic}\r\n"));
        assert_eq!(client.line(), format!("CLIENT_ERROR stats {topic} not allowed"));
    }
    assert!(client.stats("latency").is_empty(), "has no keys");
}

/// How many slow commands a server has met.
fn slow_commands(server: &Server) -> u64 {
    let mut stream = TcpStream::connect(server.metrics_address().unwrap()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let found = text.lines().find_map(|line| line.strip_prefix("distcache_slow_commands_total "));
    found.expect("the metric").parse().unwrap()
}

#[test]
fn a_client_that_does_not_read_is_not_slow_service() {
    // More than sockets hold, and than may wait in the server.
    const VALUES: usize = 30;
    const VALUE_BYTES: usize = 900_000;
    for (slow_us, limit) in [(1, VALUES as u64 / 2..u64::MAX), (800_000, 0..1)] {
        let server = server(1, |config| {
            config.slow_command_us = slow_us;
            config.metrics_address = Some(([127, 0, 0, 1], 0).into());
        });
        let mut client = Client::at(server.addresses()[0]);
        client.send(&format!("set k 0 0 {VALUE_BYTES}\r\n{}\r\n", "x".repeat(VALUE_BYTES)));
        assert_eq!(client.line(), "STORED");
        // More than one turn takes, then more than the output takes: the rest waits for the client
        // after it has waited for its turn.
        client.send(&("get none\r\n".repeat(25) + &"get k\r\n".repeat(VALUES)));
        if slow_us > 1 {
            std::thread::sleep(Duration::from_millis(1_200));
        } else {
            // A control: answers that are taken count.
            for _ in 0..25 + VALUES {
                client.lines_to("END");
            }
            client.run(&"get none\r\n".repeat(VALUES));
        }
        client.send("mn\r\n");
        client.lines_to("MN");
        let count = slow_commands(&server);
        assert!(limit.contains(&count), "{count} above {slow_us} us");
    }
}

/// Ends a daemon and returns its log.
fn log_of(mut daemon: Daemon) -> String {
    daemon.process.kill().unwrap();
    let mut text = String::new();
    daemon.process.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    text
}

#[test]
fn slow_commands_are_logged_without_their_keys_and_not_too_many() {
    let daemon = Daemon::start(&["--slow-command-us", "1"]);
    let mut client = Client::at(daemon.address);
    let since = Instant::now();
    for _ in 0..200 {
        client.run("get secret\r\n");
    }
    // The summary comes when the second is over.
    std::thread::sleep(Duration::from_millis(1_300));
    let seconds = since.elapsed().as_secs() as usize + 2;
    let port = client.0.get_ref().local_addr().unwrap().port();
    let log = log_of(daemon);
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("slow command:")).collect();
    assert!((1..=10 * seconds).contains(&lines.len()), "{} lines", lines.len());
    assert!(lines[0].contains("WARN"), "{log}");
    assert!(lines[0].contains(": get took "), "{log}");
    assert!(lines[0].contains(&format!(" from=tcp:127.0.0.1:{port} key_hash=")), "{log}");
    let more = |line: &&str| line.contains("more slow commands of one second were not logged");
    assert!(log.lines().any(|line| more(&line)), "{log}");
    assert!(!log.contains("secret"), "{log}");
}

/// With the descriptor of the connection, as memcached does, so that conversations can be told
/// apart.
#[test]
fn commands_and_replies_are_logged_at_vv() {
    let daemon = Daemon::start(&["-vv"]);
    let mut client = Client::at(daemon.address);
    client.run("set a 0 0 3\r\nabc\r\nget a b\r\nfoo\r\ndelete a noreply\r\nmg a v\r\n");
    let log = log_of(daemon);
    let said: Vec<&str> = log.lines().filter_map(|line| Some(line.split_once("] ")?.1)).collect();
    let first = said.iter().position(|line| line.ends_with(" set a 0 0 3")).expect(&log);
    let descriptor = said[first][1..].split(' ').next().unwrap();
    let expected = [
        "< set a 0 0 3",
        "> STORED",
        "< get a b",
        "> VALUE a 0 3",
        "< foo",
        "> ERROR",
        "< delete a noreply",
        "< mg a v",
        "> EN",
        "< mn",
        "> MN",
    ];
    let named = |line: &&str| line.replacen(' ', &format!("{descriptor} "), 1);
    let expected: Vec<String> = expected.iter().map(named).collect();
    assert_eq!(said[first..][..expected.len()], expected, "{log}");
    assert!(said[..first].iter().any(|line| line.contains("new connection from tcp:")), "{log}");
}

#[test]
fn keys_are_logged_for_debugging_only() {
    for (flag, shows) in [("-v", false), ("-vv", true)] {
        let daemon = Daemon::start(&["--slow-command-us=1", flag]);
        let mut client = Client::at(daemon.address);
        client.run("get se%cret\r\n");
        // It logs after it has answered, and before it reads on.
        client.run("");
        let log = log_of(daemon);
        assert!(log.contains("slow command: get took "), "{log}");
        assert_eq!(log.contains(" is key=se%25cret"), shows, "{flag}: {log}");
        assert_eq!(log.contains("secret") || log.contains("se%"), shows, "{flag}: {log}");
    }
}
