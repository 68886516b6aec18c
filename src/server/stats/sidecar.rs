//! The metrics of Prometheus's memcached_exporter, as that would make them of this server's
//! `stats`, so that dashboards and alerts made for it need no exporter beside the server.
//!
//! Owns which statistic becomes which metric. The values are read from the texts of `stats`,
//! `stats items`, `stats slabs` and `stats settings`, so that they are what the exporter would
//! read. Names, kinds and labels are the exporter's, odd ones too.

use super::prometheus::Text;
use super::text::{self, Totals};
use crate::server::operator::compat::CLASS;
use crate::server::shared::Shared;
use std::collections::BTreeMap;

/// A metric without labels: its name, its kind, the statistic, and what it says.
type Row = (&'static str, &'static str, &'static str, &'static str);

#[rustfmt::skip]
const GENERAL: [Row; 28] = [
    ("uptime_seconds", "counter", "uptime", "Time since the start."),
    ("time_seconds", "gauge", "time", "The server's clock, as Unix time."),
    ("process_user_cpu_seconds_total", "counter", "rusage_user",
        "Processor time used in user mode."),
    ("process_system_cpu_seconds_total", "counter", "rusage_system",
        "Processor time used by the kernel."),
    ("read_bytes_total", "counter", "bytes_read", "Bytes received from clients."),
    ("written_bytes_total", "counter", "bytes_written", "Bytes sent to clients."),
    ("current_connections", "gauge", "curr_connections", "Clients connected."),
    ("connections_total", "counter", "total_connections", "Connections accepted."),
    ("connections_rejected_total", "counter", "rejected_connections",
        "Connections refused for being too many."),
    ("connections_yielded_total", "counter", "conn_yields",
        "Turns that left commands for the next one (-R)."),
    ("connections_listener_disabled_total", "counter", "listen_disabled_num",
        "Times that accepting paused."),
    ("accepting_connections", "gauge", "accepting_conns", "Connections are accepted."),
    ("current_bytes", "gauge", "bytes", "Bytes of the items stored."),
    ("limit_bytes", "gauge", "limit_maxbytes", "Memory that items may take (-m)."),
    ("malloced_bytes", "gauge", "total_malloced", "Memory in use for items and index."),
    ("current_items", "gauge", "curr_items", "Items stored."),
    ("items_total", "counter", "total_items", "Items ever stored."),
    ("items_evicted_total", "counter", "evictions", "Live items removed to make room."),
    ("items_reclaimed_total", "counter", "reclaimed", "Expired items removed."),
    ("item_too_large_total", "counter", "store_too_large", "Items refused for their size."),
    ("item_no_memory_total", "counter", "store_no_memory", "Items refused for want of memory."),
    ("direct_reclaims_total", "counter", "direct_reclaims",
        "0: memory is not made by workers in passing."),
    ("lru_crawler_starts_total", "counter", "lru_crawler_starts",
        "Runs of the crawler that were asked for."),
    ("lru_crawler_reclaimed_total", "counter", "crawler_reclaimed", "0: there is no crawler."),
    ("lru_crawler_items_checked_total", "counter", "crawler_items_checked",
        "Items looked at for their expiry."),
    ("lru_crawler_moves_to_cold_total", "counter", "moves_to_cold", "0: there are no such queues."),
    ("lru_crawler_moves_to_warm_total", "counter", "moves_to_warm",
        "Items kept on for being used."),
    ("lru_crawler_moves_within_lru_total", "counter", "moves_within_lru",
        "0: there are no such queues."),
];

#[rustfmt::skip]
const SETTINGS: [Row; 8] = [
    ("lru_crawler_enabled", "gauge", "lru_crawler", "Setting, without effect."),
    ("lru_crawler_sleep", "gauge", "lru_crawler_sleep", "Setting, without effect."),
    ("lru_crawler_to_crawl", "gauge", "lru_crawler_tocrawl", "Setting, without effect."),
    ("lru_crawler_maintainer_thread", "gauge", "lru_maintainer_thread", "Setting, without effect."),
    ("lru_crawler_hot_percent", "gauge", "hot_lru_pct", "Setting, without effect."),
    ("lru_crawler_warm_percent", "gauge", "warm_lru_pct", "Setting, without effect."),
    ("lru_crawler_hot_max_factor", "gauge", "hot_max_factor", "Setting, without effect."),
    ("lru_crawler_warm_max_factor", "gauge", "warm_max_factor", "Setting, without effect."),
];

/// Of `stats items`, with the label `slab`.
#[rustfmt::skip]
const ITEMS: [Row; 21] = [
    ("slab_current_items", "gauge", "number", "Items stored."),
    ("slab_items_age_seconds", "gauge", "age", "Age of the items that would be evicted next."),
    ("slab_items_crawler_reclaimed_total", "counter", "crawler_reclaimed",
        "0: there is no crawler."),
    ("slab_items_evicted_total", "counter", "evicted", "Live items removed to make room."),
    ("slab_items_evicted_nonzero_total", "counter", "evicted_nonzero",
        "Of them, those with an expiry."),
    ("slab_items_evicted_time_seconds", "counter", "evicted_time", "Age of the item evicted last."),
    ("slab_items_evicted_unfetched_total", "counter", "evicted_unfetched",
        "Of the evicted, those never fetched."),
    ("slab_items_expired_unfetched_total", "counter", "expired_unfetched",
        "Of the expired, those never fetched."),
    ("slab_items_outofmemory_total", "counter", "outofmemory", "Items refused for want of memory."),
    ("slab_items_reclaimed_total", "counter", "reclaimed", "Expired items removed."),
    ("slab_items_tailrepairs_total", "counter", "tailrepairs", "0: nothing has to be repaired."),
    ("slab_mem_requested_bytes", "counter", "mem_requested", "Bytes of the items stored."),
    ("slab_items_moves_to_cold", "counter", "moves_to_cold", "0: there are no such queues."),
    ("slab_items_moves_to_warm", "counter", "moves_to_warm", "Items kept on for being used."),
    ("slab_items_moves_within_lru", "counter", "moves_within_lru", "0: there are no such queues."),
    ("slab_hot_items", "gauge", "number_hot", "0: there are no such queues."),
    ("slab_warm_items", "gauge", "number_warm", "0: there are no such queues."),
    ("slab_cold_items", "gauge", "number_cold", "Items stored."),
    ("slab_temporary_items", "gauge", "number_temp", "0: there are no such queues."),
    ("slab_hot_age_seconds", "gauge", "age_hot", "0: there are no such queues."),
    ("slab_warm_age_seconds", "gauge", "age_warm", "0: there are no such queues."),
];

/// Of `stats slabs`, with the label `slab`.
#[rustfmt::skip]
const SLABS: [Row; 7] = [
    ("slab_chunk_size_bytes", "gauge", "chunk_size", "Mean size of an item."),
    ("slab_chunks_per_page", "gauge", "chunks_per_page", "Items of that size in a megabyte."),
    ("slab_current_pages", "gauge", "total_pages", "Megabytes in use for items."),
    ("slab_current_chunks", "gauge", "total_chunks", "Items of that size that would fit."),
    ("slab_chunks_used", "gauge", "used_chunks", "Items stored."),
    ("slab_chunks_free", "gauge", "free_chunks", "Items of that size that would still fit."),
    ("slab_chunks_free_end", "gauge", "free_chunks_end", "0: there are no pages with ends."),
];

/// Statistics of `stats slabs`, and what the exporter calls the queues that they are of.
const QUEUES: [(&str, &str); 4] = [
    ("hits_to_hot", "hot"),
    ("hits_to_warm", "warm"),
    ("hits_to_cold", "cold"),
    ("hits_to_temp", "temporary"),
];

/// Commands that hit or miss.
const COMMANDS: [&str; 6] = ["get", "delete", "incr", "decr", "cas", "touch"];

/// Lines of `STAT name value`, by name.
struct Stats(BTreeMap<String, String>);

impl Stats {
    /// Those whose names begin with `prefix`, without it.
    fn of(answer: &[u8], prefix: &str) -> Self {
        let answer = String::from_utf8_lossy(answer);
        let lines = answer.lines().filter_map(|line| line.strip_prefix("STAT ")?.split_once(' '));
        let named = lines.filter_map(|(name, value)| Some((name.strip_prefix(prefix)?, value)));
        Self(named.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| match &**value {
            "yes" => "1",
            "no" => "0",
            value => value,
        })
    }

    fn number(&self, name: &str) -> u64 {
        self.get(name).and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    /// Sets proper: memcached counts `cas` among them again.
    fn sets(&self, cas: &[&str]) -> u64 {
        let others: u64 = cas.iter().map(|name| self.number(name)).sum();
        self.number("cmd_set").saturating_sub(others)
    }
}

/// All of them.
pub(super) fn of(total: &Totals, shared: &Shared) -> String {
    let general = Stats::of(&text::general(total, shared), "");
    let settings = Stats::of(&text::settings(shared), "");
    let items = Stats::of(&text::items(total), &format!("items:{CLASS}:"));
    let all_slabs = text::slabs(total, shared);
    let slabs = Stats::of(&all_slabs, &format!("{CLASS}:"));
    let slab = CLASS.to_string();
    let labels = [("slab", slab.as_str())];

    let mut text = Text::new("memcached_");
    text.gauge("up", "1: it answers.", 1);
    text.family("version", "gauge", "1; the label has the version of memcached it behaves as.");
    text.sample("version", &[("version", general.get("version").unwrap_or_default())], 1);
    rows(&mut text, &GENERAL, &general, &[]);
    rows(&mut text, &GENERAL, &Stats::of(&all_slabs, ""), &[]);
    if let Some(max) = settings.get("maxconns") {
        text.gauge("max_connections", "Clients that may be connected (-c).", max);
    }
    commands(&mut text, &general);
    if settings.get("lru_crawler") == Some("1") {
        rows(&mut text, &SETTINGS, &settings, &[]);
    }
    rows(&mut text, &ITEMS, &items, &labels);
    if !items.0.is_empty() {
        text.family("slab_lru_hits_total", "counter", "Gets that hit, by queue.");
        for (name, lru) in QUEUES {
            let labels = [("slab", slab.as_str()), ("lru", lru)];
            text.sample("slab_lru_hits_total", &labels, items.number(name));
        }
    }
    rows(&mut text, &SLABS, &slabs, &labels);
    if !slabs.0.is_empty() {
        slab_commands(&mut text, &slabs, &slab);
    }
    text.into_lines()
}

fn rows(text: &mut Text, rows: &[Row], stats: &Stats, labels: &[(&str, &str)]) {
    for (name, kind, stat, help) in rows {
        if let Some(value) = stats.get(stat) {
            text.family(name, kind, help);
            text.sample(name, labels, value);
        }
    }
}

fn commands(text: &mut Text, stats: &Stats) {
    let name = "commands_total";
    text.family(name, "counter", "What commands met.");
    let mut put = |command: &str, status: &str, count: u64| {
        text.sample(name, &[("command", command), ("status", status)], count);
    };
    for command in COMMANDS {
        put(command, "hit", stats.number(&format!("{command}_hits")));
        put(command, "miss", stats.number(&format!("{command}_misses")));
    }
    put("cas", "badval", stats.number("cas_badval"));
    put("flush", "hit", stats.number("cmd_flush"));
    put("set", "hit", stats.sets(&["cas_misses", "cas_hits", "cas_badval"]));
}

fn slab_commands(text: &mut Text, slabs: &Stats, slab: &str) {
    let name = "slab_commands_total";
    text.family(name, "counter", "What commands met, by class.");
    let mut put = |command: &str, status: &str, count: u64| {
        let labels = [("slab", slab), ("command", command), ("status", status)];
        text.sample(name, &labels, count);
    };
    for command in COMMANDS {
        put(command, "hit", slabs.number(&format!("{command}_hits")));
    }
    put("cas", "badval", slabs.number("cas_badval"));
    put("set", "hit", slabs.sets(&["cas_hits", "cas_badval"]));
}
