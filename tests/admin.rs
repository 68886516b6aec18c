//! What operators ask of a running server: dumps of all items and watching what happens. Goal: a
//! dump lists everything once, whatever goes on meanwhile, and whoever does not read costs little
//! memory and holds up nobody. Method: an embedded server, plain sockets, every wait with
//! a limit.

#![cfg(feature = "server")]

mod support;

use distcache::server::Server;
use distcache::server::config::Config;
use std::collections::HashMap;
use std::io::Read;
use std::time::{Duration, Instant};
use support::{Client, PATIENCE};

fn server(workers: usize, change: impl FnOnce(&mut Config)) -> Server {
    let mut config = Config { workers, memory_bytes_max: 256 << 20, ..Config::default() };
    change(&mut config);
    Server::start(config).unwrap()
}

/// Stores `count` keys named `<name>-<number>`.
fn fill(client: &mut Client, name: &str, count: usize) {
    let commands: Vec<String> =
        (0..count).map(|at| format!("set {name}-{at} {at} 0 3 noreply\r\nabc\r\n")).collect();
    for some in commands.chunks(1000) {
        client.send(&some.concat());
        client.check("mn\r\n", "MN");
    }
}

/// The key of a line of either dump.
fn key_of(line: &str) -> &str {
    let rest = line.strip_prefix("key=").or(line.strip_prefix("mg ")).expect(line);
    rest.split([' ', '\r']).next().unwrap()
}

#[test]
fn a_dump_lists_what_is_there_all_along_exactly_once() {
    const KEYS: usize = 20_000;
    for workers in [1, 2, 4] {
        let server = server(workers, |_| ());
        let (mut dumper, mut other) =
            (Client::at(server.addresses()[0]), Client::at(server.addresses()[0]));
        fill(&mut other, "stays", KEYS);
        for (command, last) in [("metadump", "END"), ("mgdump", "EN")] {
            dumper.check(&format!("lru_crawler {command} all\r\n"), "OK");
            // Meanwhile others come, replace and go.
            fill(&mut other, "comes", KEYS);
            fill(&mut other, "stays", KEYS / 2);
            let lines = dumper.lines_to(last);
            let mut seen: HashMap<&str, usize> = HashMap::new();
            for line in &lines {
                *seen.entry(key_of(line)).or_default() += 1;
            }
            assert!(seen.values().all(|count| *count == 1), "{command}: twice in one dump");
            let stayed = seen.keys().filter(|key| key.starts_with("stays-")).count();
            assert_eq!(stayed, KEYS, "{command} with {workers} workers");
            if command == "metadump" {
                let line = lines.iter().find(|line| key_of(line) == "stays-7").unwrap();
                assert!(line.starts_with("key=stays-7 exp=-1 la="), "{line:?}");
                assert!(line.ends_with(" flags=7 "), "{line:?}");
            }
        }
        dumper.check("version\r\n", &format!("VERSION {}", "1.6.45"));
    }
}

#[test]
fn commands_behind_a_dump_are_answered_behind_it() {
    let server = server(2, |_| ());
    let mut client = Client::at(server.addresses()[0]);
    client.check("set k 0 0 1\r\nx\r\n", "STORED");
    client.send("lru_crawler metadump all\r\nget none\r\nmn\r\n");
    assert_eq!(client.line(), "OK");
    assert_eq!(client.lines_to("END").len(), 1);
    assert_eq!([client.line(), client.line()], ["END", "MN"]);
}

/// Memory of this process in bytes.
fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn a_dump_that_nobody_reads_waits_and_holds_little() {
    const KEYS: usize = 200_000;
    let server = server(2, |_| ());
    let mut client = Client::at(server.addresses()[0]);
    // Long keys, so that a dump is 50 MB.
    fill(&mut client, &"k".repeat(240), KEYS);
    let before = resident_bytes();
    let mut dumpers: Vec<Client> = (0..8).map(|_| Client::at(server.addresses()[0])).collect();
    for dumper in &mut dumpers {
        dumper.check("lru_crawler metadump all\r\n", "OK");
    }
    for _ in 0..1000 {
        client.check("get none\r\n", "END");
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 100 << 20, "{grown} bytes more for {} dumps", dumpers.len());
    // One of them goes on, the others go away.
    let mut last = dumpers.pop().unwrap();
    drop(dumpers);
    assert_eq!(last.lines_to("END").len(), KEYS);
}

#[test]
fn dumps_are_refused_where_they_are_forbidden() {
    let server = server(1, |config| config.dump = false);
    let mut client = Client::at(server.addresses()[0]);
    client.check("lru_crawler metadump all\r\n", "ERROR metadump not allowed");
    client.check("lru_crawler mgdump all\r\n", "ERROR key dump not allowed");
}

/// The event without what differs from run to run.
fn event(line: &str) -> String {
    let differs = ["ts=", "gid=", "cfd=", "rport="];
    let words = line.trim_end().split(' ');
    let kept: Vec<&str> =
        words.filter(|word| !differs.iter().any(|d| word.starts_with(d))).collect();
    kept.join(" ")
}

#[test]
fn a_watcher_is_told_in_the_order_of_one_connection() {
    for workers in [1, 3] {
        let server = server(workers, |_| ());
        let mut watcher = Client::at(server.addresses()[0]);
        watcher.check("watch mutations deletions\r\n", "OK");
        let mut client = Client::at(server.addresses()[0]);
        client.check("set k 0 100 3\r\nabc\r\n", "STORED");
        client.check("add k 0 0 1\r\na\r\n", "NOT_STORED");
        client.check("cas k 0 0 1 1\r\na\r\n", "EXISTS");
        client.check("cas none 0 0 1 1\r\na\r\n", "NOT_FOUND");
        client.check("append k 0 0 1\r\nd\r\n", "STORED");
        client.check("ms k 2 MP\r\nxx\r\n", "HD");
        client.check("append none 0 0 1\r\nd\r\n", "NOT_STORED");
        client.check("ms new 2 MA N30\r\nxx\r\n", "HD");
        client.check("ms k 1 MR q\r\na\r\nmn\r\n", "MN");
        client.check("set k 0 0 1000000000\r\n", "SERVER_ERROR object too large for cache");
        let mut client = Client::at(server.addresses()[0]);
        client.check("ma n N0 J5\r\n", "HD");
        client.check("md n q\r\nmn\r\n", "MN");
        let expected = [
            "type=item_store key=k status=stored cmd=set ttl=100 clsid=1 size=3",
            "type=item_store key=k status=not_stored cmd=add ttl=0 clsid=1 size=1",
            "type=item_store key=k status=exists cmd=cas ttl=0 clsid=1 size=1",
            "type=item_store key=none status=not_found cmd=cas ttl=0 clsid=1 size=1",
            "type=item_store key=k status=stored cmd=append ttl=100 clsid=1 size=4",
            "type=item_store key=k status=stored cmd=prepend ttl=100 clsid=1 size=6",
            "type=item_store key=none status=not_stored cmd=append ttl=0 clsid=1 size=1",
            "type=item_store key=new status=stored cmd=append ttl=30 clsid=1 size=2",
            "type=item_store key=k status=stored cmd=replace ttl=0 clsid=1 size=1",
            "type=item_store key=k status=too_large cmd=set ttl=0 clsid=0 size=0",
            "type=item_store key=n status=stored cmd=add ttl=0 clsid=1 size=1",
            "type=deleted key=n cmd=md clsid=1 size=1",
        ];
        let mut seen: Vec<String> = (0..expected.len()).map(|_| event(&watcher.line())).collect();
        // Keys of several workers are told by each of them.
        seen.sort_by_key(|line| expected.iter().position(|other| other == line));
        assert_eq!(seen, expected, "{workers} workers");
        assert_eq!(client.stat("log_watcher_sent"), expected.len() as u64);
    }
}

#[test]
fn a_watcher_sees_connections_come_and_go_and_items_evicted() {
    let server = server(1, |config| {
        config.memory_bytes_max = 4 << 20;
        config.item_bytes_max = 1 << 20;
    });
    let mut connections = Client::at(server.addresses()[0]);
    connections.check("watch connevents\r\n", "OK");
    let mut evictions = Client::at(server.addresses()[0]);
    evictions.check("watch evictions\r\n", "OK");
    let mut client = Client::at(server.addresses()[0]);
    let value = "v".repeat(1000);
    for at in 0..8000 {
        client.send(&format!("set key-{at} 0 1000 1000 noreply\r\n{value}\r\n"));
    }
    client.check("mn\r\n", "MN");
    let line = event(&evictions.line());
    assert!(line.starts_with("type=eviction key=key-"), "{line}");
    assert!(line.contains(" fetch=no ttl=") && line.ends_with(" clsid=1 size=1000"), "{line}");
    drop(client);
    let expected = [
        "type=conn_new rip=127.0.0.1 transport=tcp",
        "type=conn_new rip=127.0.0.1 transport=tcp",
        "type=conn_close rip=127.0.0.1 transport=tcp reason=normal",
    ];
    assert_eq!([(); 3].map(|()| event(&connections.line())), expected);
}

/// Why a connection went is told as memcached tells it.
#[test]
fn a_watcher_sees_why_connections_go() {
    let server = server(1, |config| config.idle_timeout_seconds = 1);
    let mut watcher = Client::at(server.addresses()[0]);
    watcher.check("watch connevents\r\n", "OK");
    let junk = "x".repeat(5000);
    for (said, reason) in [
        ("quit\r\n", "normal"),
        ("GET / HTTP/1.1\r\n", "error"),
        (&junk, "error"),
        ("get a\r\n", "idle_timeout"),
    ] {
        let mut client = Client::at(server.addresses()[0]);
        client.send(said);
        let mut answer = Vec::new();
        client.0.read_to_end(&mut answer).unwrap();
        assert_eq!(event(&watcher.line()), "type=conn_new rip=127.0.0.1 transport=tcp");
        let went = format!("type=conn_close rip=127.0.0.1 transport=tcp reason={reason}");
        assert_eq!(event(&watcher.line()), went, "{said:?}");
    }
}

#[test]
fn a_watcher_sees_the_sweep_go_round() {
    let server = server(1, |_| ());
    let mut watcher = Client::at(server.addresses()[0]);
    watcher.check("watch sysevents\r\n", "OK");
    let mut client = Client::at(server.addresses()[0]);
    client.check("set gone 0 1 1\r\nx\r\n", "STORED");
    let mut reclaimed = 0;
    while reclaimed == 0 {
        let line = event(&watcher.line());
        assert!(line.starts_with("type=lru_crawler crawler=1 lru=cold low_mark="), "{line}");
        reclaimed = line.rsplit('=').next().unwrap().parse().unwrap();
    }
    assert_eq!(reclaimed, 1);
}

/// In the words of memcached, for the same states.
#[test]
fn connections_tell_what_they_are_in_the_middle_of() {
    let server = server(1, |_| ());
    let value = "x".repeat(4 << 20);
    let mut reader = Client::at(server.addresses()[0]);
    for at in 0..4 {
        let value = &value[..1_000_000];
        reader.check(&format!("set v{at} 0 0 {}\r\n{value}\r\n", value.len()), "STORED");
    }
    let many = "get v0 v1 v2 v3\r\n".repeat(20);
    let cases = [
        ("", "conn_new_cmd"),
        ("get a\r\n", "conn_read"),
        ("get a", "conn_read"),
        ("get a\r\nget", "conn_read"),
        ("set a 0 0 5\r\nxx", "conn_nread"),
        ("set a 0 0 9999999\r\nxx", "conn_swallow"),
        ("watch fetchers\r\n", "conn_watch"),
        (&many, "conn_mwrite"),
    ];
    let open: Vec<(Client, &str)> = cases
        .iter()
        .map(|(said, state)| {
            let mut client = Client::at(server.addresses()[0]);
            client.send(said);
            (client, *state)
        })
        .collect();
    let mut asker = Client::at(server.addresses()[0]);
    let since = std::time::Instant::now();
    loop {
        asker.send("stats conns\r\n");
        let lines = asker.lines_to("END");
        let state_of = |client: &Client| {
            let address = client.0.get_ref().local_addr().unwrap();
            let own = format!(":addr tcp:{address}");
            let line = lines.iter().find(|line| line.ends_with(&own)).unwrap();
            let start = line.replace(&own, ":state ");
            let state = lines.iter().find_map(|line| line.strip_prefix(&start)).unwrap();
            state.trim_end().to_owned()
        };
        let found: Vec<String> = open.iter().map(|(client, _)| state_of(client)).collect();
        assert_eq!(state_of(&asker), "conn_parse_cmd");
        let expected: Vec<&str> = open.iter().map(|(_, state)| *state).collect();
        if found == expected {
            return;
        }
        assert!(since.elapsed() < PATIENCE, "{found:?}, not {expected:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_watcher_that_does_not_read_is_skipped_and_told_so() {
    const EVENTS: u64 = 300_000;
    let server = server(2, |_| ());
    let mut watcher = Client::at(server.addresses()[0]);
    watcher.check("watch fetchers\r\n", "OK");
    let mut client = Client::at(server.addresses()[0]);
    let gets = format!("{}mn\r\n", "mg none\r\n".repeat(1000));
    for _ in 0..EVENTS / 1000 {
        client.send(&gets);
        assert_eq!(client.lines_to("MN").len(), 1000);
    }
    let skipped = client.stat("log_watcher_skipped");
    let written = client.stat("log_worker_written");
    assert!(skipped > 0, "the queue of a watcher is not bounded");
    assert_eq!(written + client.stat("log_worker_dropped"), EVENTS);
    let (mut told, mut seen) = (0, 0);
    // What was skipped is told before the next line.
    let deadline = Instant::now() + PATIENCE;
    while told + seen < written && Instant::now() < deadline {
        let line = watcher.line();
        match line.trim().strip_prefix("skipped=") {
            Some(count) => told += count.parse::<u64>().unwrap(),
            None => seen += 1,
        }
    }
    assert_eq!((told + seen, told), (written, skipped));
}

#[test]
fn there_are_twenty_watchers_and_their_places_become_free() {
    let server = server(2, |_| ());
    let mut watchers: Vec<Client> = (0..20).map(|_| Client::at(server.addresses()[0])).collect();
    for watcher in &mut watchers {
        watcher.check("watch\r\n", "OK");
    }
    let mut client = Client::at(server.addresses()[0]);
    client.check("watch\r\n", "WATCHER_TOO_MANY log watcher limit reached");
    // A watcher is not listened to.
    watchers[0].send("version\r\nquit\r\n");
    client.check("get k\r\n", "END");
    assert!(watchers[0].line().contains("key=k status=not_found"));
    drop(watchers);
    let deadline = Instant::now() + PATIENCE;
    while client.stat("log_watchers") > 0 {
        assert!(Instant::now() < deadline, "watchers that are gone keep their places");
    }
    client.check("watch\r\n", "OK");
}

/// Once they vanished when everything was flushed, and left gaps in what draws them.
#[test]
fn the_class_stays_when_it_is_empty() {
    let server = server(2, |_| ());
    let mut client = Client::at(server.addresses()[0]);
    client.check("stats slabs\r\n", "STAT active_slabs 0");
    client.lines_to("END");
    client.check("set k 0 0 1\r\nx\r\n", "STORED");
    for said in ["", "flush_all\r\n", "stats reset\r\n"] {
        if !said.is_empty() {
            client.send(said);
            client.line();
        }
        client.send("stats slabs\r\n");
        let lines = client.lines_to("END");
        for line in ["STAT 1:chunk_size ", "STAT 1:used_chunks ", "STAT active_slabs 1"] {
            assert!(lines.iter().any(|other| other.starts_with(line)), "{said}: {lines:?}");
        }
    }
}

#[test]
fn settings_of_flash_are_remembered_and_nothing_else() {
    let server = server(1, |_| ());
    let mut client = Client::at(server.addresses()[0]);
    client.check("stats extstore\r\n", "END");
    client.check("extstore item_age 10\r\n", "OK");
    client.check("extstore item_age\r\n", "ERROR");
    client.check("extstore low_ttl 5 noreply\r\nslabs automove freeratio 0.5\r\n", "OK");
    client.send("stats settings\r\n");
    let lines = client.lines_to("END");
    for line in ["ext_item_age 10", "ext_low_ttl 5", "slab_automove_freeratio 0.500"] {
        let line = format!("STAT {line}");
        assert!(lines.contains(&line), "{line}: {lines:?}");
    }
}

#[test]
fn a_cluster_is_described_by_a_file_that_is_read_again() {
    let path = std::env::temp_dir().join(format!("distcache-cluster-{}", std::process::id()));
    std::fs::write(&path, "1\na.example|10.0.0.1|11211\n").unwrap();
    let server = server(2, |config| config.cluster_file = Some(path.clone()));
    let mut client = Client::at(server.addresses()[0]);
    let mut ask = || {
        client.send("config get cluster\r\n");
        client.lines_to("END").join("\n")
    };
    let first = "CONFIG cluster 0 27\n1\na.example|10.0.0.1|11211\n";
    assert_eq!(ask(), first);
    std::fs::write(&path, "broken\n").unwrap();
    assert!(server.reload());
    assert_eq!(ask(), first, "a broken file changes nothing");
    std::fs::write(&path, "2\nb.example||11212\n").unwrap();
    assert!(server.reload());
    assert_eq!(ask(), "CONFIG cluster 0 19\n2\nb.example||11212\n");
    std::fs::remove_file(&path).unwrap();
}
