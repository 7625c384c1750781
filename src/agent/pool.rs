//! This agent among the members of its datacenter: its pool is started, others are looked for, what they tell is taken up,
//! and it leaves them when it goes. What becomes of members in the catalog is the servers' to say.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use imbl::ordmap::DiffItem;
use tokio::{sync::broadcast::error::RecvError, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{COMPATIBLE_VERSION, Identity, join::Joining, now, port, shared::Shared};
use crate::{
    catalog::{Coordinate, Network, NodeCoordinate, Text, fold},
    check::format_duration,
    count::Counter,
    gossip::{self, BindError, Ended, Kind, Members, Pool, StartError, Status, Tags, Timing, UserEvent},
    http,
};

/// What an agent's pool is started with, beyond who the agent is.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolSettings {
    pub bind: IpAddr,
    pub timing: Timing,
    /// Who may be a member; everybody where none are named.
    pub allowed: Vec<Network>,
    pub joining: Joining,
    /// Whether the former members are looked for again after this agent left them.
    pub rejoin_after_leave: bool,
    /// After how long the others should forget this agent, once it has failed.
    pub advertise_reconnect_timeout: Option<Duration>,
    /// How often the servers are told where this node is, among few members.
    pub coordinate_every: Duration,
}

impl Default for PoolSettings {
    fn default() -> Self {
        PoolSettings {
            bind: Ipv4Addr::UNSPECIFIED.into(),
            timing: Timing::lan(),
            allowed: vec![],
            joining: Joining::default(),
            rejoin_after_leave: false,
            advertise_reconnect_timeout: None,
            coordinate_every: Duration::from_secs(15),
        }
    }
}

/// What was seen of the others, counted.
#[derive(Debug, Default)]
pub struct Seen {
    pub joined: Counter,
    pub left: Counter,
    pub failed: Counter,
    pub events: Counter,
    /// They came faster than they could be taken up.
    pub events_lost: Counter,
}

/// What a leader tells all agents of itself.
const NEW_LEADER: &str = "consul:new-leader";
/// Beyond these nobody is let in.
const MEMBERS_MAX: usize = 65_536;
/// Of an event's name and payload, as Consul has it.
const EVENT_BYTES_MAX: usize = 512;
/// Of the others, who must hear of it; after that they will see for themselves.
const LEAVE_LIMIT: Duration = Duration::from_secs(15);
/// So many coordinates a second are what servers of a datacenter take.
const COORDINATES_PER_SEC: f64 = 64.0;
/// Told again after this, though it did not move: the catalog may have lost it.
const COORDINATE_AGAIN: Duration = Duration::from_secs(600);
/// A line is written for each of so many members that changed at once; the others are counted.
const LINES_MAX: usize = 20;

/// Starts the pool of an agent; it is alone at first. `coordinates` says whether round trips are measured.
///
/// # Errors
/// What cannot be bound, or read.
pub fn start(
    identity: &Identity,
    settings: &PoolSettings,
    coordinates: bool,
    encryption: gossip::Encryption,
    data_dir: Option<&Path>,
    stop: CancellationToken,
) -> Result<(Pool, JoinHandle<Ended>), String> {
    let node = gossip::Settings {
        name: identity.node_name.clone(),
        id: identity.node_id,
        datacenter: identity.datacenter.clone(),
        advertise: (identity.advertise, identity.serf_lan_port).into(),
        tags: tags(identity, settings.advertise_reconnect_timeout),
        timing: settings.timing.clone(),
        generation: 0,
        past: gossip::Past::default(),
        members_max: MEMBERS_MAX,
        coordinates,
        event_bytes_max: EVENT_BYTES_MAX,
    };
    let settings = gossip::PoolSettings {
        node,
        kind: Kind::Lan,
        bind: (settings.bind, identity.serf_lan_port).into(),
        encryption,
        history: data_dir.map(|folder| folder.join("serf/local.snapshot")),
        allowed: settings.allowed.clone(),
        rejoin_after_leave: settings.rejoin_after_leave,
    };
    Pool::start(settings, stop).map_err(|error| match &error {
        StartError::Bind(BindError { address, error: source }) => {
            let moves = "-bind, -serf-lan-bind or -serf-lan-port moves it";
            format!("{error}; {moves}{}", port::explain(source, "TCP", *address))
        }
        _ => error.to_string(),
    })
}

/// What a node says of itself (`cluster.md` §4.1), but for its id and its datacenter.
fn tags(identity: &Identity, reconnect_timeout: Option<Duration>) -> Tags {
    let mut tags = vec![
        ("build", format!("{COMPATIBLE_VERSION}:")),
        ("role", if identity.server { "consul" } else { "node" }.into()),
        ("segment", String::new()),
        ("vsn", "2".into()),
        ("vsn_max", "3".into()),
        ("vsn_min", "2".into()),
    ];
    if identity.server {
        tags.extend([
            ("acls", "0".to_string()),
            ("port", identity.server_port.to_string()),
            ("raft_vsn", "3".into()),
        ]);
        tags.extend(identity.bootstrap.then(|| ("bootstrap", "1".into())));
        tags.extend(identity.serf_wan_port.map(|port| ("wan_join_port", port.to_string())));
    } else {
        let timeout = reconnect_timeout.and_then(|timeout| i64::try_from(timeout.as_nanos()).ok());
        tags.extend(timeout.map(|nanos| ("rc_tm", format_duration(nanos))));
    }
    tags.into_iter().map(|(key, value)| (Text::from(key), Text::from(value))).collect()
}

/// Takes part in the pool until `stop`: asks to be let in, hears, tells. The others go on when this agent is stopped without
/// having left.
pub async fn take_part(
    shared: Arc<Shared>,
    settings: PoolSettings,
    task: JoinHandle<Ended>,
    stop: CancellationToken,
) {
    if shared.identity.server {
        // Never the same twice: what this server said in a former life, at the same time of its clock, is heard already.
        let payload = format!("{}\n{:016x}", shared.identity.node_name, fastrand::u64(..));
        let told = shared.pool.fire(NEW_LEADER.into(), payload.into_bytes()).await;
        if !matches!(told, Ok(Ok(_))) {
            tracing::warn!("members were not told that this server leads");
        }
    }
    let look = look_for_others(&shared, &settings.joining, &stop);
    let place = tell_where(&shared, settings.coordinate_every);
    let rest = async { tokio::join!(look, place, hear(&shared), tell_of_members(&shared)) };
    tokio::join!(stop.run_until_cancelled(rest), tell_of_end(task));
}

/// Asks where others should be. It ends the agent where nobody is found, and it was told to give up.
async fn look_for_others(shared: &Shared, joining: &Joining, stop: &CancellationToken) {
    if joining.places.is_empty() {
        return;
    }
    let own = SocketAddr::from((shared.identity.advertise, shared.identity.serf_lan_port));
    if joining.keep_asking(&shared.pool, own, stop).await.is_err() {
        tracing::error!(error = "agent: max join LAN retry exhausted, exiting", "Retry join failed");
        shared.alone.cancel();
    }
}

async fn hear(shared: &Shared) {
    let mut events = shared.pool.events();
    loop {
        match events.recv().await {
            // A leader knows, and has compared what it has.
            Ok(UserEvent { name, payload, .. }) if &*name == NEW_LEADER => {
                let leader = payload.split(|byte| *byte == b'\n').next();
                if leader != Some(shared.identity.node_name.as_bytes()) {
                    shared.server_came();
                }
            }
            Ok(UserEvent { name, payload, time }) => {
                shared.seen.events.add(1);
                let (node, services) = (&shared.identity.node_name, http::Agent::services(shared));
                // Whoever waits looks for himself whether it is for him; whoever told it waits for its time.
                shared.events.send_modify(|events| events.hear(&name, &payload, time, node, &services));
            }
            Err(RecvError::Lagged(lost)) => {
                shared.seen.events_lost.add(lost);
                tracing::warn!(lost, "events came faster than they could be taken up");
            }
            // There is no pool any more; its end is told of elsewhere.
            Err(RecvError::Closed) => return,
        }
    }
}

/// Tells the servers where this node is, by the time that others take to answer it: once that is known, and when it has
/// changed enough to matter.
async fn tell_where(shared: &Shared, at_least: Duration) {
    let members = shared.pool.members();
    let mut told: Option<(Coordinate, Instant)> = None;
    loop {
        let every =
            at_least.max(Duration::from_secs_f64(members.borrow().len() as f64 / COORDINATES_PER_SEC));
        tokio::time::sleep(every + every.mul_f64(fastrand::f64())).await;
        let coordinate = shared.pool.coordinate();
        let is_news = match &told {
            None => coordinate != Coordinate::origin(),
            Some((before, at)) => has_moved(before, &coordinate) || at.elapsed() > COORDINATE_AGAIN,
        };
        if is_news && coordinate.is_valid() && shared.http.load().coordinates {
            told = Some((coordinate.clone(), now()));
            let node = shared.identity.node_name.clone();
            http::Agent::update_coordinate(shared, NodeCoordinate { node, segment: "".into(), coordinate });
        }
    }
}

/// By more than it may be off, or to where it is known twice as well: noise is no news, and a quiet datacenter writes nothing.
fn has_moved(before: &Coordinate, after: &Coordinate) -> bool {
    const NOISE_SECS: f64 = 50e-6;
    let squares = before.vec.iter().zip(after.vec.iter()).map(|(a, b)| (a - b) * (a - b));
    let length = before.vec.iter().map(|part| part * part).sum::<f64>().sqrt() + before.height;
    let moved = squares.sum::<f64>().sqrt()
        + (before.height - after.height).abs()
        + (before.adjustment - after.adjustment).abs();
    let off = before.error.max(after.error).clamp(0.1, 1.0);
    moved > NOISE_SECS + length * off || after.error * 2.0 < before.error
}

/// Says in the log who came and who went.
async fn tell_of_members(shared: &Shared) {
    let mut members = shared.pool.members();
    let mut before = Members::new();
    loop {
        let after = members.borrow_and_update().clone();
        // Taken for gone, it came back, and others may have removed what it had.
        let (was, is) = (own_generation(shared, &before), own_generation(shared, &after));
        if !shared.identity.server && was.is_some() && was < is {
            shared.server_came();
        }
        let mut lines = 0;
        for item in before.diff(&after) {
            let forgotten = matches!(item, DiffItem::Remove(..));
            let word = match item {
                DiffItem::Add(_, member) => Some((member, said(None, member.status))),
                DiffItem::Update { old: (_, old), new: (_, new) } if old.status != new.status => {
                    Some((new, said(Some(old.status), new.status)))
                }
                DiffItem::Update { .. } => None,
                DiffItem::Remove(_, member) => Some((member, "a member is forgotten")),
            };
            let Some((member, word)) = word else { continue };
            if !forgotten {
                shared.seen.count(member.status);
            }
            lines += 1;
            if lines <= LINES_MAX && member.name != shared.identity.node_name {
                tracing::info!(member = &*member.name, address = %member.address, "{word}");
            }
        }
        if lines > LINES_MAX {
            tracing::info!(members = lines - LINES_MAX, "as many members more came or went at the same time");
        }
        before = after;
        if members.changed().await.is_err() {
            return;
        }
    }
}

/// Of this agent's identity among them: a larger one, each time that it had to say anew that it is alive.
fn own_generation(shared: &Shared, members: &Members) -> Option<u64> {
    members.get(&*fold(&shared.identity.node_name)).map(|own| own.generation)
}

impl Seen {
    fn count(&self, status: Status) {
        match status {
            Status::Alive => self.joined.add(1),
            Status::Leaving => {}
            Status::Left => self.left.add(1),
            Status::Failed => self.failed.add(1),
        }
    }
}

fn said(before: Option<Status>, after: Status) -> &'static str {
    match (before, after) {
        (None, Status::Alive) => "a member joined",
        (_, Status::Alive) => "a member is back",
        (_, Status::Leaving) => "a member is about to leave",
        (_, Status::Left) => "a member left",
        (_, Status::Failed) => "a member failed: it does not answer",
    }
}

/// The agent goes on without a pool: what is known is answered, and whoever runs it can look at it.
async fn tell_of_end(task: JoinHandle<Ended>) {
    match task.await {
        Ok(Ended::Conflict(reason)) => {
            tracing::error!(
                reason,
                "another agent has this one's name: gossip ends here, and others count this agent as failed"
            );
        }
        Ok(Ended::Left | Ended::Stopped) => {}
        Err(error) => tracing::error!(%error, "gossip failed"),
    }
}

impl Shared {
    /// Tells the others that this agent goes, and waits until they know; `false` where that takes too long. Servers are not
    /// told of its rows any more: they remove them.
    pub(super) async fn leave_pool(&self) -> bool {
        self.going.cancel();
        let left = tokio::time::timeout(LEAVE_LIMIT, self.pool.leave()).await.is_ok();
        if !left {
            tracing::warn!("the others may not know that this agent left");
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(first: f64, height: f64) -> Coordinate {
        let mut vec = [0.0; 8];
        vec[0] = first;
        Coordinate { vec: vec.into(), height, ..Coordinate::origin() }
    }

    #[test]
    fn a_coordinate_that_trembles_is_not_told() {
        let sure = |first: f64, height: f64, error: f64| Coordinate { error, ..at(first, height) };
        let near = sure(1e-3, 1e-4, 0.1);
        assert!(!has_moved(&near, &sure(1.05e-3, 1e-4, 0.1)));
        assert!(has_moved(&near, &sure(1.3e-3, 1e-4, 0.1)));
        assert!(!has_moved(&near, &sure(1.3e-3, 1e-4, 0.9)), "it is not sure of that");
        assert!(has_moved(&near, &sure(3e-3, 1e-4, 0.9)));
        assert!(has_moved(&near, &sure(1e-3, 1e-4, 0.04)), "it is surer now");
        assert!(!has_moved(&sure(0.0, 1e-5, 0.2), &sure(0.0, 5e-5, 0.2)));
        assert!(has_moved(&sure(80e-3, 1e-4, 0.1), &sure(80e-3, 20e-3, 0.1)));
        assert!(has_moved(&near, &Coordinate { adjustment: 1e-3, ..near.clone() }));
    }

    #[test]
    fn an_agent_says_what_it_is() {
        let identity = Identity {
            node_name: "oak".into(),
            node_id: uuid::Uuid::nil(),
            datacenter: "north".into(),
            server: true,
            bootstrap: true,
            advertise: [10, 0, 0, 1].into(),
            advertise_wan: [10, 0, 0, 1].into(),
            server_port: 8300,
            serf_lan_port: 8301,
            serf_wan_port: Some(8302),
        };
        let told = |identity: &Identity| {
            let tags = tags(identity, Some(Duration::from_secs(86_400)));
            tags.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
        };
        let both = "vsn=2,vsn_max=3,vsn_min=2";
        assert_eq!(
            told(&identity),
            format!(
                "acls=0,bootstrap=1,build=1.16.4:,port=8300,raft_vsn=3,role=consul,segment=,{both},wan_join_port=8302"
            )
        );
        let client = Identity { server: false, bootstrap: false, ..identity };
        assert_eq!(told(&client), format!("build=1.16.4:,rc_tm=24h0m0s,role=node,segment=,{both}"));
    }
}
