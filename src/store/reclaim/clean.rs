//! Cleaning: the hand that finds the next segment to clean, and the segment that what is alive in
//! it is copied to.

use super::drain::{Drain, Rule};
use super::{Reclaim, Reclaimed};
use crate::store::Store;
use crate::store::segment::{Queue, Segment, usable_bytes};

/// Segments the hand passes in one step.
const PASSED_MAX: usize = 64;

/// Where cleaning is.
#[derive(Debug)]
pub(super) struct Hand {
    queue: Queue,
    /// The segment it looks at next; 0: the first of the queue.
    next: u32,
    /// What is alive in cleaned segments goes here, by queue. Each has the place of the segment
    /// cleaned last.
    pub outputs: [Option<u32>; 2],
}

impl Default for Hand {
    fn default() -> Self {
        Self { queue: Queue::Small, next: 0, outputs: [None; 2] }
    }
}

impl Hand {
    /// A segment leaves its queue, where `next` was behind it.
    pub(super) fn forget(&mut self, id: u32, next: u32) {
        if self.next == id {
            self.next = next;
            self.turn_if_through();
        }
        for output in &mut self.outputs {
            *output = output.filter(|output| *output != id);
        }
    }

    /// Behind the last segment of one queue comes the first of the other.
    fn turn_if_through(&mut self) {
        if self.next == 0 {
            self.queue = match self.queue {
                Queue::Small => Queue::Main,
                Queue::Main => Queue::Small,
            };
        }
    }
}

impl Reclaim {
    /// The next segment that is at least so dead. `None`: not among those looked at.
    fn next_dirty(&mut self, class_min: usize, segments: &[Option<Segment>]) -> Option<u32> {
        for _ in 0..PASSED_MAX {
            let list = &self.ordinary[self.hand.queue as usize];
            let at = match self.hand.next {
                0 => list.first().unwrap_or(0),
                id => id,
            };
            self.hand.next = if at == 0 { 0 } else { list.next(at, segments) };
            self.hand.turn_if_through();
            let segment = segments[at as usize].as_ref();
            if segment.is_some_and(|segment| super::dead_class(segment) >= class_min) {
                return Some(at);
            }
        }
        None
    }
}

impl Store {
    /// Begins with the next segment that is at least so dead.
    pub(super) fn begin_cleaning(&mut self, class_min: usize) -> Result<Drain, Reclaimed> {
        let found = self.reclaim.next_dirty(class_min, &self.segments);
        let id = found.ok_or(Reclaimed::Some)?;
        let queue = self.segment(id).queue;
        match self.reclaim.hand.outputs[queue as usize] {
            Some(output) => {
                self.reclaim.unlist(output, &mut self.segments);
                self.reclaim.enqueue_before(id, output, &mut self.segments);
            }
            None => _ = self.open_output(queue, id),
        }
        self.reclaim.forget(id, &mut self.segments);
        Ok(Drain { id, next: 0, rule: Rule::Clean })
    }

    /// The segment that what is alive in a cleaned one goes to. Does not look at the limit: what it
    /// is filled with frees more elsewhere.
    pub(super) fn output_with_room(&mut self, stride: usize, queue: Queue) -> u32 {
        let next = match self.reclaim.hand.outputs[queue as usize] {
            Some(id) if self.segment(id).has_room(stride) => return id,
            Some(id) => {
                let next = self.reclaim.ordinary[queue as usize].next(id, &self.segments);
                self.close_output(queue);
                next
            }
            None => 0,
        };
        self.open_output(queue, next)
    }

    fn open_output(&mut self, queue: Queue, next: u32) -> u32 {
        let sequence = self.next_main_sequence();
        let usable = usable_bytes(self.segment_bytes);
        let segment = Segment::open(usable, self.spares.pop(), sequence, queue);
        let id = self.add_segment(segment);
        self.reclaim.enqueue_before(next, id, &mut self.segments);
        self.reclaim.hand.outputs[queue as usize] = Some(id);
        id
    }

    /// Seals the segment that cleaning fills. It stays in its place.
    pub(super) fn close_output(&mut self, queue: Queue) {
        let Some(id) = self.reclaim.hand.outputs[queue as usize].take() else { return };
        let segment = self.segment_mut(id);
        segment.seal();
        if segment.live_bytes == 0 {
            self.free_segment(id);
        } else {
            self.reclaim.note_dead(id, &mut self.segments);
            self.tell_memory();
        }
    }
}
