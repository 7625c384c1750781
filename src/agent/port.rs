//! Why an address cannot be had, in words for an operator: who has it, and what to do. Who has it stands in `/proc`, as
//! far as this process may look; elsewhere only the advice is left. Knows no sockets of ours.

use std::{
    fmt, fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

/// A process that has a socket, as far as can be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Pid and name. Those of others' processes are for root to see.
    pub process: Option<(u32, String)>,
    pub user: String,
}

/// What to add to the error of binding `addr`; empty where there is nothing to say. `protocol` is `TCP` or `UDP`.
pub fn explain(error: &io::Error, protocol: &str, addr: SocketAddr) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let holders = holders(protocol, addr);
            let Some(first) = holders.first() else { return String::new() };
            let all: Vec<String> = holders.iter().map(Holder::to_string).collect();
            let name = first.process.as_ref().map_or("", |(_, name)| name);
            format!(". It is held by {}; {}", all.join(", "), advice(name))
        }
        io::ErrorKind::PermissionDenied => format!(
            ". A port as low as {} needs the capability CAP_NET_BIND_SERVICE: examples/systemd/lictor.service gives it, or `setcap cap_net_bind_service=+ep` on the program; lictor.socket there has systemd bind it; or stay on port 8600, and `lictor dns install` has this machine's resolver forward",
            addr.port()
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!(". No interface of this machine has the address {}", addr.ip())
        }
        _ => String::new(),
    }
}

/// Whoever has a socket that stands in the way of one at `addr`.
pub fn holders(protocol: &str, addr: SocketAddr) -> Vec<Holder> {
    let proc = Path::new("/proc");
    let tables = match protocol {
        "TCP" => ["net/tcp", "net/tcp6"],
        _ => ["net/udp", "net/udp6"],
    };
    let texts = tables.map(|table| fs::read_to_string(proc.join(table)).unwrap_or_default());
    let rows = texts.iter().flat_map(|text| rows(text));
    let in_the_way: Vec<Row> =
        rows.filter(|row| (protocol != "TCP" || row.listens) && clash(row.local, addr)).collect();
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut found: Vec<Holder> = Vec::new();
    for row in in_the_way {
        let user = user_name(&users, row.uid);
        let processes = processes(proc, row.inode);
        let known =
            processes.into_iter().map(|process| Holder { process: Some(process), user: user.clone() });
        let mut known: Vec<Holder> = known.collect();
        if known.is_empty() {
            known.push(Holder { process: None, user });
        }
        known.retain(|holder| !found.contains(holder));
        found.append(&mut known);
    }
    found.truncate(HOLDERS_MAX);
    found
}

/// Named in one error.
const HOLDERS_MAX: usize = 3;

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            Some((pid, name)) => write!(f, "{name} (pid {pid}, user {})", self.user),
            None => write!(f, "a process of user {} (root may see which)", self.user),
        }
    }
}

/// By the name of the process, as the kernel cuts it.
fn advice(name: &str) -> &'static str {
    match name {
        "systemd-resolve" => {
            "leave it there, and `lictor dns install` has it forward to lictor on another port; or turn its stub off: DNSStubListener=no in /etc/systemd/resolved.conf"
        }
        "dnsmasq" | "unbound" | "named" => {
            "leave it there, and `lictor dns install` has it forward to lictor on another port"
        }
        "systemd" => "a .socket unit has it (`systemctl list-sockets`): start the service of that unit",
        "lictor" => "an agent runs here already",
        _ => "stop it, or take another address or port",
    }
}

/// A line of `/proc/net/{tcp,udp}{,6}`.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    local: SocketAddr,
    listens: bool,
    uid: u32,
    inode: u64,
}

fn rows(table: &str) -> impl Iterator<Item = Row> {
    table.lines().filter_map(row)
}

fn row(line: &str) -> Option<Row> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (ip, port) = words.get(1)?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(Row {
        local: (read_ip(ip)?, port).into(),
        listens: *words.get(3)? == "0A",
        uid: words.get(7)?.parse().ok()?,
        inode: words.get(9)?.parse().ok()?,
    })
}

/// Words of 32 bits, each in the byte order of this machine.
fn read_ip(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let bytes: [[u8; 4]; 4] = [word(0)?, word(1)?, word(2)?, word(3)?];
            Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.concat()).ok()?).into())
        }
        _ => None,
    }
}

/// Whether a socket at one address can stand in the way of one at the other.
fn clash(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    let takes = |wide: IpAddr, ip: IpAddr| wide.is_unspecified() && (wide.is_ipv6() || ip.is_ipv4());
    one.port() == other.port() && (a == b || takes(a, b) || takes(b, a))
}

fn user_name(passwd: &str, uid: u32) -> String {
    let (uid, mut lines) = (uid.to_string(), passwd.lines());
    let name = lines.find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then_some(name)
    });
    name.map_or(uid.clone(), str::to_string)
}

/// Pid and name of every process that has the socket open, as far as we may look.
fn processes(proc: &Path, inode: u64) -> Vec<(u32, String)> {
    let link = format!("socket:[{inode}]");
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let has_it = |pid: &u32| {
        let fds = fs::read_dir(proc.join(pid.to_string()).join("fd"));
        let mut fds = fds.into_iter().flatten().flatten();
        fds.any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == link.as_str()))
    };
    let named = |pid: u32| {
        let name = fs::read_to_string(proc.join(pid.to_string()).join("comm")).unwrap_or_default();
        (pid, name.trim_end().to_string())
    };
    pids.filter(has_it).map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 3500007F:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000   101        0 1525 1 000000009cfe3f92 100 0 0 10 0
   1: 0100007F:A69D 0100007F:0035 06 00000000:00000000 03:00000481 00000000     0        0 0 3 00000000bf945939
   2: short line";
    const TCP6: &str = "\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000001000000:2198 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1 0 100 0 0 10 0";

    #[cfg(target_endian = "little")]
    #[test]
    fn the_tables_of_the_kernel_are_read() {
        let found: Vec<Row> = rows(TCP).chain(rows(TCP6)).collect();
        let local = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(
            found,
            [
                Row { local: local("127.0.0.53:53"), listens: true, uid: 101, inode: 1525 },
                Row { local: local("127.0.0.1:42653"), listens: false, uid: 0, inode: 0 },
                Row { local: local("[::1]:8600"), listens: true, uid: 0, inode: 77 },
            ]
        );
    }

    #[test]
    fn wildcards_stand_in_the_way() {
        let clash = |one: &str, other: &str| clash(one.parse().unwrap(), other.parse().unwrap());
        for (one, other, expected) in [
            ("127.0.0.1:53", "127.0.0.1:53", true),
            ("127.0.0.1:53", "127.0.0.1:54", false),
            ("127.0.0.1:53", "127.0.0.2:53", false),
            ("127.0.0.1:53", "0.0.0.0:53", true),
            ("[::]:53", "127.0.0.1:53", true),
            ("0.0.0.0:53", "[::1]:53", false),
            ("[::ffff:127.0.0.1]:53", "127.0.0.1:53", true),
        ] {
            assert_eq!(clash(one, other), expected, "{one} {other}");
            assert_eq!(clash(other, one), expected, "{other} {one}");
        }
    }

    #[test]
    fn users_have_names_where_known() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nresolve:x:101:101::/:/bin/false\n";
        assert_eq!(user_name(passwd, 101), "resolve");
        assert_eq!(user_name(passwd, 7), "7");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn whoever_holds_a_port_is_found() {
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for (protocol, addr) in [("UDP", udp.local_addr().unwrap()), ("TCP", tcp.local_addr().unwrap())] {
            let found = holders(protocol, addr);
            let own =
                |holder: &Holder| holder.process.as_ref().is_some_and(|(pid, _)| *pid == std::process::id());
            assert!(found.iter().any(own), "{protocol} {addr}: {found:?}");
            let text = explain(&io::ErrorKind::AddrInUse.into(), protocol, addr);
            assert!(text.contains(&format!("pid {}", std::process::id())), "{text}");
        }
    }
}
