//! Configuration as its users write it: files and flags in, what an agent would be started with out, or every fault.
//! The cases are data under `tests/config/`; `LICTOR_EXPECT=write` rewrites what is expected, for the diff to be read.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use lictor::config::{self, Config};

#[test]
fn order_of_sources() {
    run("order.txt");
}

#[test]
fn shapes_of_hcl() {
    run("hcl.txt");
}

#[test]
fn recursors() {
    run("recursion.txt");
}

#[test]
fn json() {
    run("json.txt");
}

#[test]
fn faults_of_agent_keys() {
    run("agent.txt");
}

#[test]
fn definitions() {
    run("definitions.txt");
}

#[test]
fn keys_that_secure() {
    run("security.txt");
}

#[test]
fn flags() {
    run("flags.txt");
}

#[test]
fn the_example_is_valid() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/one-agent");
    let words = ["-dev".into(), format!("-config-dir={}", directory.display())];
    let config =
        config::load(&config::parse_flags(&words).unwrap()).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!((config.services.len(), config.warnings.len()), (3, 0));
}

#[test]
fn what_concerns_members() {
    run("members.txt");
}

#[test]
fn an_agent_that_cannot_be_yet_is_refused() {
    let config = |words: &[&str]| {
        let words: Vec<String> = words.iter().map(|word| word.to_string()).collect();
        config::load(&config::parse_flags(&words).unwrap()).unwrap_or_else(|faults| panic!("{faults}"))
    };
    let disk = ["-data-dir=/nonexistent/lictor", "-advertise=10.0.0.1"];
    let dev = config(&["-dev"]);
    assert_eq!(dev.refusal(), None);
    assert_eq!(config(&disk).refusal(), None);
    assert_eq!(config(&[disk[0], disk[1], "-server"]).refusal(), None);
    let three = config(&[disk[0], disk[1], "-server", "-bootstrap-expect=3"]).refusal().unwrap();
    assert!(three.starts_with("bootstrap_expect = 3: "), "{three}");
    assert_eq!(dev.fixed_keys_changed(&config(&["-dev", "-log-level=WARN"])), Vec::<&str>::new());
    let changed = dev.fixed_keys_changed(&config(&["-dev", "-node=other", "-dns-port=1"]));
    assert_eq!(changed, ["node_name", "ports.dns or lictor.dns.listen"]);
    let changed = dev.fixed_keys_changed(&config(&["-dev", "-hcl=discard_check_output = true", "-log-json"]));
    assert_eq!(changed, ["discard_check_output", "log_json"]);
    let calls = |of: &str| {
        let limits =
            format!("-hcl=limits {{ rpc_client_timeout = \"{of}\" rpc_handshake_timeout = \"{of}\" }}");
        config(&["-dev", &limits, &format!("-hcl=performance {{ rpc_hold_timeout = \"{of}\" }}")])
    };
    let changed = calls("1s").fixed_keys_changed(&calls("2s"));
    assert_eq!(changed, ["limits.rpc_client_timeout", "performance.rpc_hold_timeout"], "the third may");
}

/// Here and not among the data, since what a name comes to is the machine's to say.
#[test]
fn recursors_may_be_named() {
    let load = |recursor: &str| {
        let words = ["-dev".to_string(), format!("-recursor={recursor}")];
        config::load(&config::parse_flags(&words).unwrap())
    };
    let found = load("localhost:5301").unwrap().dns.recursion.recursors;
    assert!(!found.is_empty() && found.iter().all(|addr| addr.ip().is_loopback() && addr.port() == 5301));
    let no_name = "a".repeat(64); // no label is so long, so nobody on the network is asked
    let fault = load(&no_name).unwrap_err().to_string();
    let expected = format!("flag -recursor: recursors: {no_name:?} cannot be resolved: ");
    assert!(fault.starts_with(&expected) && fault.ends_with("or a host name"), "{fault}");
}

/// A case is `== what it shows`, the flags in a line, files after `-- NAME`, and what comes of it after `-- expect`:
/// what differs from an agent with only `-dev` or `-data-dir`, warnings, or faults. `$` is the directory of the files,
/// `␍` a carriage return.
fn run(file: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(file);
    let script = fs::read_to_string(&path).unwrap();
    let (head, cases) = script.split_once("\n== ").unwrap_or((&script, ""));
    let mut written = head.to_string();
    for case in cases.split("\n== ") {
        let (given, _) =
            case.split_once("-- expect\n").unwrap_or_else(|| panic!("{file}: no -- expect in {case}"));
        let found = outcome(given);
        written.push_str(&format!("\n== {given}-- expect\n{found}"));
    }
    if std::env::var("LICTOR_EXPECT").is_ok_and(|mode| mode == "write") {
        fs::write(&path, written).unwrap();
        return;
    }
    for (line, (expected, found)) in script.lines().zip(written.lines()).enumerate() {
        assert_eq!(expected, found, "{file}:{} (expected, found)", line + 1);
    }
    assert_eq!(script.trim_end(), written.trim_end(), "{file}");
}

fn outcome(case: &str) -> String {
    let scratch = Scratch::new();
    let mut parts = case.split("\n-- ");
    let flags = parts.next().and_then(|head| head.split_once('\n')).map_or("", |(_, flags)| flags);
    for part in parts.filter(|part| !part.is_empty()) {
        let (name, text) = part.split_once('\n').unwrap_or((part, ""));
        scratch.write(name, &text.replace('␍', "\r"));
    }
    let root = format!("{}/", scratch.0.display());
    let mut words: Vec<String> =
        flags.lines().filter(|line| !line.trim().is_empty()).map(|word| word.replace("$", &root)).collect();
    if words.first().is_none_or(|word| word != "-dev" && !word.starts_with("-data-dir")) {
        words.insert(0, "-dev".into());
    }
    let flags = match config::parse_flags(&words) {
        Ok(flags) => flags,
        Err(error) => return format!("flags: {error}\n"),
    };
    let lines = match config::load(&flags) {
        Ok(config) => {
            let plain: Vec<String> = words
                .iter()
                .filter(|word| *word == "-dev" || word.starts_with("-data-dir"))
                .cloned()
                .chain(["-bind=127.0.0.1".into()])
                .collect();
            let plain = config::load(&config::parse_flags(&plain).unwrap())
                .unwrap_or_else(|faults| panic!("{faults}"));
            let host_name = plain.node_name.clone();
            let (plain, all) = (summary(&plain, &host_name), summary(&config, &host_name));
            let told: Vec<String> = all.into_iter().filter(|line| !plain.contains(line)).collect();
            if told.is_empty() { vec!["nothing changes".into()] } else { told }
        }
        Err(faults) => faults.0.iter().map(|fault| format!("fault: {fault}")).collect(),
    };
    lines.iter().map(|line| format!("{}\n", line.replace(&root, ""))).collect()
}

fn summary(config: &Config, host_name: &str) -> Vec<String> {
    let Config {
        node_name, node_id, node_meta, datacenter, server, data_dir, advertise, advertise_wan, ..
    } = config;
    let mut lines = vec![
        format!(
            "node {} {node_id:?} in {datacenter}, server {server}, data {data_dir:?}",
            if *node_name == host_name { "HOST" } else { node_name }
        ),
        format!("node_meta {node_meta:?}"),
        format!("advertise {advertise} {advertise_wan}"),
        format!(
            "ports server {} serf {} {:?}",
            config.server_port, config.serf_lan_port, config.serf_wan_port
        ),
        format!("dns on {:?}", config.dns_addrs),
        format!("http on {:?}", config.http_addrs),
        format!("http sockets {:?}", config.http_sockets),
        format!("http {:?}", config.http),
        format!("telemetry {:?}", config.telemetry),
        format!("scripts {:?}", config.scripts),
        format!(
            "output {} bytes, told after {:?}, discarded {}",
            config.check_output_bytes_max, config.check_update_interval, config.discard_check_output
        ),
        format!(
            "leave on terminate {}, stay on interrupt {}",
            config.leave_on_terminate, config.skip_leave_on_interrupt
        ),
        format!("log {:?}", config.log),
        format!("pid {:?}", config.pid_file),
        format!("{:?}", config.mass_failure),
        format!("{:?}", config.encryption),
        format!("pool on {}, of {:?}", config.pool.bind, config.pool.allowed),
        format!(
            "pool joins [{}] every {:?}, {} times, again {}",
            config.pool.joining.places.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            config.pool.joining.interval,
            config.pool.joining.retries_max,
            config.pool.rejoin_after_leave
        ),
        format!("pool forgets this one after {:?}", config.pool.advertise_reconnect_timeout),
    ];
    // The node is told of above.
    assert_eq!(config.dns.node, **node_name);
    let dns = lictor::dns::Settings { node: String::new(), ..config.dns.clone() };
    lines.extend(format!("{dns:#?}").lines().map(|line| format!("dns {}", line.trim())));
    lines.extend(format!("{:#?}", config.pool.timing).lines().map(|line| format!("pool {}", line.trim())));
    for service in &config.services {
        let lictor::catalog::Service {
            id, name, tags, address, port, meta, weights, tagged_addresses, ..
        } = &service.service;
        lines.push(format!(
            "service {id} {name} {address:?} {port} tags {tags:?} weights {}/{}{}{}{}{}",
            weights.passing,
            weights.warning,
            meta.as_ref().map_or(String::new(), |meta| format!(" meta {meta:?}")),
            tagged_addresses.as_ref().map_or(String::new(), |tagged| format!(" tagged {tagged:?}")),
            if service.service.enable_tag_override { " override" } else { "" },
            if service.token.is_empty() { String::new() } else { format!(" token {}", service.token) },
        ));
        lines.extend(service.checks.iter().map(|check| format!("  {}", check_line(check))));
    }
    lines.extend(config.checks.iter().map(check_line));
    lines.extend(config.warnings.iter().map(|warning| format!("warning: {warning}")));
    lines
}

fn check_line(check: &lictor::check::Definition) -> String {
    format!(
        "check {} {:?} of {:?} {:?} every {:?} at most {:?} status {:?} {:?} gone after {:?} output {:?}",
        check.id,
        check.name,
        check.service_id,
        check.kind,
        check.interval,
        check.timeout,
        check.status,
        check.thresholds,
        check.deregister_critical_service_after,
        check.output_bytes_max
    )
}

/// A directory of its own, gone afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("lictor-config-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
