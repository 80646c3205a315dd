//! What each watcher got of each of its jobs, number by number, and the verdict on it.

use std::collections::HashMap;
use std::ops::Range;

/// Holes that are remembered one by one at the most, so that a server that loses everything costs bounded memory. What
/// comes late beyond that counts as repeated.
const REMEMBERED_HOLES: usize = 1_000_000;

/// The numbers that a publisher was given for one job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Numbers {
    /// The smallest one; 0 while there is none.
    pub first: u64,
    /// The largest one.
    pub last: u64,
    /// How many there were.
    pub count: u64,
}

impl Numbers {
    /// Adds one number.
    pub fn note(&mut self, seq: u64) {
        self.first = if self.count == 0 { seq } else { self.first.min(seq) };
        self.last = self.last.max(seq);
        self.count += 1;
    }

    /// Whether they rise by one without a hole.
    pub fn are_consecutive(&self) -> bool {
        self.count == 0 || self.last - self.first + 1 == self.count
    }
}

/// What watchers got and did not get.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Deliveries that never came.
    pub lost: u64,
    /// Deliveries that came again.
    pub duplicated: u64,
    /// Deliveries that came after a younger one of their job.
    pub reordered: u64,
}

/// What a delivery is to its watcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// Newer than all of its job so far. `after` is the newest one before it, or 0.
    Next {
        /// The newest number before.
        after: u64,
    },
    /// Something that was missing until now.
    Late,
    /// Something that was there already.
    Repeated,
    /// Of a job that this watcher did not ask for.
    Stray,
}

/// One job as one watcher sees it.
#[derive(Clone, Copy, Default)]
struct JobView {
    first: u64,
    last: u64,
}

/// The views of one watcher: those of a range of jobs, one after another.
struct Row {
    start: usize,
    jobs: Range<u32>,
}

/// Counts what all watchers got.
#[derive(Default)]
pub struct Tally {
    rows: Vec<Row>,
    views: Vec<JobView>,
    /// What was skipped and has not come since, by view: lost, not there yet, or given to no event.
    skipped: HashMap<usize, Vec<Range<u64>>>,
    holes: usize,
    duplicated: u64,
    reordered: u64,
    strays: u64,
    delivered: u64,
}

impl Tally {
    /// Adds a watcher of these jobs; the first one added is number 0.
    pub fn add_watcher(&mut self, jobs: Range<u32>) {
        let start = self.views.len();
        self.views.resize(start + jobs.len(), JobView::default());
        self.rows.push(Row { start, jobs });
    }

    /// Counts one delivery.
    pub fn record(&mut self, watcher: usize, job: u32, seq: u64) -> Arrival {
        let Some(at) = self.rows[watcher].view(job) else {
            self.strays += 1;
            return Arrival::Stray;
        };
        let JobView { first, last } = self.views[at];
        if seq <= last {
            return self.record_old(at, seq);
        }
        if first == 0 {
            self.views[at].first = seq;
        } else if seq > last + 1 {
            self.skip(at, last + 1..seq);
        }
        self.views[at].last = seq;
        self.delivered += 1;
        Arrival::Next { after: last }
    }

    fn skip(&mut self, view: usize, numbers: Range<u64>) {
        if self.holes < REMEMBERED_HOLES {
            self.holes += 1;
            self.skipped.entry(view).or_default().push(numbers);
        }
    }

    fn record_old(&mut self, at: usize, seq: u64) -> Arrival {
        let view = &mut self.views[at];
        let late = if seq < view.first {
            let skipped = seq + 1..view.first;
            view.first = seq;
            if !skipped.is_empty() {
                self.skip(at, skipped);
            }
            true
        } else {
            self.skipped.get_mut(&at).is_some_and(|holes| take(holes, seq))
        };
        if late {
            self.reordered += 1;
            self.delivered += 1;
            Arrival::Late
        } else {
            self.duplicated += 1;
            Arrival::Repeated
        }
    }

    /// The newest number that a watcher has of the first of its jobs; 0 for none.
    pub fn newest(&self, watcher: usize) -> u64 {
        self.views.get(self.rows[watcher].start).map_or(0, |view| view.last)
    }

    /// How many deliveries came, repeated ones not counted.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Deliveries of jobs that their receiver had not asked for.
    pub fn strays(&self) -> u64 {
        self.strays
    }

    /// How many deliveries there are to be of what was published: `published` by job.
    pub fn expected(&self, published: &[Numbers]) -> u64 {
        self.views().map(|(job, _)| published.get(job as usize).map_or(0, |numbers| numbers.count)).sum()
    }

    /// Compares what came with what was published, by job. What jumps in a job's numbers is no loss.
    pub fn verdict(&self, published: &[Numbers]) -> Verdict {
        Verdict {
            lost: self.expected(published).saturating_sub(self.delivered),
            duplicated: self.duplicated,
            reordered: self.reordered,
        }
    }

    fn views(&self) -> impl Iterator<Item = (u32, JobView)> + '_ {
        self.rows.iter().flat_map(|row| row.jobs.clone().zip(self.views[row.start..].iter().copied()))
    }
}

impl Row {
    fn view(&self, job: u32) -> Option<usize> {
        self.jobs.contains(&job).then(|| self.start + (job - self.jobs.start) as usize)
    }
}

/// Takes one number out of the holes, if it is in one of them.
fn take(holes: &mut Vec<Range<u64>>, seq: u64) -> bool {
    let Some(at) = holes.iter().position(|hole| hole.contains(&seq)) else { return false };
    let hole = holes.swap_remove(at);
    holes.extend([hole.start..seq, seq + 1..hole.end].into_iter().filter(|rest| !rest.is_empty()));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict_of(arrivals: &[u64], first: u64, last: u64) -> (Verdict, u64) {
        let mut tally = Tally::default();
        tally.add_watcher(3..4);
        arrivals.iter().for_each(|seq| {
            tally.record(0, 3, *seq);
        });
        let mut published = vec![Numbers::default(); 4];
        published[3] = Numbers { first, last, count: last - first + 1 };
        (tally.verdict(&published), tally.delivered())
    }

    #[test]
    fn everything_in_order_is_flawless() {
        assert_eq!(verdict_of(&[5, 6, 7], 5, 7), (Verdict::default(), 3));
    }

    #[test]
    fn what_is_missing_is_counted_wherever_it_is() {
        let lost = |arrivals: &[u64]| verdict_of(arrivals, 5, 9).0.lost;
        assert_eq!(lost(&[7, 8, 9]), 2);
        assert_eq!(lost(&[5, 6, 9]), 2);
        assert_eq!(lost(&[5, 6, 7]), 2);
        assert_eq!(lost(&[]), 5);
        assert_eq!(lost(&[7]), 4);
    }

    #[test]
    fn a_jump_is_no_loss() {
        let mut tally = Tally::default();
        tally.add_watcher(0..1);
        let mut published = Numbers::default();
        for seq in [5, 6, 1_000_006, 1_000_007] {
            published.note(seq);
            tally.record(0, 0, seq);
        }
        assert_eq!(tally.verdict(&[published]), Verdict::default());
    }

    #[test]
    fn late_ones_are_reordered_and_not_lost() {
        let expected = Verdict { reordered: 2, ..Verdict::default() };
        assert_eq!(verdict_of(&[5, 8, 7, 6, 9], 5, 9), (expected, 5));
        assert_eq!(verdict_of(&[7, 6, 5, 8, 9], 5, 9), (expected, 5));
        let first_is_late = Verdict { reordered: 1, lost: 1, ..Verdict::default() };
        assert_eq!(verdict_of(&[7, 5, 8], 5, 8), (first_is_late, 3));
    }

    #[test]
    fn repeated_ones_are_duplicates() {
        assert_eq!(verdict_of(&[5, 5, 6, 5], 5, 6), (Verdict { duplicated: 2, ..Verdict::default() }, 2));
        let late_twice = Verdict { duplicated: 1, reordered: 1, ..Verdict::default() };
        assert_eq!(verdict_of(&[5, 7, 6, 6], 5, 7), (late_twice, 3));
    }

    #[test]
    fn any_shuffle_with_repeats_loses_nothing_and_any_hole_is_found() {
        for _ in 0..500 {
            let mut numbers: Vec<u64> = (100..130).collect();
            let hole = fastrand::usize(..10);
            (0..hole).for_each(|_| {
                numbers.swap_remove(fastrand::usize(..numbers.len()));
            });
            let distinct = numbers.len() as u64;
            let repeats = fastrand::usize(..5);
            (0..repeats).for_each(|_| numbers.push(numbers[fastrand::usize(..distinct as usize)]));
            fastrand::shuffle(&mut numbers);
            let (verdict, delivered) = verdict_of(&numbers, 100, 129);
            assert_eq!((verdict.lost, verdict.duplicated), (hole as u64, repeats as u64), "{numbers:?}");
            assert_eq!(delivered, distinct);
        }
    }

    #[test]
    fn watchers_of_several_jobs_have_a_view_of_each() {
        let mut tally = Tally::default();
        tally.add_watcher(0..2);
        tally.add_watcher(1..2);
        assert_eq!(tally.record(0, 0, 10), Arrival::Next { after: 0 });
        assert_eq!(tally.record(0, 1, 50), Arrival::Next { after: 0 });
        assert_eq!(tally.record(1, 1, 50), Arrival::Next { after: 0 });
        assert_eq!(tally.record(1, 0, 10), Arrival::Stray);
        let one = |seq| Numbers { first: seq, last: seq, count: 1 };
        let published = [one(10), one(50)];
        assert_eq!((tally.verdict(&published), tally.expected(&published)), (Verdict::default(), 3));
        assert_eq!((tally.strays(), tally.newest(1)), (1, 50));
    }

    #[test]
    fn numbers_tell_whether_they_have_holes() {
        let mut numbers = Numbers::default();
        assert!(numbers.are_consecutive());
        [7, 5, 6].into_iter().for_each(|seq| numbers.note(seq));
        assert_eq!(numbers, Numbers { first: 5, last: 7, count: 3 });
        assert!(numbers.are_consecutive());
        numbers.note(9);
        assert!(!numbers.are_consecutive());
    }
}
