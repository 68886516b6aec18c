//! A stream of frames of the binary protocol, cut in several ways: see `distcache_fuzz::session`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| distcache_fuzz::session::check_frames(input));
