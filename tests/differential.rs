//! The fast road against the plain one, over random catalogs, questions and settings: the same codes, flags and counts,
//! and the same records wherever all of them are given; where some are left out, no record that the plain road does
//! not know. A failure prints its seed.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query},
    rr::{DNSClass, Name, Record, RecordType, rdata::opt::EdnsOption},
};
use lictor::{
    catalog::{Catalog, Check, Command, Node, Register, Service, ServiceAddress, Weights},
    dns::{Asker, Responder, Settings, StaticZones, Transport, View},
};

const SERVICES: [&str; 4] = ["web", "Api", "fleet", "one"];
const TAGS: [&str; 4] = ["blue", "Green", "v1.2", "primary"];

fn pick<'a>(random: &mut fastrand::Rng, choices: &[&'a str]) -> &'a str {
    choices[random.usize(..choices.len())]
}

fn any_catalog(random: &mut fastrand::Rng) -> Catalog {
    let mut catalog = Catalog::default();
    let nodes = [3, 20, 700][random.usize(..3)];
    // In most catalogs everything fits the fast road; in some a chunk here and there does not.
    let odd = random.u8(..4) == 0;
    let dual = random.u8(..3) == 0;
    let even = random.bool();
    for number in 0..nodes {
        let v4 = format!("10.0.{}.{}", number / 250, number % 250 + 1);
        let mut node = Node { name: format!("node-{number:04}").as_str().into(), ..Node::default() };
        node.address = match random.u8(..20) {
            0 if odd => "edge.example.net".into(),
            1 if odd => "".into(),
            2 => format!("fd00::{number:x}").as_str().into(),
            _ => v4.as_str().into(),
        };
        if odd && random.u8(..20) == 0 {
            node.name = format!(
                "{}.{}.{}.{}.{number:04}",
                "a".repeat(63),
                "b".repeat(63),
                "c".repeat(63),
                "d".repeat(40)
            )
            .into();
        }
        if random.u8(..20) == 0 {
            node.tagged_addresses = Some(
                [("lan_ipv4", format!("10.7.{}.1", number % 250).as_str().into())].into_iter().collect(),
            );
        } else if dual && random.bool() {
            let tagged =
                [("lan_ipv4", v4.as_str().into()), ("lan_ipv6", format!("fd10::{number:x}").as_str().into())];
            node.tagged_addresses = Some(tagged.into_iter().collect());
        }
        if random.bool() {
            node.meta = Some([("rack", "r7".into()), ("zone", "a`b".into())].into_iter().collect());
        }
        for copy in 0..random.usize(1..4) {
            let command = any_registration(random, node.clone(), number, copy, [odd, even]);
            catalog.apply(command).0.expect("a good registration");
        }
    }
    catalog
}

fn any_registration(
    random: &mut fastrand::Rng,
    node: Node,
    number: usize,
    copy: usize,
    [odd, even]: [bool; 2],
) -> Command {
    let mut service = Service {
        id: format!("s{copy}").as_str().into(),
        name: pick(random, &SERVICES).into(),
        port: random.u16(8000..8003),
        tags: TAGS.iter().filter(|_| random.bool()).map(|tag| (*tag).into()).collect(),
        weights: match random.u8(..4) {
            _ if even => Weights::default(),
            0 => Weights { passing: random.i32(-1..3), warning: random.i32(0..70_000) },
            _ => Weights { passing: random.i32(1..3), warning: 1 },
        },
        ..Service::default()
    };
    if !even {
        // Of two that are one record the plain road rarely tells the one that weighs little.
        service.port = 8000 + copy as u16;
    }
    service.address = match random.u8(..24) {
        0 if odd => "shop.example.org".into(),
        1 if odd && random.u8(..16) == 0 => "web.service.consul".into(),
        1 if odd => "node-0001.node.consul".into(),
        2 | 3 => "10.9.0.5".into(),
        4 => format!("fd20::{number:x}").as_str().into(),
        5 => "::ffff:10.4.1.5".into(),
        _ => "".into(),
    };
    if random.u8(..8) == 0 {
        let tagged = ServiceAddress { address: "10.8.0.1".into(), port: 1 };
        service.tagged_addresses =
            Some([(pick(random, &["lan_ipv4", "lan_ipv6"]), tagged)].into_iter().collect());
    }
    let status = pick(random, &["passing", "passing", "passing", "warning", "critical", "odd"]);
    let check = Check {
        id: format!("c{copy}").as_str().into(),
        service_id: service.id.clone(),
        status: status.into(),
        ..Check::default()
    };
    Command::Register(Box::new(Register {
        node,
        skip_node_update: false,
        service: Some(service),
        checks: vec![check],
    }))
}

fn any_settings(random: &mut fastrand::Rng) -> Settings {
    Settings {
        alt_domain: random.bool().then(|| "corp.test.".to_string()),
        service_ttl: [("*".to_string(), Duration::from_secs(5)), ("API".to_string(), Duration::from_secs(9))]
            .into_iter()
            .collect(),
        only_passing: random.bool(),
        enable_truncate: random.bool(),
        udp_answer_limit: [0, 3, 8][random.usize(..3)],
        a_record_limit: [0, 0, 0, 2][random.usize(..4)],
        node_meta_txt: random.bool(),
        udp_bytes_max_loopback: [512, 1232, 4096][random.usize(..3)],
        ..Settings::default()
    }
}

fn any_question(random: &mut fastrand::Rng) -> (Vec<u8>, Asker) {
    let service = pick(random, &["web", "WEB", "api", "fleet", "one", "none"]);
    let tag = pick(random, &["", "", "", "blue.", "GREEN.", "v1.2.", "no.", "blue.green.", "primary.BLUE."]);
    let zone = pick(random, &["consul.", "CONSUL.", "dc1.consul.", "corp.test."]);
    let name = match random.u8(..4) {
        0 => format!("_{service}._tcp.service.{zone}"),
        1 if zone.starts_with("dc1") => format!("{tag}{service}.{zone}"),
        _ => format!("{tag}{service}.service.{zone}"),
    };
    let kinds =
        [RecordType::A, RecordType::A, RecordType::AAAA, RecordType::SRV, RecordType::ANY, RecordType::TXT];
    let mut message = Message::new(random.u16(..), MessageType::Query, OpCode::Query);
    let mut query = Query::query(Name::from_ascii(&name).unwrap(), kinds[random.usize(..kinds.len())]);
    query.set_query_class(DNSClass::IN);
    message.add_query(query);
    if random.bool() {
        let mut edns = Edns::new();
        edns.set_max_payload([100, 512, 1232, 4096][random.usize(..4)]);
        if random.bool() {
            let subnet = pick(random, &["10.1.0.0/21", "fd10::/61"]).parse().unwrap();
            edns.options_mut().insert(EdnsOption::Subnet(subnet));
        }
        message.edns = Some(edns);
    }
    let transport = if random.u8(..4) == 0 { Transport::Tcp } else { Transport::Udp };
    (message.to_vec().unwrap(), Asker { transport, from: IpAddr::V4(Ipv4Addr::LOCALHOST) })
}

fn shown(records: &[Record]) -> Vec<String> {
    let mut shown: Vec<String> = records.iter().map(|record| record.to_string()).collect();
    shown.sort();
    shown
}

/// A reply as both roads must give it, and the records that they may choose among.
struct Told {
    fixed: String,
    sections: [Vec<String>; 2],
    cut: bool,
}

fn told(
    responder: &mut Responder,
    catalog: &Catalog,
    settings: &Settings,
    asker: &Asker,
    packet: &[u8],
) -> Told {
    let mut out = Vec::new();
    responder.respond(
        &View { catalog: Some(catalog), settings, zones: &StaticZones::default(), fresh: true },
        asker,
        packet,
        &mut out,
    );
    let message = Message::from_vec(&out).expect("a reply that others can read");
    let counts = [message.answers.len(), message.additionals.len()];
    let edns = message.edns.as_ref().map(|edns| (edns.max_payload(), edns.options().clone()));
    Told {
        fixed: format!("{:?} {:?} {edns:?} {:?}", message.metadata, counts, shown(&message.authorities)),
        sections: [shown(&message.answers), shown(&message.additionals)],
        cut: message.metadata.truncation,
    }
}

#[test]
fn the_fast_road_gives_what_the_plain_one_gives() {
    let (mut compared, mut chosen) = (0, 0);
    for seed in 0..24 {
        let mut random = fastrand::Rng::with_seed(seed);
        let catalog = any_catalog(&mut random);
        let uneven = catalog.nodes().any(|home| home.node().name.len() > 200);
        let (mut fast, mut plain) = (Responder::new(seed), Responder::plain(seed + 1));
        for _ in 0..120 {
            let settings = any_settings(&mut random);
            let (packet, asker) = any_question(&mut random);
            let context = || {
                let question = Message::from_vec(&packet).unwrap();
                format!("seed {seed}: {} {settings:?} {asker:?} {:?}", question.queries[0], question.edns)
            };
            let left = told(&mut fast, &catalog, &settings, &asker, &packet);
            let right = told(&mut plain, &catalog, &settings, &asker, &packet);
            compared += 1;
            // What stands behind an alias is drawn by both, even where the alias is the same.
            let leads_on = left.sections[0].iter().any(|record| record.ends_with(" web.service.consul."));
            if left.sections[0] == right.sections[0] && !leads_on {
                // Node meta goes in whole or not at all, and depends on which instances were drawn.
                assert_eq!(left.sections, right.sections, "{}", context());
                assert_eq!(left.fixed, right.fixed, "{}", context());
                continue;
            }
            chosen += 1;
            let answers = |told: &Told| told.sections[0].len();
            let kind = Message::from_vec(&packet).unwrap().queries[0].query_type();
            // Of several aliases one is drawn, and more or less stands behind each.
            let aliased = |told: &Told| told.sections[0].iter().any(|it| it.contains("CNAME"));
            if aliased(&left) || aliased(&right) {
                assert!(aliased(&left) && aliased(&right), "{}", context());
            } else if matches!(kind, RecordType::SRV | RecordType::ANY) && (left.cut || right.cut) {
                // How many fit, and so whether the size or the count cut, depends on how long the records are that
                // were drawn; where one fills half a message, that tells nothing.
                let (few, many) = (answers(&left).min(answers(&right)), answers(&left).max(answers(&right)));
                assert!(uneven || 2 * few >= many, "{few} and {many}; {}", context());
            } else {
                assert_eq!((answers(&left), left.cut), (answers(&right), right.cut), "{}", context());
            }
            let known = is_known(&left.sections, &catalog, &settings, &packet);
            assert!(known, "{:?} holds what is no answer; {}", left.sections, context());
            // SRV records are told once for each node, so two nodes may give the same one.
            let distinct: BTreeSet<&String> =
                left.sections[0].iter().filter(|it| !it.contains("SRV")).collect();
            let addresses = left.sections[0].iter().filter(|it| !it.contains("SRV")).count();
            assert_eq!(distinct.len(), addresses, "each record once; {}", context());
        }
    }
    assert!(
        compared > chosen * 3 / 2 && chosen > 150,
        "{chosen} of {compared} were choices: too few to tell"
    );
}

/// Whether the plain road says all of this, too, if nothing limits it. It draws one of several aliases, and of several
/// instances that are one record, so it may need some draws.
fn is_known(sections: &[Vec<String>; 2], catalog: &Catalog, settings: &Settings, packet: &[u8]) -> bool {
    let settings = Settings { a_record_limit: 0, udp_answer_limit: 0, ..settings.clone() };
    let asker = Asker { transport: Transport::Tcp, from: IpAddr::V4(Ipv4Addr::LOCALHOST) };
    let mut unlimited = Message::from_vec(packet).unwrap();
    unlimited.edns.get_or_insert_default();
    let packet = &unlimited.to_vec().unwrap();
    let mut seen: [BTreeSet<String>; 2] = Default::default();
    (0..60).any(|seed| {
        let more = told(&mut Responder::plain(seed), catalog, &settings, &asker, packet).sections;
        seen.iter_mut().zip(more).for_each(|(seen, more)| seen.extend(more));
        sections.iter().zip(&seen).all(|(section, seen)| section.iter().all(|record| seen.contains(record)))
    })
}

/// Where one of several is told, each is told as often as its weight has it, over either road; one that weighs nothing
/// never is.
#[test]
fn heavier_instances_are_told_more_often() {
    const ROUNDS: u32 = 20_000;
    for instances in [4, 700] {
        let mut catalog = Catalog::default();
        for number in 0..instances {
            let weight = [0, 1, 3, 6][number % 4];
            let node = Node {
                name: format!("n{number}").as_str().into(),
                address: format!("10.{weight}.{}.{}", number / 250, number % 250).as_str().into(),
                ..Node::default()
            };
            let weights = Weights { passing: weight, warning: 1 };
            let service = Service { id: "web".into(), name: "web".into(), weights, ..Service::default() };
            let register = Register { node, service: Some(service), ..Register::default() };
            catalog.apply(Command::Register(Box::new(register))).0.unwrap();
        }
        let settings = Settings { udp_answer_limit: 1, ..Settings::default() };
        let mut message = Message::new(1, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii("web.service.consul.").unwrap(), RecordType::A));
        let packet = message.to_vec().unwrap();
        let asker = Asker { transport: Transport::Udp, from: IpAddr::V4(Ipv4Addr::LOCALHOST) };
        let zones = StaticZones::default();
        let view = View { catalog: Some(&catalog), settings: &settings, zones: &zones, fresh: true };
        let rounds = if instances > 100 { ROUNDS / 10 } else { ROUNDS };
        for (road, mut responder) in [("fast", Responder::new(1)), ("plain", Responder::plain(2))] {
            let (mut told, mut out) = ([0u32; 7], Vec::new());
            for _ in 0..rounds {
                responder.respond(&view, &asker, &packet, &mut out);
                told[usize::from(out[out.len() - 3])] += 1;
            }
            for (weight, expected) in [(0, 0.0), (1, 0.1), (3, 0.3), (6, 0.6)] {
                let share = f64::from(told[weight]) / f64::from(rounds);
                let is_fair = if weight == 0 { share == 0.0 } else { (share - expected).abs() < 0.03 };
                assert!(is_fair, "{weight} of {instances} is told in {share} by the {road} road");
            }
        }
    }
}
