//! `stats` and its sub-commands: memcached's names, our values.
//!
//! Names of parts that do not exist here (slabs, LRUs, crawlers) stay, since tools look for them:
//! one class stands for the whole store, and what nothing counts is 0. Owns the texts; the numbers
//! come in [`Report`]s.

use crate::durable::Fsync;
use crate::protocol::meta::write_uri_key;
use crate::protocol::parse::words;
use crate::protocol::{number, reply};
use crate::server::config::{COMPAT_VERSION, KeyFormat, Protocol, TlsConfig, TlsVersion};
use crate::server::connection::session::{Admission, Spoken};
use crate::server::operator::compat::{CLASS, CLASS_LIMIT};
use crate::server::shared::Shared;
use crate::server::stats::latency::Latencies;
use crate::server::stats::report::{Report, Traffic, Wanted};
use crate::shard::counters::Counters;
use crate::shard::hot::{HotKey, LISTED_MAX, OPERATIONS_PER_SAMPLE};
use crate::shard::prefix::PrefixCounts;
use crate::store::{self, Ticks};
use crate::system;
use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// The answer to `version`.
pub const VERSION_LINE: &str = concat!("VERSION ", "1.6.45", "\r\n");
const _: () = assert!(VERSION_LINE.len() == "VERSION \r\n".len() + COMPAT_VERSION.len());

/// A page, as the slab statistics count memory.
const PAGE_BYTES: u64 = 1 << 20;
/// Size of an item for the slab statistics while there is none.
const CHUNK_BYTES_DEFAULT: u64 = 96;
/// The answer to `stats sizes` without `-o track_sizes`.
const SIZES_DISABLED: &[u8] = b"STAT sizes_status disabled\r\nEND\r\n";
/// Most items that `stats cachedump` lists.
const DUMP_ITEMS_MAX: u32 = 20_000;

/// A part of the statistics that workers and shards contribute to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// `stats`
    General,
    /// `stats items`
    Items,
    /// `stats slabs`
    Slabs,
    /// `stats conns`
    Connections,
    /// `stats sizes`
    Sizes,
    /// `stats latency`
    Latency,
    /// `stats hotkeys`
    HotKeys,
    /// `stats bigkeys`
    BigKeys,
    /// `stats detail dump`
    Prefixes,
    /// `stats cachedump`, with the most items to list.
    Dump(u32),
}

impl Topic {
    /// Whether workers know a part of the answer; the shards alone know that of the others.
    pub fn asks_workers(self) -> bool {
        matches!(self, Self::General | Self::Connections | Self::Latency)
    }
}

/// What has to be done to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Answer this line.
    Answer(&'static [u8]),
    /// Answer this text.
    Text(Vec<u8>),
    /// Gather reports, then compose.
    Ask(Topic, Wanted),
    /// Set all counters to 0.
    Reset,
    /// Start or stop counting by prefix.
    Detail(bool),
}

/// Understands the words behind `stats`. Unlike memcached, which takes any prefix of a
/// sub-command (so that `stats r` resets), only whole words count.
pub fn understand(arguments: &[u8], shared: &Shared) -> Question {
    let mut arguments = words(arguments);
    let plain = Wanted::default();
    match arguments.next() {
        None => Question::Ask(Topic::General, plain),
        Some(b"reset") => Question::Reset,
        Some(b"settings") => Question::Text(settings(shared)),
        Some(b"items") => Question::Ask(Topic::Items, plain),
        Some(b"slabs") => Question::Ask(Topic::Slabs, plain),
        Some(b"persistence") => Question::Text(persistence(shared)),
        // There is no flash tier: nothing to tell, as from a memcached without one.
        Some(b"extstore") => Question::Answer(reply::END),
        Some(b"sizes") if !tracks_sizes(shared) => Question::Answer(SIZES_DISABLED),
        Some(b"sizes") => Question::Ask(Topic::Sizes, Wanted { sizes: true, ..plain }),
        Some(b"sizing") => Question::Text(sizing(shared)),
        Some(b"latency") => Question::Ask(Topic::Latency, Wanted { latencies: true, ..plain }),
        Some(b"hotkeys") if !shared.config.dump => Question::Answer(reply::HOT_KEYS_NOT_ALLOWED),
        Some(b"hotkeys") => Question::Ask(Topic::HotKeys, Wanted { keys: true, ..plain }),
        Some(b"bigkeys") if !shared.config.dump => Question::Answer(reply::BIG_KEYS_NOT_ALLOWED),
        Some(b"bigkeys") => Question::Ask(Topic::BigKeys, Wanted { keys: true, ..plain }),
        Some(b"conns") => Question::Ask(Topic::Connections, Wanted { connections: true, ..plain }),
        Some(b"detail") if !shared.config.dump => Question::Answer(reply::DETAIL_NOT_ALLOWED),
        Some(b"detail") => detail(arguments.next()),
        Some(b"cachedump") if !shared.config.dump => Question::Answer(reply::CACHEDUMP_NOT_ALLOWED),
        Some(b"cachedump") => cachedump(arguments.next(), arguments.next()),
        Some(_) => Question::Answer(reply::ERROR),
    }
}

/// `stats persistence`: how the data directory is doing.
fn persistence(shared: &Shared) -> Vec<u8> {
    let mut lines = Lines::default();
    let Some(durability) = &shared.durability else {
        lines.put("persistence_enabled", "no");
        return lines.end();
    };
    let status = durability.status();
    let (committer, snapshots) = (&durability.committer, &status.snapshots);
    let fsync = match committer.policy().fsync {
        Fsync::Always => "always",
        Fsync::EverySecond => "everysec",
        Fsync::No => "no",
    };
    let outcome = match (&snapshots.last_error, snapshots.base) {
        (Some(_), _) => "failed",
        (None, Some(_)) => "ok",
        (None, None) => "none",
    };
    let now = shared.clock.now();
    let since = |at: Option<Ticks>| Ticks(at.map_or(0, |at| now.0.saturating_sub(at.0)));
    let base = snapshots.base;
    lines.put("persistence_enabled", "yes");
    lines.put("fsync", fsync);
    lines.put("directory_bytes", status.directory_bytes);
    if let Some(free_bytes) = status.free_bytes {
        lines.put("directory_free_bytes", free_bytes);
    }
    lines.put("snapshots_taken", snapshots.taken);
    lines.put("snapshot_failures", snapshots.failed);
    lines.put("snapshot_running", u8::from(status.running));
    lines.put("last_snapshot_status", outcome);
    lines.put("last_snapshot_time", base.map_or(0, |base| base.taken_at.seconds()));
    lines.put("last_snapshot_age", since(base.map(|base| base.taken_at)).seconds());
    lines.put("last_snapshot_duration_ms", snapshots.duration.milliseconds());
    lines.put("last_snapshot_bytes", base.map_or(0, |base| base.bytes));
    lines.put("last_snapshot_items", base.map_or(0, |base| base.items));
    lines.put("last_snapshot_error", snapshots.last_error.as_deref().unwrap_or("-"));
    lines.put("snapshot_written_bytes", snapshots.written_bytes);
    lines.put("log_status", if durability.has_failed_log() { "failed" } else { "ok" });
    lines.put("log_bytes", committer.log_bytes());
    lines.put("log_bytes_max", committer.policy().log_bytes_max);
    lines.put("log_full", u8::from(committer.is_full()));
    lines.put("log_unsynced_bytes", committer.position() - committer.synced_position());
    let unsynced_since = committer.progress().unsynced_since();
    lines.put("log_unsynced_age_ms", since(unsynced_since).milliseconds());
    lines.put("log_written_bytes", committer.measures.written_bytes.load(Ordering::Relaxed));
    lines.put("log_writes", committer.measures.writes.count());
    lines.put("log_write_us", committer.measures.writes.microseconds());
    lines.put("log_syncs", committer.measures.syncs.count());
    lines.put("log_sync_us", committer.measures.syncs.microseconds());
    lines.put("log_failures", status.log_failures.count);
    lines.put("last_log_error", status.log_failures.last.as_deref().unwrap_or("-"));
    let recovery = &durability.recovery;
    lines.put("recovery_snapshot_items", recovery.snapshot_items);
    lines.put("recovery_log_changes", recovery.log_changes);
    lines.put("recovery_dropped_items", recovery.dropped_items);
    lines.put("recovery_cut_bytes", recovery.cut_bytes);
    lines.put("recovery_damages", recovery.damages.len());
    lines.put("recovery_duration_ms", durability.recovery_took.milliseconds());
    lines.end()
}

/// `stats sizing`: what the hit ratio would be with more or less memory.
fn sizing(shared: &Shared) -> Vec<u8> {
    let estimate = shared.sizing.lock().estimate(shared.clock.now());
    let limit_bytes = shared.budget.limit_bytes();
    let mut lines = Lines::default();
    lines.put("window_seconds", estimate.window_seconds);
    lines.put("sampling_rate", format_args!("{:.6}", estimate.sampling_rate));
    lines.put("sampled_keys", estimate.sampled_keys);
    lines.put("sampled_gets", estimate.sampled_gets);
    lines.put("model_error", format_args!("{:.4}", estimate.model_error));
    for size in estimate.sizes {
        let times = size.times();
        let bytes = u128::from(limit_bytes) * u128::from(size.percent) / 100;
        lines.put(format_args!("{times}:limit_maxbytes"), bytes);
        lines.put(format_args!("{times}:hit_ratio"), format_args!("{:.4}", size.hit_ratio));
        lines.put(format_args!("{times}:filled"), format_args!("{:.2}", size.filled));
    }
    lines.end()
}

/// Sizes are sampled when asked for, so that nothing is tracked; but memcached tells them only
/// with `-o track_sizes`.
fn tracks_sizes(shared: &Shared) -> bool {
    shared.config.accepted_only.unused("track_sizes") == Some("yes")
}

fn detail(word: Option<&[u8]>) -> Question {
    match word {
        Some(b"on") => Question::Detail(true),
        Some(b"off") => Question::Detail(false),
        Some(b"dump") => {
            Question::Ask(Topic::Prefixes, Wanted { prefixes: true, ..Wanted::default() })
        }
        _ => Question::Answer(reply::DETAIL_USAGE),
    }
}

fn cachedump(class: Option<&[u8]>, limit: Option<&[u8]>) -> Question {
    let (Some(class), Some(limit)) = (class, limit) else {
        return Question::Answer(reply::BAD_LINE);
    };
    let (Some(class), Some(limit)) = (number::strict_u32(class), number::strict_u32(limit)) else {
        return Question::Answer(reply::BAD_FORMAT);
    };
    if class >= CLASS_LIMIT {
        return Question::Answer(reply::ILLEGAL_SLAB_ID);
    }
    if class != CLASS {
        return Question::Answer(reply::END);
    }
    let limit = if limit == 0 { DUMP_ITEMS_MAX } else { limit.min(DUMP_ITEMS_MAX) };
    Question::Ask(Topic::Dump(limit), Wanted { dump_items_max: limit, ..Wanted::default() })
}

/// The whole answer to a topic, from the reports of all workers and shards.
pub fn compose(topic: Topic, reports: &[Box<Report>], shared: &Shared) -> Vec<u8> {
    let total = Totals::of(reports.iter().map(Box::as_ref));
    match topic {
        Topic::General => general(&total, shared),
        Topic::Items => items(&total),
        Topic::Slabs => slabs(&total, shared),
        Topic::Connections => connections(reports, shared),
        Topic::Sizes => sizes(reports),
        Topic::Latency => latency(&total),
        Topic::HotKeys => hot_keys(reports),
        Topic::BigKeys => big_keys(reports),
        Topic::Prefixes => prefixes(reports),
        Topic::Dump(limit) => dump(reports, limit),
    }
}

/// All reports, added up.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) counters: Counters,
    pub(super) store: store::Counters,
    pub(super) traffic: Traffic,
    pub(super) items: u64,
    pub(super) live_bytes: u64,
    pub(super) oldest_age_seconds: u64,
    pub(super) memory_bytes: u64,
    pub(super) index_bytes: u64,
    segment_memory_bytes: u64,
    pub(super) latencies: Latencies,
}

impl Totals {
    pub(super) fn of<'a>(reports: impl IntoIterator<Item = &'a Report>) -> Self {
        let mut total = Self::default();
        for report in reports {
            total.latencies.add(&report.latencies);
            total.counters.add(&report.counters);
            total.store.add(&report.store_counters);
            total.traffic.add(&report.traffic);
            total.counters.store_too_large += report.traffic.store_too_large;
            total.counters.store_no_memory += report.traffic.store_no_memory;
            total.items += report.items;
            total.live_bytes += report.live_bytes;
            total.oldest_age_seconds = total.oldest_age_seconds.max(report.oldest_age_seconds);
            total.memory_bytes += report.memory_bytes;
            total.index_bytes += report.index_bytes;
            total.segment_memory_bytes += report.segments.0;
        }
        total
    }
}

/// Lines of `STAT name value`.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn put(&mut self, name: impl Display, value: impl Display) {
        // Writing to a String does not fail.
        let _ = write!(self.0, "STAT {name} {value}\r\n");
    }

    fn zeros(&mut self, names: &[&str]) {
        for name in names {
            self.put(name, 0);
        }
    }

    fn end(mut self) -> Vec<u8> {
        self.0 += "END\r\n";
        self.0.into_bytes()
    }
}

pub(super) fn general(total: &Totals, shared: &Shared) -> Vec<u8> {
    let mut lines = Lines::default();
    process(&mut lines, shared);
    commands(&mut lines, total);
    capacity(&mut lines, total, shared);
    memory(&mut lines, total, shared);
    lines.end()
}

fn process(lines: &mut Lines, shared: &Shared) {
    let now = shared.clock.now();
    lines.put("pid", std::process::id());
    lines.put("uptime", shared.clock.uptime().as_secs());
    lines.put("time", now.seconds());
    lines.put("version", COMPAT_VERSION);
    lines.put("libevent", "none");
    lines.put("pointer_size", usize::BITS);
    if let Some(used) = system::cpu_times() {
        for (name, time) in [("rusage_user", used.user), ("rusage_system", used.system)] {
            lines.put(name, format_args!("{}.{:06}", time.as_secs(), time.subsec_micros()));
        }
    }
    let connections = shared.connections.load(Ordering::Relaxed);
    lines.put("max_connections", shared.config.connections_max);
    lines.put("curr_connections", connections);
    lines.put("total_connections", shared.total_connections.load(Ordering::Relaxed));
    lines.put("rejected_connections", shared.rejected_connections.load(Ordering::Relaxed));
    lines.put("connection_structures", connections);
    lines.zeros(&["response_obj_oom", "response_obj_count", "response_obj_bytes"]);
    lines.zeros(&["read_buf_count", "read_buf_bytes", "read_buf_bytes_free", "read_buf_oom"]);
    lines.put("reserved_fds", 5 * shared.config.workers);
}

fn commands(lines: &mut Lines, total: &Totals) {
    let Counters {
        cmd_get,
        cmd_set,
        cmd_touch,
        cmd_meta,
        get_hits,
        get_misses,
        get_expired,
        delete_misses,
        delete_hits,
        incr_misses,
        incr_hits,
        decr_misses,
        decr_hits,
        cas_misses,
        cas_hits,
        cas_badval,
        touch_hits,
        touch_misses,
        store_too_large,
        store_no_memory,
    } = total.counters;
    for (name, value) in [
        ("cmd_get", cmd_get),
        ("cmd_set", cmd_set),
        ("cmd_flush", total.traffic.flush_commands),
        ("cmd_touch", cmd_touch),
        ("cmd_meta", cmd_meta),
        ("get_hits", get_hits),
        ("get_misses", get_misses),
        ("get_expired", get_expired),
        // A flush removes items at once, so that none is met later.
        ("get_flushed", 0),
        ("delete_misses", delete_misses),
        ("delete_hits", delete_hits),
        ("incr_misses", incr_misses),
        ("incr_hits", incr_hits),
        ("decr_misses", decr_misses),
        ("decr_hits", decr_hits),
        ("cas_misses", cas_misses),
        ("cas_hits", cas_hits),
        ("cas_badval", cas_badval),
        ("touch_hits", touch_hits),
        ("touch_misses", touch_misses),
        ("store_too_large", store_too_large),
        ("store_no_memory", store_no_memory),
        ("auth_cmds", total.traffic.logins),
        ("auth_errors", total.traffic.logins_failed),
    ] {
        lines.put(name, value);
    }
}

fn capacity(lines: &mut Lines, total: &Totals, shared: &Shared) {
    if shared.config.idle_timeout_seconds > 0 {
        lines.put("idle_kicks", total.traffic.idle_kicks);
    }
    lines.put("bytes_read", total.traffic.bytes_read);
    lines.put("bytes_written", total.traffic.bytes_written);
    lines.put("limit_maxbytes", shared.budget.limit_bytes());
    let (accepting, pauses, paused) = shared.accepting();
    lines.put("accepting_conns", u8::from(accepting));
    lines.put("listen_disabled_num", pauses);
    lines.put("time_in_listen_disabled_us", paused.as_micros());
    lines.put("threads", shared.config.workers);
    lines.put("conn_yields", total.traffic.connection_yields);
    // The smallest power of two of eight-byte slots that holds the index.
    lines.put("hash_power_level", (total.index_bytes / 8).max(1).next_power_of_two().ilog2());
    lines.put("hash_bytes", total.index_bytes);
    lines.put("hash_is_expanding", 0);
}

fn memory(lines: &mut Lines, total: &Totals, shared: &Shared) {
    lines.zeros(&[
        "slab_reassign_rescues",
        "slab_reassign_chunk_rescues",
        "slab_reassign_inline_reclaim",
        "slab_reassign_busy_items",
        "slab_reassign_busy_deletes",
        "slab_reassign_busy_nomem",
    ]);
    lines.put("slab_reassign_last_busy_status", "none");
    lines.zeros(&["slab_reassign_running", "slabs_moved", "lru_crawler_running"]);
    lines.zeros(&["lru_crawler_starts", "lru_maintainer_juggles", "malloc_fails"]);
    let watched = shared.watchers.numbers();
    lines.put("log_worker_dropped", watched.dropped);
    lines.put("log_worker_written", watched.written);
    lines.put("log_watcher_skipped", watched.skipped);
    lines.put("log_watcher_sent", watched.sent);
    lines.put("log_watchers", watched.watchers);
    tls(lines, shared);
    lines.zeros(&["unexpected_napi_ids", "round_robin_fallback"]);
    lines.put("bytes", total.live_bytes);
    lines.put("curr_items", total.items);
    lines.put("total_items", total.store.stored);
    lines.put("slab_global_page_pool", 0);
    lines.put("expired_unfetched", total.store.expired_unfetched);
    lines.put("evicted_unfetched", total.store.evicted_unfetched);
    lines.put("evicted_active", total.store.evicted_active);
    lines.put("evictions", total.store.evictions);
    lines.put("reclaimed", total.store.reclaimed);
    lines.put("crawler_reclaimed", 0);
    lines.put("crawler_items_checked", total.store.swept);
    lines.zeros(&["lrutail_reflocked", "moves_to_cold"]);
    lines.put("moves_to_warm", total.store.moves);
    lines.zeros(&["moves_within_lru", "direct_reclaims", "lru_bumps_dropped"]);
}

fn tls(lines: &mut Lines, shared: &Shared) {
    let Some(tls) = &shared.tls else { return };
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    if shared.config.tls.as_ref().is_some_and(|settings| settings.session_cache) {
        lines.put("ssl_new_sessions", count(&tls.counters.new_sessions));
    }
    lines.put("ssl_handshake_errors", count(&tls.counters.handshake_errors));
    lines.put("ssl_proto_errors", count(&tls.counters.protocol_errors));
    let age = tls.seconds_since_refresh(shared.clock.now().seconds());
    lines.put("time_since_server_cert_refresh", age);
}

pub(super) fn items(total: &Totals) -> Vec<u8> {
    let mut lines = Lines::default();
    if total.items == 0 {
        return lines.end();
    }
    for (name, value) in [
        ("number", total.items),
        ("number_hot", 0),
        ("number_warm", 0),
        ("number_cold", total.items),
        ("age_hot", 0),
        ("age_warm", 0),
        ("age", total.oldest_age_seconds),
        ("mem_requested", total.live_bytes),
        ("evicted", total.store.evictions),
        ("evicted_nonzero", total.store.evicted_nonzero),
        ("evicted_time", total.store.evicted_age_seconds),
        ("outofmemory", total.counters.store_no_memory),
        ("tailrepairs", 0),
        ("reclaimed", total.store.reclaimed),
        ("expired_unfetched", total.store.expired_unfetched),
        ("evicted_unfetched", total.store.evicted_unfetched),
        ("evicted_active", total.store.evicted_active),
        ("crawler_reclaimed", 0),
        ("crawler_items_checked", total.store.swept),
        ("lrutail_reflocked", 0),
        ("moves_to_cold", 0),
        ("moves_to_warm", total.store.moves),
        ("moves_within_lru", 0),
        ("direct_reclaims", 0),
        ("hits_to_hot", 0),
        ("hits_to_warm", 0),
        ("hits_to_cold", total.counters.get_hits),
        ("hits_to_temp", 0),
    ] {
        lines.put(format_args!("items:{CLASS}:{name}"), value);
    }
    lines.end()
}

/// The store as one class of chunks of the mean item size. Like memcached's it stays once it has
/// been used, so that who draws its numbers sees no gap when everything is flushed.
pub(super) fn slabs(total: &Totals, shared: &Shared) -> Vec<u8> {
    let mut lines = Lines::default();
    let is_used = total.segment_memory_bytes > 0 || total.store.stored > 0;
    let is_used = shared.has_used_slabs(is_used);
    let chunk_bytes =
        total.live_bytes.checked_div(total.items).map_or(CHUNK_BYTES_DEFAULT, |mean| mean.max(1));
    if is_used {
        let chunks = (total.segment_memory_bytes / chunk_bytes).max(total.items);
        for (name, value) in [
            ("chunk_size", chunk_bytes),
            ("chunks_per_page", (PAGE_BYTES / chunk_bytes).max(1)),
            ("total_pages", total.segment_memory_bytes.div_ceil(PAGE_BYTES)),
            ("total_chunks", chunks),
            ("used_chunks", total.items),
            ("free_chunks", chunks - total.items),
            ("free_chunks_end", 0),
            ("get_hits", total.counters.get_hits),
            ("cmd_set", total.counters.cmd_set),
            ("delete_hits", total.counters.delete_hits),
            ("incr_hits", total.counters.incr_hits),
            ("decr_hits", total.counters.decr_hits),
            ("cas_hits", total.counters.cas_hits),
            ("cas_badval", total.counters.cas_badval),
            ("touch_hits", total.counters.touch_hits),
        ] {
            lines.put(format_args!("{CLASS}:{name}"), value);
        }
    }
    lines.put("active_slabs", u8::from(is_used));
    lines.put("total_malloced", total.memory_bytes);
    lines.end()
}

/// Bytes of key and value, rounded up, and how many items have them.
fn sizes(reports: &[Box<Report>]) -> Vec<u8> {
    let mut total: BTreeMap<u64, u64> = BTreeMap::new();
    for (bytes, count) in reports.iter().flat_map(|report| &report.sizes) {
        *total.entry(*bytes).or_default() += count;
    }
    let mut lines = Lines::default();
    for (bytes, count) in total {
        lines.put(bytes, count);
    }
    lines.end()
}

fn connections(reports: &[Box<Report>], shared: &Shared) -> Vec<u8> {
    let mut lines = Lines::default();
    for (descriptor, address) in &shared.listeners {
        lines.put(format_args!("{descriptor}:addr"), address);
        lines.put(format_args!("{descriptor}:state"), "conn_listening");
        lines.put(format_args!("{descriptor}:secs_since_last_cmd"), 0);
    }
    for connection in reports.iter().flat_map(|report| &report.connections) {
        let descriptor = connection.descriptor;
        lines.put(format_args!("{descriptor}:addr"), &connection.address);
        lines.put(format_args!("{descriptor}:listen_addr"), &connection.listen_address);
        lines.put(format_args!("{descriptor}:state"), connection.state);
        if connection.replies_waiting > 0 {
            lines.put(format_args!("{descriptor}:resps_waiting"), connection.replies_waiting);
        }
        lines.put(format_args!("{descriptor}:secs_since_last_cmd"), connection.idle_seconds);
    }
    lines.end()
}

/// Of commands that were timed: see `crate::server::stats::latency`.
fn latency(total: &Totals) -> Vec<u8> {
    let mut lines = Lines::default();
    for (command, times) in total.latencies.iter() {
        for (name, value) in [
            ("count", times.count()),
            ("p50_us", times.per_mille_us(500)),
            ("p99_us", times.per_mille_us(990)),
            ("p999_us", times.per_mille_us(999)),
            ("max_us", times.max_us()),
        ] {
            lines.put(format_args!("{command}:{name}"), value);
        }
    }
    lines.end()
}

/// Keys that are asked for often, with their share of all operations, as sampled.
fn hot_keys(reports: &[Box<Report>]) -> Vec<u8> {
    let all_samples: u64 = reports.iter().map(|report| u64::from(report.keys.samples)).sum();
    let keys = reports.iter().flat_map(|report| {
        // Less time than a second would make much of little.
        let ticks = report.keys.ticks.max(Ticks::PER_SECOND);
        report.keys.hot.iter().map(move |key| (key, ticks))
    });
    let mut keys: Vec<_> = keys.collect();
    keys.sort_by(|(a, _), (b, _)| b.samples.cmp(&a.samples).then_with(|| a.key.cmp(&b.key)));
    let mut lines = Lines::default();
    for (rank, (key, ticks)) in (1..=LISTED_MAX).zip(keys) {
        let HotKey { key, samples, value_bytes } = key;
        let operations = u64::from(*samples) * u64::from(OPERATIONS_PER_SAMPLE);
        let per_second = operations * Ticks::PER_SECOND / ticks;
        let share = 100.0 * f64::from(*samples) / all_samples.max(1) as f64;
        let key = escaped(key);
        lines.put(
            rank,
            format_args!(
                "key={key} share={share:.1} ops_per_second={per_second} bytes={value_bytes}"
            ),
        );
    }
    lines.end()
}

/// Keys with large values, as sampled.
fn big_keys(reports: &[Box<Report>]) -> Vec<u8> {
    let mut keys: Vec<_> = reports.iter().flat_map(|report| &report.keys.large).collect();
    keys.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let mut lines = Lines::default();
    for (rank, (key, value_bytes)) in (1..=LISTED_MAX).zip(keys) {
        lines.put(rank, format_args!("key={} bytes={value_bytes}", escaped(key)));
    }
    lines.end()
}

/// A key as `lru_crawler metadump` writes it: all of ASCII.
fn escaped(key: &[u8]) -> String {
    let mut text = Vec::new();
    write_uri_key(&mut text, key);
    String::from_utf8_lossy(&text).into_owned()
}

fn prefixes(reports: &[Box<Report>]) -> Vec<u8> {
    let mut all: BTreeMap<&[u8], PrefixCounts> = BTreeMap::new();
    for (prefix, counts) in reports.iter().flat_map(|report| &report.prefixes) {
        all.entry(prefix).or_default().add(counts);
    }
    let mut text = Vec::new();
    for (prefix, counts) in all {
        let PrefixCounts { gets, hits, sets, deletes } = counts;
        text.extend_from_slice(b"PREFIX ");
        text.extend_from_slice(prefix);
        let line = format!(" get {gets} hit {hits} set {sets} del {deletes}\r\n");
        text.extend_from_slice(line.as_bytes());
    }
    text.extend_from_slice(reply::END);
    text
}

fn dump(reports: &[Box<Report>], limit: u32) -> Vec<u8> {
    let mut text = Vec::new();
    // Every shard reported up to the limit; together they may not exceed it.
    for item in reports.iter().flat_map(|report| &report.dumped).take(limit as usize) {
        text.extend_from_slice(b"ITEM ");
        text.extend_from_slice(&item.key);
        let line = format!(" [{} b; {} s]\r\n", item.value_bytes, item.expires_unix_seconds);
        text.extend_from_slice(line.as_bytes());
    }
    text.extend_from_slice(reply::END);
    text
}

pub(super) fn settings(shared: &Shared) -> Vec<u8> {
    let config = &shared.config;
    let accepted = &config.accepted_only;
    let on_off = |on: bool| if on { "on" } else { "off" };
    let yes_no = |yes: bool| if yes { "yes" } else { "no" };
    let unix = config.listeners.iter().find_map(|listener| match listener {
        crate::server::config::Listener::Unix(path, _) => Some(path.display().to_string()),
        crate::server::config::Listener::Tcp(_) | crate::server::config::Listener::Tls(..) => None,
    });
    let mut lines = Lines::default();
    lines.put("maxbytes", shared.budget.limit_bytes());
    lines.put("maxconns", config.connections_max);
    lines.put("tcpport", accepted.tcp_port);
    lines.put("udpport", 0);
    lines.put("inter", accepted.inter.as_deref().unwrap_or("NULL"));
    lines.put("verbosity", shared.verbosity.load(Ordering::Relaxed));
    lines.put("oldest", 0);
    lines.put("evictions", on_off(config.evict));
    lines.put("domain_socket", unix.as_deref().unwrap_or("NULL"));
    lines.put("umask", format_args!("{:o}", accepted.unix_mode));
    lines.put("shutdown_command", yes_no(config.shutdown));
    lines.put("growth_factor", format_args!("{:.2}", accepted.growth_factor));
    lines.put("chunk_size", accepted.chunk_size);
    lines.put("num_threads", config.workers);
    lines.put("num_threads_per_udp", config.workers);
    lines.put("stat_key_prefix", char::from(config.prefix_delimiter));
    lines.put("detail_enabled", yes_no(shared.detail.load(Ordering::Relaxed)));
    lines.put("reqs_per_event", config.requests_per_turn_max);
    lines.put("cas_enabled", yes_no(config.cas));
    lines.put("tcp_backlog", config.backlog);
    let auth_file = config.auth_file.as_ref().map(|path| path.display().to_string());
    let protocol = match config.spoken(None) {
        Spoken { binary: Admission::No, .. } => Protocol::Text,
        Spoken { text: Admission::No, .. } => Protocol::Binary,
        _ => Protocol::Either,
    };
    lines.put("binding_protocol", protocol.name());
    lines.put("auth_enabled_sasl", yes_no(config.sasl));
    lines.put("auth_enabled_ascii", auth_file.as_deref().unwrap_or("no"));
    lines.put("item_size_max", config.item_bytes_max);
    lines.put("maxconns_fast", yes_no(config.connections_refuse_fast));
    lines.put("flush_enabled", yes_no(config.flush));
    lines.put("dump_enabled", yes_no(config.dump));
    lines.put("hash_algorithm", &accepted.hash_algorithm);
    for (name, value) in shared.compat_settings.settings() {
        lines.put(name, value);
    }
    lines.put("idle_timeout", config.idle_timeout_seconds);
    lines.put("inline_ascii_response", "no");
    tls_settings(&mut lines, config.tls.as_ref());
    let memory_file = accepted.memory_file.as_ref().map(|path| path.display().to_string());
    lines.put("memory_file", memory_file.as_deref().unwrap_or("(null)"));
    lines.put("client_flags_size", size_of::<u32>());
    lines.end()
}

/// Numbers and words are those of memcached, some of them OpenSSL's.
fn tls_settings(lines: &mut Lines, given: Option<&TlsConfig>) {
    let defaults = TlsConfig::default();
    let settings = given.unwrap_or(&defaults);
    let yes_no = |yes: bool| if yes { "yes" } else { "no" };
    let named = |path: &PathBuf| match given {
        Some(_) => path.display().to_string(),
        None => "(null)".to_owned(),
    };
    let ca_cert = settings.ca_cert.as_ref().map(|path| path.display().to_string());
    let key_format = match settings.key_format {
        KeyFormat::Pem => 1,
        KeyFormat::Der => 2,
    };
    let min_version = match settings.min_version {
        TlsVersion::V1_2 => "tlsv1.2",
        TlsVersion::V1_3 => "tlsv1.3",
    };
    lines.put("ssl_enabled", yes_no(given.is_some()));
    lines.put("ssl_chain_cert", named(&settings.chain_cert));
    lines.put("ssl_key", named(&settings.key));
    lines.put("ssl_verify_mode", settings.verify_mode);
    lines.put("ssl_keyformat", key_format);
    lines.put("ssl_ciphers", settings.ciphers.as_deref().unwrap_or("NULL"));
    lines.put("ssl_ca_cert", ca_cert.as_deref().unwrap_or("NULL"));
    lines.put("ssl_wbuf_size", settings.write_buffer_bytes);
    lines.put("ssl_session_cache", yes_no(settings.session_cache));
    lines.put("ssl_kernel_tls", yes_no(settings.kernel_tls));
    lines.put("ssl_min_version", min_version);
}
