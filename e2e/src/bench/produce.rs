//! Produce end to end over gRPC, against what TCP, CRC and an append take (L_srv) and against the disk.

use anyhow::Result;
use taffrail_proto::record::Compression;

use super::figures::Figures;
use super::limits;
use super::load::{ProduceLoad, batch};
use super::sitting::{MIB, Sitting, used};

/// The rows about throughput of produce, its CPU time and its write amplification.
pub async fn run(sitting: &Sitting, figures: &mut Figures) -> Result<()> {
    for _ in 0..sitting.rounds {
        let (dir, bytes) = (sitting.folder("limits")?, sitting.bytes / 2);
        let l_disk = figures.limit("L_disk", limits::disk_append(&dir, bytes)?);
        let l_sync = figures.limit("L_sync", limits::sync_overwrite(&dir, bytes / 2)?);
        let l_srv = figures.limit("L_srv", limits::server(&dir, bytes)?);
        std::fs::remove_dir_all(dir)?;
        for (compression, ratio, cpu) in
            [(Compression::None, "produce-os", "cpu-produce"), (Compression::Lz4, "produce-lz4", "cpu-produce-lz4")]
        {
            let (rate, usage, p99) =
                produce(sitting, &[ratio, cpu, "produce-os-disk"], "", (compression, 64 << 10, 2)).await?;
            let note = format!("{rate:.0} MB/s, p99 {p99:.1} ms, two streams of 20");
            figures.add(ratio, rate / l_srv, &note);
            figures.cpu(ratio, usage.0);
            figures.add(cpu, usage.0, &note);
            if compression == Compression::None {
                figures.add("produce-os-disk", rate / l_disk, &note);
                figures.add("amplification-os", usage.1, "64 KiB batches over gRPC, write-ahead log included");
            }
        }
        let bound = 1.0 / (1.0 / l_sync + 1.0 / l_disk);
        let (rate, usage, p99) =
            produce(sitting, &["produce-disk"], "durability: disk", (Compression::None, 256 << 10, 4)).await?;
        figures.add("produce-disk", rate / bound, &format!("{rate:.0} MB/s, p99 {p99:.1} ms, 256 KiB batches"));
        figures.cpu("produce-disk", usage.0);
        figures.add("amplification-disk", usage.1, "256 KiB batches over gRPC, write-ahead log included");
    }
    Ok(())
}

/// Rate in MB/s; CPU seconds a GiB and write amplification; p99 in milliseconds.
async fn produce(
    sitting: &Sitting,
    figures: &[&str],
    config: &str,
    (compression, batch_bytes, connections): (Compression, usize, u32),
) -> Result<(f64, (f64, f64), f64)> {
    let broker = sitting.broker("produce", &[("load", 16, config)], &[])?;
    let batch = batch(batch_bytes, 1 << 10, compression)?;
    let mut load = ProduceLoad {
        endpoint: broker.endpoint(),
        topic: "load".into(),
        partitions: (0..16).collect(),
        batches: 256 * MIB / batch.len() as u64 / u64::from(connections),
        batch,
        connections,
        window: 20,
        pace: None,
    };
    load.run().await?;
    load.batches = sitting.bytes / load.batch.len() as u64 / u64::from(connections);
    let recording = sitting.record(figures, &[broker.pid()])?;
    let (done, usage) = used(&broker, load.run()).await?;
    sitting.keep(recording)?;
    let amplification = usage.written as f64 / done.bytes as f64;
    let result = (done.rate(), (usage.cpu_per_gib(done.bytes), amplification), done.latency_ms(99.0));
    sitting.discard(broker)?;
    Ok(result)
}
