//! Times, and how they are spread: a histogram with logarithmic buckets, exact to one part in 128.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Buckets for each doubling, as a power of two.
const PRECISION: u32 = 7;
/// Times beyond this (a bit more than an hour) count as this.
const LONGEST: u64 = (1 << 32) - 1;

/// Microseconds on a clock that only this process knows and that never goes back.
pub fn micros() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_micros() as u64
}

/// How often each time, in microseconds, was measured.
#[derive(Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; bucket(LONGEST) + 1], total: 0, max: 0 }
    }
}

impl Histogram {
    /// Counts one time in microseconds.
    pub fn record(&mut self, micros: u64) {
        let micros = micros.min(LONGEST);
        self.counts[bucket(micros)] += 1;
        self.total += 1;
        self.max = self.max.max(micros);
    }

    /// Counts one time.
    pub fn record_time(&mut self, time: Duration) {
        self.record(time.as_micros() as u64);
    }

    /// How many were counted.
    pub fn len(&self) -> u64 {
        self.total
    }

    /// The time in milliseconds that this share of all was not above; 0 where nothing was counted.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        let rank = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper_bound(bucket).min(self.max) as f64 / 1000.0;
            }
        }
        0.0
    }

    /// The longest time in milliseconds.
    pub fn max_ms(&self) -> f64 {
        self.max as f64 / 1000.0
    }
}

fn bucket(value: u64) -> usize {
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(PRECISION + 1);
    ((u64::from(shift) << PRECISION) + (value >> shift)) as usize
}

fn upper_bound(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket >> PRECISION).saturating_sub(1);
    let low = (bucket - (shift << PRECISION)) << shift;
    low + (1 << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_a_bucket_that_is_narrow() {
        for value in
            (0..4096).chain((12..32).flat_map(|bits| [(1 << bits) - 1, 1 << bits, (1 << bits) + 12_345]))
        {
            let bound = upper_bound(bucket(value));
            assert!(bound >= value, "{value} is above {bound}");
            assert!(bound - value <= value / 128, "{bound} is far from {value}");
        }
    }

    #[test]
    fn buckets_follow_one_another() {
        for value in 1..100_000 {
            assert!(matches!(bucket(value) - bucket(value - 1), 0 | 1));
        }
    }

    #[test]
    fn quantiles_are_ranks() {
        let mut histogram = Histogram::default();
        assert!(histogram.quantile_ms(0.5) == 0.0);
        (1..=100).for_each(|value| histogram.record(value * 1000));
        let near = |share, expected: f64| (histogram.quantile_ms(share) - expected).abs() <= expected / 100.0;
        assert!(near(0.5, 50.0) && near(0.99, 99.0) && near(0.0, 1.0));
        assert!(histogram.quantile_ms(1.0) == 100.0 && histogram.max_ms() == 100.0 && histogram.len() == 100);
    }

    #[test]
    fn absurd_times_are_cut() {
        let mut histogram = Histogram::default();
        histogram.record(u64::MAX);
        assert!(histogram.max_ms() == LONGEST as f64 / 1000.0);
    }
}
