//! HTTP/2 by hand (RFC 9113), for clients that break its rules or a server's hopes: no library would send this.

use std::time::Duration;

use anyhow::Result;
use taffrail_proto::v1;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// What a connection may send until the server allows more.
const FIRST_WINDOW: i64 = 65_535;
/// Bytes of a frame in front of its payload.
const FRAME_HEADER: usize = 9;
/// The largest flow-control window there is.
const MAX_WINDOW: u32 = (1 << 31) - 1;
/// Setting: window of each stream.
const INITIAL_WINDOW_SIZE: u16 = 4;

/// A connection that can be abused.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// Bytes of data that it may still send, all streams together.
    window: i64,
}

impl Connection {
    /// Connects as a polite client does, with its windows wide open.
    pub async fn open(address: &str) -> Result<Self> {
        let mut bytes = PREFACE.to_vec();
        let mut setting = INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
        setting.extend(MAX_WINDOW.to_be_bytes());
        bytes.extend(frame(SETTINGS, 0, 0, &setting));
        bytes.extend(frame(SETTINGS, 1, 0, &[])); // acknowledges the server's, unseen
        bytes.extend(frame(WINDOW_UPDATE, 0, 0, &(MAX_WINDOW - 65_535).to_be_bytes()));
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(&bytes).await?;
        Ok(Self { stream, window: FIRST_WINDOW })
    }

    /// Makes a call of one message on a stream (odd, rising) and does not wait for its answer.
    pub async fn call(&mut self, stream: u32, path: &str, message: &impl prost::Message) -> Result<()> {
        let mut bytes = frame(HEADERS, END_HEADERS, stream, &headers(path));
        bytes.extend(frame(DATA, END_STREAM, stream, &grpc(&message.encode_to_vec())));
        Ok(self.stream.write_all(&bytes).await?)
    }

    /// Begins a message of `claimed` bytes on a stream and stops after about `sent` of them. It sends no more than the server
    /// allows, for who does is cut off at once; `sent` is less than a stream's window.
    pub async fn half_a_message(&mut self, stream: u32, path: &str, claimed: u32, sent: usize) -> Result<()> {
        self.stream.write_all(&frame(HEADERS, END_HEADERS, stream, &headers(path))).await?;
        let mut body = vec![0];
        body.extend(claimed.to_be_bytes());
        body.resize(16_384, 0);
        for _ in 0..sent / body.len() {
            self.wait_for_window(body.len()).await?;
            self.stream.write_all(&frame(DATA, 0, stream, &body)).await?;
        }
        Ok(())
    }

    /// Begins a frame of data on a stream and stops in the middle of it. Nothing can be sent after that.
    pub async fn half_a_frame(&mut self, stream: u32) -> Result<()> {
        let whole = frame(DATA, 0, stream, &[0; 1_000]);
        Ok(self.stream.write_all(&whole[..500]).await?)
    }

    /// Reads frames until so many bytes of data may be sent, and counts them as sent.
    async fn wait_for_window(&mut self, bytes: usize) -> Result<()> {
        while self.window < bytes as i64 {
            let mut header = [0; FRAME_HEADER];
            self.stream.read_exact(&mut header).await?;
            let [a, b, c, kind, _flags, stream @ ..] = header;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            self.stream.read_exact(&mut payload).await?;
            if let (WINDOW_UPDATE, [0, 0, 0, 0], Ok(more)) = (kind, stream, <[u8; 4]>::try_from(&payload[..])) {
                self.window += i64::from(u32::from_be_bytes(more));
            }
        }
        self.window -= bytes as i64;
        Ok(())
    }

    /// Reads and drops whatever comes, until the server ends the connection or `patience` is over.
    pub async fn drain(&mut self, patience: Duration) -> bool {
        let mut buffer = vec![0; 65_536];
        let ended = async { while matches!(self.stream.read(&mut buffer).await, Ok(read) if read > 0) {} };
        tokio::time::timeout(patience, ended).await.is_ok()
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A header block (RFC 7541) of literals that are neither indexed nor packed.
fn headers(path: &str) -> Vec<u8> {
    let pairs = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let mut block = vec![];
    for (name, value) in pairs {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127, "a longer literal has a longer length");
            block.push(text.len() as u8);
            block.extend(text.bytes());
        }
    }
    block
}

/// A message of gRPC: a flag, its length, its bytes.
fn grpc(message: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend((message.len() as u32).to_be_bytes());
    bytes.extend(message);
    bytes
}

/// The largest fetch that can be asked for, of all partitions of a topic from their start.
pub fn huge_fetch(topic: &str, partitions: i32) -> v1::FetchRequest {
    let partition =
        |partition| v1::FetchPartition { topic: topic.to_owned(), partition, ..v1::FetchPartition::default() };
    v1::FetchRequest {
        partitions: (0..partitions).map(partition).collect(),
        min_bytes: u32::MAX,
        max_bytes: u32::MAX,
        max_wait_ms: 60_000, // more is refused
        ..v1::FetchRequest::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_begin_with_a_length_of_three_bytes() {
        assert_eq!(frame(DATA, 1, 3, b"ab"), [0, 0, 2, 0, 1, 0, 0, 0, 3, b'a', b'b']);
        assert_eq!(grpc(b"xyz"), [0, 0, 0, 0, 3, b'x', b'y', b'z']);
    }

    #[test]
    fn a_header_is_two_texts_with_their_lengths() {
        assert!(headers("/a").starts_with(b"\0\x07:method\x04POST\0\x07:scheme\x04http\0\x05:path\x02/a"));
    }
}
