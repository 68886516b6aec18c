//! The metrics as text, in Prometheus's exposition format 0.0.4.
//!
//! Owns our names, which docs/OBSERVABILITY.md lists; those of memcached_exporter are in `sidecar`.
//! The numbers come in reports and from what all threads share.

use crate::durable::{Fsync, measure};
use crate::server::config::COMPAT_VERSION;
use crate::server::persistence::status::Durability;
use crate::server::shared::Shared;
use crate::server::stats::latency::Histogram;
use crate::server::stats::report::Report;
use crate::server::stats::sidecar;
use crate::server::stats::text::Totals;
use crate::store::Ticks;
use crate::system;
use std::fmt::{Display, Write};
use std::sync::atomic::Ordering;

/// Of the answer.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Buckets of calls of the disk end below this power: 16 s.
const DISK_POWER_MAX: usize = 25;

/// Buckets of durations end at these powers of two, in microseconds: 2 us to 4 s.
const BUCKET_POWERS: std::ops::RangeInclusive<u32> = 1..=22;

/// All metrics.
pub(super) fn of(reports: &[Report], shared: &Shared) -> String {
    let total = Totals::of(reports);
    let mut text = Text::new("distcache_");
    process(&mut text, shared);
    connections(&mut text, &total, shared);
    commands(&mut text, &total);
    results(&mut text, &total);
    durations(&mut text, &total);
    items(&mut text, &total, shared);
    sizing(&mut text, shared);
    match &shared.durability {
        Some(durability) => {
            text.gauge("persistence_enabled", "Data is kept on disk (--data-dir).", 1);
            snapshots(&mut text, durability);
            logs(&mut text, durability, shared.clock.now());
        }
        None => text.gauge("persistence_enabled", "Data is kept on disk (--data-dir).", 0),
    }
    text.into_lines() + &sidecar::of(&total, shared)
}

/// Lines of the format. Every name begins alike.
pub(super) struct Text {
    prefix: &'static str,
    lines: String,
}

impl Text {
    pub(super) fn new(prefix: &'static str) -> Self {
        Self { prefix, lines: String::new() }
    }

    pub(super) fn into_lines(self) -> String {
        self.lines
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String does not fail.
        let _ = writeln!(self.lines, "{line}");
    }

    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let prefix = self.prefix;
        self.line(format_args!("# HELP {prefix}{name} {help}"));
        self.line(format_args!("# TYPE {prefix}{name} {kind}"));
    }

    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let prefix = self.prefix;
        if labels.is_empty() {
            return self.line(format_args!("{prefix}{name} {value}"));
        }
        let labels: Vec<String> = labels
            .iter()
            .map(|(label, value)| format!("{label}=\"{}\"", escape_label(value)))
            .collect();
        self.line(format_args!("{prefix}{name}{{{}}} {value}", labels.join(",")));
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }
}

fn escape_label(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

fn process(text: &mut Text, shared: &Shared) {
    text.family("build_info", "gauge", "1; the labels have the versions.");
    let versions = [("version", env!("CARGO_PKG_VERSION")), ("memcached_version", COMPAT_VERSION)];
    text.sample("build_info", &versions, 1);
    let uptime = shared.clock.uptime().as_secs_f64();
    text.gauge("uptime_seconds", "Time since the start.", format_args!("{uptime:.3}"));
    text.gauge("workers", "Threads that serve clients (-t).", shared.config.workers);
    if let Some(used) = system::cpu_times() {
        text.family("cpu_seconds_total", "counter", "Processor time used.");
        for (mode, time) in [("user", used.user), ("system", used.system)] {
            let value = format!("{}.{:06}", time.as_secs(), time.subsec_micros());
            text.sample("cpu_seconds_total", &[("mode", mode)], value);
        }
    }
}

fn connections(text: &mut Text, total: &Totals, shared: &Shared) {
    let open = shared.connections.load(Ordering::Relaxed);
    let accepted = shared.total_connections.load(Ordering::Relaxed);
    let rejected = shared.rejected_connections.load(Ordering::Relaxed);
    text.gauge("connections", "Clients connected.", open);
    text.gauge("connections_max", "Clients that may be (-c).", shared.config.connections_max);
    text.counter("connections_accepted_total", "Connections accepted.", accepted);
    text.counter("connections_rejected_total", "Connections refused for being too many.", rejected);
    let traffic = &total.traffic;
    text.counter(
        "connections_idle_closed_total",
        "Connections closed for being idle (-o idle_timeout).",
        traffic.idle_kicks,
    );
    text.counter(
        "connections_protocol_closed_total",
        "Connections closed for beginning in a protocol that is not spoken there (-B).",
        traffic.refused_protocols,
    );
    text.counter(
        "connection_yields_total",
        "Turns that left commands of a connection for the next one (-R).",
        traffic.connection_yields,
    );
    text.counter("received_bytes_total", "Bytes received from clients.", traffic.bytes_read);
    text.counter("sent_bytes_total", "Bytes sent to clients.", traffic.bytes_written);
    text.family("logins_total", "counter", "Attempts to log in (-Y, -S).");
    let good = traffic.logins.saturating_sub(traffic.logins_failed);
    text.sample("logins_total", &[("result", "accepted")], good);
    text.sample("logins_total", &[("result", "refused")], traffic.logins_failed);
}

fn commands(text: &mut Text, total: &Totals) {
    let counters = &total.counters;
    text.family("commands_total", "counter", "Commands; get and touch count keys.");
    for (command, count) in [
        ("get", counters.cmd_get),
        ("set", counters.cmd_set),
        ("touch", counters.cmd_touch),
        ("meta", counters.cmd_meta),
        ("flush_all", total.traffic.flush_commands),
    ] {
        text.sample("commands_total", &[("command", command)], count);
    }
}

fn results(text: &mut Text, total: &Totals) {
    let counters = &total.counters;
    let name = "command_results_total";
    text.family(name, "counter", "What commands met, by key.");
    for (command, result, count) in [
        ("get", "hit", counters.get_hits),
        ("get", "miss", counters.get_misses),
        ("delete", "hit", counters.delete_hits),
        ("delete", "miss", counters.delete_misses),
        ("incr", "hit", counters.incr_hits),
        ("incr", "miss", counters.incr_misses),
        ("decr", "hit", counters.decr_hits),
        ("decr", "miss", counters.decr_misses),
        ("touch", "hit", counters.touch_hits),
        ("touch", "miss", counters.touch_misses),
        ("cas", "hit", counters.cas_hits),
        ("cas", "miss", counters.cas_misses),
        ("cas", "changed", counters.cas_badval),
    ] {
        text.sample(name, &[("command", command), ("result", result)], count);
    }
    let name = "stores_refused_total";
    text.family(name, "counter", "Items refused.");
    text.sample(name, &[("reason", "too_large")], counters.store_too_large);
    text.sample(name, &[("reason", "no_memory")], counters.store_no_memory);
}

fn durations(text: &mut Text, total: &Totals) {
    let name = "command_duration_seconds";
    let help =
        "From reading a command to sending its reply, of commands that were timed (a sample).";
    text.family(name, "histogram", help);
    for (command, times) in total.latencies.iter() {
        buckets(text, command, times);
    }
    let help = "Commands that took as long as --slow-command-us.";
    text.counter("slow_commands_total", help, total.traffic.slow_commands);
}

/// A bucket takes what is at or below its bound: the histogram counts whole microseconds, so what
/// is below the next one.
fn buckets(text: &mut Text, command: &str, times: &Histogram) {
    let name = "command_duration_seconds_bucket";
    for power in BUCKET_POWERS {
        let bound = seconds((1 << power) - 1).to_string();
        text.sample(name, &[("command", command), ("le", &bound)], times.below_power(power));
    }
    text.sample(name, &[("command", command), ("le", "+Inf")], times.count());
    let labels = [("command", command)];
    text.sample("command_duration_seconds_sum", &labels, seconds(times.sum_us()));
    text.sample("command_duration_seconds_count", &labels, times.count());
}

fn items(text: &mut Text, total: &Totals, shared: &Shared) {
    let limit = shared.budget.limit_bytes();
    text.gauge("items", "Items stored.", total.items);
    text.gauge("item_bytes", "Bytes of them, headers and index included.", total.live_bytes);
    text.gauge("memory_used_bytes", "Memory in use for items and index.", total.memory_bytes);
    text.gauge("memory_limit_bytes", "Memory that may be (-m).", limit);
    text.gauge("memory_index_bytes", "Memory of the index.", total.index_bytes);
    let store = &total.store;
    text.counter("items_stored_total", "Items ever stored.", store.stored);
    text.counter("evictions_total", "Live items removed to make room.", store.evictions);
    let help = "Of the evicted, those never fetched.";
    text.counter("evictions_unfetched_total", help, store.evicted_unfetched);
    text.counter("expired_total", "Expired items removed.", store.reclaimed);
    let help = "Of the expired, those never fetched.";
    text.counter("expired_unfetched_total", help, store.expired_unfetched);
}

fn sizing(text: &mut Text, shared: &Shared) {
    let estimate = shared.sizing.lock().estimate(shared.clock.now());
    let name = "sizing_hit_ratio";
    let help = "Hits of gets and touches with so many times the memory, estimated; 0 to 1.";
    text.family(name, "gauge", help);
    for size in estimate.sizes {
        let hit_ratio = format!("{:.4}", size.hit_ratio);
        text.sample(name, &[("memory", &size.times().to_string())], hit_ratio);
    }
    let help = "The part of all keys that these estimates are made from.";
    let rate = format!("{:.6}", estimate.sampling_rate);
    text.gauge("sizing_sampling_rate", help, rate);
    text.gauge("sizing_sampled_gets", "Gets and touches of those keys.", estimate.sampled_gets);
}

fn snapshots(text: &mut Text, durability: &Durability) {
    let status = durability.status();
    let (snapshots, base) = (&status.snapshots, status.snapshots.base);
    text.gauge(
        "directory_bytes",
        "Size of all files of the data directory.",
        status.directory_bytes,
    );
    if let Some(free_bytes) = status.free_bytes {
        text.gauge("directory_free_bytes", "What its disk still takes.", free_bytes);
    }
    text.counter("snapshots_total", "Snapshots that succeeded.", snapshots.taken);
    text.counter("snapshot_failures_total", "Snapshots that failed.", snapshots.failed);
    let help = "Bytes of snapshots written.";
    text.counter("snapshot_written_bytes_total", help, snapshots.written_bytes);
    text.gauge("snapshot_running", "A snapshot is being taken.", u8::from(status.running));
    let failed = snapshots.last_error.is_some();
    text.gauge("snapshot_last_failed", "The last snapshot failed.", u8::from(failed));
    let begun = base.map_or(0, |base| base.taken_at.seconds());
    let help = "When the last good snapshot was begun, as Unix time; 0: there is none.";
    text.gauge("snapshot_last_timestamp_seconds", help, begun);
    let took = snapshots.duration.milliseconds() as f64 / 1e3;
    text.gauge("snapshot_last_duration_seconds", "How long it took.", took);
    text.gauge("snapshot_last_bytes", "Its size.", base.map_or(0, |base| base.bytes));
    text.gauge("snapshot_last_items", "Items in it.", base.map_or(0, |base| base.items));
}

fn logs(text: &mut Text, durability: &Durability, now: Ticks) {
    let committer = &durability.committer;
    let fsync = match committer.policy().fsync {
        Fsync::Always => "always",
        Fsync::EverySecond => "everysec",
        Fsync::No => "no",
    };
    text.family("log_info", "gauge", "1; the label has the mode of --fsync.");
    text.sample("log_info", &[("fsync", fsync)], 1);
    let help = "Changes are refused: a log cannot be written, or is full and no snapshot succeeds.";
    text.gauge("log_failed", help, u8::from(durability.has_failed_log()));
    text.gauge("log_bytes", "Size of the logs.", committer.log_bytes());
    let help = "Size of the logs at which changes wait.";
    text.gauge("log_bytes_max", help, committer.policy().log_bytes_max);
    let help = "Changes wait, because the logs take all the space they may.";
    text.gauge("log_full", help, u8::from(committer.is_full()));
    let unsynced = committer.position() - committer.synced_position();
    text.gauge("log_unsynced_bytes", "Bytes of them not synced.", unsynced);
    let measures = &committer.measures;
    let written = measures.written_bytes.load(Ordering::Relaxed);
    text.counter("log_written_bytes_total", "Bytes of records written.", written);
    durations_of(text, "log_write_duration_seconds", "Writes of the log.", &measures.writes);
    durations_of(text, "log_sync_duration_seconds", "Syncs of the log.", &measures.syncs);
    let oldest = committer.progress().unsynced_since();
    let age = oldest.map_or(0, |since| now.0.saturating_sub(since.0));
    let age = Ticks(age).milliseconds() as f64 / 1e3;
    text.gauge("log_unsynced_age_seconds", "Age of the oldest change not synced.", age);
    let failures = durability.status().log_failures.count;
    text.counter("log_failures_total", "Writes and syncs of logs that failed.", failures);
}

/// How long calls of the disk took. Each class of its histogram holds what is below a power of two.
fn durations_of(text: &mut Text, name: &str, help: &str, calls: &measure::Histogram) {
    text.family(name, "histogram", help);
    let (mut below, bucket) = (0, format!("{name}_bucket"));
    for (power, count) in calls.counts().into_iter().enumerate().take(DISK_POWER_MAX) {
        below += count;
        let bound = seconds((1 << power) - 1).to_string();
        text.sample(&bucket, &[("le", &bound)], below);
    }
    text.sample(&bucket, &[("le", "+Inf")], calls.count());
    text.sample(&format!("{name}_sum"), &[], seconds(calls.microseconds()));
    text.sample(&format!("{name}_count"), &[], calls.count());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_help_are_escaped() {
        let mut text = Text::new("distcache_");
        text.family("x", "gauge", "a\\b\nc");
        text.sample("x", &[("one", "a\\b\"c\nd"), ("two", "")], 1);
        let expected = "# HELP distcache_x a\\\\b\\nc\n# TYPE distcache_x gauge\n\
                        distcache_x{one=\"a\\\\b\\\"c\\nd\",two=\"\"} 1\n";
        assert_eq!(text.into_lines(), expected);
    }
}
