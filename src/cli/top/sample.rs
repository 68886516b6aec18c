//! What a server says of itself at one moment. Owns the reading of statistics; no I/O, no clock.

use std::collections::BTreeMap;
use std::time::Instant;

/// Statistics as the client hands them over.
pub(super) type Stats = BTreeMap<String, String>;

/// A server at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample {
    pub at: Instant,
    pub stats: Stats,
    /// `None` if the server does not tell; some servers do not have the statistics.
    pub latencies: Option<Vec<Latency>>,
    pub hot_keys: Option<Vec<HotKey>>,
}

/// How long one command takes, in microseconds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Latency {
    pub command: String,
    pub count: u64,
    pub p50: Option<u64>,
    pub p99: Option<u64>,
    pub p999: Option<u64>,
    pub max: Option<u64>,
}

/// A key that many ask for.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct HotKey {
    /// With odd bytes as `%` and two digits.
    pub key: String,
    /// Percent of all operations.
    pub share: Option<f64>,
    pub ops_per_second: Option<f64>,
    /// The largest value seen.
    pub bytes: Option<u64>,
}

impl Sample {
    pub(super) fn new(
        at: Instant,
        stats: Stats,
        latency: Option<&Stats>,
        hot: Option<&Stats>,
    ) -> Self {
        Self { at, stats, latencies: latency.map(latencies), hot_keys: hot.map(hot_keys) }
    }

    /// A number; `None` if the server does not tell it.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.stats.get(name)?.parse().ok()
    }

    /// The latency of the command that is used most.
    pub(super) fn busiest(&self) -> Option<&Latency> {
        self.latencies.as_ref()?.first()
    }
}

/// From `<command>:count`, `<command>:p50_us` and so on; the most used command first.
fn latencies(stats: &Stats) -> Vec<Latency> {
    let mut found: BTreeMap<&str, Latency> = BTreeMap::new();
    for (name, value) in stats {
        let (Some((command, what)), Ok(value)) = (name.rsplit_once(':'), value.parse()) else {
            continue;
        };
        let latency = found
            .entry(command)
            .or_insert_with(|| Latency { command: printable(command), ..Latency::default() });
        match what {
            "count" => latency.count = value,
            "p50_us" => latency.p50 = Some(value),
            "p99_us" => latency.p99 = Some(value),
            "p999_us" => latency.p999 = Some(value),
            "max_us" => latency.max = Some(value),
            _ => {}
        }
    }
    let used = |latency: &Latency| latency.count > 0;
    let mut latencies: Vec<Latency> = found.into_values().filter(used).collect();
    latencies.sort_by_key(|latency| std::cmp::Reverse(latency.count));
    latencies
}

/// From a rank, and behind it `key=K share=S ops_per_second=N bytes=N`; the hottest first.
fn hot_keys(stats: &Stats) -> Vec<HotKey> {
    let parse = |(rank, words): (&String, &String)| {
        let rank: u32 = rank.parse().ok()?;
        let field = |name: &str| {
            let mut words = words.split(' ').filter_map(|word| word.split_once('='));
            words.find(|(known, _)| *known == name).map(|(_, value)| value)
        };
        let hot = HotKey {
            key: printable(field("key")?),
            share: field("share").and_then(|share| share.parse().ok()),
            ops_per_second: field("ops_per_second").and_then(|count| count.parse().ok()),
            bytes: field("bytes").and_then(|bytes| bytes.parse().ok()),
        };
        Some((rank, hot))
    };
    let mut ranked: Vec<(u32, HotKey)> = stats.iter().filter_map(parse).collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, hot)| hot).collect()
}

/// What a server sent, without what a terminal would obey.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Statistics from `name value` lines.
    pub(crate) fn stats(text: &str) -> Stats {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.map(|line| line.split_once(' ').unwrap()).map(|(a, b)| (a.into(), b.into())).collect()
    }

    #[test]
    fn latencies_are_read() {
        let text = "get:count 7\nget:p50_us 3\nget:p99_us 9\nget:p999_us 20\nget:max_us 30\n\
                    mg:count 9\nmg:p50_us x\nset:count 0\nset:p50_us 0\nodd 1\na:b 5\n";
        let found = latencies(&stats(text));
        let get = Latency {
            command: "get".into(),
            count: 7,
            p50: Some(3),
            p99: Some(9),
            p999: Some(20),
            max: Some(30),
        };
        let mg = Latency { command: "mg".into(), count: 9, ..Latency::default() };
        assert_eq!(found, [mg, get]);
    }

    #[test]
    fn hot_keys_are_read() {
        let text = "10 key=j share=0.1 ops_per_second=1 bytes=2\n\
                    2 key=b%20c share=8.5 ops_per_second=85 bytes=1024\n\
                    1 key=a share=41.0 ops_per_second=410 bytes=7\n\
                    3 share=1.0\nx key=y\n4 key=d\u{1b}[2J share=?\n";
        let found = hot_keys(&stats(text));
        let keys: Vec<&str> = found.iter().map(|hot| hot.key.as_str()).collect();
        assert_eq!(keys, ["a", "b%20c", "d?[2J", "j"]);
        let second = HotKey {
            key: "b%20c".into(),
            share: Some(8.5),
            ops_per_second: Some(85.0),
            bytes: Some(1024),
        };
        assert_eq!(found[1], second);
        assert_eq!((found[2].share, found[2].bytes), (None, None));
    }
}
