//! What systemd is to an agent: it hands sockets over, hears how the agent fares, and reads the units in `examples/`.
#![cfg(target_os = "linux")]

mod support;

use std::{
    fs,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    process::{Command, Stdio},
};

use hickory_proto::rr::RecordType;
use support::{Agent, DEADLINE, ask, examples, fresh_address, fresh_folder, request, wait_for};

const BINARY: &str = env!("CARGO_BIN_EXE_lictor");
const WEB: &[(&str, &str)] = &[("web.hcl", "service {\n  name = \"web\"\n  port = 80\n}\n")];

/// UDP and TCP of DNS by their name, HTTP by its own, and two of no use. The shell puts them where systemd would, from 3
/// on, and tells its own process id.
#[test]
fn sockets_handed_over_are_used() {
    let (address, folder) = (fresh_address(), fresh_folder());
    let dns: SocketAddr = (address, 5300).into();
    let (udp, tcp) = (UdpSocket::bind(dns).unwrap(), TcpListener::bind(dns).unwrap());
    let http = TcpListener::bind((address, 8500)).unwrap();
    let log = folder.join("log");
    let script = "exec 3<&0 4<&1 5<&2 6</dev/null 7<&1 >\"$LOG\" 2>&1; export LISTEN_PID=$$; exec \"$@\"";
    // Twice: the sockets stay with whoever bound them.
    for _ in 0..2 {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh", BINARY]).env("LOG", &log);
        command.env("LISTEN_FDS", "5").env("LISTEN_FDNAMES", "dns:dns:http:x:lictor.socket");
        command.stdin(Stdio::from(OwnedFd::from(tcp.try_clone().unwrap())));
        command.stdout(Stdio::from(OwnedFd::from(udp.try_clone().unwrap())));
        command.stderr(Stdio::from(OwnedFd::from(http.try_clone().unwrap())));
        let mut agent = Agent::launch(command, address, &["-dev", "-dns-port=-1"], WEB);
        agent.read_log_from(log.clone());
        agent.wait_for_log("agent running!");
        wait_for(
            "an answer on the socket handed over",
            || (ask(dns, "web.service.consul.", RecordType::SRV).answers.len() == 1).then_some(()),
            || agent.log(),
        );
        assert_eq!(request(agent.http(), "GET", "/v1/status/leader", "").0, 200);
        for text in [
            "socket 3 handed over (\"x\"): it is neither a UDP nor a TCP socket".into(),
            format!("socket 4 handed over (\"lictor.socket\"): UDP {dns} is none of this agent's listeners"),
        ] {
            assert!(agent.log().contains(&text), "{text}\n{}", agent.log());
        }
        agent.signal("TERM");
        agent.exit_code();
    }
    fs::remove_dir_all(folder).unwrap();
}

/// As systemd does it, by its own tool: it waits for the first question, and starts the agent for it. It hands over one
/// kind of socket; the agent binds the other itself.
#[test]
fn the_first_question_starts_an_agent() {
    if Command::new("systemd-socket-activate").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("skipped: systemd-socket-activate is not installed");
        return;
    }
    let address = fresh_address();
    let mut command = Command::new("systemd-socket-activate");
    command.arg(format!("--listen={address}:8600")).args(["--datagram", "--fdname=lictor.socket", BINARY]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let agent = Agent::launch(command, address, &["-dev"], WEB);
    agent.wait_for_log("Listening on");
    let message = ask(agent.dns(), "consul.", RecordType::NS);
    assert!(message.metadata.authoritative, "{}", agent.log());
    agent.wait_for_answers("web.service.consul.", RecordType::SRV, &["SRV 1 1 80 test-1.node.dc1.consul."]);
    assert!(!agent.log().contains("handed over"), "known by its address: {}", agent.log());
}

#[test]
fn the_service_manager_hears_how_an_agent_fares() {
    let folder = fresh_folder();
    let path = folder.join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut command = Command::new(BINARY);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "20000");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut agent = Agent::launch(command, fresh_address(), &["-dev"], WEB);
    // Whatever comes before the text that is waited for.
    let until = |text: &str| {
        let mut heard = Vec::new();
        while heard.last().is_none_or(|last: &String| !last.contains(text)) {
            let mut packet = [0; 256];
            let length =
                manager.recv(&mut packet).unwrap_or_else(|error| panic!("{text}: {error}: {heard:?}"));
            heard.push(String::from_utf8_lossy(&packet[..length]).into_owned());
        }
        heard
    };
    assert_eq!(until("READY=1").len(), 1, "nothing comes before");
    assert!(
        ask(agent.dns(), "consul.", RecordType::NS).metadata.authoritative,
        "ready means that it answers"
    );
    until("WATCHDOG=1");
    agent.signal("HUP");
    assert!(until("RELOADING=1").last().unwrap().contains("MONOTONIC_USEC="));
    until("READY=1");
    agent.signal("TERM");
    until("STOPPING=1");
    agent.exit_code();
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_units_are_as_systemd_wants_them() {
    if Command::new("systemd-analyze").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("skipped: systemd-analyze is not installed");
        return;
    }
    let folder = fresh_folder();
    let mut verify = Command::new("systemd-analyze");
    verify.arg("verify");
    for unit in ["lictor.service", "lictor.socket"] {
        let text = fs::read_to_string(examples().join("systemd").join(unit)).unwrap();
        let own = folder.join(unit);
        fs::write(&own, text.replace("/usr/local/bin/lictor", BINARY)).unwrap();
        verify.arg(own);
    }
    let output = verify.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !told.contains("lictor."), "{told}");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_example_configuration_is_valid() {
    let file = examples().join("systemd/lictor.hcl");
    let output = Command::new(BINARY).arg("validate").arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
