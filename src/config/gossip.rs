//! Keys that say how agents find each other, and how soon they notice who is gone.

use std::{net::IpAddr, time::Duration};

use super::{
    addresses,
    reader::{Fields, Findings},
    tree::Place,
};
use crate::{
    agent::{self, Joining, PoolSettings},
    catalog::Network,
    check::Span,
    gossip::Timing,
};

/// What one tree says of the pool of a datacenter.
#[derive(Default)]
pub struct Gossip {
    bind: Option<IpAddr>,
    allowed: Vec<Network>,
    knobs: Knobs,
    reconnect_timeout: Option<Duration>,
    advertise_reconnect_timeout: Option<Duration>,
    refused_floor: Option<Duration>,
    places: Vec<agent::Place>,
    retry_interval: Option<Duration>,
    retry_max: Option<u32>,
    rejoin_after_leave: Option<bool>,
}

/// `gossip_lan`
#[derive(Default)]
struct Knobs {
    gossip_interval: Option<Duration>,
    probe_interval: Option<Duration>,
    probe_timeout: Option<Duration>,
    gossip_nodes: Option<u32>,
    retransmit_mult: Option<u32>,
    suspicion_mult: Option<u32>,
}

/// Of an agent in dev mode: it is alone, or with a few on one machine.
const DEV_INTERVAL: Duration = Duration::from_millis(100);
const DEV_SUSPICION_MULT: u32 = 3;

pub fn read(top: &mut Fields, findings: &mut Findings) -> Gossip {
    let mut gossip = Gossip {
        bind: top.place("serf_lan").and_then(|place| {
            let text = top.text("serf_lan", findings).filter(|text| !text.is_empty())?;
            addresses::read_one("serf_lan", &text, &place, findings)
        }),
        allowed: addresses::read_networks(top, "serf_lan_allowed_cidrs", findings),
        knobs: read_knobs(top, findings),
        reconnect_timeout: read_span(top, "reconnect_timeout", findings),
        advertise_reconnect_timeout: read_span(top, "advertise_reconnect_timeout", findings),
        refused_floor: None,
        places: read_places(top, findings),
        retry_interval: read_span(top, "retry_interval", findings),
        retry_max: top
            .count("retry_max", i64::from(u32::MAX), findings)
            .and_then(|most| u32::try_from(most).ok()),
        rejoin_after_leave: top.bool("rejoin_after_leave", findings),
    };
    // 0 is the default.
    gossip.reconnect_timeout = gossip.reconnect_timeout.filter(|timeout| !timeout.is_zero());
    gossip
}

/// `lictor { gossip }`
pub fn read_own(own: &mut Fields, gossip: &mut Gossip, findings: &mut Findings) {
    let Some(mut block) = own.block("gossip", findings) else { return };
    gossip.refused_floor = read_span(&mut block, "refused_floor", findings);
    block.finish(findings);
}

fn read_knobs(top: &mut Fields, findings: &mut Findings) -> Knobs {
    let mut knobs = Knobs::default();
    let Some(mut block) = top.block("gossip_lan", findings) else { return knobs };
    for (key, knob) in [
        ("gossip_interval", &mut knobs.gossip_interval),
        ("probe_interval", &mut knobs.probe_interval),
        ("probe_timeout", &mut knobs.probe_timeout),
    ] {
        let place = block.place(key).unwrap_or_default();
        *knob = read_span(&mut block, key, findings);
        if knob.is_some_and(|span| span < Duration::from_millis(1)) {
            let path = block.path(key);
            findings.fault::<()>(place, format!("{path} is too short; expected at least 1ms"));
        }
    }
    for (key, knob) in [
        ("gossip_nodes", &mut knobs.gossip_nodes),
        ("retransmit_mult", &mut knobs.retransmit_mult),
        ("suspicion_mult", &mut knobs.suspicion_mult),
    ] {
        let place = block.place(key).unwrap_or_default();
        let Some(number) = block.int(key, findings) else { continue };
        match u32::try_from(number) {
            Ok(number @ 1..=100) => *knob = Some(number),
            _ => {
                let path = block.path(key);
                findings.fault::<()>(place, format!("{path} cannot be {number}. Must be between 1 and 100"));
            }
        }
    }
    block.finish(findings);
    knobs
}

fn read_places(top: &mut Fields, findings: &mut Findings) -> Vec<agent::Place> {
    if let Some(place) = top.place("start_join") {
        let text = match &*place.file {
            "flag -join" => "The flag '-join' is deprecated. Use the '-retry-join' flag instead.",
            _ => "The 'start_join' field is deprecated. Use the 'retry_join' field instead.",
        };
        findings.warn(&place, text);
    }
    let mut places = Vec::new();
    for key in ["retry_join", "start_join"] {
        for (at, (text, place)) in addresses::placed_texts(top, key, findings).into_iter().enumerate() {
            places.extend(read_place(&format!("{key}[{at}]"), &text, place, findings));
        }
    }
    places
}

fn read_place(path: &str, text: &str, place: Place, findings: &mut Findings) -> Option<agent::Place> {
    text.parse().map_err(|reason: agent::NoPlace| reason).map_or_else(
        |reason| {
            let expected = "expected an IP address or a host name, with or without a port";
            findings.fault(place, format!("{path}: found {text:?}: {reason}; {expected}"))
        },
        Some,
    )
}

fn read_span(fields: &mut Fields, key: &str, findings: &mut Findings) -> Option<Duration> {
    fields
        .duration(key, findings)
        .map(|span: Span| Duration::from_nanos(u64::try_from(span.nanos).unwrap_or(0)))
}

impl Gossip {
    /// With what is not said: `bind` is that of the agent.
    pub fn finish(self, bind: IpAddr, dev: bool) -> PoolSettings {
        let lan = Timing::lan();
        let base = match dev {
            false => lan,
            true => Timing {
                gossip_interval: DEV_INTERVAL,
                probe_interval: DEV_INTERVAL,
                probe_timeout: DEV_INTERVAL,
                suspicion_mult: DEV_SUSPICION_MULT,
                ..lan
            },
        };
        let Knobs {
            gossip_interval,
            probe_interval,
            probe_timeout,
            gossip_nodes,
            retransmit_mult,
            suspicion_mult,
        } = self.knobs;
        let timing = Timing {
            gossip_interval: gossip_interval.unwrap_or(base.gossip_interval),
            probe_interval: probe_interval.unwrap_or(base.probe_interval),
            probe_timeout: probe_timeout.unwrap_or(base.probe_timeout),
            gossip_nodes: gossip_nodes.map_or(base.gossip_nodes, |nodes| nodes as usize),
            retransmit_mult: retransmit_mult.unwrap_or(base.retransmit_mult),
            suspicion_mult: suspicion_mult.unwrap_or(base.suspicion_mult),
            reconnect_timeout: self.reconnect_timeout.unwrap_or(base.reconnect_timeout),
            refused_floor: self.refused_floor,
            ..base
        };
        let joining = Joining::default();
        PoolSettings {
            bind: self.bind.unwrap_or(bind),
            timing,
            allowed: self.allowed,
            joining: Joining {
                places: self.places,
                interval: self.retry_interval.unwrap_or(joining.interval),
                retries_max: self.retry_max.unwrap_or(joining.retries_max),
            },
            rejoin_after_leave: self.rejoin_after_leave.unwrap_or(false),
            advertise_reconnect_timeout: self.advertise_reconnect_timeout,
            coordinate_every: if dev { DEV_INTERVAL } else { PoolSettings::default().coordinate_every },
        }
    }
}
