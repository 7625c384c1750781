//! Questions that cannot be answered on the spot, since something must be asked elsewhere first. Each runs on the
//! runtime, for no longer than [`Recursion::patience`]; over all clients and for each there are so many and no more:
//! whoever comes then is told so at once. What an errand costs stays away from the threads that answer.

use std::{sync::Arc, time::Duration};

use ahash::AHashSet;
use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::{runtime::Handle, task::JoinSet, time};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Asker, Outcome, Published, Responder, Settings, StaticZones, Transport, View,
    answer::{Answer, Data},
    chase::{Found, Outside},
    elsewhere::{AskedElsewhere, Elsewhere, Left, ToldElsewhere},
    recursion::{Failure, Known, Question, Recursion, Recursor},
    reply::{self, Limits},
    seats::{Seats, SeatsMax},
    tally::{Counters, Form, Road, Tally},
    wire::{self, Ede, Parsed, Query, Rcode, class},
};
use crate::catalog::Catalog;

/// A question, who asked it, and what is missing for the answer.
#[derive(Debug)]
pub struct Errand {
    asker: Asker,
    packet: Box<[u8]>,
    wants: Wants,
    /// How it is counted.
    form: Form,
    road: Road,
}

#[derive(Debug)]
pub enum Wants {
    /// The question is somebody else's: what he says is passed on.
    Relay,
    /// The answer is ours, and tells of names that are not.
    /// So many records of it may be told.
    /// Of a prepared query, it is for the subnet that was told of.
    Chase { answer: Answer, zone_at: usize, answers_max: usize, for_subnet: bool },
    /// The name is the catalog's, which is elsewhere. So many records may be told.
    Catalog { zone_at: usize, answers_max: usize },
    /// Who lives at an address: the catalog elsewhere may know, and others if it does not.
    Reverse,
}

/// Runs errands. Cloned, it is the same one.
#[derive(Clone)]
pub struct Errands {
    shared: Arc<Shared>,
}

struct Shared {
    runtime: Handle,
    tasks: TaskTracker,
    stop: CancellationToken,
    settings: Arc<ArcSwap<Settings>>,
    seats: Arc<Seats>,
    recursor: Recursor,
    counters: Arc<Counters>,
    /// Whoever has a catalog, where this agent has none; those who wait for him; and what is answered where nobody there
    /// knows: zones of files, recursors.
    elsewhere: Option<Arc<dyn Elsewhere>>,
    waiting: Arc<Seats>,
    zones: Arc<ArcSwap<StaticZones>>,
    /// For each road, where answers are counted that the road itself did not give.
    tallies: [Arc<Tally>; Road::ALL.len()],
}

/// Questions that wait for another agent, over all clients and for each: it answers in no time, or is away.
const WAITING_MAX: SeatsMax = SeatsMax { all: 4096, per_client: 1024 };
/// For another agent's answer. Who asked gives up a second later, mostly.
const ELSEWHERE_PATIENCE: Duration = Duration::from_secs(4);
/// Hosts that are looked up for one answer.
const HOSTS_MAX: usize = 16;
const TOO_MANY: Ede = Ede { code: 0, text: "too many questions wait for recursors" };
const TOO_MANY_ELSEWHERE: Ede = Ede { code: 0, text: "too many questions wait for servers" };
const NO_SERVER: Ede = Ede { code: 23, text: "no server answers" };
const LOOP: Ede = Ede { code: 0, text: "a loop: this is a question of ours that came back" };
const REFUSED: Ede = Ede { code: 22, text: "no recursor has an answer" };
const SILENCE: Ede = Ede { code: 23, text: "no recursor answers" };

impl Errand {
    /// Nobody's question is longer; it is kept while the errand runs.
    pub const PACKET_BYTES_MAX: usize = 4096;

    pub fn new(asker: Asker, packet: &[u8], wants: Wants, form: Form, road: Road) -> Self {
        Errand { asker, packet: packet.into(), wants, form, road }
    }

    /// What is left to do of it for whoever has recursors; `None` where the name is theirs altogether.
    pub(super) fn left(self) -> Option<Left> {
        match self.wants {
            Wants::Chase { answer, for_subnet, .. } => Some(Left { answer, for_subnet }),
            Wants::Relay | Wants::Catalog { .. } | Wants::Reverse => None,
        }
    }

    /// It ends within this time.
    pub fn patience(&self, recursion: &Recursion) -> Duration {
        match self.wants {
            Wants::Relay | Wants::Chase { .. } => recursion.patience(),
            Wants::Catalog { .. } | Wants::Reverse => ELSEWHERE_PATIENCE + recursion.patience(),
        }
    }

    fn query(&self) -> Option<Query<'_>> {
        match wire::parse(&self.packet) {
            Parsed::Query(query) => Some(query),
            _ => None,
        }
    }
}

impl Errands {
    /// They end when `stop` is cancelled: see `stopped`.
    pub fn new(
        runtime: Handle,
        published: &Published,
        elsewhere: Option<Arc<dyn Elsewhere>>,
        stop: CancellationToken,
    ) -> Self {
        let Published { settings, counters, zones, .. } = published.clone();
        let tasks = TaskTracker::new();
        let recursor = Recursor::new(runtime.clone(), tasks.clone(), counters.clone(), stop.clone());
        let (seats, tallies) = (Arc::default(), Road::ALL.map(|road| counters.tally(road)));
        let waiting = Arc::default();
        let shared = Shared {
            runtime,
            tasks,
            stop,
            settings,
            seats,
            recursor,
            counters,
            elsewhere,
            waiting,
            zones,
            tallies,
        };
        Errands { shared: Arc::new(shared) }
    }

    /// Whether names of the catalog are asked elsewhere.
    pub fn hand_on(&self) -> bool {
        self.shared.elsewhere.is_some()
    }

    /// Puts the reply in `out` if it can be had now, or if there is no room to wait for it. Else `out` stays empty, and
    /// `back` gets the reply within the deadline; nobody hears anything if we stop before.
    pub fn take(&self, errand: Box<Errand>, out: &mut Vec<u8>, back: impl FnOnce(Vec<u8>) + Send + 'static) {
        out.clear();
        let (form, road) = (errand.form, errand.road);
        let qtype = errand.query().map_or(0, |query| query.qtype);
        self.begin(errand, out, back);
        if !out.is_empty() {
            self.shared.count(form, road, qtype, out);
        }
    }

    fn begin(&self, errand: Box<Errand>, out: &mut Vec<u8>, back: impl FnOnce(Vec<u8>) + Send + 'static) {
        let shared = &self.shared;
        let settings = shared.settings.load();
        let Some(query) = errand.query() else { return };
        let limits = Limits::of(&settings, &errand.asker, &query);
        if shared.recursor.is_own(&errand.packet) {
            tracing::warn!(from = %errand.asker.from, "a question of ours came back: a recursor asks this agent");
            return fail(out, &query, &limits, LOOP);
        }
        if matches!(errand.wants, Wants::Relay)
            && let Some(known) = shared.recursor.known(&Question::of(&query), &settings.recursion)
        {
            return put(out, &query, &limits, &known);
        }
        let client = errand.asker.from.to_canonical();
        let (seats, most, too_many) = match errand.wants {
            Wants::Relay | Wants::Chase { .. } => (&shared.seats, settings.recursion.in_flight_max, TOO_MANY),
            Wants::Catalog { .. } | Wants::Reverse => (&shared.waiting, WAITING_MAX, TOO_MANY_ELSEWHERE),
        };
        let Some(seat) = seats.take(client, most) else {
            shared.counters.shed.add(1);
            return fail(out, &query, &limits, too_many);
        };
        let (stop, run) = (shared.stop.clone(), shared.clone());
        let under_way = UnderWay::begin(&shared.counters);
        let errand = async move {
            let (_seat, _under_way) = (seat, under_way);
            if let Some(reply) = stop.run_until_cancelled(run.run(*errand)).await {
                back(reply);
            }
        };
        shared.tasks.spawn_on(errand, &shared.runtime);
    }

    /// Waits for the last of them to end.
    pub async fn stopped(&self) {
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

impl Shared {
    async fn run(self: Arc<Self>, errand: Errand) -> Vec<u8> {
        let mut out = Vec::new();
        let settings = self.settings.load_full();
        let Errand { asker, packet, wants, form, road } = errand;
        let wants = match wants {
            Wants::Catalog { .. } | Wants::Reverse => match self.ask(&asker, &packet, wants, &settings).await
            {
                Err(reply) => {
                    let qtype = if let Parsed::Query(query) = wire::parse(&packet) { query.qtype } else { 0 };
                    self.count(form, road, qtype, &reply);
                    return reply;
                }
                Ok(wants) => wants,
            },
            wants => wants,
        };
        let Parsed::Query(query) = wire::parse(&packet) else { return out };
        let mut limits = Limits::of(&settings, &asker, &query);
        match wants {
            Wants::Relay => {
                let known = self.recursor.ask(Question::of(&query), &settings.recursion).await;
                put(&mut out, &query, &limits, &known);
            }
            Wants::Chase { mut answer, zone_at, answers_max, for_subnet } => {
                let found = self.chase(&answer.outside, query.cd, &settings.recursion).await;
                answer.resolve(|outside| gather(&found, outside));
                answer.cut(answers_max, |_| true);
                if for_subnet && answer.rcode.is_none() {
                    limits.scope_to_subnet();
                }
                reply::put_late(&mut out, &query, &settings, &limits, zone_at, &answer);
            }
            // Asked above.
            Wants::Catalog { .. } | Wants::Reverse => {}
        }
        self.count(form, road, query.qtype, &out);
        out
    }

    /// What is left to do once whoever has a catalog was asked; or the reply, where nothing is.
    async fn ask(
        &self,
        asker: &Asker,
        packet: &[u8],
        wants: Wants,
        settings: &Settings,
    ) -> Result<Wants, Vec<u8>> {
        let told = self.told(asker, packet, settings).await;
        match (wants, told) {
            (_, Ok(told)) if !told.reply.is_empty() && !told.unsure => Err(told.reply.into()),
            (Wants::Catalog { zone_at, answers_max }, Ok(told)) => {
                let Some(Left { answer, for_subnet }) = Left::read(&told.left) else {
                    tracing::debug!("a server's answer to a question for a name cannot be read");
                    return Err(self.no_server(asker, packet, settings));
                };
                Ok(Wants::Chase { answer, zone_at, answers_max, for_subnet })
            }
            // Who asks recursors has their word, though no server gives one.
            (Wants::Reverse, told) if told.is_ok() || settings.recursion.is_on() => {
                self.or_others(asker, packet, settings, told.unwrap_or_default().reply)
            }
            (_, told) => {
                if let Err(error) = told {
                    tracing::debug!(error, "no server answers a question for a name");
                }
                Err(self.no_server(asker, packet, settings))
            }
        }
    }

    async fn told(&self, asker: &Asker, packet: &[u8], settings: &Settings) -> Result<ToldElsewhere, String> {
        let elsewhere = self.elsewhere.as_ref().ok_or("nobody is asked")?;
        let asked = AskedElsewhere {
            packet: Bytes::copy_from_slice(packet),
            tcp: asker.transport == Transport::Tcp,
            from: asker.from,
            settings: rmp_serde::to_vec_named(settings).map_err(|error| error.to_string())?.into(),
        };
        let told = time::timeout(ELSEWHERE_PATIENCE, elsewhere.ask(asked)).await;
        told.unwrap_or_else(|_| Err("no answer came in time".into()))
    }

    /// An address at which nobody is known to live: zones of files, and recursors, may know more than this reply.
    fn or_others(
        &self,
        asker: &Asker,
        packet: &[u8],
        settings: &Settings,
        told: Bytes,
    ) -> Result<Wants, Vec<u8>> {
        let (catalog, zones) = (Catalog::default(), self.zones.load());
        let view = View { catalog: Some(&catalog), settings, zones: &zones, fresh: true };
        let lives_below = !told.is_empty() && wire::is_no_error(&told);
        let mut responder = Responder::new(fastrand::u64(..)).knowing_below(lives_below);
        let mut reply = Vec::new();
        match responder.respond(&view, asker, packet, &mut reply) {
            Outcome::Later(errand) => Ok(errand.wants),
            _ if responder.knows_nobody(&reply) && !told.is_empty() => Err(told.into()),
            Outcome::Answered | Outcome::Silent => Err(reply),
        }
    }

    fn no_server(&self, asker: &Asker, packet: &[u8], settings: &Settings) -> Vec<u8> {
        let mut reply = Vec::new();
        if let Parsed::Query(query) = wire::parse(packet) {
            fail(&mut reply, &query, &Limits::of(settings, asker, &query), NO_SERVER);
        }
        reply
    }

    fn count(&self, form: Form, road: Road, qtype: u16, reply: &[u8]) {
        self.tallies[road as usize].cell(form, qtype, reply).add(1);
    }

    /// Asks for the addresses of these hosts, all at once.
    async fn chase(&self, outside: &[Outside], cd: bool, settings: &Recursion) -> Vec<(Question, Known)> {
        let mut asked: Vec<Question> = Vec::new();
        for outside in outside {
            let name: Box<[u8]> = [&outside.host[..], &[0]].concat().into();
            let question = |qtype: &u16| Question {
                name: name.clone(),
                qtype: *qtype,
                qclass: class::IN,
                dnssec_ok: false,
                cd,
            };
            let is_new = asked.iter().all(|other| other.name != name);
            if is_new && asked.len() < HOSTS_MAX * 2 {
                asked.extend(outside.kinds().iter().map(question));
            }
        }
        let mut asking = JoinSet::new();
        for question in asked {
            let (recursor, settings) = (self.recursor.clone(), settings.clone());
            asking.spawn(async move { (question.clone(), recursor.ask(question, &settings).await) });
        }
        asking.join_all().await
    }
}

/// Counts as under way until dropped.
struct UnderWay(Arc<Counters>);

impl UnderWay {
    fn begin(counters: &Arc<Counters>) -> Self {
        counters.errands_begun.add(1);
        UnderWay(counters.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.errands_ended.add(1);
    }
}

/// What the replies say of one host.
fn gather(replies: &[(Question, Known)], outside: &Outside) -> Found {
    let (mut found, mut aliases) = (Found::default(), AHashSet::new());
    for kind in outside.kinds() {
        let is_it = |question: &Question| {
            question.qtype == *kind && question.name.strip_suffix(&[0]) == Some(&outside.host[..])
        };
        match replies.iter().find(|(question, _)| is_it(question)) {
            Some((_, Known::Message(message, age))) => {
                // Both replies tell of the aliases on the way, though one may have aged.
                found.records.extend(message.chain(*age).into_iter().filter(|record| match &record.data {
                    Data::Cname(target) => aliases.insert((record.owner.clone(), target.clone())),
                    _ => true,
                }));
                found.is_name_error |= message.is_name_error();
            }
            Some((_, Known::Failed(failure))) => found.ede = Some(ede(*failure)),
            None => {}
        }
    }
    // Some servers deny the name where it has nothing of one family.
    found.is_name_error &= found.records.iter().all(|record| matches!(record.data, Data::Cname(_)));
    found
}

fn put(out: &mut Vec<u8>, query: &Query, limits: &Limits, known: &Known) {
    match known {
        Known::Message(message, age) => message.put(out, query, limits, *age),
        Known::Failed(failure) => fail(out, query, limits, ede(*failure)),
    }
}

fn ede(failure: Failure) -> Ede {
    match failure {
        Failure::Silence => SILENCE,
        Failure::Refused => REFUSED,
    }
}

fn fail(out: &mut Vec<u8>, query: &Query, limits: &Limits, ede: Ede) {
    out.clear();
    reply::put_refusal(out, query, limits, Rcode::ServFail, 0, Some(ede));
}
