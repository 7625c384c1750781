//! The session that holds a lock, and is kept alive while it does.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use crate::cli::client::{Client, Lost, Request};

/// A session is gone at the latest after twice as long without a word of us.
const TTL: Duration = Duration::from_secs(15);
const RENEWAL_PAUSE: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
pub struct Session {
    #[serde(rename = "ID")]
    pub id: String,
}

impl Session {
    pub async fn create(client: &Client, name: &str) -> Result<Session, Lost> {
        let body = json!({ "Name": name, "TTL": format!("{}s", TTL.as_secs()) });
        client.read(Request::put("/v1/session/create").body(body.to_string())).await
    }

    /// Renews it, long before it would end. Returns when it is gone, or nobody has heard of us for too long.
    pub async fn keep(&self, client: &Client) {
        loop {
            tokio::time::sleep(TTL / 2).await;
            if timeout(TTL, self.renew(client)).await != Ok(true) {
                return;
            }
        }
    }

    /// Whether it lives; asked until somebody knows.
    async fn renew(&self, client: &Client) -> bool {
        loop {
            let request = Request::put(format!("/v1/session/renew/{}", self.id)).deadline(TTL / 3);
            match client.ok(request).await {
                Ok(_) => return true,
                Err(Lost::Code(404, _)) => return false,
                Err(_) => tokio::time::sleep(RENEWAL_PAUSE).await,
            }
        }
    }

    /// Where nobody hears it, it ends by itself.
    pub async fn destroy(&self, client: &Client) {
        let request = Request::put(format!("/v1/session/destroy/{}", self.id));
        let _ends_by_itself = client.ok(request).await;
    }
}
