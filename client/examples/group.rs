use taffrail_client::{Client, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let client = Client::connect("localhost:9094")?;
    let mut consumer = client.group_consumer("readers").topics(["greetings"]).follow(false).start().await?;
    while let Some(records) = consumer.next().await? {
        for record in records {
            let record = record?;
            println!("{}: {}", record.offset, String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()));
        }
        consumer.commit().await?; // these are processed: whoever goes on in the group begins behind them
    }
    consumer.close().await
}
