//! The store against a naive model over long random histories, eviction off and on.

use super::*;
use budget::HELD_BYTES_FREE;
use proptest::prelude::*;
use std::collections::HashMap;

fn store(memory_bytes_max: u64, evict: bool) -> Store {
    let hasher = KeyHasher::new([7, 11]);
    Store::new(Settings {
        budget: Budget::new(memory_bytes_max, 1),
        evict,
        hasher,
        sequence_start: 1,
    })
}

fn start() -> Ticks {
    Ticks::from_seconds(1_000_000)
}

fn put(
    store: &mut Store,
    key: &[u8],
    attributes: Attributes,
    value: &[u8],
    now: Ticks,
) -> Result<Handle, Full> {
    let hash = store.hasher.hash(key);
    let old = store.find(hash, key, now).ok();
    store.put(hash, old, key, attributes, Value::Parts([value, &[]]), now)
}

fn value(store: &mut Store, key: &[u8], now: Ticks) -> Option<Vec<u8>> {
    let hash = store.hasher.hash(key);
    let handle = store.find(hash, key, now).ok()?;
    store.accessed(handle);
    Some(store.item(handle).value.to_vec())
}

/// What a store must agree with: a map with deadlines.
#[derive(Default)]
struct Model(HashMap<Vec<u8>, (Vec<u8>, Attributes)>);

impl Model {
    fn get(&mut self, key: &[u8], now: Ticks) -> Option<(Vec<u8>, Attributes)> {
        let found = self.0.get(key)?;
        if found.1.deadline.is_some_and(|deadline| deadline <= now) {
            self.0.remove(key);
            return None;
        }
        Some(found.clone())
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put {
        key: u16,
        bytes: usize,
        attributes: Attributes,
    },
    Get {
        key: u16,
    },
    Observe {
        key: u16,
    },
    Touch {
        key: u16,
        seconds: u64,
    },
    Remove {
        key: u16,
    },
    Advance {
        ticks: u64,
    },
    Maintain,
    Flush,
    /// A new memory limit, in hundredths of the first one.
    Limit {
        percent: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0u16..300;
    let bytes = prop_oneof![4 => 0usize..200, 2 => 200usize..3_000, 1 => 3_000usize..40_000];
    let attributes = (prop::option::of(1u64..400), any::<u32>(), any::<bool>()).prop_map(
        |(seconds, flags, stale)| Attributes {
            flags: if flags % 2 == 0 { 0 } else { flags },
            deadline: seconds.map(|seconds| start().plus_seconds(seconds)),
            stale,
            ..Attributes::default()
        },
    );
    prop_oneof![
        40 => (key.clone(), bytes, attributes)
            .prop_map(|(key, bytes, attributes)| Step::Put { key, bytes, attributes }),
        40 => key.clone().prop_map(|key| Step::Get { key }),
        5 => key.clone().prop_map(|key| Step::Observe { key }),
        8 => (key.clone(), 1u64..400).prop_map(|(key, seconds)| Step::Touch { key, seconds }),
        10 => key.prop_map(|key| Step::Remove { key }),
        5 => (1u64..500).prop_map(|ticks| Step::Advance { ticks }),
        3 => Just(Step::Maintain),
        1 => Just(Step::Flush),
        2 => (50u64..=100).prop_map(|percent| Step::Limit { percent }),
    ]
}

fn key_bytes(key: u16) -> Vec<u8> {
    format!("key-{key}-{}", "x".repeat(key as usize % 40)).into_bytes()
}

fn run_history(steps: Vec<Step>, memory_bytes_max: u64, evict: bool) {
    let mut store = store(memory_bytes_max, evict);
    let mut model = Model::default();
    let mut tokens: HashMap<Vec<u8>, u64> = HashMap::new();
    let mut now = start();
    // Above a lowered limit memory comes down in steps, and never goes up by more than the slack.
    let mut bound = memory_bytes_max;
    for (count, step) in steps.into_iter().enumerate() {
        match step {
            Step::Put { key, bytes, attributes } => {
                let key = key_bytes(key);
                let value = vec![count as u8; bytes];
                match put(&mut store, &key, attributes, &value, now) {
                    Ok(_) => {
                        tokens.remove(&key);
                        model.0.insert(key, (value, attributes));
                    }
                    Err(Full) => assert!(!evict, "an evicting store has room"),
                }
            }
            Step::Get { key } => {
                check_get(&mut store, &mut model, &tokens, &key_bytes(key), now, evict)
            }
            Step::Observe { key } => {
                let key = key_bytes(key);
                let hash = store.hasher.hash(&key);
                if let Ok(handle) = store.find(hash, &key, now) {
                    store.token_handed_out(handle);
                    tokens.insert(key, store.item(handle).token);
                }
            }
            Step::Touch { key, seconds } => {
                let deadline = now.plus_seconds(seconds);
                touch(&mut store, &mut model, &key_bytes(key), deadline, now);
            }
            Step::Remove { key } => {
                let key = key_bytes(key);
                let hash = store.hasher.hash(&key);
                let found = store.find(hash, &key, now);
                let expected = model.get(&key, now).is_some();
                assert!(found.is_err() || expected);
                if let Ok(handle) = found {
                    store.remove(handle);
                }
                model.0.remove(&key);
                tokens.remove(&key);
            }
            Step::Advance { ticks } => now = Ticks(now.0 + ticks),
            Step::Maintain => _ = store.maintain(now, usize::MAX),
            Step::Flush => {
                store.flush();
                model.0.clear();
                tokens.clear();
            }
            Step::Limit { percent } => {
                store.set_memory_bytes_max(memory_bytes_max / 100 * percent);
                bound = store.memory_bytes().max(store.memory_bytes_max());
            }
        }
        bound = bound.min(store.memory_bytes()).max(store.memory_bytes_max());
        check_bookkeeping(&store, bound);
    }
    for key in 0..300 {
        check_get(&mut store, &mut model, &tokens, &key_bytes(key), now, evict);
    }
}

fn touch(store: &mut Store, model: &mut Model, key: &[u8], deadline: Ticks, now: Ticks) {
    let hash = store.hasher.hash(key);
    let Ok(handle) = store.find(hash, key, now) else { return };
    let attributes = Attributes { deadline: Some(deadline), ..store.item(handle).attributes };
    if store.rewrite(hash, handle, attributes, TokenRule::Keep, now).is_ok() {
        let entry = model.0.get_mut(key).expect("a hit is in the model");
        entry.1.deadline = Some(deadline);
    }
}

fn check_get(
    store: &mut Store,
    model: &mut Model,
    tokens: &HashMap<Vec<u8>, u64>,
    key: &[u8],
    now: Ticks,
    evict: bool,
) {
    let expected = model.get(key, now);
    let hash = store.hasher.hash(key);
    match (store.find(hash, key, now), expected) {
        (Ok(handle), Some((value, attributes))) => {
            store.accessed(handle);
            let item = store.item(handle);
            assert_eq!(item.key, key);
            assert!(item.value == value, "the value stored last");
            assert_eq!(Attributes { cas: None, ..item.attributes }, attributes);
            if let Some(token) = tokens.get(key) {
                assert_eq!(item.token, *token, "a token handed out stays");
            }
            if let Some(shared) = store.share_value(handle) {
                assert!(shared == value);
            }
        }
        (Ok(_), None) => panic!("served an item that was deleted, expired or flushed"),
        (Err(_), Some(_)) => assert!(evict, "lost an item without eviction"),
        (Err(_), None) => {}
    }
}

/// Counts that are kept up to date step by step, computed anew.
fn check_bookkeeping(store: &Store, bound: u64) {
    let segments = || store.segments.iter().flatten();
    let live: usize = segments().map(|segment| segment.live_bytes).sum();
    assert_eq!(live as u64, store.live_bytes);
    let memory: usize = segments().map(Segment::memory_bytes).sum();
    assert_eq!(memory as u64, store.segment_memory_bytes);
    assert!(segments().all(|segment| segment.live_bytes <= segment.used_bytes));
    let slack = store.budget().slack_bytes() + (store.segment_bytes * 4) as u64;
    assert!(store.memory_bytes() <= bound + slack, "{}", store.memory_bytes());
    store.check_lists();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn agrees_with_the_model_without_eviction(steps in prop::collection::vec(step(), 1..1_500)) {
        run_history(steps, 64 << 20, false);
    }

    #[test]
    fn never_serves_a_wrong_value_while_evicting(
        steps in prop::collection::vec(step(), 1..1_500),
    ) {
        run_history(steps, 1 << 20, true);
    }
}

#[test]
fn full_without_eviction_keeps_what_is_there() {
    let (mut store, now) = (store(2 << 20, false), start());
    let mut stored = 0u32;
    while put(&mut store, &stored.to_be_bytes(), Attributes::default(), &[1; 100], now).is_ok() {
        stored += 1;
    }
    assert!(stored > 12_000, "{stored}");
    assert!((0..stored).all(|key| value(&mut store, &key.to_be_bytes(), now).is_some()));
    // What is deleted makes room again, by compaction.
    let deleted = (0..stored).filter(|key| key % 4 == 0);
    for key in deleted.clone() {
        let hash = store.hasher.hash(&key.to_be_bytes());
        let handle = store.find(hash, &key.to_be_bytes(), now).expect("nothing is evicted");
        store.remove(handle);
    }
    for key in deleted.filter(|key| key % 8 == 0) {
        put(&mut store, &key.to_be_bytes(), Attributes::default(), &[2; 100], now)
            .expect("room was freed");
    }
    let expected = (0..stored).filter(|key| key % 4 != 0 || key % 8 == 0).count();
    assert_eq!(store.items(), expected);
    assert_eq!(store.counters().evictions, 0);
}

#[test]
fn regression_a_full_store_whose_index_shrinks_overwrites_the_right_item() {
    for base in [0, 1_000_000, 2_000_000] {
        let (mut store, now) = (store(8 << 20, false), start());
        let keys = base..base + 1_000_000u32;
        let attributes = Attributes::default();
        let stored = keys
            .clone()
            .take_while(|key| put(&mut store, &key.to_be_bytes(), attributes, &[], now).is_ok())
            .count();
        let (deleted, left): (Vec<u32>, Vec<u32>) = keys.take(stored).partition(|key| key % 20 > 0);
        for key in deleted {
            let hash = store.hasher.hash(&key.to_be_bytes());
            let handle = store.find(hash, &key.to_be_bytes(), now).expect("nothing is evicted");
            store.remove(handle);
        }
        let value_bytes = |store: &mut Store, key: u32| {
            value(store, &key.to_be_bytes(), now).map(|value| value.len())
        };
        let mut refused = 0;
        for key in &left {
            let is_full = put(&mut store, &key.to_be_bytes(), attributes, &[7; 1500], now).is_err();
            refused += usize::from(is_full);
            let expected = if is_full { 0 } else { 1500 };
            assert_eq!(value_bytes(&mut store, *key), Some(expected), "{key}");
        }
        assert!(refused > 0 && refused < left.len(), "{refused} of {}", left.len());
        assert!(left.iter().all(|key| value_bytes(&mut store, *key).is_some()));
        (0..10_000).for_each(|_| _ = store.maintain(now, 16));
        assert!(!store.index.is_sparse());
    }
}

/// Has connections hold so much beyond what they may beside the limit.
fn lend(store: &Store, bytes: u64) {
    let held_bytes = store.budget().held_bytes() as i64;
    store.budget().add_held_bytes((HELD_BYTES_FREE + bytes) as i64 - held_bytes);
}

#[test]
fn memory_lent_away_comes_back_in_steps() {
    let (mut store, now) = (store(64 << 20, true), start());
    let drained = |store: &Store| {
        store.counters().evictions + store.counters().moves + store.counters().cleaned
    };
    for key in 0..5_000_000u32 {
        // Connections take a little, a lot, and give it back.
        match key {
            4_000_000 => lend(&store, 2 << 20),
            4_100_000 => lend(&store, 18 << 20),
            4_800_000 => lend(&store, 0),
            _ => {}
        }
        let before = drained(&store);
        put(&mut store, &key.to_be_bytes(), Attributes::default(), &[2; 4], now).expect("evicts");
        let drained = drained(&store) - before;
        assert!(key < 4_000_000 || drained <= 16, "{drained} items for {key}");
        if key == 4_799_999 {
            assert!(store.memory_bytes() <= 64 << 20, "{}", store.memory_bytes());
        }
    }
}

#[test]
fn overwriting_a_set_that_fits_evicts_nothing() {
    let (mut store, now) = (store(8 << 20, true), start());
    for round in 0..200_000u32 {
        let key = (round.wrapping_mul(2_654_435_761) % 40_000).to_be_bytes();
        put(&mut store, &key, Attributes::default(), &[round as u8; 100], now).expect("evicts");
    }
    assert_eq!(store.counters().evictions, 0);
}

#[test]
fn a_lowered_limit_is_reached_in_steps_and_storing_goes_on() {
    let (mut store, now) = (store(32 << 20, true), start());
    for key in 0..2_000_000u32 {
        put(&mut store, &key.to_be_bytes(), Attributes::default(), &[], now).expect("evicts");
    }
    store.set_memory_bytes_max(4 << 20);
    for key in 0..1_000u32 {
        put(&mut store, &key.to_be_bytes(), Attributes::default(), &[1; 500], now)
            .expect("room in steps");
        store.maintain(now, 16);
    }
    for _ in 0..100_000 {
        store.maintain(now, 16);
    }
    assert!(store.counted_bytes() <= 4 << 20, "{}", store.counted_bytes());
    for key in 0..10_000u32 {
        put(&mut store, &key.to_be_bytes(), Attributes::default(), &[1; 500], now).expect("room");
        store.maintain(now, 16);
    }
    let index_bytes_max = 24 * store.items() as u64 + (64 << 10);
    assert!(store.index_bytes() < index_bytes_max, "{} items", store.items());
}

#[test]
fn above_a_lowered_limit_a_store_drains_few_items_whatever_its_size() {
    let (mut store, now) = (store(64 << 20, true), start());
    for key in 0..4_000_000u32 {
        put(&mut store, &key.to_be_bytes(), Attributes::default(), &[2; 4], now).expect("evicts");
    }
    let drained = |store: &Store| {
        store.counters().evictions + store.counters().moves + store.counters().cleaned
    };
    store.set_memory_bytes_max(32 << 20);
    let large = vec![1; store.segment_bytes + 1];
    let (mut above, mut memory_then) = (0, store.memory_bytes());
    for key in 4_000_000..4_200_000u32 {
        let before = drained(&store);
        above += u32::from(store.memory_bytes() > 32 << 20);
        let is_large = key % 10_000 == 9_999;
        let value = if is_large { &large[..] } else { &[2; 4] };
        put(&mut store, &key.to_be_bytes(), Attributes::default(), value, now).expect("room");
        let drained = drained(&store) - before;
        let batch_items = 16 * reclaim::BATCHES_PER_STORE as u64;
        let items_max = if is_large { store.segment_bytes as u64 / 12 } else { batch_items };
        assert!(drained <= items_max, "{drained} items for {key}");
        if key % 10_000 == 0 {
            let memory_bytes = store.memory_bytes();
            assert!(memory_bytes <= memory_then.max(32 << 20), "{memory_bytes} for {key}");
            memory_then = memory_bytes;
        }
    }
    assert!(above > 10_000, "only {above} stores above the limit");
}

#[test]
fn above_a_lowered_limit_memory_does_not_rise_whatever_is_stored() {
    for value_bytes in [4, 1_000, 15_000, 200_000] {
        let (mut store, now) = (store(16 << 20, true), start());
        for key in 0..1_000_000u32 {
            let key = key.to_be_bytes();
            put(&mut store, &key, Attributes::default(), &[2; 4], now).expect("evicts");
        }
        store.set_memory_bytes_max(8 << 20);
        let slack_bytes = store.budget().slack_bytes() + 2 * store.segment_bytes as u64;
        let mut lowest_bytes = store.memory_bytes();
        let value = vec![1; value_bytes];
        for key in 1_000_000..1_002_000u32 {
            let key = key.to_be_bytes();
            put(&mut store, &key, Attributes::default(), &value, now).expect("room");
            let memory_bytes = store.memory_bytes();
            let highest_bytes = lowest_bytes.max(8 << 20) + slack_bytes;
            assert!(memory_bytes <= highest_bytes, "{memory_bytes} with {value_bytes}");
            lowest_bytes = lowest_bytes.min(memory_bytes);
        }
    }
}

#[test]
fn without_eviction_nothing_is_let_in_above_a_lowered_limit() {
    let (mut store, now) = (store(8 << 20, false), start());
    let keys = 0..100_000u32;
    let is_full = |store: &mut Store, key: u32| {
        put(store, &key.to_be_bytes(), Attributes::default(), &[1; 100], now).is_err()
    };
    let stored = keys.clone().take_while(|key| !is_full(&mut store, *key)).count() as u32;
    store.set_memory_bytes_max(4 << 20);
    for key in keys.clone().skip(stored as usize).take(1_000) {
        let before = store.memory_bytes();
        assert!(is_full(&mut store, key));
        assert!(store.memory_bytes() <= before);
    }
    for key in 0..stored * 3 / 4 {
        let hash = store.hasher.hash(&key.to_be_bytes());
        let handle = store.find(hash, &key.to_be_bytes(), now).expect("nothing was evicted");
        store.remove(handle);
    }
    for key in stored..stored + 1_000 {
        assert!(!is_full(&mut store, key), "{key}: a quarter of {stored} is left");
    }
    assert!(store.memory_bytes() <= 4 << 20);
}

#[test]
fn segments_that_came_and_went_leave_nothing_behind() {
    let (mut store, now) = (store(8 << 20, true), start());
    for round in 0..400_000u32 {
        let key = (round % 100).to_be_bytes();
        put(&mut store, &key, Attributes::default(), &[round as u8; 100], now).expect("room");
    }
    assert!(store.memory_bytes() < 1 << 20, "{}", store.memory_bytes());
}

#[test]
fn expired_memory_is_found_by_the_sweep_without_reads() {
    let (mut store, now) = (store(8 << 20, true), start());
    let attributes = Attributes { deadline: Some(now.plus_seconds(5)), ..Attributes::default() };
    for key in 0..20_000u32 {
        put(&mut store, &key.to_be_bytes(), attributes, &[0; 100], now).expect("room");
    }
    let later = now.plus_seconds(8);
    for _ in 0..store.segment_count_max() {
        while store.maintain(later, 16) {}
    }
    assert_eq!(store.items(), 0);
    assert_eq!(store.live_bytes(), 0);
    assert_eq!(store.counters().reclaimed, 20_000);
    assert_eq!(store.counters().evictions, 0);
}

#[test]
fn a_scan_does_not_wash_out_items_in_use() {
    let (mut store, now) = (store(4 << 20, true), start());
    let hot = 0..5_000u32;
    for key in hot.clone() {
        put(&mut store, &key.to_be_bytes(), Attributes::default(), &[1; 100], now).expect("room");
    }
    for pass in 0..10u32 {
        for key in hot.clone() {
            if value(&mut store, &key.to_be_bytes(), now).is_none() {
                let attributes = Attributes::default();
                put(&mut store, &key.to_be_bytes(), attributes, &[1; 100], now).expect("room");
            }
        }
        for key in 0..10_000u32 {
            let key = (1_000_000 + pass * 10_000 + key).to_be_bytes();
            put(&mut store, &key, Attributes::default(), &[2; 100], now).expect("room");
        }
    }
    let kept = hot.filter(|key| value(&mut store, &key.to_be_bytes(), now).is_some()).count();
    assert!(kept > 4_750, "{kept} of 5000 hot items survive 100,000 one-time items");
}

#[test]
fn overhead_is_small_with_any_memory_and_any_number_of_stores() {
    let cases = [(16usize, 32usize, 14.0), (24, 230, 17.0), (32, 1024, 22.0)];
    for (key_length, value_length, overhead_max) in cases {
        for (mebibytes, store_count) in [(64, 1), (64, 16), (256, 1), (256, 64)] {
            let (mut stores, now) = (Stores::new(mebibytes << 20, store_count), start());
            let mut items = 0u64;
            while !items.is_multiple_of(64) || stores.evictions() == 0 {
                let key = format!("{items:0key_length$}");
                let value = vec![b'v'; value_length];
                let store = stores.of(key.as_bytes());
                put(store, key.as_bytes(), Attributes::default(), &value, now).expect("evicts");
                items += 1;
            }
            let payload = items * (key_length + value_length) as u64;
            let overhead = ((mebibytes << 20) as f64 - payload as f64) / items as f64;
            let shape = format!("{key_length}/{value_length}, {mebibytes} MiB, {store_count}");
            assert!(overhead < overhead_max, "{shape}: {overhead} bytes");
        }
    }
}

/// Random numbers of a seed, by xorshift.
fn random(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    }
}

#[test]
fn small_items_agree_with_the_model_while_segments_are_drained() {
    let (mut store, mut now) = (store(1 << 20, true), start());
    let (mut model, mut random) = (Model::default(), random(0x5eed));
    let tokens = HashMap::new();
    for step in 0..150_000u32 {
        let key = format!("k{}", random(120_000)).into_bytes();
        match random(100) {
            0..60 => {
                let deadline = (random(10) == 0).then(|| now.plus_seconds(1 + random(20)));
                let attributes = Attributes { deadline, ..Attributes::default() };
                let value = step.to_be_bytes()[..random(4) as usize].to_vec();
                put(&mut store, &key, attributes, &value, now).expect("evicts");
                model.0.insert(key, (value, attributes));
            }
            60..90 => check_get(&mut store, &mut model, &tokens, &key, now, true),
            90..98 => {
                let hash = store.hasher.hash(&key);
                if let Ok(handle) = store.find(hash, &key, now) {
                    store.remove(handle);
                }
                model.0.remove(&key);
            }
            98 => now = Ticks(now.0 + random(20)),
            _ => _ = store.maintain(now, 4),
        }
        if step % 64 == 0 {
            check_bookkeeping(&store, store.memory_bytes_max());
        }
    }
    let Counters { evictions, moves, cleaned, .. } = store.counters();
    assert!(evictions > 2_000 && moves > 5_000, "{evictions} evicted, {moves} moved");
    assert!(cleaned > 5_000, "{cleaned} cleaned");
    for key in 0..120_000 {
        check_get(&mut store, &mut model, &tokens, format!("k{key}").as_bytes(), now, true);
    }
}

#[test]
fn a_store_drains_few_items_and_a_large_value_few_segments() {
    let (mut store, now) = (store(8 << 20, true), start());
    let mut random = random(0x5eed);
    let drained = |store: &Store| {
        store.counters().evictions + store.counters().moves + store.counters().cleaned
    };
    let items_per_segment = store.segment_bytes as u64 / 12;
    let (mut most, mut most_large) = (0, 0);
    for step in 0..400_000u32 {
        let key = (random(600_000) as u32).to_be_bytes();
        let before = drained(&store);
        if step % 5_000 == 0 {
            let large = vec![1; store.segment_bytes + 1];
            put(&mut store, &key, Attributes::default(), &large, now).expect("evicts");
            most_large = most_large.max(drained(&store) - before);
        } else if value(&mut store, &key, now).is_none() {
            put(&mut store, &key, Attributes::default(), &[2; 4], now).expect("evicts");
            most = most.max(drained(&store) - before);
        }
    }
    assert!(drained(&store) > 100_000, "{}", drained(&store));
    assert!(most <= 16 * reclaim::BATCHES_PER_STORE as u64, "{most} items in one store");
    assert!(most_large <= 3 * items_per_segment, "{most_large} items for a large value");
}

/// Goal: who records evictions knows exactly what is there. Method: keys are stored, read, changed
/// and deleted in a store that evicts; what was stored and neither deleted nor told as evicted must
/// be there, and nothing else.
#[test]
fn every_item_that_has_to_leave_is_told() {
    let (mut store, now) = (store(1 << 20, true), start());
    let (mut there, mut random) = (HashMap::new(), random(0x5eed));
    let (mut told, mut came_back) = (0, 0);
    store.tell_evictions(true);
    for step in 0..60_000u64 {
        let key = random(6_000).to_be_bytes();
        let hash = store.hasher.hash(&key);
        let found = store.find(hash, &key, now).ok();
        let changed = match (random(16), found) {
            (0, Some(handle)) => {
                store.remove(handle);
                there.remove(&hash);
                continue;
            }
            (1..4, Some(handle)) => {
                let attributes = Attributes { flags: step as u32, ..Attributes::default() };
                store.rewrite(hash, handle, attributes, TokenRule::Keep, now).expect("evicts")
            }
            (14, _) if step % 8 == 0 => {
                store.set_memory_bytes_max((1 << 20) - (random(3) << 18));
                continue;
            }
            _ => {
                let value = vec![1; random(9) as usize * 1_000 + 100];
                put(&mut store, &key, Attributes::default(), &value, now).expect("evicts")
            }
        };
        assert!(store.index.slot(changed).is_occupied());
        let evicted: Vec<u64> = store.take_evicted_hashes().collect();
        came_back += u32::from(found.is_some() && evicted.contains(&hash));
        told += evicted.len();
        evicted.iter().for_each(|hash| _ = there.remove(hash));
        there.insert(hash, key);
    }
    assert!(told > 10_000 && came_back == 0, "{told} told, {came_back} only for themselves");
    assert_eq!(store.items(), there.len());
    assert!(there.into_iter().all(|(hash, key)| store.find(hash, &key, now).is_ok()));
}

#[test]
fn an_item_the_index_has_no_place_for_is_told() {
    let (mut store, now) = (store(8 << 20, true), start());
    store.tell_evictions(true);
    for key in 0..100u32 {
        // The hash is the caller's word: the same for all of them.
        let key = key.to_be_bytes();
        let value = Value::Parts([&[1], &[]]);
        store.put(42, None, &key, Attributes::default(), value, now).expect("room");
    }
    let evicted = store.take_evicted_hashes().count();
    assert!(evicted > 0);
    assert_eq!((store.items() + evicted, store.counters().evictions), (100, evicted as u64));
}

/// So many stores that share a limit, and the key's one of them.
struct Stores(Vec<Store>);

impl Stores {
    fn new(memory_bytes_max: u64, count: usize) -> Self {
        let budget = Budget::new(memory_bytes_max, count);
        let settings =
            Settings { budget, evict: true, hasher: KeyHasher::new([7, 11]), sequence_start: 1 };
        Self((0..count).map(|_| Store::new(settings.clone())).collect())
    }

    fn of(&mut self, key: &[u8]) -> &mut Store {
        let shard = hash::shard_of(self.0[0].hasher.hash(key), self.0.len());
        &mut self.0[shard]
    }

    fn budget(&self) -> &Budget {
        self.0[0].budget()
    }

    fn evictions(&self) -> u64 {
        self.0.iter().map(|store| store.counters().evictions).sum()
    }

    /// All of the memory, segments that are being filled included.
    fn memory_bytes(&self) -> u64 {
        self.0.iter().map(Store::memory_bytes).sum()
    }

    fn check_sums(&self) {
        let counted: u64 = self.0.iter().map(Store::counted_bytes).sum();
        let budget = self.budget();
        assert_eq!(budget.used_bytes() - budget.lent_bytes(), counted);
    }
}

#[test]
fn regression_uploads_that_fit_all_stores_together_are_taken_by_any_of_them() {
    for count in [1, 16, 32, 64] {
        let (mut stores, now) = (Stores::new(64 << 20, count), start());
        let block = Bytes::from(vec![7; 900 << 10]);
        for upload in 0..64u32 {
            // Those that are still on their way count as well.
            lend(&stores.0[0], u64::from(64 - upload) * block.len() as u64);
            let key = upload.to_be_bytes();
            let store = stores.of(&key);
            let hash = store.hasher.hash(&key);
            let value = Value::Owned(block.clone());
            let stored = store.put(hash, None, &key, Attributes::default(), value, now);
            assert!(stored.is_ok(), "upload {upload} of {count} stores");
            stores.check_sums();
        }
        lend(&stores.0[0], 0);
        let there = |stores: &mut Stores, upload: u32| {
            let key = upload.to_be_bytes();
            value(stores.of(&key), &key, now).is_some()
        };
        let kept = (0..64).filter(|upload| there(&mut stores, *upload)).count();
        assert!(kept >= 63, "{kept} kept by {count} stores");
    }
}

#[test]
fn stores_share_what_one_of_them_does_not_use_and_give_it_back() {
    let (mut stores, now) = (Stores::new(16 << 20, 4), start());
    let limit_bytes = stores.budget().limit_bytes();
    // Only keys of the first store: it gets nearly everything.
    let mut keys = (0u32..)
        .filter(|key| hash::shard_of(KeyHasher::new([7, 11]).hash(&key.to_be_bytes()), 4) == 0);
    let store = |stores: &mut Stores, key: u32| {
        let key = key.to_be_bytes();
        put(stores.of(&key), &key, Attributes::default(), &[1; 500], now).expect("evicts");
    };
    keys.by_ref().take(60_000).for_each(|key| store(&mut stores, key));
    assert!(stores.0[0].counted_bytes() > limit_bytes * 9 / 10);
    // Then the others come as well.
    let bound =
        limit_bytes + stores.budget().overshoot_bytes() + (8 * stores.0[0].segment_bytes) as u64;
    for key in 1_000_000..1_060_000 {
        store(&mut stores, key);
        assert!(stores.memory_bytes() <= bound, "{} at {key}", stores.memory_bytes());
        if key % 1_000 == 0 {
            stores.0.iter_mut().for_each(|store| _ = store.maintain(now, 4));
            stores.check_sums();
        }
    }
    let share_bytes = stores.budget().share_bytes();
    for store in &stores.0 {
        let part = store.counted_bytes() as f64 / share_bytes as f64;
        assert!((0.9..1.1).contains(&part), "{part} of its share");
    }
    assert!(stores.evictions() > 0);
}

/// Goal: changing an item in place leaves no dead bytes, and nobody sees it who should not. Method:
/// each change of an item in a sealed segment, by itself and while somebody holds the segment.
#[test]
fn what_fits_the_place_of_the_old_version_is_written_there() {
    let now = start();
    let with_deadline = |seconds: u64| Attributes {
        deadline: Some(now.plus_seconds(seconds)),
        ..Attributes::default()
    };
    type Change = fn(&mut Store, u64, Handle, Attributes) -> Result<Handle, Full>;
    let put_same: Change = |store, hash, handle, to| {
        store.put(hash, Some(handle), b"key", to, Value::Parts([b"valve", &[]]), start())
    };
    let put_longer: Change = |store, hash, handle, to| {
        store.put(hash, Some(handle), b"key", to, Value::Parts([b"value and", b" more"]), start())
    };
    let increment: Change = |store, hash, handle, to| {
        store.update(hash, handle, to, Value::Parts([b"12345", &[]]), TokenRule::Fresh, start())
    };
    let touch: Change =
        |store, hash, handle, to| store.rewrite(hash, handle, to, TokenRule::Keep, start());
    let stale: Change =
        |store, hash, handle, to| store.rewrite(hash, handle, to, TokenRule::Fresh, start());
    // The change, attributes before and after, in place if nobody has seen the token, and if.
    let (none, soon, later) = (Attributes::default(), with_deadline(10), with_deadline(20));
    let cases = [
        ("put", put_same, none, none, true, false),
        ("put, deadline taken back", put_same, soon, none, true, false),
        ("put, deadline added", put_same, none, soon, false, false),
        ("put, longer", put_longer, none, none, false, false),
        ("increment", increment, soon, soon, true, false),
        ("touch", touch, soon, later, true, true),
        ("touch, first deadline", touch, none, later, false, false),
        ("touch, deadline taken back", touch, soon, none, true, true),
        ("stale", stale, soon, Attributes { stale: true, ..soon }, true, false),
    ];
    for (name, change, before, after, in_place_unseen, in_place_seen) in cases {
        for (seen, held) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut store = store(8 << 20, true);
            let handle = put(&mut store, b"key", before, b"value", now).expect("room");
            store.seal_head();
            let hash = store.hasher.hash(b"key");
            let token = store.item(handle).token;
            if seen {
                store.token_handed_out(handle);
            }
            let shared = held.then(|| store.share_value(handle).expect("sealed"));
            let location = store.index.slot(handle).location();
            let changed = change(&mut store, hash, handle, after).expect("room");
            let expected = !held && if seen { in_place_seen } else { in_place_unseen };
            let stayed = store.index.slot(changed).location() == location;
            assert_eq!(stayed, expected, "{name}, seen: {seen}, held: {held}");
            let attributes = Attributes { cas: None, ..store.item(changed).attributes };
            assert_eq!(attributes, after, "{name}");
            assert!(shared.is_none_or(|value| value == "value"), "{name}");
            let keeps_token = name.starts_with("touch");
            if seen {
                assert_eq!(store.item(changed).token == token, keeps_token, "{name}");
            }
            check_bookkeeping(&store, 8 << 20);
        }
    }
}

/// Keys of stores that share a limit, changed so that their live bytes stay below a bound.
struct WorkingSet {
    stores: Stores,
    /// What each key should have; `None`: deleted.
    values: Vec<Option<usize>>,
    live_bytes: usize,
    live_bytes_max: usize,
    now: Ticks,
}

impl WorkingSet {
    /// What an item costs beside its key and value.
    const ITEM_BYTES: usize = 24;

    fn new(memory_bytes: usize, store_count: usize, live_percent: usize) -> Self {
        Self {
            stores: Stores::new(memory_bytes as u64, store_count),
            values: Vec::new(),
            live_bytes: 0,
            live_bytes_max: memory_bytes / 100 * live_percent,
            now: start(),
        }
    }

    fn key(id: usize) -> [u8; 16] {
        (id as u128).to_be_bytes()
    }

    /// Stores a value of so many bytes, if that is within the bound.
    fn set(&mut self, id: usize, value_bytes: usize, lifetime_seconds: u64) -> bool {
        let item_bytes = |value_bytes: usize| value_bytes + 16 + Self::ITEM_BYTES;
        let before = self.values.get(id).copied().flatten().map_or(0, item_bytes);
        let after = self.live_bytes - before + item_bytes(value_bytes);
        if after > self.live_bytes_max {
            return false;
        }
        let attributes = Attributes {
            deadline: Some(self.now.plus_seconds(lifetime_seconds)),
            ..Attributes::default()
        };
        let (key, value) = (Self::key(id), vec![id as u8; value_bytes]);
        put(self.stores.of(&key), &key, attributes, &value, self.now).expect("evicts");
        (self.values[id], self.live_bytes) = (Some(value_bytes), after);
        true
    }

    /// One of: another value of the same size or of another one, a longer one, another lifetime, a
    /// token handed out, a delete, a get.
    fn change(&mut self, id: usize, mean: usize, random: &mut impl FnMut(u64) -> u64) {
        let (key, lifetime_seconds) = (Self::key(id), 1_000_000 + random(100));
        let store = self.stores.of(&key);
        let hash = store.hasher.hash(&key);
        let Some(value_bytes) = self.values[id] else {
            let value_bytes = mean / 2 + random(mean as u64) as usize;
            self.set(id, value_bytes, lifetime_seconds);
            return;
        };
        let Ok(handle) = store.find(hash, &key, self.now) else {
            let budget = store.budget();
            panic!("{mean} bytes, {} live in {budget:?}", self.live_bytes);
        };
        assert_eq!(store.item(handle).value.len(), value_bytes);
        match random(16) {
            0..4 => _ = self.set(id, value_bytes, lifetime_seconds),
            4..8 => _ = self.set(id, mean / 2 + random(mean as u64) as usize, lifetime_seconds),
            8 => _ = self.set(id, value_bytes + 1, lifetime_seconds),
            9..12 => {
                let deadline = Some(self.now.plus_seconds(lifetime_seconds));
                let attributes = Attributes { deadline, ..store.item(handle).attributes };
                store.rewrite(hash, handle, attributes, TokenRule::Keep, self.now).expect("room");
            }
            12 if mean >= 1_000 => store.token_handed_out(handle),
            13 => {
                store.remove(handle);
                self.live_bytes -= value_bytes + 16 + Self::ITEM_BYTES;
                self.values[id] = None;
            }
            _ => store.accessed(handle),
        }
    }
}

/// Goal: nothing that fits is evicted, whatever is done to it. Method: as many keys as take a part
/// of the memory are changed at random ten times each.
#[test]
fn what_fits_is_never_evicted() {
    let cases = [
        (100, 1, 85),
        (100, 16, 90),
        (1_000, 1, 90),
        (1_000, 16, 90),
        (4_000, 1, 90),
        (4_000, 16, 90),
        (20_000, 1, 85),
        (20_000, 4, 85),
        (60_000, 1, 85),
        (60_000, 16, 85),
    ];
    for (mean, store_count, live_percent) in cases {
        let memory_bytes = if mean >= 4_000 { 64 << 20 } else { 16 << 20 };
        let mut set = WorkingSet::new(memory_bytes, store_count, live_percent);
        let mut random = random(0x5eed);
        let sizes = |random: &mut dyn FnMut(u64) -> u64| mean / 2 + random(mean as u64) as usize;
        while {
            set.values.push(None);
            let value_bytes = sizes(&mut random);
            set.set(set.values.len() - 1, value_bytes, 1_000_000)
        } {}
        let keys = set.values.len() as u64;
        for step in 0..keys * 10 {
            let id = random(keys) as usize;
            set.change(id, mean, &mut random);
            if step % 100 == 0 {
                set.now = Ticks(set.now.0 + 1);
                let now = set.now;
                set.stores.0.iter_mut().for_each(|store| _ = store.maintain(now, 4));
            }
            if step % 1_000 == 0 {
                set.stores.check_sums();
                let (memory, budget) = (set.stores.memory_bytes(), set.stores.budget());
                let open = 4 * store_count as u64 * budget.segment_bytes();
                let bound = memory_bytes as u64 + budget.overshoot_bytes() + open;
                assert!(memory <= bound, "{memory} of {memory_bytes}: {mean}, {store_count}");
            }
        }
        let evictions = set.stores.evictions();
        assert_eq!(evictions, 0, "{mean} bytes, {store_count} stores, {live_percent} %");
        set.stores.0.iter().for_each(|store| check_bookkeeping(store, memory_bytes as u64));
    }
}

#[test]
fn ages_are_those_of_the_items_whatever_was_moved() {
    let (mut store, start) = (store(1 << 20, true), start());
    let deadline = Some(start.plus_seconds(1_000_000));
    assert_eq!(store.oldest_age_seconds(start), 0);
    for key in 0..200_000u32 {
        let now = start.plus_seconds(u64::from(key / 100));
        let attributes =
            Attributes { deadline: deadline.filter(|_| key % 2 == 0), ..Attributes::default() };
        put(&mut store, &key.to_be_bytes(), attributes, &[1; 100], now).expect("evicts");
    }
    let now = start.plus_seconds(2_000);
    let Counters { evictions, evicted_nonzero, evicted_age_seconds, .. } = store.counters();
    assert!(evictions > 100_000 && evicted_nonzero.abs_diff(evictions / 2) < 1_000);
    // A hundred items a second, of which some nine thousand fit.
    let age_seconds = store.oldest_age_seconds(now);
    assert!((70..110).contains(&age_seconds), "{age_seconds}");
    assert!(evicted_age_seconds.abs_diff(age_seconds) < 20, "{evicted_age_seconds}");
    let taken = store.item_memory_bytes() as f64 / (1 << 20) as f64;
    assert!(taken > 0.9, "{taken}");
}

/// What is told of the last access is never less than the time since then, and hardly more than
/// its grain.
#[test]
fn the_last_access_is_told_to_within_its_grain() {
    let mut store = store(8 << 20, true);
    let mut now = start();
    let keys = [("hot", 1), ("minutes", 300), ("hours", 3_000), ("days", 90_000)];
    let (mut accessed, mut blinks) = (HashMap::new(), 0);
    for (key, _) in keys {
        put(&mut store, key.as_bytes(), Attributes::default(), b"v", now).unwrap();
        accessed.insert(key, now.seconds());
    }
    for second in 1..20_000_u64 {
        now = start().plus_seconds(second);
        store.maintain(now, 1);
        for (key, every) in keys {
            let hash = store.hasher.hash(key.as_bytes());
            let handle = store.find(hash, key.as_bytes(), now).unwrap();
            let told = store.item(handle).idle_seconds(now);
            let idle = now.seconds() - accessed[key];
            // Those accessed least have been there for no longer.
            let longest = match idle {
                0..=60 => 660,
                61..=660 => 4_260,
                _ => second,
            };
            assert!(told >= idle, "{key} after {second} s: {told}, but {idle}");
            assert!(told <= longest.min(second), "{key} after {second} s: {told} of {idle}");
            // The walk has just been there, and the next access is to come.
            blinks += u32::from(key == "hot" && told > 60);
            if second % every == 0 {
                store.accessed(handle);
                accessed.insert(key, now.seconds());
            }
        }
    }
    assert!(blinks <= 20_000 / 60, "{blinks} times a hot item was not told to be one");
}

/// A hot item's slot is written once a round, not with each access.
#[test]
fn an_access_of_a_hot_item_changes_nothing_until_the_next_round() {
    let mut store = store(8 << 20, true);
    let handle = put(&mut store, b"hot", Attributes::default(), b"v", start()).unwrap();
    (0..10).for_each(|_| store.accessed(handle));
    let mut changes = 0;
    for tick in 0..60_000 {
        store.maintain(Ticks(start().0 + tick), 1);
        let before = store.index.slot(handle);
        store.accessed(handle);
        changes += u32::from(store.index.slot(handle) != before);
    }
    assert!((9..=10).contains(&changes), "{changes} in ten minutes");
}

#[test]
fn regression_a_store_without_numbers_for_more_segments_evicts_or_is_full() {
    const IDS_MAX: usize = 100;
    let now = Ticks::from_seconds(1_000);
    for evict in [true, false] {
        let mut store = store(64 << 20, evict);
        store.segment_ids_max = IDS_MAX;
        // Large enough for a segment of its own.
        let value = vec![7; store.segment_bytes() / 4];
        let mut stored = 0;
        for number in 0..10 * IDS_MAX {
            let key = format!("key-{number}").into_bytes();
            let hash = store.hasher.hash(&key);
            let parts = Value::Parts([&value, &[]]);
            let put = store.put(hash, None, &key, Attributes::default(), parts, now);
            stored += usize::from(put.is_ok());
            assert!(store.segments.len() <= IDS_MAX);
            assert_eq!(put.is_ok(), store.find(hash, &key, now).is_ok());
        }
        let (least, most) = if evict { (10 * IDS_MAX, 10 * IDS_MAX) } else { (80, IDS_MAX) };
        assert!((least..=most).contains(&stored), "{stored} with evict {evict}");
        assert!(store.items() >= 80, "{} with evict {evict}", store.items());
    }
}
