//! A member of gossip, as its rows in the catalog need it: what its tags say, read once. A tag that is missing or odd is
//! as good as none; gossip knows nothing of what tags mean.

use std::net::IpAddr;

use uuid::Uuid;

use crate::{catalog::Text, gossip};

/// Of another agent or of this server itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    pub name: Text,
    pub id: Option<Uuid>,
    pub address: IpAddr,
    pub datacenter: Text,
    /// Where it answers other agents, if it is a server.
    pub port: Option<u16>,
    /// That it is compatible with: `1.16.4`.
    pub version: Text,
    pub status: gossip::Status,
}

/// What the tag `role` says of a server.
const SERVER: &str = "consul";

impl From<&gossip::Member> for Member {
    fn from(member: &gossip::Member) -> Self {
        let tag = |name: &str| member.tags.get(name).map_or("", |value| &**value);
        let build = tag("build");
        Member {
            name: member.name.clone(),
            id: tag("id").parse().ok(),
            address: member.address.ip(),
            datacenter: tag("dc").into(),
            port: tag("port").parse().ok().filter(|_| tag("role") == SERVER),
            version: build.split_once(':').map_or(build, |(version, _)| version).into(),
            status: member.status,
        }
    }
}
