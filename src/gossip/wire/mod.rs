//! What members say to each other, as plain bytes: packets, what they carry beside membership, and what goes over streams. Sealing
//! them is another's work. Knows forms and their bounds, never what follows from them.

pub(crate) mod item;
pub(crate) mod packet;
pub(crate) mod stream;
pub(crate) mod swim;

use std::fmt;

/// Of packets and frames. Another one is of the future, and is not guessed at.
pub(crate) const VERSION: u8 = 1;

/// A packet, without what seals it: 1,400 bytes less 48.
pub(crate) const PACKET_MAX: usize = 1352;

/// Bytes that are not what they should be. There is nothing to do about it but to count them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    Form,
    /// Of a version that is not known.
    Future,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Malformed::Form => "malformed",
            Malformed::Future => "of a version that is not known",
        })
    }
}

impl std::error::Error for Malformed {}

impl From<bytes::TryGetError> for Malformed {
    fn from(_: bytes::TryGetError) -> Malformed {
        Malformed::Form
    }
}

impl From<postcard::Error> for Malformed {
    fn from(_: postcard::Error) -> Malformed {
        Malformed::Form
    }
}
