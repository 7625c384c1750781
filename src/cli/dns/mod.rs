//! `lictor dns install`: has this machine's resolver ask lictor for the names of its zone, and sees that the answer comes
//! back through it. What is written where is decided in `change`; this file carries it out and tells of it.

mod ask;
mod change;
mod detect;
mod machine;
mod render;
mod reverse;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use super::{
    Failure, Outcome,
    client::{self, Client, Request},
    line::{Command, Flag, Line, Run},
};
use change::{Change, State};
use machine::{Machine, Ran};
use render::{Piece, Resolver, Want};

pub const INSTALL: Command = Command {
    name: "dns install",
    arguments: "",
    does: "Has this machine's resolver ask lictor for names below consul; without -apply or -undo it only shows how",
    flags: &[
        client::AGENT,
        &[
            Flag::switch("dry-run", "show what would be written, and write nothing; with -undo, too"),
            Flag::switch("apply", "write it, have the resolver read it, and ask it a question"),
            Flag::switch("undo", "take away everything that was written, whatever the resolver"),
            Flag::text(
                "resolver",
                "systemd-resolved, dnsmasq, unbound, bind or resolv.conf; else the one in use",
            ),
            Flag::text("domain", "the zone; else that of the running agent, or consul"),
            Flag::text(
                "server",
                "ADDRESS:PORT where lictor answers; else as the running agent says, or 127.0.0.1:8600",
            ),
            Flag::text(
                "reverse",
                "a network whose reverse names lictor is asked for, too; or private; several times",
            ),
            Flag::text(
                "ask",
                "ADDRESS:PORT where the resolver answers the question at the end; else its usual one",
            ),
            Flag::text("root", "write below this directory; no daemon is told"),
        ],
    ],
    run: Run::Line(|line| client::ask(line, run)),
};

struct Flags {
    dry_run: bool,
    apply: bool,
    undo: bool,
    resolver: Option<String>,
    domain: Option<String>,
    server: Option<SocketAddr>,
    reverse: Vec<String>,
    ask: Option<SocketAddr>,
    root: PathBuf,
}

async fn run(client: Client, line: Line) -> Outcome {
    line.at_most(0, "0")?;
    let text = |name: &str| line.text(name).map(String::from);
    let address = |name: &str| {
        let parsed = line.text(name).map(|text| {
            let wrong = || Failure::new(format!("-{name}: found {text:?}; expected ADDRESS:PORT"));
            text.parse().map_err(|_| wrong())
        });
        parsed.transpose()
    };
    let flags = Flags {
        dry_run: line.is("dry-run"),
        apply: line.is("apply"),
        undo: line.is("undo"),
        resolver: text("resolver"),
        domain: text("domain"),
        server: address("server")?,
        reverse: line.texts("reverse").map(String::from).collect(),
        ask: address("ask")?,
        root: line.text("root").unwrap_or("/").into(),
    };
    if flags.apply && (flags.undo || flags.dry_run) {
        return Err(Failure::new("dns install: -apply goes neither with -undo nor with -dry-run"));
    }
    let needs_agent = !flags.undo && (flags.domain.is_none() || flags.server.is_none());
    let of_agent = if needs_agent { about_agent(&client).await } else { Default::default() };
    install(flags, of_agent)
}

/// `of_agent` is what a running one says: its zone, and where it answers.
fn install(flags: Flags, of_agent: (Option<String>, Vec<SocketAddr>)) -> Outcome {
    let machine = Machine::new(flags.root.clone());
    if flags.undo {
        return take_away(&machine, flags.dry_run);
    }
    let resolver = resolver(&flags, &machine)?;
    let want = want(&flags, of_agent, resolver)?;
    let pieces = render::render(resolver, &want).map_err(Failure::new)?;
    let changes = change::install(resolver, &want, &machine).map_err(Failure::new)?;
    if changes.is_empty() {
        println!("{}: everything is written already.", resolver.name());
    }
    if !flags.apply {
        changes.iter().for_each(|change| show(change, &pieces));
        println!("Nothing was changed: -apply does this, -undo takes it back.");
        return Ok(());
    }
    machine.make(&changes).map_err(Failure::new)?;
    changes.iter().for_each(|change| println!("{}: {}.", change.path, told(change)));
    if let Ran::Badly(text) = machine.check(resolver, &pieces) {
        let back = machine.unmake(&changes).err().unwrap_or("everything was put back as it was".into());
        return Err(Failure::new(format!("{text}\n{}", upper(&back))));
    }
    if machine.is_here() && !changes.is_empty() {
        reload(&machine, resolver)?;
    }
    match flags.ask.or(machine.is_here().then(|| answers_at(resolver, &want))) {
        Some(at) => question(at, &want),
        None => {
            println!("No daemon was told and none asked, below another root.");
            Ok(())
        }
    }
}

fn take_away(machine: &Machine, dry_run: bool) -> Outcome {
    let (changes, resolvers) = change::undo(machine).map_err(Failure::new)?;
    if changes.is_empty() {
        println!("Nothing of lictor's is there.");
    }
    if dry_run {
        changes.iter().for_each(|change| println!("{} would be {}.", change.path, told(change)));
        return Ok(());
    }
    machine.make(&changes).map_err(Failure::new)?;
    changes.iter().for_each(|change| println!("{}: {}.", change.path, told(change)));
    if machine.is_here() {
        resolvers.into_iter().try_for_each(|resolver| reload(machine, resolver))?;
    }
    Ok(())
}

fn want(
    flags: &Flags,
    (its_domain, its_servers): (Option<String>, Vec<SocketAddr>),
    resolver: Resolver,
) -> Result<Want, Failure> {
    let domain = flags.domain.clone().or(its_domain).unwrap_or_else(|| "consul".into());
    let domain = domain.trim_matches('.').to_ascii_lowercase();
    let is_label = |label: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(known)
    };
    if domain.len() > 253 || !domain.split('.').all(is_label) {
        return Err(Failure::new(format!("-domain: found {domain:?}; expected a name, as consul")));
    }
    let mut reverse = Vec::new();
    for network in &flags.reverse {
        let networks = if network == "private" { reverse::PRIVATE.to_vec() } else { vec![network.as_str()] };
        for network in networks {
            reverse
                .extend(reverse::zones(network).map_err(|text| Failure::new(format!("-reverse: {text}")))?);
        }
    }
    let can_be_named = |server: &&SocketAddr| resolver != Resolver::ResolvConf || server.port() == 53;
    let its_server = its_servers.iter().find(can_be_named).or(its_servers.first()).copied();
    let server = flags.server.or(its_server).unwrap_or((Ipv4Addr::LOCALHOST, 8600).into());
    Ok(Want { domain, server: reachable(server), reverse })
}

/// A wildcard listens everywhere; it is no address to ask at.
fn reachable(server: SocketAddr) -> SocketAddr {
    match server.ip() {
        ip if !ip.is_unspecified() => server,
        IpAddr::V4(_) => (Ipv4Addr::LOCALHOST, server.port()).into(),
        IpAddr::V6(_) => (Ipv6Addr::LOCALHOST, server.port()).into(),
    }
}

/// Zone and addresses of the agent that runs here, as far as it tells.
async fn about_agent(client: &Client) -> (Option<String>, Vec<SocketAddr>) {
    let about: serde_json::Value = match client.read(Request::get("/v1/agent/self")).await {
        Ok(about) => about,
        Err(lost) => {
            eprintln!("No agent to ask, so its usual settings are taken ({lost}).");
            return Default::default();
        }
    };
    let settings = &about["DebugConfig"];
    let addrs = settings["DNSAddrs"].as_array().into_iter().flatten();
    let addrs = addrs.filter_map(|addr| addr.as_str()?.strip_prefix("udp://")?.parse().ok());
    (settings["DNSDomain"].as_str().map(String::from), addrs.collect())
}

fn resolver(flags: &Flags, machine: &Machine) -> Result<Resolver, Failure> {
    if let Some(name) = &flags.resolver {
        return Resolver::of(name).ok_or_else(|| {
            let known = render::RESOLVERS.map(Resolver::name).join(", ");
            Failure::new(format!("-resolver: found {name:?}; expected one of {known}"))
        });
    }
    let found = detect::detect(machine, machine.is_here()).map_err(Failure::new)?;
    println!("Found {}: {}.", found.resolver.name(), found.why);
    Ok(found.resolver)
}

fn reload(machine: &Machine, resolver: Resolver) -> Outcome {
    let Some(command) = machine::reload_command(resolver).map(|words| words.join(" ")) else { return Ok(()) };
    match machine.reload(resolver) {
        Ran::Well => println!("{command}: done."),
        Ran::Missing => println!("{command} cannot be run here: restart {} yourself.", resolver.name()),
        Ran::Badly(text) => {
            return Err(Failure::new(format!(
                "{text}\nThe files stand. Restart {} yourself and run this again, or `lictor dns install -undo` takes them away.",
                resolver.name()
            )));
        }
    }
    Ok(())
}

/// Where programs of this machine find the resolver.
fn answers_at(resolver: Resolver, want: &Want) -> SocketAddr {
    match resolver {
        Resolver::SystemdResolved => (Ipv4Addr::new(127, 0, 0, 53), 53).into(),
        Resolver::ResolvConf => want.server,
        Resolver::Dnsmasq | Resolver::Unbound | Resolver::Bind => (Ipv4Addr::LOCALHOST, 53).into(),
    }
}

fn question(at: SocketAddr, want: &Want) -> Outcome {
    let zone = &want.domain;
    let Err(text) = ask::ask(at, zone) else {
        println!("Asked {at} for the SOA of {zone}: the answer came.");
        return Ok(());
    };
    let lictor = match ask::ask(want.server, zone) {
        Ok(()) => format!("lictor itself answers at {}", want.server),
        Err(text) => {
            format!("lictor itself does not answer at {}, either ({text}): does it run?", want.server)
        }
    };
    Err(Failure::new(format!(
        "Asked {at} for the SOA of {zone}, and no answer came: {text}; {lictor}\nThe files stand; `lictor dns install -undo` takes them away."
    )))
}

/// What would be written, without the rest of someone else's file.
fn show(change: &Change, pieces: &[Piece]) {
    println!("{} would be {}:", change.path, told(change));
    let State::File(file) = &change.after else { return };
    let is_whole = matches!(change.before, State::Missing) || file.text.starts_with('#');
    let within = pieces.iter().filter(|piece| file.text.contains(&piece.text));
    let text = if is_whole { file.text.clone() } else { within.map(|piece| piece.text.clone()).collect() };
    text.lines().for_each(|line| println!("    {line}"));
}

fn told(change: &Change) -> &'static str {
    match (&change.before, &change.after) {
        (_, State::Missing) => "removed",
        (State::Missing, _) => "new",
        _ => "changed",
    }
}

fn upper(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
