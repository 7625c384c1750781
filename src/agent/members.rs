//! What HTTP asks of the members: who they are, and that this agent join others or have one leave.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{Identity, Place, shared::Shared};
use crate::{
    catalog::fold,
    gossip::{self, Status},
    http,
};

impl Shared {
    /// As `join`, of the HTTP API.
    pub(super) async fn join_pool(&self, text: &str) -> Result<(), http::Failure> {
        let own = SocketAddr::from((self.identity.advertise, self.identity.serf_lan_port));
        let fault = |fault: String| vec![format!("Failed to join {text}: {fault}")];
        let addresses = match text.parse::<Place>() {
            Ok(place) => place.resolve(own.port()).await.map_err(fault),
            Err(reason) => Err(fault(reason.to_string())),
        };
        let mut addresses = addresses.map_err(|faults| failed_to_join(&faults))?;
        // A name may be that of all agents, this one among them.
        addresses.retain(|address| *address != own);
        if addresses.is_empty() {
            return Ok(());
        }
        let outcomes = self.pool.join(addresses).await;
        if outcomes.iter().any(|(_, outcome)| outcome.is_ok()) {
            return Ok(());
        }
        let faults = outcomes
            .into_iter()
            .filter_map(|(address, outcome)| Some(format!("Failed to join {address}: {}", outcome.err()?)));
        Err(failed_to_join(&faults.collect::<Vec<_>>()))
    }

    pub(super) async fn force_leave_pool(&self, node: &str, prune: bool) -> Result<(), http::Failure> {
        let unknown = || http::Failure::Other(format!("agent: No node found with name '{node}'"));
        let done = self.pool.force_leave(node, prune).await;
        done.map_err(|over| http::Failure::Other(over.to_string()))?.map_err(|_| unknown())
    }

    /// Whoever is known of this datacenter, as HTTP tells of them.
    pub(super) fn pool_members(&self) -> Vec<http::Member> {
        let members = self.pool.members();
        members.borrow().values().map(|member| shown(member)).collect()
    }

    /// This agent, as the others see it.
    pub(super) fn own_member(&self) -> http::Member {
        let key = fold(&self.identity.node_name);
        let members = self.pool.members();
        let own = members.borrow().get(&*key).map(|member| shown(member));
        own.unwrap_or_else(|| http::Member {
            name: self.identity.node_name.clone(),
            ..http::Member::default()
        })
    }

    /// As servers of other datacenters would see it: nobody else is known there yet.
    pub(super) fn own_wan_member(&self) -> http::Member {
        let Identity { node_name, datacenter, advertise_wan, serf_wan_port, .. } = &self.identity;
        let own = self.own_member();
        http::Member {
            name: format!("{node_name}.{datacenter}").into(),
            gossip: serf_wan_port.map(|port| (*advertise_wan, port).into()),
            tags: own.tags.into_iter().filter(|(key, _)| &**key != "wan_join_port").collect(),
            ..own
        }
    }

    /// How many members have each standing.
    pub(super) fn standings(&self) -> BTreeMap<Status, usize> {
        let members = self.pool.members();
        let mut standings = BTreeMap::new();
        members.borrow().values().for_each(|member| *standings.entry(member.status).or_default() += 1);
        standings
    }
}

fn failed_to_join(faults: &[String]) -> http::Failure {
    let head = if faults.len() == 1 { "1 error".to_string() } else { format!("{} errors", faults.len()) };
    let lines: String = faults.iter().map(|fault| format!("\n\t* {fault}")).collect();
    http::Failure::Other(format!("{head} occurred:{lines}\n\n"))
}

fn shown(member: &gossip::Member) -> http::Member {
    http::Member {
        name: member.name.clone(),
        status: match member.status {
            Status::Alive => http::Standing::Alive,
            Status::Leaving => http::Standing::Leaving,
            Status::Left => http::Standing::Left,
            Status::Failed => http::Standing::Failed,
        },
        gossip: Some(member.address),
        tags: member.tags.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
    }
}
