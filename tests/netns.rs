//! Agents on hosts of their own: each in a network namespace, at a bridge, so that packets can be lost, cut off in one
//! direction and in both, by the system's own filter. What the members say of each other is asked inside. Delay belongs to
//! the simulation. Where namespaces or the filter are not to be had, the test says so.

mod support;

use std::{
    net::Ipv4Addr,
    process::{Command, Stdio},
};

use serde_json::Value;
use support::{Agent, DEADLINE, ended, wait_for};

const HOSTS: usize = 5;

/// Hosts at one bridge, which is in a namespace, too: nothing of this machine's own network is touched.
struct Network {
    name: String,
}

impl Network {
    /// `None` where this machine does not allow it.
    fn new() -> Option<Network> {
        let network = Network { name: format!("lictor-{}", std::process::id()) };
        let built = network.build();
        match built {
            Ok(()) => Some(network),
            Err(why) => {
                println!("skipped: no network namespaces, or no nft, can be had here: {why}");
                None
            }
        }
    }

    fn build(&self) -> Result<(), String> {
        let hub = self.host(0);
        run("ip", &["netns", "add", &hub])?;
        run("ip", &["-n", &hub, "link", "add", "bridge", "type", "bridge"])?;
        run("ip", &["-n", &hub, "link", "set", "bridge", "up"])?;
        for at in 1..=HOSTS {
            let (host, port) = (self.host(at), format!("port{at}"));
            run("ip", &["netns", "add", &host])?;
            let pair = ["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &host];
            run("ip", &[&["-n", &hub][..], &pair].concat())?;
            run("ip", &["-n", &hub, "link", "set", &port, "master", "bridge", "up"])?;
            run("ip", &["-n", &host, "addr", "add", &format!("{}/24", address(at)), "dev", "eth0"])?;
            run("ip", &["-n", &host, "link", "set", "eth0", "up"])?;
            run("ip", &["-n", &host, "link", "set", "lo", "up"])?;
            self.within(at, "nft", &["add", "table", "inet", "lost"])?;
            let chain = ["add", "chain", "inet", "lost", "in", "{ type filter hook input priority 0; }"];
            self.within(at, "nft", &chain)?;
        }
        Ok(())
    }

    fn host(&self, at: usize) -> String {
        format!("{}-{at}", self.name)
    }

    fn within(&self, at: usize, program: &str, words: &[&str]) -> Result<String, String> {
        run("ip", &[&["netns", "exec", &self.host(at), program], words].concat())
    }

    /// From now on, `at` does not hear what this rule is about.
    fn lose(&self, at: usize, rule: &str) {
        let words: Vec<&str> =
            ["add", "rule", "inet", "lost", "in"].into_iter().chain(rule.split(' ')).collect();
        self.within(at, "nft", &[&words[..], &["counter", "drop"]].concat()).unwrap();
    }

    fn lose_from(&self, at: usize, other: usize) {
        self.lose(at, &format!("ip saddr {}", address(other)));
    }

    fn heal(&self) {
        for at in 1..=HOSTS {
            self.within(at, "nft", &["flush", "chain", "inet", "lost", "in"]).unwrap();
        }
    }

    /// Packets that `at` has lost since it was healed.
    fn lost(&self, at: usize) -> u64 {
        let table = self.within(at, "nft", &["list", "table", "inet", "lost"]).unwrap();
        let counts = table.split("counter packets ").skip(1);
        counts.map(|rest| rest.split(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    fn start(&self, at: usize) -> Agent {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.host(at), env!("CARGO_BIN_EXE_lictor")]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        // Everything of dev mode, but for times of gossip that a busy machine keeps.
        let times = r#"-hcl=gossip_lan { probe_interval = "1s", probe_timeout = "500ms", gossip_interval = "200ms", suspicion_mult = 4 }"#;
        let (name, seed) = (format!("-node=host-{at}"), format!("-retry-join={}", address(1)));
        let id = format!("-node-id=00000000-0000-0000-0000-00000000000{at}");
        let mut words = vec!["-dev", times, &name, &id, "-hcl=retry_interval = \"1s\""];
        if at != 1 {
            words.push(&seed);
        }
        let agent = Agent::launch(command, address(at), &words, &[]);
        agent.wait_for_log("agent running!");
        agent
    }

    /// What the agent there says of the members: `1 alive, 2 failed`, by host.
    fn members(&self, at: usize) -> String {
        let asked = format!("-http-addr={}:8500", address(at));
        let words = ["members", &asked, "-format=json"];
        let Ok(told) = self.within(at, env!("CARGO_BIN_EXE_lictor"), &words) else { return "?".into() };
        let Ok(Value::Array(members)) = serde_json::from_str(&told) else { return told };
        let mut words: Vec<String> = members.iter().map(word).collect();
        words.sort();
        words.join(", ")
    }

    fn wait_for_members(&self, at: usize, expected: &str, agents: &[Agent]) {
        let state = || {
            let logs: Vec<String> = agents.iter().map(Agent::log).collect();
            format!("{}\n{}", self.members(at), logs.join("\n"))
        };
        let met = || (self.members(at) == expected).then_some(());
        wait_for(&format!("host {at} to say {expected}"), met, state);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for at in 0..=HOSTS {
            let _never_was = run("ip", &["netns", "del", &self.host(at)]);
        }
    }
}

fn word(member: &Value) -> String {
    let status = match member["Status"].as_u64() {
        Some(1) => "alive",
        Some(2) => "leaving",
        Some(3) => "left",
        _ => "failed",
    };
    format!("{} {status}", member["Name"].as_str().unwrap_or("?").trim_start_matches("host-"))
}

fn address(at: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, at as u8)
}

fn run(program: &str, words: &[&str]) -> Result<String, String> {
    let child = Command::new(program).args(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let output = ended(child.map_err(|error| format!("{program}: {error}"))?, DEADLINE);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(format!("{program} {}: {}", words.join(" "), text(&output.stderr).trim())),
    }
}

const ALL: &str = "1 alive, 2 alive, 3 alive, 4 alive, 5 alive";

#[test]
fn hosts_that_lose_packets_are_not_lost_and_hosts_cut_off_are() {
    let Some(network) = Network::new() else { return };
    let mut agents: Vec<Agent> = (1..=HOSTS).map(|at| network.start(at)).collect();
    for at in 1..=HOSTS {
        network.wait_for_members(at, ALL, &agents);
    }

    // One direction of one way: the others vouch for it.
    network.lose_from(3, 2);
    let enough = |at: usize, count: u64| {
        let met = || (network.lost(at) >= count).then_some(());
        wait_for(&format!("host {at} to lose {count} packets"), met, || network.lost(at).to_string());
    };
    enough(3, 10);
    for at in 1..=HOSTS {
        assert_eq!(network.members(at), ALL, "host {at}, while 3 does not hear 2");
    }
    network.heal();

    // A fifth of all packets, everywhere.
    for at in 1..=HOSTS {
        network.lose(at, "meta l4proto udp numgen random mod 100 < 20");
    }
    (1..=HOSTS).for_each(|at| enough(at, 15));
    for at in 1..=HOSTS {
        assert_eq!(network.members(at), ALL, "host {at}, while a fifth is lost");
    }
    network.heal();
    for agent in &agents {
        assert!(!agent.log().contains("member failed"), "{}", agent.log());
    }

    // Cut off whole, and back.
    for other in 1..HOSTS {
        network.lose_from(HOSTS, other);
        network.lose_from(other, HOSTS);
    }
    for at in 1..HOSTS {
        network.wait_for_members(at, "1 alive, 2 alive, 3 alive, 4 alive, 5 failed", &agents);
    }
    network.heal();
    for at in 1..=HOSTS {
        network.wait_for_members(at, ALL, &agents);
    }

    // A process that dies on a host that lives, and starts again.
    agents.pop().unwrap().signal("KILL");
    for at in 1..HOSTS {
        network.wait_for_members(at, "1 alive, 2 alive, 3 alive, 4 alive, 5 failed", &agents);
    }
    agents.push(network.start(HOSTS));
    for at in 1..=HOSTS {
        network.wait_for_members(at, ALL, &agents);
    }
}
