//! What each resolver must be told to ask lictor for names of its zone. Pure: knows where the lines belong, and no file.

use std::net::{IpAddr, SocketAddr};

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// Without the final dot.
    pub domain: String,
    /// Where lictor answers.
    pub server: SocketAddr,
    /// Reverse zones that lictor is asked for, too; without the final dot.
    pub reverse: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolver {
    SystemdResolved,
    Dnsmasq,
    Unbound,
    Bind,
    ResolvConf,
}

/// Some lines, and where they belong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub place: Place,
    pub text: String,
}

/// Paths are those of Debian; the first that exists is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file of our own. The text says how a comment begins.
    Own(&'static str, &'static str),
    /// The end of someone else's file.
    End(&'static [&'static str]),
    /// Within `options { … }` of someone else's file.
    Options(&'static [&'static str]),
    /// Before the name servers of this file; at most as many stay as the system reads.
    NameServers(&'static str),
}

pub const RESOLVERS: [Resolver; 5] =
    [Resolver::SystemdResolved, Resolver::Dnsmasq, Resolver::Unbound, Resolver::Bind, Resolver::ResolvConf];

impl Resolver {
    pub fn name(self) -> &'static str {
        match self {
            Resolver::SystemdResolved => "systemd-resolved",
            Resolver::Dnsmasq => "dnsmasq",
            Resolver::Unbound => "unbound",
            Resolver::Bind => "bind",
            Resolver::ResolvConf => "resolv.conf",
        }
    }

    pub fn of(name: &str) -> Option<Resolver> {
        RESOLVERS.into_iter().find(|resolver| resolver.name() == name)
    }
}

/// The lines that have this resolver ask lictor.
///
/// # Errors
/// What of it this resolver cannot do.
pub fn render(resolver: Resolver, want: &Want) -> Result<Vec<Piece>, String> {
    match resolver {
        Resolver::SystemdResolved => Ok(systemd_resolved(want)),
        Resolver::Dnsmasq => Ok(dnsmasq(want)),
        Resolver::Unbound => Ok(unbound(want)),
        Resolver::Bind => Ok(bind(want)),
        Resolver::ResolvConf => resolv_conf(want),
    }
}

impl Want {
    fn zones(&self) -> impl Iterator<Item = &str> {
        [self.domain.as_str()].into_iter().chain(self.reverse.iter().map(String::as_str))
    }

    /// With what stands between address and port.
    fn server_with(&self, between: &str) -> String {
        format!("{}{between}{}", self.server.ip(), self.server.port())
    }
}

fn lines(lines: impl IntoIterator<Item = String>) -> String {
    lines.into_iter().map(|line| line + "\n").collect()
}

fn systemd_resolved(want: &Want) -> Vec<Piece> {
    let domains: Vec<String> = want.zones().map(|zone| format!("~{zone}")).collect();
    let route = lines([
        "# Only names below these are routed here; the servers of your links go on answering the rest."
            .into(),
        "[Resolve]".into(),
        format!("DNS={}", want.server),
        format!("Domains={}", domains.join(" ")),
    ]);
    let unsigned = lines(
        ["; lictor signs nothing: without this, DNSSEC=yes would hold its names to be forged.".to_string()]
            .into_iter()
            .chain(want.zones().map(String::from)),
    );
    vec![
        Piece { place: Place::Own("/etc/systemd/resolved.conf.d/lictor.conf", "#"), text: route },
        Piece { place: Place::Own("/etc/dnssec-trust-anchors.d/lictor.negative", ";"), text: unsigned },
    ]
}

/// dnsmasq seeks no signatures in a zone that has a server of its own.
fn dnsmasq(want: &Want) -> Vec<Piece> {
    let server = want.server_with("#");
    let mut text: Vec<String> = want.zones().map(|zone| format!("server=/{zone}/{server}")).collect();
    text.push("# Services may have private addresses, under stop-dns-rebind too.".into());
    text.push(format!("rebind-domain-ok=/{}/", want.domain));
    vec![Piece { place: Place::Own("/etc/dnsmasq.d/lictor.conf", "#"), text: lines(text) }]
}

fn unbound(want: &Want) -> Vec<Piece> {
    let mut text = vec![
        "server:".to_string(),
        "    # lictor may be on this machine.".into(),
        "    do-not-query-localhost: no".into(),
        "    # Services may have private addresses, where private-address is set too.".into(),
        format!("    private-domain: \"{}\"", want.domain),
        "    # lictor signs nothing: without this the validator would hold its names to be forged.".into(),
    ];
    text.extend(want.zones().map(|zone| format!("    domain-insecure: \"{zone}\"")));
    // Unbound has empty zones of its own for these.
    text.extend(want.reverse.iter().map(|zone| format!("    local-zone: \"{zone}.\" nodefault")));
    for zone in want.zones() {
        text.push("stub-zone:".into());
        text.push(format!("    name: \"{zone}\""));
        text.push(format!("    stub-addr: {}", want.server_with("@")));
    }
    vec![Piece { place: Place::Own("/etc/unbound/unbound.conf.d/lictor.conf", "#"), text: lines(text) }]
}

fn bind(want: &Want) -> Vec<Piece> {
    let quoted: Vec<String> = want.zones().map(|zone| format!("\"{zone}\";")).collect();
    let options = lines([
        "\t// lictor signs nothing: without this the validator would hold its names to be forged.".into(),
        format!("\tvalidate-except {{ {} }};", quoted.join(" ")),
    ]);
    let server = want.server_with(" port ");
    let zone = |zone: &str| {
        format!("zone \"{zone}\" {{\n\ttype forward;\n\tforward only;\n\tforwarders {{ {server}; }};\n}};")
    };
    let zones = ["// BIND takes no more than max-records-per-type (100) instances of a service.".to_string()]
        .into_iter()
        .chain(want.zones().map(zone));
    vec![
        Piece {
            place: Place::Options(&[
                "/etc/bind/named.conf.options",
                "/etc/bind/named.conf",
                "/etc/named.conf",
            ]),
            text: options,
        },
        Piece {
            place: Place::End(&["/etc/bind/named.conf.local", "/etc/bind/named.conf", "/etc/named.conf"]),
            text: lines(zones),
        },
    ]
}

/// The name servers that stay behind ours answer the rest: ours refuses it, and then the next is asked.
fn resolv_conf(want: &Want) -> Result<Vec<Piece>, String> {
    if want.server.port() != 53 {
        return Err(format!(
            "/etc/resolv.conf names servers without a port: found {}, expected port 53 (lictor {{ dns {{ listen = [\"{}:53\"] }} }}, then -server={0}:53)",
            want.server,
            shown(want.server.ip())
        ));
    }
    let text = format!("nameserver {}\n", want.server.ip());
    Ok(vec![Piece { place: Place::NameServers("/etc/resolv.conf"), text }])
}

fn shown(ip: IpAddr) -> String {
    if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() }
}
