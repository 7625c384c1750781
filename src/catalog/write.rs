//! The rows of a catalog being changed by one command: each write keeps the joined instances true, and touches the
//! indexes and topics that go with it (`cluster.md` §1.2). Writes that would change nothing do nothing.

use std::sync::Arc;

use super::{
    Catalog, Changes, Group, Home, Instance, Key, Table, Topic, fold, fold_key,
    record::{Check, Node, Service, Status, Text},
    resident::Resident,
    share::alike,
};

pub(super) struct Write<'a> {
    pub(super) catalog: &'a mut Catalog,
    /// What rows changed by this command carry.
    pub(super) index: u64,
    changes: Changes,
}

impl<'a> Write<'a> {
    pub fn new(catalog: &'a mut Catalog) -> Self {
        Write { index: catalog.index + 1, catalog, changes: Changes::default() }
    }

    /// The catalog's index rises only if something changed.
    pub fn finish(mut self) -> Changes {
        if !self.changes.topics.is_empty() {
            self.catalog.index = self.index;
        }
        for table in Table::ALL.into_iter().filter(|table| self.changes.tables.contains(*table)) {
            self.catalog.tables[table as usize] = self.index;
        }
        self.changes.index = self.catalog.index;
        self.changes
    }

    /// What rows changed by this command carry.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The index at which a node was created.
    pub fn created(&self, node: &Key) -> Option<u64> {
        Some(self.catalog.nodes.get(node)?.node.created)
    }

    /// `created` is that of the node that this one was renamed from.
    pub fn put_node(&mut self, key: &Key, mut node: Node, created: Option<u64>) {
        let former = self.catalog.nodes.get(key).map(|home| home.node.clone());
        if let Some(former) = &former {
            // A change of letter case alone is no rename: the spelling given first stays.
            node.name = former.name.clone();
            (node.created, node.modified) = (former.created, former.modified);
            if node == **former {
                return;
            }
        }
        node.created = created.or(former.as_ref().map(|former| former.created)).unwrap_or(self.index);
        node.modified = self.index;
        let neighbour = self.node_before(key);
        let models: Vec<&Node> = former.iter().chain(&neighbour).map(|model| &**model).collect();
        self.catalog.words.node(&mut node, &models);
        self.file_id(key, former.as_ref().and_then(|former| former.id), node.id);
        let node = Arc::new(node);
        self.settle(former.as_ref().and_then(Resident::node), Resident::node(&node));
        match self.catalog.nodes.get_mut(key) {
            Some(home) => Arc::make_mut(home).node = node,
            None => self.insert_home(key, node),
        }
        self.rejoin(key);
        self.touch(Table::Nodes, [Topic::Nodes, Topic::Node(key.clone())]);
        self.home(key).index = self.index;
    }

    pub fn put_service(&mut self, node: &Key, mut service: Service) {
        let Some(home) = self.catalog.nodes.get(node).cloned() else { return };
        let key = fold_key(&service.name);
        let former = home.instance(&fold(&service.id)).cloned();
        let mut checks: Arc<[Arc<Check>]> = Arc::new([]);
        service.created = self.index;
        if let Some(former) = &former {
            (service.created, service.modified) = (former.service.created, former.service.modified);
            if service == *former.service {
                return;
            }
            checks = former.checks.clone();
        }
        service.modified = self.index;
        let neighbour = self.neighbour(&key, &home.node.name, &service.id);
        let models: Vec<&Service> = former.iter().chain(&neighbour).map(|model| &*model.service).collect();
        self.catalog.words.service(&mut service, &home.node, &models);
        let (id, name) = (service.id.clone(), service.name.clone());
        let service = Arc::new(service);
        if let Some(former) = former.filter(|former| *fold_key(&former.service.name) != *key) {
            // The id changed its name: the old service loses an instance, and the checks move to the new one.
            self.leave_group(&former);
            checks = checks.iter().map(|check| self.moved(check, &service)).collect();
        }
        let instance = Instance::new(home.node.clone(), home.checks.clone(), service, checks);
        self.join_group(&key, &name, fold_key(&id), Arc::new(instance));
        self.touch_service_row(node);
    }

    pub fn put_check(&mut self, node: &Key, mut check: Check) {
        let Some(home) = self.catalog.nodes.get(node).cloned() else { return };
        check.node = home.node.name.clone();
        if let Some(service) = home.instance(&fold(&check.service_id)).map(|instance| &instance.service) {
            check.service_id = service.id.clone();
            check.service_name = service.name.clone();
            check.service_tags = service.tags.clone();
        }
        if check.status == Status::Critical {
            self.end_vouching(node, &check.id);
        }
        check.created = self.index;
        let former = home.all_checks().find(|former| former.id.eq_ignore_ascii_case(&check.id));
        if let Some(former) = former {
            (check.created, check.modified) = (former.created, former.modified);
            if check == **former {
                return;
            }
            self.touch_state(former);
            if former.service_id != check.service_id {
                // It is not gone, and goes on vouching.
                self.take_check(node, &home, &former.id);
            }
        }
        check.modified = self.index;
        self.file_check(node, check, former);
    }

    fn file_check(&mut self, node: &Key, mut check: Check, former: Option<&Arc<Check>>) {
        let Some(home) = self.catalog.nodes.get(node).cloned() else { return };
        let instance = home.instance(&fold(&check.service_id));
        let beside = self.check_beside(&home, instance, &check.id);
        let models: Vec<&Check> = former.into_iter().chain(&beside).map(|model| &**model).collect();
        self.catalog.words.check(&mut check, &models);
        let check = Arc::new(check);
        self.touch_check(node, &check);
        match instance {
            Some(instance) => {
                let checks = with_check(&instance.checks, check);
                self.replace(instance, |instance| instance.checks = checks.clone());
            }
            None => {
                self.home(node).checks = with_check(&home.checks, check);
                self.rejoin(node);
            }
        }
    }

    /// With everything on it; nothing where there is no such node.
    pub fn remove_node(&mut self, node: &Key) {
        let Some(home) = self.catalog.nodes.get(node).cloned() else { return };
        for instance in home.instances() {
            self.remove_service(node, &instance.service.id);
        }
        self.end_sessions_on(node);
        for check in home.checks.iter() {
            self.touch_check(node, check);
        }
        self.forget_coordinates(node);
        self.file_id(node, home.node.id, None);
        self.settle(Resident::node(&home.node), None);
        self.catalog.nodes.remove(node);
        self.catalog.node_names.remove(node);
        self.catalog.node_gone = self.index;
        self.touch(Table::Nodes, [Topic::Nodes, Topic::Node(node.clone()), Topic::NodeGone]);
    }

    /// With its checks; nothing where there is no such service.
    pub fn remove_service(&mut self, node: &Key, id: &str) {
        let id = fold(id);
        let Some(instance) = self.catalog.nodes.get(node).and_then(|home| home.instance(&id)).cloned() else {
            return;
        };
        for check in instance.checks.iter() {
            self.end_vouching(node, &check.id);
            self.touch_check(node, check);
        }
        self.leave_group(&instance);
        self.settle(Resident::service(&instance), None);
        self.home(node).instances.remove(&*id);
        self.touch(Table::Checks, []);
        self.touch_service_row(node);
    }

    pub fn remove_check(&mut self, node: &Key, id: &str) {
        let Some(home) = self.catalog.nodes.get(node).cloned() else { return };
        if home.all_checks().any(|check| check.id.eq_ignore_ascii_case(id)) {
            self.end_vouching(node, id);
            self.take_check(node, &home, id);
        }
    }

    fn take_check(&mut self, node: &Key, home: &Home, id: &str) {
        let is_it = |check: &Arc<Check>| check.id.eq_ignore_ascii_case(id);
        let without =
            |checks: &Arc<[Arc<Check>]>| checks.iter().filter(|check| !is_it(check)).cloned().collect();
        if let Some(check) = home.checks.iter().find(|check| is_it(check)) {
            self.home(node).checks = without(&home.checks);
            self.rejoin(node);
            self.touch_check(node, check);
            self.touch(Table::Services, []);
        } else if let Some(instance) = home.instances().find(|instance| instance.checks.iter().any(is_it)) {
            for check in instance.checks.iter().filter(|check| is_it(check)) {
                self.touch_check(node, check);
            }
            self.replace(instance, |instance| instance.checks = without(&instance.checks));
        }
    }

    fn insert_home(&mut self, key: &Key, node: Arc<Node>) {
        let mut key = key.clone();
        alike(&mut key, [&node.name]);
        let home = Home { node, checks: Arc::new([]), instances: Default::default(), index: self.index };
        self.catalog.node_names.insert(key.clone());
        self.catalog.nodes.insert(key, Arc::new(home));
    }

    /// Joins every instance of a node anew: the node or its checks changed.
    fn rejoin(&mut self, node: &Key) {
        let Some(home) = self.catalog.nodes.get(node).cloned() else { return };
        for instance in home.instances() {
            self.replace(instance, |instance| {
                instance.node = home.node.clone();
                instance.node_checks = home.checks.clone();
            });
        }
    }

    /// Puts an instance in its former self's place, in its home and in its group.
    fn replace(&mut self, former: &Instance, change: impl Fn(&mut Instance)) {
        let mut instance = former.clone();
        change(&mut instance);
        let instance = Instance::new(instance.node, instance.node_checks, instance.service, instance.checks);
        let (name, id) = (instance.service.name.clone(), fold_key(&instance.service.id));
        self.join_group(&fold_key(&name), &name, id, Arc::new(instance));
    }

    fn join_group(&mut self, key: &Key, name: &Text, id: Key, instance: Arc<Instance>) {
        let node = fold_key(&instance.node.name);
        let former = self.home(&node).instances.insert(id, instance.clone());
        let is_former = |former: &Arc<Instance>| {
            Arc::ptr_eq(&former.service, &instance.service) && Arc::ptr_eq(&former.node, &instance.node)
        };
        if !former.as_ref().is_some_and(is_former) {
            let former = former.and_then(|former| Resident::service(&former));
            self.settle(former, Resident::service(&instance));
        }
        if !self.catalog.services.contains_key(key) {
            let mut key = key.clone();
            alike(&mut key, [&instance.service.name]);
            self.catalog.service_names.insert(key.clone());
            self.catalog.services.insert(key.clone(), Arc::new(Group::new(key, name.clone())));
        }
        let index = self.index;
        let group = self.group(key);
        group.put(instance);
        group.index = index;
        self.changes.topics.push(Topic::Service(key.clone()));
    }

    /// Takes an instance out of its group; a group goes with its last one.
    fn leave_group(&mut self, instance: &Instance) {
        let key = fold_key(&instance.service.name);
        let index = self.index;
        let group = self.group(&key);
        group.remove(&instance.node.name, &instance.service.id);
        group.index = index;
        if group.is_empty() {
            self.catalog.services.remove(&key);
            self.catalog.service_names.remove(&key);
            self.catalog.service_gone = self.index;
            self.changes.topics.push(Topic::ServiceGone);
        }
        self.changes.topics.push(Topic::Service(key));
    }

    /// A check, as it stands when its service changed its name.
    fn moved(&mut self, check: &Arc<Check>, service: &Service) -> Arc<Check> {
        let mut check = Check::clone(check);
        (check.service_name, check.service_tags) = (service.name.clone(), service.tags.clone());
        check.modified = self.index;
        self.touch_check(&fold_key(&check.node), &check);
        Arc::new(check)
    }

    /// The check that speaks for the same thing beside this one, if it can be found at once.
    fn check_beside(&self, home: &Home, instance: Option<&Arc<Instance>>, id: &str) -> Option<Arc<Check>> {
        let checks = match instance {
            Some(instance) => {
                let service = &instance.service;
                self.neighbour(&fold_key(&service.name), &home.node.name, &service.id)?.checks.clone()
            }
            None => {
                let beside = self.node_before(&fold_key(&home.node.name))?;
                self.catalog.nodes.get(&fold_key(&beside.name))?.checks.clone()
            }
        };
        checks.iter().find(|check| *check.id == *id).or(checks.first()).cloned()
    }

    fn neighbour(&self, service: &Key, node: &str, id: &str) -> Option<Arc<Instance>> {
        self.catalog.services.get(service)?.neighbour(node, id).cloned()
    }

    /// The node next in order: in a fleet it mostly has the same meta.
    fn node_before(&self, key: &Key) -> Option<Arc<Node>> {
        let name = self.catalog.node_names.range(..key.clone()).next_back()?;
        Some(self.catalog.nodes.get(name)?.node.clone())
    }

    /// Moves someone from where they lived to where they live now.
    fn settle(&mut self, former: Option<Resident>, resident: Option<Resident>) {
        if let Some(former) = former.filter(|former| Some(former) != resident.as_ref()) {
            self.catalog.residents.remove(&former);
        }
        if let Some(resident) = resident {
            self.catalog.residents.insert(resident);
        }
    }

    fn file_id(&mut self, key: &Key, former: Option<uuid::Uuid>, id: Option<uuid::Uuid>) {
        if former == id {
            return;
        }
        if let Some(former) = former {
            self.catalog.ids.remove(&former);
        }
        if let Some(id) = id {
            self.catalog.ids.insert(id, key.clone());
        }
    }

    fn touch_service_row(&mut self, node: &Key) {
        self.home(node).index = self.index;
        self.touch(Table::Services, [Topic::Services, Topic::Node(node.clone())]);
        self.touch(Table::Nodes, []);
    }

    fn touch_check(&mut self, node: &Key, check: &Check) {
        self.touch_state(check);
        self.touch(Table::Checks, [Topic::Checks, Topic::NodeChecks(node.clone())]);
    }

    fn touch_state(&mut self, check: &Check) {
        self.touch(Table::Checks, [Topic::State(check.status.clone())]);
    }

    pub(super) fn touch<const N: usize>(&mut self, table: Table, topics: [Topic; N]) {
        self.changes.tables.insert(table);
        self.changes.topics.extend(topics);
    }

    /// Of a change that no table's index shows.
    pub(super) fn tell(&mut self, topic: Topic) {
        self.changes.topics.push(topic);
    }

    fn home(&mut self, node: &Key) -> &mut Home {
        Arc::make_mut(self.catalog.nodes.get_mut(node).expect("the node of a row being written exists"))
    }

    fn group(&mut self, service: &Key) -> &mut Group {
        Arc::make_mut(self.catalog.services.get_mut(service).expect("an instance stands in its group"))
    }
}

/// The checks with one more, or with one in its former self's place, by id.
fn with_check(checks: &[Arc<Check>], check: Arc<Check>) -> Arc<[Arc<Check>]> {
    let mut checks: Vec<_> =
        checks.iter().filter(|other| !other.id.eq_ignore_ascii_case(&check.id)).cloned().collect();
    let at = checks.partition_point(|other| other.id < check.id);
    checks.insert(at, check);
    checks.into()
}
