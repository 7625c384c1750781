//! What is said of calls between agents: in `limits` and `performance`, where Consul has it.

use std::time::Duration;

use super::{
    keys,
    layer::duration,
    reader::{Fields, Findings},
};
use crate::agent::{CallLimits, Calls};

/// Inside `limits`, beside what others read there.
pub fn read_limits(limits: &mut Fields, rpc: &mut CallLimits, calls: &mut Calls, findings: &mut Findings) {
    let most = limits.count("rpc_max_conns_per_client", i64::from(u32::MAX), findings);
    let most = most.and_then(|most| usize::try_from(most).ok());
    rpc.connections_per_address_max = most.unwrap_or(rpc.connections_per_address_max);
    for (key, setting) in
        [("rpc_handshake_timeout", &mut rpc.handshake_wait), ("rpc_client_timeout", &mut calls.patience)]
    {
        *setting = wait(limits, key, findings).unwrap_or(*setting);
    }
}

pub fn read_performance(top: &mut Fields, calls: &mut Calls, ignored: &[String], findings: &mut Findings) {
    let Some(mut block) = top.block("performance", findings) else { return };
    calls.hold = wait(&mut block, "rpc_hold_timeout", findings).unwrap_or(calls.hold);
    keys::PERFORMANCE.take(&mut block, ignored, findings);
    block.finish(findings);
}

/// None at all would be no wait, and is the default.
fn wait(block: &mut Fields, key: &str, findings: &mut Findings) -> Option<Duration> {
    let span = block.duration(key, findings)?;
    Some(duration(&span)).filter(|wait| !wait.is_zero())
}
