//! The frames that wait for a connection.

use std::collections::VecDeque;

use bytes::Bytes;

/// Whole frames that were queued together.
#[derive(Debug)]
pub struct FrameBatch {
    pub bytes: Bytes,
    pub frames: usize,
}

/// Frames that wait for a connection, oldest first. An empty queue, or one with a single batch, allocates nothing.
#[derive(Debug, Default)]
pub struct WriteQueue {
    first: Option<FrameBatch>,
    /// Empty if `first` is.
    rest: VecDeque<FrameBatch>,
}

impl WriteQueue {
    pub fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    pub fn first(&self) -> Option<&FrameBatch> {
        self.first.as_ref()
    }

    pub fn iter(&self) -> impl Iterator<Item = &FrameBatch> {
        self.first.iter().chain(&self.rest)
    }

    pub fn push(&mut self, batch: FrameBatch) {
        match &self.first {
            None => self.first = Some(batch),
            Some(_) => self.rest.push_back(batch),
        }
    }

    pub fn pop(&mut self) -> Option<FrameBatch> {
        let next = self.rest.pop_front();
        if self.rest.is_empty() && self.rest.capacity() > 0 {
            self.rest = VecDeque::new();
        }
        std::mem::replace(&mut self.first, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_out_as_it_went_in() {
        let mut queue = WriteQueue::default();
        assert!(queue.pop().is_none());
        for frames in 1..=3 {
            queue.push(FrameBatch { bytes: Bytes::new(), frames });
        }
        assert_eq!((queue.len(), queue.first().map(|batch| batch.frames)), (3, Some(1)));
        assert_eq!(queue.iter().map(|batch| batch.frames).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(queue.pop().map(|batch| batch.frames), Some(1));
        queue.push(FrameBatch { bytes: Bytes::new(), frames: 4 });
        let rest: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|batch| batch.frames).collect();
        assert_eq!((rest, queue.len()), (vec![2, 3, 4], 0));
    }
}
