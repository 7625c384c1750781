//! What an agent tells of itself, asked as an operator's programs ask: JSON, Prometheus, statsd, filters.

mod support;

use std::{
    collections::BTreeMap,
    io::Write,
    net::UdpSocket,
    process::{Command, Stdio},
};

use hickory_proto::rr::RecordType;
use serde_json::Value;
use support::{Agent, DEADLINE, ask, ask_tcp, wait_for};

const PROMETHEUS: &str = r#"telemetry { prometheus_retention_time = "60s" disable_hostname = true }"#;
const WEB: &str = r#"service { name = "web" port = 80 address = "10.1.2.3" }"#;

/// The figures in Prometheus' text, by name and labels as they stand there.
fn prometheus(agent: &Agent) -> BTreeMap<String, f64> {
    let (status, text) = agent.request("GET", "/v1/agent/metrics?format=prometheus", "");
    assert_eq!(status, 200);
    let rows = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        (name.to_string(), value.parse().unwrap_or_else(|_| panic!("{line}")))
    });
    rows.collect()
}

/// Asked once the agent has done with itself: its own registration is written.
fn start(hcl: &str) -> Agent {
    let agent = Agent::start_with(&["-dev", "-hcl", hcl], &[("web.hcl", WEB)]);
    agent.wait_for_answers("web.service.consul.", RecordType::A, &["A 10.1.2.3"]);
    agent
}

#[test]
fn every_question_is_counted_once() {
    let agent = start(PROMETHEUS);
    let queries = |figures: &BTreeMap<String, f64>| -> BTreeMap<String, f64> {
        let of_queries = figures.iter().filter_map(|(name, value)| {
            let labels = name.strip_prefix("lictor_dns_queries_total{")?.strip_suffix('}')?;
            Some((
                labels.replace("form=", "").replace("type=", "").replace("rcode=", "").replace("road=", ""),
                *value,
            ))
        });
        of_queries.collect()
    };
    let prepared = r#"{"Name":"best","Service":{"Service":"web"}}"#;
    assert_eq!(agent.request("POST", "/v1/query", prepared).0, 200);
    let before = prometheus(&agent);
    let (dns, here) = (agent.dns(), agent.address);
    let reverse = here.octets().map(|octet| octet.to_string());
    let reverse = format!("{}.{}.{}.{}.in-addr.arpa.", reverse[3], reverse[2], reverse[1], reverse[0]);
    for (name, kind, times) in [
        ("web.service.consul.", RecordType::A, 5),
        ("_web._tcp.service.consul.", RecordType::SRV, 2),
        ("nosuch.service.consul.", RecordType::AAAA, 3),
        ("best.query.consul.", RecordType::A, 2),
        ("test-1.node.consul.", RecordType::TXT, 1),
        ("0a010203.addr.consul.", RecordType::A, 1),
        ("consul.", RecordType::SOA, 1),
        ("nothing.consul.", RecordType::A, 1),
        (reverse.as_str(), RecordType::PTR, 2),
        ("localhost.", RecordType::A, 1),
        ("example.com.", RecordType::MX, 4),
    ] {
        (0..times).for_each(|_| drop(ask(dns, name, kind)));
    }
    (0..2).for_each(|_| drop(ask_tcp(dns, "web.service.consul.", RecordType::SRV)));
    let bare = UdpSocket::bind((here, 0)).unwrap();
    bare.set_read_timeout(Some(DEADLINE)).unwrap();
    bare.send_to(&[0, 7, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0], dns).unwrap(); // a reply: nothing to say
    bare.send_to(&[0, 7, 0x28, 0, 0, 1, 0, 0, 0, 0, 0, 0], dns).unwrap(); // an update
    bare.recv_from(&mut [0; 512]).unwrap();

    let after = prometheus(&agent);
    let (former, mut counted) = (queries(&before), queries(&after));
    counted.iter_mut().for_each(|(labels, count)| *count -= former.get(labels).copied().unwrap_or(0.0));
    counted.retain(|_, count| *count > 0.0);
    let udp = if cfg!(target_os = "linux") { "udp_batch" } else { "udp_plain" };
    let expected = [
        (r#""service","A","NOERROR""#, udp, 5.0),
        (r#""service","SRV","NOERROR""#, udp, 2.0),
        (r#""service","SRV","NOERROR""#, "tcp", 2.0),
        (r#""service","AAAA","NXDOMAIN""#, udp, 3.0),
        (r#""query","A","NOERROR""#, udp, 2.0),
        (r#""node","TXT","NOERROR""#, udp, 1.0),
        (r#""addr","A","NOERROR""#, udp, 1.0),
        (r#""zone","SOA","NOERROR""#, udp, 1.0),
        (r#""other","A","NXDOMAIN""#, udp, 1.0),
        (r#""ptr","PTR","NOERROR""#, udp, 2.0),
        (r#""static","A","NOERROR""#, udp, 1.0),
        (r#""outside","MX","REFUSED""#, udp, 4.0),
        (r#""invalid","other","NOTIMP""#, udp, 1.0),
    ];
    let expected: BTreeMap<String, f64> =
        expected.into_iter().map(|(labels, road, count)| (format!("{labels},\"{road}\""), count)).collect();
    assert_eq!(counted, expected);
    let rose = |name: &str| after[name] - before[name];
    assert_eq!(rose("lictor_dns_silent_total"), 1.0);
    assert_eq!(rose(r#"consul_dns_domain_query_count{node="test-1"}"#), 18.0);
    assert!(rose(r#"consul_dns_domain_query_sum{node="test-1"}"#) > 0.0);
    assert_eq!(rose(r#"consul_dns_ptr_query_count{node="test-1"}"#), 2.0);
}

#[test]
fn writes_checks_and_rows_are_counted() {
    let data = support::fresh_folder();
    let folder = format!("-data-dir={}", data.display());
    let agent = Agent::start_with(
        &["-server", "-bootstrap-expect=1", &folder, "-hcl", PROMETHEUS],
        &[(
            "web.hcl",
            r#"service { name = "web" port = 80 check { id = "c" tcp = "127.0.0.1:1" interval = "1s" } }"#,
        )],
    );
    let ran = || prometheus(&agent).get(r#"lictor_check_runs_total{kind="tcp",status="critical"}"#).copied();
    wait_for("a look", || ran().filter(|runs| *runs >= 1.0), || agent.log());
    let is_synced = || prometheus(&agent)["lictor_agent_sync_writes_total"] >= 1.0;
    wait_for("its registration", || is_synced().then_some(()), || agent.log());
    let before = prometheus(&agent);
    let body = r#"{"Node":"ash","Address":"10.0.0.9","Service":{"Service":"db"},"Check":{"Status":"warning","Name":"x"}}"#;
    assert_eq!(agent.request("PUT", "/v1/catalog/register", body).0, 200);
    let after = prometheus(&agent);
    let put = r#"consul_api_http_count{method="PUT",path="v1_catalog_register"}"#;
    assert!(!before.contains_key(put) && after[put] == 1.0);
    assert!(after[r#"lictor_http_answers_total{method="PUT",status="2xx"}"#] >= 1.0);
    let rose = |name: &str| after[name] - before[name];
    assert_eq!((rose("consul_raft_apply"), rose("consul_raft_commitTime_count")), (1.0, 1.0));
    assert_eq!(rose("lictor_raft_entry_commands_sum"), 1.0);
    assert!(rose("lictor_raft_sync_count") >= 1.0 && rose("lictor_raft_log_bytes") > 0.0);
    assert_eq!(rose("consul_catalog_register_count"), 1.0);
    assert_eq!(rose(r#"consul_state_nodes{datacenter="dc1"}"#), 1.0);
    assert_eq!(rose(r#"consul_state_services{datacenter="dc1"}"#), 1.0);
    assert_eq!(rose(r#"consul_state_service_instances{datacenter="dc1"}"#), 1.0);
    assert_eq!(rose(r#"lictor_catalog_checks{status="warning"}"#), 1.0);
    assert!(after[r#"lictor_check_run_count{kind="tcp"}"#] >= 1.0);
    assert_eq!(after["consul_server_isLeader"], 1.0);
    assert_eq!(after[r#"lictor_raft_refused_total{reason="disk_full"}"#], 0.0);
    assert!(after["lictor_agent_sync_writes_total"] >= 1.0 && after["process_open_fds"] > 3.0);
    drop(agent);
    std::fs::remove_dir_all(data).unwrap();
}

/// Of the figures under a key those of one name.
fn named<'a>(metrics: &'a Value, key: &str, name: &str) -> Vec<&'a Value> {
    let figures = metrics[key].as_array().unwrap_or_else(|| panic!("{key} in {metrics}"));
    figures.iter().filter(|figure| figure["Name"] == name).collect()
}

/// Questions of the form `addr` that an interval tells of.
fn counted_in(interval: &Value) -> u64 {
    let queries = named(interval, "Counters", "lictor.dns.queries");
    let ours = queries.iter().filter(|figure| figure["Labels"]["form"] == "addr");
    ours.map(|figure| figure["Count"].as_u64().unwrap()).sum()
}

#[test]
fn json_tells_of_intervals() {
    let agent = start("");
    (0..7).for_each(|_| drop(ask(agent.dns(), "0a010203.addr.consul.", RecordType::A)));
    let mut intervals: BTreeMap<String, Value> = BTreeMap::new();
    // The questions may lie in two intervals, of which each is shown when it is over.
    let mut look = || {
        let shown = agent.get("/v1/agent/metrics?format=other");
        intervals.insert(shown["Timestamp"].as_str().unwrap().to_string(), shown);
        (intervals.values().map(counted_in).sum::<u64>() == 7).then_some(())
    };
    wait_for("all questions", &mut look, || agent.log());
    let shown = intervals.values().find(|interval| counted_in(interval) > 0).unwrap();
    let stamp = shown["Timestamp"].as_str().unwrap();
    assert!(
        stamp.len() == "2026-11-23 00:56:10 +0000 UTC".len() && stamp.ends_with("0 +0000 UTC"),
        "{stamp}"
    );
    assert_eq!(shown["Points"], serde_json::json!([]));
    let counter = named(shown, "Counters", "lictor.dns.queries")[0];
    assert_eq!(
        (&counter["Min"], &counter["Max"], &counter["Mean"], &counter["Stddev"]),
        (&1.into(), &1.into(), &1.into(), &0.into())
    );
    assert_eq!(counter["Rate"].as_f64().unwrap(), counter["Sum"].as_f64().unwrap() / 10.0);
    let sample = named(shown, "Samples", "consul.dns.domain_query")[0];
    assert_eq!(sample["Labels"]["node"], "test-1");
    let number = |key: &str| sample[key].as_f64().unwrap();
    assert!(
        0.0 < number("Min") && number("Min") <= number("Mean") && number("Mean") <= number("Max"),
        "{sample}"
    );
    let leads = named(shown, "Gauges", "consul.test-1.server.isLeader");
    assert_eq!((leads.len(), &leads[0]["Value"]), (1, &Value::from(1)), "gauges carry the node");
    let peers = agent.request("GET", "/v1/agent/metrics?format=prometheus", "");
    assert_eq!(peers, (200, String::new()), "off unless it is wanted");
}

#[test]
fn prometheus_is_asked_for_in_two_ways() {
    let agent = start(PROMETHEUS);
    let ask = |accept: &str| {
        use std::io::Read;
        let mut stream = std::net::TcpStream::connect(agent.http()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(
            stream,
            "GET /v1/agent/metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAccept: {accept}\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.to_lowercase()
    };
    for accept in ["application/openmetrics-text;version=1.0.0", "text/plain;version=0.0.4;q=0.5,*/*"] {
        let answer = ask(accept);
        assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{answer}");
        assert!(answer.contains("# type consul_server_isleader gauge"), "{answer}");
    }
    assert!(ask("text/plain").contains("content-type: application/json\r\n"));
}

/// Of Consul's own names `promtool` dislikes some, and they are what its dashboards ask for; of ours it may dislike none.
#[test]
fn promtool_takes_the_text() {
    let agent = start(PROMETHEUS);
    drop(ask(agent.dns(), "example.com.", RecordType::A));
    let (_, text) = agent.request("GET", "/v1/agent/metrics?format=prometheus", "");
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        eprintln!("skipped: promtool (Debian: prometheus) is not installed");
        return;
    };
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = support::ended(child, support::DEADLINE);
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    // 3: it could read everything, and has remarks.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
    let others: Vec<&str> = said.lines().filter(|line| !line.starts_with("consul_")).collect();
    assert!(others.is_empty(), "{said}");
}

#[test]
fn statsd_is_sent_what_the_filter_lets_through() {
    let place = support::fresh_address();
    let receiver = UdpSocket::bind((place, 8125)).unwrap();
    receiver.set_read_timeout(Some(DEADLINE)).unwrap();
    let hcl = format!(
        r#"telemetry {{
            statsd_address = "{place}:8125" metrics_prefix = "prod" disable_hostname = true
            prefix_filter = ["-prod.runtime", "+prod.server", "-prod.lictor.raft.refused"]
        }}"#
    );
    let agent = start(&hcl);
    (0..3).for_each(|_| drop(ask(agent.dns(), "0a010203.addr.consul.", RecordType::A)));
    let mut lines: Vec<String> = Vec::new();
    let (mut counted, mut packet) = (0, [0; 2048]);
    while counted < 3 || !lines.iter().any(|line| line.starts_with("prod.dns.domain_query.test-1:")) {
        assert!(lines.len() < 400, "{lines:?}");
        let length = receiver.recv(&mut packet).expect("intervals come");
        assert!(length <= 1432);
        let text = std::str::from_utf8(&packet[..length]).unwrap();
        for line in text.lines() {
            if let Some(count) = line.strip_prefix("prod.lictor.dns.queries.addr.A.NOERROR.udp_batch:") {
                counted += count.strip_suffix("|c").unwrap().parse::<u32>().unwrap();
            }
            lines.push(line.to_string());
        }
    }
    assert_eq!(counted, 3);
    let has = |beginning: &str| lines.iter().any(|line| line.starts_with(beginning));
    assert!(has("prod.server.isLeader:1|g") && has("prod.process.open_fds:"), "{lines:?}");
    assert!(!has("prod.runtime.") && !has("prod.lictor.raft.refused") && !has("consul."), "{lines:?}");
    let time = lines.iter().find(|line| line.starts_with("prod.dns.domain_query.test-1:")).unwrap();
    assert!(time.contains("|ms"), "{time}");
}

#[test]
fn a_statsd_that_is_not_there_is_told_of_once() {
    let agent = start(r#"telemetry { statsd_address = "nobody.invalid:8125" }"#);
    agent.wait_for_log("statsd is not reached: its figures are lost until it is");
    assert_eq!(agent.answers("web.service.consul.", RecordType::A), ["A 10.1.2.3"]);
}

#[test]
fn a_reload_changes_the_filter_and_nothing_else() {
    let telemetry = |more: &str| format!(r#"telemetry {{ prometheus_retention_time = "1s" {more} }}"#);
    let agent = Agent::start_with(&["-dev"], &[("a.hcl", &telemetry(""))]);
    let has = |name: &str| prometheus(&agent).contains_key(name);
    assert!(has("consul_raft_apply") && has("consul_test_1_server_isLeader"), "gauges carry the node");
    let changed = telemetry(r#"prefix_filter = ["-consul.raft"] disable_hostname = true"#);
    std::fs::write(agent.folder.join("a.hcl"), changed).unwrap();
    assert_eq!(agent.request("PUT", "/v1/agent/reload", "").0, 200);
    assert!(!has("consul_raft_apply") && has("consul_test_1_server_isLeader"));
    agent.wait_for_log("takes effect at the next start only: key=telemetry");
}
