//! The figures that the bench takes, with what they must reach and what is aimed at. Sources: the limits of the machine itself
//! and, for the absolute ones, what a prototype of the storage layout and the field's brokers reached on the same machines.

use super::report::Better;
use super::results::{Limit, Taken};

/// A figure and its bounds.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Name in the code and of files.
    pub id: &'static str,
    /// What is measured.
    pub title: &'static str,
    /// Unit; "" for ratios.
    pub unit: &'static str,
    /// Durability class, or "-".
    pub durability: &'static str,
    /// Which way is good.
    pub better: Better,
    /// What must be reached.
    pub must: f64,
    /// What is aimed at.
    pub aim: f64,
}

type Definition = (&'static str, &'static str, &'static str, &'static str, Better, f64, f64);

const H: Better = Better::Higher;
const L: Better = Better::Lower;

const FIGURES: &[Definition] = &[
    ("engine-append", "engine append, 64 KiB, 256 partitions, until drained / L_disk", "", "os", H, 0.65, 0.9),
    ("amplification-os", "device bytes written / bytes appended", "", "os", L, 1.25, 1.05),
    ("amplification-disk", "device bytes written / bytes appended", "", "disk", L, 2.1, 2.0),
    ("engine-4k", "engine, 1 MiB groups, batches of 4 KiB", "MB/s", "os", H, 600.0, 800.0),
    ("engine-1k", "engine, 1 MiB groups, batches of 1 KiB", "MB/s", "os", H, 350.0, 500.0),
    ("cold-read-one", "cold read of one log of 256 / O_DIRECT read", "", "-", H, 0.7, 0.95),
    ("cold-read-waste", "cold read of one log: device bytes / useful byte", "", "-", L, 1.1, 1.02),
    ("cold-read-all", "cold read of 256 logs by 16 readers / O_DIRECT read", "", "-", H, 0.8, 0.95),
    ("mixed-disk", "mixed retention: disk bytes / live bytes", "", "os", L, 2.0, 1.5),
    ("mixed-amplification", "mixed retention: write amplification", "", "os", L, 1.6, 1.3),
    ("grpc-push", "gRPC stream, push / L_tcp", "", "-", H, 0.85, 1.0),
    ("grpc-pull", "gRPC stream, pull / L_tcp", "", "-", H, 0.85, 1.0),
    ("produce-os", "produce, 64 KiB batches of 1 KiB records / L_srv", "", "os", H, 1.0, 1.3),
    ("produce-os-disk", "produce, 64 KiB batches of 1 KiB records / L_disk", "", "os", H, 0.6, 0.8),
    ("produce-lz4", "produce, 64 KiB batches of 1 KiB records, lz4 / L_srv", "", "os", H, 1.0, 1.3),
    ("produce-disk", "produce, 1 MiB groups / (1/(1/L_sync + 1/L_disk))", "", "disk", H, 0.7, 0.85),
    ("cpu-produce", "broker CPU while producing 64 KiB batches", "s/GiB", "os", L, 1.6, 1.0),
    ("cpu-produce-lz4", "broker CPU while producing 64 KiB batches, lz4", "s/GiB", "os", L, 1.6, 1.0),
    ("small-one", "100-byte records through the client, one producer, 16 partitions", "M/s", "os", H, 1.0, 2.0),
    ("small-many", "100-byte records through the client, four producers", "M/s", "os", H, 2.0, 4.0),
    ("tail-p50", "produce → consume at 1,000 records/s, p50", "ms", "os", L, 1.0, 0.3),
    ("tail-p99", "produce → consume at 1,000 records/s, p99", "ms", "os", L, 5.0, 2.0),
    ("many-start", "10,000 partitions, 20 GB, ≥ 300 epochs: start after SIGKILL", "s", "-", L, 10.0, 3.0),
    ("many-memory", "10,000 partitions, 20 GB: resident memory after the start", "MiB", "-", L, 1024.0, 512.0),
    ("many-throughput", "10,000 partitions: throughput / that of 16 partitions", "", "os", H, 0.7, 0.9),
    ("rest-empty", "resident memory 60 s after start, 16 empty partitions", "MiB", "-", L, 100.0, 40.0),
    ("rest-used", "resident memory after 4 GiB of produce and 60 s of rest", "MiB", "-", L, 400.0, 200.0),
    ("group-first", "group of 8 on 64 partitions: time until each partition has an owner", "s", "os", L, 1.0, 0.2),
    ("group-gap", "a member leaves, 1,000 records/s a partition: others' largest gap", "ms", "os", L, 100.0, 30.0),
    ("group-consume", "consume through a group / without", "", "os", H, 0.9, 1.0),
    ("group-commits", "commits of one offset each", "1/s", "os", H, 10_000.0, 50_000.0),
    ("group-start", "coordinator with 100,000 offsets: start after SIGKILL", "s", "-", L, 2.0, 0.5),
    ("group-heartbeats", "heartbeats of 1,000 groups of 10: broker CPU, of one core", "%", "-", L, 10.0, 3.0),
    ("group-memory", "resident memory for each member of 10,000", "KiB", "-", L, 8.0, 4.0),
    ("group-memory-open", "the same while each has a stream open", "KiB", "-", L, 16.0, 8.0),
    ("hostile-memory", "10,000 idle and 200 hostile clients: resident / memory limit", "", "-", L, 1.1, 1.0),
    ("hostile-p99", "10,000 idle and 200 hostile clients: honest p99 / before", "", "os", L, 2.0, 1.2),
    ("cluster-ready", "Cluster applied, three broker processes started: until all are ready", "s", "-", L, 15.0, 5.0),
    ("topic-ready-p50", "Topic applied until Ready, p50", "s", "-", L, 1.0, 0.5),
    ("topic-ready-p99", "Topic applied until Ready, p99", "s", "-", L, 3.0, 1.0),
    ("topics-ready", "1,000 Topics applied at once: from the last until all are Ready", "s", "-", L, 60.0, 10.0),
    ("topic-writes", "writes to the API for each of them", "", "-", L, 8.0, 4.0),
    ("idle-writes", "writes to the API in ten idle minutes, other than to Leases", "", "-", L, 0.0, 0.0),
    ("operator-memory", "resident memory of the operator after that", "MiB", "-", L, 128.0, 64.0),
    ("forward-cpu", "produce that is passed on / direct: CPU of all brokers", "", "os", L, 2.0, 1.5),
    ("forward-p50", "produce that is passed on / direct: p50", "", "os", L, 2.0, 1.5),
    ("replicated-produce", "produce, three replicas, 64 KiB batches / (L_disk / 3)", "", "os", H, 0.5, 0.8),
    ("replicated-cpu", "CPU of replication, for each follower", "s/GiB", "os", L, 1.5, 1.0),
    ("replicated-p50", "produce at 100 MB/s, three replicas, p50", "ms", "os", L, 3.0, 1.0),
    ("replicated-p99", "produce at 100 MB/s, three replicas, p99", "ms", "os", L, 10.0, 5.0),
    ("replicated-client", "1 KiB records through the client, three replicas, acks all", "MB/s", "os", H, 248.0, 372.0),
    ("gap-leader", "a leader is killed: longest time without an ack of a partition", "s", "os", L, 8.0, 7.0),
    ("gap-controller", "a leader that is controller too is killed: the same", "s", "os", L, 12.0, 10.0),
    ("gap-tuned", "the same with a session of 1.5 s and a Lease of 2 s", "s", "os", L, 3.0, 2.5),
    ("gap-handover", "a leader stops in good order: the same", "ms", "os", L, 300.0, 100.0),
    ("roll-failed", "rolling restart of three brokers: acks that failed", "", "os", L, 0.0, 0.0),
    ("roll-p99", "rolling restart of three brokers: p99 of acks", "ms", "os", L, 1_000.0, 100.0),
    ("led-anew-large", "10,000 partitions of one topic: all led after a broker was killed", "s", "os", L, 10.0, 8.0),
    ("led-anew-small", "1,000 topics of 10 partitions: the same", "s", "os", L, 10.0, 8.0),
    ("catch-up", "an empty replica catches up, nothing else runs / L_disk", "", "os", H, 0.2, 0.4),
    ("catch-up-beside", "an empty replica catches up beside producers", "MB/s", "os", H, 50.0, 100.0),
    ("catch-up-producers", "what the producers keep of half their maximum meanwhile", "", "os", H, 0.9, 1.0),
];

/// All figures in the order of the report.
pub fn all() -> impl Iterator<Item = Figure> {
    FIGURES.iter().map(|&(id, title, unit, durability, better, must, aim)| Figure {
        id,
        title,
        unit,
        durability,
        better,
        must,
        aim,
    })
}

/// The figure of this name.
pub fn find(id: &str) -> Option<Figure> {
    all().find(|figure| figure.id == id)
}

/// What one run takes, as it comes in.
#[derive(Debug, Default)]
pub struct Figures {
    part: String,
    at: String,
    rows: Vec<Taken>,
    limits: Vec<Limit>,
}

impl Figures {
    /// From now on samples belong to this part. `at`: the time, for the report.
    pub fn begin(&mut self, part: &str, at: &str) {
        part.clone_into(&mut self.part);
        at.clone_into(&mut self.at);
    }

    /// Adds a sample. `note` says what is behind it; the last one given is kept.
    ///
    /// # Panics
    ///
    /// If no such figure is defined.
    pub fn add(&mut self, id: &str, sample: f64, note: &str) {
        let figure = find(id).expect("a figure that is defined");
        println!("  {id}: {sample:.3} {}  {note}", figure.unit);
        if let Some(row) = self.rows.iter_mut().find(|row| row.id == id) {
            row.samples.push(sample);
            note.clone_into(&mut row.note);
            return;
        }
        self.rows.push(Taken {
            id: id.to_owned(),
            part: self.part.clone(),
            at: self.at.clone(),
            samples: vec![sample],
            cpu_s_per_gib: vec![],
            note: note.to_owned(),
        });
    }

    /// Adds the CPU time that went with the last sample of a figure.
    pub fn cpu(&mut self, id: &str, seconds_per_gib: f64) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.id == id) {
            row.cpu_s_per_gib.push(seconds_per_gib);
        }
    }

    /// Adds a limit of the machine, in MB/s, and gives it back.
    pub fn limit(&mut self, name: &str, rate: f64) -> f64 {
        println!("  {name}: {rate:.0} MB/s");
        let (part, found) = (&self.part, |limit: &&mut Limit| limit.name == name && limit.part == self.part);
        if let Some(limit) = self.limits.iter_mut().find(found) {
            limit.samples.push(rate);
        } else {
            self.limits.push(Limit { name: name.to_owned(), part: part.clone(), samples: vec![rate] });
        }
        rate
    }

    /// Figures that miss what they must reach.
    pub fn missed(&self) -> Vec<&'static str> {
        let missed = |row: &Taken| find(&row.id).filter(|figure| !figure.better.reaches(row.median(), figure.must));
        self.rows.iter().filter_map(missed).map(|figure| figure.id).collect()
    }

    /// All that was taken.
    pub fn finish(self) -> (Vec<Taken>, Vec<Limit>) {
        (self.rows, self.limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_the_aim_is_never_easier_than_the_bound() {
        for (i, figure) in all().enumerate() {
            assert_eq!(all().position(|other| other.id == figure.id), Some(i), "{} is there twice", figure.id);
            assert!(figure.better.reaches(figure.aim, figure.must), "{}", figure.id);
        }
    }

    #[test]
    fn the_median_decides_what_is_missed() {
        let mut figures = Figures::default();
        figures.begin("engine", "now");
        for sample in [0.1, 0.9, 0.8] {
            figures.add("engine-append", sample, "");
            figures.add("engine-4k", sample, "");
        }
        figures.add("rest-empty", 1e6, "");
        assert_eq!(figures.missed(), ["engine-4k", "rest-empty"]);
    }
}
