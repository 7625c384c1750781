//! Addresses as they are written: one, or several with spaces between them. What an agent tells others must be one
//! address that they can reach.

use std::net::{IpAddr, Ipv4Addr};

use super::{reader::Findings, tree::Place};

/// A list of addresses. Sockets of the file system, and templates, are not understood here.
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
            format!("{path}: unix sockets are not served yet; expected an IP address, found {word:?}"),
        ),
        Err(_) => findings
            .fault(place.clone(), format!("{path}: invalid ip address: {word}; expected an IP address")),
    });
    each.collect::<Vec<_>>().into_iter().collect()
}

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
