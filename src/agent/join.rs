//! Where other members are to be found: what `retry_join` and `join` name, and the loop that asks there until somebody lets
//! this agent in (`config-cli.md` §2.1). Names are resolved at each attempt, since what is behind them changes.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use crate::gossip::Pool;

/// A place as it is written: an address or a name, with a port or without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    host: String,
    port: Option<u16>,
    text: String,
}

/// Why a text is no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    #[error("lictor asks no provider of a cloud for addresses")]
    Provider,
    #[error("address templates are not evaluated here")]
    Template,
    #[error("it names no agent")]
    Malformed,
}

/// How an agent finds the others at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joining {
    pub places: Vec<Place>,
    /// From one attempt to the next.
    pub interval: Duration,
    /// Attempts after the first that failed; 0 is no limit.
    pub retries_max: u32,
}

/// Nobody let this agent in, as often as it was to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted;

/// A resolver that hangs must not hold up the other names for long.
const RESOLVED_WITHIN: Duration = Duration::from_secs(10);
/// Of one name: more are not asked.
const ADDRESSES_MAX: usize = 64;
/// However short it is set.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

impl Default for Joining {
    fn default() -> Self {
        Joining { places: vec![], interval: Duration::from_secs(30), retries_max: 0 }
    }
}

impl FromStr for Place {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Self, NoPlace> {
        let place = |host: &str, port| Place { host: host.into(), port, text: text.into() };
        if text.split_whitespace().any(|word| word.starts_with("provider=")) {
            return Err(NoPlace::Provider);
        }
        if text.contains("{{") {
            return Err(NoPlace::Template);
        }
        if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return inner.parse::<IpAddr>().map(|_| place(inner, None)).map_err(|_| NoPlace::Malformed);
        }
        if text.parse::<IpAddr>().is_ok() {
            return Ok(place(text, None));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(place(&address.ip().to_string(), Some(address.port())));
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port.parse().map_err(|_| NoPlace::Malformed)?)),
            None => (text, None),
        };
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        match !host.is_empty() && host.bytes().all(is_letter) && port != Some(0) {
            true => Ok(place(host, port)),
            false => Err(NoPlace::Malformed),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Place {
    /// The addresses that it stands for now.
    ///
    /// # Errors
    /// Where it cannot be resolved, in words.
    pub async fn resolve(&self, default_port: u16) -> Result<Vec<SocketAddr>, String> {
        let port = self.port.unwrap_or(default_port);
        if let Ok(address) = self.host.parse::<IpAddr>() {
            return Ok(vec![(address, port).into()]);
        }
        let found = tokio::time::timeout(RESOLVED_WITHIN, tokio::net::lookup_host((&*self.host, port))).await;
        let found = found.map_err(|_| format!("lookup {}: no answer in time", self.host))?;
        let mut found: Vec<SocketAddr> =
            found.map_err(|error| format!("lookup {}: {error}", self.host))?.take(ADDRESSES_MAX).collect();
        found.sort();
        found.dedup();
        Ok(found)
    }
}

impl Joining {
    /// Asks until somebody lets this agent in. Its own address among them is nobody else: where there is no other, there is
    /// nobody to wait for.
    ///
    /// # Errors
    /// Where that was often enough.
    pub async fn keep_asking(
        &self,
        pool: &Pool,
        own: SocketAddr,
        stop: &CancellationToken,
    ) -> Result<(), Exhausted> {
        let mut failed = 0;
        loop {
            let (mut addresses, mut faults) = (Vec::new(), Vec::new());
            for place in &self.places {
                match place.resolve(own.port()).await {
                    Ok(found) => addresses.extend(found),
                    Err(fault) => faults.push(fault),
                }
            }
            let named = !addresses.is_empty();
            addresses.retain(|address| *address != own);
            if faults.is_empty() && named && addresses.is_empty() {
                return Ok(());
            }
            tracing::debug!(?addresses, "asking to be let in");
            let outcomes = pool.join(addresses).await;
            let joined = outcomes.iter().filter(|(_, outcome)| outcome.is_ok()).count();
            let not_joined = |(address, outcome): (SocketAddr, Result<usize, String>)| {
                Some(format!("Failed to join {address}: {}", outcome.err()?))
            };
            faults.extend(outcomes.into_iter().filter_map(not_joined));
            if joined > 0 {
                tracing::info!(
                    cluster = "LAN",
                    num_agents = joined,
                    "Join cluster completed. Synced with initial agents"
                );
                return Ok(());
            }
            failed += 1;
            if self.retries_max > 0 && failed > self.retries_max {
                return Err(Exhausted);
            }
            tracing::warn!(
                cluster = "LAN",
                retry_interval = crate::check::format_duration(self.interval.as_nanos() as i64),
                error = faults.join("; "),
                "Join cluster failed, will retry"
            );
            let pause = tokio::time::sleep(self.interval.max(INTERVAL_MIN));
            if stop.run_until_cancelled(pause).await.is_none() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_they_are_written() {
        let table = [
            ("10.0.0.1", Some(("10.0.0.1", None))),
            ("10.0.0.1:8305", Some(("10.0.0.1", Some(8305)))),
            ("::1", Some(("::1", None))),
            ("[::1]", Some(("::1", None))),
            ("[fd00::7]:8305", Some(("fd00::7", Some(8305)))),
            ("server.example", Some(("server.example", None))),
            ("server-1.example.:8305", Some(("server-1.example.", Some(8305)))),
            ("", None),
            (":8301", None),
            ("a:", None),
            ("a:0", None),
            ("a:70000", None),
            ("a b", None),
            ("[a]", None),
        ];
        for (text, expected) in table {
            let found = text.parse::<Place>();
            let expected = expected.ok_or(NoPlace::Malformed);
            let shown = found.as_ref().map(|place| (&*place.host, place.port)).map_err(Clone::clone);
            assert_eq!(shown, expected, "{text:?}");
        }
        assert_eq!("provider=aws tag_key=a tag_value=b".parse::<Place>(), Err(NoPlace::Provider));
        assert_eq!("{{ GetPrivateIP }}".parse::<Place>(), Err(NoPlace::Template));
    }

    #[tokio::test]
    async fn a_port_that_is_not_written_is_the_pool_s() {
        let resolve = async |text: &str| text.parse::<Place>().unwrap().resolve(8301).await.unwrap();
        assert_eq!(resolve("::1").await, ["[::1]:8301".parse().unwrap()]);
        assert_eq!(resolve("127.0.0.9:1").await, ["127.0.0.9:1".parse().unwrap()]);
        assert!(
            resolve("localhost").await.iter().all(|found| found.ip().is_loopback() && found.port() == 8301)
        );
    }
}
