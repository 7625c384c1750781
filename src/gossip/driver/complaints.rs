//! What came and was not taken, told in the log once a minute at most: whoever sends rubbish must not fill it. Pure.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::gossip::seal::Refused;

/// What was in envelopes that opened, and was not taken all the same; counted since the start.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Inside {
    pub malformed: u64,
    pub future: u64,
    pub strangers: u64,
    pub refused: u64,
}

#[derive(Default)]
pub struct Complaints {
    counts: [u64; Refused::ALL.len()],
    foreign: u64,
    inside: Inside,
    inside_said: Inside,
    /// The last one's sender, as far as an address says it.
    from: Option<SocketAddr>,
    /// No sooner than this is anything said again.
    quiet_until: Option<Instant>,
}

const EVERY: Duration = Duration::from_secs(60);

impl Complaints {
    pub fn note(&mut self, refused: Refused, from: SocketAddr, now: Instant) {
        self.counts[refused.place()] += 1;
        self.noted(from, now);
    }

    /// How much there is by now; `from` sent the last of it.
    pub fn note_inside(&mut self, inside: Inside, from: SocketAddr, now: Instant) {
        if inside != self.inside {
            self.inside = inside;
            self.noted(from, now);
        }
    }

    /// From an address that may not speak with us.
    pub fn note_foreign(&mut self, from: SocketAddr, now: Instant) {
        self.foreign += 1;
        self.noted(from, now);
    }

    fn noted(&mut self, from: SocketAddr, now: Instant) {
        self.from = Some(from);
        self.quiet_until.get_or_insert(now);
    }

    /// When there is something to say, and it may be said.
    pub fn due(&self) -> Option<Instant> {
        self.from.and(self.quiet_until)
    }

    /// Says what there is to say, if it may.
    pub fn say(&mut self, now: Instant) {
        if let Some((counts, from)) = self.take(now) {
            tracing::warn!(%from, counts, "gossip that is not taken");
        }
    }

    fn take(&mut self, now: Instant) -> Option<(String, SocketAddr)> {
        if self.quiet_until.is_none_or(|until| until > now) {
            return None;
        }
        let Some(from) = self.from.take() else {
            // A quiet minute: what comes next is said at once.
            self.quiet_until = None;
            return None;
        };
        let kinds =
            Refused::ALL.into_iter().map(|refused| (self.counts[refused.place()], refused.to_string()));
        let (inside, before) = (self.inside, self.inside_said);
        let others = [
            (self.foreign, "from an address that is not allowed"),
            (inside.malformed - before.malformed, "of no known form"),
            (inside.future - before.future, "of a later version"),
            (inside.strangers - before.strangers, "of members that may not be here"),
            (inside.refused - before.refused, "beyond what is kept"),
        ];
        let others = others.map(|(count, what)| (count, what.to_string()));
        let said = kinds.chain(others).filter(|(count, _)| *count > 0);
        let said: Vec<String> = said.map(|(count, what)| format!("{count} {what}")).collect();
        let quiet_until = Some(now + EVERY);
        *self = Complaints { quiet_until, inside, inside_said: inside, ..Complaints::default() };
        Some((said.join("; "), from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any time is as good as another to begin with")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_flood_is_two_lines_in_two_minutes() {
        let (mut complaints, start) = (Complaints::default(), start());
        let from = SocketAddr::from(([10, 0, 0, 1], 8301));
        assert_eq!((complaints.due(), complaints.take(start)), (None, None));
        let mut said = Vec::new();
        for second in 0..100 {
            let now = start + Duration::from_secs(second);
            for _ in 0..1_000 {
                complaints.note(Refused::Key, from, now);
            }
            complaints.note_foreign(from, now);
            assert!(complaints.due().is_some());
            said.extend(complaints.take(now).map(|(counts, _)| (second, counts)));
        }
        let [first, second] = &said[..] else { panic!("{said:?}") };
        let counted = |count: u64, foreign: u64| {
            format!("{count} {}; {foreign} from an address that is not allowed", Refused::Key)
        };
        assert_eq!(first, &(0, counted(1_000, 1)));
        assert_eq!(second, &(60, counted(60_000, 60)));
        let inside = Inside { malformed: 7, strangers: 2, ..Inside::default() };
        for second in 100..119 {
            complaints.note_inside(inside, from, start + Duration::from_secs(second));
        }
        let (counts, _) = complaints.take(start + Duration::from_secs(120)).unwrap();
        assert!(counts.ends_with("7 of no known form; 2 of members that may not be here"), "{counts}");
        complaints.note_inside(inside, from, start + Duration::from_secs(181));
        assert_eq!(
            complaints.take(start + Duration::from_secs(181)),
            None,
            "what was said is not said again"
        );
        complaints.note(Refused::Key, from, start + Duration::from_secs(181));
        let later = start + Duration::from_secs(182);
        assert!(complaints.take(later).is_some(), "and after a quiet minute at once");
        assert_eq!(complaints.due(), None);
    }
}
