//! A producer's settings, their defaults and the reasons for them.

use std::sync::Arc;
use std::time::Duration;

use taffrail_proto::record::Compression;
use taffrail_proto::v1;

use super::Producer;
use crate::client::Shared;
use crate::error::{Error, ErrorKind, Result};

/// What is promised of a record, in one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// Sent once, never again: a fault loses records. Acks default to [`Acks::None`].
    AtMostOnce,
    /// Sent until the broker says it is stored: a fault may store it twice.
    AtLeastOnce,
    /// Sent until it is stored, and stored once, in the order of the sends (Kafka's idempotent producer).
    #[default]
    ExactlyOnce,
}

/// What must have happened before a record counts as sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Acks {
    /// It was handed to the network. Only with [`Delivery::AtMostOnce`].
    None,
    /// The partition's leader has stored it.
    Leader,
    /// Every replica that is in sync has stored it.
    All,
}

impl Acks {
    pub(super) fn to_wire(self) -> v1::Acks {
        match self {
            Self::None => v1::Acks::None,
            Self::Leader => v1::Acks::Leader,
            Self::All => v1::Acks::All,
        }
    }
}

/// Settings, checked.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) delivery: Delivery,
    pub(super) acks: Acks,
    pub(super) compression: Compression,
    pub(super) linger: Duration,
    pub(super) batch_size: usize,
    pub(super) buffer_memory: usize,
    pub(super) delivery_timeout: Duration,
    pub(super) max_in_flight: usize,
}

/// Settings of a [`Producer`]; from [`Client::producer`](crate::Client::producer).
#[derive(Clone)]
#[must_use = "a builder makes nothing until `build`"]
pub struct ProducerBuilder {
    shared: Arc<Shared>,
    acks: Option<Acks>,
    settings: Settings,
}

impl ProducerBuilder {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let settings = Settings {
            delivery: Delivery::default(),
            acks: Acks::All,
            compression: Compression::None,
            linger: Duration::from_millis(5),
            batch_size: 64 << 10,
            buffer_memory: 32 << 20,
            delivery_timeout: Duration::from_mins(2),
            max_in_flight: 5,
        };
        Self { shared, acks: None, settings }
    }

    /// The promise. Default: [`Delivery::ExactlyOnce`].
    pub fn delivery(mut self, delivery: Delivery) -> Self {
        self.settings.delivery = delivery;
        self
    }

    /// Default: [`Acks::All`]; with [`Delivery::AtMostOnce`], [`Acks::None`].
    pub fn acks(mut self, acks: Acks) -> Self {
        self.acks = Some(acks);
        self
    }

    /// Default: none, which costs no time; LZ4 pays wherever the network or the disk is the bound.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.settings.compression = compression;
        self
    }

    /// How long a record may wait for others to share its batch. Default 5 ms (Kafka's since 4.0: batches are 10 and more
    /// times larger at moderate load, for less delay than a person sees); 0 where each millisecond counts.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.settings.linger = linger;
        self
    }

    /// Bytes at which a batch is sent without waiting longer. Default 64 KiB: a round trip and a group commit cost the
    /// same for it as for a small one, and larger ones gain little more and wait longer. 1 KiB to 16 MiB.
    pub fn batch_size(mut self, bytes: usize) -> Self {
        self.settings.batch_size = bytes;
        self
    }

    /// Bytes of records that may wait for an answer, all partitions together; `send` waits when they are reached.
    /// Default 32 MiB. At least four batches.
    pub fn buffer_memory(mut self, bytes: usize) -> Self {
        self.settings.buffer_memory = bytes;
        self
    }

    /// When a record that is not acknowledged fails, retries and waiting included. Default 2 min.
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.settings.delivery_timeout = timeout;
        self
    }

    /// Batches of one partition that may be unanswered. Default 5, as many as a broker knows the offsets of: with more,
    /// a retry may find a batch stored and not learn its offset. 1 to 1,000.
    pub fn max_in_flight(mut self, batches: usize) -> Self {
        self.settings.max_in_flight = batches;
        self
    }

    /// Starts the producer. Does not wait for a broker: the first `send` to a topic does.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn build(mut self) -> Result<Producer> {
        let at_most_once = self.settings.delivery == Delivery::AtMostOnce;
        self.settings.acks = self.acks.unwrap_or(if at_most_once { Acks::None } else { Acks::All });
        self.settings.validate()?;
        Ok(Producer::start(self.shared, self.settings))
    }
}

impl Settings {
    fn validate(&self) -> Result<()> {
        let fault = |message: String| Err(Error::local(ErrorKind::InvalidArgument, message));
        if self.acks == Acks::None && self.delivery != Delivery::AtMostOnce {
            return fault(format!("acks none cannot keep {:?}: use Delivery::AtMostOnce or other acks", self.delivery));
        }
        if !(1 << 10..=16 << 20).contains(&self.batch_size) {
            return fault(format!("batch_size is {} bytes: choose 1 KiB to 16 MiB", self.batch_size));
        }
        if self.buffer_memory < 4 * self.batch_size {
            let (memory, batch) = (self.buffer_memory, self.batch_size);
            return fault(format!("buffer_memory is {memory} bytes: choose at least four times batch_size ({batch})"));
        }
        if !(1..=1_000).contains(&self.max_in_flight) {
            return fault(format!("max_in_flight is {}: choose 1 to 1000", self.max_in_flight));
        }
        if self.delivery_timeout <= self.linger {
            return fault(format!("delivery_timeout is {:?}: choose more than linger", self.delivery_timeout));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Client;

    #[tokio::test]
    async fn contradictions_are_refused_with_advice() {
        let client = Client::connect("localhost").unwrap();
        let builders = [
            client.producer().acks(Acks::None),
            client.producer().batch_size(10),
            client.producer().buffer_memory(100_000),
            client.producer().max_in_flight(0),
            client.producer().delivery_timeout(Duration::ZERO),
        ];
        for builder in builders {
            let error = builder.build().err().expect("a contradiction is refused");
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        }
        assert!(client.producer().delivery(Delivery::AtMostOnce).build().is_ok());
    }
}
