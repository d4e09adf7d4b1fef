//! What a shard's log looks like.
//!
//! The log is a sequence of batches in Kafka's RecordBatch v2, uncompressed. A record's key is one byte that says what the
//! record is, then what the kind says:
//!
//! | byte | kind | rest of the key | value |
//! |---|---|---|---|
//! | 0 | a change of state | the machine's | the machine's |
//! | 1 | a part of a checkpoint | the machine's | the machine's |
//! | 2 | a checkpoint begins | – | version `u8` = 1 |
//! | 3 | a checkpoint ends | – | version `u8` = 1, offset of its begin `i64`, number of its parts `u64` |
//!
//! Numbers are big endian. The records of one decision lie in one batch. A batch holds records of one kind; a begin and an
//! end have batches of their own, so that a trim can cut exactly in front of a begin.
//!
//! A checkpoint is the state at the record in front of its begin. Its parts come in one or more batches, with changes between
//! them. Replayed, it is: the parts into an empty machine, then all changes behind the begin in their order. A begin without
//! its end is a checkpoint that was not finished: its parts do not count.

use bytes::{BufMut, Bytes, BytesMut};

const CHANGE: u8 = 0;
const PART: u8 = 1;
const BEGIN: u8 = 2;
const END: u8 = 3;
const VERSION: u8 = 1;

/// A record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A change of state: the machine's key and value.
    Change(Bytes, Bytes),
    /// A part of a checkpoint: the machine's key and value.
    Part(Bytes, Bytes),
    /// A checkpoint begins.
    Begin,
    /// A checkpoint ends.
    End {
        /// Offset of its [`Begin`](Self::Begin).
        begin: i64,
        /// How many parts it has.
        parts: u64,
    },
}

impl Frame {
    /// Key and value of the record.
    pub fn encode(&self) -> (Bytes, Bytes) {
        match self {
            Self::Change(key, value) => (prefixed(CHANGE, key), value.clone()),
            Self::Part(key, value) => (prefixed(PART, key), value.clone()),
            Self::Begin => (Bytes::from_static(&[BEGIN]), Bytes::from_static(&[VERSION])),
            Self::End { begin, parts } => {
                let mut value = BytesMut::with_capacity(17);
                value.put_u8(VERSION);
                value.put_i64(*begin);
                value.put_u64(*parts);
                (Bytes::from_static(&[END]), value.freeze())
            }
        }
    }

    /// Of a record's key and value; `None` if they are malformed or of a newer version.
    pub fn decode(key: &Bytes, value: &Bytes) -> Option<Self> {
        match (*key.first()?, &value[..]) {
            (CHANGE, _) => Some(Self::Change(key.slice(1..), value.clone())),
            (PART, _) => Some(Self::Part(key.slice(1..), value.clone())),
            (BEGIN, [VERSION]) => Some(Self::Begin),
            (END, [VERSION, rest @ ..]) => {
                let (begin, rest) = rest.split_first_chunk()?;
                let (parts, rest) = rest.split_first_chunk()?;
                let (begin, parts) = (i64::from_be_bytes(*begin), u64::from_be_bytes(*parts));
                rest.is_empty().then_some(Self::End { begin, parts })
            }
            _ => None,
        }
    }
}

fn prefixed(kind: u8, key: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(key.len() + 1);
    out.put_u8(kind);
    out.put_slice(key);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_decoded_as_they_were_encoded() {
        let (key, value) = (Bytes::from_static(b"k"), Bytes::from_static(b"v"));
        let frames = [
            Frame::Change(key.clone(), value.clone()),
            Frame::Part(key, value),
            Frame::Begin,
            Frame::End { begin: 7, parts: 9 },
        ];
        for frame in frames {
            let (key, value) = frame.encode();
            assert_eq!(Frame::decode(&key, &value), Some(frame));
        }
    }

    #[test]
    fn what_is_not_known_is_not_guessed_at() {
        for (key, value) in [(&b""[..], &b""[..]), (&[4], b""), (&[2], &[2]), (&[3], &[1, 0]), (&[3], &[1; 18])] {
            let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
            assert_eq!(Frame::decode(&key, &value), None, "{key:?} {value:?}");
        }
    }
}
