//! The metrics for Prometheus. Goal: what is answered can be parsed to the last byte, its numbers
//! move with use, and a scraper that is slow, large or wrong holds up nobody. Method: an embedded
//! server, plain sockets, and a small parser of exposition format 0.0.4 that takes nothing which is
//! not in the format's description; every wait has a limit.

#![cfg(feature = "server")]

mod support;

use distcache::server::Server;
use distcache::server::config::{Config, DurabilityConfig};
use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use support::{PATIENCE, connect};

fn server(change: impl FnOnce(&mut Config)) -> Server {
    let metrics_address = Some(([127, 0, 0, 1], 0).into());
    let mut config = Config { workers: 2, metrics_address, ..Config::default() };
    change(&mut config);
    Server::start(config).unwrap()
}

fn scraper(server: &Server) -> TcpStream {
    connect(server.metrics_address().unwrap())
}

/// Sends commands and waits until all are answered.
fn say(server: &Server, commands: &str) -> Vec<String> {
    let mut stream = connect(server.addresses()[0]);
    stream.write_all(commands.as_bytes()).unwrap();
    stream.write_all(b"mn\r\n").unwrap();
    let lines = BufReader::new(stream).lines().map(Result::unwrap);
    lines.take_while(|line| line != "MN").collect()
}

/// Status, headers and body of an answer that ends with the connection.
fn answer_of(mut stream: TcpStream) -> (String, Vec<String>, String) {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let mut lines = head.split("\r\n").map(str::to_owned);
    let status = lines.next().unwrap().strip_prefix("HTTP/1.1 ").expect("a status").to_owned();
    let headers: Vec<String> = lines.collect();
    assert!(headers.contains(&format!("Content-Length: {}", body.len())), "{headers:?}");
    assert!(headers.contains(&"Connection: close".to_owned()), "{headers:?}");
    (status, headers, body.to_owned())
}

fn ask(server: &Server, request: &str) -> (String, Vec<String>, String) {
    let mut stream = scraper(server);
    stream.write_all(request.as_bytes()).unwrap();
    answer_of(stream)
}

fn scrape(server: &Server) -> Metrics {
    let (status, headers, body) = ask(server, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(status, "200 OK");
    let of_format = "Content-Type: text/plain; version=0.0.4; charset=utf-8";
    assert!(headers.iter().any(|header| header == of_format), "{headers:?}");
    parse(&body).unwrap_or_else(|why| panic!("{why} in\n{body}"))
}

/// Values by name and labels, as written.
#[derive(Debug, Default)]
struct Metrics {
    /// Kind by family.
    kinds: BTreeMap<String, String>,
    values: BTreeMap<String, f64>,
}

impl Metrics {
    fn get(&self, name: &str) -> f64 {
        *self.values.get(name).unwrap_or_else(|| panic!("{name} in {:?}", self.values.keys()))
    }
}

/// A metric's or label's name at the front of `text`, and the rest.
fn name_of(text: &str, colons: bool) -> Result<(&str, &str), String> {
    let is_in = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || (colons && byte == b':');
    let end = text.bytes().position(|byte| !is_in(byte)).unwrap_or(text.len());
    if end == 0 || text.as_bytes()[0].is_ascii_digit() {
        return Err(format!("no name at {text:?}"));
    }
    Ok(text.split_at(end))
}

/// Names and values.
type Labels = Vec<(String, String)>;

/// `{name="value",...}` at the front of `text`: the names and values, and the rest.
fn labels_of(text: &str) -> Result<(Labels, &str), String> {
    let Some(mut rest) = text.strip_prefix('{') else { return Ok((Labels::new(), text)) };
    let mut labels = Labels::new();
    loop {
        let (name, after) = name_of(rest, false)?;
        if labels.iter().any(|(other, _)| other == name) {
            return Err(format!("label {name} twice"));
        }
        rest = after.strip_prefix("=\"").ok_or("=\" is missing")?;
        let mut value = String::new();
        let mut letters = rest.char_indices();
        let end = loop {
            match letters.next().ok_or("a label does not end")? {
                (at, '"') => break at,
                (_, '\\') => match letters.next() {
                    Some((_, letter @ ('\\' | '"'))) => value.push(letter),
                    Some((_, 'n')) => value.push('\n'),
                    other => return Err(format!("escaped {other:?}")),
                },
                (_, letter) => value.push(letter),
            }
        };
        labels.push((name.to_owned(), value));
        rest = &rest[end + 1..];
        match rest.split_at_checked(1).ok_or("labels do not end")? {
            (",", after) => rest = after,
            ("}", after) => return Ok((labels, after)),
            _ => return Err(format!("{rest:?} after a label")),
        }
    }
}

fn value_of(text: &str) -> Result<f64, String> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit() || b".-+e".contains(&byte));
    let value: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if is_number { Ok(value) } else { Err(format!("{text:?} is not a number we write")) }
}

/// The name of the family that a sample belongs to.
fn family_of<'a>(name: &'a str, kind: &str) -> &'a str {
    let ends = ["_bucket", "_sum", "_count"];
    let of_histogram = || ends.iter().find_map(|end| name.strip_suffix(end));
    if kind == "histogram" { of_histogram().unwrap_or("") } else { name }
}

fn parse(text: &str) -> Result<Metrics, String> {
    let mut metrics = Metrics::default();
    let (mut helped, mut current) = (HashSet::new(), (String::new(), String::new()));
    if !text.ends_with('\n') {
        return Err("the last line does not end".to_owned());
    }
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = name_of(rest, true)?;
            if !help.starts_with(' ') || help.trim().is_empty() || !helped.insert(name) {
                return Err(format!("help again, or none: {line:?}"));
            }
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = name_of(rest, true)?;
            let kind = kind.trim_start();
            if !["counter", "gauge", "histogram"].contains(&kind) || !helped.contains(name) {
                return Err(format!("a type without help, or unknown: {line:?}"));
            }
            // Those of memcached_exporter are as they are.
            let ours = name.starts_with("distcache_");
            if ours && (kind == "counter") != name.ends_with("_total") {
                return Err(format!("{name} is a {kind}"));
            }
            if metrics.kinds.insert(name.to_owned(), kind.to_owned()).is_some() {
                return Err(format!("{name} has two types"));
            }
            current = (name.to_owned(), kind.to_owned());
        } else {
            let (name, rest) = name_of(line, true)?;
            let known = ["distcache_", "memcached_"].iter().any(|start| name.starts_with(start));
            if family_of(name, &current.1) != current.0 || !known {
                return Err(format!("{name} is not of the family {}", current.0));
            }
            let (labels, rest) = labels_of(rest)?;
            let value = value_of(rest.strip_prefix(' ').ok_or("no value")?)?;
            let mut key = name.to_owned();
            for (label, value) in labels {
                key += &format!(" {label}={value}");
            }
            if metrics.values.insert(key.clone(), value).is_some() {
                return Err(format!("{key} twice"));
            }
        }
    }
    Ok(metrics)
}

#[test]
fn the_parser_refuses_what_is_not_in_the_format() {
    let head = "# HELP distcache_x An x.\n# TYPE distcache_x gauge\n";
    for (text, right) in [
        ("distcache_x 1\n", true),
        ("distcache_x{a=\"b\\\\\\\"\\n\",c=\"\"} 1.5\n", true),
        ("distcache_x 1", false),
        ("distcache_x 1\ndistcache_x 2\n", false),
        ("distcache_x{a=\"1\"} 1\ndistcache_x{a=\"1\"} 1\n", false),
        ("distcache_x{a=\"1\",a=\"2\"} 1\n", false),
        ("distcache_x{a=\"\\t\"} 1\n", false),
        ("distcache_x{a=\"1\" 1\n", false),
        ("distcache_y 1\n", false),
        ("distcache_x  1\n", false),
        ("distcache_x one\n", false),
        ("\n", false),
        ("# TYPE distcache_x gauge\ndistcache_x 1\n", false),
        ("# HELP distcache_y A y.\n# TYPE distcache_y counter\ndistcache_y 1\n", false),
    ] {
        assert_eq!(parse(&format!("{head}{text}")).is_ok(), right, "{text:?}");
    }
}

#[test]
fn values_move_with_use() {
    let server = server(|_| ());
    let before = scrape(&server);
    let mut commands = String::new();
    for at in 0..500 {
        commands += &format!("set k{at} 0 0 3\r\nabc\r\nget k{at}\r\nget none{at}\r\n");
        commands += &format!("delete none\r\ntouch k{at} 0\r\nmg k{at} v\r\n");
    }
    commands += "get k1 k2 k3\r\n";
    say(&server, &commands);
    let after = scrape(&server);
    for (name, value) in [
        ("items", 500.0),
        ("workers", 2.0),
        ("connections_max", 1024.0),
        ("memory_limit_bytes", 64.0 * 1024.0 * 1024.0),
        ("commands_total command=get", 1503.0),
        ("commands_total command=set", 500.0),
        ("commands_total command=touch", 500.0),
        ("command_results_total command=get result=hit", 1003.0),
        ("command_results_total command=get result=miss", 500.0),
        ("command_results_total command=delete result=miss", 500.0),
        ("command_results_total command=touch result=hit", 500.0),
        ("evictions_total", 0.0),
        ("slow_commands_total", 0.0),
        ("persistence_enabled", 0.0),
    ] {
        assert_eq!(after.get(&format!("distcache_{name}")), value, "{name}");
    }
    for name in ["received_bytes_total", "sent_bytes_total", "connections_accepted_total"] {
        let name = format!("distcache_{name}");
        assert!(before.get(&name) < after.get(&name), "{name}");
    }
    assert!(after.get("distcache_item_bytes") > 1500.0);
    assert!(after.get("distcache_memory_used_bytes") > after.get("distcache_item_bytes"));
    assert_eq!(before.kinds.get("distcache_command_duration_seconds").unwrap(), "histogram");
    assert!(!before.values.keys().any(|name| name.contains("duration_seconds_bucket")));
}

#[test]
fn durations_are_histograms() {
    let server = server(|config| config.slow_command_us = 60_000_000);
    // Not all at once: of one connection 32 are timed at a time, and while another worker wakes up
    // no reply leaves.
    for _ in 0..20 {
        say(&server, &"get none\r\n".repeat(10));
    }
    let metrics = scrape(&server);
    let name = "distcache_command_duration_seconds";
    let count = metrics.get(&format!("{name}_count command=get"));
    // All are timed, but for a few of those that arrive at once.
    assert!((50.0..=200.0).contains(&count), "{count}");
    let mut buckets: Vec<(f64, f64)> = Vec::new();
    for (key, value) in &metrics.values {
        if let Some(bound) = key.strip_prefix(&format!("{name}_bucket command=get le=")) {
            buckets.push((bound.replace("+Inf", "inf").parse().unwrap(), *value));
        }
    }
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert!(buckets.len() > 20, "{buckets:?}");
    assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{buckets:?}");
    assert_eq!(*buckets.last().unwrap(), (f64::INFINITY, count));
    let sum = metrics.get(&format!("{name}_sum command=get"));
    assert!(0.0 < sum && sum < PATIENCE.as_secs_f64() * count, "{sum}");
}

#[test]
fn a_data_directory_has_metrics_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let settings =
        DurabilityConfig { directory: directory.path().join("data"), ..Default::default() };
    let server = server(|config| config.durability = Some(settings));
    say(&server, "set k 0 0 1\r\nx\r\n");
    assert_eq!(scrape(&server).get("distcache_snapshot_last_timestamp_seconds"), 0.0);
    server.snapshot().unwrap();
    let metrics = scrape(&server);
    for (name, value) in [
        ("persistence_enabled", 1.0),
        ("snapshots_total", 1.0),
        ("snapshot_failures_total", 0.0),
        ("snapshot_last_failed", 0.0),
        ("snapshot_last_items", 1.0),
        ("log_failed", 0.0),
        ("log_info fsync=everysec", 1.0),
        ("log_failures_total", 0.0),
    ] {
        assert_eq!(metrics.get(&format!("distcache_{name}")), value, "{name}");
    }
    assert!(metrics.get("distcache_snapshot_last_timestamp_seconds") > 1.7e9);
    assert!(metrics.get("distcache_log_unsynced_age_seconds") < 60.0);
}

#[test]
fn other_requests_are_refused() {
    let server = server(|_| ());
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "404 Not Found"),
        ("GET /metric HTTP/1.1\r\n\r\n", "404 Not Found"),
        ("POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "405 Method Not Allowed"),
        ("get k\r\n\r\n", "400 Bad Request"),
    ] {
        let (found, headers, _) = ask(&server, request);
        assert_eq!(found, status, "{request:?}");
        let allows = headers.iter().any(|header| header == "Allow: GET, HEAD");
        assert_eq!(allows, status.starts_with("405"), "{headers:?}");
    }
    // More than a head may have, and more than is read of it.
    let large = format!("GET /metrics HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(30_000));
    assert_eq!(ask(&server, &large).0, "431 Request Header Fields Too Large");
    // Split anywhere, it is the same request.
    let mut stream = scraper(&server);
    for byte in b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" {
        stream.write_all(&[*byte]).unwrap();
    }
    assert_eq!(answer_of(stream).0, "200 OK");
}

#[test]
fn scrapers_that_say_nothing_are_closed_and_hold_up_nobody() {
    let server = server(|_| ());
    let since = Instant::now();
    // As many as are served at a time, less one; and one that does not read its answer.
    let mut silent: Vec<TcpStream> = (0..14).map(|_| scraper(&server)).collect();
    silent[0].write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
    silent[1].write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    for _ in 0..20 {
        scrape(&server);
        assert_eq!(say(&server, "get none\r\n"), ["END"]);
    }
    assert!(since.elapsed() < Duration::from_millis(4_500), "held up: {:?}", since.elapsed());
    // With all places taken those that have said nothing for longest make room.
    silent.extend((0..100).map(|_| scraper(&server)));
    let since = Instant::now();
    for _ in 0..5 {
        scrape(&server);
    }
    assert!(since.elapsed() < Duration::from_secs(3), "held up: {:?}", since.elapsed());
    let mut text = Vec::new();
    assert_eq!(silent[2].read_to_end(&mut text).unwrap(), 0, "closed without an answer");
}

/// The head of an answer is that of the whole answer.
#[test]
fn heads_are_answered_alone() {
    let server = server(|_| ());
    for path in ["/metrics", "/livez", "/nowhere"] {
        let mut stream = scraper(&server);
        write!(stream, "HEAD {path} HTTP/1.1\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let status = if path == "/nowhere" { "404 Not Found" } else { "200 OK" };
        assert!(text.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{text}");
        assert!(text.ends_with("\r\nConnection: close\r\n\r\n"), "{text}");
        assert!(text.contains("\r\nContent-Length: ") && !text.contains(": 0\r\n"), "{text}");
    }
}

/// What dashboards and alerts for memcached_exporter ask for, with the values of `stats`.
#[test]
fn the_metrics_of_the_exporter_are_there() {
    let server = server(|_| ());
    say(
        &server,
        "set k 0 0 3\r\nabc\r\nget k\r\nget none\r\ncas k 0 0 1 1\r\nx\r\ndelete none\r\n\
         incr none 1\r\ntouch k 0\r\nset n 0 0 1\r\n1\r\nincr n 1\r\ndelete n\r\n\
         flush_all 1000\r\n",
    );
    let metrics = scrape(&server);
    for (name, kind, value) in [
        ("up", "gauge", 1.0),
        ("version version=1.6.45", "gauge", 1.0),
        ("max_connections", "gauge", 1024.0),
        ("limit_bytes", "gauge", 67_108_864.0),
        ("current_items", "gauge", 1.0),
        ("items_total", "counter", 2.0),
        ("items_evicted_total", "counter", 0.0),
        ("items_reclaimed_total", "counter", 0.0),
        ("connections_rejected_total", "counter", 0.0),
        ("connections_yielded_total", "counter", 0.0),
        ("connections_listener_disabled_total", "counter", 0.0),
        ("accepting_connections", "gauge", 1.0),
        ("commands_total command=get status=hit", "counter", 1.0),
        ("commands_total command=get status=miss", "counter", 1.0),
        // `cas` is not counted with `set`.
        ("commands_total command=set status=hit", "counter", 2.0),
        ("commands_total command=cas status=badval", "counter", 1.0),
        ("commands_total command=delete status=hit", "counter", 1.0),
        ("commands_total command=delete status=miss", "counter", 1.0),
        ("commands_total command=incr status=hit", "counter", 1.0),
        ("commands_total command=touch status=hit", "counter", 1.0),
        ("commands_total command=flush status=hit", "counter", 1.0),
        ("lru_crawler_enabled", "gauge", 1.0),
        ("lru_crawler_hot_max_factor", "gauge", 0.2),
        ("slab_current_items slab=1", "gauge", 1.0),
        ("slab_chunks_used slab=1", "gauge", 1.0),
        ("slab_lru_hits_total slab=1 lru=cold", "counter", 1.0),
        ("slab_commands_total slab=1 command=set status=hit", "counter", 2.0),
    ] {
        let name = format!("memcached_{name}");
        assert_eq!(metrics.get(&name), value, "{name}");
        assert_eq!(metrics.kinds[name.split(' ').next().unwrap()], kind, "{name}");
    }
    // Processor time is not there everywhere.
    let of_unix = if cfg!(unix) { &["process_user_cpu_seconds_total"][..] } else { &[] };
    for name in ["uptime_seconds", "connections_total"].iter().chain(of_unix) {
        assert_eq!(metrics.kinds[&format!("memcached_{name}")], "counter");
    }
    for name in ["read_bytes_total", "written_bytes_total", "current_bytes", "malloced_bytes"] {
        assert!(metrics.get(&format!("memcached_{name}")) > 0.0, "{name}");
    }
}

#[test]
fn many_scrape_while_workers_are_busy() {
    let server = server(|_| ());
    let commands = "set k 0 0 1\r\nx\r\nget k\r\nget none\r\n".repeat(2_000);
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for _ in 0..2 {
            scope.spawn(|| (0..10).for_each(|_| drop(say(&server, &commands))));
        }
        for _ in 0..8 {
            threads.push(scope.spawn(|| {
                let values = (0..20).map(|_| scrape(&server).get("distcache_uptime_seconds"));
                assert!(values.collect::<Vec<_>>().is_sorted());
            }));
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    assert_eq!(scrape(&server).get("distcache_commands_total command=set"), 40_000.0);
}

#[test]
fn without_an_address_there_are_no_metrics() {
    let server = server(|config| config.metrics_address = None);
    assert_eq!(server.metrics_address(), None);
}
