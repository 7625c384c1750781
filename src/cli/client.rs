//! How commands speak to an agent: where it is, with which token, and what its errors look like.

use std::time::Duration;

use clap::Args;

use super::Failure;

/// A command waits this long for an agent, and no longer.
const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Args)]
pub struct Client {
    /// Address and port of the agent's HTTP API; CONSUL_HTTP_ADDR where not given
    #[arg(long, value_name = "ADDRESS")]
    http_addr: Option<String>,
    /// Token of the request; CONSUL_HTTP_TOKEN where not given
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
}

impl Client {
    pub fn get(&self, path: &str) -> Result<String, Failure> {
        self.run(reqwest::Method::GET, path)
    }

    pub fn put(&self, path: &str) -> Result<String, Failure> {
        self.run(reqwest::Method::PUT, path)
    }

    fn run(&self, method: reqwest::Method, path: &str) -> Result<String, Failure> {
        let url = format!("{}{path}", self.base()?);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::new(error.to_string()))?;
        runtime.block_on(self.send(method, &url))
    }

    async fn send(&self, method: reqwest::Method, url: &str) -> Result<String, Failure> {
        let verb = if method == reqwest::Method::PUT { "Put" } else { "Get" };
        let lost = |error: reqwest::Error| Failure::new(format!("{verb} \"{url}\": {}", cause(&error)));
        crate::agent::use_ring();
        let client = reqwest::Client::builder().timeout(DEADLINE).no_proxy().build().map_err(lost)?;
        let mut request = client.request(method, url);
        if let Some(token) = self.token() {
            request = request.header("X-Consul-Token", token);
        }
        let response = request.send().await.map_err(lost)?;
        let status = response.status();
        let body = response.text().await.map_err(lost)?;
        if status.is_success() {
            Ok(body)
        } else {
            Err(Failure::new(format!("Unexpected response code: {} ({body})", status.as_u16())))
        }
    }

    fn token(&self) -> Option<String> {
        let given = self.token.clone().or_else(|| std::env::var("CONSUL_HTTP_TOKEN").ok());
        given.filter(|token| !token.is_empty())
    }

    fn base(&self) -> Result<String, Failure> {
        let given = self.http_addr.clone().or_else(|| std::env::var("CONSUL_HTTP_ADDR").ok());
        let address = given.filter(|address| !address.is_empty()).unwrap_or_else(|| "127.0.0.1:8500".into());
        base_url(&address).map_err(|scheme| {
            Failure::new(format!("Error connecting to Consul agent: Unknown protocol scheme: {scheme}"))
        })
    }
}

/// `host:port` or a URL, without its path's last slash; an error is the scheme that we do not speak.
fn base_url(address: &str) -> Result<String, &str> {
    match address.split_once("://") {
        None => Ok(format!("http://{address}")),
        Some(("http" | "https", _)) => Ok(address.trim_end_matches('/').to_string()),
        Some((scheme, _)) => Err(scheme),
    }
}

impl Failure {
    /// The same failure, told with what was being done.
    pub fn after(self, doing: &str) -> Self {
        Failure { text: format!("{doing}: {}", self.text), ..self }
    }
}

/// The innermost reason: the outer ones repeat the address.
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_short() {
        assert_eq!(base_url("127.0.0.1:8500").unwrap(), "http://127.0.0.1:8500");
        assert_eq!(base_url("https://a:1/").unwrap(), "https://a:1");
        assert_eq!(base_url("tcp://a").unwrap_err(), "tcp");
    }
}
