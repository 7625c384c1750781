//! The routes under `/v1/`: a file to an API group, each with the table of its paths.

mod agent;
mod catalog;
mod definition;
#[cfg(test)]
mod fuzz;
mod health;
mod register;
mod status;
mod telemetry;

use super::route::Route;

pub const ROUTES: [&[Route]; 5] =
    [agent::ROUTES, catalog::ROUTES, health::ROUTES, status::ROUTES, telemetry::ROUTES];
