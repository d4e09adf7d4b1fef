//! Load on a broker without the client library: batches that are made once and sent over and over, so that the broker is
//! what is measured. Each connection is one `ProduceStream` or `FetchStream` with a window.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use hdrhistogram::Histogram;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use taffrail_proto::record::{BatchBuilder, Compression};
use taffrail_proto::v1::consumer_client::ConsumerClient;
use taffrail_proto::v1::producer_client::ProducerClient;
use taffrail_proto::v1::{
    self, fetch_stream_request, fetch_stream_response, produce_stream_request, produce_stream_response,
};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

const FRAME: u32 = 256 << 10;

/// Connects as a direct client does: large HTTP/2 frames and windows.
pub async fn connect(endpoint: &str) -> Result<Channel> {
    let endpoint = Endpoint::new(endpoint.to_owned())?
        .tcp_nodelay(true)
        .max_frame_size(FRAME)
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(16 << 20);
    Ok(endpoint.connect().await?)
}

/// A batch of records of `record_bytes` each, together about `batch_bytes` (before compression). Half of each value is random,
/// so that it compresses about 2:1, as OpenMessaging's payloads do.
pub fn batch(batch_bytes: usize, record_bytes: usize, compression: Compression) -> Result<Bytes> {
    let mut random = StdRng::seed_from_u64(7);
    let (mut builder, mut value) = (BatchBuilder::with_capacity(batch_bytes + record_bytes), vec![0; record_bytes]);
    loop {
        random.fill_bytes(&mut value[..record_bytes / 2]);
        builder.push(None, Some(&value), std::iter::empty(), 1_000)?;
        if builder.size() + record_bytes > batch_bytes {
            return Ok(builder.build(compression, None)?);
        }
    }
}

/// What to produce.
#[derive(Clone, Debug)]
pub struct ProduceLoad {
    /// Of the broker.
    pub endpoint: String,
    /// Where to.
    pub topic: String,
    /// Partitions of the topic that are written to, taken in turn.
    pub partitions: Vec<i32>,
    /// Sent over and over.
    pub batch: Bytes,
    /// Batches to send on each connection.
    pub batches: u64,
    /// Connections, each with one stream.
    pub connections: u32,
    /// Batches unanswered on each stream.
    pub window: usize,
    /// Batches a second over all connections; `None`: as many as go.
    pub pace: Option<f64>,
}

/// What a load did.
#[derive(Clone, Debug)]
pub struct Done {
    /// Bytes of batches.
    pub bytes: u64,
    /// From the first to the last.
    pub elapsed: Duration,
    /// From sending a batch to its answer, in microseconds.
    pub latency: Histogram<u64>,
}

impl Done {
    /// MB/s.
    pub fn rate(&self) -> f64 {
        self.bytes as f64 / self.elapsed.as_secs_f64() / 1e6
    }

    /// A percentile of the latency in milliseconds.
    pub fn latency_ms(&self, percentile: f64) -> f64 {
        self.latency.value_at_percentile(percentile) as f64 / 1000.0
    }
}

impl ProduceLoad {
    /// Produces; fails if the broker refuses a single batch.
    pub async fn run(&self) -> Result<Done> {
        let begin = Instant::now();
        let tasks: Vec<_> = (0..self.connections).map(|i| tokio::spawn(self.clone().stream(i))).collect();
        let mut latency = Histogram::new(3)?;
        for task in tasks {
            latency.add(task.await??)?;
        }
        let bytes = u64::from(self.connections) * self.batches * self.batch.len() as u64;
        Ok(Done { bytes, elapsed: begin.elapsed(), latency })
    }

    async fn stream(self, number: u32) -> Result<Histogram<u64>> {
        let size = usize::try_from(FRAME)? * 32;
        let mut client = ProducerClient::new(connect(&self.endpoint).await?).max_decoding_message_size(size);
        let (frames, receiver) = mpsc::channel(8);
        let open = v1::ProduceOpen { acks: v1::Acks::All as i32, client_id: "bench".into() };
        frames.send(frame(produce_stream_request::Frame::Open(open))).await?;
        let mut answers = client.produce_stream(ReceiverStream::new(receiver)).await?.into_inner();
        let (window, epoch) = (Arc::new(Semaphore::new(self.window)), Instant::now());
        let sent: Arc<Vec<AtomicU64>> =
            Arc::new((0..self.window.next_power_of_two() * 2).map(|_| AtomicU64::new(0)).collect());
        let (total, permits, stamps) = (self.batches, Arc::clone(&window), Arc::clone(&sent));
        let sender = tokio::spawn(async move {
            let pause = self.pace.map(|all| Duration::from_secs_f64(f64::from(self.connections) / all));
            for i in 0..self.batches {
                if let Some(pause) = pause {
                    tokio::time::sleep_until((epoch + pause * i as u32).into()).await;
                }
                permits.acquire().await?.forget();
                stamps[i as usize % stamps.len()].store(epoch.elapsed().as_nanos() as u64, Ordering::Relaxed);
                let partition = self.partitions[(i as usize + number as usize) % self.partitions.len()];
                let batch = v1::PartitionBatch {
                    correlation_id: i,
                    topic: self.topic.clone(),
                    partition,
                    batch: self.batch.clone(),
                    acks: 0,
                    leader_epoch: None,
                };
                let batches = v1::ProduceBatches { batches: vec![batch] };
                frames
                    .send(frame(produce_stream_request::Frame::Batches(batches)))
                    .await
                    .context("the stream ended")?;
            }
            anyhow::Ok(())
        });
        let (mut latency, mut answered) = (Histogram::new(3)?, 0);
        while answered < total {
            let answer = answers.message().await?.context("the broker ended the stream")?;
            let Some(produce_stream_response::Frame::Acks(acks)) = answer.frame else { continue };
            for ack in &acks.acks {
                if !matches!(ack.outcome, Some(v1::produce_ack::Outcome::Appended(_))) {
                    bail!("batch {} was refused: {:?}", ack.correlation_id, ack.outcome);
                }
                let begin = sent[ack.correlation_id as usize % sent.len()].load(Ordering::Relaxed);
                latency.record((epoch.elapsed().as_nanos() as u64).saturating_sub(begin) / 1000)?;
            }
            answered += acks.acks.len() as u64;
            window.add_permits(acks.acks.len());
        }
        sender.await??;
        Ok(latency)
    }
}

fn frame(frame: produce_stream_request::Frame) -> v1::ProduceStreamRequest {
    v1::ProduceStreamRequest { frame: Some(frame) }
}

/// Fetches the partitions of a topic from offset 0 until `bytes` have come; one stream for each connection, which takes every
/// n-th partition.
pub async fn fetch(endpoint: &str, topic: &str, partitions: &[i32], connections: usize, bytes: u64) -> Result<Done> {
    let begin = Instant::now();
    let wanted = bytes / connections as u64;
    let mut tasks = vec![];
    for number in 0..connections {
        let own: Vec<i32> = partitions.iter().copied().skip(number).step_by(connections).collect();
        tasks.push(tokio::spawn(fetch_stream(endpoint.to_owned(), topic.to_owned(), own, wanted)));
    }
    let mut total = 0;
    for task in tasks {
        total += task.await??;
    }
    Ok(Done { bytes: total, elapsed: begin.elapsed(), latency: Histogram::new(1)? })
}

async fn fetch_stream(endpoint: String, topic: String, partitions: Vec<i32>, wanted: u64) -> Result<u64> {
    const CREDIT: u64 = 16 << 20;
    let mut client = ConsumerClient::new(connect(&endpoint).await?).max_decoding_message_size(64 << 20);
    let (frames, receiver) = mpsc::channel(partitions.len() + 64);
    let send = |frame| frames.try_send(v1::FetchStreamRequest { frame: Some(frame) }).map_err(|e| anyhow!("{e}"));
    let open = v1::FetchOpen { credit_bytes: CREDIT, client_id: "bench".into(), ..Default::default() };
    send(fetch_stream_request::Frame::Open(open))?;
    for &partition in &partitions {
        let partition = v1::FetchPartition { topic: topic.clone(), partition, ..Default::default() };
        send(fetch_stream_request::Frame::Add(v1::FetchAdd { subscription: 1, partition: Some(partition) }))?;
    }
    let mut answers = client.fetch_stream(ReceiverStream::new(receiver)).await?.into_inner();
    let (mut total, mut used) = (0, 0);
    while total < wanted {
        let answer = answers.message().await?.context("the broker ended the stream")?;
        let Some(fetch_stream_response::Frame::Data(data)) = answer.frame else { continue };
        if let Some(error) = data.error {
            bail!("partition {}: {}", data.partition, error.message);
        }
        let bytes: u64 = data.batches.iter().map(|batch| batch.len() as u64).sum();
        total += bytes;
        used += bytes;
        if used > CREDIT / 4 {
            send(fetch_stream_request::Frame::Credit(v1::FetchCredit { bytes: used }))?;
            used = 0;
        }
    }
    Ok(total)
}
