//! The news that waits to be sent on: each item so many times, the freshest first. A newer item about the same thing takes an older
//! one's place. Knows nothing of who it is sent to.

use std::collections::BTreeMap;

/// What an item is about; one item a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Topic {
    Leave(u64),
    Force(u64),
    Vote { target: u64, from: u64 },
    Record(u64),
    Event { time: u64, hash: u64 },
    Query(u64),
}

/// In this order they are sent: what is urgent, what was sent least often, what is oldest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    later: bool,
    sent: u8,
    number: u64,
}

#[derive(Debug, Default)]
pub(crate) struct News {
    queue: BTreeMap<Rank, (Topic, Vec<u8>)>,
    ranks: BTreeMap<Topic, Rank>,
    number: u64,
}

/// Beyond these the item sent most often gives way: anti-entropy brings what a queue let go.
const ITEMS_MAX: usize = 4096;

impl News {
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn push(&mut self, topic: Topic, bytes: Vec<u8>) {
        self.number += 1;
        let later = !matches!(topic, Topic::Vote { .. } | Topic::Leave(_) | Topic::Force(_));
        let rank = Rank { later, sent: 0, number: self.number };
        if let Some(old) = self.ranks.insert(topic, rank) {
            self.queue.remove(&old);
        }
        self.queue.insert(rank, (topic, bytes));
        if self.queue.len() > ITEMS_MAX
            && let Some((_, (topic, _))) = self.queue.pop_last()
        {
            self.ranks.remove(&topic);
        }
    }

    /// Items for one packet that has this room, two bytes of it for each item's length; each goes `transmissions` times.
    /// Whether one more was there and found no room.
    pub fn take(&mut self, mut room: usize, transmissions: u8) -> (Vec<Vec<u8>>, bool) {
        let mut taken = Vec::new();
        let mut short = false;
        for (rank, (_, bytes)) in &self.queue {
            if bytes.len() + 2 <= room {
                room -= bytes.len() + 2;
                taken.push(*rank);
            } else {
                short = true;
                // What is left is too small for most.
                if room < 64 {
                    break;
                }
            }
        }
        let items = taken.into_iter().filter_map(|rank| self.sent(rank, transmissions)).collect();
        (items, short)
    }

    fn sent(&mut self, rank: Rank, transmissions: u8) -> Option<Vec<u8>> {
        let (topic, bytes) = self.queue.remove(&rank)?;
        let sent = rank.sent + 1;
        if sent >= transmissions {
            self.ranks.remove(&topic);
            return Some(bytes);
        }
        let next = Rank { sent, ..rank };
        self.ranks.insert(topic, next);
        self.queue.insert(next, (topic, bytes.clone()));
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_item_goes_so_many_times_and_the_freshest_first() {
        let mut news = News::default();
        news.push(Topic::Record(1), vec![1; 10]);
        assert_eq!(news.take(100, 3).0, [vec![1; 10]]);
        news.push(Topic::Record(2), vec![2; 10]);
        assert_eq!(news.take(12, 3), (vec![vec![2; 10]], true), "the one not sent yet");
        news.push(Topic::Vote { target: 1, from: 2 }, vec![3; 10]);
        assert_eq!(news.take(12, 3).0, [vec![3; 10]], "what is urgent");
        let times = std::iter::from_fn(|| Some(news.take(100, 3).0.len()).filter(|n| *n > 0));
        assert_eq!(times.sum::<usize>(), 2 + 2 + 2);
        assert!(news.is_empty() && news.ranks.is_empty());
    }

    #[test]
    fn newer_news_takes_the_place_of_older() {
        let mut news = News::default();
        news.push(Topic::Record(1), vec![1]);
        news.push(Topic::Record(1), vec![2]);
        assert_eq!((news.queue.len(), news.take(100, 1).0), (1, vec![vec![2]]));
    }

    /// What does not fit beside others is not stuck for good, and stops nothing else.
    #[test]
    fn an_item_that_is_too_large_for_the_room_waits_for_more() {
        let mut news = News::default();
        news.push(Topic::Record(1), vec![1; 500]);
        news.push(Topic::Record(2), vec![2; 10]);
        assert_eq!(news.take(100, 1), (vec![vec![2; 10]], true));
        assert_eq!(news.take(600, 1), (vec![vec![1; 500]], false));
    }

    #[test]
    fn the_queue_has_an_end() {
        let mut news = News::default();
        (0..ITEMS_MAX as u64 + 10).for_each(|n| news.push(Topic::Record(n), vec![0]));
        assert_eq!((news.queue.len(), news.ranks.len()), (ITEMS_MAX, ITEMS_MAX));
    }
}
