//! Items and the queues they stand in. Owns the links; knows no policy.
//!
//! One record per id, so an item is in at most one queue at a time, and moving it between queues
//! allocates nothing. Id 0 is an item like any other: links are stored plus one, zero is none.

/// Where an item is. What the places mean is up to the policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Place {
    #[default]
    Nowhere,
    A,
    B,
    C,
}

/// What is known of an id.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Item {
    newer: u32,
    older: u32,
    pub(super) bytes: u32,
    /// Requests since some event; what counts is up to the policy.
    pub(super) uses: u8,
    pub(super) place: Place,
}

/// All items by id.
#[derive(Debug, Default)]
pub(super) struct Items(Vec<Item>);

impl Items {
    pub(super) fn get(&self, id: u32) -> Item {
        self.0.get(id as usize).copied().unwrap_or_default()
    }

    /// The item's record, made if there is none.
    pub(super) fn at(&mut self, id: u32) -> &mut Item {
        let index = id as usize;
        if self.0.len() <= index {
            self.0.resize(index + 1, Item::default());
        }
        &mut self.0[index]
    }

    fn linked(&mut self, link: u32) -> Option<&mut Item> {
        self.0.get_mut((link as usize).checked_sub(1)?)
    }

    /// The id one step nearer to the newest end.
    pub(super) fn newer(&self, id: u32) -> Option<u32> {
        self.get(id).newer.checked_sub(1)
    }
}

/// A doubly linked queue of items, from newest to oldest.
#[derive(Debug)]
pub(super) struct Queue {
    place: Place,
    newest: u32,
    oldest: u32,
    bytes: u64,
}

impl Queue {
    /// An empty queue; its items are marked with `place`.
    pub(super) fn new(place: Place) -> Self {
        Self { place, newest: 0, oldest: 0, bytes: 0 }
    }

    /// Sum of the items' bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn oldest(&self) -> Option<u32> {
        self.oldest.checked_sub(1)
    }

    /// Puts an item that is in no queue at the newest end.
    pub(super) fn push(&mut self, items: &mut Items, id: u32) {
        let newest = self.newest;
        let item = items.at(id);
        assert_eq!(item.place, Place::Nowhere);
        (item.newer, item.older, item.place) = (0, newest, self.place);
        self.bytes += u64::from(item.bytes);
        match items.linked(newest) {
            Some(before) => before.newer = id + 1,
            None => self.oldest = id + 1,
        }
        self.newest = id + 1;
    }

    /// Takes an item of this queue out.
    pub(super) fn remove(&mut self, items: &mut Items, id: u32) {
        let item = items.at(id);
        assert_eq!(item.place, self.place);
        let (newer, older) = (item.newer, item.older);
        item.place = Place::Nowhere;
        self.bytes -= u64::from(item.bytes);
        match items.linked(newer) {
            Some(item) => item.older = older,
            None => self.newest = older,
        }
        match items.linked(older) {
            Some(item) => item.newer = newer,
            None => self.oldest = newer,
        }
    }

    /// Takes the oldest item out.
    pub(super) fn pop(&mut self, items: &mut Items) -> Option<u32> {
        let id = self.oldest()?;
        self.remove(items, id);
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_keep_order_and_bytes() {
        let mut items = Items::default();
        let mut queue = Queue::new(Place::A);
        for id in 0..5 {
            items.at(id).bytes = 10;
            queue.push(&mut items, id);
        }
        assert_eq!(queue.bytes(), 50);
        queue.remove(&mut items, 2);
        queue.remove(&mut items, 0);
        queue.push(&mut items, 0);
        assert_eq!(items.newer(1), Some(3));
        let order: Vec<u32> = std::iter::from_fn(|| queue.pop(&mut items)).collect();
        assert_eq!(order, [1, 3, 4, 0]);
        assert_eq!(queue.bytes(), 0);
        assert_eq!(items.get(3).place, Place::Nowhere);
    }
}
