//! Cases of names and answers, as data: `tests/dns/*.txt`, each run over every road there is. A case builds a catalog
//! on the shared fixture, sets what it needs, asks, and says what must come back.
//!
//! ```text
//! == 3 SRV gives the addresses of its targets      a new case, on a fresh fixture
//! node ash 10.1.0.11 meta:rack=r7                  what there is: node, service, check, gone, fleet, services
//! query 1 geo-pay pay ttl=15                       a prepared query, by its id; with a regexp it is a template
//! coordinate ash 0.5                               how far it is from the others, in seconds
//! zones tests/zones                                the zone files of a directory, and those that are built in
//! set udp_answer_limit 8                           settings
//! recursor one servfail                            what a recursor does (tests/support/upstream.rs), by its name
//! ask pay.service.consul SRV                       a question: edns N, ecs NET, tcp, class CH, from IP, do, rd, ad, cd
//! ----
//! NOERROR aa                                       code and flags
//! answer pay.service.consul. 0 SRV 1 1 7001 …      records in any order; a final * stands for anything
//! count answer 3                                   so many records, whichever
//! edns 4096                                        the size of the reply's OPT; none where not said
//! ecs 00011400 0a01f0                              a subnet told: family, prefix, scope, address
//! ede 20
//! ```

#[path = "support/upstream.rs"]
mod upstream;

use std::{fs, net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use arc_swap::{ArcSwap, ArcSwapOption};
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query},
    rr::{DNSClass, Name, RData, Record, RecordType, rdata::opt::EdnsOption},
};
use lictor::{
    catalog::{
        Catalog, Check, Command, Coordinate, Map, Node, NodeCoordinate, Query as PreparedQuery, QueryWrite,
        Register, Service, ServiceAddress, Target, Text, Weights,
    },
    dns::{
        AskedElsewhere, Asker, Desk, Elsewhere, Outcome, Published, Responder, Roads, Server, ServiceTtl,
        Settings, StaticZones, Strategy, ToldElsewhere, Transport, View, ZoneFiles,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use upstream::{Script, Upstream};
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(10);

/// One case: what there is, and questions with what they answer.
struct Case {
    title: String,
    file: String,
    catalog: Catalog,
    settings: Settings,
    /// In order; the servers that play them are started with the case.
    recursors: Vec<(String, Script)>,
    zones: StaticZones,
    asked: Vec<(Question, Vec<String>)>,
}

#[derive(Clone, Debug)]
struct Question {
    line: String,
    packet: Vec<u8>,
    asker: Asker,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_over_every_road() {
    let mut files: Vec<_> = fs::read_dir("tests/dns").unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let fixture = fs::read_to_string("tests/dns/fixture.txt").unwrap();
    let roads = SocketRoads::start().await;
    let (mut cases, mut faults) = (0, Vec::new());
    for file in files.iter().filter(|file| !file.ends_with("fixture.txt")) {
        let text = fs::read_to_string(file).unwrap();
        for mut case in read_cases(&file.display().to_string(), &fixture, &text) {
            cases += 1;
            let mut recursors = Vec::new();
            for (_, script) in &case.recursors {
                recursors.push(Upstream::start(script.clone()).await);
            }
            case.settings.recursion.recursors = recursors.iter().map(|recursor| recursor.addr).collect();
            let case = case;
            for (question, expected) in &case.asked {
                for (road, reply) in roads.ask_all(&case, question).await {
                    if let Err(fault) = compare(reply.as_deref(), expected, case.catalog.index()) {
                        let Case { file, title, .. } = &case;
                        faults.push(format!("{file}: {title}\n  {} over {road}\n{fault}", question.line));
                    }
                }
            }
        }
    }
    roads.stop().await;
    assert!(cases > 100, "{cases} cases were found");
    assert!(faults.is_empty(), "{} faults\n\n{}", faults.len(), faults.join("\n\n"));
}

fn read_cases(file: &str, fixture: &str, text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let (mut waiting, mut expected): (Vec<Question>, Option<Vec<String>>) = (Vec::new(), None);
    for line in
        text.lines().chain(["== end"]).map(|line| line.split(" #").next().unwrap_or_default().trim_end())
    {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (title, asked) = (line.strip_prefix("== "), line.strip_prefix("ask "));
        if let (Some(case), true) = (cases.last_mut(), title.or(asked).is_some())
            && let Some(expected) = expected.take()
        {
            case.asked.extend(waiting.drain(..).map(|question| (question, expected.clone())));
        }
        match (title, asked, &mut expected) {
            (Some(title), ..) => {
                assert!(waiting.is_empty(), "{file}: before {title}: a question without an answer");
                cases.push(Case::new(file, title, fixture));
            }
            (_, Some(asked), _) => waiting.push(question(asked)),
            _ if line == "----" => expected = Some(Vec::new()),
            (.., Some(expected)) => expected.push(line.to_string()),
            _ => cases.last_mut().expect("a case begins with ==").state(line),
        }
    }
    cases.pop();
    cases
}

impl Case {
    fn new(file: &str, title: &str, fixture: &str) -> Self {
        let (catalog, settings) = (Catalog::default(), Settings::default());
        let mut case = Case {
            title: title.into(),
            file: file.into(),
            catalog,
            settings,
            zones: StaticZones::default(),
            recursors: Vec::new(),
            asked: Vec::new(),
        };
        fixture
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .for_each(|line| case.state(line));
        case
    }

    /// A line of state or of settings.
    fn state(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
        match words.as_slice() {
            ["node", name, address, rest @ ..] => self.node(name, address, rest),
            ["service", name, "on", node, rest @ ..] => self.service(name, node, rest),
            ["check", id, "on", node, status] => self.check(id, node, "", status),
            ["check", id, "on", node, "of", service, status] => self.check(id, node, service, status),
            ["gone", node] => {
                let command = Command::Deregister { node: (*node).into(), target: Target::Node };
                self.apply(command);
            }
            ["fleet", count, meta @ ..] => {
                for number in 0..count.parse::<u32>().unwrap() {
                    let name = format!("f{number:04}");
                    self.node(&name, &format!("10.8.{}.{}", number / 200, number % 200 + 1), meta);
                    self.service("fleet", &name, &["port=80"]);
                }
            }
            ["query", id, name, service, rest @ ..] => self.query(id, name, service, rest),
            ["coordinate", node, x] => {
                let mut coordinate = Coordinate::origin();
                Arc::make_mut(&mut coordinate.vec)[0] = x.parse().unwrap();
                let told = NodeCoordinate { node: (*node).into(), segment: "".into(), coordinate };
                self.apply(Command::Coordinates(vec![told]));
            }
            ["recursor", name, script @ ..] => {
                let at = self.recursors.iter().position(|(known, _)| known == name);
                let at = at.unwrap_or_else(|| {
                    self.recursors.push(((*name).into(), Script::default()));
                    self.recursors.len() - 1
                });
                self.recursors[at].1.add(&script.join(" "));
            }
            ["services", count] => {
                for number in 0..count.parse::<u32>().unwrap() {
                    self.service(&format!("type-{number:03}"), "birch", &["port=80"]);
                }
            }
            ["zones", directory] => {
                let mut files = ZoneFiles::default();
                files.read(&[directory.into()], &["consul."], true);
                self.zones = files.zones(self.recursors.is_empty());
            }
            ["set", key, value] => self.set(key, value),
            _ => panic!("{}: {}: not understood: {line}", self.file, self.title),
        }
    }

    fn apply(&mut self, command: Command) {
        let applied = self.catalog.apply(command).0;
        applied.unwrap_or_else(|refusal| panic!("{}: {}: {refusal}", self.file, self.title));
    }

    fn node(&mut self, name: &str, address: &str, rest: &[&str]) {
        let mut node =
            Node { name: spaced(name).as_str().into(), datacenter: "dc1".into(), ..Node::default() };
        node.address = if address == "-" { "".into() } else { address.into() };
        let (mut tags, mut meta) = (Vec::new(), Vec::new());
        for word in rest {
            let (kind, pair) = word.split_once(':').expect("kind:key=value");
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match kind {
                "tag" => tags.push((key, Text::from(value))),
                "meta" => meta.push((key, Text::from(spaced(value).as_str()))),
                "id" => node.id = Some(pair.parse().unwrap()),
                _ => panic!("{word}"),
            }
        }
        node.tagged_addresses = (!tags.is_empty()).then(|| tags.into_iter().collect::<Map<Text>>());
        node.meta = (!meta.is_empty()).then(|| meta.into_iter().collect());
        self.apply(Command::Register(Box::new(Register { node, ..Register::default() })));
    }

    fn service(&mut self, name: &str, node: &str, rest: &[&str]) {
        let mut service = Service { id: name.into(), name: name.into(), ..Service::default() };
        let mut tagged = Vec::new();
        for word in rest {
            let (key, value) = word.split_once('=').expect("key=value");
            match key {
                "id" => service.id = value.into(),
                "port" => service.port = value.parse().unwrap(),
                "address" => service.address = value.into(),
                "tags" => service.tags = value.split(',').map(Text::from).collect(),
                "kind" => service.kind = value.into(),
                "weights" => {
                    let (passing, warning) = value.split_once('/').unwrap();
                    service.weights =
                        Weights { passing: passing.parse().unwrap(), warning: warning.parse().unwrap() };
                }
                tag => tagged.push((tag.to_string(), ServiceAddress { address: value.into(), port: 1 })),
            }
        }
        service.tagged_addresses = (!tagged.is_empty()).then(|| tagged.into_iter().collect());
        self.on(node, Some(service), vec![]);
    }

    fn query(&mut self, id: &str, name: &str, service: &str, rest: &[&str]) {
        let id = Uuid::from_u128(id.parse().unwrap());
        let mut query = PreparedQuery { id, name: name.into(), ..PreparedQuery::default() };
        query.service.service = service.into();
        for word in rest {
            let (key, value) = word.split_once('=').expect("key=value");
            match key {
                "ttl" => query.ttl_secs = Some(value.parse().unwrap()),
                "near" => query.service.near = value.into(),
                "tags" => query.service.tags = Some(value.split(',').map(Text::from).collect()),
                "only_passing" => query.service.only_passing = value == "true",
                "regexp" => {
                    query.template.kind = "name_prefix_match".into();
                    query.template.regexp = value.into();
                }
                _ => panic!("{word}"),
            }
        }
        self.apply(Command::Query(QueryWrite::Create(query.into())));
    }

    fn check(&mut self, id: &str, node: &str, service: &str, status: &str) {
        let check =
            Check { id: id.into(), service_id: service.into(), status: status.into(), ..Check::default() };
        self.on(node, None, vec![check]);
    }

    fn on(&mut self, node: &str, service: Option<Service>, checks: Vec<Check>) {
        let node = Node { name: spaced(node).as_str().into(), ..Node::default() };
        self.apply(Command::Register(Box::new(Register { node, skip_node_update: true, service, checks })));
    }

    fn set(&mut self, key: &str, value: &str) {
        let settings = &mut self.settings;
        let secs = |text: &str| match text.strip_suffix("ms") {
            Some(millis) => Duration::from_millis(millis.parse().unwrap()),
            None => Duration::from_secs(text.trim_end_matches('s').parse().unwrap()),
        };
        match key {
            "only_passing" => settings.only_passing = value == "true",
            "enable_truncate" => settings.enable_truncate = value == "true",
            "disable_compression" => settings.disable_compression = value == "true",
            "node_meta_txt" => settings.node_meta_txt = value == "true",
            "udp_answer_limit" => settings.udp_answer_limit = value.parse().unwrap(),
            "a_record_limit" => settings.a_record_limit = value.parse().unwrap(),
            "node" => settings.node = value.into(),
            "alt_domain" => settings.alt_domain = Some(format!("{value}.")),
            "domain" => settings.domain = format!("{value}."),
            "node_ttl" => settings.node_ttl = secs(value),
            "min_ttl" => settings.soa.min_ttl_secs = Some(value.parse().unwrap()),
            "recursor_timeout" => settings.recursion.timeout = secs(value),
            "recursor_strategy" => {
                settings.recursion.strategy =
                    if value == "random" { Strategy::Random } else { Strategy::Sequential };
            }
            "recursion_from" => {
                settings.recursion.from = vec![value.parse::<lictor::catalog::Network>().unwrap()]
            }
            "udp_bytes_max_loopback" => settings.udp_bytes_max_loopback = value.parse().unwrap(),
            "service_ttl" => {
                let pairs = value.split(',').map(|pair| pair.split_once('=').unwrap());
                settings.service_ttl =
                    pairs.map(|(key, ttl)| (key.to_string(), secs(ttl))).collect::<ServiceTtl>();
            }
            _ => panic!("no such setting: {key}"),
        }
    }
}

/// `~` stands for a space, since words are split at spaces.
fn spaced(word: &str) -> String {
    word.replace('~', " ")
}

/// `NAME TYPE option …`, or `hex BYTES …`.
fn question(line: &str) -> Question {
    let words: Vec<&str> = line.split_whitespace().collect();
    let loopback = "127.0.0.1".parse().unwrap();
    let mut asker = Asker { transport: Transport::Udp, from: loopback };
    if words[0] == "hex" {
        let digits: String = words[1..].concat();
        let packet =
            (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap());
        return Question { line: line.into(), packet: packet.collect(), asker };
    }
    let name = if words[0] == "." { ".".to_string() } else { format!("{}.", words[0].trim_end_matches('.')) };
    let labels = name.trim_end_matches('.').split('.').filter(|label| !label.is_empty());
    let name = Name::from_labels(labels.map(|label| spaced(label).into_bytes())).unwrap();
    let kind = words[1]
        .parse()
        .unwrap_or_else(|_| RecordType::from(words[1].trim_start_matches("TYPE").parse::<u16>().unwrap()));
    let mut query = Query::query(name, kind);
    let mut message = Message::new(4242, MessageType::Query, OpCode::Query);
    let mut options = words[2..].iter();
    let mut edns: Option<Edns> = None;
    while let Some(option) = options.next() {
        match *option {
            "tcp" => asker.transport = Transport::Tcp,
            "rd" => message.metadata.recursion_desired = true,
            "ad" => message.metadata.authentic_data = true,
            "cd" => message.metadata.checking_disabled = true,
            "class" => {
                let class = options.next().unwrap();
                query.set_query_class(class.parse().unwrap_or(DNSClass::CH));
            }
            "from" => asker.from = options.next().unwrap().parse::<IpAddr>().unwrap(),
            "edns" => {
                let own = edns.get_or_insert_with(Edns::new);
                own.set_max_payload(options.next().unwrap().parse().unwrap());
            }
            "version" => {
                let version = options.next().unwrap().parse().unwrap();
                edns.get_or_insert_with(Edns::new).set_version(version);
            }
            "do" => {
                edns.get_or_insert_with(Edns::new).set_dnssec_ok(true);
            }
            "ecs" => {
                let subnet = options.next().unwrap().parse().unwrap();
                edns.get_or_insert_with(Edns::new).options_mut().insert(EdnsOption::Subnet(subnet));
            }
            "opcode" => message.metadata.op_code = OpCode::from_u8(options.next().unwrap().parse().unwrap()),
            other => panic!("no such option: {other}"),
        }
    }
    message.add_query(query);
    message.edns = edns;
    Question { line: line.into(), packet: message.to_vec().unwrap(), asker }
}

/// `{index}` in an expectation is the catalog's.
fn compare(reply: Option<&[u8]>, expected: &[String], index: u64) -> Result<(), String> {
    let expected: Vec<String> =
        expected.iter().map(|line| line.replace("{index}", &index.to_string())).collect();
    let Some(reply) = reply else {
        return if expected == ["silence"] { Ok(()) } else { Err("    no reply".into()) };
    };
    let message = match Message::from_vec(reply) {
        Ok(message) => message,
        Err(error) => return Err(format!("    a reply that cannot be read: {error}: {reply:02x?}")),
    };
    let given = given(&message);
    let (counts, mut wanted): (Vec<&String>, Vec<&String>) =
        expected.iter().partition(|line| line.starts_with("count "));
    let counted: Vec<(&str, usize)> = counts
        .iter()
        .map(|line| {
            line["count ".len()..]
                .split_once(' ')
                .map(|(section, count)| (section, count.parse().unwrap()))
                .unwrap()
        })
        .collect();
    let mut left: Vec<&String> = given.iter().collect();
    for (section, count) in &counted {
        let before = left.len();
        left.retain(|line| !line.starts_with(&format!("{section} ")));
        if before - left.len() != *count {
            return Err(format!(
                "    {} of {section}, not {count}\n    {}",
                before - left.len(),
                given.join("\n    ")
            ));
        }
    }
    wanted.retain(|want| {
        let fits = |line: &&String| match want.strip_suffix('*') {
            Some(start) => line.starts_with(start),
            None => line == want,
        };
        match left.iter().position(fits) {
            Some(at) => {
                left.remove(at);
                false
            }
            None => true,
        }
    });
    if wanted.is_empty() && left.is_empty() {
        return Ok(());
    }
    let marked = |mark: &str, lines: &[&String]| {
        lines.iter().map(|line| format!("    {mark} {line}\n")).collect::<String>()
    };
    Err(format!("{}{}", marked("missing", &wanted), marked("extra  ", &left)))
}

/// A reply, in the lines of an expectation.
fn given(message: &Message) -> Vec<String> {
    let head = &message.metadata;
    // 16 is BADVERS in an OPT, and BADSIG elsewhere (RFC 6895 §2.3).
    let mut first = match u16::from(head.response_code) {
        16 => "BADVERS".to_string(),
        _ => format!("{:?}", head.response_code).to_uppercase(),
    };
    for (set, word) in [
        (head.authoritative, " aa"),
        (head.truncation, " tc"),
        (head.recursion_available, " ra"),
        (head.recursion_desired, " rd"),
        (head.authentic_data, " ad"),
        (head.checking_disabled, " cd"),
    ] {
        if set {
            first.push_str(word);
        }
    }
    let mut lines = vec![first];
    let sections = [
        ("answer", &message.answers),
        ("authority", &message.authorities),
        ("additional", &message.additionals),
    ];
    for (section, records) in sections {
        lines.extend(records.iter().map(|record| format!("{section} {}", shown(record))));
    }
    if message.queries.is_empty() {
        lines.push("no question".into());
    }
    if let Some(edns) = &message.edns {
        let dnssec = if edns.flags().dnssec_ok { " do" } else { "" };
        lines.push(format!("edns {}{dnssec}", edns.max_payload()));
        for (code, option) in edns.options().as_ref() {
            let bytes: Vec<u8> = Vec::<u8>::try_from(option).unwrap_or_default();
            lines.push(match u16::from(*code) {
                8 => format!("ecs {}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
                15 => format!("ede {}", u16::from_be_bytes([bytes[0], bytes[1]])),
                other => format!("option {other}"),
            });
        }
    }
    lines
}

fn shown(record: &Record) -> String {
    let class =
        if record.dns_class == DNSClass::IN { String::new() } else { format!(" {}", record.dns_class) };
    let data = match &record.data {
        RData::TXT(text) => {
            let strings =
                text.txt_data.iter().map(|string| format!("\"{}\"", String::from_utf8_lossy(string)));
            strings.collect::<Vec<_>>().join(" ")
        }
        data => data.to_string(),
    };
    let line = format!("{} {}{class} {} {data}", record.name, record.ttl, record.record_type());
    line.trim_end().to_string()
}

/// Where the catalog is elsewhere, no alias leads from it into a file's zone, nor from there into it (`docs/operating.md`).
const INTO_EACH_OTHER: [&str; 8] = [
    "pay.corp.example ",
    "topay.corp.example ",
    "gone.corp.example ",
    "fleet.corp.example ",
    "db.service.consul ",
    "dbs.service.consul ",
    "nodb.service.consul ",
    "far.node.consul ",
];

/// An agent that has a catalog, asked by one that has none.
struct Asked(Desk);

impl Elsewhere for Asked {
    fn ask(
        &self,
        asked: AskedElsewhere,
    ) -> Pin<Box<dyn Future<Output = Result<ToldElsewhere, String>> + Send>> {
        Box::pin(std::future::ready(self.0.answer(&asked)))
    }
}

/// Servers on loopback, one for each road; their catalog and settings are set anew for each case.
struct SocketRoads {
    published: Published,
    batch: std::net::SocketAddr,
    plain: std::net::SocketAddr,
    /// Of an agent without a catalog, which has another one asked.
    handing_on: std::net::SocketAddr,
    stop: CancellationToken,
    tasks: tokio::task::JoinSet<()>,
}

impl SocketRoads {
    async fn start() -> Self {
        let published = Published {
            catalog: Arc::new(ArcSwapOption::empty()),
            settings: Arc::new(ArcSwap::from_pointee(Settings::default())),
            zones: Arc::default(),
            fresh: Arc::new(true.into()),
            counters: Arc::default(),
        };
        let (stop, mut tasks) = (CancellationToken::new(), tokio::task::JoinSet::new());
        let mut bind = |udp_batch, published: &Published, asking: Option<Arc<dyn Elsewhere>>| {
            let roads = Roads::of(&Settings { udp_batch, ..Settings::default() });
            let server = Server::bind(&[([127, 0, 0, 1], 0).into()], &roads).unwrap();
            let addr = server.addrs()[0];
            let (published, stop) = (published.clone(), stop.clone());
            let server = asking.into_iter().fold(server, Server::asking);
            tasks.spawn(async move { server.run(published, stop).await.unwrap() });
            addr
        };
        let (batch, plain) = (bind(true, &published, None), bind(false, &published, None));
        let none = Published { catalog: Arc::default(), counters: Arc::default(), ..published.clone() };
        let asked: Arc<dyn Elsewhere> = Arc::new(Asked(Desk::new(published.clone())));
        let handing_on = bind(true, &none, Some(asked));
        SocketRoads { published, batch, plain, handing_on, stop, tasks }
    }

    /// The replies of every road that this question can take.
    async fn ask_all(&self, case: &Case, question: &Question) -> Vec<(&'static str, Option<Vec<u8>>)> {
        let Case { catalog, settings, zones, .. } = case;
        let mut replies = Vec::new();
        let mut silent = false;
        for (road, mut responder) in
            [("the fast answer", Responder::new(1)), ("the plain answer", Responder::plain(2))]
        {
            let mut out = Vec::new();
            let view = View { catalog: Some(catalog), settings, zones, fresh: true };
            match responder.respond(&view, &question.asker, &question.packet, &mut out) {
                Outcome::Answered => replies.push((road, Some(out))),
                Outcome::Silent => replies.push((road, None)),
                Outcome::Later(_) => {} // the roads wait for it
            }
            silent = replies.last().is_some_and(|(_, reply)| reply.is_none());
        }
        if !question.asker.from.is_loopback() {
            return replies;
        }
        self.published.catalog.store(Some(Arc::new(catalog.clone())));
        self.published.settings.store(Arc::new(settings.clone()));
        self.published.zones.store(Arc::new(zones.clone()));
        let of_zones = case.file.ends_with("/zones.txt");
        let hands_on = !of_zones || !INTO_EACH_OTHER.iter().any(|name| question.line.starts_with(name));
        match question.asker.transport {
            Transport::Tcp => {
                replies.push(("TCP", tcp(self.batch, &question.packet, silent).await));
                if hands_on {
                    replies.push(("TCP, handed on", tcp(self.handing_on, &question.packet, silent).await));
                }
            }
            Transport::Udp => {
                replies.push(("UDP by the batch", udp(self.batch, &question.packet, silent).await));
                replies.push(("UDP one by one", udp(self.plain, &question.packet, silent).await));
                if hands_on {
                    replies.push(("UDP, handed on", udp(self.handing_on, &question.packet, silent).await));
                }
            }
        }
        replies
    }

    async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }
}

/// Where silence is right, a second question that is answered shows that the first was not.
async fn udp(server: std::net::SocketAddr, packet: &[u8], silent: bool) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(packet).await.unwrap();
    let known = [0xab, 0xcd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    if silent {
        socket.send(&known).await.unwrap();
    }
    let mut reply = vec![0; 65535];
    let length = timeout(DEADLINE, socket.recv(&mut reply)).await.expect("a reply in time").unwrap();
    reply.truncate(length);
    (!silent || reply[..2] != known[..2]).then_some(reply)
}

async fn tcp(server: std::net::SocketAddr, packet: &[u8], silent: bool) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let framed = |packet: &[u8]| [&(packet.len() as u16).to_be_bytes()[..], packet].concat();
    stream.write_all(&framed(packet)).await.unwrap();
    let known = [0xab, 0xcd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    if silent {
        stream.write_all(&framed(&known)).await.unwrap();
    }
    let read = async {
        let length = stream.read_u16().await.unwrap();
        let mut reply = vec![0; length.into()];
        stream.read_exact(&mut reply).await.unwrap();
        reply
    };
    let reply = timeout(DEADLINE, read).await.expect("a reply in time");
    (!silent || reply[..2] != known[..2]).then_some(reply)
}

/// Before anything was applied there is no telling (RFC 8914: not ready); what is not ours is refused all the same.
#[test]
fn before_the_first_catalog() {
    let ours = question("pay.service.consul A edns 1232");
    let others = question("example.com A");
    let mut out = Vec::new();
    let view =
        View { catalog: None, settings: &Settings::default(), zones: &StaticZones::default(), fresh: true };
    Responder::new(1).respond(&view, &ours.asker, &ours.packet, &mut out);
    compare(Some(&out), &["SERVFAIL aa".into(), "edns 4096".into(), "ede 14".into()], 0).unwrap();
    Responder::new(1).respond(&view, &others.asker, &others.packet, &mut out);
    compare(Some(&out), &["REFUSED".into()], 0).unwrap();
}

/// What is answered before everything acknowledged is in says so (RFC 8914: stale), on both roads, to those who read it.
#[test]
fn what_may_be_stale_says_so() {
    let fixture = fs::read_to_string("tests/dns/fixture.txt").unwrap();
    let case = Case::new("here", "stale", &fixture);
    let (settings, zones) = (Settings::default(), StaticZones::default());
    let view = |fresh| View { catalog: Some(&case.catalog), settings: &settings, zones: &zones, fresh };
    let mut out = Vec::new();
    for (line, ede) in [
        ("cache.service.consul A edns 1232", "ede 3"),
        ("ash.node.consul TXT edns 1232", "ede 3"),
        ("11.0.1.10.in-addr.arpa PTR edns 1232", "ede 3"),
        ("nosvc.service.consul A edns 1232", "ede 19"),
    ] {
        let question = question(line);
        for responder in [&mut Responder::new(1), &mut Responder::plain(1)] {
            for fresh in [true, false] {
                responder.respond(&view(fresh), &question.asker, &question.packet, &mut out);
                let given = given(&Message::from_vec(&out).unwrap());
                assert_eq!(given.iter().any(|line| line == ede), !fresh, "{line}, fresh {fresh}: {given:?}");
            }
        }
    }
}
