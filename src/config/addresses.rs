//! Addresses as they are written: one, or several with spaces between them. What an agent tells others must be one
//! address that they can reach.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use super::{
    reader::{Fields, Findings},
    tree::{Kind, Place},
};
use crate::catalog::Network;

/// A list of addresses. Templates are not understood here, and sockets of the file system only where [`read_mixed`] is asked.
pub fn read_list(path: &str, text: &str, place: &Place, findings: &mut Findings) -> Option<Vec<IpAddr>> {
    if text.contains("{{") {
        let fault = format!(
            "{path}: address templates are not evaluated here; expected the address itself, found {text:?}"
        );
        return findings.fault(place.clone(), fault);
    }
    let each = text.split_whitespace().map(|word| match word.parse() {
        Ok(address) => Some(address),
        Err(_) if word.starts_with("unix:") => findings.fault(
            place.clone(),
            format!("{path}: unix sockets are served for addresses.http only; expected an IP address, found {word:?}"),
        ),
        Err(_) => findings
            .fault(place.clone(), format!("{path}: invalid ip address: {word}; expected an IP address")),
    });
    each.collect::<Vec<_>>().into_iter().collect()
}

/// As `read_list`, with sockets of the file system among them, as `unix:///run/lictor.sock`.
pub fn read_mixed(
    path: &str,
    text: &str,
    place: &Place,
    findings: &mut Findings,
) -> Option<(Vec<IpAddr>, Vec<PathBuf>)> {
    let (sockets, addresses): (Vec<&str>, Vec<&str>) =
        text.split_whitespace().partition(|word| word.starts_with(UNIX));
    let sockets = sockets.iter().map(|word| match word.strip_prefix(UNIX) {
        Some(file) if file.starts_with('/') => Some(PathBuf::from(file)),
        _ => {
            let text =
                format!("{path}: expected a path from the root, as unix:///run/lictor.sock, found {word:?}");
            findings.fault(place.clone(), text)
        }
    });
    let sockets = sockets.collect::<Vec<_>>().into_iter().collect::<Option<_>>();
    let addresses = read_list(path, &addresses.join(" "), place, findings);
    addresses.zip(sockets)
}

const UNIX: &str = "unix://";

/// One address.
pub fn read_one(path: &str, text: &str, place: &Place, findings: &mut Findings) -> Option<IpAddr> {
    let found = read_list(path, text, place, findings)?;
    match found.as_slice() {
        [address] => Some(*address),
        [] => findings.fault(place.clone(), format!("{path} cannot be empty; expected an IP address")),
        _ => findings.fault(
            place.clone(),
            format!("{path} cannot contain multiple addresses; expected one IP address, found {text:?}"),
        ),
    }
}

/// A list of networks.
pub fn read_networks(fields: &mut Fields, key: &str, findings: &mut Findings) -> Vec<Network> {
    let path = fields.path(key);
    let texts = placed_texts(fields, key, findings);
    let networks = texts.into_iter().filter_map(|(text, place)| match text.parse() {
        Ok(network) => Some(network),
        Err(error) => findings.fault(place, format!("{path}: invalid cidr: {text}; {error}")),
    });
    networks.collect()
}

/// A list of texts, each with its place.
pub fn placed_texts(fields: &mut Fields, key: &str, findings: &mut Findings) -> Vec<(String, Place)> {
    let places: Vec<Place> = match fields.peek(key).map(|value| &value.kind) {
        Some(Kind::List(values)) => values.iter().map(|value| value.place.clone()).collect(),
        _ => Vec::new(),
    };
    fields.texts(key, findings).unwrap_or_default().into_iter().zip(places).collect()
}

/// The address that others reach us by where we listen on all: the one private IPv4 address of this machine.
///
/// # Errors
/// What is wrong, and what to set instead.
pub fn only_private() -> Result<IpAddr, String> {
    let interfaces = nix::ifaddrs::getifaddrs()
        .map_err(|error| format!("cannot list this machine's addresses: {error}"))?;
    let addresses = interfaces.filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip()));
    let mut private: Vec<Ipv4Addr> = addresses.filter(Ipv4Addr::is_private).collect();
    private.sort();
    private.dedup();
    match private.as_slice() {
        [one] => Ok(IpAddr::V4(*one)),
        [] => Err("No private IPv4 address found; set bind_addr or advertise_addr".into()),
        several => Err(format!(
            "Multiple private IPv4 addresses found ({several:?}). Please configure one with 'bind' and/or 'advertise'."
        )),
    }
}
