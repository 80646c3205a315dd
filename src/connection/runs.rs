use std::collections::VecDeque;

use bytes::Bytes;

/// Whole frames that were queued together.
#[derive(Debug)]
pub struct Run {
    pub bytes: Bytes,
    pub frames: usize,
}

/// What waits for a connection, oldest first. Mostly that is nothing, and otherwise one run, which take no memory besides.
#[derive(Debug, Default)]
pub struct Runs {
    first: Option<Run>,
    /// Empty where there is no first one.
    others: VecDeque<Run>,
}

impl Runs {
    pub fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.len()
    }

    pub fn first(&self) -> Option<&Run> {
        self.first.as_ref()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Run> {
        self.first.iter().chain(&self.others)
    }

    pub fn push(&mut self, run: Run) {
        match &self.first {
            None => self.first = Some(run),
            Some(_) => self.others.push_back(run),
        }
    }

    pub fn pop(&mut self) -> Option<Run> {
        let next = self.others.pop_front();
        if self.others.is_empty() && self.others.capacity() > 0 {
            self.others = VecDeque::new();
        }
        std::mem::replace(&mut self.first, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_out_as_it_went_in() {
        let mut runs = Runs::default();
        assert!(runs.pop().is_none());
        for frames in 1..=3 {
            runs.push(Run { bytes: Bytes::new(), frames });
        }
        assert_eq!((runs.len(), runs.first().map(|run| run.frames)), (3, Some(1)));
        assert_eq!(runs.iter().map(|run| run.frames).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(runs.pop().map(|run| run.frames), Some(1));
        runs.push(Run { bytes: Bytes::new(), frames: 4 });
        let rest: Vec<_> = std::iter::from_fn(|| runs.pop()).map(|run| run.frames).collect();
        assert_eq!((rest, runs.len()), (vec![2, 3, 4], 0));
    }
}
