//! What is counted for each call of the gRPC API.

use std::sync::atomic::AtomicI64;
use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use super::Histogram;

/// The calls of the API: the closed set behind the label `rpc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Rpc {
    Produce,
    ProduceStream,
    InitProducer,
    Fetch,
    Read,
    FetchStream,
    ListOffsets,
    EndOfEpoch,
    GetMetadata,
    WatchMetadata,
    CreateTopic,
    AlterTopic,
    DeleteTopic,
    UndeleteTopic,
    DescribeTopics,
    DeleteRecords,
    RecoverPartition,
    DescribeBroker,
    LastSeen,
    Consume,
    Session,
    CommitOffsets,
    FetchOffsets,
    ListGroups,
    DescribeGroup,
    DeleteGroup,
    ResetOffsets,
}

impl Rpc {
    /// All of them, in the order of the enum.
    pub const ALL: [Self; 27] = [
        Self::Produce,
        Self::ProduceStream,
        Self::InitProducer,
        Self::Fetch,
        Self::Read,
        Self::FetchStream,
        Self::ListOffsets,
        Self::EndOfEpoch,
        Self::GetMetadata,
        Self::WatchMetadata,
        Self::CreateTopic,
        Self::AlterTopic,
        Self::DeleteTopic,
        Self::UndeleteTopic,
        Self::DescribeTopics,
        Self::DeleteRecords,
        Self::RecoverPartition,
        Self::DescribeBroker,
        Self::LastSeen,
        Self::Consume,
        Self::Session,
        Self::CommitOffsets,
        Self::FetchOffsets,
        Self::ListGroups,
        Self::DescribeGroup,
        Self::DeleteGroup,
        Self::ResetOffsets,
    ];

    /// The label's value: service and method as in the `.proto`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Produce => "Producer/Produce",
            Self::ProduceStream => "Producer/ProduceStream",
            Self::InitProducer => "Producer/InitProducer",
            Self::Fetch => "Consumer/Fetch",
            Self::Read => "Consumer/Read",
            Self::FetchStream => "Consumer/FetchStream",
            Self::ListOffsets => "Consumer/ListOffsets",
            Self::EndOfEpoch => "Consumer/EndOfEpoch",
            Self::GetMetadata => "Metadata/Get",
            Self::WatchMetadata => "Metadata/Watch",
            Self::CreateTopic => "Admin/CreateTopic",
            Self::AlterTopic => "Admin/AlterTopic",
            Self::DeleteTopic => "Admin/DeleteTopic",
            Self::UndeleteTopic => "Admin/UndeleteTopic",
            Self::DescribeTopics => "Admin/DescribeTopics",
            Self::DeleteRecords => "Admin/DeleteRecords",
            Self::RecoverPartition => "Admin/RecoverPartition",
            Self::DescribeBroker => "Admin/DescribeBroker",
            Self::LastSeen => "Admin/LastSeen",
            Self::Consume => "Groups/Consume",
            Self::Session => "Groups/Session",
            Self::CommitOffsets => "Groups/CommitOffsets",
            Self::FetchOffsets => "Groups/FetchOffsets",
            Self::ListGroups => "Groups/ListGroups",
            Self::DescribeGroup => "Groups/DescribeGroup",
            Self::DeleteGroup => "Groups/DeleteGroup",
            Self::ResetOffsets => "Groups/ResetOffsets",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RpcLabels {
    pub(super) rpc: &'static str,
}

/// The numbers of one RPC.
#[derive(Clone, Debug)]
pub struct RpcMetrics {
    /// Calls begun; in a stream each frame that asks for something (a batch to append, a fetch answered).
    pub requests: Counter,
    /// Calls, or open streams, now.
    pub active: Gauge<i64, AtomicI64>,
    /// From the request's arrival to its answer; in a stream from a batch's arrival to its acknowledgement. A long poll
    /// counts with the time it waited.
    pub latency: Histogram,
}

impl RpcMetrics {
    /// Counts a unary call from now until the guard is dropped, on every way out.
    pub fn call(&self) -> Call<'_> {
        self.requests.inc();
        self.active.inc();
        Call { metrics: self, begun: Instant::now() }
    }

    /// Counts an open stream until the guard is dropped. Its frames are counted by `requests` and `latency`.
    pub fn stream(&self) -> OpenStream {
        self.active.inc();
        OpenStream { active: self.active.clone() }
    }
}

/// A unary call under way.
#[derive(Debug)]
pub struct Call<'a> {
    metrics: &'a RpcMetrics,
    begun: Instant,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.metrics.active.dec();
        self.metrics.latency.observe(self.begun.elapsed());
    }
}

/// A stream that is open.
#[derive(Debug)]
pub struct OpenStream {
    active: Gauge<i64, AtomicI64>,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.active.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_counted_on_every_way_out() {
        let (requests, active) = (Counter::default(), Gauge::default());
        let metrics = RpcMetrics { requests, active, latency: Histogram::latency() };
        {
            let _call = metrics.call();
            assert_eq!(metrics.active.get(), 1);
        }
        assert_eq!((metrics.requests.get(), metrics.active.get(), metrics.latency.count()), (1, 0, 1));
    }

    #[test]
    fn the_list_of_calls_is_in_the_order_of_the_enum() {
        for (position, rpc) in Rpc::ALL.into_iter().enumerate() {
            assert_eq!(rpc as usize, position);
        }
    }
}
