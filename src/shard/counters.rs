//! What commands did, under the names `stats` gives it.

/// Counters of one shard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)] // The names are memcached's, documented in its protocol.
pub struct Counters {
    pub cmd_get: u64,
    pub cmd_set: u64,
    pub cmd_touch: u64,
    pub cmd_meta: u64,
    pub get_hits: u64,
    pub get_misses: u64,
    pub get_expired: u64,
    pub delete_misses: u64,
    pub delete_hits: u64,
    pub incr_misses: u64,
    pub incr_hits: u64,
    pub decr_misses: u64,
    pub decr_hits: u64,
    pub cas_misses: u64,
    pub cas_hits: u64,
    pub cas_badval: u64,
    pub touch_hits: u64,
    pub touch_misses: u64,
    pub store_too_large: u64,
    pub store_no_memory: u64,
}

impl Counters {
    /// Keys that were looked up to be read or touched: found, and not.
    pub fn lookups(&self) -> (u64, u64) {
        (self.get_hits + self.touch_hits, self.get_misses + self.touch_misses)
    }

    /// Adds another shard's counters to these.
    pub fn add(&mut self, other: &Self) {
        let Self {
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
        } = other;
        self.cmd_get += cmd_get;
        self.cmd_set += cmd_set;
        self.cmd_touch += cmd_touch;
        self.cmd_meta += cmd_meta;
        self.get_hits += get_hits;
        self.get_misses += get_misses;
        self.get_expired += get_expired;
        self.delete_misses += delete_misses;
        self.delete_hits += delete_hits;
        self.incr_misses += incr_misses;
        self.incr_hits += incr_hits;
        self.decr_misses += decr_misses;
        self.decr_hits += decr_hits;
        self.cas_misses += cas_misses;
        self.cas_hits += cas_hits;
        self.cas_badval += cas_badval;
        self.touch_hits += touch_hits;
        self.touch_misses += touch_misses;
        self.store_too_large += store_too_large;
        self.store_no_memory += store_no_memory;
    }
}
