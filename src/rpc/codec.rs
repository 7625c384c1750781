//! Messages as MessagePack with field names, in gRPC's frames.

use std::marker::PhantomData;

use bytes::{Buf, BufMut};
use serde::{Serialize, de::DeserializeOwned};
use tonic::{
    Code, Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// Sends `E` and takes `D`.
pub struct MessagePack<E, D>(PhantomData<fn(E) -> D>);

/// Room for a message that is being written, to begin with, and so much of several at once.
const BUFFER_BYTES: usize = 1024;
const BUFFERED_BYTES: usize = 64 << 10;

impl<E, D> Default for MessagePack<E, D> {
    fn default() -> Self {
        MessagePack(PhantomData)
    }
}

impl<E, D> Codec for MessagePack<E, D>
where
    E: Serialize + Send + 'static,
    D: DeserializeOwned + Send + 'static,
{
    type Encode = E;
    type Decode = D;
    type Encoder = MessagePack<E, D>;
    type Decoder = MessagePack<E, D>;

    fn encoder(&mut self) -> Self::Encoder {
        MessagePack::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        MessagePack::default()
    }
}

impl<E: Serialize, D> Encoder for MessagePack<E, D> {
    type Item = E;
    type Error = Status;

    fn encode(&mut self, item: E, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        rmp_serde::encode::write_named(&mut out.writer(), &item)
            .map_err(|error| Status::new(Code::DataLoss, error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, BUFFERED_BYTES)
    }
}

impl<E, D: DeserializeOwned> Decoder for MessagePack<E, D> {
    type Item = D;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<D>, Status> {
        let item = rmp_serde::from_slice(bytes.chunk());
        bytes.advance(bytes.remaining());
        item.map(Some).map_err(|error| Status::new(Code::DataLoss, error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, BUFFERED_BYTES)
    }
}
