//! What this room asks of the agent that it speaks for, and nothing more: it may not know the rooms above it, so the
//! agent implements this trait. Tests implement it over a catalog in memory.

use std::{collections::BTreeMap, io, net::SocketAddr, pin::Pin, sync::Arc};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Level;
use uuid::Uuid;

use super::onward::Elsewhere;
use crate::{
    catalog::{Check, Command, Coordinate, NodeCoordinate, Reply, Service, Status, Subscribe, Text},
    check::{Definition, ServiceDefinition},
};

/// Something that an agent will have done. Whoever implements [`Agent`] sees to it that it ends.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An agent, as its HTTP API needs it. Writes return when they are done, or will not be: within seconds.
pub trait Agent: Subscribe {
    fn datacenter(&self) -> &Text;

    /// The name of this agent's node.
    fn node(&self) -> &Text;

    /// Who answers what is of the datacenter, where this agent cannot.
    fn elsewhere(&self) -> Option<Arc<dyn Elsewhere>>;

    /// Puts a command to the log, and gives what applying it came to.
    fn propose(&self, command: Command) -> Pending<'_, Result<Reply, Failure>>;

    /// A session's client gave a word: its time to live begins anew.
    fn renew_session(&self, id: Uuid) -> Pending<'_, Result<(), Failure>>;

    /// Where the leader answers other servers, if anyone leads, and has applied all that was ever acknowledged.
    fn leader(&self) -> Option<SocketAddr>;

    /// Where every server that has a voice answers the others.
    fn peers(&self) -> Vec<SocketAddr>;

    /// Every server that has a voice, or may come to one.
    fn servers(&self) -> Vec<ServerStatus>;

    /// Where a node says that it is; it is in the catalog a little later, if the node is.
    fn update_coordinate(&self, coordinate: NodeCoordinate);

    /// An archive of all that is agreed on, as it is now.
    fn save(&self) -> Pending<'_, Result<Archive, Failure>>;

    /// Puts an archive in place of all that is agreed on, or changes nothing. It ends where no more pieces come; no more
    /// than `bytes_max` of it are taken, once it is not compressed any more.
    fn restore(&self, pieces: mpsc::Receiver<Bytes>, bytes_max: u64) -> Pending<'_, Result<(), Failure>>;

    /// What is registered on this agent, by id; indexes are of no meaning.
    fn services(&self) -> Vec<Arc<Service>>;

    /// Registers now, and ends after a change to what is registered here. It may end without a change.
    fn services_changed(&self) -> Pending<'static, ()>;

    /// The checks registered on this agent, as the catalog's records say them, by id; indexes are of no meaning.
    fn checks(&self) -> Vec<Arc<Check>>;

    /// Registers a service with its checks, or again. Checks of its former self stay unless `replace_checks`.
    fn register_service(
        &self,
        definition: ServiceDefinition,
        replace_checks: bool,
    ) -> Pending<'_, Result<(), Failure>>;

    fn deregister_service(&self, id: String) -> Pending<'_, Result<(), Failure>>;

    /// Registers a check of the node, or of a service that is registered here.
    fn register_check(&self, definition: Definition) -> Pending<'_, Result<(), Failure>>;

    fn deregister_check(&self, id: String) -> Pending<'_, Result<(), Failure>>;

    /// Takes a service of this agent, or its whole node, out of every answer. Where it is so already, the first reason
    /// stays.
    fn maintain(&self, service: Option<String>, reason: String) -> Pending<'_, Result<(), Failure>>;

    /// Ends that, where it was so.
    fn resume(&self, service: Option<String>) -> Pending<'_, Result<(), Failure>>;

    /// The word of a program about itself: of a check with a TTL only.
    fn update_check(&self, id: String, status: Status, output: String) -> Pending<'_, Result<(), Failure>>;

    /// Reads the configuration again; with any fault in it, nothing changes.
    fn reload(&self) -> Pending<'_, Result<(), Failure>>;

    /// Makes this agent one of those whom it finds at an address: of other datacenters, where `wan` is asked for.
    fn join(&self, address: String, wan: bool) -> Pending<'_, Result<(), Failure>>;

    /// Counts a failed member as one that has left; with `prune`, it is forgotten.
    fn force_leave(&self, node: String, prune: bool, wan: bool) -> Pending<'_, Result<(), Failure>>;

    /// Leaves the others, and ends this agent in order; returns when it has left, and the end has begun.
    fn leave(&self) -> Pending<'_, ()>;

    /// Tells an event to every agent of this datacenter.
    fn fire(&self, event: Event) -> Pending<'_, Result<(), Failure>>;

    /// The last events that this agent heard of those that are for it, oldest first.
    fn events(&self) -> Vec<Arc<Event>>;

    /// Registers now, and ends after another event. It may end without one.
    fn events_changed(&self) -> Pending<'static, ()>;

    fn about(&self) -> About;

    /// Whoever is known of this datacenter; of all datacenters, their servers, where `wan` is asked for. `None` where that is
    /// not this agent's to know.
    fn members(&self, wan: bool) -> Option<Vec<Member>>;

    /// Members that do not answer and are not believed to be gone, since many vanished at once; by name.
    fn unconfirmed(&self) -> Vec<Text>;

    /// An operator's word that they are gone: this one, or all. How many they were.
    fn confirm_failed(&self, node: Option<&str>) -> usize;

    /// Does it with the keys of gossip, on every member of every pool of this agent; with `local_only`, on this one alone.
    fn keyring(&self, operation: KeyOperation, local_only: bool) -> Pending<'_, Vec<KeyReport>>;

    /// The machine that this agent runs on, as JSON.
    fn host(&self) -> Pending<'static, Vec<u8>>;

    /// Figures of the last whole interval, as JSON.
    fn metrics(self: Arc<Self>) -> Pending<'static, Vec<u8>>;

    /// Figures of each interval from now on, when it is over, as a line of JSON.
    fn metrics_to_come(&self) -> Live;

    /// What this agent logs from now on, at this level and above: lines of words, or of JSON. `None` where too many follow
    /// it already.
    fn log_to_come(&self, level: Level, json: bool) -> Option<Live>;

    /// Figures up to now, in Prometheus' text form; `None` where that is not wanted.
    fn prometheus(self: Arc<Self>) -> Pending<'static, Option<String>>;
}

/// What comes without an end: the next part, as soon as there is one, and all that follows it. `None` is the end.
pub struct Live(pub Pending<'static, Option<(Bytes, Live)>>);

impl Live {
    pub fn new(next: impl Future<Output = Option<(Bytes, Live)>> + Send + 'static) -> Live {
        Live(Box::pin(next))
    }

    /// As this, to its own end or the agent's; what is there by then is still told.
    pub fn until(self, stop: CancellationToken) -> Live {
        Live::new(async move {
            let next = tokio::select! {
                biased;
                next = self.0 => next,
                () = stop.cancelled() => None,
            };
            let (part, rest) = next?;
            Some((part, rest.until(stop)))
        })
    }
}

/// Why an agent did not do what it was asked. `Display` is Consul's text where clients match on it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nothing was written. It may go better soon.
    #[error("No cluster leader")]
    NoLeader,
    /// There is no such service or check here; the text names it.
    #[error("{0}")]
    Unknown(String),
    /// Anything else, in words for whoever asked.
    #[error("{0}")]
    Other(String),
}

/// Something that users tell to agents.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    pub id: Uuid,
    pub name: String,
    pub payload: Bytes,
    /// Patterns of the nodes that it is for, of services on them and of their tags; empty for all.
    pub node_filter: String,
    pub service_filter: String,
    pub tag_filter: String,
    /// Lamport's time; 0 until it is told.
    pub time: u64,
}

/// Whether an agent is there, by the numbers that clients know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    #[default]
    Alive = 1,
    Leaving = 2,
    Left = 3,
    Failed = 4,
}

/// An agent, as others see it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Member {
    pub name: Text,
    pub status: Standing,
    /// Where members speak with it.
    pub gossip: Option<SocketAddr>,
    pub tags: Vec<(Text, Text)>,
}

/// What is done with the keys of gossip; a key is in base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyOperation {
    List,
    Install(String),
    Use(String),
    Remove(String),
}

/// What the members of a pool said to that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyReport {
    pub wan: bool,
    pub members: usize,
    /// Why it is not done everywhere, and by member, why it is not done there.
    pub fault: Option<String>,
    pub messages: BTreeMap<Text, String>,
    /// By key: how many members have it, and how many use it.
    pub keys: BTreeMap<String, usize>,
    pub primary: BTreeMap<String, usize>,
}

/// An archive on its way.
#[derive(Debug)]
pub struct Archive {
    /// Of the catalog in it.
    pub index: u64,
    /// One that is an error ends it before its end.
    pub pieces: mpsc::Receiver<io::Result<Bytes>>,
}

/// A server, as the others know it.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerStatus {
    pub id: Uuid,
    pub node: Text,
    /// Where it answers the others.
    pub address: SocketAddr,
    /// Of the Consul that it is compatible with.
    pub version: Text,
    pub leads: bool,
    /// Whether it has a voice.
    pub votes: bool,
    /// Whether it is alive, and has what the leader has.
    pub healthy: bool,
    /// Of the last entry in its log.
    pub last_term: u64,
    pub last_index: u64,
    /// Since when it has been healthy, or has not, as RFC 3339 has it.
    pub stable_since: Text,
}

/// What an agent says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct About {
    pub node: Text,
    pub id: Option<Uuid>,
    /// Of the Consul whose files, HTTP and DNS this agent keeps to.
    pub version: Text,
    pub server: bool,
    /// The zone of its names, with a final dot, and where they are asked.
    pub dns_domain: Text,
    pub dns_addrs: Vec<SocketAddr>,
    /// As others of its datacenter see it.
    pub member: Member,
    /// Where it is, by the time that others take to answer it.
    pub coordinate: Coordinate,
    /// Of the node.
    pub meta: Vec<(Text, Text)>,
    /// Figures by section: `agent`, `consul`, `raft` …
    pub stats: Vec<(Text, Vec<(Text, Text)>)>,
}
