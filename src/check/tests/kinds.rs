//! Which kind a definition is of, and what that kind is told beside its target.

use std::time::Duration;

use super::{CheckSpec, text};
use crate::check::{Kind, Span};

fn span(secs: i64) -> Option<Span> {
    Some(Span { nanos: secs * 1_000_000_000, text: format!("{secs}s") })
}

fn named() -> CheckSpec {
    CheckSpec { id: text("c"), ..CheckSpec::default() }
}

/// Each kind with every one that comes after it: the first counts.
#[test]
fn of_several_kinds_the_first_counts() {
    type Give = fn(&mut CheckSpec);
    let script: Give = |spec| spec.args = Some(vec!["true".into()]);
    let docker: Give = |spec| (spec.docker_container_id, spec.args) = (text("c"), Some(vec!["true".into()]));
    let table: [(&str, Give); 8] = [
        ("grpc", |spec| spec.grpc = text("a:1")),
        ("http", |spec| spec.http = text("http://a")),
        ("tcp", |spec| spec.tcp = text("a:1")),
        ("udp", |spec| spec.udp = text("a:1")),
        ("docker", docker),
        ("script", script),
        ("h2ping", |spec| spec.h2ping = text("a:1")),
        ("os_service", |spec| spec.os_service = text("a")),
    ];
    for (at, (word, _)) in table.iter().enumerate() {
        let mut spec = CheckSpec { interval: span(1), ..named() };
        table[at..].iter().for_each(|(_, give)| give(&mut spec));
        if *word == "script" {
            spec.docker_container_id = None;
        }
        assert_eq!(spec.build().unwrap().kind.word(), *word);
    }
    let ttl = CheckSpec { ttl: span(1), docker_container_id: text("c"), ..named() };
    assert_eq!(ttl.build().unwrap().kind, Kind::Ttl(Duration::from_secs(1)));
    let no_program =
        CheckSpec { docker_container_id: text("c"), h2ping: text("a:1"), interval: span(1), ..named() };
    assert_eq!(no_program.build().unwrap().kind.word(), "h2ping", "docker is told what to run");
    let alias =
        CheckSpec { alias_node: text("n"), docker_container_id: text("c"), interval: span(1), ..named() };
    assert_eq!(alias.build().unwrap().kind.word(), "alias");
}

#[test]
fn what_a_kind_is_told_beside_its_target() {
    let every = |spec: CheckSpec| CheckSpec { interval: span(1), ..spec };
    let kind = |spec: CheckSpec| format!("{:?}", spec.build().unwrap().kind);
    let shell = |args: &[&str]| CheckSpec {
        docker_container_id: text("c"),
        shell: text("/bin/bash"),
        args: Some(args.iter().map(|arg| arg.to_string()).collect()),
        ..named()
    };
    let h2ping = || CheckSpec { h2ping: text("a:1"), tls_skip_verify: Some(true), ..named() };
    let of = |service: &str, node: &str| CheckSpec {
        service_id: text(service),
        alias_service: text("db"),
        alias_node: text(node),
        ..named()
    };
    let tls = "tls: Some(Tls { server_name: \"s\", skip_verify: false }) }";
    let alias = |node: &str, with: bool| {
        format!("Alias(Alias {{ node: {node:?}, service: \"db\", with_node: {with} }})")
    };
    let table = [
        (
            every(CheckSpec {
                grpc: text("a:1/s"),
                grpc_use_tls: Some(true),
                tls_server_name: text("s"),
                ..named()
            }),
            format!("Grpc {{ target: \"a:1/s\", {tls}"),
        ),
        (every(CheckSpec { grpc: text("a:1"), ..named() }), "Grpc { target: \"a:1\", tls: None }".into()),
        (
            every(h2ping()),
            "H2Ping { address: \"a:1\", tls: Some(Tls { server_name: \"\", skip_verify: true }) }".into(),
        ),
        (
            every(CheckSpec { h2ping_use_tls: Some(false), ..h2ping() }),
            "H2Ping { address: \"a:1\", tls: None }".into(),
        ),
        (
            every(shell(&["up && ok"])),
            "Docker { container: \"c\", args: [\"/bin/bash\", \"-c\", \"up && ok\"] }".into(),
        ),
        (every(shell(&["up", "now"])), "Docker { container: \"c\", args: [\"up\", \"now\"] }".into()),
        (of("", ""), alias("", true)),
        (of("web", ""), alias("", false)),
        (of("web", "n"), alias("n", true)),
    ];
    for (spec, expected) in table {
        assert_eq!(kind(spec), expected);
    }
}
