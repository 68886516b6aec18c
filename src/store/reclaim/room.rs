//! Whether a store may take memory, and when it has to free some first.
//!
//! ```text
//! a store wants a segment, or a place for a large value:
//!     it has hardly a number left for a segment   -> steps, until it has
//!     all use at most the limit then              -> it takes it
//!     memory is short: from here on every store of an item takes a step (see `mod.rs`)
//!     at most the slack above the limit           -> it takes it
//!     it has freed as much since memory is short  -> it takes it
//!     at most the overshoot above the limit, and it is below its share,
//!         or half as much as is missing is dead   -> it takes it: others, or steps, free it soon
//!     else steps, until one of these is so
//!
//! with evictions forbidden, before that:
//!     it needs more than what it replaces, and live items would take more than 31/32 -> refused
//! ```
//!
//! The last rule keeps what rewriting needs: a new version is written before the old one is dead.

use super::{Reclaim, Reclaimed};
use crate::store::{Full, Store, Ticks};

/// After so many segments walked for one item, frequency no longer saves the items of the next.
const PATIENT_VICTIMS_MAX: usize = 1;

/// So many large items may be kept, for one that is stored, before patience ends for them as well.
const KEPT_LARGE_MAX: usize = 32;

/// Segments that a store may take above the least that it had since memory became short: as fast
/// as it frees others.
const OWN_SLACK_SEGMENTS: u64 = 3;

/// What a large value leaves of them, for the next head: no small item has to wait because a large
/// one came before.
const LEFT_BY_LARGE_SEGMENTS: u64 = 1;

/// Batches that a store of an item drains while memory is short, at least. Each store adds one
/// item, and of sixteen in a drained segment one or more are dead or leave.
pub(crate) const BATCHES_PER_STORE: usize = 1;

/// A store of a larger item drains a batch for so many bytes, for it takes the place of many.
const BYTES_PER_BATCH: usize = 256;

/// Batches that a store drains at most.
const BATCHES_PER_STORE_MAX: usize = 16;

/// So many numbers of segments are kept for those that cleaning and the main queue fill.
const SEGMENT_IDS_KEPT: usize = 8;

/// With evictions forbidden, the part of the memory that is kept for rewriting, as one in so many.
const REWRITE_SHARE: u64 = 32;

/// What somebody needs room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// An item that is not there, or that grows by so many bytes.
    More(usize),
    /// Another version of an item, which needs no more than the one it replaces.
    Same,
}

impl Store {
    /// Makes room for `bytes` more, of which `paid_bytes` are free as soon as the store has them:
    /// they are lent until then, or those of a version that is replaced.
    pub(in crate::store) fn make_room(
        &mut self,
        bytes: u64,
        paid_bytes: u64,
        now: Ticks,
    ) -> Result<(), Full> {
        self.follow_limit();
        let (mut victims, mut kept) = (0, 0);
        while !self.may_take(bytes, paid_bytes) {
            if !self.evict && victims > self.segments.len() {
                return Err(Full);
            }
            match self.reclaim_segment(now, victims >= PATIENT_VICTIMS_MAX) {
                Reclaimed::Nothing => return Err(Full),
                Reclaimed::Some => {}
                Reclaimed::Drained => victims += 1,
                // Nothing was copied for it, so that several may be kept before patience ends.
                Reclaimed::Kept => kept += 1,
            }
            if kept == KEPT_LARGE_MAX {
                victims = PATIENT_VICTIMS_MAX;
            }
        }
        Ok(())
    }

    /// Whether this store may take so many bytes before it frees any.
    fn may_take(&mut self, bytes: u64, paid_bytes: u64) -> bool {
        if self.free_ids.len() + self.segment_ids_max - self.segments.len() <= SEGMENT_IDS_KEPT {
            return false;
        }
        let budget = self.account.budget();
        let limit_bytes = budget.limit_bytes();
        let (slack_bytes, overshoot_bytes) = (budget.slack_bytes(), budget.overshoot_bytes());
        let share_bytes = budget.share_bytes();
        let after_bytes = (self.used_by_all() + bytes).saturating_sub(paid_bytes);
        if after_bytes <= limit_bytes {
            self.reclaim.ceiling_bytes = None;
            return true;
        }
        // From here on every store of an item frees a few others.
        self.reclaim.is_short = true;
        let own_bytes = self.counted_bytes();
        let followed_bytes = own_bytes + OWN_SLACK_SEGMENTS * self.segment_bytes as u64;
        let ceiling_bytes = self.reclaim.ceiling_bytes.unwrap_or(u64::MAX).min(followed_bytes);
        self.reclaim.ceiling_bytes = Some(ceiling_bytes);
        let is_large = bytes > self.segment_bytes as u64;
        let left_segments = if is_large { LEFT_BY_LARGE_SEGMENTS } else { 0 };
        let left_bytes = left_segments * self.segment_bytes as u64;
        if after_bytes + left_bytes <= limit_bytes + slack_bytes
            || own_bytes + bytes + left_bytes <= ceiling_bytes
        {
            return true;
        }
        let others_give = own_bytes + bytes <= share_bytes;
        let is_dead_already = self.dead_by_all() / 2 >= after_bytes - limit_bytes;
        after_bytes <= limit_bytes + overshoot_bytes && (others_give || is_dead_already)
    }

    /// Whether live items leave room for what somebody needs, if evictions are forbidden.
    pub(in crate::store) fn has_live_room(&self, need: Need) -> bool {
        let Need::More(bytes) = need else { return true };
        let limit_bytes = self.memory_bytes_max();
        let live_bytes = self.used_by_all().saturating_sub(self.dead_by_all());
        self.evict || live_bytes + bytes as u64 <= limit_bytes - limit_bytes / REWRITE_SHARE
    }

    /// What was made for another limit goes.
    pub(super) fn follow_limit(&mut self) {
        let limit_bytes = self.budget().limit_bytes();
        if std::mem::replace(&mut self.reclaim.limit_bytes, limit_bytes) != limit_bytes {
            self.reclaim.ghosts.resize(0);
            self.reclaim.ceiling_bytes = None;
        }
    }

    /// Whether memory is so far above the limit that all have to help, whatever their share.
    fn is_urgent(&self) -> bool {
        self.used_by_all() > self.memory_bytes_max() + self.budget().overshoot_bytes() / 2
    }

    /// Whether this store is one of those that evict now: it has its share or more, and there is
    /// nothing to be cleaned elsewhere.
    pub(super) fn may_evict(&self) -> bool {
        let is_dirty = self.dead_by_all() > self.used_by_all() / super::DIRTY_SHARE;
        self.is_urgent() || (!is_dirty && self.counted_bytes() > self.budget().share_bytes())
    }

    /// Whether memory is above the limit.
    pub(super) fn is_above_limit(&self) -> bool {
        self.used_by_all() > self.memory_bytes_max()
    }

    /// Frees a few items, for one of so many bytes, if memory is short.
    #[inline]
    pub(in crate::store) fn free_some(&mut self, stride: usize, now: Ticks) {
        if self.reclaim.is_short {
            self.take_step(stride, now);
        }
    }

    fn take_step(&mut self, stride: usize, now: Ticks) {
        let batches = (stride / BYTES_PER_BATCH).clamp(BATCHES_PER_STORE, BATCHES_PER_STORE_MAX);
        let goes_on = self.reclaim.is_draining() || self.is_above_limit();
        self.reclaim.is_short = goes_on && self.reclaim_some(now, batches);
    }
}

impl Reclaim {
    fn is_draining(&self) -> bool {
        self.draining.is_some()
    }
}
