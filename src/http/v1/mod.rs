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

pub const ROUTES: [&[Route]; 17] = [
    absent::ROUTES,
    agent::ROUTES,
    agent_health::ROUTES,
    catalog::ROUTES,
    coordinate::ROUTES,
    event::ROUTES,
    health::ROUTES,
    kv::ROUTES,
    member::ROUTES,
    operator::ROUTES,
    query::ROUTES,
    session::ROUTES,
    snapshot::ROUTES,
    status::ROUTES,
    telemetry::ROUTES,
    txn::ROUTES,
    unconfirmed::ROUTES,
];
