//! Where a burst of requests is cut into pieces, each sent by its own write.
//!
//! A server must answer the same whatever the cuts: TCP may deliver any of them. No I/O; random
//! cuts come from a seed.

use fastrand::Rng;

/// How to cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cuts {
    /// One piece.
    None,
    /// One byte per piece, up to [`SINGLE_BYTES_MAX`] pieces.
    EveryByte,
    /// Pieces of random lengths.
    Random {
        /// Repeats the same cuts.
        seed: u64,
    },
}

/// Longer bursts have large values in the middle; cutting those byte by byte tests nothing new and
/// takes minutes.
pub const SINGLE_BYTES_MAX: usize = 4096;
const LARGE_PIECE_BYTES: usize = 8 << 10;

/// Cuts `bytes` into pieces.
#[must_use]
pub fn cut(bytes: &[u8], cuts: Cuts) -> Vec<&[u8]> {
    match cuts {
        Cuts::None => vec![bytes],
        Cuts::EveryByte => cut_bytes(bytes),
        Cuts::Random { seed } => cut_randomly(bytes, &mut Rng::with_seed(seed)),
    }
}

/// Single bytes at both ends, large pieces in between.
fn cut_bytes(bytes: &[u8]) -> Vec<&[u8]> {
    let middle = bytes.len().saturating_sub(SINGLE_BYTES_MAX);
    let (head, rest) = bytes.split_at(bytes.len().min(SINGLE_BYTES_MAX / 2));
    let (middle, tail) = rest.split_at(middle.min(rest.len()));
    head.chunks(1).chain(middle.chunks(LARGE_PIECE_BYTES)).chain(tail.chunks(1)).collect()
}

/// Mostly short pieces, so that cuts fall inside lines; sometimes long ones, which span several.
fn cut_randomly<'a>(mut bytes: &'a [u8], random: &mut Rng) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let piece_bytes_max = (bytes.len() / SINGLE_BYTES_MAX).max(1) * 16;
    while !bytes.is_empty() {
        let long = random.u8(..4) == 0;
        let length = random.usize(1..=if long { piece_bytes_max * 8 } else { piece_bytes_max });
        let (piece, rest) = bytes.split_at(length.min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_add_up() {
        for length in [0, 1, 7, SINGLE_BYTES_MAX - 1, SINGLE_BYTES_MAX, 100_000] {
            let bytes: Vec<u8> = (0..=255).cycle().take(length).collect();
            for cuts in [Cuts::None, Cuts::EveryByte, Cuts::Random { seed: 1 }] {
                assert_eq!(cut(&bytes, cuts).concat(), bytes, "{length} {cuts:?}");
            }
        }
    }

    #[test]
    fn short_bursts_are_cut_at_every_byte() {
        assert_eq!(cut(b"get k\r\n", Cuts::EveryByte).len(), 7);
    }
}
