//! Recursors as they are written (`dns.md` §19): addresses with or without a port, and host names, several to a text.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use super::{
    addresses::placed_texts,
    reader::{Fields, Findings},
    tree::Place,
};
use crate::dns;

/// One that was named, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub place: Place,
    pub host: Host,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    Addr(SocketAddr),
    /// To be looked up when the configuration is otherwise right.
    Name(String, u16),
}

const PORT: u16 = 53;
const EXPECTED: &str =
    "expected an IP address, one with a port as 192.0.2.1:53 or [2001:db8::1]:53, or a host name";

/// What stands under `recursors`.
pub fn read(top: &mut Fields, findings: &mut Findings) -> Vec<Named> {
    placed_texts(top, "recursors", findings)
        .into_iter()
        .flat_map(|(text, place)| {
            if text.contains("{{") {
                let text = format!(
                    "recursors: address templates are not evaluated here; found {text:?}; {EXPECTED}"
                );
                findings.fault::<()>(place, text);
                return vec![];
            }
            let words = text.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty());
            words
                .filter_map(|word| match host(word) {
                    Ok(host) => Some(Named { place: place.clone(), host }),
                    Err(text) => findings.fault(place.clone(), format!("recursors: {text}; {EXPECTED}")),
                })
                .collect()
        })
        .collect()
}

/// The addresses that all of them come to, each once.
pub fn resolve(named: Vec<Named>, listeners: &[SocketAddr], findings: &mut Findings) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for Named { place, host } in named {
        let addrs = match &host {
            Host::Addr(addr) => vec![*addr],
            Host::Name(name, port) => match (name.as_str(), *port).to_socket_addrs() {
                Ok(addrs) => addrs.collect(),
                Err(error) => {
                    let text = format!("recursors: {name:?} cannot be resolved: {error}; {EXPECTED}");
                    findings.fault::<()>(place.clone(), text);
                    continue;
                }
            },
        };
        for addr in addrs {
            if let Some(own) = listeners.iter().find(|own| is_own(own, &addr)) {
                let text = format!(
                    "recursors: at {addr} this agent is asked itself (it listens on {own}): questions would go in a circle; expected another server"
                );
                findings.fault::<()>(place.clone(), text);
            } else if !found.contains(&addr) {
                found.push(addr);
            }
        }
    }
    found
}

fn host(word: &str) -> Result<Host, String> {
    if word.starts_with("unix:") {
        return Err(format!("no recursor is asked by a unix socket; found {word:?}"));
    }
    let bare = word.strip_prefix('[').and_then(|word| word.strip_suffix(']')).unwrap_or(word);
    let addr = match (word.parse::<SocketAddr>(), bare.parse::<IpAddr>()) {
        (Ok(addr), _) => addr,
        (_, Ok(ip)) => (ip, PORT).into(),
        _ => return name(word),
    };
    if addr.ip().is_unspecified() || addr.port() == 0 {
        return Err(format!("nobody can be asked at {word:?}"));
    }
    Ok(Host::Addr(addr))
}

fn name(word: &str) -> Result<Host, String> {
    let (name, port) = match word.split_once(':') {
        Some((name, port)) => (name, port.parse().ok().filter(|port| *port > 0)),
        None => (word, Some(PORT)),
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    match port {
        Some(port) if !name.is_empty() && name.bytes().all(is_name) => Ok(Host::Name(name.into(), port)),
        _ => Err(format!("found {word:?}")),
    }
}

/// Whether a listener of this agent takes what is sent there.
fn is_own(listener: &SocketAddr, addr: &SocketAddr) -> bool {
    listener == addr || dns::covers(listener, addr) && is_local(addr.ip())
}

fn is_local(ip: IpAddr) -> bool {
    if ip.is_loopback() {
        return true;
    }
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    interfaces.filter_map(|interface| interface.address).any(|address| {
        let v4 = address.as_sockaddr_in().map(|addr| IpAddr::V4(addr.ip()));
        v4.or_else(|| Some(address.as_sockaddr_in6()?.ip().into())) == Some(ip)
    })
}
