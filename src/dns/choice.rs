//! Which of a service's instances an answer takes: a fair draw whose price does not grow with their number. Where they
//! weigh differently, each is drawn as often as its weight has it, and one that weighs nothing only after all others.
//! Knows places in chunks; not what stands there.

use super::seen::Seen;

/// One candidate: which chunk, and which of its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    pub chunk: u32,
    pub at: u32,
}

/// How much each of a chunk's candidates weighs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Weighing<'a> {
    Alike(u16),
    /// Running sums.
    Sums(&'a [u32]),
}

/// What is known of all weights so far.
#[derive(Clone, Copy, Default, PartialEq)]
enum Weights {
    #[default]
    None,
    Alike(u16),
    Differ,
}

/// Up to so many candidates are all put in a hat; of more, runs are dealt.
const HAT_MAX: usize = 256;

/// Draws candidates one by one, each once, until all are drawn. Reused from question to question.
#[derive(Default)]
pub struct Choice {
    /// Candidates of each chunk.
    counts: Vec<u32>,
    total: usize,
    hat: Vec<Draw>,
    /// For a dealt draw: which chunk comes first, and of each in turn from there, where its run starts and how long it
    /// is.
    first: usize,
    runs: Vec<(u32, u32)>,
    cursor: Cursor,
    weights: Weights,
    /// What the candidates of each chunk weigh together with all before it.
    sums: Vec<u64>,
    drawn: Seen,
    turns: Vec<(f64, Draw)>,
}

#[derive(Clone, Copy, Default)]
enum Cursor {
    /// The next of the hat.
    #[default]
    Hat,
    HatAt(usize),
    /// By weight, with so many tries left to hit one that was not drawn yet.
    Lot {
        tries: usize,
    },
    /// The hat as it lies.
    Ordered(usize),
    /// In the runs themselves, chunk after chunk.
    Run {
        turn: usize,
        step: u32,
    },
    /// In what the runs left over: wanted only where what was drawn turned out to be drawn before.
    Rest {
        turn: usize,
        step: u32,
    },
}

impl Choice {
    pub fn clear(&mut self) {
        self.counts.clear();
        self.total = 0;
        self.weights = Weights::None;
    }

    /// The next chunk has so many candidates, and all weigh the same, or not.
    pub fn push(&mut self, count: usize, alike: Option<u16>) {
        self.counts.push(count as u32);
        self.total += count;
        if count > 0 {
            self.weights = match (self.weights, alike) {
                (Weights::None, Some(weight)) => Weights::Alike(weight),
                (Weights::Alike(all), Some(weight)) if weight == all => Weights::Alike(all),
                _ => Weights::Differ,
            };
        }
    }

    pub fn total(&self) -> usize {
        self.total
    }

    /// Begins a draw of which about `wanted` will be taken. `weighing` is that of a chunk.
    pub fn begin<'a>(
        &mut self,
        wanted: usize,
        weighing: impl Fn(u32) -> Weighing<'a>,
        random: &mut fastrand::Rng,
    ) {
        if self.weights == Weights::Differ {
            self.drawn.clear();
            self.sums.clear();
            for (chunk, count) in self.counts.iter().enumerate() {
                self.sums.push(self.weight() + weighing(chunk as u32).total(*count as usize));
            }
            let is_lot = wanted < self.total && self.weight() > 0;
            self.cursor = Cursor::Lot { tries: if is_lot { self.total } else { 0 } };
        } else if self.total <= HAT_MAX {
            self.fill_hat();
            self.cursor = Cursor::HatAt(0);
        } else {
            self.deal(wanted, random);
            self.cursor = Cursor::Run { turn: 0, step: 0 };
        }
    }

    /// `weighing` as at the beginning.
    pub fn next<'a>(
        &mut self,
        weighing: impl Fn(u32) -> Weighing<'a>,
        random: &mut fastrand::Rng,
    ) -> Option<Draw> {
        match self.cursor {
            Cursor::Hat => None,
            Cursor::Lot { tries } => self.next_of_lot(tries, weighing, random),
            Cursor::Ordered(at) => {
                self.cursor = Cursor::Ordered(at + 1);
                self.hat.get(at).copied()
            }
            Cursor::HatAt(at) => {
                let left = self.hat.len().checked_sub(at).filter(|left| *left > 0)?;
                self.hat.swap(at, at + random.usize(..left));
                self.cursor = Cursor::HatAt(at + 1);
                Some(self.hat[at])
            }
            Cursor::Run { .. } | Cursor::Rest { .. } => self.next_dealt(),
        }
    }

    fn weight(&self) -> u64 {
        self.sums.last().copied().unwrap_or(0)
    }

    /// One of those not drawn yet, by their weights: who was drawn already is put back. Where that takes more tries than
    /// there are candidates, few have nearly all the weight, or all that have some are drawn; then the rest are put in
    /// order.
    fn next_of_lot<'a>(
        &mut self,
        tries: usize,
        weighing: impl Fn(u32) -> Weighing<'a>,
        random: &mut fastrand::Rng,
    ) -> Option<Draw> {
        for left in (0..tries).rev() {
            let point = random.u64(..self.weight());
            let chunk = self.sums.partition_point(|sum| *sum <= point);
            let before = chunk.checked_sub(1).map_or(0, |before| self.sums[before]);
            let draw = Draw { chunk: chunk as u32, at: weighing(chunk as u32).find(point - before) };
            if self.drawn.insert(draw.key()) {
                self.cursor = Cursor::Lot { tries: left };
                return Some(draw);
            }
        }
        self.order_rest(weighing, random);
        self.cursor = Cursor::Ordered(1);
        self.hat.first().copied()
    }

    fn order_rest<'a>(&mut self, weighing: impl Fn(u32) -> Weighing<'a>, random: &mut fastrand::Rng) {
        self.turns.clear();
        for (chunk, count) in self.counts.iter().enumerate() {
            let weighing = weighing(chunk as u32);
            let all = (0..*count).map(|at| Draw { chunk: chunk as u32, at });
            let left = all.filter(|draw| self.drawn.insert(draw.key()));
            self.turns.extend(left.map(|draw| (turn(weighing.of(draw.at), random), draw)));
        }
        self.turns.sort_unstable_by(|(a, _), (b, _)| a.total_cmp(b));
        self.hat.clear();
        self.hat.extend(self.turns.iter().map(|(_, draw)| *draw));
    }

    fn fill_hat(&mut self) {
        self.hat.clear();
        for (chunk, count) in self.counts.iter().enumerate() {
            self.hat.extend((0..*count).map(|at| Draw { chunk: chunk as u32, at }));
        }
    }

    /// Deals `wanted` over the chunks by their counts, each chunk's share being right on average: the running sum is
    /// cut at even steps from a random start.
    fn deal(&mut self, wanted: usize, random: &mut fastrand::Rng) {
        self.runs.clear();
        self.first = random.usize(..self.counts.len());
        let (total, wanted) = (self.total as u64, wanted.min(self.total) as u64);
        let offset = random.u64(..total);
        // Divisions would cost more than all the rest: what is due of the next cut is carried along instead.
        let mut due = offset;
        for turn in 0..self.counts.len() {
            let count = self.counts[self.chunk(turn)];
            due += u64::from(count) * wanted;
            let mut run = 0;
            while due >= total {
                due -= total;
                run += 1;
            }
            let start = if count == 0 { 0 } else { random.u32(..count) };
            self.runs.push((start, run.min(count)));
        }
    }

    fn chunk(&self, turn: usize) -> usize {
        let chunk = self.first + turn;
        if chunk < self.counts.len() { chunk } else { chunk - self.counts.len() }
    }

    fn next_dealt(&mut self) -> Option<Draw> {
        loop {
            let (turn, step, rest) = match self.cursor {
                Cursor::Run { turn, step } => (turn, step, false),
                Cursor::Rest { turn, step } => (turn, step, true),
                _ => return None,
            };
            let Some((start, run)) = self.runs.get(turn).copied() else {
                if rest {
                    return None;
                }
                self.cursor = Cursor::Rest { turn: 0, step: 0 };
                continue;
            };
            let chunk = self.chunk(turn);
            let count = self.counts[chunk];
            let (from, length) = if rest { (run, count - run) } else { (0, run) };
            let ended = step == length;
            let (turn, next) = if ended { (turn + 1, 0) } else { (turn, step + 1) };
            self.cursor =
                if rest { Cursor::Rest { turn, step: next } } else { Cursor::Run { turn, step: next } };
            if !ended {
                let at = start + from + step;
                return Some(Draw { chunk: chunk as u32, at: if at < count { at } else { at - count } });
            }
        }
    }
}

/// Whose turn is smaller comes first. Each comes before each other as often as it outweighs it, and the first of all as
/// if drawn by weight; so do the next, of those that are left. What weighs nothing comes last.
pub fn turn(weight: u32, random: &mut fastrand::Rng) -> f64 {
    /// Beyond what the logarithm of a random number comes to.
    const LAST: f64 = 1e3;
    let chance = random.f64();
    if weight == 0 { LAST + chance } else { -(1.0 - chance).ln() / f64::from(weight) }
}

impl Draw {
    fn key(self) -> u64 {
        u64::from(self.chunk) << 32 | u64::from(self.at)
    }
}

impl Weighing<'_> {
    pub const NOBODY: Self = Weighing::Alike(0);

    fn total(self, count: usize) -> u64 {
        match self {
            Weighing::Alike(weight) => u64::from(weight) * count as u64,
            Weighing::Sums(sums) => sums.last().copied().unwrap_or(0).into(),
        }
    }

    /// Whose weight a point below the total falls in.
    fn find(self, point: u64) -> u32 {
        match self {
            Weighing::Alike(weight) => (point / u64::from(weight)) as u32,
            Weighing::Sums(sums) => sums.partition_point(|sum| u64::from(*sum) <= point) as u32,
        }
    }

    fn of(self, at: u32) -> u32 {
        match self {
            Weighing::Alike(weight) => weight.into(),
            Weighing::Sums(sums) => {
                let at = at as usize;
                sums[at] - at.checked_sub(1).map_or(0, |before| sums[before])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(counts: &[usize], wanted: usize, take: usize, random: &mut fastrand::Rng) -> Vec<Draw> {
        let mut choice = Choice::default();
        choice.clear();
        counts.iter().for_each(|count| choice.push(*count, Some(1)));
        choice.begin(wanted, |_| Weighing::Alike(1), random);
        std::iter::from_fn(|| choice.next(|_| Weighing::Alike(1), random)).take(take).collect()
    }

    /// By chunks of weights.
    fn weighted(chunks: &[&[u16]], wanted: usize, random: &mut fastrand::Rng) -> Vec<u16> {
        let sums: Vec<Vec<u32>> = chunks
            .iter()
            .map(|chunk| {
                let mut sum = 0;
                let add = |weight: &u16| {
                    sum += u32::from(*weight);
                    sum
                };
                chunk.iter().map(add).collect()
            })
            .collect();
        let mut choice = Choice::default();
        sums.iter().for_each(|sums| choice.push(sums.len(), None));
        let weighing = |chunk: u32| Weighing::Sums(&sums[chunk as usize]);
        choice.begin(wanted, weighing, random);
        let next = || choice.next(weighing, random);
        std::iter::from_fn(next).map(|draw| chunks[draw.chunk as usize][draw.at as usize]).collect()
    }

    #[test]
    fn every_weight_is_drawn_once_and_zeros_come_last() {
        let mut random = fastrand::Rng::with_seed(5);
        let many: Vec<u16> = (0..600).map(|at| [0, 1, 65_535][at % 3]).collect();
        let shapes: [&[&[u16]]; 5] =
            [&[&[1, 2]], &[&[0, 0, 5]], &[&[0], &[], &[7, 7, 65_535]], &[&[0, 0]], &[&many, &[1], &many]];
        for chunks in shapes {
            for wanted in [0, 1, 3, 5000] {
                let drawn = weighted(chunks, wanted, &mut random);
                let first_zero = drawn.iter().position(|weight| *weight == 0).unwrap_or(drawn.len());
                assert!(drawn[first_zero..].iter().all(|weight| *weight == 0), "{chunks:?}");
                let sorted = |mut weights: Vec<u16>| {
                    weights.sort_unstable();
                    weights
                };
                assert_eq!(sorted(drawn), sorted(chunks.concat()), "{chunks:?} {wanted}");
            }
        }
    }

    /// The first, and the second of those that are left, are drawn by weight; whether by lot or in order.
    #[test]
    fn draws_follow_weights() {
        let mut random = fastrand::Rng::with_seed(6);
        let chunks: &[&[u16]] = &[&[1, 2], &[4, 13]];
        for wanted in [2, 4] {
            let (mut first, mut second, rounds) = ([0u32; 14], 0u32, 40_000);
            for _ in 0..rounds {
                let drawn = weighted(chunks, wanted, &mut random);
                first[usize::from(drawn[0])] += 1;
                second += u32::from(drawn[..2] == [13, 4]);
            }
            for (weight, expected) in [(1, 0.05), (2, 0.1), (4, 0.2), (13, 0.65)] {
                let share = f64::from(first[weight]) / f64::from(rounds);
                assert!((share - expected).abs() < 0.01, "{weight}: {share} for {wanted}");
            }
            let share = f64::from(second) / f64::from(rounds);
            assert!((share - 0.65 * 4.0 / 7.0).abs() < 0.01, "{share}");
        }
    }

    #[test]
    fn every_candidate_is_drawn_once() {
        let mut random = fastrand::Rng::with_seed(3);
        for counts in [&[0][..], &[1], &[3], &[200, 56], &[200, 57], &[512, 0, 300], &[0, 0, 700, 1]] {
            for wanted in [0, 1, 3, 73, 5000] {
                let mut all = draws(counts, wanted, usize::MAX, &mut random);
                all.sort_by_key(|draw| (draw.chunk, draw.at));
                let expected: Vec<Draw> = (0..counts.len())
                    .flat_map(|chunk| {
                        (0..counts[chunk]).map(move |at| Draw { chunk: chunk as u32, at: at as u32 })
                    })
                    .collect();
                assert_eq!(all, expected, "{counts:?} {wanted}");
            }
        }
    }

    /// Over many draws every candidate comes about as often as every other.
    #[test]
    fn draws_are_fair() {
        let mut random = fastrand::Rng::with_seed(4);
        for counts in [&[5, 2][..], &[100, 300, 40]] {
            let total: usize = counts.iter().sum();
            let mut seen = vec![0u32; total];
            let rounds = 4_000 * total / 3;
            for _ in 0..rounds {
                for draw in draws(counts, 3, 3, &mut random) {
                    let before: usize = counts[..draw.chunk as usize].iter().sum();
                    seen[before + draw.at as usize] += 1;
                }
            }
            let expected = (rounds * 3 / total) as f64;
            let worst =
                seen.iter().map(|count| (f64::from(*count) / expected - 1.0).abs()).fold(0.0, f64::max);
            assert!(worst < 0.08, "{counts:?}: off by {worst}");
        }
    }
}
