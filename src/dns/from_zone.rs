//! A reply from a static zone: the same header, OPT and limits as those of the catalog. Where an alias leads out of the
//! zones into the catalog, the catalog goes on.

use ahash::AHashMap;

use super::{
    answer::{Answer, Asked, Data, Item, Owner, Record},
    name::Name,
    reply::{self, AA, Limits, Names, TC, View},
    wire::{self, Ede, POINTER_END, QUESTION_AT, Query, Rcode, kind},
    zones::{Answered, Budget, Zone, put},
};

/// A question that a zone answers.
pub struct FromZone<'a> {
    pub view: &'a View<'a>,
    pub query: &'a Query<'a>,
    pub name: &'a Name<'a>,
    pub limits: &'a Limits,
    /// The same question, as the catalog would be asked it.
    pub asked: Option<Asked<'a>>,
    /// The catalog knows of names below this one: it exists, whatever the zone says.
    pub lives_below: bool,
}

const INVALID: Ede = Ede { code: 24, text: "the zone's file has faults; the log says where" };

impl FromZone<'_> {
    /// `zone` is `None` where its file has faults.
    pub fn put(self, zone: Option<&Zone>, random: &mut fastrand::Rng, out: &mut Vec<u8>) {
        let FromZone { view, query, name, limits, .. } = self;
        let Some(zone) = zone else {
            return reply::put_refusal(out, query, limits, Rcode::ServFail, 0, Some(INVALID));
        };
        if query.qtype == kind::AXFR {
            return reply::put_refusal(out, query, limits, Rcode::NotImp, AA, None);
        }
        reply::put_question(out, query, limits, Rcode::NoError, 0);
        let opt_bytes = limits.opt.map_or(0, |opt| opt.bytes());
        let budget =
            Budget { bytes_max: limits.bytes_max - opt_bytes, compress: !view.settings.disable_compression };
        let mut answered = put(view.zones, zone, name, query.qtype, budget, random, out);
        if answered.rcode == Rcode::NxDomain && self.lives_below {
            answered.rcode = Rcode::NoError;
        }
        if let (Some((host, at)), Some(asked), false) = (answered.leads_to.take(), &self.asked, answered.cut)
        {
            follow(asked, &host, at, budget, &mut answered, random, out);
        }
        out[2] |= if answered.authoritative { AA } else { 0 } | if answered.cut { TC } else { 0 };
        out[3] |= answered.rcode as u8;
        let [answers, authority, mut additional] = answered.counts;
        if let Some(opt) = &limits.opt {
            wire::put_opt(out, opt, answered.rcode, None);
            additional += 1;
        }
        for (section, count) in [answers, authority, additional].into_iter().enumerate() {
            wire::put_count(out, section + 1, count);
        }
    }
}

/// Puts what the catalog says of a name behind the alias that leads there. The name stands at a place in the message.
fn follow(
    asked: &Asked,
    host: &[u8],
    at: usize,
    budget: Budget,
    answered: &mut Answered,
    random: &mut fastrand::Rng,
    out: &mut Vec<u8>,
) {
    let target = Owner::Elsewhere(host.strip_suffix(&[0]).unwrap_or(host).to_vec());
    let alias = Record { owner: Owner::Question, ttl_secs: 0, data: Data::Cname(target.clone()) };
    let mut answer = Answer { items: vec![Item::of(alias)], ..Answer::default() };
    asked.follow(false, &mut answer, random);
    let seen = if at < POINTER_END { AHashMap::from([(target, at)]) } else { AHashMap::new() };
    let mut names = Names { compress: budget.compress, zone_at: QUESTION_AT, seen };
    let found = answer.items.iter().skip(1).map(|item| (0, &item.record));
    for (section, record) in found.chain(answer.authority.iter().map(|record| (1, record))) {
        let length = out.len();
        names.put_record(out, record);
        if out.len() > budget.bytes_max {
            out.truncate(length);
            answered.cut = true;
            return;
        }
        answered.counts[section] += 1;
    }
    answered.rcode = answer.rcode.unwrap_or(Rcode::NoError);
}
