//! Models of what several threads of the daemon do to each other, in every interleaving, by loom.
//!
//! Owns the models; the code that they check is compiled from the daemon's own files. Only tests
//! are here, in a package of its own because loom's types stand in for the daemon's atomics.

#[cfg(test)]
mod commit_turn;
#[cfg(test)]
mod hand_over;
#[cfg(test)]
mod sleep;
#[cfg(test)]
mod snapshot_steps;
