//! What commands answer where it depends on the memory. The rest is tested over the wire.

use super::operation::{Data, Form, Operation, Verb};
use super::replies::Replies;
use super::{Rules, Shard};
use crate::durable::journal::Journal;
use crate::durable::progress::Dirty;
use crate::durable::record::Seed;
use crate::protocol::{ArithmeticArgs, Exptime, StoreArgs, StoreMode};
use crate::store::budget::Budget;
use crate::store::hash::KeyHasher;
use crate::store::{Settings, Ticks};
use std::sync::Arc;

struct Rig {
    shard: Shard,
    hasher: KeyHasher,
    now: Ticks,
}

impl Rig {
    fn new(memory_bytes: u64, evict: bool) -> Self {
        let hasher = KeyHasher::new([7, 11]);
        let budget = Budget::new(memory_bytes, 1);
        let settings = Settings { budget, evict, hasher: hasher.clone(), sequence_start: 1 };
        let rules = Rules { item_bytes_max: 1 << 20, cas: true, prefix_delimiter: b':' };
        Self { shard: Shard::new(settings, rules), hasher, now: Ticks::from_seconds(1_000_000) }
    }

    fn execute(&mut self, key: &str, verb: Verb<'_>) -> String {
        let (mut out, key) = (Replies::default(), key.as_bytes());
        let operation = Operation { key, hash: self.hasher.hash(key), form: Form::Text, verb };
        self.shard.execute(operation, self.now, &mut out);
        String::from_utf8(out.bytes).expect("these values are text")
    }

    fn store(&mut self, key: &str, mode: StoreMode, value: &str) -> String {
        let args = StoreArgs { mode, flags: 0, exptime: Exptime::Relative(1000), compare: 0 };
        self.execute(key, Verb::Store(args, Data::Slice(value.as_bytes())))
    }
}

/// Once, where the log had failed, a connection was closed for reading a key that had expired.
#[test]
fn regression_a_read_that_meets_an_expired_item_waits_for_no_record() {
    let mut rig = Rig::new(8 << 20, true);
    let dirty = Arc::new(Dirty::new(1));
    rig.shard.record_in(Journal::new(Seed::of(1), 0, 0, dirty, false), None);
    let execute = |rig: &mut Rig, verb: Verb<'_>| {
        let (key, mut out) = (b"k", Replies::default());
        let operation = Operation { key, hash: rig.hasher.hash(key), form: Form::Text, verb };
        rig.shard.execute(operation, rig.now, &mut out)
    };
    let args =
        StoreArgs { mode: StoreMode::Set, flags: 0, exptime: Exptime::Relative(1), compare: 0 };
    assert_eq!(execute(&mut rig, Verb::Store(args, Data::Slice(b"v"))), 1, "a change waits");
    rig.now = rig.now.plus_seconds(2);
    assert_eq!(execute(&mut rig, Verb::Get { with_cas: false }), 0);
    let sequence = rig.shard.journal().map_or(0, |journal| journal.sequence());
    assert!(sequence > 1, "that it has expired is recorded");
}

/// Goal: with evictions forbidden and no room for another item, what needs no more room than what
/// it replaces goes through, for every key and many times. Method: fill, then change all keys round
/// after round. Tokens of the larger ones are handed out on the way, so that they are not written
/// over in place. (Small ones would grow by a token each, or by their first expiry.)
#[test]
fn regression_without_eviction_changes_that_need_no_more_room_succeed() {
    for value_bytes in [20, 300, 3_000, 30_000] {
        let mut rig = Rig::new(8 << 20, false);
        let number = "00000000000000000007";
        let value = "v".repeat(value_bytes);
        let mut keys = 0;
        while rig.store(&format!("n{keys}"), StoreMode::Set, number) == "STORED\r\n"
            && rig.store(&format!("v{keys}"), StoreMode::Set, &value) == "STORED\r\n"
        {
            keys += 1;
        }
        assert!(keys > 100, "{keys}");
        for round in 1..=5u32 {
            for key in 0..keys {
                let (number, text) = (format!("n{key}"), format!("v{key}"));
                let increment = Verb::Arithmetic(ArithmeticArgs::of_line(true, 1));
                assert_eq!(rig.execute(&number, increment), format!("{}\r\n", 7 + round));
                let exptime = Exptime::Relative(100 + round);
                assert_eq!(rig.execute(&text, Verb::Touch { exptime }), "TOUCHED\r\n");
                let got = rig.execute(&number, Verb::GetAndTouch { with_cas: false, exptime });
                assert!(got.starts_with("VALUE"), "{got}");
                let got = rig.execute(&text, Verb::Get { with_cas: value_bytes > 200 });
                assert!(got.starts_with("VALUE"), "{got}");
                let stored = rig.store(&text, StoreMode::Set, &value);
                assert_eq!(stored, "STORED\r\n", "round {round}, {key} of {keys}: {value_bytes}");
            }
        }
        let more = (0..keys).take_while(|key| {
            rig.store(&format!("w{key}"), StoreMode::Set, &value) == "STORED\r\n"
        });
        let more = more.count();
        assert!(more <= keys / 10, "{more} more than {keys} of {value_bytes} bytes");
        let store = rig.shard.store();
        assert!(store.items() >= 2 * keys && store.counters().evictions == 0);
        assert!(store.memory_bytes() <= (8 << 20) + (8 << 20) / 16, "{}", store.memory_bytes());
    }
}
