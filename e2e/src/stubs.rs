//! Single calls with nothing but the generated stubs: no retries, no caches, the broker's own answer.

use taffrail_client::Error;
use taffrail_proto::v1::consumer_client::ConsumerClient;
use taffrail_proto::v1::producer_client::ProducerClient;
use taffrail_proto::v1::{FetchPartition, FetchRequest, PartitionData, ProduceRequest, Record, StoredRecord};

/// Appends one record to partition 0 and gives its offset.
pub async fn produce(endpoint: &str, topic: &str, value: &[u8]) -> Result<i64, Error> {
    let mut client = ProducerClient::connect(endpoint.to_owned()).await.map_err(unreachable)?;
    let record = Record { value: Some(value.to_vec().into()), ..Record::default() };
    let records = vec![record];
    let request = ProduceRequest { topic: topic.to_owned(), partition: Some(0), records, ..ProduceRequest::default() };
    let response = client.produce(request).await?.into_inner();
    match response.results.into_iter().next().and_then(|result| result.outcome) {
        Some(taffrail_proto::v1::produce_result::Outcome::Appended(appended)) => Ok(appended.base_offset.unwrap_or(-1)),
        Some(taffrail_proto::v1::produce_result::Outcome::Error(error)) => Err(error.into()),
        None => Err(tonic::Status::internal("an answer without a result").into()),
    }
}

/// What there is from a position of a partition on.
pub async fn fetch(endpoint: &str, position: FetchPartition) -> Result<PartitionData, Error> {
    let mut client = ConsumerClient::connect(endpoint.to_owned()).await.map_err(unreachable)?;
    let request = FetchRequest { partitions: vec![position], plain: true, max_wait_ms: 100, ..FetchRequest::default() };
    let response = client.fetch(request).await?.into_inner();
    let data =
        response.partitions.into_iter().next().ok_or_else(|| tonic::Status::internal("an answer without data"))?;
    match data.error {
        Some(error) => Err(error.into()),
        None => Ok(data),
    }
}

/// The records at an offset of partition 0 and after.
pub async fn read_at(endpoint: &str, topic: &str, offset: i64) -> Result<Vec<StoredRecord>, Error> {
    let position = FetchPartition { topic: topic.to_owned(), offset, ..FetchPartition::default() };
    Ok(fetch(endpoint, position).await?.records)
}

/// Why a reader is turned away that has read up to `offset` of partition 0 under `last_epoch`; `None`: it is not.
pub async fn refusal_of_reader(endpoint: &str, topic: &str, offset: i64, last_epoch: i32) -> Option<Error> {
    let last_epoch = Some(last_epoch);
    let position = FetchPartition { topic: topic.to_owned(), offset, last_epoch, ..FetchPartition::default() };
    fetch(endpoint, position).await.err()
}

fn unreachable(error: tonic::transport::Error) -> Error {
    tonic::Status::from_error(error.into()).into()
}
