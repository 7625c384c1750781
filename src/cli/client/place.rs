//! Where an agent is and which token it is shown, from flags, variables and files (`config-cli.md` §3).

use std::{env, fmt::Display, fs, path::PathBuf};

use url::Url;

use super::reason;
use crate::{cli::output::complain, config::parse_bool};

#[derive(Debug, PartialEq)]
pub enum Road {
    Tcp(String, u16),
    Unix(PathBuf),
}

/// Flag, flag's file, variable's file, variable: the first that is given counts.
pub fn token(
    flag: impl Fn(&str) -> Option<String>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<String>, String> {
    let read = |path: String| {
        let told = |error| format!("Error loading token file {path} : open {path}: {}", reason(&error));
        fs::read_to_string(&path).map(|token| token.trim().to_string()).map_err(told)
    };
    if let Some(path) = flag("token-file") {
        return read(path).map(Some);
    }
    if let Some(token) = flag("token") {
        return Ok(Some(token));
    }
    match variable("CONSUL_HTTP_TOKEN_FILE") {
        Some(path) => read(path).map(Some),
        None => Ok(variable("CONSUL_HTTP_TOKEN")),
    }
}

/// A variable that is true or false; what is neither is told, and false.
pub fn switch(name: &str) -> bool {
    let Ok(value) = env::var(name) else { return false };
    parse_bool(name, &value).unwrap_or_else(|_| {
        complain(format!("[WARN] client: could not parse {name}: found {value:?}; expected true or false"));
        false
    })
}

/// The way to an agent, the host that it is asked as, and the path that everything lies below.
pub fn parse_address(address: &str) -> Result<(Road, String, String), String> {
    if let Some(path) = address.strip_prefix("unix://") {
        return Ok((Road::Unix(path.into()), "localhost".into(), String::new()));
    }
    let whole = if address.contains("://") { address.to_string() } else { format!("http://{address}") };
    let wrong = |reason: &dyn Display| {
        format!("found {address:?}; expected HOST:PORT, http://… or unix:///PATH: {reason}")
    };
    let url = Url::parse(&whole).map_err(|error| wrong(&error))?;
    match url.scheme() {
        "http" => {}
        "https" => return Err(wrong(&"https is not spoken yet, neither by commands nor by agents")),
        other => return Err(format!("Unknown protocol scheme: {other}")),
    }
    let host = url.host_str().ok_or_else(|| wrong(&"no host"))?;
    let port = url.port().unwrap_or(80);
    let shown = if url.port().is_some() { format!("{host}:{port}") } else { host.to_string() };
    Ok((Road::Tcp(host.into(), port), shown, url.path().trim_end_matches('/').into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_short() {
        let tcp = |host: &str, port| Road::Tcp(host.into(), port);
        for (address, road, host, prefix) in [
            ("127.0.0.1:8500", tcp("127.0.0.1", 8500), "127.0.0.1:8500", ""),
            ("http://a:1/x/", tcp("a", 1), "a:1", "/x"),
            ("[::1]:8500", tcp("[::1]", 8500), "[::1]:8500", ""),
            ("localhost", tcp("localhost", 80), "localhost", ""),
            ("unix:///run/l.sock", Road::Unix("/run/l.sock".into()), "localhost", ""),
        ] {
            assert_eq!(parse_address(address).unwrap(), (road, host.into(), prefix.into()), "{address}");
        }
        assert_eq!(parse_address("tcp://a").unwrap_err(), "Unknown protocol scheme: tcp");
        assert!(parse_address("https://a:1").unwrap_err().contains("https is not spoken yet"));
        assert!(parse_address("a:b").unwrap_err().starts_with("found \"a:b\"; expected HOST:PORT"));
    }

    #[test]
    fn one_token_counts() {
        let file = std::env::temp_dir().join(format!("lictor-token-{}", std::process::id()));
        fs::write(&file, "from file\n").unwrap();
        let path = file.display().to_string();
        let found = |flags: &[(&str, &str)], variables: &[(&str, &str)]| {
            let among = |pairs: &[(&str, &str)], name: &str| {
                pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string())
            };
            token(|name| among(flags, name), |name| among(variables, name))
        };
        let (value, in_file) = (("CONSUL_HTTP_TOKEN", "v"), ("CONSUL_HTTP_TOKEN_FILE", path.as_str()));
        assert_eq!(found(&[], &[]).unwrap(), None);
        assert_eq!(found(&[], &[value]).unwrap().unwrap(), "v");
        assert_eq!(found(&[], &[value, in_file]).unwrap().unwrap(), "from file");
        assert_eq!(found(&[("token", "f")], &[value, in_file]).unwrap().unwrap(), "f");
        assert_eq!(found(&[("token", "f"), ("token-file", &path)], &[]).unwrap().unwrap(), "from file");
        let expected = "Error loading token file /nope : open /nope: no such file or directory";
        assert_eq!(found(&[("token-file", "/nope")], &[]).unwrap_err(), expected);
        fs::remove_file(file).unwrap();
    }
}
