//! What the fuzz targets check: one function a target, each of which panics on a violation.
//!
//! | module | input | property |
//! |---|---|---|
//! | `parse` | a line | no panic; a request keeps the limits; numbers agree with a naive reader |
//! | `session` | a stream of commands or frames | the replies do not depend on how it is cut |
//! | `store` | calls, four bytes each | agrees with a map; evicting, never a wrong value |
//!
//! The checks live here rather than in the targets so that `cargo test` runs them over the seeds
//! without a fuzzer, and a finding can be replayed by a debugger or a test.

pub mod parse;
pub mod random;
pub mod session;
pub mod store;

#[cfg(test)]
mod tests {
    //! The seeds, without a fuzzer: they parse as what they are meant to be, and pass.

    use std::fs;
    use std::path::Path;

    fn check_seeds(target: &str, check: impl Fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        let mut seeds = 0;
        for entry in fs::read_dir(&folder).expect("the seeds are part of the repository") {
            let path = entry.expect("readable").path();
            check(&fs::read(&path).expect("readable"));
            seeds += 1;
        }
        assert!(seeds > 0, "{} holds no seeds", folder.display());
    }

    #[test]
    fn every_seed_passes() {
        check_seeds("frames", crate::session::check_frames);
        check_seeds("parse", crate::parse::check);
        check_seeds("session", crate::session::check);
        check_seeds("store", crate::store::check);
    }
}
