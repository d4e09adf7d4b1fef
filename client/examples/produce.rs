//! Sends ten records and tells where they are: `cargo run --example produce -- localhost:9092 orders`.

use taffrail_client::{Client, Record, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let endpoint = args.next().unwrap_or_else(|| "localhost:9092".to_owned());
    let topic = args.next().unwrap_or_else(|| "orders".to_owned());

    let producer = Client::connect(endpoint)?.producer().build()?;
    let mut receipts = Vec::new();
    for n in 0..10 {
        let (key, value) = (format!("customer-{}", n % 3), format!("order {n}"));
        receipts.push(producer.send(Record::to(&topic).key(&key).value(&value)).await?);
    }
    for receipt in receipts {
        let stored = receipt.await?;
        println!("partition {} offset {}", stored.partition, stored.offset.unwrap_or(-1));
    }
    producer.close().await
}
