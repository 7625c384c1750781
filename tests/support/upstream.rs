//! A recursor as a test wants it: on loopback, by UDP and TCP on one port, answering from a script of words.
//!
//! ```text
//! servfail, refused, nxdomain …                 the code of every reply
//! silent; broken; wrong-id; other-question      what it does instead of answering; `broken` cuts a reply in half
//! tc                                            no records by UDP, only the word that there are some
//! opt-first                                     an OPT before the other additional records
//! no-opt                                        whoever asks with an OPT is not understood
//! no-nodata                                     a name that has nothing of a type is no name, as some servers say
//! aa, ad, no-ra                                 bits
//! record OWNER TTL TYPE DATA                    what it knows, `soa …` in the authority section; chains are followed
//! extra OWNER TTL TYPE DATA                     in the additional section
//! fill COUNT                                    so many A records for any name
//! back ADDR                                     asks there what it is asked, as a forwarder does that drops options
//! back-whole ADDR                               the same, with the options
//! ```

#![allow(dead_code, reason = "each test file uses its own part")]

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
};

#[derive(Clone, Debug, Default)]
pub struct Script {
    lines: Vec<Vec<String>>,
}

/// Gone when dropped.
pub struct Upstream {
    pub addr: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    script: Arc<Mutex<Script>>,
    _tasks: JoinSet<()>,
}

/// What it was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    pub message: Message,
    pub from: SocketAddr,
    pub tcp: bool,
}

impl Script {
    pub fn of(lines: &[&str]) -> Self {
        let mut script = Script::default();
        lines.iter().for_each(|line| script.add(line));
        script
    }

    pub fn add(&mut self, line: &str) {
        self.lines.push(line.split_whitespace().map(str::to_string).collect());
    }

    fn has(&self, word: &str) -> bool {
        self.lines.iter().any(|line| line[0] == word)
    }

    fn words(&self, word: &str) -> impl Iterator<Item = &[String]> {
        self.lines.iter().filter(move |line| line[0] == word).map(|line| &line[1..])
    }

    fn reply(&self, query: &Message, tcp: bool) -> Option<Vec<u8>> {
        let code = [
            ("formerr", ResponseCode::FormErr),
            ("servfail", ResponseCode::ServFail),
            ("nxdomain", ResponseCode::NXDomain),
            ("notimp", ResponseCode::NotImp),
            ("refused", ResponseCode::Refused),
        ];
        if self.has("silent") {
            return None;
        }
        let mut reply = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
        reply.metadata.recursion_desired = query.metadata.recursion_desired;
        reply.metadata.checking_disabled = query.metadata.checking_disabled;
        reply.metadata.recursion_available = !self.has("no-ra");
        reply.metadata.authoritative = self.has("aa");
        reply.metadata.authentic_data = self.has("ad");
        for (_, code) in code.into_iter().filter(|(word, _)| self.has(word)) {
            reply.metadata.response_code = code;
        }
        let asked = query.queries[0].clone();
        reply.add_query(asked.clone());
        if self.has("wrong-id") {
            reply.metadata.id = !query.metadata.id;
        }
        if self.has("other-question") {
            reply.queries =
                vec![Query::query(Name::from_ascii("other.example.").unwrap(), asked.query_type())];
        }
        if self.has("tc") && !tcp {
            reply.metadata.truncation = true;
        } else {
            self.fill(&mut reply, &asked);
        }
        if self.has("no-nodata") && reply.answers.is_empty() {
            reply.metadata.response_code = ResponseCode::NXDomain;
        }
        if self.has("no-opt") && query.edns.is_some() {
            reply = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
            reply.metadata.response_code = ResponseCode::FormErr;
            return Some(reply.to_vec().unwrap());
        }
        reply.edns = query.edns.clone().map(|mut edns| {
            edns.options_mut().remove(65_001.into());
            edns
        });
        let mut packet = reply.to_vec().unwrap();
        if self.has("opt-first") {
            packet = opt_first(&mut reply);
        }
        if self.has("broken") {
            packet.truncate(packet.len() - 13);
        }
        Some(packet)
    }

    fn fill(&self, reply: &mut Message, asked: &Query) {
        let mut name = asked.name().clone();
        let known: Vec<Record> = self.words("record").map(record).collect();
        for _ in 0..=known.len() {
            let of_name = known.iter().filter(|record| record.name.to_lowercase() == name.to_lowercase());
            let (aliases, others): (Vec<&Record>, Vec<&Record>) =
                of_name.partition(|record| record.record_type() == RecordType::CNAME);
            let kind = asked.query_type();
            reply.answers.extend(
                others
                    .into_iter()
                    .filter(|record| record.record_type() == kind || kind == RecordType::ANY)
                    .cloned(),
            );
            let Some(alias) = aliases.first() else { break };
            reply.answers.push((*alias).clone());
            let RData::CNAME(target) = &alias.data else { break };
            name = target.0.clone();
        }
        if let Some(count) = self.words("fill").next() {
            for last in 0..count[0].parse().unwrap() {
                let data = RData::A(rdata::A::new(203, 0, 113, last));
                reply.answers.push(Record::from_rdata(asked.name().clone(), 300, data));
            }
        }
        // As servers do, that point at the question.
        reply
            .answers
            .iter_mut()
            .filter(|it| it.name.to_lowercase() == asked.name().to_lowercase())
            .for_each(|record| record.name = asked.name().clone());
        reply.authorities.extend(self.words("authority").map(record));
        reply.additionals.extend(self.words("extra").map(record));
    }
}

/// The same message with its OPT before the other additional records, as no library writes it.
fn opt_first(reply: &mut Message) -> Vec<u8> {
    let extras = std::mem::take(&mut reply.additionals);
    let mut packet = reply.to_vec().unwrap();
    reply.additionals = extras.clone();
    for extra in extras {
        let mut alone = Message::new(0, MessageType::Response, OpCode::Query);
        alone.additionals.push(extra);
        packet.extend_from_slice(&alone.to_vec().unwrap()[12..]);
        packet[11] += 1;
    }
    packet
}

fn record(words: &[String]) -> Record {
    let name = |text: &str| Name::from_ascii(text).unwrap();
    let data = match (words[2].as_str(), &words[3..]) {
        ("A", [ip]) => RData::A(rdata::A(ip.parse().unwrap())),
        ("AAAA", [ip]) => RData::AAAA(rdata::AAAA(ip.parse().unwrap())),
        ("CNAME", [target]) => RData::CNAME(rdata::CNAME(name(target))),
        ("PTR", [target]) => RData::PTR(rdata::PTR(name(target))),
        ("MX", [preference, host]) => RData::MX(rdata::MX::new(preference.parse().unwrap(), name(host))),
        ("TXT", [text]) => RData::TXT(rdata::TXT::new(vec![text.clone()])),
        ("SOA", [server, mail, minimum]) => {
            RData::SOA(rdata::SOA::new(name(server), name(mail), 1, 2, 3, 4, minimum.parse().unwrap()))
        }
        other => panic!("no such record: {other:?}"),
    };
    Record::from_rdata(name(&words[0]), words[1].parse().unwrap(), data)
}

impl Upstream {
    pub async fn start(script: Script) -> Upstream {
        Upstream::start_at([127, 0, 0, 1].into(), script).await
    }

    pub async fn start_at(ip: std::net::IpAddr, script: Script) -> Upstream {
        let (tcp, udp) = loop {
            let tcp = TcpListener::bind((ip, 0)).await.unwrap();
            // The port that is free by TCP may be taken by UDP.
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                break (tcp, udp);
            }
        };
        let addr = tcp.local_addr().unwrap();
        let (asked, script) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::new(Mutex::new(script)));
        let mut tasks = JoinSet::new();
        let take = {
            let (asked, script) = (asked.clone(), script.clone());
            move |packet: &[u8], from: SocketAddr, tcp: bool| {
                let message = Message::from_vec(packet).unwrap();
                asked.lock().unwrap().push(Asked { message: message.clone(), from, tcp });
                let script = script.lock().unwrap();
                let back = ["back", "back-whole"].into_iter().find_map(|word| {
                    let to = script.words(word).next()?[0].parse::<SocketAddr>().unwrap();
                    Some((to, word == "back-whole"))
                });
                (back, message.clone(), script.reply(&message, tcp))
            }
        };
        let take_tcp = take.clone();
        tasks.spawn(async move {
            let (udp, mut packet) = (Arc::new(udp), vec![0; 65_535]);
            let mut backs = JoinSet::new();
            loop {
                let (length, from) = udp.recv_from(&mut packet).await.unwrap();
                let (back, message, reply) = take(&packet[..length], from, false);
                match (back, reply) {
                    (Some((to, whole)), _) => {
                        drop(backs.spawn(forward(udp.clone(), to, whole, message, from)));
                    }
                    (None, Some(reply)) => drop(udp.send_to(&reply, from).await),
                    (None, None) => {}
                }
            }
        });
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, from) = tcp.accept().await.unwrap();
                let take = take_tcp.clone();
                connections.spawn(async move { drop(serve(stream, from, take).await) });
            }
        });
        Upstream { addr, asked, script, _tasks: tasks }
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// From now on it does this.
    pub fn turn(&self, script: Script) {
        *self.script.lock().unwrap() = script;
    }
}

async fn serve(
    mut stream: TcpStream,
    from: SocketAddr,
    take: impl Fn(&[u8], SocketAddr, bool) -> (Option<(SocketAddr, bool)>, Message, Option<Vec<u8>>),
) -> std::io::Result<()> {
    loop {
        let mut packet = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut packet).await?;
        if let (.., Some(reply)) = take(&packet, from, true) {
            stream.write_all(&[&(reply.len() as u16).to_be_bytes(), &reply[..]].concat()).await?;
        }
    }
}

/// Asks elsewhere, from another port.
async fn forward(udp: Arc<UdpSocket>, to: SocketAddr, whole: bool, mut message: Message, from: SocketAddr) {
    let id = message.metadata.id;
    if !whole {
        message.edns = None;
    }
    message.metadata.id = !id;
    let socket = UdpSocket::bind((udp.local_addr().unwrap().ip(), 0)).await.unwrap();
    socket.send_to(&message.to_vec().unwrap(), to).await.unwrap();
    let mut reply = vec![0; 65_535];
    let Ok(length) = socket.recv(&mut reply).await else { return };
    reply[..2].copy_from_slice(&id.to_be_bytes());
    let _gone = udp.send_to(&reply[..length], from).await;
}
