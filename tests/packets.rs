//! Packets as nobody should send them: mutations of `tests/corpus/packets/`, from a seed. Whatever comes, nothing
//! panics, who asks is answered, who answers is not, and every reply is one that others can read.
//!
//! `LICTOR_FUZZ_SECS` sets how long it runs (1), `LICTOR_FUZZ_SEED` where it starts.

use std::{fs, net::IpAddr, time::Duration};

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use lictor::{
    catalog::{Catalog, Command, Node, Register, Service},
    dns::{Asker, Responder, Settings, Transport, View, ZoneFiles},
};
use tokio::time::Instant;

fn corpus() -> Vec<Vec<u8>> {
    let mut files: Vec<_> =
        fs::read_dir("tests/corpus/packets").unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| fs::read(file).unwrap()).collect()
}

fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    for number in 0..40 {
        let node = Node {
            name: format!("n{number}").as_str().into(),
            address: format!("10.1.0.{number}").as_str().into(),
            meta: Some([("rack", "r7".into())].into_iter().collect()),
            ..Node::default()
        };
        let name = if number == 0 { "consul" } else { "pay" };
        let service = Service { id: name.into(), name: name.into(), port: 80, ..Service::default() };
        let register = Register { node, service: Some(service), ..Register::default() };
        catalog.apply(Command::Register(Box::new(register))).0.unwrap();
    }
    catalog
}

fn mutate(random: &mut fastrand::Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut packet = corpus[random.usize(..corpus.len())].clone();
    for _ in 0..random.usize(..6) {
        let at = random.usize(..packet.len().max(1));
        match random.u8(..7) {
            0 => packet.truncate(at),
            1 => packet.insert(at.min(packet.len()), random.u8(..)),
            2 if !packet.is_empty() => drop(packet.remove(at)),
            3 if !packet.is_empty() => packet[at] ^= 1 << random.u8(..8),
            4 if !packet.is_empty() => packet[at] = [0, 0xff, 0xc0, 0x3f, 0x40, b'_'][random.usize(..6)],
            5 => packet.extend_from_slice(&corpus[random.usize(..corpus.len())]),
            _ if packet.len() > 12 => packet[4 + 2 * random.usize(..4) + 1] = random.u8(..4),
            _ => {}
        }
    }
    packet
}

fn any_settings(random: &mut fastrand::Rng) -> Settings {
    Settings {
        udp_answer_limit: random.usize(..5),
        enable_truncate: random.bool(),
        disable_compression: random.bool(),
        udp_bytes_max_loopback: random.u16(512..4096),
        ..Settings::default()
    }
}

#[test]
fn every_packet_gets_what_it_deserves() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("LICTOR_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    let deadline = Instant::now() + Duration::from_secs(number("LICTOR_FUZZ_SECS").unwrap_or(1));
    let (corpus, catalog) = (corpus(), catalog());
    let mut files = ZoneFiles::default();
    files.read(&["tests/zones".into()], &["consul."], true);
    let zones = files.zones(true);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut responders = [Responder::new(seed), Responder::plain(seed)];
    let (mut out, mut tried) = (Vec::new(), 0u64);
    while Instant::now() < deadline || tried < 1000 {
        let packet = if tried < corpus.len() as u64 {
            corpus[tried as usize].clone()
        } else {
            mutate(&mut random, &corpus)
        };
        tried += 1;
        let settings = any_settings(&mut random);
        let transport = if random.bool() { Transport::Udp } else { Transport::Tcp };
        let asker = Asker { transport, from: IpAddr::from([127, 0, 0, 1]) };
        let known = random.u8(..8) > 0;
        for responder in &mut responders {
            let view = View {
                catalog: known.then_some(&catalog),
                settings: &settings,
                zones: &zones,
                fresh: random.u8(..8) > 0,
            };
            responder.respond(&view, &asker, &packet, &mut out);
            if let Err(fault) = judge(&packet, &out, &settings, transport) {
                panic!(
                    "seed {seed}, packet {tried}: {fault}\n{packet:02x?}\n{out:02x?}\n{settings:?} {transport:?}"
                );
            }
        }
    }
    println!("{tried} packets from seed {seed}");
}

/// What holds of any reply to any packet.
fn judge(packet: &[u8], reply: &[u8], settings: &Settings, transport: Transport) -> Result<(), String> {
    let asks = packet.len() >= 12 && packet[2] & 0x80 == 0;
    if reply.is_empty() {
        return if asks { Err("a question without an answer".into()) } else { Ok(()) };
    }
    if !asks {
        return Err("an answer to no question".into());
    }
    let own_max = usize::from(settings.udp_bytes_max_loopback);
    if reply.len() > if transport == Transport::Udp { own_max } else { 65535 } {
        return Err(format!("{} bytes", reply.len()));
    }
    // A subnet of no family comes back as it was asked; hickory can read neither.
    let of_no_family = [0, 8, 0, 4, 0, 0, 0, 0];
    let message = match Message::from_vec(reply) {
        Err(_) if reply.windows(8).any(|window| window == of_no_family) => return Ok(()),
        read => read.map_err(|error| format!("nobody can read it: {error}"))?,
    };
    let head = &message.metadata;
    if head.message_type != MessageType::Response || reply[..2] != packet[..2] {
        return Err("not a response to this packet".into());
    }
    // What others understand of the packet, we must have understood alike.
    let Ok(asked) = Message::from_vec(packet) else { return Ok(()) };
    let plain = asked.metadata.op_code == OpCode::Query && asked.queries.len() == 1;
    let counts = [
        asked.answers.len(),
        asked.authorities.len(),
        asked.additionals.len() + usize::from(asked.edns.is_some()),
    ];
    if plain && counts[0] <= 1 && counts[1] <= 1 && counts[2] <= 2 {
        let excused = points_back(&packet[12..]) || has_cut_option(packet);
        if head.response_code == ResponseCode::FormErr && !excused {
            return Err("what others can read is no malformed packet".into());
        }
        let echoed = message.queries.first().map(|query| query.name().to_string());
        if echoed.is_some_and(|echoed| echoed != asked.queries[0].name().to_string()) {
            return Err("another question came back".into());
        }
    }
    Ok(())
}

/// Whether a first name has a pointer: others follow it into the header, to us it is no name.
fn points_back(name: &[u8]) -> bool {
    let mut at = 0;
    while let Some(length @ 1..=63) = name.get(at) {
        at += 1 + usize::from(*length);
    }
    name.get(at).is_some_and(|byte| *byte >= 0xc0)
}

/// Whether an option of an OPT is longer than its record: others read what comes before it.
fn has_cut_option(packet: &[u8]) -> bool {
    let number =
        |at: usize| packet.get(at..at + 2).map_or(0, |two| usize::from(two[0]) << 8 | usize::from(two[1]));
    let is_opt = |at: &usize| packet[*at..].starts_with(&[0, 0, 41]);
    (12..packet.len()).filter(is_opt).any(|opt| {
        let (mut at, end) = (opt + 11, opt + 11 + number(opt + 9));
        while at + 4 <= end {
            at += 4 + number(at + 2);
        }
        at != end
    })
}
