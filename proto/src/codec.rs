//! How messages of this API become bytes: protocol buffers, with buffers fit for messages of megabytes.
//!
//! The same on the wire as `tonic_prost::ProstCodec`. That one lets its buffer grow by doubling, which copies a message of
//! 1 MiB twice, and flushes a stream every 32 KiB, which makes many small HTTP/2 frames.
//!
//! It also refuses messages that would take many times their size when decoded: two bytes are enough for an empty record,
//! which takes about a hundred bytes in memory.

mod elements;

use std::marker::PhantomData;

use prost::Message;
use prost::bytes::Buf;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

pub use elements::MAX_ELEMENTS;

/// What a stream's buffers begin with, one for each way. Small, since thousands of members may each keep a stream open
/// for a message of some bytes every few seconds.
const INITIAL_BYTES: usize = 256;
/// Messages that are ready at once are sent together up to this size: one HTTP/2 frame of the size both sides allow.
const GATHER_BYTES: usize = 256 << 10;

/// Protocol buffers; named in the generated code.
#[derive(Clone, Copy, Debug)]
pub struct MessageCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for MessageCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for MessageCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = MessageEncoder<T>;
    type Decoder = MessageDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        MessageEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        MessageDecoder(PhantomData)
    }
}

/// Encodes into exactly the room that a message takes.
#[derive(Clone, Copy, Debug)]
pub struct MessageEncoder<T>(PhantomData<T>);

impl<T: Message> Encoder for MessageEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(item.encoded_len());
        item.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(INITIAL_BYTES, GATHER_BYTES)
    }
}

/// Decodes what is not out of proportion.
#[derive(Clone, Copy, Debug)]
pub struct MessageDecoder<U>(PhantomData<U>);

impl<U: Message + Default + 'static> Decoder for MessageDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // tonic's buffer is in one piece.
        if elements::count::<U>(buffer.chunk()) > MAX_ELEMENTS {
            let fault =
                format!("the message has more than {MAX_ELEMENTS} records, headers and batches: send less at a time");
            return Err(Status::invalid_argument(fault));
        }
        U::decode(buffer)
            .map(Some)
            .map_err(|error| Status::invalid_argument(format!("the message is malformed: {error}")))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(INITIAL_BYTES, GATHER_BYTES)
    }
}
