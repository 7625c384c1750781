//! Which resolver this machine asks, from what can be seen of it. The judgement is pure.

use super::{change::Files, render::Resolver};
use crate::agent::port;

/// A resolver, and what speaks for it.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    pub resolver: Resolver,
    pub why: String,
}

/// What can be seen.
#[derive(Debug, Default)]
struct Evidence {
    /// What `/etc/resolv.conf` says.
    resolv_conf: Option<String>,
    /// Names of the processes that answer on port 53 here.
    on_port_53: Vec<String>,
    /// Those whose configuration is here.
    configured: Vec<(Resolver, &'static str)>,
}

const CONFIGURATIONS: [(Resolver, &str); 4] = [
    (Resolver::Dnsmasq, "/etc/dnsmasq.conf"),
    (Resolver::Unbound, "/etc/unbound/unbound.conf"),
    (Resolver::Bind, "/etc/bind/named.conf"),
    (Resolver::Bind, "/etc/named.conf"),
];

/// `is_here` is whether the files are those of this running machine.
///
/// # Errors
/// What was found, where that is not one resolver.
pub fn detect(files: &dyn Files, is_here: bool) -> Result<Found, String> {
    let mut evidence = Evidence { resolv_conf: files.read("/etc/resolv.conf")?, ..Evidence::default() };
    for (resolver, path) in CONFIGURATIONS {
        if files.read(path)?.is_some() {
            evidence.configured.push((resolver, path));
        }
    }
    if is_here {
        let holders = port::holders("UDP", ([127, 0, 0, 1], 53).into());
        evidence.on_port_53 = holders.into_iter().filter_map(|holder| Some(holder.process?.1)).collect();
    }
    judge(&evidence)
}

fn judge(evidence: &Evidence) -> Result<Found, String> {
    let found = |resolver, why: String| Ok(Found { resolver, why });
    let asked: Vec<&str> = evidence.resolv_conf.iter().flat_map(|text| name_servers(text)).collect();
    if asked.iter().any(|server| ["127.0.0.53", "127.0.0.54"].contains(server)) {
        return found(Resolver::SystemdResolved, format!("/etc/resolv.conf asks {}", asked.join(", ")));
    }
    for process in &evidence.on_port_53 {
        let resolver = match process.as_str() {
            "dnsmasq" => Resolver::Dnsmasq,
            "unbound" => Resolver::Unbound,
            "named" => Resolver::Bind,
            _ => continue,
        };
        return found(resolver, format!("{process} answers on port 53"));
    }
    match evidence.configured.as_slice() {
        [] => found(
            Resolver::ResolvConf,
            format!("there is no resolver here; /etc/resolv.conf asks {}", asked.join(", ")),
        ),
        [(resolver, path)] => found(*resolver, format!("there is {path}")),
        several => {
            let paths: Vec<&str> = several.iter().map(|(_, path)| *path).collect();
            Err(format!(
                "more than one resolver is configured and none answers on port 53: found {}; expected one, or -resolver to name it",
                paths.join(", ")
            ))
        }
    }
}

fn name_servers(resolv_conf: &str) -> impl Iterator<Item = &str> {
    resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        if words.next() == Some("nameserver") { words.next() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_is_known_by_what_it_does_before_what_it_has() {
        let unbound = (Resolver::Unbound, "/etc/unbound/unbound.conf");
        let bind = (Resolver::Bind, "/etc/bind/named.conf");
        for (resolv_conf, on_port_53, configured, expected) in [
            ("nameserver 127.0.0.53", vec!["unbound"], vec![unbound], Some(Resolver::SystemdResolved)),
            ("nameserver 127.0.0.1", vec!["lictor", "named"], vec![unbound, bind], Some(Resolver::Bind)),
            ("nameserver 10.0.0.1", vec![], vec![unbound], Some(Resolver::Unbound)),
            ("nameserver 10.0.0.1", vec!["lictor"], vec![], Some(Resolver::ResolvConf)),
            ("#nameserver 127.0.0.53", vec![], vec![], Some(Resolver::ResolvConf)),
            ("nameserver 10.0.0.1", vec![], vec![unbound, bind], None),
        ] {
            let on_port_53 = on_port_53.into_iter().map(String::from).collect();
            let evidence = Evidence { resolv_conf: Some(resolv_conf.into()), on_port_53, configured };
            let judged = judge(&evidence);
            assert_eq!(judged.as_ref().ok().map(|found| found.resolver), expected, "{judged:?}");
            if let Err(text) = judged {
                assert!(text.contains("/etc/bind/named.conf") && text.contains("-resolver"), "{text}");
            }
        }
    }
}
