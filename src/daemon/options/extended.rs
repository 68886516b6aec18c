//! `-o`: memcached's list of extended options, `name`, `name=value` or `no_name`.
//!
//! Owns the table of those options, their ranges, and which lines of `stats settings` they change.
//! Nearly all of them tune slabs, LRUs, crawlers and hash tables, which do not exist here, so a row
//! without a help text is accepted, checked and reported as being without effect.

use std::ffi::OsStr;

use super::texts::explain;
use super::values::{COUNT_MAX, fraction, leading_whole, whole};
use super::{Draft, Exit, refuse_not_offered, tls};

/// One extended option.
struct Suboption {
    name: &'static str,
    kind: Kind,
    /// What `-h` says; empty for an option that does nothing here.
    help: &'static str,
}

enum Kind {
    /// Sets these lines of `stats settings`; a value is ignored, as memcached ignores it.
    Sets(&'static [(&'static str, &'static str)]),
    /// A whole number within the range, shown in `line` multiplied by `unit`.
    Whole { line: Option<&'static str>, min: i64, max: i64, unit: i64 },
    /// A number above `above` and up to `max`, shown in `line` with so many digits.
    Fraction { line: &'static str, above: f64, max: f64, digits: usize },
    /// Anything else; the value is `None` without an equals sign.
    Other(fn(&mut Draft, Option<&str>) -> Result<(), String>),
}

use Kind::{Other, Sets};

const fn row(name: &'static str, kind: Kind) -> Suboption {
    Suboption { name, kind, help: "" }
}

const fn heeded(name: &'static str, kind: Kind, help: &'static str) -> Suboption {
    Suboption { name, kind, help }
}

const fn number(line: &'static str, min: i64, max: i64) -> Kind {
    Kind::Whole { line: Some(line), min, max, unit: 1 }
}

/// Kilobytes or megabytes on the command line, bytes in `stats settings`.
const fn size(line: &'static str, unit: i64) -> Kind {
    Kind::Whole { line: Some(line), min: 0, max: U32_MAX, unit }
}

/// A number above 0, shown with two digits.
const fn factor(line: &'static str, max: f64) -> Kind {
    Kind::Fraction { line, above: 0.0, max, digits: 2 }
}

/// Any number.
const fn ratio(line: &'static str, digits: usize) -> Kind {
    Kind::Fraction { line, above: f64::MIN, max: f64::MAX, digits }
}

const U32_MAX: i64 = u32::MAX as i64;

/// For flash storage, shown nowhere.
const FLASH: Kind = Kind::Whole { line: None, min: 0, max: i64::MAX, unit: 1 };

/// For flash storage, shown in `line`.
const fn flash(line: &'static str) -> Kind {
    number(line, 0, i64::MAX)
}

/// Every extended option, heeded ones first. Skipped by rustfmt so that a row stays a row.
#[rustfmt::skip]
static SUBOPTIONS: [Suboption; 64] = [
    heeded("maxconns_fast", Other(|draft, _| refuse_fast(draft, true)),
        "answer connections beyond -c with an error\n(default)"),
    heeded("no_maxconns_fast", Other(|draft, _| refuse_fast(draft, false)), "let them wait"),
    heeded("idle_timeout", Other(idle_timeout),
        "seconds until a silent connection is closed\n(default: 0, never)"),
    heeded("no_modern", Other(no_modern), "as no_maxconns_fast"),
    heeded("ssl_chain_cert", Other(tls::chain_cert),
        "certificate of the server, with its chain (PEM)"),
    heeded("ssl_key", Other(tls::key), "its private key"),
    heeded("ssl_keyformat", Other(tls::key_format), "1: PEM (default), 2: DER"),
    heeded("ssl_ca_cert", Other(tls::ca_cert), "authorities of clients' certificates (PEM)"),
    heeded("ssl_verify_mode", Other(tls::verify_mode),
        "clients' certificates: 0 ignored (default), 1\nverified if there is one, 2 or 3 required"),
    heeded("ssl_ciphers", Other(tls::ciphers), "OpenSSL names of TLS 1.2 suites to use, by \":\""),
    heeded("ssl_min_version", Other(tls::min_version), "2: TLS 1.2 (default), 3: TLS 1.3"),
    heeded("ssl_session_cache", Other(tls::session_cache), "let clients resume sessions"),
    row("ssl_wbuf_size", Other(tls::write_buffer)),
    row("ssl_kernel_tls", Other(tls::kernel_tls)),
    row("modern", Sets(&[])),
    row("hashpower", number("hashpower_init", 12, 32)),
    row("no_hashexpand", Sets(&[])),
    row("hash_algorithm", Other(hash_algorithm)),
    row("slab_reassign", Sets(&[("slab_reassign", "yes")])),
    row("no_slab_reassign", Sets(&[("slab_reassign", "no")])),
    row("slab_automove", Other(slab_automove)),
    row("no_slab_automove", Sets(&[("slab_automove", "0")])),
    row("slab_automove_ratio", factor("slab_automove_ratio", 1.0)),
    row("slab_automove_window", number("slab_automove_window", 3, COUNT_MAX)),
    row("slab_automove_freeratio", ratio("slab_automove_freeratio", 3)),
    row("slab_sizes", Other(slab_sizes)),
    row("slab_chunk_max", Other(slab_chunk_max)),
    row("no_chunked_items", Sets(&[("slab_chunk_max", "1048576")])),
    row("tail_repair_time", number("tail_repair_time", 10, COUNT_MAX)),
    row("lru_crawler", Sets(&[("lru_crawler", "yes")])),
    row("no_lru_crawler", Sets(&[("lru_crawler", "no")])),
    row("lru_crawler_sleep", number("lru_crawler_sleep", 0, 1_000_000)),
    row("lru_crawler_tocrawl", number("lru_crawler_tocrawl", 0, U32_MAX)),
    row("lru_maintainer", Sets(&[("lru_maintainer_thread", "yes"), ("lru_segmented", "yes")])),
    row("no_lru_maintainer", Sets(&[("lru_maintainer_thread", "no"), ("lru_segmented", "no")])),
    row("hot_lru_pct", number("hot_lru_pct", 1, 79)),
    row("warm_lru_pct", number("warm_lru_pct", 1, 79)),
    row("hot_max_factor", factor("hot_max_factor", f64::MAX)),
    row("warm_max_factor", factor("warm_max_factor", f64::MAX)),
    row("temporary_ttl", Other(temporary_ttl)),
    row("watcher_logbuf_size", size("watcher_logbuf_size", 1 << 10)),
    row("worker_logbuf_size", size("worker_logbuf_size", 1 << 10)),
    row("read_buf_mem_limit", size("read_buf_mem_limit", 1 << 20)),
    row("resp_obj_mem_limit", Sets(&[])),
    row("track_sizes", Sets(&[("track_sizes", "yes")])),
    row("inline_ascii_resp", Sets(&[])),
    row("no_inline_ascii_resp", Sets(&[])),
    row("drop_privileges", Sets(&[])),
    row("no_drop_privileges", Sets(&[])),
    row("relaxed_privileges", Sets(&[])),
    row("ext_path", Other(flash_path)),
    row("ext_page_size", FLASH),
    row("ext_wbuf_size", size("ext_wbuf_size", 1 << 20)),
    row("ext_threads", FLASH),
    row("ext_io_depth", FLASH),
    row("ext_item_size", flash("ext_item_size")),
    row("ext_item_age", flash("ext_item_age")),
    row("ext_low_ttl", flash("ext_low_ttl")),
    row("ext_recache_rate", flash("ext_recache_rate")),
    row("ext_compact_under", flash("ext_compact_under")),
    row("ext_drop_under", flash("ext_drop_under")),
    row("ext_max_sleep", flash("ext_max_sleep")),
    row("ext_max_frag", ratio("ext_max_frag", 2)),
    row("ext_drop_unread", Sets(&[("ext_drop_unread", "yes")])),
];

/// Follows one `-o` list.
pub(super) fn apply(draft: &mut Draft, list: &OsStr) -> Result<(), Exit> {
    let list = list.to_string_lossy();
    // A comma at the end is let pass, an empty option between two commas is not: as getsubopt.
    let list = list.strip_suffix(',').unwrap_or(&list);
    list.split(',').filter(|_| !list.is_empty()).try_for_each(|given| apply_one(draft, given))
}

fn apply_one(draft: &mut Draft, given: &str) -> Result<(), Exit> {
    let (name, value) = match given.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (given, None),
    };
    let flag = format!("-o {name}");
    refuse_not_offered(&flag)?;
    let Some(suboption) = SUBOPTIONS.iter().find(|suboption| suboption.name == name) else {
        return Err(Exit::failure(format!("Illegal suboption \"{given}\"")));
    };
    // Said in a line of its own.
    if suboption.help.is_empty() && name != "ext_path" {
        draft.unused(&flag);
    }
    match suboption.kind {
        Sets(lines) => {
            lines.iter().for_each(|&(line, value)| draft.accepted().set_unused(line, value));
            Ok(())
        }
        Kind::Whole { line, min, max, unit } => needed(&flag, value)
            .and_then(|value| leading_whole(&flag, value, min..=max))
            .map(|number| show(draft, line, number.saturating_mul(unit).to_string())),
        Kind::Fraction { line, above, max, digits } => needed(&flag, value)
            .and_then(|value| fraction(&flag, value, above, max))
            .map(|number| show(draft, Some(line), format!("{number:.digits$}"))),
        Other(apply) => apply(draft, value),
    }
    .map_err(Exit::failure)
}

fn needed<'a>(flag: &str, value: Option<&'a str>) -> Result<&'a OsStr, String> {
    value.map(OsStr::new).ok_or_else(|| format!("{flag} needs a value: {flag}=..."))
}

fn show(draft: &mut Draft, line: Option<&'static str>, value: String) {
    if let Some(line) = line {
        draft.accepted().set_unused(line, value);
    }
}

// The options that the table cannot express

fn refuse_fast(draft: &mut Draft, refuse: bool) -> Result<(), String> {
    draft.config().connections_refuse_fast = refuse;
    Ok(())
}

fn idle_timeout(draft: &mut Draft, value: Option<&str>) -> Result<(), String> {
    let flag = "-o idle_timeout";
    let seconds = whole(flag, needed(flag, value)?, i64::MIN..=i64::MAX)
        .map_err(|why| format!("{why} (seconds; 0: never)"))?;
    // Below 0 is never too, as in memcached.
    draft.config().idle_timeout_seconds = u32::try_from(seconds.max(0)).unwrap_or(u32::MAX);
    Ok(())
}

/// The defaults of memcached 1.4; one of them means something here.
fn no_modern(draft: &mut Draft, _: Option<&str>) -> Result<(), String> {
    const LINES: [(&str, &str); 5] = [
        ("slab_reassign", "no"),
        ("slab_automove", "0"),
        ("lru_segmented", "no"),
        ("lru_crawler", "no"),
        ("lru_maintainer_thread", "no"),
    ];
    LINES.iter().for_each(|&(line, value)| draft.accepted().set_unused(line, value));
    draft.accepted().hash_algorithm = "jenkins".to_owned();
    draft.config().connections_refuse_fast = false;
    Ok(())
}

fn hash_algorithm(draft: &mut Draft, value: Option<&str>) -> Result<(), String> {
    const NAMES: [&str; 3] = ["jenkins", "murmur3", "xxh3"];
    let known = value.filter(|value| NAMES.contains(value));
    let name = known.ok_or("-o hash_algorithm needs one of: jenkins, murmur3, xxh3")?;
    draft.accepted().hash_algorithm = name.to_owned();
    Ok(())
}

fn slab_automove(draft: &mut Draft, value: Option<&str>) -> Result<(), String> {
    let value = OsStr::new(value.unwrap_or("1"));
    let level = leading_whole("-o slab_automove", value, 0..=2)?;
    draft.accepted().set_unused("slab_automove", level.to_string());
    Ok(())
}

fn temporary_ttl(draft: &mut Draft, value: Option<&str>) -> Result<(), String> {
    let flag = "-o temporary_ttl";
    let seconds = leading_whole(flag, needed(flag, value)?, i64::MIN..=i64::MAX)?;
    draft.accepted().set_unused("temporary_ttl", seconds.to_string());
    draft.accepted().set_unused("temp_lru", "yes");
    Ok(())
}

/// Kilobytes up to a megabyte; bytes from there on, as before 1.6.19.
fn slab_chunk_max(draft: &mut Draft, value: Option<&str>) -> Result<(), String> {
    const KILOBYTES_MAX: i64 = 1 << 10;
    let flag = "-o slab_chunk_max";
    let given = leading_whole(flag, needed(flag, value)?, 1..=COUNT_MAX)?;
    let bytes = if given <= KILOBYTES_MAX { given << 10 } else { given };
    draft.accepted().set_unused("slab_chunk_max", bytes.to_string());
    Ok(())
}

/// The file for what memory has no room for; [`super::finish`] says that there is none.
fn flash_path(draft: &mut Draft, value: Option<&str>) -> Result<(), String> {
    let flag = "-o ext_path";
    needed(flag, value)?;
    draft.flash = true;
    Ok(())
}

/// Kept for [`check`]: the limits it has to keep come from options that may follow.
fn slab_sizes(draft: &mut Draft, value: Option<&str>) -> Result<(), String> {
    let value = value.ok_or("-o slab_sizes needs a value: -o slab_sizes=100-200-300")?;
    draft.slab_sizes = Some(value.to_owned());
    Ok(())
}

/// Checks what depends on several options, as memcached does although nothing comes of it: a
/// command line that starts here is to start there.
pub(super) fn check(draft: &Draft) -> Result<(), Exit> {
    let accepted = &draft.settings.config.accepted_only;
    let line = |name| accepted.unused(name).unwrap_or_default();
    let count = |name| line(name).parse::<u32>().unwrap_or_default();

    if 80 < count("hot_lru_pct") + count("warm_lru_pct") {
        return Err(Exit::usage("-o hot_lru_pct and warm_lru_pct: at most 80 together"));
    }
    if line("temp_lru") == "yes" && line("lru_maintainer_thread") == "no" {
        return Err(Exit::usage("-o temporary_ttl does not go with no_lru_maintainer"));
    }
    match &draft.slab_sizes {
        Some(sizes) => check_slab_sizes(sizes, accepted.chunk_size, count("slab_chunk_max"))
            .map_err(|why| Exit::usage(format!("-o slab_sizes={sizes}: {why}"))),
        None => Ok(()),
    }
}

/// Sizes separated by dashes, each more than a step of eight bytes above the one before.
fn check_slab_sizes(sizes: &str, min: u32, max: u32) -> Result<(), String> {
    const STEP: u32 = 8;
    const COUNT_LIMIT: usize = 63;
    let mut last = 0;
    for text in sizes.split('-') {
        let size = text.parse().ok().filter(|size| (min..=max).contains(size));
        let size: u32 =
            size.ok_or_else(|| format!("\"{text}\" is not a size from {min} (-n) to {max}"))?;
        if size <= last + STEP {
            return Err(format!("{size} has to be more than {STEP} bytes above {last}"));
        }
        last = size;
    }
    if COUNT_LIMIT < sizes.split('-').count() {
        return Err(format!("more than {COUNT_LIMIT} sizes"));
    }
    Ok(())
}

/// Appends the part of `-h` that belongs to `-o`.
pub(super) fn explain_all(text: &mut String) {
    for suboption in SUBOPTIONS.iter().filter(|suboption| !suboption.help.is_empty()) {
        explain(text, &format!("   - {}:", suboption.name), suboption.help);
    }
}
