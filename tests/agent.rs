//! The binary as an operator meets it: started, asked, told to read its files again, stopped.

mod support;

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    process::{Command, Stdio},
};

use hickory_proto::{op::ResponseCode, rr::RecordType};
use support::{Agent, DEADLINE, ask, examples, fresh_folder};

/// The README's first example.
#[test]
fn the_first_example_answers() {
    let folder = examples().join("one-agent");
    let agent = Agent::start(&["-dev", &format!("-config-dir={}", folder.display())]);
    let expected = ["SRV 1 1 8081 7f000001.addr.dc1.consul.", "SRV 1 10 8082 7f000002.addr.dc1.consul."];
    agent.wait_for_answers("web.service.dc1.consul.", RecordType::SRV, &expected);
    assert_eq!(agent.answers("blue.web.service.consul.", RecordType::A), ["A 127.0.0.1"]);
    let message = ask(agent.dns(), "web.service.consul.", RecordType::A);
    assert!(message.answers.iter().all(|record| record.ttl == 9), "the TTL set in the example");
    assert_eq!(agent.answers("consul.", RecordType::NS), ["NS test-1.node.dc1.consul."]);
    assert_eq!(agent.answers("ns.consul.", RecordType::A), [format!("A {}", agent.address)]);
    assert_eq!(
        ask(agent.dns(), "nosvc.service.consul.", RecordType::A).metadata.response_code,
        ResponseCode::NXDomain
    );
}

#[test]
fn signals_stop_an_agent_in_order() {
    for (signal, arguments, code) in [
        ("TERM", &["-dev"][..], 1),
        ("INT", &["-dev"], 1),
        ("TERM", &["-dev", "-hcl", "leave_on_terminate = true"], 0),
        ("INT", &["-dev", "-hcl", "skip_leave_on_interrupt = false"], 0),
    ] {
        let mut agent = Agent::start(arguments);
        agent.signal(signal);
        assert_eq!(agent.exit_code(), Some(code), "{signal} {arguments:?}: {}", agent.log());
        agent.wait_for_log(&format!("Exit code: code={code}"));
    }
}

#[test]
fn a_port_in_use_is_named_with_what_moves_it() {
    let first = Agent::start(&["-dev"]);
    let mut second = Agent::spawn(&["-dev", &format!("-client={}", first.address)], &[]);
    assert_eq!(second.exit_code(), Some(1));
    let log = second.log();
    assert!(log.contains(&format!("{}:8600", first.address)) && log.contains("-dns-port"), "{log}");
    if cfg!(target_os = "linux") {
        assert!(log.contains(&format!("held by lictor (pid {}, user ", first.id())), "{log}");
        assert!(log.contains("an agent runs here already"), "{log}");
    }
}

/// Each with the part that has it, and what to do.
#[test]
fn an_address_that_cannot_be_had_is_explained() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let http = format!("ports {{ http = {} }}", held.local_addr().unwrap().port());
    let mut agent = Agent::spawn(&["-dev", "-client=127.0.0.1", "-dns-port=-1", "-hcl", &http], &[]);
    assert_eq!(agent.exit_code(), Some(1));
    if cfg!(target_os = "linux") {
        agent.wait_for_log(&format!("(pid {}, user ", std::process::id()));
    }
    let listen = "lictor { dns { listen = [\"192.0.2.1:53\"] } }";
    let mut agent = Agent::spawn(&["-dev", "-hcl", listen], &[]);
    assert_eq!(agent.exit_code(), Some(1));
    agent.wait_for_log("No interface of this machine has the address 192.0.2.1");
}

/// Root too may be without the capability.
#[cfg(target_os = "linux")]
#[test]
fn a_low_port_without_the_right_to_it_is_explained() {
    let lowest = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service"]);
    let can = command.arg("true").status().is_ok_and(|status| status.success());
    if lowest.trim().parse().is_ok_and(|lowest: u16| lowest <= 53) || !can {
        println!("skipped: low ports are free for all here, or setpriv cannot take the right to them away");
        return;
    }
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service"]);
    command.arg(env!("CARGO_BIN_EXE_lictor")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut agent = Agent::launch(command, support::fresh_address(), &["-dev", "-dns-port=53"], &[]);
    assert_eq!(agent.exit_code(), Some(1));
    for text in ["ermission denied", "CAP_NET_BIND_SERVICE", "setcap", "lictor.socket", "lictor dns install"]
    {
        agent.wait_for_log(text);
    }
}

#[test]
fn an_agent_answers_wherever_it_is_told_to_listen() {
    let address = support::fresh_address();
    let listen = format!("lictor {{ dns {{ listen = [\"{address}:5300\"] }} }}");
    let agent = Agent::start(&["-dev", "-hcl", &listen]);
    for dns in [agent.dns(), (address, 5300).into()] {
        assert!(ask(dns, "consul.", RecordType::NS).metadata.authoritative, "{dns}");
    }
    let expected =
        format!("[\"tcp://{0}\",\"udp://{0}\",\"tcp://{1}:5300\",\"udp://{1}:5300\"]", agent.dns(), address);
    assert_eq!(agent.get("/v1/agent/self")["DebugConfig"]["DNSAddrs"].to_string(), expected);
}

#[test]
fn what_cannot_be_secured_or_joined_yet_does_not_start() {
    for (arguments, text) in [
        (&["-server", "-data-dir=/nowhere", "-bootstrap-expect=3"][..], "bootstrap_expect = 3: "),
        (&["-dev", "-hcl", "encrypt = \"x\""], "encrypt has invalid key"),
        (&["-dev", "-foo"], "flag provided but not defined: -foo"),
    ] {
        let mut agent = Agent::spawn(arguments, &[]);
        assert_eq!(agent.exit_code(), Some(1));
        agent.wait_for_log(text);
    }
}

#[test]
fn faults_of_all_files_are_told_at_once() {
    let files = [
        ("a.hcl", "service {\n  name = \"a\"\n  port = \"80\"\n}\n"),
        ("b.json", "{\"services\": [{\"name\": \"b\", \"web\": 1}]}"),
        ("c.hcl", "checks {\n  id = \"c\"\n  grpc = \"127.0.0.1:1\"\n}\n"),
    ];
    let mut agent = Agent::spawn(&["-dev"], &files);
    assert_eq!(agent.exit_code(), Some(1));
    let named = |file: &str| agent.folder.join(file).display().to_string();
    for fault in [
        format!("{}:3:10: 'service.port' expected type 'int'", named("a.hcl")),
        format!("{}:1:36: invalid config key services[0].web", named("b.json")),
        format!("{}:1:1: checks: check \"c\": Interval must be > 0", named("c.hcl")),
    ] {
        agent.wait_for_log(&fault);
    }
}

#[test]
fn a_hangup_reloads_and_a_fault_changes_nothing() {
    let service = |port: u16| format!("service {{\n  name = \"web\"\n  port = {port}\n}}\n");
    let agent = Agent::start_with(&["-dev"], &[("web.hcl", &service(80))]);
    agent.wait_for_answers("web.service.consul.", RecordType::SRV, &["SRV 1 1 80 test-1.node.dc1.consul."]);
    fs::write(agent.folder.join("web.hcl"), service(81)).unwrap();
    fs::write(agent.folder.join("db.hcl"), "service { name = \"db\" }").unwrap();
    agent.signal("HUP");
    agent.wait_for_answers("web.service.consul.", RecordType::SRV, &["SRV 1 1 81 test-1.node.dc1.consul."]);
    assert_eq!(agent.answers("db.service.consul.", RecordType::A).len(), 1);
    fs::write(agent.folder.join("web.hcl"), "service { port = 82 }").unwrap();
    fs::remove_file(agent.folder.join("db.hcl")).unwrap();
    agent.signal("HUP");
    agent.wait_for_log("Service name missing");
    assert_eq!(
        agent.answers("db.service.consul.", RecordType::A).len(),
        1,
        "the old configuration stays whole"
    );
    fs::write(agent.folder.join("web.hcl"), service(83)).unwrap();
    agent.signal("HUP");
    agent.wait_for_answers("web.service.consul.", RecordType::SRV, &["SRV 1 1 83 test-1.node.dc1.consul."]);
    agent.wait_for_answers("db.service.consul.", RecordType::A, &[]);
}

#[test]
fn a_failing_check_takes_its_service_out() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    let file = format!(
        "service {{\n  name = \"web\"\n  port = 80\n  check {{\n    tcp = \"{target}\"\n    interval = \"1s\"\n    status = \"passing\"\n  }}\n}}\n"
    );
    let agent = Agent::start_with(&["-dev"], &[("web.hcl", &file)]);
    agent.wait_for_answers("web.service.consul.", RecordType::SRV, &["SRV 1 1 80 test-1.node.dc1.consul."]);
    drop(listener);
    agent.wait_for_answers("web.service.consul.", RecordType::SRV, &[]);
    let _back = std::net::TcpListener::bind(target).unwrap();
    agent.wait_for_answers("web.service.consul.", RecordType::SRV, &["SRV 1 1 80 test-1.node.dc1.consul."]);
}

#[test]
fn a_script_needs_leave_and_its_exit_code_is_its_word() {
    let file = |program: &str| {
        format!(
            "checks {{\n  id = \"c\"\n  args = [\"/bin/sh\", \"-c\", \"{program}\"]\n  interval = \"1s\"\n}}\n"
        )
    };
    let mut refused = Agent::spawn(&["-dev"], &[("c.hcl", &file("exit 0"))]);
    assert_eq!(refused.exit_code(), Some(1));
    refused.wait_for_log("Scripts are disabled on this agent");
    let service = "service { name = \"web\" }";
    let agent = Agent::start_with(
        &["-dev", "-enable-local-script-checks"],
        &[("c.hcl", &file("exit 1")), ("web.hcl", service)],
    );
    let answer = [format!("A {}", agent.address)];
    agent.wait_for_answers("web.service.consul.", RecordType::A, &[&answer[0]]);
}

#[test]
fn what_is_registered_over_http_is_there_when_it_is_answered() {
    let agent = Agent::start(&["-dev"]);
    let body = r#"{"Name":"web","Port":80,"Address":"10.0.0.7","Check":{"TTL":"60s"}}"#;
    assert_eq!(agent.request("PUT", "/v1/agent/service/register", body), (200, String::new()));
    assert_eq!(
        agent.answers("web.service.consul.", RecordType::A),
        [] as [&str; 0],
        "critical until it speaks"
    );
    assert_eq!(agent.request("PUT", "/v1/agent/check/pass/service:web?note=fine", "").0, 200);
    assert_eq!(agent.answers("web.service.consul.", RecordType::A), ["A 10.0.0.7"]);
    let health = agent.get("/v1/health/service/web?passing");
    assert_eq!(
        health[0]["Checks"].as_array().map(Vec::len),
        Some(2),
        "the node's check and its own: {health}"
    );
    assert_eq!(health[0]["Service"]["TaggedAddresses"]["lan_ipv4"]["Port"], 80);
    assert_eq!(agent.request("PUT", "/v1/agent/service/deregister/web", "").0, 200);
    assert_eq!(agent.answers("web.service.consul.", RecordType::A), [] as [&str; 0]);
    let catalog = r#"{"Node":"printer","Address":"10.0.0.90","Service":{"Service":"ipp","Port":631}}"#;
    assert_eq!(agent.request("PUT", "/v1/catalog/register", catalog).0, 200);
    assert_eq!(
        agent.answers("ipp.service.consul.", RecordType::SRV),
        ["SRV 1 1 631 printer.node.dc1.consul."]
    );
    let script = r#"{"Name":"s","Check":{"Args":["true"],"Interval":"1s"}}"#;
    let (status, text) = agent.request("PUT", "/v1/agent/service/register", script);
    assert_eq!(status, 500);
    assert!(text.starts_with("Scripts are disabled on this agent from remote calls"), "{text}");
    assert_eq!(agent.get("/v1/status/leader"), format!("{}:8300", agent.address));
    assert_eq!(agent.get("/v1/agent/self")["Config"]["NodeName"], "test-1");
}

/// Nothing differs, so nothing is proposed: the index stays.
#[test]
fn http_is_served_on_a_socket_of_the_file_system_alone() {
    let folder = fresh_folder();
    let path = folder.join("http.sock");
    let hcl = format!(
        "-hcl=addresses {{ http = \"unix://{}\" }} unix_sockets {{ mode = \"0700\" }}",
        path.display()
    );
    let mut agent = Agent::start(&["-dev", &hcl]);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(b"GET /v1/status/leader HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(TcpStream::connect(agent.http()).is_err(), "nobody listens at the port");
    agent.signal("TERM");
    agent.exit_code();
    assert!(!path.exists(), "it is gone with the agent");
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn without_dns_or_http_an_agent_goes_on() {
    let agent = Agent::start(&["-dev", "-dns-port=-1"]);
    assert_eq!(agent.request("GET", "/v1/status/leader", "").0, 200);
    agent.signal("INT");
    agent.wait_for_log("Caught");
    let agent = Agent::start(&["-dev", "-http-port=-1"]);
    agent.wait_for_answers("consul.service.consul", RecordType::A, &[&format!("A {}", agent.address)]);
    agent.signal("INT");
    agent.wait_for_log("Caught");
}

#[test]
fn a_quiet_agent_writes_nothing() {
    let agent = Agent::start_with(&["-dev"], &[("web.hcl", "service { name = \"web\" }")]);
    agent.wait_for_answers("web.service.consul.", RecordType::A, &[&format!("A {}", agent.address)]);
    let serial = || {
        let message = ask(agent.dns(), "consul.", RecordType::SOA);
        message.answers[0].data.to_string()
    };
    let before = serial();
    for _ in 0..3 {
        assert_eq!(agent.request("PUT", "/v1/agent/reload", ""), (200, String::new()));
    }
    let same = r#"{"Name":"web"}"#;
    assert_eq!(agent.request("PUT", "/v1/agent/service/register", same), (200, String::new()));
    assert_eq!(serial(), before);
}

#[test]
fn the_reload_command_says_what_came_of_it() {
    let agent = Agent::start(&["-dev"]);
    let reload = || {
        let address = format!("-http-addr={}", agent.http());
        let out = std::process::Command::new(env!("CARGO_BIN_EXE_lictor"))
            .args(["reload", &address])
            .output()
            .unwrap();
        (out.status.code(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
    };
    assert_eq!(reload(), (Some(0), "Configuration reload triggered\n".into()));
    fs::write(agent.folder.join("a.hcl"), "nonsense = 1").unwrap();
    let (code, text) = reload();
    assert_eq!(code, Some(1));
    assert!(
        text.starts_with("Error reloading: Unexpected response code: 500 (") && text.contains("nonsense"),
        "{text}"
    );
}

/// `http-api.md` §6.2, §8.1, §8.4: who is being worked on is not answered.
#[test]
fn maintenance_takes_a_service_or_the_node_out() {
    let agent = Agent::start(&["-dev"]);
    let put = |path: &str| agent.request("PUT", path, "");
    for name in ["web", "db"] {
        let body = format!(r#"{{"Name":"{name}","Port":80,"Check":{{"TTL":"60s","Status":"passing"}}}}"#);
        assert_eq!(agent.request("PUT", "/v1/agent/service/register", &body).0, 200);
    }
    let here = |name: &str| agent.answers(&format!("{name}.service.consul."), RecordType::A).len();
    assert_eq!(put("/v1/agent/service/maintenance/WEB?enable=true&reason=new+disk"), (200, String::new()));
    assert_eq!(put("/v1/agent/service/maintenance/web?enable=true&reason=later"), (200, String::new()));
    assert_eq!((here("web"), here("db")), (0, 1));
    let check = &agent.get("/v1/agent/checks")["_service_maintenance:web"];
    for (key, value) in [
        ("Name", "Service Maintenance Mode"),
        ("Status", "critical"),
        ("Notes", "new disk"),
        ("Type", "maintenance"),
        ("ServiceID", "web"),
        ("ServiceName", "web"),
    ] {
        assert_eq!(check[key], value, "{check}");
    }
    assert_eq!(put("/v1/agent/maintenance?enable=true"), (200, String::new()));
    assert_eq!((here("web"), here("db")), (0, 0));
    let check = &agent.get("/v1/agent/checks")["_node_maintenance"];
    assert_eq!((&check["Name"], &check["Type"]), (&"Node Maintenance Mode".into(), &"maintenance".into()));
    assert_eq!(put("/v1/agent/reload").0, 200);
    assert_eq!((here("web"), here("db")), (0, 0), "a reload ends nothing");
    assert_eq!(put("/v1/agent/service/maintenance/web?enable=false"), (200, String::new()));
    assert_eq!(put("/v1/agent/maintenance?enable=false"), (200, String::new()));
    assert_eq!((here("web"), here("db")), (1, 1));
    let unknown = r#"Unknown service ID "x". Ensure that the service ID is passed, not the service name."#;
    assert_eq!(put("/v1/agent/service/maintenance/x?enable=true"), (404, unknown.into()));
    assert_eq!(put("/v1/agent/service/maintenance/x?enable=false"), (404, unknown.into()));
}
