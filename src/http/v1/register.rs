//! Bodies of `/v1/catalog/register` and `/deregister` into commands. What refuses them before the log stands here
//! (`cluster.md` §1.4): a body that cannot be read is the client's fault, 400; everything else is 500, as in Consul.

use uuid::Uuid;

use crate::{
    catalog::{
        Check, Command, Locality, Map, Node, Register, Service, ServiceAddress, Status, Target, Text, Weights,
    },
    http::{
        call::is_own_datacenter,
        encode,
        json::{Malformed, Object},
        reply::Fault,
    },
};

/// From a body, on an agent of this datacenter.
pub type Decode = fn(Object, &Text) -> Result<Command, Fault>;

pub fn registration(mut body: Object, own: &Text) -> Result<Command, Fault> {
    let service = body.object("Service")?.map(decode_service).transpose().map_err(refused)?;
    let mut checks: Vec<Object> = body.object("Check")?.into_iter().collect();
    checks.extend(body.objects("Checks")?.unwrap_or_default());
    let checks = checks.into_iter().map(decode_check).collect::<Result<_, _>>().map_err(refused)?;
    let (datacenter, id) = (body.text("Datacenter")?, body.text("ID")?.unwrap_or_default());
    let mut node = Node {
        id: None,
        name: text(&mut body, "Node")?,
        address: text(&mut body, "Address")?,
        datacenter: own.clone(),
        tagged_addresses: body.map("TaggedAddresses")?,
        meta: body.map("NodeMeta")?,
        locality: decode_locality(&mut body)?,
        ..Node::default()
    };
    let skip_node_update = body.flag("SkipNodeUpdate")?.unwrap_or(false);
    body.refuse("PeerName")?;
    // The last is what a Python client sends beside every body that has a token.
    body.ignore("Token|CreateIndex|ModifyIndex|WriteRequest");
    body.enterprise();
    body.finish().map_err(refused)?;

    is_own_datacenter(&datacenter.unwrap_or_default(), own)?;
    if node.name.is_empty() {
        return Err(Fault::failed("Must provide node"));
    }
    if node.address.is_empty() && !skip_node_update {
        return Err(Fault::failed("Must provide address if SkipNodeUpdate is not set"));
    }
    node.id = parse_id(&id)?;
    let service = service.map(valid_service).transpose()?;
    Ok(Command::Register(Box::new(Register { node, skip_node_update, service, checks })))
}

pub fn deregistration(mut body: Object, own: &Text) -> Result<Command, Fault> {
    let node = text(&mut body, "Node")?;
    let (service, check) = (text(&mut body, "ServiceID")?, text(&mut body, "CheckID")?);
    let datacenter = body.text("Datacenter")?;
    body.refuse("PeerName")?;
    body.ignore("Address|Token|WriteRequest");
    body.enterprise();
    body.finish().map_err(refused)?;
    is_own_datacenter(&datacenter.unwrap_or_default(), own)?;
    if node.is_empty() {
        return Err(Fault::failed("Must provide node"));
    }
    let target = match (&*service, &*check) {
        ("", "") => Target::Node,
        ("", _) => Target::Check(check),
        _ => Target::Service(service),
    };
    Ok(Command::Deregister { node, target })
}

/// A service as a body gives it; its port may be out of range yet.
struct Given {
    service: Service,
    port: i64,
}

fn decode_service(mut body: Object) -> Result<Given, Malformed> {
    let port = body.int("Port")?.unwrap_or(0);
    let service = Service {
        id: text(&mut body, "ID")?,
        name: text(&mut body, "Service")?,
        kind: text(&mut body, "Kind")?,
        tags: texts(&mut body, "Tags")?,
        address: text(&mut body, "Address")?,
        tagged_addresses: decode_addresses(&mut body)?,
        socket_path: text(&mut body, "SocketPath")?,
        meta: body.map("Meta")?,
        weights: body.object("Weights")?.map(decode_weights).transpose()?.unwrap_or_default(),
        enable_tag_override: body.flag("EnableTagOverride")?.unwrap_or(false),
        locality: decode_locality(&mut body)?,
        modified: body.index("ModifyIndex")?.unwrap_or(0),
        ..Service::default()
    };
    body.refuse("Proxy")?;
    body.refuse("Connect")?;
    body.refuse("PeerName")?;
    body.ignore("CreateIndex");
    body.enterprise();
    body.finish()?;
    Ok(Given { service, port })
}

fn valid_service(given: Given) -> Result<Service, Fault> {
    let Given { service, port } = given;
    if service.name.is_empty() {
        return Err(Fault::failed("Must provide service name (Service.Service) when service ID is provided"));
    }
    if matches!(&*service.address, "0.0.0.0" | "::" | "[::]") {
        return Err(Fault::failed("Invalid service address"));
    }
    let out_of_range = |_| Fault::failed(format!("Invalid service port {port}; expected 0 to 65535"));
    let id = service.id_or_name().clone();
    Ok(Service { id, port: port.try_into().map_err(out_of_range)?, ..service })
}

/// A node's own record, as an operation of a transaction has it.
pub fn decode_node(mut body: Object, own: &Text) -> Result<Node, Malformed> {
    let id = body.text("ID")?.unwrap_or_default();
    let node = Node {
        id: parse_id(&id).map_err(|fault| Malformed(fault.text))?,
        name: text(&mut body, "Node")?,
        address: text(&mut body, "Address")?,
        datacenter: own.clone(),
        tagged_addresses: body.map("TaggedAddresses")?,
        meta: body.map("Meta")?,
        locality: decode_locality(&mut body)?,
        modified: body.index("ModifyIndex")?.unwrap_or(0),
        ..Node::default()
    };
    body.refuse("PeerName")?;
    body.ignore("Datacenter|CreateIndex");
    body.enterprise();
    body.finish()?;
    Ok(node)
}

/// A service, likewise.
pub fn decode_row_service(body: Object) -> Result<Service, Malformed> {
    let Given { service, port } = decode_service(body)?;
    let out_of_range =
        |_| Malformed(format!("json: cannot unmarshal number {port} into field Port of type uint16"));
    Ok(Service { port: port.try_into().map_err(out_of_range)?, ..service })
}

/// Without a passing weight both are 1; with one, a warning weight that is not given is 0.
fn decode_weights(mut body: Object) -> Result<Weights, Malformed> {
    let mut weight = |key| Ok(body.int(key)?.unwrap_or(0).clamp(i32::MIN.into(), i32::MAX.into()) as i32);
    let (passing, warning) = (weight("Passing")?, weight("Warning")?);
    body.finish()?;
    Ok(if passing > 0 { Weights { passing, warning } } else { Weights::default() })
}

pub fn decode_addresses(body: &mut Object) -> Result<Option<Map<ServiceAddress>>, Malformed> {
    let Some(addresses) = body.object_map("TaggedAddresses|tagged_addresses")? else { return Ok(None) };
    let address = |mut body: Object| {
        let (address, port) = (text(&mut body, "Address")?, body.int("Port")?.unwrap_or(0));
        body.finish()?;
        let out_of_range =
            |_| Malformed(format!("json: cannot unmarshal number {port} into field Port of type uint16"));
        Ok(ServiceAddress { address, port: port.try_into().map_err(out_of_range)? })
    };
    let addresses = addresses.into_iter().map(|(name, body)| Ok((name, address(body)?)));
    let addresses = addresses.collect::<Result<Map<_>, _>>()?;
    Ok((!addresses.is_empty()).then_some(addresses))
}

pub fn decode_locality(body: &mut Object) -> Result<Option<std::sync::Arc<Locality>>, Malformed> {
    let Some(mut body) = body.object("Locality")? else { return Ok(None) };
    let locality = Locality { region: text(&mut body, "Region")?, zone: text(&mut body, "Zone")? };
    body.finish()?;
    Ok(Some(locality.into()))
}

/// A check, on the node that it names.
pub fn decode_check(mut body: Object) -> Result<Check, Malformed> {
    let name = text(&mut body, "Name")?;
    let id = text(&mut body, "CheckID")?;
    let status = body.text("Status")?.filter(|status| !status.is_empty());
    let (kind, definition) = body.object("Definition")?.map_or(Ok(("", None)), decode_definition)?;
    let given_kind = text(&mut body, "Type")?;
    let exposed_port = body.int("ExposedPort")?.and_then(|port| port.try_into().ok()).unwrap_or(0);
    let check = Check {
        node: text(&mut body, "Node")?,
        id: if id.is_empty() { name.clone() } else { id },
        name,
        status: status.map(|status| Status::from(&*status)).unwrap_or_default(),
        notes: text(&mut body, "Notes")?,
        output: text(&mut body, "Output")?,
        service_id: text(&mut body, "ServiceID")?,
        service_name: text(&mut body, "ServiceName")?,
        service_tags: texts(&mut body, "ServiceTags")?,
        kind: if given_kind.is_empty() { kind.into() } else { given_kind },
        interval: text(&mut body, "Interval")?,
        timeout: text(&mut body, "Timeout")?,
        exposed_port,
        definition,
        modified: body.index("ModifyIndex")?.unwrap_or(0),
        ..Check::default()
    };
    body.refuse("PeerName")?;
    body.ignore("CreateIndex");
    body.enterprise();
    body.finish()?;
    Ok(check)
}

/// A check's definition, which nobody here acts on: its kind, and the object as it is shown. Unknown keys are dropped.
fn decode_definition(mut body: Object) -> Result<(&'static str, Option<Text>), Malformed> {
    let mut json = encode::Json::default();
    let mut given = Vec::new();
    let mut fault = Ok(());
    json.object(|json| {
        for (key, shape) in DEFINITION {
            match shape.write(&mut body, key, json) {
                Ok(true) => given.push(*key),
                Ok(false) => {}
                Err(malformed) => fault = Err(malformed),
            }
        }
    });
    fault?;
    let kind = KINDS.iter().find(|(key, _)| given.contains(key)).map_or("", |(_, kind)| kind);
    let kind = if kind == "script" && given.contains(&"DockerContainerID") { "" } else { kind };
    let definition = (!given.is_empty()).then(|| String::from_utf8_lossy(&json.into_bytes()).as_ref().into());
    Ok((kind, definition))
}

enum Shape {
    Text,
    Flag,
    Int,
    Texts,
    Header,
    Duration,
    /// A duration that is shown in nanoseconds.
    Nanos,
}

/// The keys of a definition, as they are shown.
const DEFINITION: &[(&str, Shape)] = &[
    ("Interval", Shape::Duration),
    ("Timeout", Shape::Duration),
    ("DeregisterCriticalServiceAfter", Shape::Duration),
    ("HTTP", Shape::Text),
    ("Header", Shape::Header),
    ("Method", Shape::Text),
    ("Body", Shape::Text),
    ("DisableRedirects", Shape::Flag),
    ("TLSServerName", Shape::Text),
    ("TLSSkipVerify", Shape::Flag),
    ("TCP", Shape::Text),
    ("TCPUseTLS", Shape::Flag),
    ("UDP", Shape::Text),
    ("GRPC", Shape::Text),
    ("GRPCUseTLS", Shape::Flag),
    ("OSService", Shape::Text),
    ("H2PING", Shape::Text),
    ("H2PingUseTLS", Shape::Flag),
    ("OutputMaxSize", Shape::Int),
    ("ScriptArgs", Shape::Texts),
    ("DockerContainerID", Shape::Text),
    ("Shell", Shape::Text),
    ("AliasNode", Shape::Text),
    ("AliasService", Shape::Text),
    ("TTL", Shape::Nanos),
];

/// The kinds that are read off a definition; the first key that is given decides.
const KINDS: &[(&str, &str)] = &[
    ("HTTP", "http"),
    ("TTL", "ttl"),
    ("TCP", "tcp"),
    ("AliasNode", "alias"),
    ("AliasService", "alias"),
    ("ScriptArgs", "script"),
    ("H2PING", "h2ping"),
];

impl Shape {
    /// Writes a key with its value, unless that is empty.
    fn write(&self, body: &mut Object, key: &str, json: &mut encode::Json) -> Result<bool, Malformed> {
        let text = |json: &mut encode::Json, text: Option<String>| {
            let given = text.filter(|text| !text.is_empty());
            given.map(|text| json.key(key).text(&text)).is_some()
        };
        let number = |json: &mut encode::Json, number: i64| {
            if number != 0 {
                json.key(key).number(number);
            }
            number != 0
        };
        Ok(match self {
            Shape::Text => text(json, body.text(key)?),
            Shape::Duration => {
                text(json, body.span(key)?.filter(|span| span.nanos != 0).map(|span| span.text))
            }
            Shape::Int => number(json, body.int(key)?.unwrap_or(0)),
            Shape::Nanos => number(json, body.span(key)?.map_or(0, |span| span.nanos)),
            Shape::Flag => {
                let flag = body.flag(key)?.unwrap_or(false);
                if flag {
                    json.key(key).flag(true);
                }
                flag
            }
            Shape::Texts => {
                let texts = self::texts(body, key)?;
                if !texts.is_empty() {
                    json.key(key).texts(&texts);
                }
                !texts.is_empty()
            }
            Shape::Header => {
                let lists = body.lists(key)?.unwrap_or_default();
                if !lists.is_empty() {
                    json.key(key).object(|json| {
                        for (name, values) in &lists {
                            json.key(name).list(|json| values.iter().for_each(|value| json.text(value)));
                        }
                    });
                }
                !lists.is_empty()
            }
        })
    }
}

fn parse_id(id: &str) -> Result<Option<Uuid>, Fault> {
    if id.is_empty() {
        return Ok(None);
    }
    if id.len() != uuid::fmt::Hyphenated::LENGTH {
        return Err(Fault::failed("Bad node ID: uuid string is wrong length"));
    }
    let badly_formed = |_| Fault::failed("Bad node ID: uuid is improperly formatted");
    Uuid::try_parse(id).map(Some).map_err(badly_formed)
}

/// In the catalog's bodies Consul says more of one key.
fn refused(malformed: Malformed) -> Fault {
    let namespaced = malformed.0.ends_with("unknown field \"Namespace\"");
    let hint = if namespaced { " - Namespaces are a Consul Enterprise feature" } else { "" };
    Malformed(malformed.0 + hint).into()
}

fn text(body: &mut Object, key: &str) -> Result<Text, Malformed> {
    Ok(body.text(key)?.unwrap_or_default().into())
}

fn texts(body: &mut Object, key: &str) -> Result<std::sync::Arc<[Text]>, Malformed> {
    Ok(body.texts(key)?.unwrap_or_default().into_iter().map(Text::from).collect())
}
