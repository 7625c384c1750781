//! The routes under `/v1/`: a file to an API group, each with the table of its paths.

mod absent;
mod agent;
mod agent_health;
mod catalog;
mod coordinate;
mod definition;
mod event;
#[cfg(test)]
mod fuzz;
mod health;
mod keyring;
mod kv;
mod member;
mod operator;
mod query;
mod register;
mod session;
mod snapshot;
mod status;
mod telemetry;
mod txn;
mod unconfirmed;

use super::route::Route;

pub use query::QUERY;

/// Whoever is asked answers these.
pub static OF_THE_AGENT: &[&[Route]] =
    &[absent::ROUTES, agent::ROUTES, agent_health::ROUTES, event::ROUTES, member::ROUTES, telemetry::ROUTES];

/// A server answers these.
pub static OF_THE_DATACENTER: &[&[Route]] = &[
    catalog::ROUTES,
    coordinate::ROUTES,
    health::ROUTES,
    keyring::ROUTES,
    kv::ROUTES,
    operator::ROUTES,
    query::ROUTES,
    session::ROUTES,
    snapshot::ROUTES,
    status::ROUTES,
    txn::ROUTES,
    unconfirmed::ROUTES,
];

/// Whether a server answers it, whoever is asked. It is one of [`routes`].
pub fn is_of_datacenter(route: &Route) -> bool {
    OF_THE_DATACENTER.iter().copied().flatten().any(|other| std::ptr::eq(other, route))
}

pub fn routes() -> impl Iterator<Item = &'static Route> {
    OF_THE_AGENT.iter().chain(OF_THE_DATACENTER).copied().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_of_one_or_the_other() {
        assert!(OF_THE_AGENT.iter().copied().flatten().all(|route| !is_of_datacenter(route)));
        assert!(OF_THE_DATACENTER.iter().copied().flatten().all(is_of_datacenter));
    }
}
