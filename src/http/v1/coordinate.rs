//! `/v1/coordinate`: where nodes are in the network (`http-api.md` §9.6).

use std::sync::Arc;

use hyper::StatusCode;

use crate::{
    catalog::{Coordinate, NodeCoordinate, Text, fold},
    http::{
        agent::ServerStatus,
        call::{Call, is_own_datacenter},
        encode::{self, Json},
        json::{Malformed, Object},
        read::Scope,
        reply::{Body, Fault, Outcome, Reply},
        route::{Refuses, Route, Takes},
    },
};

pub const ROUTES: &[Route] = &[
    Route {
        path: "/v1/coordinate/datacenters",
        methods: &["GET"],
        refuses: Refuses::Nothing,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(datacenters(call)),
    },
    Route {
        path: "/v1/coordinate/nodes",
        methods: &["GET"],
        refuses: Refuses::Partitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(nodes(call)),
    },
    Route {
        path: "/v1/coordinate/node/",
        methods: &["GET"],
        refuses: Refuses::Partitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(node(call)),
    },
    Route {
        path: "/v1/coordinate/update",
        methods: &["PUT"],
        refuses: Refuses::Partitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(update(call)),
    },
];

fn enabled(call: &Call) -> Result<(), Fault> {
    match call.api.settings.load().coordinates {
        true => Ok(()),
        false => Err(Fault::new(StatusCode::UNAUTHORIZED, "Coordinate support disabled")),
    }
}

/// Of the servers of each datacenter, as they see each other; one that is alone is where it began.
async fn datacenters(call: Call) -> Outcome {
    enabled(&call)?;
    let (own, servers) = (call.api.agent.datacenter(), call.api.agent.servers());
    let place = |server: ServerStatus| NodeCoordinate {
        node: server.node,
        segment: Text::default(),
        coordinate: Coordinate::origin(),
    };
    Ok(Reply::json(|json| {
        json.list(|json| {
            json.object(|json| {
                json.key("Datacenter").text(own);
                json.key("AreaID").text("wan");
                json.key("Coordinates").list(|json| {
                    servers.into_iter().for_each(|server| write(json, &place(server)));
                });
            });
        });
    }))
}

async fn nodes(call: Call) -> Outcome {
    enabled(&call)?;
    call.read(Scope::Coordinates, |catalog, json| {
        let wanted = catalog.coordinates().filter(|one| is_of_segment(&call, one));
        json.list(|json| wanted.for_each(|one| write(json, one)));
    })
    .await
}

/// Without index headers where nothing is known of the node.
async fn node(call: Call) -> Outcome {
    enabled(&call)?;
    let key = fold(call.name("Missing node name")?);
    let mut is_known = false;
    let reply = call
        .read(Scope::Coordinate(key.as_ref().into()), |catalog, json| {
            json.list(|json| {
                for one in catalog.coordinates_of(&key).filter(|one| is_of_segment(&call, one)) {
                    is_known = true;
                    write(json, one);
                }
            });
        })
        .await?;
    Ok(if is_known { reply } else { Reply::new(StatusCode::NOT_FOUND, Body::Empty) })
}

fn is_of_segment(call: &Call, one: &Arc<NodeCoordinate>) -> bool {
    call.query.all("segment").next().is_none_or(|segment| *one.segment == *segment)
}

async fn update(call: Call) -> Outcome {
    enabled(&call)?;
    let (datacenter, coordinate) = decode(call.body()?)?;
    is_own_datacenter(&datacenter, call.api.agent.datacenter())?;
    if !coordinate.coordinate.is_valid() {
        return Err(Fault::failed("incompatible coordinate"));
    }
    call.api.agent.update_coordinate(coordinate);
    Ok(Reply::empty())
}

pub fn decode(mut body: Object) -> Result<(String, NodeCoordinate), Malformed> {
    let datacenter = body.text("Datacenter")?.unwrap_or_default();
    let node = body.text("Node")?.unwrap_or_default().into();
    let segment: Text = body.text("Segment")?.unwrap_or_default().into();
    let mut place = body.object("Coord")?.ok_or_else(|| Malformed("Coord is missing".into()))?;
    let coordinate = Coordinate {
        vec: place.floats("Vec")?.unwrap_or_default().into(),
        error: place.float("Error")?.unwrap_or_default(),
        adjustment: place.float("Adjustment")?.unwrap_or_default(),
        height: place.float("Height")?.unwrap_or_default(),
    };
    place.finish()?;
    body.ignore("Token|WriteRequest");
    body.enterprise();
    body.finish()?;
    Ok((datacenter, NodeCoordinate { node, segment, coordinate }))
}

fn write(json: &mut Json, NodeCoordinate { node, segment, coordinate }: &NodeCoordinate) {
    json.object(|json| {
        json.key("Node").text(node);
        json.key("Segment").text(segment);
        encode::coordinate(json.key("Coord"), coordinate);
    });
}
