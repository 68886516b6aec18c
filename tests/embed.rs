//! The library embedded: servers in this process, clients over TCP. Goal: what a client sees does
//! not depend on how many workers share the keys, and a server keeps its bounds and goes away when
//! told to. Method: start a [`Server`] on a free port, talk to it with plain sockets, and compare
//! with what was computed beforehand or with a server of one worker. Every wait has a limit.

#![cfg(feature = "server")]

mod support;

use distcache::limits::KEYS_PER_COMMAND;
use distcache::server::Server;
use distcache::server::config::Config;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::{PATIENCE, connect};

/// The answer to `mn`, which marks the end of what was asked.
const LAST: &[u8] = b"MN\r\n";

const WORKERS: [usize; 3] = [1, 2, 4];

/// A server with room for values of a few megabytes.
fn server(workers: usize, change: impl FnOnce(&mut Config)) -> Server {
    let mut config = Config { workers, memory_bytes_max: 256 << 20, ..Config::default() };
    change(&mut config);
    Server::start(config).unwrap()
}

struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    fn of(server: &Server) -> Self {
        Self::at(server.addresses()[0])
    }

    fn at(address: SocketAddr) -> Self {
        Self { reader: BufReader::new(connect(address)) }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.reader.get_mut().write_all(bytes).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line
    }

    fn exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Everything up to the end of the connection.
    fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.reader.read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// Sends commands in these pieces while reading, and returns the replies. No value may end
    /// like the answer to `mn`.
    fn ask_in_pieces<'a>(&mut self, pieces: impl Iterator<Item = &'a [u8]> + Send) -> Vec<u8> {
        let mut writer = self.reader.get_ref().try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                pieces.for_each(|piece| writer.write_all(piece).unwrap());
                writer.write_all(b"mn\r\n").unwrap();
            });
            let mut replies = Vec::new();
            while !replies.ends_with(LAST) {
                let count = self.reader.read_until(b'\n', &mut replies).unwrap();
                assert!(count > 0, "closed after {} bytes", replies.len());
            }
            replies.truncate(replies.len() - LAST.len());
            replies
        })
    }

    fn ask(&mut self, commands: &[u8]) -> Vec<u8> {
        self.ask_in_pieces(std::iter::once(commands))
    }

    fn ask_text(&mut self, commands: &str) -> String {
        String::from_utf8(self.ask(commands.as_bytes())).unwrap()
    }
}

/// Fails with the first place where two long texts differ.
fn assert_same(seen: &[u8], expected: &[u8], context: &str) {
    if seen == expected {
        return;
    }
    let at = seen.iter().zip(expected).take_while(|(a, b)| a == b).count();
    let around = |bytes: &[u8]| {
        let (from, to) = (at.saturating_sub(80), (at + 80).min(bytes.len()));
        bytes[from..to].escape_ascii().to_string()
    };
    panic!(
        "{context}: differs at byte {at}\n  seen: {}\n want: {}",
        around(seen),
        around(expected)
    );
}

/// splitmix64: the same streams on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % limit
    }
}

/// Stores `key-0` to `key-(count-1)`, each with its number as value.
fn store_numbers(client: &mut Client, count: usize) {
    let set = |key: usize| {
        let value = key.to_string();
        format!("set key-{key} {key} 0 {}\r\n{value}\r\n", value.len())
    };
    let sets: String = (0..count).map(set).collect();
    assert_eq!(client.ask_text(&sets), "STORED\r\n".repeat(count));
}

/// The line of a hit of `store_numbers`.
fn value_of(key: usize) -> String {
    let value = key.to_string();
    format!("VALUE key-{key} {key} {}\r\n{value}\r\n", value.len())
}

#[test]
fn a_multi_get_answers_in_the_order_of_its_keys() {
    for workers in WORKERS {
        let server = server(workers, |_| ());
        let mut client = Client::of(&server);
        store_numbers(&mut client, 500);
        let mut random = Random(1);
        // A third of the keys is missing, and many come twice.
        let keys: Vec<usize> = (0..900).map(|_| random.below(750) as usize).collect();
        let line: String = keys.iter().map(|key| format!(" key-{key}")).collect();
        let hits = keys.iter().filter(|key| **key < 500).map(|key| value_of(*key));
        let expected = hits.collect::<String>() + "END\r\n";
        let seen = client.ask(format!("get{line}\r\n").as_bytes());
        assert_same(&seen, expected.as_bytes(), &format!("{workers} workers"));
    }
}

#[test]
fn pipelined_commands_are_answered_in_order() {
    for workers in WORKERS {
        let server = server(workers, |_| ());
        let mut client = Client::of(&server);
        let (mut commands, mut expected) = (String::new(), String::new());
        for round in 0..1_000 {
            let (key, other) = (round % 37, round % 41);
            for (command, reply) in [
                (format!("set k{key} 0 0 1\r\n7\r\n"), "STORED\r\n".to_owned()),
                (format!("incr k{key} {round}\r\n"), format!("{}\r\n", 7 + round)),
                (format!("get k{key}\r\n"), {
                    let number = (7 + round).to_string();
                    format!("VALUE k{key} 0 {}\r\n{number}\r\nEND\r\n", number.len())
                }),
                (format!("set o{other} 0 0 1 noreply\r\n1\r\n"), String::new()),
                (format!("append o{other} 0 0 1\r\n2\r\n"), "STORED\r\n".to_owned()),
                (format!("mg o{other} v k\r\n"), format!("VA 2 ko{other}\r\n12\r\n")),
                (format!("md o{other} q\r\n"), String::new()),
                (format!("touch o{other} 0\r\n"), "NOT_FOUND\r\n".to_owned()),
                ("nonsense\r\n".to_owned(), "ERROR\r\n".to_owned()),
            ] {
                commands += &command;
                expected += &reply;
            }
        }
        let seen = client.ask(commands.as_bytes());
        assert_same(&seen, expected.as_bytes(), &format!("{workers} workers"));
    }
}

fn stat(client: &mut Client, name: &str) -> u64 {
    let stats = client.ask_text("stats\r\n");
    let prefix = format!("STAT {name} ");
    let line = stats.lines().find_map(|line| line.strip_prefix(&prefix));
    line.unwrap_or_else(|| panic!("no {name} in {stats}")).trim().parse().unwrap()
}

#[test]
fn flush_all_reaches_every_shard() {
    for workers in WORKERS {
        let server = server(workers, |_| ());
        let mut client = Client::of(&server);
        store_numbers(&mut client, 400);
        assert_eq!(stat(&mut client, "curr_items"), 400);
        // In one stream, so that the order between the shards' mails counts.
        let line: String = (0..400).map(|key| format!(" key-{key}")).collect();
        let commands = format!("flush_all\r\nget{line}\r\nadd key-7 0 0 1\r\n1\r\nget key-7\r\n");
        let expected = "OK\r\nEND\r\nSTORED\r\nVALUE key-7 0 1\r\n1\r\nEND\r\n";
        assert_eq!(client.ask_text(&commands), expected, "{workers} workers");
        assert_eq!(stat(&mut client, "curr_items"), 1);
    }
}

#[test]
fn statistics_are_the_sum_of_all_shards() {
    for workers in WORKERS {
        let server = server(workers, |_| ());
        let mut clients: Vec<Client> = (0..6).map(|_| Client::of(&server)).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            let sets = |key| format!("set {number}-{key} 0 0 1\r\n1\r\n");
            client.ask_text(&(0..100).map(sets).collect::<String>());
            let line: String = (0..150).map(|key| format!(" {number}-{key}")).collect();
            client.ask_text(&format!("get{line}\r\nincr {number}-1 1\r\ndelete {number}-2\r\n"));
        }
        for (name, expected) in [
            ("threads", workers as u64),
            ("curr_connections", 6),
            ("cmd_set", 600),
            ("cmd_get", 900),
            ("get_hits", 600),
            ("get_misses", 300),
            ("incr_hits", 6),
            ("delete_hits", 6),
            ("curr_items", 594),
        ] {
            assert_eq!(stat(&mut clients[0], name), expected, "{name}, {workers} workers");
        }
    }
}

#[test]
fn sizes_are_told_where_they_are_tracked() {
    let sizes = |change: fn(&mut Config), items: usize| {
        let server = server(2, change);
        let mut client = Client::of(&server);
        let set = |key: usize| {
            format!("set {key:010} 0 0 {}\r\n", if key.is_multiple_of(4) { 90 } else { 9 })
        };
        let value = |key: usize| "x".repeat(if key.is_multiple_of(4) { 90 } else { 9 }) + "\r\n";
        let sets: String = (0..items).map(|key| set(key) + &value(key)).collect();
        client.ask_text(&sets);
        client.ask_text("stats sizes\r\n")
    };
    let tracked: fn(&mut Config) = |config| {
        let unused = &mut config.accepted_only.unused;
        unused.iter_mut().find(|line| line.0 == "track_sizes").unwrap().1 = "yes".to_owned();
    };
    assert_eq!(sizes(|_| {}, 10), "STAT sizes_status disabled\r\nEND\r\n");
    assert_eq!(sizes(tracked, 0), "END\r\n");
    assert_eq!(sizes(tracked, 100), "STAT 32 75\r\nSTAT 128 25\r\nEND\r\n");
    // More than are looked at: about the same shares.
    let sampled = sizes(tracked, 100_000);
    let count = |line: &str| -> u64 { line.rsplit(' ').next().unwrap().parse().unwrap() };
    let counts: Vec<u64> = sampled.lines().take(2).map(count).collect();
    assert!((70_000..80_000).contains(&counts[0]), "{sampled}");
    assert!((20_000..30_000).contains(&counts[1]), "{sampled}");
}

#[test]
fn large_values_come_back_whole() {
    for workers in WORKERS {
        let server = server(workers, |config| config.item_bytes_max = 4 << 20);
        let mut client = Client::of(&server);
        let mut random = Random(2);
        for key in 0..6 {
            let value: Vec<u8> = (0..2 << 20).map(|_| random.below(256) as u8).collect();
            client.send(format!("set large-{key} 5 0 {}\r\n", value.len()).as_bytes());
            client.send(&value);
            client.send(b"\r\n");
            assert_eq!(client.line(), "STORED\r\n");
            client.send(format!("append large-{key} 0 0 3\r\nend\r\n").as_bytes());
            assert_eq!(client.line(), "STORED\r\n");
            client.send(format!("get large-{key} large-{key}\r\n").as_bytes());
            for _ in 0..2 {
                let expected = format!("VALUE large-{key} 5 {}\r\n", value.len() + 3);
                assert_eq!(client.line(), expected, "{workers} workers");
                let seen = client.exactly(value.len() + 5);
                assert_same(&seen[..value.len()], &value, "a large value");
                assert_eq!(&seen[value.len()..], b"end\r\n");
            }
            assert_eq!(client.line(), "END\r\n");
        }
    }
}

#[test]
fn a_very_large_value_does_not_starve_others() {
    const VALUE_BYTES: usize = 64 << 20;
    let server = server(2, |config| config.item_bytes_max = 65 << 20);
    store_numbers(&mut Client::of(&server), 10);
    let (address, done) = (server.addresses()[0], AtomicBool::new(false));
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let (mut client, mut answers, mut longest) = (Client::at(address), 0, Duration::ZERO);
            while !done.load(Ordering::Relaxed) {
                let asked = Instant::now();
                let expected = value_of(answers % 10) + "END\r\n";
                assert_eq!(client.ask_text(&format!("get key-{}\r\n", answers % 10)), expected);
                longest = longest.max(asked.elapsed());
                answers += 1;
            }
            (answers, longest)
        });
        let mut client = Client::at(address);
        let value: Vec<u8> = (0..VALUE_BYTES).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect();
        client.send(format!("set large 0 0 {VALUE_BYTES}\r\n").as_bytes());
        client.send(&value);
        client.send(b"\r\n");
        assert_eq!(client.line(), "STORED\r\n");
        client.send(b"get large\r\n");
        assert_eq!(client.line(), format!("VALUE large 0 {VALUE_BYTES}\r\n"));
        assert_same(&client.exactly(VALUE_BYTES), &value, "the large value");
        assert_eq!(client.line(), "\r\n");
        assert_eq!(client.line(), "END\r\n");
        done.store(true, Ordering::Relaxed);
        let (answers, longest) = other.join().unwrap();
        // Copying the value as a whole, or waiting for all of it, would take longer than a turn;
        // how much longer a loaded machine hides. The bench `large-value` measures it.
        assert!(answers > 20, "{answers} answers while a large value came and went");
        assert!(longest < Duration::from_secs(2), "{longest:?} for a small get");
    });
}

/// Once each turn served all connections that had work: with 500 lists of keys under way others
/// waited for 80,000 lookups between a request and its reply.
#[test]
fn many_long_lists_do_not_make_turns_long() {
    const CLIENTS: usize = 200;
    const KEYS: usize = 30_000;
    let server = server(1, |_| ());
    let mut lists: Vec<Client> = (0..CLIENTS).map(|_| Client::of(&server)).collect();
    let list = format!("get{}\r\n", " k".repeat(KEYS));
    for client in &mut lists {
        client.send(list.as_bytes());
    }
    // Between two replies to somebody else, who has asked for both at once, so that it does not
    // count how long he waits for the processor. The first turns read from all: the least counts.
    let mut other = Client::of(&server);
    let (mut least, mut now) = (u64::MAX, 0);
    while now < (CLIENTS * KEYS) as u64 {
        let stats = other.ask_text("stats\r\nstats\r\n");
        let counts = stats.lines().filter_map(|line| line.strip_prefix("STAT cmd_get "));
        let counts: Vec<u64> = counts.map(|count| count.trim().parse().unwrap()).collect();
        assert_eq!(counts.len(), 2, "{stats}");
        let before = counts[0];
        now = counts[1];
        if now < (CLIENTS * KEYS) as u64 * 3 / 4 {
            least = least.min(now - before);
        }
    }
    let one_turn_for_each = (CLIENTS * KEYS_PER_COMMAND * 20) as u64;
    assert!(least < one_turn_for_each / 2, "{least} lookups between two replies at least");
    for client in &mut lists {
        assert_eq!(client.line(), "END\r\n");
    }
}

/// Runs a test again in a process of its own, where no other test uses memory. Answers whether
/// this is that process.
fn is_alone(test: &str) -> bool {
    const MARK: &str = "DISTCACHE_TEST_ALONE";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", test]).env(MARK, "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    false
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim_end_matches("kB").trim().parse::<u64>().unwrap() << 10
}

/// The highest resident size until the server has been quiet for a while.
fn resident_bytes_peak(wait: Duration) -> u64 {
    let start = Instant::now();
    let mut peak = 0;
    while start.elapsed() < wait {
        peak = peak.max(resident_bytes());
        std::thread::sleep(Duration::from_millis(2));
    }
    peak
}

/// P6: with workers that each had a part of the memory, 32 of these were refused.
#[test]
fn regression_uploads_at_once_that_fit_the_memory_are_taken_by_any_number_of_workers() {
    const UPLOADS: usize = 64;
    let value = vec![b'v'; 900 << 10];
    for workers in [1, 32] {
        let server = server(workers, |config| config.memory_bytes_max = 64 << 20);
        let mut clients: Vec<_> = (0..UPLOADS).map(|_| Client::of(&server)).collect();
        for (at, client) in clients.iter_mut().enumerate() {
            client.send(format!("set k{at} 0 0 {}\r\n", value.len()).as_bytes());
            client.send(&value[..value.len() / 2]);
        }
        for client in &mut clients {
            client.send(&value[value.len() / 2..]);
            client.send(b"\r\n");
        }
        let stored = clients.iter_mut().filter_map(|c| (c.line() == "STORED\r\n").then_some(()));
        assert!(stored.count() >= UPLOADS - 1, "{workers} workers");
        let client = &mut clients[0];
        let there = (0..UPLOADS).filter(|at| {
            client.send(format!("mg k{at}\r\n").as_bytes());
            client.line() == "HD\r\n"
        });
        assert!(there.count() >= UPLOADS - 1, "{workers} workers");
    }
}

#[test]
fn a_client_that_never_reads_costs_little() {
    if !is_alone("a_client_that_never_reads_costs_little") {
        return;
    }
    const GROWTH_BYTES_MAX: u64 = 64 << 20;
    for workers in WORKERS {
        let server = server(workers, |config| config.item_bytes_max = 2 << 20);
        let mut client = Client::of(&server);
        let value = "v".repeat(1 << 20);
        for key in 0..8 {
            client.send(format!("set v{key} 0 0 {}\r\n{value}\r\n", value.len()).as_bytes());
            assert_eq!(client.line(), "STORED\r\n");
        }
        let before = resident_bytes();
        let gets: String = (0..1_000).map(|number| format!("get v{}\r\n", number % 8)).collect();
        client.send(gets.as_bytes());
        let growth = resident_bytes_peak(Duration::from_millis(300)).saturating_sub(before);
        println!("{workers} workers: {growth} bytes more");
        assert!(growth < GROWTH_BYTES_MAX, "{workers} workers: {growth} bytes more");
        // The others are served meanwhile.
        assert_eq!(Client::of(&server).ask_text("get none\r\n"), "END\r\n");
    }
}

#[test]
fn connections_above_the_limit_are_refused_with_a_line() {
    let server = server(2, |config| config.connections_max = 2);
    let mut first = Client::of(&server);
    let mut second = Client::of(&server);
    assert_eq!(first.ask_text("get a\r\n"), "END\r\n");
    assert_eq!(second.ask_text("get a\r\n"), "END\r\n");
    assert_eq!(Client::of(&server).rest(), b"ERROR Too many open connections\r\n");
    drop(first);
    // The server learns of the free place a moment later.
    let start = Instant::now();
    loop {
        let mut next = Client::of(&server);
        // A refused client may find its connection reset when it writes.
        if next.reader.get_mut().write_all(b"mn\r\n").is_ok() {
            let mut line = String::new();
            if next.reader.read_line(&mut line).is_ok() && line.as_bytes() == LAST {
                break;
            }
        }
        assert!(start.elapsed() < PATIENCE, "the place stays taken");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(second.ask_text("get a\r\n"), "END\r\n");
}

#[test]
fn a_silent_connection_is_closed() {
    let server = server(2, |config| config.idle_timeout_seconds = 1);
    let (mut silent, mut busy) = (Client::of(&server), Client::of(&server));
    assert_eq!(silent.ask_text(""), "");
    let start = Instant::now();
    std::thread::scope(|scope| {
        let closed = scope.spawn(|| silent.rest());
        while !closed.is_finished() {
            assert_eq!(busy.ask_text("get a\r\n"), "END\r\n");
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(closed.join().unwrap(), b"");
    });
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(busy.ask_text("get a\r\n"), "END\r\n");
}

/// Once half a command kept its connection open for ever.
#[test]
fn half_a_command_does_not_keep_a_connection_open() {
    let server = server(2, |config| config.idle_timeout_seconds = 1);
    let mut clients = ["get a", "get a b c", "set a 0 0 5"].map(|begun| {
        let mut client = Client::of(&server);
        client.send(begun.as_bytes());
        (begun, client)
    });
    for (begun, client) in &mut clients {
        assert_eq!(client.rest(), b"", "{begun}");
    }
    // A data block that arrives slowly is another matter, as it is for memcached.
    let mut slow = Client::of(&server);
    slow.send(b"set a 0 0 5\r\nab");
    std::thread::sleep(Duration::from_millis(2500));
    slow.send(b"cde\r\n");
    assert_eq!(slow.line(), "STORED\r\n");
}

#[test]
fn a_stopped_server_closes_its_connections_and_frees_its_port() {
    for workers in WORKERS {
        let first = server(workers, |_| ());
        let address = first.addresses()[0];
        let mut clients: Vec<Client> = (0..5).map(|_| Client::of(&first)).collect();
        for client in &mut clients {
            assert_eq!(client.ask_text("set a 0 0 1\r\n1\r\n"), "STORED\r\n");
        }
        let start = Instant::now();
        first.stop();
        assert!(start.elapsed() < Duration::from_secs(5));
        for client in &mut clients {
            assert_eq!(client.rest(), b"");
        }
        assert!(TcpStream::connect(address).is_err(), "nobody listens");
        let second = Server::bind(address).unwrap();
        assert_eq!(Client::of(&second).ask_text("get a\r\n"), "END\r\n", "an empty server");
    }
}

#[test]
fn a_graceful_stop_answers_what_was_received() {
    let server = server(4, |_| ());
    let mut client = Client::of(&server);
    store_numbers(&mut client, 200);
    let line: String = (0..200).map(|key| format!(" key-{key}")).collect();
    client.send(format!("get{line}\r\n").as_bytes());
    // The first byte of the answer: the line has been received.
    let mut seen = client.exactly(1);
    server.stop_gracefully();
    seen.extend(client.rest());
    let expected = (0..200).map(value_of).collect::<String>() + "END\r\n";
    assert_same(&seen, expected.as_bytes(), "after a graceful stop");
}

/// One command on one of few keys, with a name of the stream's own in front.
fn random_command(random: &mut Random, prefix: &str, out: &mut Vec<u8>) {
    let key = format!("{prefix}{}", random.below(12));
    let other = format!("{prefix}{}", random.below(16));
    let number = random.below(1_000);
    // Few values are long: those travel by reference.
    let value_bytes = [1, 3, 30, 300, 9_000, 20_000][random.below(6).min(random.below(6)) as usize];
    let value = number.to_string().repeat(value_bytes / 2 + 1);
    let bytes = value.len();
    let noreply = if random.below(5) == 0 { " noreply" } else { "" };
    let command = match random.below(22) {
        0..=3 => format!("set {key} {number} 0 {bytes}{noreply}\r\n{value}\r\n"),
        4 => format!("add {key} 0 0 {bytes}{noreply}\r\n{value}\r\n"),
        5 => format!("replace {key} 0 0 {bytes}{noreply}\r\n{value}\r\n"),
        6 => format!("append {key} 0 0 2{noreply}\r\n{}\r\n", 10 + number % 90),
        7 => format!("set {key} 0 0 1{noreply}\r\n{}\r\n", number % 10),
        8 => format!("incr {key} {number}{noreply}\r\n"),
        9 => format!("decr {key} {number}{noreply}\r\n"),
        10 => format!("delete {key}{noreply}\r\n"),
        11 => format!("touch {key} 0{noreply}\r\n"),
        12 | 13 => format!("get {key}\r\n"),
        14 => format!("get {key} {other} {key} none {other}\r\n"),
        15 => format!("gat 0 {key} {other}\r\n"),
        16 => format!("mg {key} v f k s q Oa{number}\r\n"),
        17 => format!("ms {key} {bytes} F{number} k Ob\r\n{value}\r\n"),
        18 => format!("ma {key} N0 J{number} D3 v k\r\n"),
        19 => format!("md {key} q k O{number}\r\n"),
        20 => format!("mg {key} v N0 f\r\nmd {other} I\r\nmg {other} v\r\n"),
        _ => [
            "verbosity\r\n",
            "get\r\n",
            "set a b c 3\r\nabc\r\n",
            "\r\n",
            "version\r\n",
            "touch\r\n",
        ][random.below(6) as usize]
            .to_owned(),
    };
    out.extend_from_slice(command.as_bytes());
}

/// A stream of commands and the places where it is cut into writes.
struct Stream {
    number: u64,
    commands: Vec<u8>,
    cuts: Vec<usize>,
}

impl Stream {
    fn random(number: u64, flushes: bool) -> Self {
        let mut random = Random(number);
        let mut commands = Vec::new();
        for _ in 0..20 + random.below(120) {
            random_command(&mut random, &format!("s{number}-"), &mut commands);
            if flushes && random.below(25) == 0 {
                commands.extend_from_slice(b"flush_all\r\n");
            }
        }
        let mut cuts: Vec<usize> =
            (0..random.below(8)).map(|_| random.below(commands.len() as u64) as usize).collect();
        cuts.extend([0, commands.len()]);
        cuts.sort_unstable();
        Self { number, commands, cuts }
    }

    fn replies(&self, address: SocketAddr) -> Vec<u8> {
        let pieces = self.cuts.windows(2).map(|cut| &self.commands[cut[0]..cut[1]]);
        let mut client = Client::at(address);
        let replies = client.ask_in_pieces(pieces);
        client.reader.get_ref().shutdown(Shutdown::Write).unwrap();
        assert!(client.rest().is_empty(), "stream {}: nothing is left to say", self.number);
        replies
    }

    fn compare(&self, servers: &[Server]) {
        let expected = self.replies(servers[0].addresses()[0]);
        for (server, workers) in servers[1..].iter().zip(2..) {
            let seen = self.replies(server.addresses()[0]);
            let context = format!("stream {}, {workers} workers", self.number);
            assert_same(&seen, &expected, &context);
        }
    }
}

#[test]
fn random_streams_read_the_same_from_any_number_of_workers() {
    let servers: Vec<Server> = (1..=4).map(|workers| server(workers, |_| ())).collect();
    // Streams side by side keep out of each other's keys.
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let servers = &servers;
            scope.spawn(move || {
                (0..40).for_each(|at| Stream::random(thread * 40 + at, false).compare(servers));
            });
        }
    });
    // A flush is everyone's: one after the other.
    (160..200).for_each(|number| Stream::random(number, true).compare(&servers));
}

/// A stream that ends somewhere, perhaps in the middle of a command.
struct CutStream {
    number: u64,
    commands: Vec<u8>,
    /// Where the last command ends of which everything was sent.
    complete: usize,
    cut: usize,
    is_reset: bool,
}

impl CutStream {
    fn random(number: u64) -> Self {
        let mut random = Random(number);
        let (mut commands, mut ends) = (Vec::new(), vec![0]);
        for _ in 0..20 + random.below(60) {
            let mut one = Vec::new();
            random_command(&mut random, &format!("c{number}-"), &mut one);
            // Where one command ends is to be plain: no rows of them, none that is refused and
            // leaves its data behind.
            if !one.windows(5).any(|part| part == b"\r\nmd " || part == b"a b c") {
                commands.extend(one);
                ends.push(commands.len());
            }
        }
        let cut = random.below(commands.len() as u64 + 1) as usize;
        let complete = ends.into_iter().filter(|end| *end <= cut).max().unwrap_or(0);
        Self { number, commands, complete, cut, is_reset: random.below(4) == 0 }
    }

    /// Sends it, and says no more.
    fn replies(&self, server: &Server) -> Vec<u8> {
        let mut client = Client::of(server);
        let mut writer = client.reader.get_ref().try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // A client that resets may have done so before everything was sent.
                let sent = writer.write_all(&self.commands[..self.cut]);
                assert!(self.is_reset || sent.is_ok());
                let _ = writer.shutdown(Shutdown::Write);
            });
            if self.is_reset {
                // What it has not read makes the system reset the connection when it is closed.
                drop(client);
                return Vec::new();
            }
            client.rest()
        })
    }

    fn check(&self, server: &Server, reference: &Server) {
        let seen = self.replies(server);
        if !self.is_reset {
            let complete = [&self.commands[..self.complete]];
            let expected = Client::of(reference).ask_in_pieces(complete.into_iter());
            assert_same(&seen, &expected, &format!("stream {} cut at {}", self.number, self.cut));
        }
    }
}

/// S5: it was open whether servers or rigs end replies early.
#[test]
fn what_was_sent_whole_before_a_half_close_is_answered_whole() {
    const CLIENTS: u64 = 30;
    const STREAMS: u64 = 8;
    let reference = server(1, |_| ());
    for workers in [1, 2, 8] {
        let server = server(workers, |_| ());
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (server, reference) = (&server, &reference);
                scope.spawn(move || {
                    let first = (workers as u64 * CLIENTS + client) * STREAMS;
                    (first..first + STREAMS)
                        .for_each(|number| CutStream::random(number).check(server, reference));
                });
            }
        });
    }
}

#[test]
fn commands_on_one_key_take_effect_in_one_order() {
    const EACH: usize = 2_000;
    const CLIENTS: usize = 4;
    for workers in WORKERS {
        let server = server(workers, |_| ());
        Client::of(&server).ask_text("set n 0 0 1\r\n0\r\n");
        let mut numbers = std::thread::scope(|scope| {
            let count = || {
                let replies = Client::of(&server).ask_text(&"incr n 1\r\n".repeat(EACH));
                replies.lines().map(|line| line.parse().unwrap()).collect::<Vec<usize>>()
            };
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(count)).collect();
            clients.into_iter().map(|client| client.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(numbers.iter().all(|one| one.is_sorted()), "{workers} workers: replies in order");
        let mut all = numbers.drain(..).flatten().collect::<Vec<_>>();
        all.sort_unstable();
        assert!(all.into_iter().eq(1..=CLIENTS * EACH), "{workers} workers: each number once");
    }
}
