//! Whom to ask (`cluster.md` §6.1): the first of a list. One that fails goes to its end, and from time to time the whole list
//! is dealt anew, so that no server keeps all who came when it was alone. Pure.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::catalog::Text;

/// Where a server answers other agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub name: Text,
    pub address: SocketAddr,
}

#[derive(Debug)]
pub struct Servers {
    list: Vec<Address>,
    /// Of everyone in the datacenter.
    members: usize,
    deal_at: Option<Instant>,
    random: fastrand::Rng,
}

/// The list is dealt anew after so long, and up to half as long again.
const DEALT_FOR: Duration = Duration::from_secs(120);
/// All members together come to one server with so many new connections a second, and no more.
const DEALT_A_SEC: usize = 64;

impl Servers {
    pub fn new(seed: u64) -> Self {
        Servers { list: Vec::new(), members: 0, deal_at: None, random: fastrand::Rng::with_seed(seed) }
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Takes up who serves now. Those who stay keep their order; who came stands at any place. Says whether anyone did.
    pub fn update(&mut self, now_serving: &[Address], members: usize) -> bool {
        self.members = members;
        self.list.retain(|known| now_serving.contains(known));
        let mut came = false;
        for server in now_serving {
            if !self.list.contains(server) {
                self.list.insert(self.random.usize(..=self.list.len()), server.clone());
                came = true;
            }
        }
        came
    }

    /// The one to ask, but none of these.
    pub fn pick(&mut self, except: &[SocketAddr], now: Instant) -> Option<&Address> {
        if self.deal_at.is_none_or(|at| at <= now) {
            if self.deal_at.is_some() {
                self.random.shuffle(&mut self.list);
            }
            self.deal_at = Some(now + self.dealt_for());
        }
        self.list.iter().find(|server| !except.contains(&server.address))
    }

    /// It did not do what it was asked: the next one comes first, unless that is so already.
    pub fn failed(&mut self, address: SocketAddr) {
        if self.list.first().is_some_and(|first| first.address == address) {
            self.list.rotate_left(1);
        }
    }

    pub fn has(&self, address: SocketAddr) -> bool {
        self.list.iter().any(|server| server.address == address)
    }

    fn dealt_for(&mut self) -> Duration {
        let spread = DEALT_FOR + (DEALT_FOR / 2).mul_f64(self.random.f64());
        let by_members = self.members / (DEALT_A_SEC * self.list.len().max(1));
        spread.max(Duration::from_secs(by_members as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str) -> Address {
        let last = name.as_bytes()[0];
        Address { name: name.into(), address: ([10, 0, 0, last], 8300).into() }
    }

    fn names(servers: &Servers) -> String {
        servers.list.iter().map(|server| &*server.name).collect()
    }

    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn who_stays_keeps_the_order_and_who_is_gone_is_not_asked() {
        let (mut servers, now) = (Servers::new(1), start());
        assert_eq!(servers.pick(&[], now), None);
        assert!(servers.update(&[server("a"), server("b"), server("c")], 3));
        let order = names(&servers);
        assert!(!servers.update(&[server("c"), server("b"), server("a")], 3), "nobody came");
        assert_eq!(names(&servers), order);
        assert!(servers.update(&[server("c"), server("d"), server("a")], 3));
        let stay: String = order.chars().filter(|name| *name != 'b').collect();
        assert_eq!(names(&servers).replace('d', ""), stay);
        assert!(!servers.update(&[], 0));
        assert_eq!(servers.pick(&[], now), None);
    }

    #[test]
    fn one_that_moved_is_a_new_one() {
        let mut servers = Servers::new(1);
        servers.update(&[server("a")], 1);
        let moved = Address { address: ([10, 9, 9, 9], 8300).into(), ..server("a") };
        assert!(servers.update(std::slice::from_ref(&moved), 1));
        assert_eq!(servers.list, [moved]);
    }

    #[test]
    fn an_error_rotates_once() {
        let (mut servers, now) = (Servers::new(1), start());
        servers.update(&["a", "b", "c"].map(server), 3);
        let order = names(&servers);
        let first = servers.pick(&[], now).unwrap().address;
        let second = servers.list[1].address;
        servers.failed(first);
        servers.failed(first);
        servers.failed(([1, 1, 1, 1], 1).into());
        assert_eq!(names(&servers), format!("{}{}", &order[1..], &order[..1]), "told twice, moved once");
        assert_eq!(servers.pick(&[], now).unwrap().address, second);
        assert_ne!(servers.pick(&[second], now).unwrap().address, second);
        assert_eq!(servers.pick(&["a", "b", "c"].map(|name| server(name).address), now), None);
    }

    #[test]
    fn the_list_is_dealt_anew() {
        let (mut servers, mut now) = (Servers::new(7), start());
        servers.update(&["a", "b", "c", "d", "e"].map(server), 5);
        servers.pick(&[], now);
        let order = names(&servers);
        now += DEALT_FOR - Duration::from_secs(1);
        servers.pick(&[], now);
        assert_eq!(names(&servers), order, "not yet");
        let mut dealt = 0;
        for _ in 0..10 {
            now += DEALT_FOR * 3 / 2;
            let before = names(&servers);
            servers.pick(&[], now);
            dealt += usize::from(names(&servers) != before);
        }
        assert!(dealt > 5, "{dealt} of 10 times");
        for _ in 0..100 {
            let dealt_for = servers.dealt_for();
            assert!((DEALT_FOR..=DEALT_FOR * 3 / 2).contains(&dealt_for), "{dealt_for:?}");
        }
        servers.update(&[server("a")], 64 * 1_000);
        assert_eq!(servers.dealt_for(), Duration::from_secs(1_000), "of many members, each comes later");
    }
}
