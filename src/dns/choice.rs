//! Which of a service's instances an answer takes: a fair draw whose price does not grow with their number. Knows
//! places in chunks; not what stands there.

/// One candidate: which chunk, and which of its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    pub chunk: u32,
    pub at: u32,
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
}

#[derive(Clone, Copy, Default)]
enum Cursor {
    /// The next of the hat.
    #[default]
    Hat,
    HatAt(usize),
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
    }

    /// The next chunk has so many candidates.
    pub fn push(&mut self, count: usize) {
        self.counts.push(count as u32);
        self.total += count;
    }

    pub fn total(&self) -> usize {
        self.total
    }

    /// Begins a draw of which about `wanted` will be taken.
    pub fn begin(&mut self, wanted: usize, random: &mut fastrand::Rng) {
        if self.total <= HAT_MAX {
            self.fill_hat();
            self.cursor = Cursor::HatAt(0);
        } else {
            self.deal(wanted, random);
            self.cursor = Cursor::Run { turn: 0, step: 0 };
        }
    }

    pub fn next(&mut self, random: &mut fastrand::Rng) -> Option<Draw> {
        match self.cursor {
            Cursor::Hat => None,
            Cursor::HatAt(at) => {
                let left = self.hat.len().checked_sub(at).filter(|left| *left > 0)?;
                self.hat.swap(at, at + random.usize(..left));
                self.cursor = Cursor::HatAt(at + 1);
                Some(self.hat[at])
            }
            Cursor::Run { .. } | Cursor::Rest { .. } => self.next_dealt(),
        }
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
                Cursor::Hat | Cursor::HatAt(_) => return None,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(counts: &[usize], wanted: usize, take: usize, random: &mut fastrand::Rng) -> Vec<Draw> {
        let mut choice = Choice::default();
        choice.clear();
        counts.iter().for_each(|count| choice.push(*count));
        choice.begin(wanted, random);
        std::iter::from_fn(|| choice.next(random)).take(take).collect()
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
