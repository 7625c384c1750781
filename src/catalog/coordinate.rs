//! Network coordinates: where nodes say that they are, so that the round trip between two of them can be told without
//! measuring it (`cluster.md` §8). How a node comes to its coordinate is not known here.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Catalog, Key, Table, Topic, fold, fold_key, record::Text, write::Write};

/// A place in a space in which distances are round trips, in seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Coordinate {
    pub vec: Arc<[f64]>,
    /// How far off it may be, as a part of what is told; no unit.
    pub error: f64,
    /// What distances from here are off by on average, in seconds.
    pub adjustment: f64,
    /// From the node to the space: of its own link, in seconds.
    pub height: f64,
}

/// One of a node: it has one in each network segment that it is a member of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeCoordinate {
    /// The node's name.
    pub node: Text,
    /// Empty for the segment that everyone is in.
    pub segment: Text,
    pub coordinate: Coordinate,
}

/// By node, lower-cased, then segment.
pub(super) type Coordinates = imbl::OrdMap<(Key, Text), Arc<NodeCoordinate>>;

impl Coordinate {
    /// Of every coordinate there is.
    pub const DIMENSIONS: usize = 8;

    /// Where every node begins.
    pub fn origin() -> Coordinate {
        Coordinate { vec: [0.0; Self::DIMENSIONS].into(), error: 1.5, adjustment: 0.0, height: 1e-5 }
    }

    /// Whether distances to it can be told.
    pub fn is_valid(&self) -> bool {
        self.vec.len() == Self::DIMENSIONS
            && self
                .vec
                .iter()
                .chain([&self.error, &self.adjustment, &self.height])
                .all(|part| part.is_finite())
    }

    /// The round trip to another one, in seconds; infinite where they are not of one space.
    pub fn distance(&self, other: &Coordinate) -> f64 {
        if self.vec.len() != other.vec.len() {
            return f64::INFINITY;
        }
        let apart = self.vec.iter().zip(other.vec.iter()).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt();
        let raw = apart + self.height + other.height;
        let adjusted = raw + self.adjustment + other.adjustment;
        if adjusted > 0.0 { adjusted } else { raw }
    }
}

impl Catalog {
    /// By node, then segment.
    pub fn coordinates(&self) -> impl Iterator<Item = &Arc<NodeCoordinate>> {
        self.coordinates.values()
    }

    /// Those of a node, by segment; `node` is lower-cased (see [`fold`]).
    pub fn coordinates_of(&self, node: &str) -> impl Iterator<Item = &Arc<NodeCoordinate>> {
        let node = Key::from(node);
        let from = (node.clone(), Text::default());
        self.coordinates.range(from..).take_while(move |((of, _), _)| *of == node).map(|(_, one)| one)
    }

    /// Puts what is nearest to a node first, and what nobody knows the place of last. Among equals the order stays; so does
    /// all of it, where nobody knows the place of the node.
    pub fn sort_by_distance<T>(&self, from: &str, items: &mut Vec<T>, node_of: impl Fn(&T) -> &str) {
        let from: Vec<&Arc<NodeCoordinate>> = self.coordinates_of(&fold(from)).collect();
        if from.is_empty() {
            return;
        }
        let mut far: Vec<(f64, T)> = Vec::with_capacity(items.len());
        for item in items.drain(..) {
            far.push((self.distance(&from, node_of(&item)), item));
        }
        far.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        items.extend(far.into_iter().map(|(_, item)| item));
    }

    /// By the first segment that both are in.
    fn distance(&self, from: &[&Arc<NodeCoordinate>], to: &str) -> f64 {
        let between = |to: &Arc<NodeCoordinate>| {
            let own = from.iter().find(|own| own.segment == to.segment)?;
            Some(own.coordinate.distance(&to.coordinate))
        };
        self.coordinates_of(&fold(to)).find_map(between).unwrap_or(f64::INFINITY)
    }
}

impl Write<'_> {
    pub fn put_coordinate(&mut self, mut coordinate: NodeCoordinate) {
        let node = fold_key(&coordinate.node);
        let Some(home) = self.catalog.node(&node) else { return };
        coordinate.node = home.node().name.clone();
        let place = (node.clone(), coordinate.segment.clone());
        if self.catalog.coordinates.get(&place).is_some_and(|former| **former == coordinate) {
            return;
        }
        self.catalog.coordinates.insert(place, Arc::new(coordinate));
        self.touch(Table::Coordinates, [Topic::Coordinates, Topic::Coordinate(node)]);
    }

    pub fn forget_coordinates(&mut self, node: &Key) {
        let segments: Vec<Text> =
            self.catalog.coordinates_of(node).map(|coordinate| coordinate.segment.clone()).collect();
        for segment in segments {
            self.catalog.coordinates.remove(&(node.clone(), segment));
            self.touch(Table::Coordinates, [Topic::Coordinates, Topic::Coordinate(node.clone())]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Command, Node, Register, Target};

    fn at(x: f64) -> Coordinate {
        Coordinate { vec: Arc::new([x, 0., 0., 0., 0., 0., 0., 0.]), ..Coordinate::default() }
    }

    fn with_nodes(names: &[&str]) -> Catalog {
        let mut catalog = Catalog::default();
        for name in names {
            let node = Node { name: (*name).into(), ..Node::default() };
            let (reply, _) =
                catalog.apply(Command::Register(Box::new(Register { node, ..Register::default() })));
            reply.unwrap();
        }
        catalog
    }

    fn told(node: &str, segment: &str, x: f64) -> NodeCoordinate {
        NodeCoordinate { node: node.into(), segment: segment.into(), coordinate: at(x) }
    }

    fn nearest(catalog: &Catalog, from: &str) -> String {
        let mut names: Vec<&str> = catalog.nodes().map(|home| &*home.node().name).collect();
        catalog.sort_by_distance(from, &mut names, |name| name);
        names.join(" ")
    }

    /// The formula of `cluster.md` §8.
    #[test]
    fn distance_has_heights_and_adjustments_in_it() {
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(near(at(1.).distance(&at(4.)), 3.));
        let high = Coordinate { height: 0.5, adjustment: -0.25, ..at(1.) };
        assert!(near(high.distance(&at(4.)), 3.25));
        let low = Coordinate { adjustment: -100., ..high };
        assert!(near(low.distance(&at(4.)), 3.5), "an adjustment below nothing is left out");
        assert_eq!(Coordinate::default().distance(&at(1.)), f64::INFINITY);
        assert!(at(1.).is_valid() && !Coordinate::default().is_valid() && !at(f64::NAN).is_valid());
    }

    #[test]
    fn the_nearest_come_first_and_the_unknown_last() {
        let mut catalog = with_nodes(&["a", "b", "C", "d", "e"]);
        let batch = vec![told("a", "", 9.), told("b", "", 1.), told("c", "", 2.), told("e", "x", 2.)];
        catalog.apply(Command::Coordinates(batch)).0.unwrap();
        catalog.assert_consistent();
        assert_eq!(nearest(&catalog, "c"), "C b a d e");
        assert_eq!(nearest(&catalog, "A"), "a C b d e");
        assert_eq!(nearest(&catalog, "d"), "a b C d e", "nobody knows where it is");
        assert_eq!(nearest(&catalog, "nobody"), "a b C d e");
    }

    /// As only an archive of another's making has it.
    #[test]
    fn what_is_no_place_is_nowhere() {
        let mut catalog = with_nodes(&["a", "b", "c", "d"]);
        let batch = vec![told("a", "", 1.), told("b", "", f64::NAN), told("c", "", 3.), told("d", "", 2.)];
        catalog.apply(Command::Coordinates(batch)).0.unwrap();
        assert_eq!(nearest(&catalog, "a"), "a d c b");
    }

    #[test]
    fn coordinates_are_kept_of_nodes_that_are_there() {
        let mut catalog = with_nodes(&["oak"]);
        let index = catalog.index();
        let (reply, changes) = catalog.apply(Command::Coordinates(vec![told("nobody", "", 1.)]));
        assert!(!reply.unwrap().changed && changes.topics.is_empty());
        let (_, changes) =
            catalog.apply(Command::Coordinates(vec![told("OAK", "", 1.), told("oak", "x", 2.)]));
        assert!(changes.topics.contains(&Topic::Coordinate("oak".into())));
        assert_eq!((catalog.table_index(Table::Coordinates), catalog.index()), (index + 1, index + 1));
        assert!(catalog.coordinates().all(|one| &*one.node == "oak"));
        let (reply, _) = catalog.apply(Command::Coordinates(vec![told("oak", "", 1.)]));
        assert!(!reply.unwrap().changed, "the same again is no change");
        catalog.apply(Command::Deregister { node: "Oak".into(), target: Target::Node }).0.unwrap();
        assert_eq!((catalog.coordinates().count(), catalog.table_index(Table::Coordinates)), (0, index + 2));
        catalog.assert_consistent();
    }
}
