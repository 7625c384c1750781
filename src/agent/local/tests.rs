//! What an agent registers, by itself: definitions in, records out.

use super::*;
use crate::check::{CheckSpec, ServiceSpec, Span};

#[expect(clippy::disallowed_methods, reason = "any moment will do")]
fn start() -> Instant {
    Instant::now()
}

fn secs(secs: i64) -> Option<Span> {
    Some(Span { nanos: secs * 1_000_000_000, text: format!("{secs}s") })
}

fn ttl(id: &str) -> CheckSpec {
    CheckSpec { id: Some(id.into()), ttl: secs(30), ..CheckSpec::default() }
}

fn service(name: &str, checks: Vec<CheckSpec>) -> ServiceDefinition {
    ServiceSpec { name: Some(name.into()), checks, ..ServiceSpec::default() }.build().unwrap()
}

fn at(name: &str, address: &str) -> ServiceDefinition {
    let address = Some(address.into());
    ServiceSpec { name: Some(name.into()), port: Some(80), address, ..ServiceSpec::default() }
        .build()
        .unwrap()
}

fn ids(local: &Local) -> String {
    let services = local.services().map(|(id, _)| &**id);
    services.chain(local.checks().map(|(id, _)| &**id)).collect::<Vec<_>>().join(" ")
}

fn rerun(local: &mut Local) -> Vec<String> {
    local.take_rerun().iter().map(|id| id.to_string()).collect()
}

#[test]
fn unknown_ids_are_named_in_consuls_words() {
    let mut local = Local::default();
    local.register_service(service("web", vec![]), Source::Api, false);
    let script = CheckSpec { args: Some(vec!["true".into()]), ttl: None, interval: secs(1), ..ttl("s") };
    local.register_check(script.build().unwrap(), Source::Api).unwrap();
    let of_x = CheckSpec { service_id: Some("x".into()), ..ttl("c") };
    let said = [
        local.deregister_service("x").unwrap_err(),
        local.deregister_check("x").unwrap_err(),
        local.update_check("x", Status::Passing, "", start(), Duration::ZERO).unwrap_err(),
        local.register_check(of_x.build().unwrap(), Source::Api).unwrap_err(),
        local.ttl_check("s").unwrap_err(),
    ];
    assert_eq!(
        said.map(|unknown| unknown.to_string()),
        [
            r#"Unknown service ID "x". Ensure that the service ID is passed, not the service name."#,
            r#"Unknown check ID "x". Ensure that the check ID is passed, not the check name."#,
            r#"Unknown check ID "x". Ensure that the check ID is passed, not the check name."#,
            r#"ServiceID "x" does not exist"#,
            r#"CheckID "s" does not have associated TTL"#,
        ]
    );
}

#[test]
fn a_check_registered_again_keeps_what_it_said() {
    let mut local = Local::default();
    local.register_service(service("web", vec![ttl("c")]), Source::Api, false);
    local.update_check("c", Status::Warning, "slow", start(), Duration::ZERO).unwrap();
    let other = CheckSpec { status: Some("passing".into()), notes: Some("new".into()), ..ttl("c") };
    local.register_service(service("web", vec![other]), Source::Api, false);
    let check = local.check("c").unwrap();
    assert_eq!((&check.status, &*check.output, &*check.notes), (&Status::Warning, "slow", "new"));
}

/// Whoever runs checks hears of those that changed only; over the API a check's time begins anew in any case.
#[test]
fn what_runs_changes_with_its_definition() {
    let mut local = Local::default();
    local.reload(vec![service("web", vec![ttl("a"), ttl("b")])], vec![ttl("n").build().unwrap()]);
    assert_eq!(rerun(&mut local), ["a", "b", "n"]);
    let longer = CheckSpec { ttl: secs(60), ..ttl("b") };
    local.reload(vec![service("web", vec![ttl("a"), longer])], vec![]);
    assert_eq!(rerun(&mut local), ["b", "n"]);
    assert!(local.definition("b").is_some() && local.definition("n").is_none());
    local.register_service(service("web", vec![ttl("a")]), Source::Api, true);
    assert_eq!(rerun(&mut local), ["a", "b"]);
    local.deregister_service("web").unwrap();
    assert_eq!(rerun(&mut local), ["a"]);
}

/// `config-cli.md` §2.7: what files define is replaced, what was registered stays, the files win.
#[test]
fn a_reload_replaces_what_files_defined() {
    let mut local = Local::default();
    let file =
        |names: &[&str]| names.iter().map(|name| service(name, vec![ttl(&format!("c-{name}"))])).collect();
    local.reload(file(&["a", "b"]), vec![ttl("node").build().unwrap()]);
    local.register_service(service("api", vec![ttl("c-api")]), Source::Api, false);
    let beside = CheckSpec { service_id: Some("a".into()), ..ttl("beside") };
    local.register_check(beside.build().unwrap(), Source::Api).unwrap();
    local.register_service(at("b", "10.0.0.9"), Source::Api, false);
    assert_eq!(ids(&local), "a api b beside c-a c-api c-b node");
    local.update_check("c-a", Status::Passing, "up", start(), Duration::ZERO).unwrap();

    local.reload(file(&["a", "b"]), vec![]);
    assert_eq!(ids(&local), "a api b beside c-a c-api c-b");
    assert_eq!(&*local.service("b").unwrap().address, "", "the file's again");
    assert_eq!(local.check("c-a").unwrap().status, Status::Passing);

    local.reload(file(&["b"]), vec![]);
    assert_eq!(ids(&local), "api b c-api c-b", "with a service goes what others hung on it");
}

#[test]
fn an_ip_address_is_tagged_for_both_networks() {
    let table = [
        ("10.0.0.1", "lan_ipv4=10.0.0.1:80 wan_ipv4=10.0.0.1:80"),
        ("2001:db8::1", "lan_ipv6=2001:db8::1:80 wan_ipv6=2001:db8::1:80"),
        ("db.example", ""),
        ("", ""),
    ];
    for (address, expected) in table {
        let mut local = Local::default();
        local.register_service(at("web", address), Source::File, false);
        let tagged = local.service("web").unwrap().tagged_addresses.clone().unwrap_or_default();
        let shown = tagged.iter().map(|(key, at)| format!("{key}={}:{}", at.address, at.port));
        assert_eq!(shown.collect::<Vec<_>>().join(" "), expected);
    }
    let mut given = at("web", "10.0.0.1");
    let outside = ServiceAddress { address: "198.51.100.7".into(), port: 443 };
    given.service.tagged_addresses = Some([("wan_ipv4", outside.clone())].into_iter().collect());
    let mut local = Local::default();
    local.register_service(given, Source::File, false);
    let tagged = local.service("web").unwrap().tagged_addresses.clone().unwrap_or_default();
    assert_eq!((tagged.len(), tagged.get("wan_ipv4")), (2, Some(&outside)), "what was given stays");
}

/// `config-cli.md` §4.2: the clock starts at the first result, and stops when the check is well.
#[test]
fn a_service_critical_for_too_long_goes() {
    let mut local = Local::default();
    let check = CheckSpec { deregister_critical_service_after: secs(90), ..ttl("c") };
    local.register_service(service("web", vec![check]), Source::Api, false);
    local
        .register_check(
            CheckSpec { deregister_critical_service_after: secs(90), ..ttl("node") }.build().unwrap(),
            Source::Api,
        )
        .unwrap();
    let (start, second) = (start(), Duration::from_secs(1));
    let say = |local: &mut Local, status: Status, at: u32| {
        local.update_check("c", status.clone(), "", start + second * at, Duration::ZERO).unwrap();
        local.update_check("node", status, "", start + second * at, Duration::ZERO).unwrap();
    };
    assert!(local.overdue(start + second * 1000).is_empty(), "it has said nothing yet");
    say(&mut local, Status::Critical, 1000);
    say(&mut local, Status::Critical, 1080);
    assert!(local.overdue(start + second * 1089).is_empty());
    say(&mut local, Status::Warning, 1089);
    say(&mut local, Status::Critical, 1100);
    assert!(local.overdue(start + second * 1189).is_empty());
    let overdue = local.overdue(start + second * 1190);
    assert_eq!(overdue, ["web".into()].into(), "a check of the node removes no service");
}
