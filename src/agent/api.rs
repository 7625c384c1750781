//! What the HTTP API may ask of this agent. A registration changes what is local at once, and is answered when the
//! catalog was told; where that fails it is told later, and the answer is yes all the same (`cluster.md` §6.2).

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use uuid::Uuid;

use bytes::Bytes;
use tokio::sync::mpsc;
use tracing::Level;

use super::{COMPATIBLE_VERSION, Change, Shared, Unknown, figures, host, now};
use crate::{
    catalog::{
        Catalog, Check, Command, Map, NodeCoordinate, Reply, Service, Status, Subscribe, Subscription, Text,
        Topic, fold,
    },
    check::{Definition, ServiceDefinition, cut_output},
    count::Spread,
    http::{
        self, About, Agent, Archive, Event, Failure, KeyOperation, KeyReport, Live, Member, Pending,
        ServerStatus,
    },
};

/// An event that is told here.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

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

    fn keyring(&self, operation: KeyOperation, local_only: bool) -> Pending<'_, Vec<KeyReport>> {
        Box::pin(self.change_keyring(operation, local_only))
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

    fn join(&self, address: String, wan: bool) -> Pending<'_, Result<(), Failure>> {
        Box::pin(async move {
            if wan {
                let fault = "this agent does not speak with other datacenters yet";
                return Err(Failure::Other(format!(
                    "1 error occurred:\n\t* Failed to join {address}: {fault}\n\n"
                )));
            }
            self.join_pool(&address).await
        })
    }

    fn force_leave(&self, node: String, prune: bool, wan: bool) -> Pending<'_, Result<(), Failure>> {
        Box::pin(async move {
            match wan {
                false => self.force_leave_pool(&node, prune).await,
                true if self.own_wan_member().name == Text::from(node) => Ok(()),
                true => Err(Failure::Other("agent: No node found with name ''".into())),
            }
        })
    }

    fn leave(&self) -> Pending<'_, ()> {
        Box::pin(async move {
            self.leave_pool().await;
            self.leaving.cancel();
        })
    }

    fn fire(&self, event: Event) -> Pending<'_, Result<(), Failure>> {
        Box::pin(async move {
            let other = |fault: &dyn std::fmt::Display| Failure::Other(fault.to_string());
            let word = self.events.borrow().word(&event);
            let (word, bytes) = word.map_err(|untold| other(&untold))?;
            let told = self.pool.fire(word, bytes).await.map_err(|over| other(&over))?;
            let time = told.map_err(|too_large| other(&too_large))?;
            // Who tells it and then looks here finds it.
            let mut heard = self.events.subscribe();
            let is_heard = heard.wait_for(|events| events.time() > time);
            let _in_time = tokio::time::timeout(HEARD_WITHIN, is_heard).await;
            Ok(())
        })
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
            server: self.identity.server,
            dns_domain: (*self.dns.load().domain).into(),
            dns_addrs: self.dns_addrs.clone(),
            member: self.own_member(),
            coordinate: self.pool.coordinate(),
            meta: meta.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            stats: self.stats(),
        }
    }

    fn members(&self, wan: bool) -> Option<Vec<Member>> {
        if !wan {
            return Some(self.pool_members());
        }
        let is_known = self.identity.serf_wan_port.is_some();
        self.identity.server.then(|| is_known.then(|| self.own_wan_member()).into_iter().collect())
    }
}

impl Shared {
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
