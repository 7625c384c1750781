//! Prepared queries asked by name (`dns.md` §20): the same look-up and the same choice as over HTTP; what is found is
//! told as a service's instances are.

use super::{
    answer::{Answer, Asked, draw_order, secs},
    name::Part,
    wire::{Ede, Rcode},
};
use crate::catalog::{Instance, NoQuery, Source, fold};

const TEMPLATE_BY_ID: Ede = Ede { code: 0, text: "a template is asked for by a name, not by its id" };

impl Asked<'_> {
    /// What a prepared query finds, in the order in which it does (`dns.md` §20).
    pub(super) fn query(&self, part: &Part, random: &mut fastrand::Rng) -> Answer {
        let query = match self.catalog.find_query(&self.text(part)) {
            Ok(query) => query,
            Err(NoQuery::Unknown) => return self.no_such_name(),
            Err(NoQuery::TemplateById) => {
                return Answer {
                    rcode: Some(Rcode::ServFail),
                    ede: Some(TEMPLATE_BY_ID),
                    ..Answer::default()
                };
            }
        };
        let source = Source { agent: &self.settings.node, ip: self.source, near: "" };
        let found = self.catalog.execute(&query, &source, random);
        if found.instances.is_empty() {
            return self.none_ready(found.has_others);
        }
        let mut ready: Vec<&Instance> = found.instances.iter().map(|instance| &**instance).collect();
        if !found.is_by_distance {
            draw_order(&mut ready, random);
        }
        let usual = || secs(self.settings.service_ttl.of(&fold(&query.service.service)));
        self.of_instances(&ready, query.ttl_secs.unwrap_or_else(usual))
    }
}
