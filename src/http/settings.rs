//! What an operator sets about the HTTP API.

/// Everything but the addresses, which are handed over bound. All of it may change at a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Headers added to every response.
    pub response_headers: Vec<(String, String)>,
    /// Connections that one address may hold at a time.
    pub connections_per_address_max: usize,
    /// Print JSON with indentation even where the request does not ask for it, as `-dev` does.
    pub pretty: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { response_headers: Vec::new(), connections_per_address_max: 200, pretty: false }
    }
}
