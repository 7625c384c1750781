//! What filters may select from each kind of record, under the names of the answers' fields, and how it is found in it.

use std::net::SocketAddr;

use crate::{
    catalog::{Check, Instance, Map, Node, Service, ServiceAddress, Text},
    http::{agent::Member, encode},
};

/// A kind of record that a list shows.
pub trait Shape {
    type Record: 'static;

    /// What a selector finds in a record; `None` where there is no such field.
    fn field(path: &[&str]) -> Option<Field<Self::Record>>;
}

/// Something that can be looked for in a record.
pub struct Field<T> {
    pub kind: Kind,
    look: Look<T>,
}

type Look<T> = Box<dyn Fn(&T, Holds) -> bool + Send + Sync>;

/// What is asked of what is found.
type Holds<'a> = &'a dyn Fn(Found) -> bool;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Flag,
    Number,
    Texts,
    /// Of a map.
    Keys,
    /// Of records, of which only emptiness is asked.
    List,
    /// Only its fields can be asked for.
    Struct,
}

pub enum Found<'a> {
    Text(&'a str),
    Flag(bool),
    Number(i128),
    Texts(&'a [Text]),
    Keys {
        is_empty: bool,
        has: &'a dyn Fn(&str) -> bool,
    },
    List {
        is_empty: bool,
    },
    /// A map does not have the key.
    Missing,
}

/// `/catalog/nodes`
pub struct NodeRecord;
/// `/catalog/service`, `/catalog/services`: an instance, its service's fields prefixed.
pub struct CatalogService;
/// `/catalog/node`, `/agent/services`
pub struct ServiceRecord;
/// `/health/checks`, `/health/node`, `/health/state`, `/agent/checks`
pub struct HealthCheck;
/// `/health/service`
pub struct HealthService;
/// `/agent/members`
pub struct AgentMember;

impl<T: 'static> Field<T> {
    /// Whether it holds for what is found: for any, where there are several.
    pub fn any(&self, record: &T, holds: Holds) -> bool {
        (self.look)(record, holds)
    }

    fn new(kind: Kind, look: impl Fn(&T, Holds) -> bool + Send + Sync + 'static) -> Option<Self> {
        Some(Field { kind, look: Box::new(look) })
    }

    fn text(get: fn(&T) -> &str) -> Option<Self> {
        Self::new(Kind::Text, move |record, holds| holds(Found::Text(get(record))))
    }

    fn flag(get: fn(&T) -> bool) -> Option<Self> {
        Self::new(Kind::Flag, move |record, holds| holds(Found::Flag(get(record))))
    }

    fn number(get: fn(&T) -> i128) -> Option<Self> {
        Self::new(Kind::Number, move |record, holds| holds(Found::Number(get(record))))
    }

    fn texts(get: fn(&T) -> &[Text]) -> Option<Self> {
        Self::new(Kind::Texts, move |record, holds| holds(Found::Texts(get(record))))
    }

    /// A list that is always empty here.
    fn no_list() -> Option<Self> {
        Self::new(Kind::List, |_, holds| holds(Found::List { is_empty: true }))
    }

    /// A field of the records in a list that is always empty here.
    fn in_no_list(kind: Kind) -> Option<Self> {
        Self::new(kind, |_, _| false)
    }

    fn no_operator() -> Option<Self> {
        Self::new(Kind::Struct, |_, _| false)
    }

    /// A map's keys, or one of its values.
    fn map<V: 'static>(
        path: &[&str],
        get: fn(&T) -> Option<&Map<V>>,
        value: impl FnOnce(&[&str]) -> Option<Field<V>>,
    ) -> Option<Self> {
        let Some((key, rest)) = path.split_first() else {
            return Self::new(Kind::Keys, move |record, holds| {
                let map = get(record);
                let has = |key: &str| map.is_some_and(|map| map.get(key).is_some());
                holds(Found::Keys { is_empty: map.is_none_or(Map::is_empty), has: &has })
            });
        };
        let (key, value) = (key.to_string(), value(rest)?);
        Self::new(value.kind, move |record, holds| match get(record).and_then(|map| map.get(&key)) {
            Some(found) => value.any(found, holds),
            None => holds(Found::Missing),
        })
    }

    /// The same, found in what holds the record.
    fn within<U: 'static>(self, get: fn(&U) -> &T) -> Option<Field<U>> {
        Field::new(self.kind, move |record, holds| self.any(get(record), holds))
    }
}

impl Shape for NodeRecord {
    type Record = Node;

    fn field(path: &[&str]) -> Option<Field<Node>> {
        match path {
            ["ID"] => Field::new(Kind::Text, |node: &Node, holds| {
                let mut id = [0; uuid::fmt::Hyphenated::LENGTH];
                holds(Found::Text(node.id.map_or("", |uuid| uuid.hyphenated().encode_lower(&mut id))))
            }),
            ["Node"] => Field::text(|node: &Node| &node.name),
            ["Address"] => Field::text(|node: &Node| &node.address),
            ["Datacenter"] => Field::text(|node: &Node| &node.datacenter),
            ["PeerName"] => Field::text(|_| ""),
            ["TaggedAddresses", rest @ ..] => {
                Field::map(rest, |node: &Node| node.tagged_addresses.as_ref(), text)
            }
            ["Meta", rest @ ..] => Field::map(rest, |node: &Node| node.meta.as_ref(), text),
            _ => None,
        }
    }
}

impl Shape for ServiceRecord {
    type Record = Service;

    fn field(path: &[&str]) -> Option<Field<Service>> {
        match path {
            ["Kind"] => Field::text(|service: &Service| &service.kind),
            ["ID"] => Field::text(|service: &Service| &service.id),
            ["Service"] => Field::text(|service: &Service| &service.name),
            ["Tags"] => Field::texts(|service: &Service| &service.tags),
            ["Meta", rest @ ..] => Field::map(rest, |service: &Service| service.meta.as_ref(), text),
            ["Port"] => Field::number(|service: &Service| service.port.into()),
            ["Address"] => Field::text(|service: &Service| &service.address),
            ["SocketPath"] => Field::text(|service: &Service| &service.socket_path),
            ["TaggedAddresses", rest @ ..] => {
                Field::map(rest, |service: &Service| service.tagged_addresses.as_ref(), address)
            }
            ["Weights"] | ["Connect"] => Field::no_operator(),
            ["Weights", "Passing"] => Field::number(|service: &Service| service.weights.passing.into()),
            ["Weights", "Warning"] => Field::number(|service: &Service| service.weights.warning.into()),
            ["EnableTagOverride"] => Field::flag(|service: &Service| service.enable_tag_override),
            ["Proxy", rest @ ..] => proxy(rest),
            ["Connect", "Native"] => Field::flag(|_| false),
            ["PeerName"] => Field::text(|_| ""),
            _ => None,
        }
    }
}

/// No service here has a sidecar: everything of it is empty.
fn proxy(path: &[&str]) -> Option<Field<Service>> {
    match path {
        [] | ["MeshGateway" | "Expose" | "TransparentProxy"] => Field::no_operator(),
        ["DestinationServiceName" | "DestinationServiceID" | "LocalServiceAddress" | "Mode"]
        | ["MeshGateway", "Mode"] => Field::text(|_| ""),
        ["LocalServicePort"] | ["TransparentProxy", "OutboundListenerPort"] => Field::number(|_| 0),
        ["Expose", "Checks"] => Field::flag(|_| false),
        ["Upstreams"] | ["Expose", "Paths"] => Field::no_list(),
        [
            "Upstreams",
            "DestinationType"
            | "DestinationNamespace"
            | "DestinationName"
            | "Datacenter"
            | "LocalBindAddress",
        ]
        | ["Upstreams", "MeshGateway", "Mode"]
        | ["Expose", "Paths", "Path" | "Protocol"] => Field::in_no_list(Kind::Text),
        ["Upstreams", "LocalBindPort"] | ["Expose", "Paths", "ListenerPort" | "LocalPathPort"] => {
            Field::in_no_list(Kind::Number)
        }
        ["Expose", "Paths", "ParsedFromCheck"] => Field::in_no_list(Kind::Flag),
        _ => None,
    }
}

impl Shape for CatalogService {
    type Record = Instance;

    fn field(path: &[&str]) -> Option<Field<Instance>> {
        let (first, rest) = path.split_first()?;
        let of_node = |path: &[&str]| NodeRecord::field(path)?.within(|instance: &Instance| &*instance.node);
        match (*first, first.strip_prefix("Service")) {
            ("NodeMeta", _) => of_node(&[&["Meta"], rest].concat()),
            ("Meta" | "ServicePeerName" | "Service" | "ServiceService", _) => None,
            ("ServiceName", _) if rest.is_empty() => Self::of_service(&["Service"]),
            (_, Some("Name")) => None,
            (_, Some(name)) => Self::of_service(&[&[name], rest].concat()),
            _ => of_node(path),
        }
    }
}

impl CatalogService {
    fn of_service(path: &[&str]) -> Option<Field<Instance>> {
        ServiceRecord::field(path)?.within(|instance: &Instance| &*instance.service)
    }
}

impl Shape for HealthCheck {
    type Record = Check;

    fn field(path: &[&str]) -> Option<Field<Check>> {
        match path {
            ["Node"] => Field::text(|check: &Check| &check.node),
            ["CheckID"] => Field::text(|check: &Check| &check.id),
            ["Name"] => Field::text(|check: &Check| &check.name),
            ["Status"] => Field::text(|check: &Check| check.status.as_str()),
            ["Notes"] => Field::text(|check: &Check| &check.notes),
            ["Output"] => Field::text(|check: &Check| &check.output),
            ["ServiceID"] => Field::text(|check: &Check| &check.service_id),
            ["ServiceName"] => Field::text(|check: &Check| &check.service_name),
            ["ServiceTags"] => Field::texts(|check: &Check| &check.service_tags),
            ["Type"] => Field::text(|check: &Check| &check.kind),
            ["Interval"] => Field::text(|check: &Check| &check.interval),
            ["Timeout"] => Field::text(|check: &Check| &check.timeout),
            ["ExposedPort"] => Field::number(|check: &Check| check.exposed_port.into()),
            ["PeerName"] => Field::text(|_| ""),
            _ => None,
        }
    }
}

impl Shape for HealthService {
    type Record = Instance;

    fn field(path: &[&str]) -> Option<Field<Instance>> {
        match path {
            ["Node" | "Service"] => Field::no_operator(),
            ["Node", rest @ ..] => NodeRecord::field(rest)?.within(|instance: &Instance| &*instance.node),
            ["Service", rest @ ..] => CatalogService::of_service(rest),
            ["Checks"] => Field::new(Kind::List, |instance: &Instance, holds| {
                holds(Found::List { is_empty: instance.node_checks.is_empty() && instance.checks.is_empty() })
            }),
            ["Checks", rest @ ..] => {
                let check = HealthCheck::field(rest)?;
                Field::new(check.kind, move |instance: &Instance, holds| {
                    let mut all = instance.node_checks.iter().chain(instance.checks.iter());
                    all.any(|one| check.any(one, holds))
                })
            }
            _ => None,
        }
    }
}

impl Shape for AgentMember {
    type Record = Member;

    fn field(path: &[&str]) -> Option<Field<Member>> {
        match path {
            ["Name"] => Field::text(|member: &Member| &member.name),
            ["Addr"] => Field::new(Kind::Text, |member: &Member, holds| {
                holds(Found::Text(&member.gossip.map(|gossip| gossip.ip().to_string()).unwrap_or_default()))
            }),
            ["Port"] => {
                Field::number(|member: &Member| member.gossip.as_ref().map_or(0, SocketAddr::port).into())
            }
            ["Status"] => Field::number(|member: &Member| (member.status as u8).into()),
            ["Tags"] => Field::new(Kind::Keys, |member: &Member, holds| {
                let has = |key: &str| member.tags.iter().any(|(tag, _)| **tag == *key);
                holds(Found::Keys { is_empty: member.tags.is_empty(), has: &has })
            }),
            ["Tags", key] => {
                let key = Text::from(*key);
                Field::new(Kind::Text, move |member: &Member, holds| {
                    match member.tags.iter().find(|(tag, _)| *tag == key) {
                        Some((_, value)) => holds(Found::Text(value)),
                        None => holds(Found::Missing),
                    }
                })
            }
            [name] => {
                let (_, version) = encode::PROTOCOLS.iter().find(|(known, _)| known == name)?;
                Field::new(Kind::Number, |_, holds| holds(Found::Number((*version).into())))
            }
            _ => None,
        }
    }
}

/// What a map of texts holds.
fn text(path: &[&str]) -> Option<Field<Text>> {
    if path.is_empty() { Field::text(|text: &Text| text) } else { None }
}

fn address(path: &[&str]) -> Option<Field<ServiceAddress>> {
    match path {
        [] => Field::no_operator(),
        ["Address"] => Field::text(|address: &ServiceAddress| &address.address),
        ["Port"] => Field::number(|address: &ServiceAddress| address.port.into()),
        _ => None,
    }
}
