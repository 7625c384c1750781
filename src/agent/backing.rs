//! Where the datacenter's state is: here, where this agent is a server; else with servers that it asks.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::{archive::Archiving, forward::HttpForward, mirror::Mirror, shared::Shared};
use crate::{
    catalog::{Catalog, Command, NodeCoordinate, Reply, Subscribe, Subscription, Text, Topic},
    gossip::{Member, Members, Status},
    http::Failure,
    raft::{self, ProposeError, Raft},
    rpc::{self, Address, CallError},
    server,
};

pub enum Backing {
    Server(Box<Server>),
    Client(Box<Client>),
}

/// What a server has beside.
pub struct Server {
    pub raft: Raft,
    pub endings: server::Endings,
    pub membership: server::Membership,
    /// What nodes say of where they are.
    pub coordinates: server::CoordinateUpdates,
    pub archiving: Archiving,
    /// Since when this server leads, as RFC 3339 has it.
    pub led_since: OnceLock<Text>,
}

/// What an agent has that asks servers.
pub struct Client {
    pub rpc: rpc::Client,
    pub mirror: Mirror,
    pub coordinate: CoordinateUpdate,
    pub http: Arc<HttpForward>,
}

/// Why a command was not written, or may not have been.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unwritten {
    #[error(transparent)]
    Here(#[from] ProposeError),
    #[error(transparent)]
    Elsewhere(#[from] CallError),
}

/// What is stopped by itself, when all that needs it has ended.
pub enum Stoppable {
    Raft(JoinHandle<()>, CancellationToken),
    Calls(rpc::Client, CancellationToken),
}

impl Stoppable {
    pub async fn stop(self) {
        match self {
            Stoppable::Raft(running, stop) => {
                stop.cancel();
                let _ended = running.await;
            }
            Stoppable::Calls(rpc, stop) => {
                stop.cancel();
                rpc.stopped().await;
            }
        }
    }
}

impl Backing {
    /// # Errors
    /// Whatever is kept and cannot be opened.
    pub async fn server_of(
        settings: raft::Settings,
        membership: server::Membership,
    ) -> Result<(Backing, Stoppable), String> {
        let stop = CancellationToken::new();
        let (raft, running) = Raft::open(settings, stop.clone()).await?;
        let server = Server {
            raft,
            endings: server::Endings::default(),
            membership,
            coordinates: server::CoordinateUpdates::default(),
            archiving: Archiving::default(),
            led_since: OnceLock::new(),
        };
        Ok((Backing::Server(Box::new(server)), Stoppable::Raft(running, stop)))
    }

    /// `node` is this agent's.
    pub fn client_of(settings: rpc::Settings, node: &Text) -> (Backing, Stoppable) {
        let stop = CancellationToken::new();
        let rpc = rpc::Client::new(settings, stop.clone());
        let client = Client {
            mirror: Mirror::new(rpc.clone(), node),
            coordinate: CoordinateUpdate::default(),
            http: Arc::new(HttpForward { node: node.clone(), rpc: rpc.clone() }),
            rpc: rpc.clone(),
        };
        (Backing::Client(Box::new(client)), Stoppable::Calls(rpc, stop))
    }

    pub fn server(&self) -> Option<&Server> {
        match self {
            Backing::Server(server) => Some(server),
            Backing::Client(_) => None,
        }
    }

    pub fn client(&self) -> Option<&Client> {
        match self {
            Backing::Server(_) => None,
            Backing::Client(client) => Some(client),
        }
    }

    /// All there is; or what this agent was told of.
    pub fn followed(&self) -> Arc<dyn Subscribe> {
        match self {
            Backing::Server(server) => Arc::new(server.raft.clone()),
            Backing::Client(client) => Arc::new(client.mirror.clone()),
        }
    }

    pub fn catalog(&self) -> Arc<Catalog> {
        match self {
            Backing::Server(server) => server.raft.catalog(),
            Backing::Client(client) => client.mirror.catalog(),
        }
    }

    pub fn subscribe(&self, topics: Vec<Topic>) -> Subscription {
        match self {
            Backing::Server(server) => server.raft.subscribe(topics),
            Backing::Client(client) => client.mirror.subscribe(topics),
        }
    }

    pub async fn propose(&self, command: Command) -> Result<Reply, Unwritten> {
        Ok(match self {
            Backing::Server(server) => server.raft.propose(command).await?,
            Backing::Client(client) => client.rpc.propose(&command).await?,
        })
    }

    pub fn update_coordinate(&self, coordinate: NodeCoordinate) {
        match self {
            Backing::Server(server) => server.coordinates.put(coordinate),
            Backing::Client(client) => client.coordinate.put(coordinate),
        }
    }

    /// What only servers have: the text is for whoever asks another agent for it.
    pub fn as_server(&self) -> Result<&Server, Failure> {
        self.server().ok_or_else(|| Failure::Other("this agent is no server".into()))
    }

    /// Ends when agreement has failed for good, and says why.
    pub async fn failed(&self) -> String {
        match self {
            Backing::Server(server) => server.raft.failed().await,
            Backing::Client(_) => std::future::pending().await,
        }
    }
}

impl Shared {
    /// Has what backs this agent at work: of a server, it leads then, and its own rows are there.
    ///
    /// # Errors
    /// Where that does not come about.
    pub(super) async fn back(
        self: &Arc<Self>,
        tasks: &mut JoinSet<()>,
        stop: &CancellationToken,
    ) -> Result<(), String> {
        let (shared, until) = (self.clone(), stop.clone());
        tasks.spawn(async move {
            match &shared.backing {
                Backing::Server(server) => server.coordinates.run(&server.raft, until).await,
                Backing::Client(client) => client.coordinate.run(&client.rpc, until).await,
            }
        });
        match &self.backing {
            Backing::Server(server) => self.lead(server, tasks, stop).await?,
            Backing::Client(_) => {
                tasks.spawn(follow_servers(self.clone(), stop.clone()));
            }
        }
        Ok(())
    }

    async fn lead(
        &self,
        server: &Server,
        tasks: &mut JoinSet<()>,
        stop: &CancellationToken,
    ) -> Result<(), String> {
        server.raft.lead().await?;
        server::give_up(&server.raft).await;
        let since = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true);
        server.led_since.get_or_init(|| since.into());
        let (ready, is_ready) = oneshot::channel();
        let (membership, raft) = (server.membership.clone(), server.raft.clone());
        tasks.spawn(membership.run(raft, self.pool.members(), ready, stop.clone()));
        let (ending, raft, stop) = (server.endings.clone(), server.raft.clone(), stop.clone());
        tasks.spawn(async move { ending.run(raft, stop).await });
        let started = tokio::time::timeout(READY_WITHIN, is_ready).await;
        started
            .map_err(|_| "this server's own rows were not written in time".to_string())?
            .map_err(|error| error.to_string())
    }

    /// Another leads, or one came: every agent compares what it has, some sooner, some later.
    pub(super) fn server_came(&self) {
        self.server_came.send_modify(|count| *count += 1);
    }
}

/// A server's own rows are a write or two.
const READY_WITHIN: Duration = Duration::from_secs(10);

impl Unwritten {
    /// Whether this agent is about to end.
    pub fn is_end(&self) -> bool {
        matches!(self, Unwritten::Here(ProposeError::Stopped))
    }

    /// Whether what follows would fare no better now.
    pub fn is_of_all(&self) -> bool {
        matches!(self, Unwritten::Elsewhere(error) if is_of_all(error))
    }
}

/// Whether no other call would come to anything now.
pub fn is_of_all(error: &CallError) -> bool {
    !matches!(error, CallError::Refused(_))
}

impl From<Unwritten> for Failure {
    fn from(unwritten: Unwritten) -> Self {
        match unwritten {
            Unwritten::Here(ProposeError::NoLeader | ProposeError::Stopped) => Failure::NoLeader,
            other => Failure::Other(other.to_string()),
        }
    }
}

/// Where a node says that it is, on its way to a server: the latest word is enough, and a lost one is said again.
#[derive(Default)]
pub struct CoordinateUpdate {
    latest: Mutex<Option<NodeCoordinate>>,
    some: Notify,
}

impl CoordinateUpdate {
    fn put(&self, coordinate: NodeCoordinate) {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(coordinate);
        self.some.notify_one();
    }

    /// Tells servers, until `stop`. While nobody says anything, nothing happens.
    pub async fn run(&self, rpc: &rpc::Client, stop: CancellationToken) {
        while stop.run_until_cancelled(self.some.notified()).await.is_some() {
            let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some(coordinate) = latest else { continue };
            if let Some(Err(error)) = stop.run_until_cancelled(rpc.coordinate(&coordinate)).await {
                tracing::debug!(%error, "coordinates are not told");
            }
        }
    }
}

/// Takes up who serves, until `stop`.
async fn follow_servers(shared: Arc<Shared>, stop: CancellationToken) {
    let (Some(client), mut members) = (shared.backing.client(), shared.pool.members()) else { return };
    loop {
        let known = members.borrow_and_update().clone();
        let servers = serving(&known, &shared.identity.datacenter);
        if client.rpc.update(&servers, known.len()) {
            tracing::info!(servers = servers.len(), "a server came");
            shared.server_came();
        }
        match stop.run_until_cancelled(members.changed()).await {
            Some(Ok(())) => {}
            // Whoever told us is gone: what is known stays known.
            Some(Err(_)) => return stop.cancelled().await,
            None => return,
        }
    }
}

/// Where the servers among them answer: those that are here, of this datacenter.
fn serving(members: &Members, datacenter: &str) -> Vec<Address> {
    let address = |member: &Arc<Member>| {
        let is = |tag, value: &str| member.tag(tag).is_some_and(|own| **own == *value);
        let serves = member.status == Status::Alive && is("role", "consul") && is("dc", datacenter);
        let port = member.tag("port").filter(|_| serves)?.parse().ok()?;
        Some(Address { name: member.name.clone(), address: (member.address.ip(), port).into() })
    };
    members.values().filter_map(address).collect()
}

/// How much later agents of a large datacenter do what all do (`cluster.md` §6.2).
pub fn scale(members: usize) -> u32 {
    const ALONE: usize = 128;
    if members <= ALONE { 1 } else { (members - 1).ilog2() + 1 - ALONE.ilog2() + 1 }
}

/// After a server came, or another leads, all compare: each within so long.
pub fn stagger(members: usize) -> Duration {
    Duration::from_secs(3) * scale(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `cluster.md` §6.2.
    #[test]
    fn a_large_datacenter_takes_its_time() {
        for (members, factor) in
            [(0, 1), (1, 1), (128, 1), (129, 2), (256, 2), (257, 3), (8192, 7), (8193, 8)]
        {
            assert_eq!(scale(members), factor, "{members}");
        }
        assert_eq!(stagger(300), Duration::from_secs(9));
    }
}
