//! Every fixed line the server answers, as memcached words it.

/// The value was stored.
pub const STORED: &[u8] = b"STORED\r\n";
/// The condition of add, replace, append or prepend was not met.
pub const NOT_STORED: &[u8] = b"NOT_STORED\r\n";
/// The token is no longer the item's.
pub const EXISTS: &[u8] = b"EXISTS\r\n";
/// No such item.
pub const NOT_FOUND: &[u8] = b"NOT_FOUND\r\n";
/// The item is gone.
pub const DELETED: &[u8] = b"DELETED\r\n";
/// The expiry was changed.
pub const TOUCHED: &[u8] = b"TOUCHED\r\n";
/// Done.
pub const OK: &[u8] = b"OK\r\n";
/// The end of a list.
pub const END: &[u8] = b"END\r\n";
/// Counters are at 0.
pub const RESET: &[u8] = b"RESET\r\n";
/// The answer to `mn`.
pub const META_NOOP: &[u8] = b"MN\r\n";
/// A miss of `me`.
pub const META_MISS: &[u8] = b"EN\r\n";
/// The end of a line.
pub const LINE_END: &[u8] = b"\r\n";

/// Unknown command.
pub const ERROR: &[u8] = b"ERROR\r\n";
/// A line that cannot be understood.
pub const BAD_FORMAT: &[u8] = b"CLIENT_ERROR bad command line format\r\n";
/// `stats detail` and `stats cachedump` without their arguments.
pub const BAD_LINE: &[u8] = b"CLIENT_ERROR bad command line\r\n";
/// A delete with more than a key.
pub const DELETE_USAGE: &[u8] =
    b"CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n";
/// A data block that does not end where its length says.
pub const BAD_DATA_CHUNK: &[u8] = b"CLIENT_ERROR bad data chunk\r\n";
/// An expiry that is no number.
pub const BAD_EXPTIME: &[u8] = b"CLIENT_ERROR invalid exptime argument\r\n";
/// A delta that is no number.
pub const BAD_DELTA: &[u8] = b"CLIENT_ERROR invalid numeric delta argument\r\n";
/// incr or decr of text.
pub const NOT_NUMERIC: &[u8] = b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n";
/// Above `-I`.
pub const TOO_LARGE: &[u8] = b"SERVER_ERROR object too large for cache\r\n";
/// The memory limit is reached and evictions are off.
pub const OUT_OF_MEMORY_STORING: &[u8] = b"SERVER_ERROR out of memory storing object\r\n";
/// The same for incr, decr and touch.
pub const OUT_OF_MEMORY: &[u8] = b"SERVER_ERROR out of memory\r\n";
/// Statistics that connections have no memory left for.
pub const OUT_OF_MEMORY_STATS: &[u8] = b"SERVER_ERROR out of memory writing stats\r\n";
/// The same for an item that `ma N` would create.
pub const OUT_OF_MEMORY_NEW_ITEM: &[u8] = b"SERVER_ERROR Out of memory allocating new item\r\n";
/// The log cannot be written, so a change would not be kept.
pub const LOG_UNAVAILABLE: &[u8] = b"SERVER_ERROR log unavailable\r\n";
/// `snapshot` without a data directory.
pub const NO_DATA_DIRECTORY: &[u8] = b"SERVER_ERROR no data directory, see --data-dir\r\n";
/// Too many connections wait for a snapshot.
pub const SNAPSHOTS_AWAITED: &[u8] = b"SERVER_ERROR too many snapshots at a time, try again\r\n";
/// `-F`
pub const FLUSH_NOT_ALLOWED: &[u8] = b"CLIENT_ERROR flush_all not allowed\r\n";
/// `-X`
pub const DETAIL_NOT_ALLOWED: &[u8] = b"CLIENT_ERROR stats detail not allowed\r\n";
/// `-X`
pub const CACHEDUMP_NOT_ALLOWED: &[u8] = b"CLIENT_ERROR stats cachedump not allowed\r\n";
/// `-X`
pub const HOT_KEYS_NOT_ALLOWED: &[u8] = b"CLIENT_ERROR stats hotkeys not allowed\r\n";
/// `-X`
pub const BIG_KEYS_NOT_ALLOWED: &[u8] = b"CLIENT_ERROR stats bigkeys not allowed\r\n";
/// `stats detail` with another word.
pub const DETAIL_USAGE: &[u8] = b"CLIENT_ERROR usage: stats detail on|off|dump\r\n";
/// `stats cachedump` of a class that cannot be.
pub const ILLEGAL_SLAB_ID: &[u8] = b"CLIENT_ERROR Illegal slab id\r\n";
/// No `-A`.
pub const SHUTDOWN_NOT_ENABLED: &[u8] = b"SERVER_ERROR: shutdown not enabled\r\n";
/// `shutdown` with another word.
pub const SHUTDOWN_MODE: &[u8] = b"CLIENT_ERROR invalid shutdown mode\r\n";
/// `cache_memlimit` below 8.
pub const MEMORY_LIMIT_TOO_SMALL: &[u8] =
    b"MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\n";
/// `cache_memlimit` with a number of bytes.
pub const MEMORY_LIMIT_IS_MEGABYTES: &[u8] =
    b"MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes\r\n";
/// Two words that should differ.
pub const SLABS_SAME: &[u8] = b"SAME src and dst class are identical\r\n";
/// No such class, of two.
pub const SLABS_BAD_CLASS: &[u8] = b"BADCLASS invalid src or dst class id\r\n";
/// There is never memory to move from one class to another.
pub const SLABS_NO_SPARE: &[u8] = b"NOSPARE source class has no spare pages\r\n";
/// `-o no_slab_reassign`
pub const SLABS_DISABLED: &[u8] = b"CLIENT_ERROR slab reassignment disabled\r\n";
/// `slabs automove window` of no use.
pub const SLABS_WINDOW: &[u8] = b"CLIENT_ERROR automove window too low or too high\r\n";
/// `lru tune` with shares that leave too little.
pub const LRU_SHARES: &[u8] = b"ERROR hot and warm pcts must not exceed 80\r\n";
/// `lru tune` with factors that are none.
pub const LRU_FACTORS: &[u8] = b"ERROR hot/warm age factors must be greater than 0\r\n";
/// No such class.
pub const BAD_CLASS: &[u8] = b"BADCLASS invalid class id\r\n";
/// `lru_crawler disable` came before.
pub const CRAWLER_DISABLED: &[u8] = b"CLIENT_ERROR lru crawler disabled\r\n";
/// `lru_crawler enable` came before.
pub const CRAWLER_RUNS: &[u8] = b"ERROR failed to start lru crawler thread\r\n";
/// `lru_crawler crawl hash`
pub const CRAWLER_UNKNOWN: &[u8] = b"ERROR an unknown error happened\r\n";
/// `lru_crawler sleep` of more.
pub const CRAWLER_SLEEP: &[u8] = b"CLIENT_ERROR sleep must be one second or less\r\n";
/// `-X`
pub const METADUMP_NOT_ALLOWED: &[u8] = b"ERROR metadump not allowed\r\n";
/// `-X`
pub const KEY_DUMP_NOT_ALLOWED: &[u8] = b"ERROR key dump not allowed\r\n";
/// Replies wait before the dump.
pub const METADUMP_PIPELINED: &[u8] = b"ERROR cannot pipeline other commands before metadump\r\n";
/// Replies wait before the dump.
pub const KEY_DUMP_PIPELINED: &[u8] = b"ERROR cannot pipeline other commands before mgdump\r\n";
/// A command before the login.
pub const UNAUTHENTICATED: &[u8] = b"CLIENT_ERROR unauthenticated\r\n";
/// Wrong user or password.
pub const LOGIN_FAILED: &[u8] = b"CLIENT_ERROR authentication failure\r\n";
/// A login with more than a user and a password can be.
pub const LOGIN_TOO_LONG: &[u8] = b"CLIENT_ERROR auth token too long\r\n";
/// A login without a space between user and password.
pub const LOGIN_FORMAT: &[u8] = b"CLIENT_ERROR bad authentication token format\r\n";
/// A login that does not end where its length says.
pub const LOGIN_END: &[u8] = b"CLIENT_ERROR bad command line termination\r\n";
/// More logins at a time than can be checked.
pub const LOGIN_BUSY: &[u8] = b"SERVER_ERROR too many logins at a time, try again\r\n";
/// `-W`
pub const WATCH_NOT_ALLOWED: &[u8] = b"CLIENT_ERROR watch commands not allowed\r\n";
/// Replies wait before the watch.
pub const WATCH_PIPELINED: &[u8] = b"ERROR cannot pipeline other commands before watch\r\n";
/// As many watchers as there may be.
pub const TOO_MANY_WATCHERS: &[u8] = b"WATCHER_TOO_MANY log watcher limit reached\r\n";
/// `refresh_certs` without TLS.
pub const NO_TLS: &[u8] = b"Error TLS not enabled\r\n";
/// Above `-c`.
pub const TOO_MANY_CONNECTIONS: &[u8] = b"ERROR Too many open connections\r\n";

/// The same meta flag twice, or a byte that can be none.
pub const META_DUPLICATE_FLAG: &[u8] = b"CLIENT_ERROR duplicate flag\r\n";
/// A meta flag nobody knows.
pub const META_INVALID_FLAG: &[u8] = b"CLIENT_ERROR invalid flag\r\n";
/// Any wrong flag of `ma`.
pub const META_INVALID_OR_DUPLICATE: &[u8] = b"CLIENT_ERROR invalid or duplicate flag\r\n";
/// More words than a meta command may have.
pub const META_TOO_MANY_FLAGS: &[u8] = b"CLIENT_ERROR options flags are too long\r\n";
/// `O` with more than it may carry.
pub const META_OPAQUE_TOO_LONG: &[u8] = b"CLIENT_ERROR opaque token too long\r\n";
/// `b` with something that is not base64.
pub const META_BAD_KEY: &[u8] = b"CLIENT_ERROR error decoding key\r\n";
/// A flag whose number is none.
pub const META_BAD_TOKEN: &[u8] = b"CLIENT_ERROR bad token in command line format\r\n";
/// `D` with something that is no number.
pub const META_BAD_DELTA: &[u8] = b"CLIENT_ERROR invalid numeric delta value\r\n";
/// `J` with something that is no number.
pub const META_BAD_INITIAL: &[u8] = b"CLIENT_ERROR invalid numeric initial value\r\n";
/// `ms M?`
pub const META_BAD_STORE_MODE: &[u8] = b"CLIENT_ERROR invalid mode for ms M token\r\n";
/// `ma M?`
pub const META_BAD_ARITHMETIC_MODE: &[u8] = b"CLIENT_ERROR invalid mode for ma M token\r\n";
