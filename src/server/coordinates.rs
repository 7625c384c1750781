//! What nodes say of where they are, gathered for a while and proposed together: the latest word of each node is enough,
//! and nobody waits for it (`cluster.md` §8).

use std::{
    collections::BTreeMap,
    mem::take,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    catalog::{Catalog, Command, NodeCoordinate, Subscribe, Text, fold},
    raft::Raft,
};

/// Words not yet proposed. Beyond a bound new ones are dropped: their nodes will say it again.
#[derive(Default)]
pub struct CoordinateUpdates {
    /// By node, lower-cased, and segment.
    latest: Mutex<BTreeMap<(String, Text), NodeCoordinate>>,
    some: Notify,
}

const GATHERED_FOR: Duration = Duration::from_secs(5);
const BATCHES_MAX: usize = 5;
const BATCH: usize = 128;

impl CoordinateUpdates {
    pub fn put(&self, coordinate: NodeCoordinate) {
        let place = (fold(&coordinate.node).into_owned(), coordinate.segment.clone());
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.len() < BATCHES_MAX * BATCH || latest.contains_key(&place) {
            latest.insert(place, coordinate);
        }
        self.some.notify_one();
    }

    /// Proposes what has gathered, until `shutdown`. While nobody says anything, nothing happens.
    pub async fn run(&self, raft: &Raft, shutdown: CancellationToken) {
        while shutdown.run_until_cancelled(self.gathered()).await.is_some() {
            for batch in self.batches(&raft.catalog()) {
                // Whoever is not told of now is told of again soon.
                if let Err(error) = raft.propose(Command::Coordinates(batch)).await {
                    tracing::debug!(%error, "coordinates are not written");
                }
            }
        }
    }

    async fn gathered(&self) {
        self.some.notified().await;
        tokio::time::sleep(GATHERED_FOR).await;
    }

    /// What has gathered, without what changes nothing.
    fn batches(&self, catalog: &Catalog) -> Vec<Vec<NodeCoordinate>> {
        let gathered = take(&mut *self.latest.lock().unwrap_or_else(PoisonError::into_inner));
        let is_news = |((node, segment), told): &((String, Text), NodeCoordinate)| {
            let mut known = catalog.coordinates_of(node);
            let same = known.any(|one| one.segment == *segment && one.coordinate == told.coordinate);
            catalog.node(node).is_some() && !same
        };
        let news: Vec<NodeCoordinate> = gathered.into_iter().filter(is_news).map(|(_, told)| told).collect();
        news.chunks(BATCH).map(<[_]>::to_vec).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Coordinate, Node, Register};

    fn told(node: &str, height: f64) -> NodeCoordinate {
        let coordinate = Coordinate { vec: [0.0; 8].into(), height, ..Coordinate::default() };
        NodeCoordinate { node: node.into(), segment: "".into(), coordinate }
    }

    #[test]
    fn the_latest_word_of_known_nodes_is_proposed_once() {
        let mut catalog = Catalog::default();
        for name in 0..700 {
            let node = Node { name: format!("N{name}").into(), ..Node::default() };
            catalog.apply(Command::Register(Box::new(Register { node, ..Register::default() }))).0.unwrap();
        }
        let updates = CoordinateUpdates::default();
        updates.put(told("nobody", 1.0));
        updates.put(told("n1", 1.0));
        updates.put(told("N1", 2.0));
        assert_eq!(updates.batches(&catalog), [[told("N1", 2.0)]]);
        assert!(updates.batches(&catalog).is_empty());
        catalog.apply(Command::Coordinates(vec![told("N1", 2.0)])).0.unwrap();
        updates.put(told("n1", 2.0));
        assert!(updates.batches(&catalog).is_empty(), "what is known already is not proposed");

        (0..700).for_each(|name| updates.put(told(&format!("n{name}"), 3.0)));
        let batches = updates.batches(&catalog);
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [BATCH; BATCHES_MAX]);
    }
}
