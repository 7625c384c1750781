//! Aliases: a check that says what others say. Pure: catalog in, verdict out.
//!
//! An alias looks through the aliases of this agent at the checks behind them. So aliases that follow each other have
//! nothing to follow, instead of holding each other critical, or turning with each other for ever.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::{Alias, probe::Seen};
use crate::catalog::{Catalog, Check, Key, SERF_HEALTH, Status, Text, Topic, fold};

/// The aliases that this agent runs, by id, lower-cased.
pub type Aliases = HashMap<Key, Alias>;

/// What an alias says now, and what may change that.
#[derive(Debug, PartialEq, Eq)]
pub struct Followed {
    pub seen: Seen,
    /// Whether that is for want of a target.
    pub is_missing: bool,
    /// In order.
    pub topics: Vec<Topic>,
}

/// `own` is this agent's node, `id` the alias' own id, lower-cased.
pub fn follow(catalog: &Catalog, own: &Text, aliases: &Aliases, id: &Key, alias: &Alias) -> Followed {
    let mut walk = Walk::default();
    walk.met.insert(id.clone());
    walk.ahead.push_back((None, alias.clone()));
    while let Some((name, alias)) = walk.ahead.pop_front() {
        walk.visit(catalog, own, aliases, name, &alias);
    }
    walk.finish()
}

#[derive(Default)]
struct Walk {
    /// Aliases that were met already.
    met: BTreeSet<Key>,
    /// Aliases yet to look through, with the name of each but the first.
    ahead: VecDeque<(Option<Text>, Alias)>,
    topics: BTreeSet<(Key, bool)>,
    any: bool,
    missing: Option<String>,
    critical: Option<String>,
    warning: Option<String>,
}

impl Walk {
    fn visit(&mut self, catalog: &Catalog, own: &Text, aliases: &Aliases, name: Option<Text>, alias: &Alias) {
        let is_own = alias.node.is_empty() || alias.node.eq_ignore_ascii_case(own);
        let node: Key = fold(if alias.node.is_empty() { own } else { &alias.node }).into();
        self.topics.extend([(node.clone(), false), (node.clone(), true)]);
        let home = catalog.node(&node);
        let instance = home.and_then(|home| home.instance(&fold(&alias.service)));
        let missing = match (home, instance) {
            (_, None) if !alias.service.is_empty() => {
                Some(format!("Service {} could not be found on node {}", alias.service, alias.node))
            }
            (None, _) => Some(format!("Node {} could not be found", alias.node)),
            _ => None,
        };
        if let Some(missing) = missing {
            match name {
                None => self.missing = Some(missing),
                Some(name) => {
                    self.critical.get_or_insert(failing(&name, &missing));
                }
            }
            return;
        }
        let of_node = home.into_iter().filter(|_| alias.with_node).flat_map(|home| home.checks().iter());
        // What gossip says of this very node is left out, unless the node is named: Consul's agent knows no such check.
        let of_node = of_node.filter(|check| !(alias.node.is_empty() && &*check.id == SERF_HEALTH));
        for check in of_node.chain(instance.into_iter().flat_map(|instance| instance.checks.iter())) {
            let id = fold(&check.id);
            match aliases.get(&*id).filter(|_| is_own) {
                Some(other) if self.met.insert(id.into()) => {
                    self.ahead.push_back((Some(check.name.clone()), other.clone()));
                }
                Some(_) => {}
                None => self.count(check),
            }
        }
    }

    fn count(&mut self, check: &Check) {
        self.any = true;
        let worse = match check.status {
            Status::Critical => &mut self.critical,
            Status::Warning => &mut self.warning,
            Status::Passing | Status::Other(_) => return,
        };
        worse.get_or_insert_with(|| failing(&check.name, &check.output));
    }

    fn finish(self) -> Followed {
        let is_missing = self.missing.is_some();
        let (status, output) = match (self.missing.or(self.critical), self.warning) {
            (Some(critical), _) => (Status::Critical, critical),
            (None, Some(warning)) => (Status::Warning, warning),
            (None, None) if self.any => (Status::Passing, "All checks passing.".into()),
            (None, None) => (Status::Passing, "No checks found.".into()),
        };
        let topic = |(node, of_checks)| if of_checks { Topic::NodeChecks(node) } else { Topic::Node(node) };
        let topics = self.topics.into_iter().map(topic).collect();
        Followed { seen: Seen { status, output }, is_missing, topics }
    }
}

fn failing(name: &str, output: &str) -> String {
    format!("Aliased check {name:?} failing: {output}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Command, Node, Register, Service};

    /// Each check: node, id, its service or none, status, output.
    fn catalog(checks: &[(&str, &str, &str, &str, &str)]) -> Catalog {
        let mut catalog = Catalog::default();
        for (node, service) in [("own", "web"), ("own", "db"), ("own", "bare"), ("far", "web")] {
            let node = Node { name: node.into(), address: "10.0.0.1".into(), ..Node::default() };
            let service = Service { id: service.into(), name: service.into(), ..Service::default() };
            register(&mut catalog, Register { node, service: Some(service), ..Register::default() });
        }
        for (node, id, service_id, status, output) in checks {
            let node = Node { name: (*node).into(), address: "10.0.0.1".into(), ..Node::default() };
            let check = Check {
                node: node.name.clone(),
                id: (*id).into(),
                name: format!("n-{id}").into(),
                status: Status::from(*status),
                service_id: (*service_id).into(),
                output: (*output).into(),
                ..Check::default()
            };
            register(&mut catalog, Register { node, checks: vec![check], ..Register::default() });
        }
        catalog
    }

    fn register(catalog: &mut Catalog, register: Register) {
        catalog.apply(Command::Register(Box::new(register))).0.expect("a plain registration");
    }

    fn alias(node: &str, service: &str, with_node: bool) -> Alias {
        Alias { node: node.into(), service: service.into(), with_node }
    }

    fn said(catalog: &Catalog, aliases: &Aliases, id: &str, alias: &Alias) -> (char, String) {
        let Followed { seen, .. } = follow(catalog, &"Own".into(), aliases, &id.into(), alias);
        (seen.status.as_str().chars().next().unwrap(), seen.output)
    }

    /// `config-cli.md` §4.3, "Alias".
    #[test]
    fn an_alias_says_the_worst_of_what_it_follows() {
        let catalog = catalog(&[
            ("own", SERF_HEALTH, "", "passing", ""),
            ("own", "disk", "", "warning", "full"),
            ("own", "web-1", "web", "passing", ""),
            ("own", "db-1", "db", "warning", "slow"),
            ("own", "db-2", "db", "critical", "gone"),
            ("far", SERF_HEALTH, "", "critical", "Agent not live or unreachable"),
            ("far", "web-1", "web", "odd", ""),
        ]);
        let far = "Aliased check \"n-serfHealth\" failing: Agent not live or unreachable";
        let table = [
            (alias("", "web", false), 'p', "All checks passing."),
            (alias("", "WEB", true), 'w', "Aliased check \"n-disk\" failing: full"),
            (alias("", "db", false), 'c', "Aliased check \"n-db-2\" failing: gone"),
            (alias("", "bare", false), 'p', "No checks found."),
            (alias("", "x", false), 'c', "Service x could not be found on node "),
            (alias("OWN", "", true), 'w', "Aliased check \"n-disk\" failing: full"),
            (alias("far", "web", true), 'c', far),
            (alias("far", "web", false), 'p', "All checks passing."),
            (alias("far", "x", true), 'c', "Service x could not be found on node far"),
            (alias("nowhere", "x", true), 'c', "Service x could not be found on node nowhere"),
            (alias("nowhere", "", true), 'c', "Node nowhere could not be found"),
        ];
        for (alias, status, output) in table {
            assert_eq!(said(&catalog, &Aliases::new(), "a", &alias), (status, output.into()), "{alias:?}");
        }
        let passing = self::catalog(&[("own", SERF_HEALTH, "", "critical", "")]);
        let own = alias("", "bare", true);
        assert_eq!(said(&passing, &Aliases::new(), "a", &own), ('p', "No checks found.".into()));
    }

    /// Each is stored critical, and that alone keeps none of them critical.
    #[test]
    fn aliases_of_aliases_see_what_lies_behind() {
        let catalog = catalog(&[
            ("own", "self", "", "critical", "stale"),
            ("own", "to-db", "web", "critical", "stale"),
            ("own", "to-web", "db", "critical", "stale"),
            ("own", "db-1", "db", "warning", "slow"),
            ("own", "to-x", "bare", "passing", "stale"),
        ]);
        let aliases: Aliases = [
            ("self", alias("", "web", true)),
            ("to-db", alias("", "db", false)),
            ("to-web", alias("", "web", false)),
            ("to-x", alias("", "x", false)),
        ]
        .into_iter()
        .map(|(id, alias)| (id.into(), alias))
        .collect();
        let table = [
            ("self", 'w', "Aliased check \"n-db-1\" failing: slow"),
            ("to-db", 'w', "Aliased check \"n-db-1\" failing: slow"),
            ("to-web", 'w', "Aliased check \"n-db-1\" failing: slow"),
        ];
        for (id, status, output) in table {
            assert_eq!(said(&catalog, &aliases, id, &aliases[id]), (status, output.into()), "{id}");
        }
        let bare = alias("", "bare", false);
        let lost = "Aliased check \"n-to-x\" failing: Service x could not be found on node ";
        assert_eq!(said(&catalog, &aliases, "other", &bare), ('c', lost.into()));
        let alone = self::catalog(&[("own", "self", "", "critical", "stale")]);
        assert_eq!(said(&alone, &aliases, "self", &aliases["self"]), ('p', "No checks found.".into()));
    }

    #[test]
    fn it_waits_for_every_node_on_its_way() {
        let catalog = catalog(&[("own", "to-far", "web", "passing", "")]);
        let aliases = Aliases::from([("to-far".into(), alias("FAR", "", true))]);
        let followed = follow(&catalog, &"Own".into(), &aliases, &"a".into(), &alias("", "web", false));
        let of = |node: &str| [Topic::Node(node.into()), Topic::NodeChecks(node.into())];
        assert_eq!(followed.topics, [of("far"), of("own")].concat());
    }
}
