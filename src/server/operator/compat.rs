//! `lru`, `slabs`, `lru_crawler`, `extstore` and `config`: commands with which operators steer
//! parts of memcached.
//!
//! This server has neither slabs nor LRUs, a crawler nor a flash tier: it sees to its memory
//! itself. The commands are checked and answered as memcached does, and `stats settings` repeats
//! what was set, so that scripts go on; nothing else changes. Owns those settings and the cluster's
//! description. Does not know connections: dumps and watchers are elsewhere.

use crate::protocol::parse::words;
use crate::protocol::{number, reply};
use crate::server::config::AcceptedOnly;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError, RwLock};

/// memcached's classes have numbers below this.
pub const CLASS_LIMIT: u32 = 64;

/// The class that stands for the store.
pub const CLASS: u32 = 1;

/// Shares of the hot and the warm queue together, in percent.
const SHARES_MAX: u64 = 80;

/// `slabs automove window`.
const WINDOW: std::ops::RangeInclusive<u32> = 3..=1800;

/// Longest pause of the crawler.
const SLEEP_MICROSECONDS_MAX: u32 = 1_000_000;

/// What `extstore` sets to a whole number, and the line of `stats settings` that repeats it.
const EXTSTORE_COUNTS: [(&[u8], &str); 7] = [
    (b"item_size", "ext_item_size"),
    (b"item_age", "ext_item_age"),
    (b"low_ttl", "ext_low_ttl"),
    (b"recache_rate", "ext_recache_rate"),
    (b"compact_under", "ext_compact_under"),
    (b"drop_under", "ext_drop_under"),
    (b"max_sleep", "ext_max_sleep"),
];

/// Largest cluster description: a node's line takes about a hundred bytes.
const CLUSTER_BYTES_MAX: u64 = 1 << 20;

/// What these commands have set.
#[derive(Debug)]
pub struct CompatSettings {
    settings: Mutex<Vec<(&'static str, String)>>,
    cluster: RwLock<Option<String>>,
}

impl CompatSettings {
    /// As the flags say.
    pub fn new(accepted: &AcceptedOnly) -> Self {
        Self { settings: Mutex::new(accepted.unused.clone()), cluster: RwLock::new(None) }
    }

    /// The lines for `stats settings`.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is(&self, name: &str, value: &str) -> bool {
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        settings.iter().any(|line| line.0 == name && line.1 == value)
    }

    fn set(&self, name: &str, value: impl Into<String>) {
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = settings.iter_mut().find(|line| line.0 == name) {
            line.1 = value.into();
        }
    }

    /// Whether `lru_crawler disable` was said, which forbids dumps too.
    pub fn crawler_disabled(&self) -> bool {
        self.is("lru_crawler", "no")
    }

    /// Reads the description of the cluster that `config get cluster` answers.
    ///
    /// # Errors
    /// Those of reading, and `InvalidData` for a file that is not one line with a version number
    /// and one with the nodes, each as `host|address|port`.
    pub fn load_cluster(&self, path: &Path) -> io::Result<()> {
        if std::fs::metadata(path)?.len() > CLUSTER_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too large"));
        }
        let cluster = cluster_answer(&std::fs::read_to_string(path)?).ok_or_else(|| {
            let wanted = "expected a version number, and below it nodes as host|address|port";
            io::Error::new(io::ErrorKind::InvalidData, wanted)
        })?;
        *self.cluster.write().unwrap_or_else(PoisonError::into_inner) = Some(cluster);
        Ok(())
    }

    /// `config get cluster`, as Amazon ElastiCache answers it.
    pub fn config(&self, arguments: &[u8]) -> Vec<u8> {
        let mut arguments = words(arguments);
        let asked = (arguments.next(), arguments.next(), arguments.next());
        let cluster = self.cluster.read().unwrap_or_else(PoisonError::into_inner);
        match (asked, &*cluster) {
            ((Some(b"get"), Some(b"cluster"), None), Some(text)) => text.clone().into_bytes(),
            _ => reply::ERROR.to_vec(),
        }
    }

    /// `lru`
    pub fn lru(&self, arguments: &[u8]) -> &'static [u8] {
        let mut arguments = words(arguments);
        match arguments.next() {
            Some(b"tune") => self.lru_tune(&mut arguments),
            Some(b"mode") => match arguments.next() {
                Some(b"flat") => self.done(&[("lru_segmented", "no")]),
                Some(b"segmented") => self.done(&[("lru_segmented", "yes")]),
                _ => reply::ERROR,
            },
            Some(b"temp_ttl") => match arguments.next().and_then(number::strict_i32) {
                Some(seconds) if seconds < 0 => self.done(&[("temp_lru", "no")]),
                Some(seconds) => {
                    let seconds = seconds.to_string();
                    self.done(&[("temp_lru", "yes"), ("temporary_ttl", &seconds)])
                }
                None => reply::ERROR,
            },
            _ => reply::ERROR,
        }
    }

    fn lru_tune<'a>(&self, arguments: &mut impl Iterator<Item = &'a [u8]>) -> &'static [u8] {
        let mut share = || arguments.next().and_then(number::strict_u32);
        let (Some(hot), Some(warm)) = (share(), share()) else { return reply::ERROR };
        let (Some(hot_factor), Some(warm_factor)) =
            (arguments.next().and_then(decimal), arguments.next().and_then(decimal))
        else {
            return reply::ERROR;
        };
        if u64::from(hot) + u64::from(warm) > SHARES_MAX {
            return reply::LRU_SHARES;
        }
        if hot_factor <= 0.0 || warm_factor <= 0.0 {
            return reply::LRU_FACTORS;
        }
        self.done(&[
            ("hot_lru_pct", &hot.to_string()),
            ("warm_lru_pct", &warm.to_string()),
            ("hot_max_factor", &format!("{hot_factor:.2}")),
            ("warm_max_factor", &format!("{warm_factor:.2}")),
        ])
    }

    fn done(&self, lines: &[(&str, &str)]) -> &'static [u8] {
        for (name, value) in lines {
            self.set(name, *value);
        }
        reply::OK
    }

    /// `slabs`
    pub fn slabs(&self, arguments: &[u8]) -> &'static [u8] {
        let mut arguments = words(arguments);
        match arguments.next() {
            Some(b"reassign") => {
                let given = (arguments.next(), arguments.next());
                let (Some(from), Some(to)) = given else { return reply::ERROR };
                if arguments.next().is_some_and(|word| word != b"noreply") {
                    return reply::ERROR;
                }
                self.reassign(from, to)
            }
            Some(b"automove") => self.automove(arguments.next(), arguments.next()),
            _ => reply::ERROR,
        }
    }

    fn reassign(&self, from: &[u8], to: &[u8]) -> &'static [u8] {
        if self.is("slab_reassign", "no") {
            return reply::SLABS_DISABLED;
        }
        let (Some(from), Some(to)) = (number::strict_i32(from), number::strict_i32(to)) else {
            return reply::BAD_FORMAT;
        };
        let is_class = |id: i32| (0..CLASS_LIMIT as i32).contains(&id);
        if from == to {
            reply::SLABS_SAME
        } else if !is_class(from) || !is_class(to) {
            reply::SLABS_BAD_CLASS
        } else {
            // Memory goes where it is needed without being told.
            reply::SLABS_NO_SPARE
        }
    }

    fn automove(&self, what: Option<&[u8]>, value: Option<&[u8]>) -> &'static [u8] {
        match (what, value) {
            (None | Some(b"ratio" | b"freeratio"), None) => reply::ERROR,
            (Some(b"ratio"), Some(ratio)) => match decimal(ratio) {
                Some(ratio) => self.done(&[("slab_automove_ratio", &format!("{ratio:.2}"))]),
                None => reply::ERROR,
            },
            (Some(b"freeratio"), Some(ratio)) => match decimal(ratio) {
                Some(ratio) => self.done(&[("slab_automove_freeratio", &format!("{ratio:.3}"))]),
                None => reply::ERROR,
            },
            (Some(b"window"), Some(window)) => match number::strict_u32(window) {
                Some(window) if WINDOW.contains(&window) => {
                    self.done(&[("slab_automove_window", &window.to_string())])
                }
                Some(_) => reply::SLABS_WINDOW,
                None => reply::BAD_FORMAT,
            },
            (Some(level), _) => match number::strict_u32(level) {
                Some(level @ 0..=2) => self.done(&[("slab_automove", &level.to_string())]),
                Some(_) => reply::ERROR,
                None => reply::BAD_FORMAT,
            },
            (None, Some(_)) => reply::ERROR,
        }
    }

    /// `extstore`
    pub fn extstore(&self, arguments: &[u8]) -> &'static [u8] {
        let mut arguments = words(arguments);
        let (what, value) = (arguments.next(), arguments.next());
        let (Some(what), Some(value)) = (what, value) else { return reply::ERROR };
        let count = number::strict_u32(value);
        match what {
            // About memory kept free for reading from flash; memcached ignores it too.
            b"free_memchunks" => {
                let limit = arguments.next().and_then(number::strict_u32);
                match (count.filter(|class| *class < CLASS_LIMIT), limit) {
                    (Some(_), Some(_)) => reply::OK,
                    _ => reply::ERROR,
                }
            }
            b"max_frag" => match decimal(value) {
                Some(share) => self.done(&[("ext_max_frag", &format!("{share:.2}"))]),
                None => reply::ERROR,
            },
            b"drop_unread" => match count {
                Some(count) => {
                    self.done(&[("ext_drop_unread", if count == 0 { "no" } else { "yes" })])
                }
                None => reply::ERROR,
            },
            _ => match (EXTSTORE_COUNTS.iter().find(|name| name.0 == what), count) {
                (Some((_, line)), Some(count)) => self.done(&[(line, &count.to_string())]),
                _ => reply::ERROR,
            },
        }
    }

    /// `lru_crawler`, but for the dumps. Expired items are removed all the time, whatever is said.
    pub fn lru_crawler(&self, arguments: &[u8]) -> &'static [u8] {
        let mut arguments = words(arguments).filter(|word| *word != b"noreply");
        let given = (arguments.next(), arguments.next(), arguments.next());
        match given {
            (Some(b"enable"), None, None) if !self.crawler_disabled() => reply::CRAWLER_RUNS,
            (Some(b"enable"), None, None) => self.done(&[("lru_crawler", "yes")]),
            (Some(b"disable"), None, None) => self.done(&[("lru_crawler", "no")]),
            (Some(b"crawl"), Some(_), None) if self.crawler_disabled() => reply::CRAWLER_DISABLED,
            (Some(b"crawl"), Some(b"hash"), None) => reply::CRAWLER_UNKNOWN,
            (Some(b"crawl"), Some(b"all"), None) => reply::OK,
            (Some(b"crawl"), Some(list), None) => {
                classes(list).map_or(reply::BAD_CLASS, |_| reply::OK)
            }
            (Some(b"sleep"), Some(time), None) => match number::strict_u32(time) {
                Some(time) if time > SLEEP_MICROSECONDS_MAX => reply::CRAWLER_SLEEP,
                Some(time) => self.done(&[("lru_crawler_sleep", &time.to_string())]),
                None => reply::BAD_FORMAT,
            },
            (Some(b"tocrawl"), Some(count), None) => match number::strict_u32(count) {
                Some(count) => self.done(&[("lru_crawler_tocrawl", &count.to_string())]),
                None => reply::BAD_FORMAT,
            },
            _ => reply::ERROR,
        }
    }
}

/// The classes that a list such as `1,2` names; `None` if one of them cannot be.
pub fn classes(list: &[u8]) -> Option<Vec<u32>> {
    let names = list.split(|byte| *byte == b',').filter(|name| !name.is_empty());
    let class = |name| number::strict_u32(name).filter(|id| (1..CLASS_LIMIT).contains(id));
    let found: Vec<u32> = names.map(class).collect::<Option<_>>()?;
    (!found.is_empty()).then_some(found)
}

/// A number with a fraction. Unlike C's `strtod`, not one that cannot be compared.
fn decimal(word: &[u8]) -> Option<f64> {
    let number: f64 = str::from_utf8(word).ok()?.parse().ok()?;
    (!number.is_nan()).then_some(number)
}

/// The whole answer to `config get cluster`, from the text of the file.
fn cluster_answer(text: &str) -> Option<String> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let version: u64 = lines.next()?.parse().ok()?;
    let nodes: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
    let is_node = |node: &&str| {
        let fields: Vec<&str> = node.split('|').collect();
        matches!(fields[..], [host, _, port] if !host.is_empty() && port.parse::<u16>().is_ok())
    };
    if nodes.is_empty() || !nodes.iter().all(is_node) {
        return None;
    }
    let body = format!("{version}\n{}\n", nodes.join(" "));
    Some(format!("CONFIG cluster 0 {}\r\n{body}\r\nEND\r\n", body.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compat_settings() -> CompatSettings {
        CompatSettings::new(&AcceptedOnly::default())
    }

    fn setting(compat_settings: &CompatSettings, name: &str) -> String {
        compat_settings.settings().into_iter().find(|line| line.0 == name).expect(name).1
    }

    #[test]
    fn settings_are_remembered_and_refused_ones_are_not() {
        let compat_settings = compat_settings();
        assert_eq!(compat_settings.lru(b" tune 10 25 0.1 2.5"), reply::OK);
        assert_eq!(compat_settings.lru(b" tune 41 40 0.1 2.5"), reply::LRU_SHARES);
        // memcached adds them in 32 bits.
        assert_eq!(compat_settings.lru(b" tune 4294967295 10 0.1 2.5"), reply::LRU_SHARES);
        assert_eq!(compat_settings.lru(b" tune 10 20 nan 2.5"), reply::ERROR);
        assert_eq!(compat_settings.lru(b" temp_ttl 60"), reply::OK);
        assert_eq!(compat_settings.slabs(b" automove 2"), reply::OK);
        assert_eq!(compat_settings.slabs(b" automove window 1801"), reply::SLABS_WINDOW);
        for (name, value) in [
            ("hot_lru_pct", "10"),
            ("warm_max_factor", "2.50"),
            ("temp_lru", "yes"),
            ("temporary_ttl", "60"),
            ("slab_automove", "2"),
            ("slab_automove_window", "10"),
        ] {
            assert_eq!(setting(&compat_settings, name), value, "{name}");
        }
    }

    #[test]
    fn a_crawler_that_is_disabled_answers_so() {
        let compat_settings = compat_settings();
        for (said, answer) in [
            ("enable", reply::CRAWLER_RUNS),
            ("crawl 1", reply::OK),
            ("disable", reply::OK),
            ("crawl 1", reply::CRAWLER_DISABLED),
            ("disable", reply::OK),
            ("enable", reply::OK),
            ("crawl 1,2", reply::OK),
            ("crawl 1,x", reply::BAD_CLASS),
            ("crawl hash", reply::CRAWLER_UNKNOWN),
        ] {
            assert_eq!(compat_settings.lru_crawler(said.as_bytes()), answer, "{said}");
        }
    }

    #[test]
    fn flash_settings_are_remembered() {
        let compat_settings = compat_settings();
        for (said, answer) in [
            ("", reply::ERROR),
            ("item_age", reply::ERROR),
            ("item_age x", reply::ERROR),
            ("what 1", reply::ERROR),
            ("free_memchunks 1", reply::ERROR),
            ("free_memchunks 64 2", reply::ERROR),
            ("free_memchunks 1 2", reply::OK),
            ("item_age 10", reply::OK),
            ("max_frag 0.5", reply::OK),
            ("max_frag x", reply::ERROR),
            ("drop_unread 1", reply::OK),
            ("recache_rate 4294967296", reply::ERROR),
        ] {
            assert_eq!(compat_settings.extstore(said.as_bytes()), answer, "{said}");
        }
        for (name, value) in
            [("ext_item_age", "10"), ("ext_max_frag", "0.50"), ("ext_drop_unread", "yes")]
        {
            assert_eq!(setting(&compat_settings, name), value, "{name}");
        }
    }

    #[test]
    fn lists_of_classes() {
        for (list, expected) in [
            ("1", Some(vec![1])),
            ("1,63", Some(vec![1, 63])),
            ("1,", Some(vec![1])),
            ("", None),
            (",", None),
            ("0", None),
            ("64", None),
            ("1,x", None),
        ] {
            assert_eq!(classes(list.as_bytes()), expected, "{list:?}");
        }
    }

    #[test]
    fn a_cluster_is_described_as_elasticache_does() {
        let answer = "CONFIG cluster 0 45\r\n12\na.example|10.0.0.1|11211 b.example||11212\n\r\n\
                      END\r\n";
        for (text, expected) in [
            ("12\na.example|10.0.0.1|11211 b.example||11212\n", Some(answer)),
            ("12\r\na.example|10.0.0.1|11211\r\nb.example||11212\r\n", Some(answer)),
            ("", None),
            ("12\n", None),
            ("x\na|b|1\n", None),
            ("12\na|b\n", None),
            ("12\na|b|65536\n", None),
        ] {
            assert_eq!(cluster_answer(text).as_deref(), expected, "{text:?}");
        }
    }
}
