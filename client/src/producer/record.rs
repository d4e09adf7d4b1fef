//! What an application hands to `send`: borrowed, since it is encoded at once.

/// A record to be sent. Borrows everything; building one allocates nothing.
///
/// ```
/// use taffrail_client::Record;
///
/// let record = Record::to("orders").key("customer-7").value(r#"{"total": 12}"#).headers(&[("trace", Some(b"1"))]);
/// # let _ = record;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    pub(super) topic: &'a str,
    pub(super) partition: Option<i32>,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) headers: &'a [(&'a str, Option<&'a [u8]>)],
    pub(super) timestamp_ms: Option<i64>,
}

impl<'a> Record<'a> {
    /// A record for a topic, with neither key nor value yet: both are null, which is not the same as empty.
    pub fn to(topic: &'a str) -> Self {
        Self { topic, partition: None, key: None, value: None, headers: &[], timestamp_ms: None }
    }

    /// Decides the partition (murmur2, as Kafka's Java client computes it). Without a key, records go to a partition
    /// chosen at random and kept for about a batch.
    pub fn key(mut self, key: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.key = Some(key.as_ref());
        self
    }

    /// What the record says.
    pub fn value(mut self, value: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.value = Some(value.as_ref());
        self
    }

    /// Names and values in order; names may repeat, `None` is null.
    pub fn headers(mut self, headers: &'a [(&'a str, Option<&'a [u8]>)]) -> Self {
        self.headers = headers;
        self
    }

    /// When it happened, in milliseconds since 1970; otherwise the time of `send`.
    pub fn timestamp_ms(mut self, timestamp_ms: i64) -> Self {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }

    /// The partition to write to, whatever the key.
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Bytes that it takes in a batch, at most.
    pub(super) fn size_bound(&self) -> usize {
        /// Lengths, deltas and counts of a record at their longest.
        const OVERHEAD: usize = 40;
        /// Lengths of a header at their longest.
        const HEADER_OVERHEAD: usize = 10;
        let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        let headers = self.headers.iter().map(|(name, value)| HEADER_OVERHEAD + name.len() + length(*value));
        OVERHEAD + length(self.key) + length(self.value) + headers.sum::<usize>()
    }
}
