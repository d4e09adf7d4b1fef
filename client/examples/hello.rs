use taffrail_client::{Client, Position, Record};

#[tokio::main]
async fn main() -> taffrail_client::Result<()> {
    let client = Client::connect("localhost:9094")?;

    let producer = client.producer().build()?; // idempotent: what is sent twice is stored once
    let receipt = producer.send(Record::to("greetings").key("rust").value("hello from Rust")).await?;
    println!("stored at offset {:?}", receipt.await?.offset);
    producer.close().await?;

    let mut consumer = client.consumer().topic("greetings").from(Position::Earliest).follow(false).build().await?;
    while let Some(record) = consumer.next().await {
        let record = record?;
        println!("{}: {}", record.offset, String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()));
    }
    Ok(())
}
