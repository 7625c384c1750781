//! `lictor operator raft`: the servers that agree.

use serde::Deserialize;

use crate::cli::{
    Doing, Failure, Outcome,
    client::{self, Client, Request},
    line::{Command, Flag, Line, Run},
    output::{FORMAT, say, say_json, table, wants_json},
};

pub const LIST_PEERS: Command = Command {
    name: "operator raft list-peers",
    arguments: "",
    does: "Lists the servers that agree, and who leads",
    flags: &[client::AGENT, client::SERVERS, FORMAT],
    run: Run::Line(|line| client::ask(line, list_peers)),
};

pub const REMOVE_PEER: Command = Command {
    name: "operator raft remove-peer",
    arguments: "",
    does: "Takes a server that is gone out of those that agree",
    flags: &[
        client::AGENT,
        client::SERVERS,
        &[Flag::text("address", "ADDRESS:PORT of the server"), Flag::text("id", "its id")],
    ],
    run: Run::Line(|line| client::ask(line, remove_peer)),
};

pub const TRANSFER_LEADER: Command = Command {
    name: "operator raft transfer-leader",
    arguments: "",
    does: "Has another server lead",
    flags: &[
        client::AGENT,
        client::SERVERS,
        &[Flag::text("id", "the id of that server; any where not given")],
    ],
    run: Run::Line(|line| client::ask(line, transfer_leader)),
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Configuration {
    servers: Vec<Server>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Server {
    #[serde(rename = "ID")]
    id: String,
    node: String,
    address: String,
    leader: bool,
    protocol_version: String,
    voter: bool,
    last_index: u64,
}

async fn list_peers(client: Client, line: Line) -> Outcome {
    let json = wants_json(&line)?;
    let asked = client.ok(Request::get("/v1/operator/raft/configuration")).await;
    let answer = asked.doing("Error getting peers: Failed to retrieve raft configuration")?;
    if json {
        return say_json(&answer.body);
    }
    let Configuration { servers } = answer.read().doing("Error getting peers")?;
    say(table(&rows(&servers)))
}

fn rows(servers: &[Server]) -> Vec<Vec<String>> {
    let head =
        ["Node", "ID", "Address", "State", "Voter", "RaftProtocol", "Commit Index", "Trails Leader By"];
    let leader = servers.iter().find(|server| server.leader).map_or(0, |leader| leader.last_index);
    let rows = servers.iter().map(|server| {
        let behind = match leader.saturating_sub(server.last_index) {
            _ if server.leader => "-".into(),
            1 => "1 commit".into(),
            commits => format!("{commits} commits"),
        };
        let state = if server.leader { "leader" } else { "follower" };
        vec![
            server.node.clone(),
            server.id.clone(),
            server.address.clone(),
            state.into(),
            server.voter.to_string(),
            server.protocol_version.clone(),
            server.last_index.to_string(),
            behind,
        ]
    });
    std::iter::once(head.map(String::from).to_vec()).chain(rows).collect()
}

async fn remove_peer(client: Client, line: Line) -> Outcome {
    let given = |name| line.text(name).filter(|text| !text.is_empty());
    let (name, value) = match (given("address"), given("id")) {
        (Some(address), None) => ("address", address),
        (None, Some(id)) => ("id", id),
        (None, None) => {
            let text = "Error removing peer: an address or id is required for the peer to remove";
            return Err(Failure::new(text));
        }
        _ => return Err(Failure::new("Error removing peer: cannot give both an address and id")),
    };
    let request = Request::delete("/v1/operator/raft/peer").with(name, value);
    client.ok(request).await.doing("Error removing peer")?;
    say(format_args!("Removed peer with {name} {value:?}"))
}

async fn transfer_leader(client: Client, line: Line) -> Outcome {
    let id = line.text("id").filter(|id| !id.is_empty());
    let request = Request::post("/v1/operator/raft/transfer-leader").with_any("id", id);
    let asked = client.ok(request).await.map_err(|lost| format!("Failed to transfer leadership {lost}"));
    asked.doing("Error transfering leadership")?;
    say("Success")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_trails_is_told_by_how_much() {
        let server = |node: &str, leader, last_index| Server {
            id: "id".into(),
            node: node.into(),
            address: "10.0.0.1:8300".into(),
            leader,
            protocol_version: "3".into(),
            voter: true,
            last_index,
        };
        let servers = [server("s2", false, 13), server("s1", true, 14), server("s3", false, 4)];
        let expected = [
            "Node  ID  Address        State     Voter  RaftProtocol  Commit Index  Trails Leader By",
            "s2    id  10.0.0.1:8300  follower  true   3             13            1 commit",
            "s1    id  10.0.0.1:8300  leader    true   3             14            -",
            "s3    id  10.0.0.1:8300  follower  true   3             4             10 commits",
        ];
        assert_eq!(table(&rows(&servers)), expected.join("\n"));
    }
}
