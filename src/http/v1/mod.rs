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

use super::route::Route;

pub const ROUTES: [&[Route]; 6] =
    [agent::ROUTES, catalog::ROUTES, coordinate::ROUTES, health::ROUTES, operator::ROUTES, status::ROUTES];
