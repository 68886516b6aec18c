//! Every limit of the project, with its unit in its name, and the relations between them.
//!
//! A limit that a client can run into is answered as memcached answers it; the others bound memory
//! or the work of one turn. Nothing here is configurable: what an operator may change is in
//! `server::config`.

/// Longest key in bytes; longer ones are refused.
pub const KEY_BYTES_MAX: usize = 250;

/// Most words on the line of a meta command, the verb and the key included.
pub const META_TOKENS_MAX: usize = 20;

/// Longest opaque token of a meta command, its `O` included.
pub const OPAQUE_BYTES_MAX: usize = 32;

/// Largest data block length a command line may announce.
pub const VALUE_BYTES_ANNOUNCED_MAX: u32 = i32::MAX as u32 - 2;

/// Largest body that a frame of the binary protocol may announce.
pub const BINARY_BODY_BYTES_MAX: u32 = 1 << 30;

/// Longest name of a mechanism of SASL.
pub const MECHANISM_BYTES_MAX: usize = 32;

/// A line that has not ended after this many bytes closes the connection, unless it lists keys to
/// get: those are answered as they arrive.
pub const LINE_BYTES_MAX: usize = 2048;

/// Longest user and password together, the space between included.
pub const LOGIN_BYTES_MAX: usize = 4096;

/// Largest `-I`: one gibibyte.
pub const ITEM_BYTES_LIMIT_MAX: u32 = 1 << 30;

/// Smallest `-I`.
pub const ITEM_BYTES_LIMIT_MIN: u32 = 1 << 10;

/// What memcached adds to key and value when it compares an item with `-I`: its item header, the
/// CAS token, a NUL after the key and the line end after the value. Kept so that the same items
/// are refused here.
pub const ITEM_BYTES_COMPAT_OVERHEAD: usize = 48 + 8 + 1 + 2;

/// Further bytes memcached adds for client flags other than 0.
pub const ITEM_BYTES_COMPAT_FLAGS: usize = 4;

/// Longest relative expiry in seconds (30 days); larger numbers are absolute Unix times.
pub const EXPTIME_RELATIVE_SECONDS_MAX: i64 = 60 * 60 * 24 * 30;

/// What one worker reads from a socket at a time.
pub const READ_BYTES: usize = 64 << 10;

/// A worker reads from several connections before it serves them, until it has this much: about
/// what stays in the innermost cache until it is looked at.
pub const RECEIVED_TOGETHER_BYTES: usize = 8 << 10;

/// A connection whose unsent replies exceed this is not served until the client has read.
pub const OUTPUT_BYTES_MAX: usize = 1 << 20;

/// What one connection is sent in a turn: a client that takes a gibibyte as fast as it comes does
/// not keep the others waiting meanwhile.
pub const WRITE_BYTES_MAX: usize = 256 << 10;

/// What all connections that have large values to be sent are sent in a turn. Less than fits a
/// processor's cache: what one client reads does not push out what the next is sent.
pub const SENT_BYTES_PER_TURN: usize = 256 << 10;

/// Connections that are served again in a turn without having waited for their client.
pub const CONTINUING_PER_TURN: usize = 8;

/// Connections accepted, or refused, from one listener before the others get their turn.
pub const ACCEPTS_MAX: usize = 256;

/// Values at least this large leave by reference instead of being copied into the reply.
pub const VALUE_BYTES_BY_REFERENCE_MIN: usize = 8 << 10;

/// Lookups announced to the store at a time: about as many reads as a processor has under way.
pub const LOOKUPS_ANNOUNCED_MAX: usize = 16;

/// So many keys of a list to get count as a further command of `-R`: a list takes its turn like
/// the same keys asked for one by one, only cheaper.
pub const KEYS_PER_COMMAND: usize = 8;

/// Most shards of a server: about four for each worker that a large machine has use for.
pub const SHARDS_MAX: usize = 64;

/// A shard has at least this much memory, so that its segments are neither few nor tiny.
pub const SHARD_MEMORY_BYTES_MIN: u64 = 4 << 20;

/// A shard has no more memory than this where there may be more shards, for it can number so many
/// segments only: enough for twice this in the smallest values that get a segment of their own.
pub const SHARD_MEMORY_BYTES_MAX: u64 = 64 << 30;

/// Largest segment of the store. Eviction works a segment at a time, so this bounds its pause.
pub const SEGMENT_BYTES_MAX: usize = 128 << 10;

/// Smallest segment of the store.
pub const SEGMENT_BYTES_MIN: usize = 16 << 10;

/// A shard has at least this many segments, so that eviction is fine-grained.
pub const SEGMENTS_PER_SHARD_MIN: usize = 64;

const _: () = assert!(KEY_BYTES_MAX <= u8::MAX as usize, "the item header keeps it in a byte");
const _: () = assert!(LINE_BYTES_MAX < READ_BYTES, "a whole line fits one read");
const _: () = assert!(KEY_BYTES_MAX * 2 < LINE_BYTES_MAX, "a key and its arguments fit a line");
const _: () = assert!(SEGMENT_BYTES_MIN.is_power_of_two() && SEGMENT_BYTES_MAX.is_power_of_two());
const _: () = assert!(SEGMENT_BYTES_MIN <= SEGMENT_BYTES_MAX);
const _: () = assert!(SHARDS_MAX.is_power_of_two());
const _: () = assert!(SHARD_MEMORY_BYTES_MIN < SHARD_MEMORY_BYTES_MAX);
const _: () =
    assert!(SHARD_MEMORY_BYTES_MIN >= (SEGMENTS_PER_SHARD_MIN * SEGMENT_BYTES_MIN) as u64);
const _: () = assert!(SEGMENT_BYTES_MIN / 8 > KEY_BYTES_MAX + 64, "small items fit any segment");
const _: () = assert!(WRITE_BYTES_MAX <= SENT_BYTES_PER_TURN && READ_BYTES <= WRITE_BYTES_MAX);
const _: () = assert!(OUTPUT_BYTES_MAX > VALUE_BYTES_BY_REFERENCE_MIN);
const _: () = assert!(ITEM_BYTES_LIMIT_MIN < ITEM_BYTES_LIMIT_MAX);
