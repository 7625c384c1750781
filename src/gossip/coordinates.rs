//! Where this member is, learnt from how long probes take (Vivaldi, as `cluster.md` §8 has it): each round trip pulls it
//! nearer to the peer that answered, or pushes it away. Pure: times are measured elsewhere, chance is a seed.

use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::catalog::Coordinate;

/// Of one pool.
pub struct Coordinates {
    own: Coordinate,
    /// How far off the last distances were, and the place of the next one.
    off: [f64; WINDOW],
    next: usize,
    /// The last round trips to each peer: one that is slow for once moves nobody.
    last: HashMap<u64, Trips>,
    rng: fastrand::Rng,
    resets: u64,
}

/// Why a round trip teaches nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the peer's coordinate is none: its numbers are not finite, or not as many as ours")]
    Peer,
    #[error("the round trip is longer than {} s", TRIP_MAX.as_secs())]
    Trip,
}

/// A peer's last round trips, in seconds.
#[derive(Clone, Copy, Default)]
struct Trips {
    last: [f64; FILTER],
    count: usize,
}

const ERROR_MAX: f64 = 1.5;
/// How far an error, and a place, follow one round trip.
const ERROR_PART: f64 = 0.25;
const FORCE_PART: f64 = 0.25;
const HEIGHT_MIN: f64 = 10e-6;
const WINDOW: usize = 20;
const FILTER: usize = 3;
/// Who all drift away together are pulled back, the more the farther they are.
const GRAVITY: f64 = 150.0;
const TRIP_MAX: Duration = Duration::from_secs(10);
/// Nearer than this, two are at one place.
const NEAR: f64 = 1e-6;
/// More peers are not remembered: beyond that all are learnt anew, three round trips each.
const PEERS_MAX: usize = 1 << 14;

impl Coordinates {
    pub fn new(seed: u64) -> Coordinates {
        Coordinates {
            own: Coordinate::origin(),
            off: [0.0; WINDOW],
            next: 0,
            last: HashMap::new(),
            rng: fastrand::Rng::with_seed(seed),
            resets: 0,
        }
    }

    pub fn coordinate(&self) -> &Coordinate {
        &self.own
    }

    /// How often it began anew, since what it came to was no place.
    pub fn resets(&self) -> u64 {
        self.resets
    }

    /// A probe of `peer`, which says that it is there, took so long.
    ///
    /// # Errors
    /// Where nothing can be learnt of that; nothing changes then.
    pub fn heard(&mut self, peer: u64, place: &Coordinate, trip: Duration) -> Result<(), Refused> {
        if !place.is_valid() {
            return Err(Refused::Peer);
        }
        if trip > TRIP_MAX {
            return Err(Refused::Trip);
        }
        if self.last.len() >= PEERS_MAX && !self.last.contains_key(&peer) {
            self.last.clear();
        }
        // No two are at once at one place: a division by nothing would follow.
        let trip = self.last.entry(peer).or_default().add(trip.as_secs_f64()).max(NEAR);
        self.follow(place, trip);
        self.adjust(place, trip);
        self.fall();
        if !self.own.is_valid() {
            (self.own, self.off, self.resets) = (Coordinate::origin(), [0.0; WINDOW], self.resets + 1);
        }
        Ok(())
    }

    /// Whoever is gone need not be remembered.
    pub fn forget(&mut self, peer: u64) {
        self.last.remove(&peer);
    }

    /// The one that knows its place less well moves more.
    fn follow(&mut self, place: &Coordinate, trip: f64) {
        let told = self.own.distance(place);
        let errors = (self.own.error + place.error).max(NEAR);
        let weight = self.own.error / errors;
        let wrong = (told - trip).abs() / trip;
        let part = ERROR_PART * weight;
        self.own.error = (part * wrong + self.own.error * (1.0 - part)).min(ERROR_MAX);
        let force = FORCE_PART * weight * (trip - told);
        let (direction, apart) = self.away_from(&place.vec);
        self.push(&direction, force);
        if apart > NEAR {
            let height = (self.own.height + place.height) * force / apart + self.own.height;
            self.own.height = height.max(HEIGHT_MIN);
        }
    }

    /// What no place in the space explains is told beside it.
    fn adjust(&mut self, place: &Coordinate, trip: f64) {
        let bare = Coordinate { adjustment: 0.0, ..self.own.clone() };
        self.off[self.next] = trip - bare.distance(&Coordinate { adjustment: 0.0, ..place.clone() });
        self.next = (self.next + 1) % WINDOW;
        self.own.adjustment = self.off.iter().sum::<f64>() / (2.0 * WINDOW as f64);
    }

    fn fall(&mut self) {
        let (direction, apart) = self.away_from(&[0.0; Coordinate::DIMENSIONS]);
        if apart > NEAR {
            self.push(&direction, -(apart / GRAVITY).powi(2));
        }
    }

    fn push(&mut self, direction: &[f64; Coordinate::DIMENSIONS], force: f64) {
        let moved: Vec<f64> =
            self.own.vec.iter().zip(direction).map(|(at, part)| at + part * force).collect();
        self.own.vec = Arc::from(moved);
    }

    /// The direction from there to here, of length 1, and how far it is. Where both are at one place: any direction.
    fn away_from(&mut self, place: &[f64]) -> ([f64; Coordinate::DIMENSIONS], f64) {
        let length = |vec: &[f64]| vec.iter().map(|part| part * part).sum::<f64>().sqrt();
        let mut away: [f64; Coordinate::DIMENSIONS] = std::array::from_fn(|at| self.own.vec[at] - place[at]);
        let apart = length(&away);
        if apart > NEAR {
            return (away.map(|part| part / apart), apart);
        }
        loop {
            away = std::array::from_fn(|_| self.rng.f64() - 0.5);
            let chance = length(&away);
            if chance > NEAR {
                return (away.map(|part| part / chance), 0.0);
            }
        }
    }
}

impl Trips {
    /// Adds one; the middle one of the last.
    fn add(&mut self, trip: f64) -> f64 {
        self.last[self.count % FILTER] = trip;
        self.count += 1;
        let mut sorted = self.last;
        let sorted = &mut sorted[..self.count.min(FILTER)];
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: f64 = 1e-3;

    /// Members in a plane, each with a link of its own length, probe each other at random. What their coordinates tell of
    /// a round trip comes to what it is.
    fn converges(seed: u64, members: usize, rounds: usize, jitter: f64) -> f64 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let places: Vec<(f64, f64, f64)> =
            (0..members).map(|_| (rng.f64() * 50.0, rng.f64() * 50.0, rng.f64() * 5.0 + 0.1)).collect();
        let trip = |a: usize, b: usize| {
            let (one, other) = (places[a], places[b]);
            ((one.0 - other.0).hypot(one.1 - other.1) + one.2 + other.2) * MS
        };
        let mut all: Vec<Coordinates> = (0..members as u64).map(|at| Coordinates::new(seed + at)).collect();
        for _ in 0..rounds {
            for at in 0..members {
                let peer = (at + rng.usize(1..members)) % members;
                let place = all[peer].coordinate().clone();
                let took = trip(at, peer) * (1.0 + jitter * rng.f64());
                all[at].heard(peer as u64, &place, Duration::from_secs_f64(took)).unwrap();
            }
        }
        let mut off = Vec::new();
        for a in 0..members {
            for b in 0..a {
                let told = all[a].coordinate().distance(all[b].coordinate());
                off.push((told - trip(a, b)).abs() / trip(a, b));
            }
        }
        off.sort_by(f64::total_cmp);
        off[off.len() / 2]
    }

    #[test]
    fn members_come_to_know_how_far_they_are() {
        for seed in 0..3 {
            let exact = converges(seed, 30, 600, 0.0);
            assert!(exact < 0.05, "seed {seed}: off by {exact}");
            let noisy = converges(seed, 30, 600, 0.3);
            assert!(noisy < 0.25, "seed {seed}: off by {noisy} with jitter");
            let early = converges(seed, 30, 5, 0.0);
            assert!(early > exact, "seed {seed}: {early} before, {exact} after");
        }
    }

    #[test]
    fn one_slow_answer_moves_nobody() {
        let mut own = Coordinates::new(1);
        let peer = Coordinate::origin();
        for _ in 0..100 {
            own.heard(1, &peer, Duration::from_millis(10)).unwrap();
        }
        let before = own.coordinate().distance(&peer);
        own.heard(1, &peer, Duration::from_secs(5)).unwrap();
        let after = own.coordinate().distance(&peer);
        assert!((before - after).abs() < MS && (before - 10.0 * MS).abs() < MS, "{before} {after}");
    }

    #[test]
    fn what_is_no_place_teaches_nothing() {
        let mut own = Coordinates::new(1);
        let before = own.coordinate().clone();
        let nan = Coordinate { height: f64::NAN, ..Coordinate::origin() };
        let short = Coordinate { vec: Arc::new([0.0; 3]), ..Coordinate::origin() };
        assert_eq!(own.heard(1, &nan, Duration::from_millis(1)), Err(Refused::Peer));
        assert_eq!(own.heard(1, &short, Duration::from_millis(1)), Err(Refused::Peer));
        assert_eq!(own.heard(1, &before, Duration::from_secs(11)), Err(Refused::Trip));
        assert_eq!(*own.coordinate(), before);
        own.heard(1, &before, Duration::ZERO).unwrap();
        assert!(own.coordinate().is_valid());
    }

    /// Numbers that overflow do not stay, nor does anybody who says them.
    #[test]
    fn whoever_is_pushed_out_of_the_space_begins_anew() {
        let mut own = Coordinates::new(1);
        let far = Coordinate { vec: Arc::new([f64::MAX; 8]), height: f64::MAX, ..Coordinate::origin() };
        own.heard(1, &far, Duration::from_millis(1)).unwrap();
        assert!(own.coordinate().is_valid());
        assert_eq!((own.resets(), own.coordinate()), (1, &Coordinate::origin()));
        own.heard(2, &Coordinate::origin(), Duration::from_millis(1)).unwrap();
        assert_ne!(own.coordinate(), &Coordinate::origin());
    }

    #[test]
    fn peers_are_remembered_to_a_bound() {
        let mut own = Coordinates::new(1);
        let place = Coordinate::origin();
        for peer in 0..PEERS_MAX as u64 + 10 {
            own.heard(peer, &place, Duration::from_millis(1)).unwrap();
        }
        assert!(own.last.len() <= PEERS_MAX);
        own.forget(PEERS_MAX as u64);
        assert_eq!(own.last.len(), 9);
    }
}
