//! What a flush threw away, freed a bit at a time. Nothing in it can be found any more.

use super::Reclaim;
use crate::store::bucket_arena::BucketArena;
use crate::store::segment::Segment;
use crate::store::{Store, first_of_segments};

/// Chunks of old ghosts freed in one step.
const GHOST_CHUNKS: usize = 64;

/// Pieces of a flushed index freed in one step.
const DISMANTLE_CHUNKS: usize = 8;

/// Places of flushed segments looked at for each one freed: some are empty.
const PLACES_PER_SEGMENT: usize = 16;

/// Flushed segments and index, freed a bit at a time.
#[derive(Debug, Default)]
pub(super) struct Trash {
    /// The lists of segments as flushes took them: copying the segments out would take as long as
    /// the store is large.
    segments: Vec<Vec<Option<Segment>>>,
    arenas: Vec<BucketArena>,
    bytes: u64,
}

impl Trash {
    /// Memory that waits to be freed.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Frees up to `segments_max` segments, fewer where many places are empty.
    fn drop_segments(&mut self, segments_max: usize) {
        let mut freed = 0;
        for _ in 0..segments_max * PLACES_PER_SEGMENT {
            let Some(flushed) = self.segments.last_mut() else { return };
            match flushed.pop() {
                None => drop(self.segments.pop()),
                Some(None) => {}
                Some(Some(segment)) => {
                    self.bytes -= segment.memory_bytes() as u64;
                    freed += 1;
                }
            }
            if freed == segments_max {
                return;
            }
        }
    }
}

impl Store {
    /// Removes every item at once; their memory comes back in later calls of [`Store::maintain`]
    /// or as it is needed.
    pub fn flush(&mut self) {
        if self.segment_memory_bytes == 0 {
            return;
        }
        self.counters.reclaimed += self.items() as u64;
        let segments = first_of_segments(self.budget().share_bytes(), self.segment_bytes);
        let trash = &mut self.reclaim.trash;
        let arenas = self.index.clear();
        trash.bytes += arenas.iter().map(BucketArena::bytes).sum::<usize>() as u64;
        trash.arenas.extend(arenas);
        trash.segments.push(std::mem::replace(&mut self.segments, segments));
        trash.bytes += self.segment_memory_bytes;
        self.free_ids = Vec::new();
        (self.head, self.tail) = (None, None);
        (self.segment_memory_bytes, self.live_bytes) = (0, 0);
        let Reclaim { trash, mut ghosts, .. } = std::mem::take(&mut self.reclaim);
        ghosts.resize(0);
        let limit_bytes = self.budget().limit_bytes();
        self.reclaim = Reclaim { trash, ghosts, limit_bytes, ..Reclaim::default() };
        self.tell_memory();
    }

    /// Frees up to `segments_max` flushed segments and a part of the flushed index. Answers
    /// whether there was anything to free.
    pub(super) fn empty_trash(&mut self, segments_max: usize) -> bool {
        let ghosts = self.reclaim.ghosts.free_some(GHOST_CHUNKS);
        let trash = &mut self.reclaim.trash;
        if trash.segments.is_empty() && trash.arenas.is_empty() {
            return ghosts;
        }
        trash.drop_segments(segments_max);
        for _ in 0..DISMANTLE_CHUNKS {
            let Some(arena) = trash.arenas.last_mut() else { break };
            let before = arena.bytes();
            let has_more = arena.drop_chunk();
            trash.bytes -= (before - arena.bytes()) as u64;
            if !has_more {
                trash.arenas.pop();
            }
        }
        true
    }
}
