//! Clients that were written for Consul, unmodified, each against a real agent: py-consul, node-consul, Consul's own Go
//! client, the discovery of Prometheus. They register, watch, see a change, lose an instance, take a lock and lose it.
//! `.ci/run` has them where they can be had; where one is not, its test says that it skipped.

mod support;

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use support::{Agent, ended, wait_for};

/// Whatever a client waits for has a deadline of its own; this is for the one that forgets.
const CLIENT_LIMIT: Duration = Duration::from_secs(180);

/// What `.ci/run` installed of a language's client.
fn installed(language: &str, file: &str) -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    Some(root.join("target/clients").join(language).join(file)).filter(|path| path.exists())
}

/// Whether a program is there, and starts.
fn starts(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Runs a client to its end against an agent of its own.
fn run(mut client: Command) {
    let agent = Agent::start(&["-dev"]);
    client.arg(agent.address.to_string()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = ended(client.spawn().expect("the client starts"), CLIENT_LIMIT);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && out.ends_with("done\n"), "{out}{err}\n{}", agent.log());
}

#[test]
fn py_consul() {
    let Some(package) = installed("python", "consul").filter(|_| starts("python3")) else {
        return eprintln!("skipped: py-consul is not installed");
    };
    let mut client = Command::new("python3");
    client
        .env("PYTHONPATH", package.parent().expect("it is in a folder"))
        .arg("tests/clients/python/client.py");
    run(client);
}

#[test]
fn node_consul() {
    let Some(modules) = installed("node", "node_modules").filter(|_| starts("node")) else {
        return eprintln!("skipped: node-consul is not installed");
    };
    let mut client = Command::new("node");
    client.env("NODE_PATH", modules).arg("tests/clients/node/client.js");
    run(client);
}

#[test]
fn go_client() {
    let Some(client) = installed("go", "client") else {
        return eprintln!("skipped: the Go client is not built");
    };
    run(Command::new(client));
}

/// Prometheus' discovery, ended with its test.
struct Discovery {
    child: Child,
    /// What it found, a line for each change.
    found: Arc<Mutex<Vec<String>>>,
}

impl Discovery {
    fn start(program: &Path, agent: &Agent) -> Discovery {
        let mut child = Command::new(program)
            .arg(agent.address.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let found = Arc::<Mutex<Vec<String>>>::default();
        let (out, lines) = (child.stdout.take().expect("it is piped"), found.clone());
        thread::spawn(move || {
            let told = BufReader::new(out).lines().map_while(Result::ok);
            told.for_each(|line| lines.lock().unwrap().push(line));
        });
        Discovery { child, found }
    }

    fn wait_for(&self, targets: &str) {
        let found = || self.found.lock().unwrap().clone();
        let wanted = format!("targets {targets}");
        wait_for(&wanted, || (found().last()? == &wanted).then_some(()), || format!("{:?}", found()));
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// It looks for `web` by tag and by filters.
#[test]
fn prometheus() {
    let Some(program) = installed("prometheus", "client") else {
        return eprintln!("skipped: Prometheus' discovery is not built");
    };
    let agent = Agent::start(&["-dev"]);
    let put = |path: &str, body: &str| {
        let (status, text) = agent.request("PUT", path, body);
        assert_eq!(status, 200, "{text}");
    };
    let register = |number: u8, tag: &str, env: &str| {
        let body = format!(
            r#"{{"Name":"web","ID":"web-{number}","Address":"127.0.0.{number}","Port":80,"Tags":["{tag}"],"Meta":{{"env":"{env}"}}}}"#
        );
        put("/v1/agent/service/register", &body);
    };
    register(1, "v1", "live");
    register(3, "v2", "live");
    register(4, "v1", "staging");
    let discovery = Discovery::start(&program, &agent);
    discovery.wait_for("127.0.0.1:80");
    register(2, "v1", "live");
    discovery.wait_for("127.0.0.1:80 127.0.0.2:80");
    put("/v1/agent/service/deregister/web-1", "");
    discovery.wait_for("127.0.0.2:80");
    // The last one that has the tag: the whole group goes.
    for number in [2, 4] {
        put(&format!("/v1/agent/service/deregister/web-{number}"), "");
    }
    discovery.wait_for("");
}
