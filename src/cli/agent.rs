//! `lictor agent`: from flags to a running agent, its signals, and its exit code (`config-cli.md` §2.4, §2.6).

use std::{fs, path::PathBuf};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use uuid::Uuid;

use super::{
    Failure, Outcome,
    line::{Command, Run},
    log, notify,
    output::say,
};
use crate::{
    agent::{
        Activation, Agent, COMPATIBLE_VERSION, DataDir, Identity, Keeping, Reloadable, Settings, node_id,
    },
    check,
    config::{Config, FlagError, Flags, Scripts, load, parse_flags},
    telemetry::Monitor,
};

pub const COMMAND: Command = Command {
    name: "agent",
    arguments: "",
    does: "Runs a lictor agent (options marked accepted are known, and without effect yet)",
    flags: &[],
    run: Run::Words(run),
};

fn run(words: Vec<String>) -> Outcome {
    let flags = match parse_flags(&words) {
        Ok(flags) => flags,
        Err(FlagError::Help) => return say(COMMAND.usage()),
        Err(error) => return Err(Failure::new(error.to_string())),
    };
    let config = load(&flags).map_err(|faults| Failure::new(format!("==> {faults}")))?;
    if let Some(refusal) = config.refusal() {
        return Err(Failure::new(format!("==> {refusal}")));
    }
    let (level, monitor) = log::start(&config.log.level, config.log.json).map_err(Failure::new)?;
    take_descriptors();
    // Before the runtime: it changes the environment.
    let activation = Activation::take(&config.dns_addrs, &config.http_addrs);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(error.to_string()))?;
    let outcome = runtime.block_on(live(flags, config, activation, level, monitor));
    // Every part had its time to stop; what hangs in a disk beyond that must not hold up the end.
    runtime.shutdown_background();
    outcome
}

/// Each connection and each question to a recursor takes one, and the soft limit is made for programs that know no more
/// than 1,024. No more than a program that a check runs can go through, should it close them all.
fn take_descriptors() {
    const ENOUGH: u64 = 65_536;
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard.min(ENOUGH)
    {
        // Without them it runs all the same, and less bears it.
        let _refused = setrlimit(Resource::RLIMIT_NOFILE, hard.min(ENOUGH), hard);
    }
}

/// The life of an agent, to its exit code.
async fn live(
    flags: Flags,
    config: Config,
    activation: Activation,
    level: log::LevelHandle,
    monitor: Monitor,
) -> Outcome {
    let data_dir = config.data_dir.as_deref().map(DataDir::open).transpose().map_err(Failure::new)?;
    let node_id = node_id(config.data_dir.as_deref(), config.node_id).map_err(Failure::new)?;
    let identity = identity(&config, node_id);
    if !config.log.json {
        banner(&config, &identity);
    }
    config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    activation.unused.iter().for_each(|unused| tracing::warn!("{unused}"));
    let _pid_file = PidFile::write(config.pid_file.clone())?;
    let mut signals = Signals::listen().map_err(|error| Failure::new(error.to_string()))?;
    let reread = reread(flags, config.clone(), level);
    let settings = Settings {
        identity,
        reloadable: reloadable(&config),
        checks: check::Settings {
            output_bytes_max: config.check_output_bytes_max,
            discard_output: config.discard_check_output,
        },
        dns_addrs: config.dns_addrs.clone(),
        http_addrs: config.http_addrs.clone(),
        http_sockets: config.http_sockets.clone(),
        activation,
        keeping: Keeping {
            data_dir,
            state: !config.dev,
            may_begin: config.may_begin,
            free_bytes_min: config.free_bytes_min,
        },
        mass_failure: config.mass_failure,
        calls: config.calls.clone(),
        pool: config.pool.clone(),
        encryption: config.encryption.clone(),
        telemetry: config.telemetry.clone(),
        monitor,
    };
    let mut agent = match Agent::start(settings, reread).await {
        Ok(agent) => agent,
        Err(error) => {
            tracing::error!(error, "Error starting agent");
            return end(1);
        }
    };
    tracing::info!("Consul agent running!");
    notify::ready();
    let mut watchdog = notify::watchdog_interval().map(tokio::time::interval);
    let leaving = agent.leaving();
    let asked = loop {
        tokio::select! {
            () = agent.failed() => break None,
            () = leaving.cancelled() => break Some(Asked::Leave),
            () = tick(&mut watchdog) => notify::alive(),
            asked = signals.next() => match asked {
                Asked::Reload => {
                    notify::reloading();
                    if let Err(error) = agent.reload().await {
                        tracing::error!(error, "Reload config failed");
                    }
                    notify::ready();
                }
                asked => break Some(asked),
            }
        }
    };
    notify::stopping();
    let leaves = match asked {
        Some(Asked::Interrupt) => !config.skip_leave_on_interrupt,
        Some(Asked::Terminate) => config.leave_on_terminate,
        Some(Asked::Leave) => true,
        _ => false,
    };
    if let Some(asked) = asked {
        tracing::info!(signal = asked.word(), "Caught");
    }
    tracing::info!(
        "{}",
        if leaves { "Gracefully shutting down agent..." } else { "Graceful shutdown disabled. Exiting" }
    );
    let goes = async {
        let left = leaves && agent.leave().await;
        if left {
            tracing::info!("Graceful exit completed");
        }
        agent.stop().await;
        left
    };
    tokio::select! {
        left = goes => end(if left { 0 } else { 1 }),
        _ = signals.next() => end(1),
    }
}

async fn tick(watchdog: &mut Option<tokio::time::Interval>) {
    match watchdog {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}

fn end(code: u8) -> Outcome {
    tracing::info!("Exit code: code={code}");
    if code == 0 { Ok(()) } else { Err(Failure { code, text: String::new() }) }
}

fn identity(config: &Config, node_id: Uuid) -> Identity {
    Identity {
        node_name: config.node_name.as_str().into(),
        node_id,
        datacenter: config.datacenter.as_str().into(),
        server: config.server,
        bootstrap: config.may_begin,
        advertise: config.advertise,
        advertise_wan: config.advertise_wan,
        server_port: config.server_port,
        serf_lan_port: config.serf_lan_port,
        serf_wan_port: config.serf_wan_port,
    }
}

fn reloadable(config: &Config) -> Reloadable {
    Reloadable {
        dns: config.dns.clone(),
        http: config.http.clone(),
        rpc_limits: config.rpc_limits.clone(),
        node_meta: config.node_meta.clone(),
        services: config.services.clone(),
        checks: config.checks.clone(),
        check_update_interval: config.check_update_interval,
        remote_scripts: config.scripts == Scripts::All,
        figures: config.telemetry.filter.clone(),
    }
}

/// What a reload reads: the same sources again. What cannot change while the agent runs is named, and stays.
fn reread(flags: Flags, started: Config, level: log::LevelHandle) -> crate::agent::Reread {
    Box::new(move || {
        let config = load(&flags).map_err(|faults| faults.to_string())?;
        level.set(&config.log.level)?;
        config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        for key in started.fixed_keys_changed(&config) {
            tracing::warn!(key, "this key has changed, and takes effect at the next start only");
        }
        let fixed = &started.dns;
        let dns = crate::dns::Settings {
            domain: fixed.domain.clone(),
            alt_domain: fixed.alt_domain.clone(),
            datacenter: fixed.datacenter.clone(),
            node: fixed.node.clone(),
            udp_batch: fixed.udp_batch,
            ..config.dns.clone()
        };
        Ok(Reloadable { dns, ..reloadable(&config) })
    })
}

fn banner(config: &Config, identity: &Identity) {
    let addresses = |port: Option<u16>| port.map_or(-1, i32::from);
    let first_port = |addrs: &[std::net::SocketAddr]| addresses(addrs.first().map(|addr| addr.port()));
    let mut clients: Vec<String> = Vec::new();
    for address in config.http_addrs.iter().chain(&config.dns_addrs) {
        if !clients.contains(&address.ip().to_string()) {
            clients.push(address.ip().to_string());
        }
    }
    let (http, dns) = (first_port(&config.http_addrs), first_port(&config.dns_addrs));
    let keyring = config.encryption.keyring.as_ref();
    let encrypted = config.encryption.key.is_some() || keyring.is_some_and(|file| file.exists());
    let rows = [
        ("Version", format!("'{COMPATIBLE_VERSION}' (lictor {})", env!("CARGO_PKG_VERSION"))),
        ("Node ID", format!("'{}'", identity.node_id)),
        ("Node name", format!("'{}'", identity.node_name)),
        ("Datacenter", format!("'{}' (Segment: '<all>')", identity.datacenter)),
        ("Server", format!("{} (Bootstrap: {})", config.server, config.may_begin)),
        ("Client Addr", format!("[{}] (HTTP: {http}, DNS: {dns})", clients.join(" "))),
        ("Cluster Addr", format!("{} (LAN: {})", identity.advertise, identity.serf_lan_port)),
        ("Gossip Encryption", encrypted.to_string()),
    ];
    println!("==> Starting Consul agent...");
    for (label, value) in rows {
        println!("{label:>22}: {value}");
    }
    println!("\n==> Log data will now stream in as it occurs:\n");
}

/// What a signal asks for, or a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Reload,
    Interrupt,
    Terminate,
    Leave,
}

impl Asked {
    fn word(self) -> &'static str {
        match self {
            Asked::Reload => "hangup",
            Asked::Interrupt => "interrupt",
            Asked::Terminate => "terminated",
            Asked::Leave => "leave",
        }
    }
}

struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Signals {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.hangup.recv() => Asked::Reload,
            _ = self.interrupt.recv() => Asked::Interrupt,
            _ = self.terminate.recv() => Asked::Terminate,
        }
    }
}

/// The file that holds our process id, gone when we are.
struct PidFile(Option<PathBuf>);

impl PidFile {
    fn write(path: Option<PathBuf>) -> Result<Self, Failure> {
        if let Some(path) = &path {
            let written = fs::write(path, std::process::id().to_string());
            written.map_err(|error| {
                Failure::new(format!("Could not open pid file: {}: {error}", path.display()))
            })?;
        }
        Ok(PidFile(path))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _gone_already = fs::remove_file(path);
        }
    }
}
