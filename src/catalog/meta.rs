//! The limits of meta pairs (`http-api.md` §1.4), the same for nodes and services.

const PAIRS_MAX: usize = 64;
const KEY_BYTES_MAX: usize = 128;
const VALUE_BYTES_MAX: usize = 512;

/// Why meta pairs are refused, in Consul's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMeta {
    #[error("Node metadata cannot contain more than {PAIRS_MAX} key/value pairs")]
    TooMany,
    #[error("Couldn't load metadata pair ('{key}', '{value}'): {reason}")]
    Pair { key: String, value: String, reason: &'static str },
}

/// Keys are 1 to 128 letters, digits, `-` and `_`, not starting with `consul-`; values at most 512 bytes.
pub fn check_meta<'a>(pairs: impl ExactSizeIterator<Item = (&'a str, &'a str)>) -> Result<(), InvalidMeta> {
    if pairs.len() > PAIRS_MAX {
        return Err(InvalidMeta::TooMany);
    }
    for (key, value) in pairs {
        if let Some(reason) = fault(key, value) {
            return Err(InvalidMeta::Pair { key: key.into(), value: value.into(), reason });
        }
    }
    Ok(())
}

fn fault(key: &str, value: &str) -> Option<&'static str> {
    if key.is_empty() {
        Some("Key cannot be blank")
    } else if !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
        Some("Key contains invalid characters")
    } else if key.len() > KEY_BYTES_MAX {
        Some("Key is too long (limit: 128 characters)")
    } else if key.starts_with("consul-") {
        Some("Key prefix 'consul-' is reserved for internal use")
    } else if value.len() > VALUE_BYTES_MAX {
        Some("Value is too long (limit: 512 characters)")
    } else {
        None
    }
}
