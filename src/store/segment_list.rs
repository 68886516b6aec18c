//! Lists of segments, linked through the segments themselves: putting one in, and taking one out
//! of the middle, cost the same at any length, and nothing is left behind of a segment that is
//! gone. (Queues of numbers, some of which name segments long gone, were tried first: whoever asked
//! for the next one now and then had to look at all of the others.)
//!
//! Knows nothing of what the lists are for.
//!
//! **Invariant:** a segment that is out of its place (the store takes it out to work on it) is in
//! no list, for its neighbours could not reach it.

use super::segment::Segment;

/// Lists that a segment can be in at a time; they number its links.
pub(super) const LISTS_PER_SEGMENT: usize = 2;

/// A segment's place in a list. No segment has the number 0: it means that there is none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Link {
    previous: u32,
    next: u32,
    is_listed: bool,
}

/// One list.
#[derive(Debug)]
pub(super) struct SegmentList {
    first: u32,
    last: u32,
    /// Which of the segments' links it uses.
    link: usize,
}

impl SegmentList {
    /// An empty list that uses the links of this number.
    pub(super) const fn new(link: usize) -> Self {
        assert!(link < LISTS_PER_SEGMENT);
        Self { first: 0, last: 0, link }
    }

    /// The oldest segment in it.
    pub(super) fn first(&self) -> Option<u32> {
        Some(self.first).filter(|id| *id != 0)
    }

    /// Puts a segment at the end. It must not be in a list that uses the same link.
    pub(super) fn push_last(&mut self, id: u32, segments: &mut [Option<Segment>]) {
        let previous = std::mem::replace(&mut self.last, id);
        *self.link_of(id, segments) = Link { previous, next: 0, is_listed: true };
        match previous {
            0 => self.first = id,
            previous => self.link_of(previous, segments).next = id,
        }
    }

    /// Puts a segment before another one of this list; 0: at the end.
    pub(super) fn insert_before(&mut self, next: u32, id: u32, segments: &mut [Option<Segment>]) {
        if next == 0 {
            return self.push_last(id, segments);
        }
        let previous = std::mem::replace(&mut self.link_of(next, segments).previous, id);
        *self.link_of(id, segments) = Link { previous, next, is_listed: true };
        match previous {
            0 => self.first = id,
            previous => self.link_of(previous, segments).next = id,
        }
    }

    /// The segment behind one; 0: there is none, or it is in no list.
    pub(super) fn next(&self, id: u32, segments: &[Option<Segment>]) -> u32 {
        segments[id as usize].as_ref().map_or(0, |segment| segment.links[self.link].next)
    }

    /// Takes a segment out of this list, if it is in it or in none.
    pub(super) fn remove(&mut self, id: u32, segments: &mut [Option<Segment>]) {
        let Link { previous, next, is_listed } = std::mem::take(self.link_of(id, segments));
        if !is_listed {
            return;
        }
        match previous {
            0 => self.first = next,
            previous => self.link_of(previous, segments).next = next,
        }
        match next {
            0 => self.last = previous,
            next => self.link_of(next, segments).previous = previous,
        }
    }

    /// All of it, the oldest first.
    #[cfg(test)]
    pub(super) fn listed(&self, segments: &[Option<Segment>]) -> Vec<u32> {
        let link = |id: u32| segments[id as usize].as_ref().expect("in its place").links[self.link];
        let next = |id: &u32| Some(link(*id).next).filter(|id| *id != 0);
        let previous = |id: &u32| Some(link(*id).previous).filter(|id| *id != 0);
        let forward: Vec<u32> = std::iter::successors(self.first(), next).collect();
        let mut backward: Vec<u32> =
            std::iter::successors(Some(self.last).filter(|id| *id != 0), previous).collect();
        backward.reverse();
        assert_eq!(forward, backward);
        forward
    }

    fn link_of<'a>(&self, id: u32, segments: &'a mut [Option<Segment>]) -> &'a mut Link {
        let segment = segments[id as usize].as_mut().expect("a listed segment is in its place");
        &mut segment.links[self.link]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::segment::Queue;

    #[test]
    fn keeps_order_whatever_is_taken_out() {
        let mut segments: Vec<Option<Segment>> = vec![None];
        segments.extend((0..5).map(|_| Some(Segment::open(64, None, 1, Queue::Small))));
        let (mut one, mut other) = (SegmentList::new(0), SegmentList::new(1));
        for id in 1..=5 {
            one.push_last(id, &mut segments);
        }
        other.push_last(3, &mut segments);
        let steps: [(u32, &[u32]); 6] =
            [(3, &[1, 2, 4, 5]), (1, &[2, 4, 5]), (5, &[2, 4]), (5, &[2, 4]), (4, &[2]), (2, &[])];
        for (removed, left) in steps {
            one.remove(removed, &mut segments);
            assert_eq!(one.listed(&segments), left, "without {removed}");
            assert_eq!(other.listed(&segments), [3], "another link");
        }
        let steps: [(u32, u32, &[u32]); 4] =
            [(0, 5, &[5]), (0, 1, &[5, 1]), (1, 2, &[5, 2, 1]), (5, 4, &[4, 5, 2, 1])];
        for (next, put, expected) in steps {
            one.insert_before(next, put, &mut segments);
            assert_eq!(one.listed(&segments), expected, "with {put} before {next}");
        }
        assert_eq!([4, 2, 1].map(|id| one.next(id, &segments)), [5, 1, 0]);
    }
}
