//! The zones that an agent without recursors answers by itself: questions about private and special addresses must
//! find an end here, and not go to the root (RFC 6303), and `localhost` is this host (RFC 6761). Their master files
//! stand in `zones/`.

use std::sync::{Arc, LazyLock};

use super::{master, zone::Zone};

pub fn zones() -> &'static [Arc<Zone>] {
    static ZONES: LazyLock<Vec<Arc<Zone>>> = LazyLock::new(|| {
        let empty = empty_names().into_iter().map(|name| (name, EMPTY));
        let named = NAMED.iter().map(|text| (String::new(), *text));
        empty.chain(named).map(|(name, text)| Arc::new(zone(&name, text))).collect()
    });
    &ZONES
}

const EMPTY: &str = include_str!("../../../zones/empty.zone");
const NAMED: &[&str] = &[
    include_str!("../../../zones/localhost.zone"),
    include_str!("../../../zones/loopback-v4.zone"),
    include_str!("../../../zones/loopback-v6.zone"),
];

/// IANA's registry of locally served zones as RFC 6303 §6 and RFC 7793 fill it, but for the loopback addresses.
pub fn empty_names() -> Vec<String> {
    let of_v4 = ["10", "168.192", "0", "254.169", "2.0.192", "100.51.198", "113.0.203", "255.255.255.255"];
    let of_v6 = ["d.f", "8.e.f", "9.e.f", "a.e.f", "b.e.f", "8.b.d.0.1.0.0.2"];
    let mut names: Vec<String> = of_v4.iter().map(|name| format!("{name}.in-addr.arpa")).collect();
    names.extend((16..=31).map(|part| format!("{part}.172.in-addr.arpa")));
    names.extend((64..=127).map(|part| format!("{part}.100.in-addr.arpa")));
    names.extend(of_v6.iter().map(|name| format!("{name}.ip6.arpa")));
    names.push(format!("{}ip6.arpa", "0.".repeat(32)));
    names
}

fn zone(name: &str, text: &str) -> Zone {
    let mut open = |_: &str, _: &str| Err("it includes nothing".to_string());
    let read = master::read("zones".into(), text.as_bytes(), master::origin_of(name), &mut open);
    read.zone.unwrap_or_else(|faults| panic!("a zone of our own is wrong: {faults:?}"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn all_are_right() {
        let names: Vec<String> =
            super::zones().iter().map(|zone| crate::dns::zones::zone::shown(&zone.name)).collect();
        assert_eq!(names.len(), 8 + 16 + 64 + 7 + 3);
        for name in
            ["10.in-addr.arpa.", "31.172.in-addr.arpa.", "d.f.ip6.arpa.", "localhost.", "127.in-addr.arpa."]
        {
            assert!(names.iter().any(|known| known == name), "{name}");
        }
    }
}
