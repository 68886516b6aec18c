//! From samples to what is shown: rates, ratios, sums. Pure: no I/O, no clock.

use super::sample::{HotKey, Latency, Sample};
use std::cmp::Ordering;
use std::time::Duration;

/// Hot keys shown for all servers together.
const HOT_KEYS_MAX: usize = 100;

/// The samples of one server that matter now.
#[derive(Debug, Default)]
pub(super) struct Series {
    pub name: String,
    earlier: Option<Sample>,
    latest: Option<Sample>,
    /// Why it is down.
    cause: Option<String>,
}

/// What is known of a server, or of all; `None` is shown as `-`.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Row {
    pub name: String,
    pub state: State,
    /// Operations a second.
    pub ops: Option<f64>,
    pub get: Option<f64>,
    pub set: Option<f64>,
    pub delete: Option<f64>,
    pub touch: Option<f64>,
    pub incr: Option<f64>,
    /// Percent of the keys asked for since the sample before.
    pub hits: Option<f64>,
    pub bytes: Option<f64>,
    pub bytes_max: Option<f64>,
    pub items: Option<f64>,
    pub evictions: Option<f64>,
    pub connections: Option<f64>,
    /// Bytes a second.
    pub bytes_in: Option<f64>,
    pub bytes_out: Option<f64>,
    /// Microseconds, of the most used command.
    pub p50: Option<f64>,
    pub p99: Option<f64>,
    pub version: Option<String>,
    /// Keys asked for a second, and those found: what `hits` is made of.
    pub asked: Option<f64>,
    pub found: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub(super) enum State {
    /// No answer yet.
    #[default]
    Waiting,
    Up,
    Down(String),
    /// Of all servers, so many.
    Sum {
        up: usize,
        of: usize,
    },
}

impl Series {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// A sample, or why there is none. A server that was restarted or away starts anew.
    pub(super) fn push(&mut self, sampled: Result<Sample, String>) {
        let sample = match sampled {
            Ok(sample) => sample,
            Err(cause) => {
                let name = std::mem::take(&mut self.name);
                *self = Self { name, cause: Some(cause), ..Self::default() };
                return;
            }
        };
        self.cause = None;
        self.earlier = self.latest.take().filter(|earlier| !was_restarted(earlier, &sample));
        self.latest = Some(sample);
    }

    /// How much counters grew in a second; `None` if the server has none of them, or too little is
    /// known yet.
    fn rate(&self, names: &[&str]) -> Option<f64> {
        let (earlier, latest) = (self.earlier.as_ref()?, self.latest.as_ref()?);
        let seconds = latest.at.checked_duration_since(earlier.at)?.max(Duration::from_millis(1));
        // One that shrank was reset meanwhile: what it has is its growth since then.
        let growth = |name: &&str| {
            let (before, now) = (earlier.number(name)?, latest.number(name)?);
            Some(now.checked_sub(before).unwrap_or(now))
        };
        let growths: Vec<u64> = names.iter().filter_map(growth).collect();
        let sum = growths.iter().fold(0u64, |sum, growth| sum.saturating_add(*growth));
        (!growths.is_empty()).then(|| sum as f64 / seconds.as_secs_f64())
    }

    pub(super) fn row(&self) -> Row {
        let number = |name| Some(self.latest.as_ref()?.number(name)? as f64);
        let busiest = self.latest.as_ref().and_then(Sample::busiest);
        let state = match (&self.cause, &self.latest) {
            (Some(cause), _) => State::Down(cause.clone()),
            (None, None) => State::Waiting,
            (None, Some(_)) => State::Up,
        };
        Row {
            name: self.name.clone(),
            state,
            get: self.rate(&["cmd_get"]),
            set: self.rate(&["cmd_set"]),
            delete: self.rate(&["delete_hits", "delete_misses"]),
            touch: self.rate(&["cmd_touch"]),
            incr: self.rate(&["incr_hits", "incr_misses", "decr_hits", "decr_misses"]),
            asked: self.rate(&["get_hits", "get_misses"]),
            found: self.rate(&["get_hits"]),
            bytes: number("bytes"),
            bytes_max: number("limit_maxbytes"),
            items: number("curr_items"),
            evictions: self.rate(&["evictions"]),
            connections: number("curr_connections"),
            bytes_in: self.rate(&["bytes_read"]),
            bytes_out: self.rate(&["bytes_written"]),
            p50: busiest.and_then(|one| one.p50).map(|micros| micros as f64),
            p99: busiest.and_then(|one| one.p99).map(|micros| micros as f64),
            version: self.latest.as_ref().and_then(|one| one.stats.get("version").cloned()),
            ..Row::default()
        }
        .summed_up()
    }

    pub(super) fn latencies(&self) -> Option<&[Latency]> {
        self.latest.as_ref()?.latencies.as_deref()
    }

    pub(super) fn hot_keys(&self) -> Option<&[HotKey]> {
        self.latest.as_ref()?.hot_keys.as_deref()
    }
}

fn was_restarted(earlier: &Sample, latest: &Sample) -> bool {
    let shrank = match (earlier.number("uptime"), latest.number("uptime")) {
        (Some(before), Some(now)) => now < before,
        _ => false,
    };
    shrank || earlier.stats.get("pid") != latest.stats.get("pid")
}

impl Row {
    /// Fills in what follows from the rest.
    fn summed_up(mut self) -> Self {
        self.ops = sum([self.get, self.set, self.delete, self.touch, self.incr]);
        self.hits = match (self.asked, self.found) {
            (Some(asked), Some(found)) if asked > 0.0 => Some(100.0 * found / asked),
            _ => None,
        };
        self
    }
}

/// The sum of what is known.
fn sum(parts: impl IntoIterator<Item = Option<f64>>) -> Option<f64> {
    parts.into_iter().flatten().fold(None, |sum, part| Some(sum.unwrap_or(0.0) + part))
}

/// All servers as one; times are those of the slowest.
pub(super) fn total(rows: &[Row]) -> Row {
    let all = |part: fn(&Row) -> Option<f64>| sum(rows.iter().map(part));
    let slowest = |part: fn(&Row) -> Option<f64>| rows.iter().filter_map(part).reduce(f64::max);
    let up = rows.iter().filter(|row| row.state == State::Up).count();
    Row {
        name: "all".to_owned(),
        state: State::Sum { up, of: rows.len() },
        get: all(|row| row.get),
        set: all(|row| row.set),
        delete: all(|row| row.delete),
        touch: all(|row| row.touch),
        incr: all(|row| row.incr),
        asked: all(|row| row.asked),
        found: all(|row| row.found),
        bytes: all(|row| row.bytes),
        bytes_max: all(|row| row.bytes_max),
        items: all(|row| row.items),
        evictions: all(|row| row.evictions),
        connections: all(|row| row.connections),
        bytes_in: all(|row| row.bytes_in),
        bytes_out: all(|row| row.bytes_out),
        p50: slowest(|row| row.p50),
        p99: slowest(|row| row.p99),
        ..Row::default()
    }
    .summed_up()
}

/// The latencies of all servers: counts added, times those of the slowest.
pub(super) fn all_latencies(servers: &[Series]) -> Option<Vec<Latency>> {
    let mut merged: Vec<Latency> = Vec::new();
    let mut known = false;
    for latency in servers.iter().filter_map(Series::latencies).inspect(|_| known = true).flatten()
    {
        match merged.iter_mut().find(|one| one.command == latency.command) {
            None => merged.push(latency.clone()),
            Some(one) => {
                one.count = one.count.saturating_add(latency.count);
                one.p50 = one.p50.max(latency.p50);
                one.p99 = one.p99.max(latency.p99);
                one.p999 = one.p999.max(latency.p999);
                one.max = one.max.max(latency.max);
            }
        }
    }
    merged.sort_by_key(|latency| std::cmp::Reverse(latency.count));
    known.then_some(merged)
}

/// The hot keys of all servers, those with most operations first. Shares are of one server's
/// operations each, so they are left out.
pub(super) fn all_hot_keys(servers: &[Series]) -> Option<Vec<HotKey>> {
    let lists: Vec<&[HotKey]> = servers.iter().filter_map(Series::hot_keys).collect();
    let mut merged: Vec<HotKey> = lists.concat();
    merged.iter_mut().for_each(|hot| hot.share = None);
    merged.sort_by(|a, b| descending(a.ops_per_second, b.ops_per_second));
    merged.truncate(HOT_KEYS_MAX);
    (!lists.is_empty()).then_some(merged)
}

/// Large before small before unknown.
pub(super) fn descending(a: Option<f64>, b: Option<f64>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => b.total_cmp(&a),
        (a, b) => b.is_some().cmp(&a.is_some()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::sample::tests::stats;
    use super::*;
    use crate::clock;
    use std::time::Instant;

    /// A server that said these two things, two seconds apart.
    pub(crate) fn series(name: &str, earlier: &str, latest: &str, start: Instant) -> Series {
        let mut series = Series::new(name);
        series.push(Ok(Sample::new(start, stats(earlier), None, None)));
        let at = start + Duration::from_secs(2);
        series.push(Ok(Sample::new(at, stats(latest), None, None)));
        series
    }

    #[test]
    fn rates_come_from_two_samples() {
        let before = "uptime 10\ncmd_get 100\nget_hits 90\nget_misses 10\nevictions 5\n\
                      delete_hits 0\ndelete_misses 4\nbytes_read 1000\nbytes 50";
        let after = "uptime 12\ncmd_get 300\nget_hits 240\nget_misses 60\nevictions 5\n\
                     delete_hits 2\ndelete_misses 6\nbytes_read 3000\nbytes 70\nversion 1.6.45";
        let row = series("a", before, after, clock::now()).row();
        for (what, value, expected) in [
            ("get", row.get, Some(100.0)),
            ("set", row.set, None),
            ("delete", row.delete, Some(2.0)),
            ("ops", row.ops, Some(102.0)),
            ("hits", row.hits, Some(75.0)),
            ("evictions", row.evictions, Some(0.0)),
            ("bytes_in", row.bytes_in, Some(1000.0)),
            ("bytes", row.bytes, Some(70.0)),
            ("bytes_max", row.bytes_max, None),
            ("p50", row.p50, None),
        ] {
            assert_eq!(value, expected, "{what}");
        }
        assert_eq!((row.state, row.version.as_deref()), (State::Up, Some("1.6.45")));
    }

    #[test]
    fn what_starts_anew() {
        let before = "uptime 10\npid 1\ncmd_get 100";
        for (after, get) in [
            ("uptime 12\npid 1\ncmd_get 102", Some(1.0)),
            // Restarted.
            ("uptime 1\npid 1\ncmd_get 200", None),
            ("uptime 12\npid 2\ncmd_get 200", None),
            // `stats reset`.
            ("uptime 12\npid 1\ncmd_get 8", Some(4.0)),
            ("uptime 12\npid 1\ncmd_get x", None),
        ] {
            assert_eq!(series("a", before, after, clock::now()).row().get, get, "{after}");
        }
        // One that was away.
        let mut series = series("a", before, before, clock::now());
        let again = series.latest.clone().unwrap();
        series.push(Err("gone".into()));
        assert_eq!(
            series.row(),
            Row { name: "a".into(), state: State::Down("gone".into()), ..Row::default() }
        );
        series.push(Ok(again.clone()));
        assert_eq!((series.row().state, series.row().get), (State::Up, None));
        series.push(Ok(Sample { at: again.at + Duration::from_secs(1), ..again }));
        assert_eq!(series.row().get, Some(0.0));
    }

    #[test]
    fn servers_are_added_up() {
        let start = clock::now();
        let rows = [
            series(
                "a",
                "get_hits 0\nget_misses 0\ncmd_get 0\nbytes 1",
                "get_hits 8\nget_misses 0\ncmd_get 8\nbytes 3",
                start,
            ),
            series(
                "b",
                "get_hits 0\nget_misses 0\ncmd_get 0",
                "get_hits 0\nget_misses 24\ncmd_get 24",
                start,
            ),
            Series::new("c"),
        ]
        .map(|one| one.row());
        let total = total(&rows);
        assert_eq!((total.get, total.hits, total.bytes), (Some(16.0), Some(25.0), Some(3.0)));
        assert_eq!(total.state, State::Sum { up: 2, of: 3 });
        assert_eq!((total.set, total.p99), (None, None));
    }

    #[test]
    fn latencies_and_hot_keys_of_all_servers() {
        let start = clock::now();
        let with = |latency: &str, hot: &str| {
            let mut series = Series::new("a");
            let (latency, hot) = (stats(latency), stats(hot));
            series.push(Ok(Sample::new(start, stats("a 1"), Some(&latency), Some(&hot))));
            series
        };
        let servers = [
            with("get:count 5\nget:p99_us 7\nset:count 6", "1 key=a share=9.0 ops_per_second=5"),
            with("get:count 5\nget:p99_us 9\nget:p50_us 1", "1 key=b share=2.0 ops_per_second=50"),
            Series::new("b"),
        ];
        let latencies = all_latencies(&servers).unwrap();
        let shown = latencies.iter().map(|one| (one.command.as_str(), one.count, one.p99));
        assert_eq!(shown.collect::<Vec<_>>(), [("get", 10, Some(9)), ("set", 6, None)]);
        let hot = all_hot_keys(&servers).unwrap();
        assert_eq!(hot.iter().map(|one| one.key.as_str()).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(all_latencies(&servers[2..]), None);
        assert_eq!(all_hot_keys(&servers[2..]), None);
    }
}
