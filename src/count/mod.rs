//! Numbers that are written where things happen, and read elsewhere at any time: without locks, and nobody waits. Knows
//! neither what is counted nor who reads it.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// A number that only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    /// As `add`, where no other thread ever adds: a load and a store, since there is nobody to take turns with.
    #[inline]
    pub fn add_alone(&self, more: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(more), Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Measured values of one kind: how many, and how large they were.
#[derive(Debug)]
pub struct Spread {
    count: AtomicU64,
    sum: AtomicU64,
    /// Of the values' squares: the bits of a float, since they outgrow every integer.
    squares: AtomicU64,
    least: AtomicU64,
    most: AtomicU64,
}

/// What a [`Spread`] came to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    pub count: u64,
    pub sum: f64,
    /// Of the values' squares.
    pub squares: f64,
    /// Since the extremes were last taken; 0 where nothing was measured since.
    pub least: f64,
    pub most: f64,
}

impl Default for Spread {
    fn default() -> Self {
        let zero = AtomicU64::default;
        Spread { count: zero(), sum: zero(), squares: zero(), least: u64::MAX.into(), most: zero() }
    }
}

impl Spread {
    pub fn record(&self, value: u64) {
        self.record_many(1, value);
    }

    /// In nanoseconds.
    pub fn record_time(&self, time: Duration) {
        self.record(nanos(time));
    }

    /// So many values that come to `sum`: each counts as their mean.
    pub fn record_many(&self, count: u64, sum: u64) {
        let mean = sum / count.max(1);
        self.count.fetch_add(count, Relaxed);
        self.sum.fetch_add(sum, Relaxed);
        let squares = mean as f64 * mean as f64 * count as f64;
        let add = |bits| Some((f64::from_bits(bits) + squares).to_bits());
        // It never refuses.
        let _former = self.squares.fetch_update(Relaxed, Relaxed, add);
        self.least.fetch_min(mean, Relaxed);
        self.most.fetch_max(mean, Relaxed);
    }

    pub fn read(&self) -> Measured {
        self.with(self.least.load(Relaxed), self.most.load(Relaxed))
    }

    /// As `read`; the extremes begin anew. For the one who reads at regular times.
    pub fn take(&self) -> Measured {
        self.with(self.least.swap(u64::MAX, Relaxed), self.most.swap(0, Relaxed))
    }

    fn with(&self, least: u64, most: u64) -> Measured {
        Measured {
            count: self.count.load(Relaxed),
            sum: self.sum.load(Relaxed) as f64,
            squares: f64::from_bits(self.squares.load(Relaxed)),
            least: if least == u64::MAX { 0.0 } else { least as f64 },
            most: most as f64,
        }
    }
}

impl Measured {
    /// In another unit, of which one is `by` of these.
    pub fn per(self, by: f64) -> Measured {
        let Measured { count, sum, squares, least, most } = self;
        Measured { count, sum: sum / by, squares: squares / by / by, least: least / by, most: most / by }
    }

    /// Both together.
    pub fn and(self, other: Measured) -> Measured {
        let least = [self, other].into_iter().filter(|it| it.count > 0 && it.most > 0.0).map(|it| it.least);
        Measured {
            count: self.count + other.count,
            sum: self.sum + other.sum,
            squares: self.squares + other.squares,
            least: least.reduce(f64::min).unwrap_or(0.0),
            most: self.most.max(other.most),
        }
    }

    /// What came since an earlier reading of the same; extremes are those of now.
    pub fn since(self, earlier: &Measured) -> Measured {
        Measured {
            count: self.count.saturating_sub(earlier.count),
            sum: self.sum - earlier.sum,
            squares: self.squares - earlier.squares,
            ..self
        }
    }

    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum / self.count as f64 }
    }

    pub fn deviation(&self) -> f64 {
        let count = self.count as f64;
        if self.count < 2 {
            return 0.0;
        }
        // Rounding may leave less than nothing.
        ((count * self.squares - self.sum * self.sum) / (count * (count - 1.0))).max(0.0).sqrt()
    }
}

/// For as long as anybody will wait.
pub fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_summed_up() {
        let spread = Spread::default();
        assert_eq!(spread.read(), Measured::default());
        [2, 4, 4, 4, 5, 5, 7, 9].iter().for_each(|value| spread.record(*value));
        let first = spread.take();
        assert_eq!((first.count, first.sum, first.mean()), (8, 40.0, 5.0));
        assert_eq!((first.least, first.most), (2.0, 9.0));
        assert!((first.deviation() - 2.138).abs() < 0.001);
        spread.record_many(2, 6);
        let next = spread.read().since(&first);
        let expected = Measured { count: 2, sum: 6.0, squares: 18.0, least: 3.0, most: 3.0 };
        assert_eq!((next, next.deviation()), (expected, 0.0), "the extremes began anew");
        assert_eq!(next.per(2.0), Measured { count: 2, sum: 3.0, squares: 4.5, least: 1.5, most: 1.5 });
        assert_eq!(next.and(Measured::default()), next);
        assert_eq!(next.and(first).least, 2.0);
    }

    #[test]
    fn a_counter_rises() {
        let counter = Counter::default();
        counter.add(2);
        counter.add_alone(3);
        assert_eq!(counter.get(), 5);
    }
}
