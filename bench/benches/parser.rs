//! Micro-benchmarks of the command parser: one line each. Owns the lines; executes nothing.

use std::time::Duration;

use distcache::protocol::parse::words;
use distcache::protocol::{Request, parse_line};
use divan::Bencher;
use divan::counter::ItemsCount;

fn main() {
    let divan = divan::Divan::default().sample_count(100).sample_size(1000);
    divan.max_time(Duration::from_secs(1)).config_with_args().main();
}

/// The lines, without their line ends.
const LINES: &[(&str, &str)] = &[
    ("get", "get user:0000012345"),
    ("gets", "gets user:0000012345"),
    ("set", "set user:0000012345 0 0 230"),
    ("set-noreply", "set user:0000012345 32 3600 230 noreply"),
    ("cas", "cas user:0000012345 0 0 230 1234567890123"),
    ("delete", "delete user:0000012345"),
    ("incr", "incr user:0000012345 1"),
    ("touch", "touch user:0000012345 3600"),
    ("mg", "mg user:0000012345 v"),
    ("mg-flags", "mg user:0000012345 k t f v c O1234 R30"),
    ("ms", "ms user:0000012345 230 T3600 F32"),
    ("unknown", "obtain user:0000012345"),
];

#[divan::bench(args = LINES.iter().map(|line| line.0))]
fn line(bencher: Bencher<'_, '_>, name: &str) {
    let found = LINES.iter().find(|line| line.0 == name);
    let text = found.expect("the name is from the table").1.as_bytes();
    bencher.bench_local(|| parse_line(divan::black_box(text), 2).is_ok());
}

/// A get of many keys, with its keys taken apart as the session does; time per key.
#[divan::bench(args = [10, 100])]
fn get_of_keys(bencher: Bencher<'_, '_>, keys: usize) {
    let list: Vec<String> = (0..keys).map(|key| format!("user:{key:010}")).collect();
    let text = format!("get {}", list.join(" "));
    bencher.counter(ItemsCount::new(keys)).bench_local(|| {
        let Ok(line) = parse_line(divan::black_box(text.as_bytes()), 2) else { return 0 };
        let Request::Get { keys, .. } = line.request else { return 0 };
        words(keys).map(<[u8]>::len).sum()
    });
}
