//! Prints all records of a topic and waits for more: `cargo run --example consume -- localhost:9092 orders`.

use taffrail_client::{Client, Position, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let endpoint = args.next().unwrap_or_else(|| "localhost:9092".to_owned());
    let topic = args.next().unwrap_or_else(|| "orders".to_owned());

    let client = Client::connect(endpoint)?;
    let mut consumer = client.consumer().topic(topic).from(Position::Earliest).build().await?;
    while let Some(record) = consumer.next().await {
        let record = record?;
        let value = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default());
        println!("partition {} offset {}: {value}", record.partition, record.offset);
    }
    Ok(())
}
