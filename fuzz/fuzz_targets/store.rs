//! A history of store calls: see `distcache_fuzz::store`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| distcache_fuzz::store::check(input));
