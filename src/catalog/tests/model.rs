//! A catalog written as plainly as it can be: rows in ordered maps, and indexes worked out afterwards by comparing the
//! rows before with the rows after. A seeded run holds the real one to it.

use std::{collections::BTreeMap, net::IpAddr};

use super::*;

#[derive(Clone, Default)]
struct Model {
    index: u64,
    nodes: BTreeMap<String, Node>,
    services: BTreeMap<(String, String), Service>,
    checks: BTreeMap<(String, String), Check>,
    indexes: BTreeMap<String, u64>,
}

impl Model {
    fn apply(&mut self, command: Command) {
        let before = self.clone();
        self.index += 1;
        match command {
            Command::Register(register) => {
                if !self.register(*register) {
                    *self = before;
                    return;
                }
            }
            Command::Deregister { node, target } => {
                let node = node.to_lowercase();
                match target {
                    Target::Node => self.remove_node(&node),
                    Target::Service(id) => self.remove_service(&node, &id.to_lowercase()),
                    Target::Check(id) => drop(self.checks.remove(&(node, id.to_lowercase()))),
                }
            }
            other => unreachable!("{other:?} is of another model"),
        }
        if (&self.nodes, &self.services, &self.checks) == (&before.nodes, &before.services, &before.checks) {
            *self = before;
        } else {
            self.raise(&before);
        }
    }

    /// `false` where the registration is refused.
    fn register(&mut self, register: Register) -> bool {
        let mut node = register.node;
        let key = node.name.to_lowercase();
        let mut created = self.nodes.get(&key).map_or(self.index, |node| node.created);
        if !(register.skip_node_update && self.nodes.contains_key(&key)) {
            if let Some(id) = node.id {
                let owner =
                    self.nodes.iter().find(|(_, other)| other.id == Some(id)).map(|(name, _)| name.clone());
                let healthy = self.checks.get(&(key.clone(), SERF_HEALTH.to_lowercase()));
                let healthy = healthy.is_some_and(|check| check.status != Status::Critical);
                let reserved =
                    self.nodes.get(&key).is_some_and(|here| here.id.is_some_and(|other| other != id));
                if owner.as_ref() != Some(&key) && reserved && healthy {
                    return false;
                }
                if let Some(owner) = owner.filter(|owner| *owner != key) {
                    created = self.nodes[&owner].created;
                    self.remove_node(&owner);
                }
            }
            node.created = created;
            if let Some(former) = self.nodes.get(&key) {
                node.name = former.name.clone();
                node.modified = former.modified;
            }
            if self.nodes.get(&key) != Some(&node) {
                node.modified = self.index;
            }
            self.nodes.insert(key.clone(), node);
        }
        if let Some(mut service) = register.service {
            let place = (key.clone(), service.id.to_lowercase());
            let former = self.services.get(&place).cloned();
            service.created = former.as_ref().map_or(self.index, |former| former.created);
            service.modified = former.as_ref().map_or(0, |former| former.modified);
            if former.as_ref() != Some(&service) {
                service.modified = self.index;
            }
            if former.is_some_and(|former| !former.name.eq_ignore_ascii_case(&service.name)) {
                let index = self.index;
                let own = self
                    .checks
                    .iter_mut()
                    .filter(|((node, _), check)| *node == key && check.service_id.to_lowercase() == place.1);
                own.for_each(|(_, check)| {
                    check.service_name = service.name.clone();
                    check.service_tags = service.tags.clone();
                    check.modified = index;
                });
            }
            self.services.insert(place, service);
        }
        for mut check in register.checks {
            let place = (key.clone(), check.id.to_lowercase());
            check.node = self.nodes[&key].name.clone();
            if !check.service_id.is_empty() {
                let Some(service) = self.services.get(&(key.clone(), check.service_id.to_lowercase())) else {
                    return false;
                };
                check.service_id = service.id.clone();
                check.service_name = service.name.clone();
                check.service_tags = service.tags.clone();
            }
            let former = self.checks.get(&place).cloned();
            check.created = former.as_ref().map_or(self.index, |former| former.created);
            check.modified = former.as_ref().map_or(0, |former| former.modified);
            if former.as_ref() != Some(&check) {
                check.modified = self.index;
            }
            self.checks.insert(place, check);
        }
        true
    }

    fn remove_node(&mut self, node: &str) {
        self.nodes.remove(node);
        self.services.retain(|(on, _), _| on != node);
        self.checks.retain(|(on, _), _| on != node);
    }

    fn remove_service(&mut self, node: &str, id: &str) {
        self.services.remove(&(node.to_string(), id.to_string()));
        self.checks.retain(|(on, _), check| !(on == node && check.service_id.to_lowercase() == id));
    }

    /// Nodes first, then services, each in order.
    fn residents(&self, address: IpAddr) -> Vec<String> {
        let is_it = |text: &str| text.parse().is_ok_and(|own: IpAddr| own.to_canonical() == address);
        let nodes =
            self.nodes.values().filter(|node| is_it(&node.address)).map(|node| format!("{} ", node.name));
        let apart = |((on, _), service): &(&(String, String), &Service)| {
            is_it(&service.address) && !is_it(&self.nodes[on].address)
        };
        let services = self.services.iter().filter(apart);
        nodes
            .chain(services.map(|((on, _), service)| format!("{} {}", self.nodes[on].name, service.id)))
            .collect()
    }

    /// `cluster.md` §1.2, read as a comparison of two states.
    fn raise(&mut self, before: &Model) {
        let mut keys: Vec<String> = Vec::new();
        let names = |model: &Model, node: &str| -> Vec<String> {
            let on = model.services.iter().filter(|((on, _), _)| on == node);
            on.map(|(_, service)| format!("service {}", service.name.to_lowercase())).collect()
        };
        for node in changed(&before.nodes, &self.nodes) {
            keys.extend(["nodes".into(), format!("node {node}")]);
            keys.extend(names(self, &node));
            if !self.nodes.contains_key(&node) {
                keys.push("node gone".into());
            }
        }
        for place in changed(&before.services, &self.services) {
            keys.extend(["services".into(), "nodes".into(), format!("node {}", place.0)]);
            for service in before.services.get(&place).iter().chain(self.services.get(&place).iter()) {
                keys.push(format!("service {}", service.name.to_lowercase()));
            }
            if !self.services.contains_key(&place) {
                keys.push("checks".into());
            }
        }
        for place in changed(&before.checks, &self.checks) {
            keys.push("checks".into());
            let rows = [(before, before.checks.get(&place)), (self, self.checks.get(&place))];
            for (model, check) in rows.into_iter().filter_map(|(model, check)| Some((model, check?))) {
                if check.service_id.is_empty() {
                    keys.extend(names(model, &place.0));
                } else {
                    keys.push(format!("service {}", check.service_name.to_lowercase()));
                }
            }
            let moved =
                |model: &Model| model.checks.get(&place).is_some_and(|check| check.service_id.is_empty());
            if moved(before) && !moved(self) && self.nodes.contains_key(&place.0) {
                keys.push("services".into());
            }
        }
        let live = |model: &Model| -> Vec<String> {
            model.services.values().map(|service| service.name.to_lowercase()).collect()
        };
        let gone: Vec<_> = live(before).into_iter().filter(|name| !live(self).contains(name)).collect();
        if !gone.is_empty() {
            keys.push("service gone".into());
        }
        for key in keys {
            self.indexes.insert(key, self.index);
        }
        self.indexes.retain(|key, _| match key.split_once(' ') {
            Some(("node", name)) if name != "gone" => self.nodes.contains_key(name),
            Some(("service", name)) if name != "gone" => {
                self.services.values().any(|service| service.name.to_lowercase() == name)
            }
            _ => true,
        });
    }
}

fn residents(catalog: &Catalog, address: IpAddr) -> Vec<String> {
    let all = catalog.residents(address, address);
    all.map(|(node, service)| format!("{} {}", node.name, service.map_or("", |service| &service.id)))
        .collect()
}

/// The keys of rows that are in one state only, or differ.
fn changed<K: Ord + Clone, V: PartialEq>(before: &BTreeMap<K, V>, after: &BTreeMap<K, V>) -> Vec<K> {
    let keys = before.keys().chain(after.keys().filter(|key| !before.contains_key(key)));
    keys.filter(|key| before.get(key) != after.get(key)).cloned().collect()
}

fn pick<'a>(random: &mut fastrand::Rng, choices: &[&'a str]) -> &'a str {
    choices[random.usize(..choices.len())]
}

fn any_command(random: &mut fastrand::Rng) -> Command {
    let name = pick(random, &["ash", "Ash", "birch", "cedar"]);
    let ids = ["web-1", "WEB-1", "web-2", "db"];
    if random.u8(..10) < 3 {
        return deregister(
            name,
            match random.u8(..6) {
                0 => Target::Node,
                1..=3 => Target::Service(pick(random, &ids).into()),
                _ => Target::Check(pick(random, &["c1", "C2", SERF_HEALTH]).into()),
            },
        );
    }
    let mut row = node(name);
    row.address = pick(random, &["10.0.0.1", "10.0.0.2"]).into();
    row.id = (random.u8(..3) == 0).then(|| Uuid::from_u128(random.u128(1..4)));
    // Not both: a rename may end a service that the same command begins anew, which two states do not tell.
    let service = (row.id.is_none() && random.u8(..4) > 0).then(|| Service {
        port: random.u16(..2),
        address: pick(random, &["", "", "10.0.0.1", "::ffff:10.0.0.1", "FD20::7", "fd20:0::7", "a.example."])
            .into(),
        tags: if random.bool() { ["blue".into()].into() } else { Default::default() },
        ..service(pick(random, &ids), pick(random, &["web", "Web", "db"]))
    });
    let on = match &service {
        Some(service) if random.bool() => service.id.to_string(),
        _ => pick(random, &["", "", "web-1", "db"]).to_string(),
    };
    let checks = (random.bool()).then(|| {
        let id = pick(random, &["c1", "c2", SERF_HEALTH]);
        check(id, &on, pick(random, &["passing", "warning", "critical"]))
    });
    let skip_node_update = random.bool();
    Command::Register(Box::new(Register {
        node: row,
        skip_node_update,
        service,
        checks: checks.into_iter().collect(),
    }))
}

#[test]
fn agrees_with_the_model() {
    for seed in 0..400 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut catalog, mut model) = (Catalog::default(), Model::default());
        for step in 0..120 {
            let command = any_command(&mut random);
            let told = format!("seed {seed}, step {step}: {command:?}");
            // A published catalog must not feel what comes after it.
            let published = catalog.clone();
            let frozen = (step % 7 == 0).then(|| rows(&published));
            let _either_way = catalog.apply(command.clone());
            model.apply(command);
            catalog.assert_consistent();
            assert_eq!(catalog.index(), model.index, "{told}");
            assert_eq!(rows(&catalog), model_rows(&model), "{told}");
            for address in ["10.0.0.1", "10.0.0.2", "fd20::7"].map(|address| address.parse().unwrap()) {
                assert_eq!(residents(&catalog, address), model.residents(address), "{address}; {told}");
            }
            for (key, index) in indexes(&catalog) {
                let expected = model.indexes.get(&key.to_lowercase()).copied().unwrap_or(0);
                assert_eq!(index, expected, "index of {key}; {told}");
            }
            assert!(frozen.is_none_or(|frozen| frozen == rows(&published)), "{told}");
            if step % 11 == 0 {
                // From here on with a catalog that was taken apart and put together again.
                let again = Catalog::from_rows(catalog.rows().map(Ok::<_, Mismatch>)).expect("its own rows");
                again.assert_consistent();
                assert_eq!(written(&again), written(&catalog), "{told}");
                catalog = again;
            }
        }
    }
}

/// All that a snapshot holds of a catalog.
fn written(catalog: &Catalog) -> Vec<String> {
    catalog.rows().map(|row| serde_json::to_string(&row).expect("a row is plain")).collect()
}

type Rows = (Vec<Node>, Vec<(String, Service)>, Vec<Check>);

fn rows(catalog: &Catalog) -> Rows {
    let mut checks: Vec<Check> = Vec::new();
    let mut services = Vec::new();
    for home in catalog.nodes() {
        let mut own: Vec<Check> = home.all_checks().map(|check| Check::clone(check)).collect();
        own.sort_by_key(|check| check.id.to_lowercase());
        checks.extend(own);
        let name = home.node().name.to_lowercase();
        services.extend(home.instances().map(|instance| (name.clone(), Service::clone(&instance.service))));
    }
    (catalog.nodes().map(|home| Node::clone(home.node())).collect(), services, checks)
}

fn model_rows(model: &Model) -> Rows {
    (
        model.nodes.values().cloned().collect(),
        model.services.iter().map(|((node, _), service)| (node.clone(), service.clone())).collect(),
        model.checks.values().cloned().collect(),
    )
}
