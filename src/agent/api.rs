//! What the HTTP API may ask of this agent. A registration changes what is local at once, and is answered when the
//! catalog was told; where that fails it is told later, and the answer is yes all the same (`cluster.md` §6.2).

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use uuid::Uuid;

use bytes::Bytes;
use tokio::sync::mpsc;
use tracing::Level;

use super::{COMPATIBLE_VERSION, Change, Identity, Shared, Unknown, figures, host, now};
use crate::{
    catalog::{
        Catalog, Check, Command, Map, NodeCoordinate, Reply, Service, Status, Subscribe, Subscription, Text,
        Topic, fold,
    },
    check::{Definition, ServiceDefinition, cut_output},
    count::Spread,
    http::{self, About, Agent, Archive, Event, Failure, Live, Member, Pending, ServerStatus},
};

impl Subscribe for Shared {
    fn catalog(&self) -> Arc<Catalog> {
        self.backing.catalog()
    }

    fn subscribe(&self, topics: Vec<Topic>) -> Subscription {
        self.backing.subscribe(topics)
    }
}

impl Agent for Shared {
    fn datacenter(&self) -> &Text {
        &self.identity.datacenter
    }

    fn node(&self) -> &Text {
        &self.identity.node_name
    }

    fn elsewhere(&self) -> Option<Arc<dyn http::Elsewhere>> {
        Some(self.backing.client()?.http.clone())
    }

    fn propose(&self, command: Command) -> Pending<'_, Result<Reply, Failure>> {
        Box::pin(async move { Shared::propose(self, command).await.map_err(Failure::from) })
    }

    fn renew_session(&self, id: Uuid) -> Pending<'_, Result<(), Failure>> {
        let renewed = self.backing.as_server().map(|server| server.endings.renew(id));
        Box::pin(std::future::ready(renewed))
    }

    fn leader(&self) -> Option<SocketAddr> {
        let raft = &self.backing.server()?.raft;
        raft.leader().filter(|_| raft.fresh().load(Ordering::Acquire))
    }

    fn peers(&self) -> Vec<SocketAddr> {
        self.backing.server().map(|server| server.raft.peers()).unwrap_or_default()
    }

    fn servers(&self) -> Vec<ServerStatus> {
        let Some(server) = self.backing.server() else { return Vec::new() };
        let status = server.raft.status();
        vec![ServerStatus {
            id: self.identity.node_id,
            node: self.identity.node_name.clone(),
            address: status.address,
            version: COMPATIBLE_VERSION.into(),
            leads: status.leads,
            votes: true,
            healthy: status.leads,
            last_term: status.last_term,
            last_index: status.last_index,
            stable_since: server.led_since.get().cloned().unwrap_or_default(),
        }]
    }

    fn update_coordinate(&self, coordinate: NodeCoordinate) {
        self.backing.update_coordinate(coordinate);
    }

    fn save(&self) -> Pending<'_, Result<Archive, Failure>> {
        Box::pin(async move { Shared::save(self) })
    }

    fn restore(&self, pieces: mpsc::Receiver<Bytes>, bytes_max: u64) -> Pending<'_, Result<(), Failure>> {
        Box::pin(Shared::restore(self, pieces, bytes_max))
    }

    fn services(&self) -> Vec<Arc<Service>> {
        self.state().local.services().map(|(_, service)| service.clone()).collect()
    }

    fn services_changed(&self) -> Pending<'static, ()> {
        let mut registered = self.registered.subscribe();
        Box::pin(async move {
            // An agent that is gone changes nothing more.
            let _gone = registered.changed().await;
        })
    }

    fn checks(&self) -> Vec<Arc<Check>> {
        let node = &self.identity.node_name;
        let named = |check: &Arc<Check>| Arc::new(Check { node: node.clone(), ..Check::clone(check) });
        self.state().local.checks().map(|(_, check)| named(check)).collect()
    }

    fn register_service(
        &self,
        definition: ServiceDefinition,
        replace_checks: bool,
    ) -> Pending<'_, Result<(), Failure>> {
        Box::pin(async move {
            definition.checks.iter().try_for_each(|check| self.may_run(check))?;
            self.change_and_tell(Change::RegisterService { definition, replace_checks }).await
        })
    }

    fn deregister_service(&self, id: String) -> Pending<'_, Result<(), Failure>> {
        Box::pin(async move { self.change_and_tell(Change::DeregisterService(id)).await })
    }

    fn register_check(&self, definition: Definition) -> Pending<'_, Result<(), Failure>> {
        Box::pin(async move {
            self.may_run(&definition)?;
            self.change_and_tell(Change::RegisterCheck(definition)).await
        })
    }

    fn deregister_check(&self, id: String) -> Pending<'_, Result<(), Failure>> {
        Box::pin(async move { self.change_and_tell(Change::DeregisterCheck(id)).await })
    }

    fn maintain(&self, service: Option<String>, reason: String) -> Pending<'_, Result<(), Failure>> {
        Box::pin(async move { self.change_and_tell(Change::Maintain { service, reason }).await })
    }

    fn resume(&self, service: Option<String>) -> Pending<'_, Result<(), Failure>> {
        Box::pin(async move { self.change_and_tell(Change::Resume { service }).await })
    }

    fn update_check(&self, id: String, status: Status, output: String) -> Pending<'_, Result<(), Failure>> {
        Box::pin(async move {
            {
                let mut state = self.state();
                let own_max = state.local.ttl_check(&id)?.output_bytes_max;
                let output =
                    state.runner.kept(|max| cut_output(&output, own_max.map_or(max, |own| own.min(max))));
                state.runner.heard(&id, &output);
                let word = status.to_string();
                if state.local.update_check(&id, status, &output, now(), self.output_delay())? {
                    tracing::debug!(check = &*id, status = word, "Check status updated");
                    self.changed.send_modify(|count| *count += 1);
                }
            }
            if let Some(keeper) = &self.keeper {
                keeper.word(fold(&id).into()).await;
            }
            self.told().await;
            Ok(())
        })
    }

    fn reload(&self) -> Pending<'_, Result<(), Failure>> {
        Box::pin(async move {
            Shared::reload(self).await.map_err(Failure::Other)?;
            self.told().await;
            Ok(())
        })
    }

    fn host(&self) -> Pending<'static, Vec<u8>> {
        Box::pin(async {
            let described = tokio::task::spawn_blocking(host::describe).await;
            described.unwrap_or_else(|_| b"null".to_vec())
        })
    }

    fn metrics(self: Arc<Self>) -> Pending<'static, Vec<u8>> {
        Box::pin(async move { self.newest_interval().await.to_json() })
    }

    fn metrics_to_come(&self) -> Live {
        figures::intervals(self.figures.telemetry.follow())
    }

    fn log_to_come(&self, level: Level, json: bool) -> Option<Live> {
        self.figures.monitor.follow(level, json).map(figures::lines)
    }

    fn prometheus(self: Arc<Self>) -> Pending<'static, Option<String>> {
        Box::pin(async move {
            let telemetry = &self.figures.telemetry;
            if !telemetry.speaks_prometheus() {
                return None;
            }
            Some(telemetry.prometheus_text(&self.read_figures(Spread::read).await))
        })
    }

    fn unconfirmed(&self) -> Vec<Text> {
        self.backing.server().map(|server| server.membership.unconfirmed()).unwrap_or_default()
    }

    fn confirm_failed(&self, node: Option<&str>) -> usize {
        let confirmed = self.backing.server().map_or(0, |server| server.membership.confirm(node));
        tracing::warn!(
            members = confirmed,
            "an operator says that members that vanished with others are gone"
        );
        confirmed
    }

    fn leave(&self) -> Pending<'_, ()> {
        self.leaving.cancel();
        Box::pin(std::future::ready(()))
    }

    fn fire(&self, event: Event) -> Pending<'_, Result<(), Failure>> {
        let (node, services) = (&self.identity.node_name, Agent::services(self));
        let mut fired = Ok(());
        self.events.send_if_modified(|events| {
            fired = events.fire(event, node, &services);
            fired.is_ok()
        });
        Box::pin(std::future::ready(fired.map_err(|untold| Failure::Other(untold.to_string()))))
    }

    fn events(&self) -> Vec<Arc<Event>> {
        self.events.borrow().heard().cloned().collect()
    }

    fn events_changed(&self) -> Pending<'static, ()> {
        let mut events = self.events.subscribe();
        Box::pin(async move {
            // An agent that is gone hears nothing more.
            let _gone = events.changed().await;
        })
    }

    fn about(&self) -> About {
        let meta = Map::clone(&self.node_meta.load());
        About {
            node: self.identity.node_name.clone(),
            id: Some(self.identity.node_id),
            version: COMPATIBLE_VERSION.into(),
            server: self.backing.server().is_some(),
            dns_domain: (*self.dns.load().domain).into(),
            dns_addrs: self.dns_addrs.clone(),
            member: self.own_member(false),
            meta: meta.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            stats: self.stats(),
        }
    }

    fn members(&self, wan: bool) -> Vec<Member> {
        let is_known = !wan || self.identity.serf_wan_port.is_some();
        is_known.then(|| self.own_member(wan)).into_iter().collect()
    }
}

impl Shared {
    /// This agent, as others see it.
    fn own_member(&self, wan: bool) -> Member {
        let Identity { node_name, node_id, datacenter, advertise, advertise_wan, .. } = &self.identity;
        let Identity { server_port, serf_lan_port, serf_wan_port, .. } = self.identity;
        let mut tags = vec![
            ("build", format!("{COMPATIBLE_VERSION}:")),
            ("dc", datacenter.to_string()),
            ("id", node_id.to_string()),
            ("segment", String::new()),
            ("vsn", "2".into()),
            ("vsn_max", "3".into()),
            ("vsn_min", "2".into()),
        ];
        if self.backing.server().is_some() {
            let of_server = [("acls", "0"), ("bootstrap", "1"), ("raft_vsn", "3"), ("role", "consul")];
            tags.extend(of_server.map(|(key, value)| (key, value.to_string())));
            tags.push(("port", server_port.to_string()));
            tags.extend(serf_wan_port.filter(|_| !wan).map(|port| ("wan_join_port", port.to_string())));
        } else {
            tags.push(("role", "node".into()));
        }
        tags.sort();
        let tags = tags.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        if wan {
            let gossip = serf_wan_port.map(|port| (*advertise_wan, port).into());
            return Member { name: format!("{node_name}.{datacenter}").into(), gossip, tags };
        }
        Member { name: node_name.clone(), gossip: Some((*advertise, serf_lan_port).into()), tags }
    }

    async fn change_and_tell(&self, change: Change) -> Result<(), Failure> {
        self.change(change).await?;
        self.told().await;
        Ok(())
    }
}

impl From<Unknown> for Failure {
    fn from(unknown: Unknown) -> Self {
        match unknown {
            Unknown::NoTtl(_) => Failure::Other(unknown.to_string()),
            _ => Failure::Unknown(unknown.to_string()),
        }
    }
}
