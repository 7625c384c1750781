//! What every part of an agent shares, and what can be read from it at once.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    COMPATIBLE_VERSION, Identity, Local, Reloadable, Reread, backing::Backing, events::Events, figures,
    keep::Keeper, pool, zones,
};
use crate::{
    catalog::{Map, Node, Text},
    check::Runner,
    dns,
    gossip::{KeptKeyring, Pool},
    http, rpc,
};

/// What the parts of an agent share.
pub struct Shared {
    pub(super) identity: Identity,
    pub(super) backing: Backing,
    pub(super) state: Mutex<State>,
    /// Where there is a data directory.
    pub(super) keeper: Option<Keeper>,
    /// Rises when something local changed that the catalog is to be told.
    pub(super) changed: watch::Sender<u64>,
    /// Up to which of these changes the catalog was told, or could not be.
    pub(super) told: watch::Sender<u64>,
    /// Rises with each change to what is registered here.
    pub(super) registered: watch::Sender<u64>,
    pub(super) events: watch::Sender<Events>,
    /// Cancelled when somebody asks this agent to leave.
    pub(super) leaving: CancellationToken,
    /// Cancelled once it begins to leave: what it has is not told any more.
    pub(super) going: CancellationToken,
    /// Cancelled when nobody was found whom this agent was to join.
    pub(super) alone: CancellationToken,
    pub(super) pool: Pool,
    pub(super) seen: pool::Seen,
    /// Of the pool between datacenters, which this agent is not in yet.
    pub(super) wan_keys: Option<Arc<KeptKeyring>>,
    pub(super) dns: Arc<ArcSwap<dns::Settings>>,
    pub(super) dns_addrs: Vec<SocketAddr>,
    pub(super) zones: Arc<zones::Zones>,
    pub(super) http: Arc<ArcSwap<http::Settings>>,
    pub(super) rpc_limits: Arc<ArcSwap<rpc::Limits>>,
    pub(super) node_meta: ArcSwap<Map<Text>>,
    pub(super) timing: ArcSwap<Timing>,
    /// Rises when a server came, or another one leads: then all compare what they have.
    pub(super) server_came: watch::Sender<u64>,
    pub(super) figures: figures::Figures,
    pub(super) reread: Reread,
}

#[derive(Clone, Copy)]
pub struct Timing {
    pub(super) check_update_interval: Duration,
    pub(super) remote_scripts: bool,
}

/// What is registered here, and what runs for it: changed together.
pub struct State {
    pub(super) local: Local,
    pub(super) runner: Runner,
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything but what files define.
    pub(super) fn apply(&self, reloadable: Reloadable) {
        let every_agent = [("consul-network-segment", ""), ("consul-version", COMPATIBLE_VERSION)];
        let every_agent = every_agent.map(|(key, value)| (Text::from(key), Text::from(value)));
        let own = reloadable.node_meta.iter().map(|(key, value)| (Text::from(&**key), Text::from(&**value)));
        self.node_meta.store(Arc::new(every_agent.into_iter().chain(own).collect()));
        self.timing.store(Arc::new(Timing::of(&reloadable)));
        self.dns.store(Arc::new(reloadable.dns));
        self.http.store(Arc::new(reloadable.http));
        self.rpc_limits.store(Arc::new(reloadable.rpc_limits));
        self.figures.telemetry.set_filter(reloadable.figures);
    }

    /// This agent's node, as it registers it.
    pub(super) fn node(&self) -> Node {
        let Identity { node_name, node_id, datacenter, advertise, advertise_wan, .. } = &self.identity;
        let family = |address: &IpAddr| if address.is_ipv4() { "ipv4" } else { "ipv6" };
        let tagged = [
            ("lan".to_string(), advertise),
            (format!("lan_{}", family(advertise)), advertise),
            ("wan".to_string(), advertise_wan),
            (format!("wan_{}", family(advertise_wan)), advertise_wan),
        ];
        Node {
            id: Some(*node_id),
            name: node_name.clone(),
            address: advertise.to_string().into(),
            datacenter: datacenter.clone(),
            tagged_addresses: Some(
                tagged.into_iter().map(|(key, ip)| (key, Text::from(ip.to_string()))).collect(),
            ),
            meta: Some(Map::clone(&self.node_meta.load())),
            ..Node::default()
        }
    }

    /// How long a change of output alone is held back.
    pub(super) fn output_delay(&self) -> Duration {
        let interval = self.timing.load().check_update_interval;
        interval / 2 + interval.mul_f64(fastrand::f64())
    }
}

impl Timing {
    pub(super) fn of(reloadable: &Reloadable) -> Self {
        let Reloadable { check_update_interval, remote_scripts, .. } = reloadable;
        Timing { check_update_interval: *check_update_interval, remote_scripts: *remote_scripts }
    }
}
