//! The bytes that wait for a connection, oldest first.

use std::{collections::VecDeque, io::IoSlice};

use bytes::{Buf, Bytes};

/// Bytes that were queued together.
#[derive(Debug)]
struct Batch {
    bytes: Bytes,
    /// How many frames of the fan-out they are, which others may share. 0 for bytes of this connection alone.
    frames: usize,
}

/// What a batch of this connection alone costs beside its bytes.
const OVERHEAD: usize = 64;

/// Bytes that wait, oldest first. An empty queue, or one with a single batch, allocates nothing.
#[derive(Debug, Default)]
pub struct WriteQueue {
    first: Option<Batch>,
    /// Empty if `first` is.
    rest: VecDeque<Batch>,
    bytes: usize,
    own_bytes: usize,
    frames: usize,
}

impl WriteQueue {
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// How many bytes wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many bytes of memory this connection alone holds.
    pub fn own_bytes(&self) -> usize {
        self.own_bytes
    }

    /// How many frames of the fan-out wait.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// Queues frames of the fan-out, or, with 0 `frames`, bytes of this connection alone.
    pub fn push(&mut self, bytes: Bytes, frames: usize) {
        self.bytes += bytes.len();
        self.own_bytes += if frames == 0 { bytes.len() + OVERHEAD } else { 0 };
        self.frames += frames;
        let batch = Batch { bytes, frames };
        match &self.first {
            None => self.first = Some(batch),
            Some(_) => self.rest.push_back(batch),
        }
    }

    /// Queues all that waits in another queue.
    pub fn append(&mut self, mut other: WriteQueue) {
        let batches = other.first.take().into_iter().chain(other.rest);
        batches.for_each(|batch| self.push(batch.bytes, batch.frames));
    }

    /// The bytes that come first, and how many they are.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> (usize, usize) {
        let (mut count, mut bytes) = (0, 0);
        for (slice, batch) in slices.iter_mut().zip(self.first.iter().chain(&self.rest)) {
            *slice = IoSlice::new(&batch.bytes);
            count += 1;
            bytes += batch.bytes.len();
        }
        (count, bytes)
    }

    /// Removes the first `count` bytes, which have been written.
    pub fn advance(&mut self, mut count: usize) {
        self.bytes -= count;
        while let Some(first) = &mut self.first {
            let taken = count.min(first.bytes.len());
            self.own_bytes -= if first.frames == 0 { taken } else { 0 };
            count -= taken;
            first.bytes.advance(taken);
            if first.bytes.has_remaining() {
                return;
            }
            self.frames -= first.frames;
            self.own_bytes -= if first.frames == 0 { OVERHEAD } else { 0 };
            self.first = self.rest.pop_front();
        }
        // A queue that was long once holds no memory when it is empty.
        self.rest = VecDeque::new();
    }

    /// The batches that others may share, by where they end in memory, with their lengths.
    pub fn shared(&self) -> impl Iterator<Item = (usize, usize)> {
        let batches = self.first.iter().chain(&self.rest).filter(|batch| batch.frames > 0);
        batches.map(|batch| (batch.bytes.as_ptr_range().end as usize, batch.bytes.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_out_as_it_went_in_and_is_counted() {
        let mut queue = WriteQueue::default();
        queue.push(Bytes::from_static(b"abc"), 2);
        queue.push(Bytes::from_static(b"de"), 0);
        let mut more = WriteQueue::default();
        more.push(Bytes::from_static(b"fgh"), 1);
        queue.append(more);
        assert_eq!((queue.bytes(), queue.own_bytes(), queue.frames()), (8, 2 + OVERHEAD, 3));
        let mut out = Vec::new();
        for count in [1, 3, 2, 2] {
            let mut slices = [IoSlice::new(&[]); 2];
            let (filled, _) = queue.slices(&mut slices);
            let bytes: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
            out.extend_from_slice(&bytes[..count]);
            queue.advance(count);
        }
        assert_eq!(out, b"abcdefgh");
        assert_eq!((queue.is_empty(), queue.bytes(), queue.own_bytes(), queue.frames()), (true, 0, 0, 0));
    }
}
