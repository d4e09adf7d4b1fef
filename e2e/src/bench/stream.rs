//! What gRPC lets through: the broker's own connections and codec, with as little behind them as there can be.

use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use taffrail_proto::record::Compression;
use taffrail_proto::v1::consumer_client::ConsumerClient;
use taffrail_proto::v1::producer_client::ProducerClient;
use taffrail_proto::v1::{
    self, Acks, fetch_stream_request, fetch_stream_response, produce_stream_request, produce_stream_response,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::figures::Figures;
use super::limits::{self, rate};
use super::load::{ProduceLoad, batch, connect};
use super::sitting::{MIB, Sitting, used};
use crate::process::Broker;

const TOPIC: &str = "stream";
/// Less than the broker keeps of recent batches: never read from the disk.
const RECENT: u64 = 32 * MIB;
const MESSAGE: usize = 256 << 10;

/// The rows about streams over gRPC.
pub async fn run(sitting: &Sitting, figures: &mut Figures) -> Result<()> {
    let broker = sitting.broker("stream", &[(TOPIC, 1, "")], &[])?;
    let bytes = sitting.bytes * 2;
    fill(&broker).await?;
    for _ in 0..sitting.rounds {
        let l_tcp = figures.limit("L_tcp", tokio::task::spawn_blocking(move || limits::tcp(bytes)).await??);
        let recording = sitting.record(&["grpc-push"], &[broker.pid(), std::process::id()])?;
        let (push, usage) = used(&broker, push(&broker, bytes)).await?;
        sitting.keep(recording)?;
        let note = "256 KiB messages, dropped where they would be checked";
        figures.add("grpc-push", push / l_tcp, &format!("{push:.0} MB/s; {note}"));
        figures.cpu("grpc-push", usage.cpu_per_gib(bytes));
        let recording = sitting.record(&["grpc-pull"], &[broker.pid(), std::process::id()])?;
        let (pull, usage) = used(&broker, pull(&broker, bytes)).await?;
        sitting.keep(recording)?;
        figures.add("grpc-pull", pull / l_tcp, &format!("{pull:.0} MB/s; batches of 64 KiB from memory"));
        figures.cpu("grpc-pull", usage.cpu_per_gib(bytes));
    }
    sitting.discard(broker)
}

async fn fill(broker: &Broker) -> Result<()> {
    let batch = batch(64 << 10, 1 << 10, Compression::None)?;
    let load = ProduceLoad {
        endpoint: broker.endpoint(),
        topic: TOPIC.into(),
        partitions: vec![0],
        batches: RECENT / batch.len() as u64,
        batch,
        connections: 1,
        window: 20,
        pace: None,
    };
    load.run().await.map(|_| ())
}

/// Sends batches to a topic that is not there and wants no answer, but for the last: everything arrives, is decoded and
/// counted against the memory limit, and dropped.
async fn push(broker: &Broker, bytes: u64) -> Result<f64> {
    let mut client = ProducerClient::new(connect(&broker.endpoint()).await?);
    let (frames, receiver) = mpsc::channel(8);
    let open = v1::ProduceOpen { acks: Acks::None as i32, client_id: "bench".into() };
    let frame = |frame| v1::ProduceStreamRequest { frame: Some(frame) };
    frames.send(frame(produce_stream_request::Frame::Open(open))).await?;
    let mut answers = client.produce_stream(ReceiverStream::new(receiver)).await?.into_inner();
    let (message, messages, begin) = (Bytes::from(vec![7; MESSAGE]), bytes / MESSAGE as u64, Instant::now());
    for i in 1..=messages {
        let batch = v1::PartitionBatch {
            correlation_id: i,
            topic: "nowhere".into(),
            batch: message.clone(),
            acks: if i == messages { Acks::All as i32 } else { 0 },
            ..v1::PartitionBatch::default()
        };
        let batches = v1::ProduceBatches { batches: vec![batch] };
        frames.send(frame(produce_stream_request::Frame::Batches(batches))).await.context("the stream ended")?;
    }
    loop {
        let answer = answers.message().await?.context("the broker ended the stream")?;
        if let Some(produce_stream_response::Frame::Acks(acks)) = answer.frame {
            let last = acks.acks.first().map(|ack| ack.correlation_id);
            anyhow::ensure!(last == Some(messages), "an answer for {last:?} of {messages}");
            return Ok(rate(bytes, begin));
        }
    }
}

/// Fetches a partition that is in the broker's memory, again and again.
async fn pull(broker: &Broker, bytes: u64) -> Result<f64> {
    const CREDIT: u64 = 16 << 20;
    let mut client = ConsumerClient::new(connect(&broker.endpoint()).await?).max_decoding_message_size(64 << 20);
    let (frames, receiver) = mpsc::channel(64);
    let send = |frame| frames.try_send(v1::FetchStreamRequest { frame: Some(frame) }).map_err(|e| anyhow!("{e}"));
    let from_start = || {
        let partition = v1::FetchPartition { topic: TOPIC.into(), ..Default::default() };
        fetch_stream_request::Frame::Add(v1::FetchAdd { subscription: 1, partition: Some(partition) })
    };
    let open = v1::FetchOpen { credit_bytes: CREDIT, client_id: "bench".into(), ..Default::default() };
    send(fetch_stream_request::Frame::Open(open))?;
    send(from_start())?;
    let begin = Instant::now();
    let mut answers = client.fetch_stream(ReceiverStream::new(receiver)).await?.into_inner();
    let (mut total, mut unpaid) = (0, 0);
    while total < bytes {
        let answer = answers.message().await?.context("the broker ended the stream")?;
        let Some(fetch_stream_response::Frame::Data(data)) = answer.frame else { continue };
        if let Some(error) = data.error {
            bail!("the broker refuses: {}", error.message);
        }
        let got: u64 = data.batches.iter().map(|batch| batch.len() as u64).sum();
        let offset = data.batches.last().map(|last| taffrail_proto::record::BatchHeader::parse(last)).transpose()?;
        if offset.is_some_and(|last| last.next_offset() >= data.high_watermark) {
            send(from_start())?;
        }
        total += got;
        unpaid += got;
        if unpaid > CREDIT / 4 {
            send(fetch_stream_request::Frame::Credit(v1::FetchCredit { bytes: unpaid }))?;
            unpaid = 0;
        }
    }
    Ok(rate(total, begin))
}
