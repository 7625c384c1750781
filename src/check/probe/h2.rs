//! What a look over HTTP/2 needs of a connection: it is driven while something is asked on it.

use std::{io::ErrorKind, pin::pin, time::Duration};

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use tokio::time::timeout;

use super::{connect::Stream, reason};

/// A health answer's headers are short; whoever sends more than this is not listened to.
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// For the last words, which nobody answers.
const GOODBYE_LIMIT: Duration = Duration::from_secs(1);

/// Sends the preface.
pub async fn greet(stream: Stream) -> Result<(SendRequest<Bytes>, Connection<Stream>), String> {
    let mut builder = Builder::new();
    builder.enable_push(false).max_header_list_size(HEADER_BYTES_MAX);
    builder.handshake(stream).await.map_err(|error| why(&error))
}

/// Drives the connection until `asked` is answered; then says goodbye. An answer that came before the connection ended
/// counts.
pub async fn drive<T>(
    connection: Connection<Stream>,
    asked: impl Future<Output = Result<T, h2::Error>>,
) -> Result<T, String> {
    let mut connection = pin!(connection);
    let answered = {
        let mut asked = pin!(asked);
        let ended = tokio::select! {
            biased;
            answer = &mut asked => Ok(answer),
            ended = &mut connection => Err(ended),
        };
        match ended {
            Ok(answer) => answer,
            Err(ended) => {
                return tokio::select! {
                    biased;
                    answer = asked => answer.map_err(|error| why(&error)),
                    () = std::future::ready(()) => Err(ended.err().map_or_else(eof, |error| why(&error))),
                };
            }
        }
    };
    let answered = answered.map_err(|error| why(&error))?;
    let _deaf = timeout(GOODBYE_LIMIT, connection).await;
    Ok(answered)
}

fn why(error: &h2::Error) -> String {
    match error.get_io() {
        Some(io) if matches!(io.kind(), ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe) => eof(),
        Some(io) => reason(io),
        None => error.to_string(),
    }
}

fn eof() -> String {
    "unexpected EOF".into()
}
