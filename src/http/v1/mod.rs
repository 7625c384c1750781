//! The routes under `/v1/`: a file to an API group, each with the table of its paths.

mod agent;
mod catalog;
mod coordinate;
mod definition;
#[cfg(test)]
mod fuzz;
mod health;
mod operator;
mod register;
mod status;
mod telemetry;

use super::route::Route;

pub const ROUTES: [&[Route]; 7] = [
    agent::ROUTES,
    catalog::ROUTES,
    coordinate::ROUTES,
    health::ROUTES,
    operator::ROUTES,
    status::ROUTES,
    telemetry::ROUTES,
];
