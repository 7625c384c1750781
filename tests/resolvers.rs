//! `lictor dns install` for every resolver, and the resolvers themselves: each is started with what was written for it,
//! and asked for names that an agent of the test answers. Those that are not installed are named and skipped.
//!
//! All of them validate: what is sent to the agent without being excepted (its second zone) must be SERVFAIL, or the
//! exception would show nothing.
#![cfg(target_os = "linux")]

mod support;

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::RecordType,
};
use support::{Agent, ask, ask_tcp, ask_with_edns, examples, fresh_folder, wait_for};

const BINARY: &str = env!("CARGO_BIN_EXE_lictor");
const RESOLVERS: [&str; 5] = ["systemd-resolved", "dnsmasq", "unbound", "bind", "resolv.conf"];
/// More than a packet holds, and no more than BIND takes.
const MANY: usize = 80;
const ROOT_KEY: &str = "20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D";

/// Files that a machine has before.
const BEFORE: &[(&str, &str)] = &[
    ("etc/dnsmasq.conf", "conf-dir=/etc/dnsmasq.d/,*.conf\n"),
    ("etc/unbound/unbound.conf", "include-toplevel: \"/etc/unbound/unbound.conf.d/*.conf\"\n"),
    ("etc/bind/named.conf.options", "options {\n};\n"),
    ("etc/bind/named.conf.local", ""),
    ("etc/systemd/resolved.conf", "[Resolve]\n#DNS=\n"),
    ("run/resolv.conf", "nameserver 192.0.2.53\nsearch example.com\n"),
];

#[test]
fn the_examples_are_what_is_written() {
    let server = |resolver| if resolver == "resolv.conf" { "127.0.0.1:53" } else { "127.0.0.1:8600" };
    for (resolver, files) in [
        (
            "systemd-resolved",
            &["systemd/resolved.conf.d/lictor.conf", "dnssec-trust-anchors.d/lictor.negative"][..],
        ),
        ("dnsmasq", &["dnsmasq.d/lictor.conf"]),
        ("unbound", &["unbound/unbound.conf.d/lictor.conf"]),
        ("bind", &["bind/named.conf.options", "bind/named.conf.local"]),
        ("resolv.conf", &["resolv.conf"]),
    ] {
        let root = Root::new();
        for file in files {
            fs::create_dir_all(root.at("etc").join(file).parent().unwrap()).unwrap();
        }
        root.install(resolver, &["-apply", "-domain=consul", &format!("-server={}", server(resolver))]);
        for file in files {
            let written = fs::read_to_string(root.at("etc").join(file)).unwrap();
            let example = examples().join("resolvers").join(resolver).join("etc").join(file);
            if std::env::var("LICTOR_EXPECT").is_ok_and(|mode| mode == "write") {
                fs::create_dir_all(example.parent().unwrap()).unwrap();
                fs::write(&example, &written).unwrap();
            }
            assert_eq!(fs::read_to_string(&example).unwrap_or_default(), written, "{}", example.display());
        }
    }
}

/// Links, modes and folders as they were; nothing is left beside.
#[test]
fn to_undo_leaves_everything_as_it_was() {
    let ways =
        [&["-server=127.0.0.1:53"][..], &["-server=[::1]:53", "-reverse=private", "-reverse=fd00::/8"]];
    for (resolver, way) in RESOLVERS.into_iter().flat_map(|resolver| ways.map(|way| (resolver, way))) {
        let root = Root::new();
        let options = root.at("etc/bind/named.conf.options");
        fs::set_permissions(&options, fs::Permissions::from_mode(0o640)).unwrap();
        let before = root.tree();
        let arguments = [&["-domain=consul"], way].concat();
        let shown = root.install(resolver, &[&arguments[..], &["-dry-run"]].concat());
        assert!(shown.contains("Nothing was changed"), "{shown}");
        assert_eq!(root.tree(), before, "{resolver}: a dry run changes nothing");
        root.install(resolver, &[&arguments[..], &["-apply"]].concat());
        let after = root.tree();
        assert_ne!(after, before);
        assert_eq!(after.get("etc/bind/named.conf.options").map(|file| file.1), Some(0o640));
        let again = root.install(resolver, &[&arguments[..], &["-apply"]].concat());
        assert!(again.contains("everything is written already"), "{again}");
        assert_eq!(root.tree(), after, "{resolver}: twice is once");
        assert!(root.try_install(&["-undo", "-dry-run"]).status.success());
        assert_eq!(root.tree(), after, "{resolver}: nor does a dry run of undo");
        root.undo();
        assert_eq!(root.tree(), before, "{resolver}");
        assert!(root.undo().contains("Nothing of lictor's is there"));
    }
}

/// A file that cannot be written takes back those that were.
#[test]
fn what_fails_half_way_changes_nothing() {
    let root = Root::new();
    // The second file is written beside its place first: there a folder stands in the way.
    fs::create_dir_all(root.at("etc/dnssec-trust-anchors.d/.lictor.negative.lictor-new")).unwrap();
    let before = root.tree();
    let output =
        root.try_install(&["-resolver=systemd-resolved", "-apply", "-domain=consul", "-server=127.0.0.1:1"]);
    assert!(!output.status.success());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("lictor.negative: ") && told.contains("nothing was changed"), "{told}");
    assert_eq!(root.tree(), before, "{told}");
}

#[test]
fn the_resolver_in_use_is_found() {
    let root = Root::new();
    for file in ["etc/dnsmasq.conf", "etc/bind/named.conf.local", "etc/bind/named.conf.options"] {
        fs::remove_file(root.at(file)).unwrap();
    }
    let arguments = ["-domain=consul", "-server=127.0.0.1:53"];
    let found = |root: &Root| String::from_utf8(root.try_install(&arguments).stdout).unwrap();
    assert!(
        found(&root).starts_with("Found unbound: there is /etc/unbound/unbound.conf."),
        "{}",
        found(&root)
    );
    fs::write(root.at("run/resolv.conf"), "nameserver 127.0.0.53\n").unwrap();
    assert!(found(&root).starts_with("Found systemd-resolved: /etc/resolv.conf asks 127.0.0.53."));
}

/// Domain and address come from the agent that runs; an answer that does not come fails the command, with what to do.
#[test]
fn an_answer_that_does_not_come_fails_the_command() {
    let agent = Agent::start(&["-dev", "-domain=lan"]);
    let root = Root::new();
    let http = format!("-http-addr={}", agent.http());
    let dead = free_address();
    let output = root.try_install(&["-resolver=dnsmasq", "-apply", &http, &format!("-ask={dead}")]);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    for text in ["nobody listens there", &format!("lictor itself answers at {}", agent.dns()), "-undo"] {
        assert!(told.contains(text), "{text}: {told}");
    }
    let written = fs::read_to_string(root.at("etc/dnsmasq.d/lictor.conf")).unwrap();
    assert!(written.contains(&format!("server=/lan/{}#8600\n", agent.address)), "{written}");
    root.undo();
    let told = root.install("dnsmasq", &["-apply", &http, &format!("-ask={}", agent.dns())]);
    assert!(told.contains("for the SOA of lan: the answer came."), "{told}");
}

#[test]
fn the_group_says_what_it_can() {
    for (arguments, code) in [
        (&["dns"][..], 1),
        (&["dns", "remove"], 1),
        (&["dns", "-help"], 0),
        (&["dns", "install", "-apply", "-undo"], 1),
    ] {
        let output = Command::new(BINARY).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        let told = if code == 0 { output.stdout } else { output.stderr };
        assert!(String::from_utf8_lossy(&told).contains("dns install"), "{arguments:?}");
    }
}

#[test]
fn unbound_forwards() {
    let Some(trial) = Trial::of("unbound", "unbound", "-V") else { return };
    trial.write(
        "unbound.conf",
        &format!(
            "server:\n interface: 127.0.0.1\n port: {}\n username: \"\"\n chroot: \"\"\n directory: \"{folder}\"\n \
             pidfile: \"\"\n use-syslog: no\n do-ip6: no\n trust-anchor: \". DS {ROOT_KEY}\"\n \
             private-address: 10.0.0.0/8\nremote-control:\n control-enable: no\n\
             forward-zone:\n name: \".\"\n forward-addr: {agent}\n\
             include: \"{folder}/etc/unbound/unbound.conf.d/*.conf\"\n",
            trial.at.port(),
            folder = trial.root.0.display(),
            agent = trial.agent.dns().to_string().replace(':', "@"),
        ),
    );
    trial.run(Command::new("unbound").args(["-d", "-c"]).arg(trial.root.at("unbound.conf")));
}

#[test]
fn bind_forwards() {
    let Some(trial) = Trial::of("bind", "named", "-v") else { return };
    let options = fs::read_to_string(trial.root.at("etc/bind/named.conf.options")).unwrap();
    let folder = trial.root.0.display();
    let own = format!(
        "options {{\n directory \"{folder}\"; pid-file none; session-keyfile none; managed-keys-directory \"{folder}\";\n \
         listen-on port {} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};\n \
         dnssec-validation auto; forward only; forwarders {{ {} port 8600; }};\n",
        trial.at.port(),
        trial.agent.address
    );
    let zones = format!("controls {{ }};\ninclude \"{folder}/etc/bind/named.conf.local\";\n");
    trial.write("named.conf", &(options.replace("options {\n", &own) + &zones));
    trial.run(Command::new("named").args(["-g", "-c"]).arg(trial.root.at("named.conf")));
}

#[test]
fn dnsmasq_forwards() {
    let Some(trial) = Trial::of("dnsmasq", "dnsmasq", "--version") else { return };
    trial.write(
        "dnsmasq.conf",
        &format!(
            "port={}\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\nuser=\npid-file=\n\
             stop-dns-rebind\ndnssec\ntrust-anchor=.,{}\nserver={}#8600\nconf-dir={}/etc/dnsmasq.d/,*.conf\n",
            trial.at.port(),
            ROOT_KEY.replace(' ', ","),
            trial.agent.address,
            trial.root.0.display()
        ),
    );
    let conf = format!("--conf-file={}", trial.root.at("dnsmasq.conf").display());
    trial.run(Command::new("dnsmasq").args(["-k", "--log-facility=-", &conf]));
}

/// It takes its files from `/etc` only, so it gets an `/etc` of its own, over the machine's.
#[test]
fn systemd_resolved_forwards() {
    let path = std::env::var("LICTOR_SYSTEMD_RESOLVED").unwrap_or("/lib/systemd/systemd-resolved".into());
    if !has_namespaces("-m") {
        println!("skipped: unshare -m is not allowed here, and systemd-resolved reads /etc only");
        return;
    }
    let Some(trial) = Trial::of("systemd-resolved", &path, "--version") else { return };
    trial.write(
        "etc/systemd/resolved.conf.d/test.conf",
        &format!(
            "[Resolve]\nDNSStubListener=no\nDNSStubListenerExtra={}\nDNSSEC=yes\nLLMNR=no\nMulticastDNS=no\n",
            trial.at
        ),
    );
    trial.write(
        "start",
        "set -e\nmount -t tmpfs none /run\nmkdir -p /run/systemd/resolve /run/upper /run/work\n\
         mount -t overlay none -o lowerdir=/etc,upperdir=/run/upper,workdir=/run/work /etc\n\
         cp -r \"$1/etc/systemd\" \"$1/etc/dnssec-trust-anchors.d\" /etc/\n\
         grep -q ^systemd-resolve: /etc/group || echo systemd-resolve:x:991: >>/etc/group\n\
         grep -q ^systemd-resolve: /etc/passwd || echo systemd-resolve:x:991:991::/:/bin/false >>/etc/passwd\n\
         chown systemd-resolve:systemd-resolve /run/systemd/resolve\nexec \"$2\"\n",
    );
    let mut command = Command::new("unshare");
    command.args(["-m", "sh"]).arg(trial.root.at("start")).arg(&trial.root.0).arg(path);
    trial.run(&mut command);
}

/// The C library itself asks, in a machine whose `/etc/resolv.conf` is the one written.
#[test]
fn the_c_library_asks_by_resolv_conf() {
    if !has_namespaces("-m") || Command::new("getent").arg("--version").output().is_err() {
        println!("skipped: unshare -m is not allowed here, or there is no getent");
        return;
    }
    let mut agent = Agent::spawn(&["-dev", "-dns-port=53"], &[("web.hcl", &services())]);
    if !wait_for("the agent", || agent.started(), String::new) {
        println!("skipped: port 53 cannot be had here: {}", agent.log());
        return;
    }
    let (root, server) = (Root::new(), SocketAddr::from((agent.address, 53)));
    wait_for_services(&agent, server);
    root.install(
        "resolv.conf",
        &["-apply", "-domain=consul", &format!("-server={server}"), &format!("-ask={server}")],
    );
    let script = "mount --bind \"$1\" /etc/resolv.conf && exec getent ahostsv4 web.service.consul";
    let mut command = Command::new("unshare");
    let output =
        command.args(["-m", "sh", "-c", script, "sh"]).arg(root.at("etc/resolv.conf")).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.starts_with("10.1.2.3"), "{told}{}", String::from_utf8_lossy(&output.stderr));
}

/// A machine of its own: its network, its `/etc` with Debian's files, BIND on port 53. The command gets no word of help:
/// it finds BIND, writes, has it checked, has BIND read it, and asks; and takes it all away again.
#[test]
fn a_whole_machine_is_served_and_left_as_it_was() {
    let debian =
        Path::new("/etc/bind/named.conf.options").exists() && Path::new("/etc/bind/rndc.key").exists();
    if !has_namespaces("-mn") || !debian || Command::new("named").arg("-v").output().is_err() {
        println!("skipped: unshare -mn is not allowed here, or Debian's BIND is not installed");
        return;
    }
    let folder = fresh_folder();
    let script = r#"
set -e
ip link set lo up
mount -t tmpfs none /run
mkdir -p /run/named /run/upper /run/work /run/cache
chown bind:bind /run/named /run/cache
mount -t overlay none -o lowerdir=/etc,upperdir=/run/upper,workdir=/run/work /etc
mount --bind /run/cache /var/cache/bind
echo nameserver 127.0.0.1 >/etc/resolv.conf
cp -r /etc/bind /run/before
"$LICTOR" agent -dev >"$FOLDER/agent" 2>&1 & agent=$!
named -g -u bind -c /etc/bind/named.conf >"$FOLDER/named" 2>&1 & named=$!
trap 'kill $agent $named 2>/dev/null; wait' EXIT
tries=0
until grep -q "agent running" "$FOLDER/agent" && grep -q "running$" "$FOLDER/named"; do
    kill -0 $agent; kill -0 $named; sleep 0.05; tries=$((tries + 1)); [ $tries -lt 600 ]
done
"$LICTOR" dns install -apply
"$LICTOR" dns install -apply
"$LICTOR" dns install -undo
diff -r /run/before /etc/bind
echo whole
"#;
    let mut command = Command::new("unshare");
    command.args(["-mn", "sh", "-c", script]).env("LICTOR", BINARY).env("FOLDER", &folder);
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let faults = String::from_utf8_lossy(&output.stderr).into_owned();
    let named = fs::read_to_string(folder.join("named")).unwrap_or_default();
    for text in [
        "Found bind: named answers on port 53.",
        "/etc/bind/named.conf.options: changed.",
        "rndc reconfig: done.",
        "Asked 127.0.0.1:53 for the SOA of consul: the answer came.",
        "bind: everything is written already.",
        "whole",
    ] {
        assert!(told.contains(text), "{text}\n{told}{faults}{named}");
    }
    fs::remove_dir_all(folder).unwrap();
}

/// The files of a machine, gone with the test.
struct Root(PathBuf);

impl Root {
    fn new() -> Root {
        let root = Root(fresh_folder());
        BEFORE.iter().for_each(|(path, text)| root.write(path, text));
        symlink("../run/resolv.conf", root.at("etc/resolv.conf")).unwrap();
        root
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), text).unwrap();
    }

    fn try_install(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(BINARY);
        command.args(["dns", "install", &format!("-root={}", self.0.display())]).args(arguments);
        command.output().unwrap()
    }

    fn install(&self, resolver: &str, arguments: &[&str]) -> String {
        let output = self.try_install(&[&[&*format!("-resolver={resolver}")], arguments].concat());
        assert!(output.status.success(), "{resolver}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn undo(&self) -> String {
        let output = self.try_install(&["-undo"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Every path, with what it is or says, and its mode.
    fn tree(&self) -> BTreeMap<String, (String, u32)> {
        let (mut found, mut folders) = (BTreeMap::new(), vec![self.0.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let kind = fs::symlink_metadata(&path).unwrap();
                let text = if kind.is_symlink() {
                    format!("-> {}", fs::read_link(&path).unwrap().display())
                } else if kind.is_dir() {
                    folders.push(path.clone());
                    "folder".into()
                } else {
                    fs::read_to_string(&path).unwrap()
                };
                let name = path.strip_prefix(&self.0).unwrap().display().to_string();
                found.insert(name, (text, kind.permissions().mode() & 0o777));
            }
        }
        found
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _best_effort = fs::remove_dir_all(&self.0);
    }
}

/// A resolver to be started with what was written for it.
struct Trial {
    resolver: &'static str,
    agent: Agent,
    root: Root,
    /// Where it is to answer.
    at: SocketAddr,
}

impl Trial {
    /// `None`, and a word about it, where the program is not here.
    fn of(resolver: &'static str, program: &str, version: &str) -> Option<Trial> {
        if !Command::new(program).arg(version).output().is_ok_and(|output| output.status.success()) {
            println!("skipped: {program} is not installed, or does not run");
            return None;
        }
        let agent = Agent::start_with(&["-dev", "-alt-domain=other"], &[("web.hcl", &services())]);
        wait_for_services(&agent, agent.dns());
        let trial = Trial { resolver, root: Root::new(), at: free_address(), agent };
        trial.install(&[]);
        Some(trial)
    }

    fn install(&self, more: &[&str]) -> String {
        let http = format!("-http-addr={}", self.agent.http());
        let arguments = [&["-apply", &*http, "-reverse=10.0.0.0/8"], more].concat();
        self.root.install(self.resolver, &arguments)
    }

    fn write(&self, path: &str, text: &str) {
        self.root.write(path, text);
    }

    fn run(&self, command: &mut Command) {
        let log = self.root.at("log");
        let out = fs::File::create(&log).unwrap();
        let child =
            command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out).spawn().unwrap();
        let mut daemon = Daemon { child, log };
        let up = || {
            daemon.must_live();
            TcpListener::bind(self.at).is_err().then_some(())
        };
        wait_for("the resolver to listen", up, String::new);
        let told = self.install(&[&format!("-ask={}", self.at)]);
        assert!(told.contains("everything is written already"), "{told}");
        assert!(told.contains("for the SOA of consul: the answer came."), "{told}");
        self.questions(&daemon);
    }

    fn questions(&self, daemon: &Daemon) {
        let answers = |message: &Message| -> Vec<String> {
            message.answers.iter().map(|record| record.data.to_string()).collect()
        };
        let ask = |name: &str, kind| ask(self.at, name, kind);
        let log = || daemon.log();
        assert_eq!(answers(&ask("web.service.consul.", RecordType::A)), ["10.1.2.3"], "{}", log());
        let expected = ["1 1 80 0a010203.addr.dc1.consul."];
        assert_eq!(answers(&ask("web.service.consul.", RecordType::SRV)), expected, "{}", log());
        let none = ask("nosuch.service.consul.", RecordType::A);
        assert_eq!(none.metadata.response_code, ResponseCode::NXDomain, "{}", log());
        let cut = ask_with_edns(self.at, "many.service.consul.", RecordType::SRV);
        assert!(cut.metadata.truncation && cut.answers.len() < MANY, "{}", log());
        let whole = ask_tcp(self.at, "many.service.consul.", RecordType::SRV);
        assert_eq!((whole.answers.len(), whole.metadata.truncation), (MANY, false), "{}", log());
        let reverse = ask("3.2.1.10.in-addr.arpa.", RecordType::PTR);
        assert_eq!(answers(&reverse), ["web.service.dc1.consul."], "{}", log());
        let not_excepted = ask("web.service.other.", RecordType::A);
        assert_eq!(not_excepted.metadata.response_code, ResponseCode::ServFail, "it validates: {}", log());
    }
}

/// Ends with the test.
struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn must_live(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("the resolver ended with {status}: {}", self.log());
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn wait_for_services(agent: &Agent, at: SocketAddr) {
    let all = || {
        let many = ask_tcp(at, "many.service.consul.", RecordType::SRV).answers.len();
        let one = ask(at, "web.service.consul.", RecordType::A).answers.len();
        ((many, one) == (MANY, 1)).then_some(())
    };
    wait_for("the services", all, || agent.log());
}

fn services() -> String {
    let many = (0..MANY).map(|at| {
        format!("service {{\n  id = \"many-{at}\"\n  name = \"many\"\n  port = {}\n  address = \"10.9.0.{at}\"\n}}\n", 1000 + at)
    });
    "services {\n  name = \"web\"\n  port = 80\n  address = \"10.1.2.3\"\n}\n".to_string()
        + &many.collect::<String>()
}

/// On the one address where every resolver listens, a port that was free just now.
fn free_address() -> SocketAddr {
    let found = (0..20).find_map(|_| {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = tcp.local_addr().unwrap();
        UdpSocket::bind(addr).is_ok().then_some(addr)
    });
    found.expect("a port is free by UDP and TCP")
}

fn has_namespaces(kinds: &str) -> bool {
    Command::new("unshare").args([kinds, "true"]).output().is_ok_and(|output| output.status.success())
}
