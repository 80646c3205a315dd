//! Sets of numbers that mostly follow on each other, kept as ranges.

/// A set of numbers: ranges in order, both ends inclusive, none touching the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    pub fn insert(&mut self, number: u64) {
        self.insert_range(number, number);
    }

    /// Adds all from `from` to `to`, both inclusive.
    pub fn insert_range(&mut self, mut from: u64, mut to: u64) {
        if from > to {
            return;
        }
        // What comes in order only makes the last range longer.
        if let Some(last) = self.0.last_mut()
            && last.1.checked_add(1) == Some(from)
        {
            last.1 = to;
            return;
        }
        let first = self.0.partition_point(|range| range.1.saturating_add(1) < from);
        let behind = self.0.partition_point(|range| range.0 <= to.saturating_add(1));
        for range in &self.0[first..behind] {
            (from, to) = (from.min(range.0), to.max(range.1));
        }
        self.0.splice(first..behind, [(from, to)]);
    }

    pub fn contains(&self, number: u64) -> bool {
        let place = self.0.partition_point(|range| range.1 < number);
        self.0.get(place).is_some_and(|range| range.0 <= number)
    }

    /// How many numbers are in the set.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|(from, to)| to - from + 1).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().copied()
    }

    /// What is in this set and not in the other.
    pub fn without(&self, other: &Self) -> Self {
        let mut rest = Self::default();
        for (mut from, to) in self.iter() {
            let first = other.0.partition_point(|range| range.1 < from);
            for (begin, end) in other.0[first..].iter().copied().take_while(|range| range.0 <= to) {
                if begin > from {
                    rest.insert_range(from, begin - 1);
                }
                from = from.max(end.saturating_add(1));
            }
            rest.insert_range(from, to);
        }
        rest
    }

    /// What is in both sets.
    pub fn common(&self, other: &Self) -> Self {
        self.without(&self.without(other))
    }
}
