//! Any bytes as a command line: see `distcache_fuzz::parse`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| distcache_fuzz::parse::check(input));
