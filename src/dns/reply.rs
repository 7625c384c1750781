//! From a packet to a reply: what is refused, what is asked of the catalog, and what fits (`dns.md` §2, §17; sizes are
//! measured as sent, and whatever a size cuts off sets TC).

use std::{
    mem,
    net::IpAddr,
    sync::{Arc, LazyLock},
};

use super::{
    answer::{Answer, Asked, Data, Record, secs},
    assembly::{self, Assembled, Assembly, Cut},
    errand::{Errand, Wants},
    from_zone::FromZone,
    name::{Lookup, Name, Part, Zones},
    pack::Names,
    reverse::Reverse,
    settings::Settings,
    tally::{Form, Road, Tally},
    wire::{
        self, Ede, HEAD_BYTES, HEADER_BYTES, Opt, PLAIN_UDP_BYTES, Parsed, QUESTION_AT, Query, Rcode, class,
        kind,
    },
    zones::{Served, StaticZones},
};
use crate::{catalog::Catalog, count::Counter};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// Who asks, over what.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    pub transport: Transport,
    pub from: IpAddr,
}

/// What a question is answered from.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// `None` before the first apply.
    pub catalog: Option<&'a Catalog>,
    pub settings: &'a Settings,
    pub zones: &'a StaticZones,
    /// Whether everything that was acknowledged is in the catalog; what is answered otherwise is said to be stale.
    pub fresh: bool,
}

/// What became of a packet.
#[derive(Debug)]
pub enum Outcome {
    /// The reply is there.
    Answered,
    /// There is nothing to say.
    Silent,
    /// Something must be asked elsewhere first.
    Later(Box<Errand>),
}

impl View<'_> {
    /// Says of an answer from the catalog that it is stale, where it may be (RFC 8914).
    fn mark(&self, answer: &mut Answer) {
        if !self.fresh {
            let is_negative = answer.rcode == Some(Rcode::NxDomain);
            answer.ede = Some(if is_negative { STALE_NXDOMAIN } else { STALE });
        }
    }
}

/// Answers packets. One for each thread: it holds its randomness, and room to work in.
pub struct Responder {
    random: fastrand::Rng,
    zones: Zones,
    assembly: Assembly,
    /// A service's name and its tag, as they are looked up.
    texts: [String; 2],
    /// Off where the plain answer is to be compared with the fast one.
    fast: bool,
    /// Whether names of the catalog are asked elsewhere: there is none here.
    hands_on: bool,
    /// Whether somebody is known to live at an address below the one that is asked for, though not by the catalog here.
    lives_below: bool,
    tally: Arc<Tally>,
    /// Whether nobody else writes to that table.
    alone: bool,
    /// Of the question at hand.
    form: Form,
    /// Questions of each form since the time was last told.
    untimed: [u32; Form::ALL.len()],
}

/// What may be said to this asker.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Bytes of the whole message.
    pub bytes_max: usize,
    /// Records in the answer section.
    answers_max: usize,
    /// What OPT there is.
    pub opt: Option<Opt>,
    elsewhere: Elsewhere,
}

/// Whether names that are not ours are looked up for an asker.
#[derive(Clone, Copy, PartialEq)]
enum Elsewhere {
    /// There is nobody to ask.
    Nobody,
    /// Not for this one.
    Prohibited,
    Asked,
}

const TCP_BYTES_MAX: usize = 65535;
const NOT_OURS: Ede = Ede { code: 20, text: "not one of our zones, and no recursion here" };
const NOT_FOR_YOU: Ede = Ede { code: 18, text: "no recursion for your address" };
const TOO_LONG: Ede = Ede { code: 0, text: "the question is too long to be passed on" };
const NOT_READY: Ede = Ede { code: 14, text: "no catalog yet" };
const STALE: Ede = Ede { code: 3, text: "from before a restart; what came last is not in yet" };
const STALE_NXDOMAIN: Ede = Ede { code: 19, ..STALE };
/// Stands in for a catalog that is elsewhere, where names are not the catalog's.
static NONE: LazyLock<Catalog> = LazyLock::new(Catalog::default);
const QR: u8 = 0x80;
pub const AA: u8 = 0x04;
pub const TC: u8 = 0x02;
const RD: u8 = 0x01;
const RA: u8 = 0x80;
const CD: u8 = 0x10;

impl Responder {
    pub fn new(seed: u64) -> Self {
        Responder::with(fastrand::Rng::with_seed(seed), Arc::new(Tally::new(Road::UdpPlain)), true)
    }

    /// Counts in this table, to which nobody else writes where it is `alone`.
    pub(super) fn counting(tally: Arc<Tally>, alone: bool) -> Self {
        Responder::with(fastrand::Rng::new(), tally, alone)
    }

    fn with(random: fastrand::Rng, tally: Arc<Tally>, alone: bool) -> Self {
        Responder {
            random,
            zones: Zones::default(),
            assembly: Assembly::default(),
            texts: Default::default(),
            fast: true,
            hands_on: false,
            lives_below: false,
            tally,
            alone,
            form: Form::Invalid,
            untimed: Default::default(),
        }
    }

    /// All questions since this was last called took so long.
    pub(super) fn took(&mut self, nanos: u64) {
        self.tally.took(&mem::take(&mut self.untimed), nanos);
    }

    /// Has names of the catalog asked elsewhere, where that is so.
    pub(super) fn handing_on(self, hands_on: bool) -> Self {
        Responder { hands_on, ..self }
    }

    pub(super) fn knowing_below(self, lives_below: bool) -> Self {
        Responder { lives_below, ..self }
    }

    /// Whether what was just answered is that nobody is known to live at an address.
    pub(super) fn knows_nobody(&self, reply: &[u8]) -> bool {
        self.form == Form::Reverse && wire::answer_count(reply) == 0
    }

    /// Answers everything by the plain road: the judge of the fast one.
    pub fn plain(seed: u64) -> Self {
        Responder { fast: false, ..Responder::new(seed) }
    }

    /// Puts the reply to a packet in `out`, which is cleared first and stays empty where silence is the answer.
    pub fn respond(&mut self, view: &View, asker: &Asker, packet: &[u8], out: &mut Vec<u8>) -> Outcome {
        out.clear();
        self.form = Form::Invalid;
        let mut qtype = 0;
        match wire::parse(packet) {
            Parsed::Silence => {
                self.count(|tally| tally.silent());
                return Outcome::Silent;
            }
            Parsed::NotImplemented => put_bare(out, packet, packet[2] & 0x78, Rcode::NotImp, None),
            Parsed::NoQuestion => put_bare(out, packet, 0, Rcode::Refused, None),
            Parsed::Malformed(question) => put_bare(out, packet, 0, Rcode::FormErr, question),
            Parsed::Query(query) => {
                qtype = query.qtype;
                match self.answer(view, asker, &query, out) {
                    None => {}
                    Some(_) if packet.len() > Errand::PACKET_BYTES_MAX => {
                        let limits = Limits::of(view.settings, asker, &query);
                        put_refusal(out, &query, &limits, Rcode::ServFail, 0, Some(TOO_LONG));
                    }
                    Some(wants) => {
                        self.untimed[self.form as usize] += 1;
                        let (form, road) = (self.form, self.tally.road());
                        return Outcome::Later(Box::new(Errand::new(*asker, packet, wants, form, road)));
                    }
                }
            }
        }
        self.untimed[self.form as usize] += 1;
        let form = self.form;
        self.count(|tally| tally.cell(form, qtype, out));
        Outcome::Answered
    }

    #[inline]
    fn count<'a>(&'a self, cell: impl FnOnce(&'a Tally) -> &'a Counter) {
        let counter = cell(&self.tally);
        if self.alone { counter.add_alone(1) } else { counter.add(1) }
    }

    /// `Some` where there is no reply yet.
    fn answer(&mut self, view: &View, asker: &Asker, query: &Query, out: &mut Vec<u8>) -> Option<Wants> {
        let settings = view.settings;
        if !self.zones.are_of(settings) {
            self.zones = Zones::of(settings);
        }
        let mut limits = Limits::of(settings, asker, query);
        let refuse = |out: &mut Vec<u8>, rcode, flags, ede| {
            put_refusal(out, query, &limits, rcode, flags, ede);
            None
        };
        if query.edns.is_some_and(|edns| edns.version != 0) {
            return refuse(out, Rcode::BadVers, 0, None);
        }
        let name = Name::new(query.name);
        let Some(depth) = self.zones.split(&name).filter(|_| !limits.is_for_parent(query)) else {
            return self.outside(view, query, &name, &limits, out);
        };
        self.form = Form::Other;
        if !matches!(query.qclass, class::IN | class::ANY) {
            return refuse(out, Rcode::Refused, 0, None);
        }
        if query.qtype == kind::AXFR {
            return refuse(out, Rcode::NotImp, AA, None);
        }
        let zone_at = QUESTION_AT + name.offset(depth);
        let lookup = self.zones.parse(&name, depth, query.qtype == kind::SRV);
        let Some(catalog) = view.catalog else {
            if self.hands_on {
                self.form = form_of(&lookup);
                return Some(Wants::Catalog { zone_at, answers_max: limits.answers_max });
            }
            return refuse(out, Rcode::ServFail, AA, Some(NOT_READY));
        };
        self.form = form_of(&lookup);
        let asked = Asked {
            catalog,
            is_elsewhere: false,
            settings,
            name: &name,
            qtype: query.qtype,
            zones: &self.zones,
            files: view.zones,
            source: source(asker, query),
            zone_bytes: query.name.len() - name.offset(depth),
            has_edns: query.edns.is_some(),
            items_max: limits.items_max(),
        };
        let fast = match &lookup {
            Lookup::Service { service, tag } if self.fast && view.fresh && !settings.disable_compression => {
                let room = (&mut self.assembly, &mut self.texts, &mut self.random);
                assemble(&asked, service, tag.as_ref(), query, &limits, zone_at, room, out)
            }
            _ => Assembled::AskPlain,
        };
        let mut answer = match fast {
            Assembled::Records { .. } => return None,
            Assembled::NoData => asked.no_data(),
            Assembled::NoneReady { any } => asked.none_ready(any),
            Assembled::AskPlain => asked.answer(&lookup, &mut self.random),
        };
        view.mark(&mut answer);
        if lookup.is_of_service() && query.qtype != kind::SRV && settings.a_record_limit > 0 {
            answer.cut(settings.a_record_limit, |item| matches!(item.record.data, Data::Address(_)));
        }
        answer.cut(limits.answers_max, |_| true);
        let for_subnet = matches!(lookup, Lookup::Query(_)) && answer.rcode.is_none();
        if limits.elsewhere == Elsewhere::Asked && !answer.outside.is_empty() {
            return Some(Wants::Chase { answer, zone_at, answers_max: limits.answers_max, for_subnet });
        }
        if for_subnet {
            limits.scope_to_subnet();
        }
        Reply { query, settings, limits: &limits, zone_at, answer: &answer }.fit(out);
        None
    }

    /// A name in none of the catalog's zones: who lives at an address the catalog knows; else what a file says; else
    /// whoever else can be asked.
    fn outside(
        &mut self,
        view: &View,
        query: &Query,
        name: &Name,
        limits: &Limits,
        out: &mut Vec<u8>,
    ) -> Option<Wants> {
        let settings = view.settings;
        self.form = Form::Outside;
        let is_in = matches!(query.qclass, class::IN | class::ANY);
        let reverse = Reverse::parse(name).filter(|_| is_in && !limits.is_for_parent(query));
        if reverse.is_some() && view.catalog.is_none() {
            self.form = Form::Reverse;
            if self.hands_on {
                return Some(Wants::Reverse);
            }
            put_refusal(out, query, limits, Rcode::ServFail, 0, Some(NOT_READY));
            return None;
        }
        let catalog = view.catalog.or_else(|| self.hands_on.then_some(&*NONE));
        let asked = catalog.map(|catalog| Asked {
            catalog,
            is_elsewhere: self.hands_on,
            settings,
            name,
            qtype: query.qtype,
            zones: &self.zones,
            files: view.zones,
            source: None,
            zone_bytes: query.name.len(),
            has_edns: query.edns.is_some(),
            items_max: limits.items_max(),
        });
        let known = reverse.and_then(|reverse| asked.as_ref()?.reverse(&reverse));
        let known = known.or_else(|| self.lives_below.then(Answer::default));
        let is_child = |zone: &Served| zone.as_ref().is_some_and(|zone| zone.depth_of(name) == 0);
        let served = view.zones.find(name, query.qtype).filter(|zone| {
            is_in && self.zones.split(name).is_none() && !(limits.is_for_parent(query) && is_child(zone))
        });
        if let (Some(zone), true) = (served, known.as_ref().is_none_or(|known| known.items.is_empty())) {
            self.form = Form::StaticZone;
            let from_zone = FromZone { view, query, name, limits, asked, lives_below: known.is_some() };
            return from_zone.put(zone.as_deref(), &mut self.random, out);
        }
        let mut answer = match (known, reverse, asked) {
            (Some(known), ..) => known,
            (None, Some(reverse), Some(asked)) if limits.elsewhere == Elsewhere::Nobody => {
                asked.no_such_reverse(&reverse)
            }
            _ => {
                let wants = elsewhere(query, limits, out);
                if wants.is_some() {
                    self.form = Form::Recursion;
                }
                return wants;
            }
        };
        self.form = Form::Reverse;
        view.mark(&mut answer);
        Reply { query, settings, limits, zone_at: QUESTION_AT, answer: &answer }.fit(out);
        None
    }
}

fn form_of(lookup: &Lookup) -> Form {
    match lookup {
        Lookup::Service { .. } | Lookup::Services { .. } => Form::Service,
        Lookup::Query(_) => Form::Query,
        Lookup::Node(_) => Form::Node,
        Lookup::Address(_) => Form::Address,
        Lookup::Apex | Lookup::Servers => Form::Zone,
        Lookup::Empty | Lookup::Nowhere => Form::Other,
    }
}

/// Who asks, or on whose behalf (RFC 7871), if that says anything.
fn source(asker: &Asker, query: &Query) -> Option<IpAddr> {
    let subnet = query.edns.and_then(|edns| edns.subnet);
    subnet.and_then(|subnet| subnet.ip()).or(Some(asker.from.to_canonical()))
}

/// Puts in `out` an answer that had to wait for what was found elsewhere.
pub fn put_late(
    out: &mut Vec<u8>,
    query: &Query,
    settings: &Settings,
    limits: &Limits,
    zone_at: usize,
    answer: &Answer,
) {
    Reply { query, settings, limits, zone_at, answer }.fit(out);
}

/// Names outside our zones: looked up for whoever may ask, refused to others.
fn elsewhere(query: &Query, limits: &Limits, out: &mut Vec<u8>) -> Option<Wants> {
    let ede = match limits.elsewhere {
        Elsewhere::Asked if query.is_whole() && !kind::OF_ONE_LINK.contains(&query.qtype) => {
            return Some(Wants::Relay);
        }
        Elsewhere::Asked => None,
        Elsewhere::Prohibited => Some(NOT_FOR_YOU),
        Elsewhere::Nobody => Some(NOT_OURS),
    };
    put_refusal(out, query, limits, Rcode::Refused, 0, ede);
    None
}

/// The fast road to a service: a whole reply in `out`, or the reason why there is none.
#[expect(
    clippy::too_many_arguments,
    reason = "everything that a reply depends on, borrowed from where it stands"
)]
fn assemble(
    asked: &Asked,
    service: &Part,
    tag: Option<&Part>,
    query: &Query,
    limits: &Limits,
    zone_at: usize,
    (assembly, [name, tag_name], random): (&mut Assembly, &mut [String; 2], &mut fastrand::Rng),
    out: &mut Vec<u8>,
) -> Assembled {
    let kind = match query.qtype {
        kind::A => assembly::Kind::A,
        kind::AAAA => assembly::Kind::Aaaa,
        kind::SRV => assembly::Kind::Srv,
        kind::ANY => assembly::Kind::Any,
        _ => assembly::Kind::Other,
    };
    let settings = asked.settings;
    asked.name.write_text(service, name);
    let Some(group) = asked.catalog.service(name) else { return Assembled::AskPlain };
    let tag = tag.map(|tag| {
        asked.name.write_text(tag, tag_name);
        tag_name.as_str()
    });
    let records_max = match (kind, settings.a_record_limit) {
        (assembly::Kind::Srv, _) | (_, 0) => usize::MAX,
        (_, limit) => limit,
    };
    put_question(out, query, limits, Rcode::NoError, AA);
    let wanted = assembly::Asked {
        group,
        tag,
        kind,
        only_passing: settings.only_passing,
        count_max: limits.answers_max.min(records_max),
        bytes_max: limits.bytes_max - limits.opt.map_or(0, |opt| opt.bytes()),
        ttl_secs: secs(settings.service_ttl.of(name)),
        zone: &query.name[zone_at - QUESTION_AT..],
        zone_at,
        node_tail: &asked.zones.node_tail,
        address_tail: &asked.zones.address_tail,
        node_meta_txt: settings.node_meta_txt,
    };
    let outcome = assembly.assemble(&wanted, out, random);
    if let Assembled::Records { answers, additional, cut } = outcome {
        if cut == Cut::BySize || cut == Cut::ByCount && settings.enable_truncate {
            out[2] |= TC;
        }
        wire::put_count(out, 1, answers);
        wire::put_count(out, 3, additional + u16::from(limits.opt.is_some()));
        if let Some(opt) = &limits.opt {
            wire::put_opt(out, opt, Rcode::NoError, None);
        }
    }
    outcome
}

impl Limits {
    pub fn of(settings: &Settings, asker: &Asker, query: &Query) -> Self {
        // A socket for both families sees IPv4 clients by their mapped addresses.
        let is_loopback = asker.from.to_canonical().is_loopback();
        let own = if is_loopback { settings.udp_bytes_max_loopback } else { settings.udp_bytes_max };
        let own = own.max(PLAIN_UDP_BYTES as u16);
        let offered = query.edns.map_or(PLAIN_UDP_BYTES, |edns| usize::from(edns.size).max(PLAIN_UDP_BYTES));
        let plain_udp = asker.transport == Transport::Udp && offered == PLAIN_UDP_BYTES;
        Limits {
            bytes_max: match asker.transport {
                Transport::Tcp => TCP_BYTES_MAX,
                Transport::Udp => offered.min(usize::from(own)),
            },
            answers_max: match settings.udp_answer_limit {
                limit if plain_udp && limit > 0 => limit,
                _ => usize::MAX,
            },
            opt: query.edns.map(|edns| Opt { size: own, subnet: edns.subnet }),
            elsewhere: match &settings.recursion {
                recursion if !recursion.is_on() => Elsewhere::Nobody,
                recursion if recursion.serves(asker.from) => Elsewhere::Asked,
                _ => Elsewhere::Prohibited,
            },
        }
    }

    /// The answer is for the subnet that was told of (RFC 7871 §7.2.1).
    pub fn scope_to_subnet(&mut self) {
        if let Some(subnet) = self.opt.as_mut().and_then(|opt| opt.subnet.as_mut()) {
            subnet.scope = subnet.prefix;
        }
    }

    /// More answers than a message can hold.
    fn items_max(&self) -> usize {
        self.bytes_max / HEAD_BYTES + 1
    }

    pub fn asks_elsewhere(&self) -> bool {
        self.elsewhere == Elsewhere::Asked
    }

    /// What a zone says of its children is not the child's to say, if the parent can be asked.
    fn is_for_parent(&self, query: &Query) -> bool {
        query.qtype == kind::DS && self.elsewhere == Elsewhere::Asked
    }
}

/// A reply with nothing in it but the question, if that. `opcode` is in its place in the header.
fn put_bare(out: &mut Vec<u8>, packet: &[u8], opcode: u8, rcode: Rcode, question: Option<&[u8]>) {
    let id = u16::from_be_bytes([packet[0], packet[1]]);
    // As received but for AA and Z; a malformed message is answered as a query.
    let flags = [QR | opcode | packet[2] & (TC | RD), packet[3] & 0xb0 | rcode as u8];
    wire::put_header(
        out,
        id,
        if rcode == Rcode::Refused { [flags[0] & !TC, flags[1] & 0x1f] } else { flags },
    );
    if let Some(question) = question {
        out.extend_from_slice(question);
        wire::put_count(out, 0, 1);
    }
}

pub fn put_refusal(
    out: &mut Vec<u8>,
    query: &Query,
    limits: &Limits,
    rcode: Rcode,
    flags: u8,
    ede: Option<Ede>,
) {
    put_question(out, query, limits, rcode, flags);
    if let Some(opt) = &limits.opt {
        wire::put_opt(out, opt, rcode, ede);
        wire::put_count(out, 3, 1);
    }
}

pub fn put_question(out: &mut Vec<u8>, query: &Query, limits: &Limits, rcode: Rcode, flags: u8) {
    let bits = |set: bool, bit: u8| if set { bit } else { 0 };
    let available = bits(limits.elsewhere == Elsewhere::Asked, RA);
    let flags = [QR | flags | bits(query.rd, RD), available | bits(query.cd, CD) | rcode as u8 & 0xf];
    wire::put_header(out, query.id, flags);
    out.extend_from_slice(query.question);
    // A question that was cut short lacks its type and class: they are told as 0.
    out.resize(HEADER_BYTES + query.name.len() + 4, 0);
    wire::put_count(out, 0, 1);
}

/// An answer on its way into a message.
struct Reply<'a> {
    query: &'a Query<'a>,
    settings: &'a Settings,
    limits: &'a Limits,
    /// Where in the message the zone's labels begin, in the spelling asked.
    zone_at: usize,
    answer: &'a Answer,
}

impl Reply<'_> {
    /// Puts in as many records as fit, each with the addresses that go with it. Node meta goes in only if all of it
    /// fits. Where not even the authority section does, nothing is left but the question and the code.
    fn fit(&self, out: &mut Vec<u8>) {
        let all = self.answer.items.len();
        let fits = |out: &mut Vec<u8>, items, texts, cut| {
            out.clear();
            self.put(out, items, texts, cut);
            out.len() <= self.limits.bytes_max
        };
        let has_texts =
            !self.answer.texts.is_empty() || self.answer.items.iter().any(|item| !item.texts.is_empty());
        if has_texts && fits(out, all, true, false) || fits(out, all, false, false) {
            return;
        }
        let (mut low, mut high) = (0, all);
        while low + 1 < high {
            let middle = low.midpoint(high);
            if fits(out, middle, false, true) {
                low = middle;
            } else {
                high = middle;
            }
        }
        if !fits(out, low, false, true) {
            let (rcode, ede) = (self.answer.rcode, self.answer.ede);
            out.clear();
            Reply { answer: &Answer { rcode, ede, ..Answer::default() }, ..*self }.put(out, 0, false, true);
        }
    }

    fn put(&self, out: &mut Vec<u8>, items: usize, texts: bool, cut_by_size: bool) {
        let answer = self.answer;
        let truncated = cut_by_size || answer.cut_by_count && self.settings.enable_truncate;
        put_question(
            out,
            self.query,
            self.limits,
            answer.rcode.unwrap_or(Rcode::NoError),
            AA | if truncated { TC } else { 0 },
        );
        let mut names = Names::new(!self.settings.disable_compression, self.zone_at);
        let items = &answer.items[..items];
        let mut counts = [0usize; 3];
        let mut put = |section: usize, record: &Record, out: &mut Vec<u8>| {
            names.put_record(out, record);
            counts[section] += 1;
        };
        for item in items {
            // What is too long already will not do.
            if out.len() > self.limits.bytes_max {
                return;
            }
            put(0, &item.record, out);
        }
        answer.authority.iter().for_each(|record| put(1, record, out));
        items.iter().flat_map(|item| &item.glue).for_each(|record| put(2, record, out));
        answer.additional.iter().for_each(|record| put(2, record, out));
        if texts {
            let all = items.iter().flat_map(|item| &item.texts).chain(&answer.texts);
            all.for_each(|record| put(2, record, out));
        }
        if let Some(opt) = &self.limits.opt {
            wire::put_opt(out, opt, answer.rcode.unwrap_or(Rcode::NoError), answer.ede);
            counts[2] += 1;
        }
        for (section, count) in counts.into_iter().enumerate() {
            // More than a count can tell is more than fits, and goes no further than `fit`.
            wire::put_count(out, section + 1, u16::try_from(count).unwrap_or(u16::MAX));
        }
    }
}
