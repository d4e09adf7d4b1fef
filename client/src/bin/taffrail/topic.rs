//! `taffrail topic`: makes, shows, changes and removes topics.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use taffrail_client::{Admin, Client, NewTopic, TopicChange, TopicDescription};
use taffrail_crds::manifest;

use crate::output::{self, Format};
use crate::replicas::{Replicas, numbers};

#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// Makes a topic.
    Create(Create),
    /// Lists topics.
    #[command(visible_alias = "ls")]
    List {
        /// Those in the trash too.
        #[arg(long)]
        deleted: bool,
        /// How to print.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Shows a topic's partitions, their replicas, and its configuration.
    Describe {
        /// Names of topics.
        #[arg(required = true)]
        names: Vec<String>,
        /// Configuration that is at its default too.
        #[arg(long)]
        all: bool,
        /// How to print.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Adds partitions, changes the number of replicas and configuration.
    Alter(Alter),
    /// Says which replica leads a partition that has no leader and waits for a person. Records may be lost.
    Recover(Recover),
    /// Puts a topic in the trash; `undelete` brings it back for its trash window (default 24 h).
    Delete {
        /// Name of the topic.
        name: String,
        /// Do not fail if there is no such topic.
        #[arg(long)]
        if_exists: bool,
    },
    /// Brings a topic back from the trash, with its records and offsets.
    Undelete {
        /// Name it had; the one deleted last counts.
        #[arg(required_unless_present = "id")]
        name: Option<String>,
        /// Its id instead (`topic list --deleted`).
        #[arg(long, conflicts_with = "name")]
        id: Option<String>,
        /// Name to bring it back under.
        #[arg(long)]
        new_name: Option<String>,
    },
    /// Makes and changes topics as manifests say: the same YAML that kubectl apply takes.
    Apply {
        /// File with one or several documents; "-" is standard input.
        #[arg(short, long, required = true)]
        file: Vec<PathBuf>,
        /// Check and show, change nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Letters, digits, ".", "_" and "-", at most 249.
    name: String,
    /// Number of partitions; 0 is the broker's default.
    #[arg(short, long, default_value_t = 0)]
    partitions: i32,
    /// Number of replicas of each partition; 0 is as the cluster says.
    #[arg(short, long, default_value_t = 0, value_name = "NUMBER")]
    replication_factor: i32,
    /// Configuration, by Kafka's keys (retention.ms) or Taffrail's (retention, durability, …).
    #[arg(short, long = "config", value_name = "KEY=VALUE", value_parser = pair)]
    config: Vec<(String, String)>,
    /// Do not fail if the topic exists.
    #[arg(long)]
    if_not_exists: bool,
    /// Check only.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Alter {
    /// Name of the topic.
    name: String,
    /// New number of partitions; it can only grow.
    #[arg(short, long, default_value_t = 0)]
    partitions: i32,
    /// New number of replicas of each partition; those that are added catch up while the topic is served.
    #[arg(short, long, default_value_t = 0, value_name = "NUMBER")]
    replication_factor: i32,
    /// Sets a configuration key.
    #[arg(short, long = "config", value_name = "KEY=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
    /// Puts a configuration key back to its default.
    #[arg(short, long, value_name = "KEY")]
    unset: Vec<String>,
    /// Check only.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A partition waits for a person when the replicas that have every acknowledged record are gone for good, or when the longest log \
is damaged. `kubectl get partitionslices -o jsonpath='{.items[*].spec.partitions[*].fault}'` says why. Bring the brokers back if \
there is any way: this gives up what only they have.

The command is written into the Topic, as the annotation taffrail.dev/recover, with the leader epoch that it is meant for: it \
decides once. The topic's condition PossibleLoss records it.

Example:
  taffrail topic recover orders --partition 3 --leader 1 --accept-data-loss")]
pub(crate) struct Recover {
    /// Name of the topic.
    name: String,
    /// Number of the partition.
    #[arg(short, long)]
    partition: i32,
    /// Number of the broker whose replica shall lead.
    #[arg(short, long, value_name = "BROKER")]
    leader: i32,
    /// Acknowledged records that this replica lacks may be lost for good.
    #[arg(long, required = true)]
    accept_data_loss: bool,
}

impl Recover {
    async fn run(self, admin: &Admin) -> Result<()> {
        let Self { name, partition, leader, accept_data_loss } = self;
        // clap asks for it; a caller that got past it has not said so.
        if !accept_data_loss {
            bail!("say --accept-data-loss: records that other replicas have may be lost");
        }
        let epoch = admin.recover_partition_accepting_loss(&name, partition, leader).await;
        let epoch = epoch.with_context(|| format!("{name}/{partition} was not recovered"))?;
        println!(
            "{name}/{partition} is led by broker {leader} in leader epoch {epoch}; records that only other replicas had are lost"
        );
        Ok(())
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl TopicCommand {
    pub(crate) async fn run(self, client: &Client) -> Result<()> {
        let admin = client.admin();
        match self {
            Self::Create(create) => create.run(&admin).await,
            Self::List { deleted, output } => list(client, deleted, output).await,
            Self::Describe { names, all, output } => describe(client, &names, all, output).await,
            Self::Alter(alter) => alter.run(&admin).await,
            Self::Recover(recover) => recover.run(&admin).await,
            Self::Delete { name, if_exists } => delete(&admin, &name, if_exists).await,
            Self::Undelete { name, id, new_name } => undelete(&admin, name, id, new_name.as_deref()).await,
            Self::Apply { file, dry_run } => apply(&admin, &file, dry_run).await,
        }
    }
}

impl Create {
    async fn run(self, admin: &Admin) -> Result<()> {
        let new = NewTopic::new(&self.name).partitions(self.partitions).replication_factor(self.replication_factor);
        let new = self.config.into_iter().fold(new, |new, (key, value)| new.config(key, value));
        match admin.create_topic(new, self.dry_run).await {
            Ok(topic) => {
                println!("topic {} {}: {}", topic.name, done("created", self.dry_run), summary(&topic));
                Ok(())
            }
            Err(error) if self.if_not_exists && error.reason() == taffrail_client::Reason::TopicExists => {
                println!("topic {} exists", self.name);
                Ok(())
            }
            Err(error) => Err(error).with_context(|| format!("topic {} was not created", self.name)),
        }
    }
}

impl Alter {
    async fn run(self, admin: &Admin) -> Result<()> {
        let nothing = self.partitions == 0 && self.replication_factor == 0;
        if nothing && self.set.is_empty() && self.unset.is_empty() {
            bail!("nothing to change: give --partitions, --replication-factor, --config or --unset");
        }
        let change = TopicChange::new().partitions(self.partitions).replication_factor(self.replication_factor);
        let change = self.set.into_iter().fold(change, |change, (key, value)| change.set(key, value));
        let change = self.unset.into_iter().fold(change, TopicChange::unset);
        let topic = admin.alter_topic(&self.name, change, self.dry_run).await?;
        println!("topic {} {}: {}", topic.name, done("changed", self.dry_run), summary(&topic));
        Ok(())
    }
}

fn done(what: &str, dry_run: bool) -> String {
    if dry_run { format!("would be {what}") } else { what.to_owned() }
}

fn summary(topic: &TopicDescription) -> String {
    let set: Vec<String> =
        topic.config.iter().filter(|c| !c.is_default).map(|c| format!("{}={}", c.key, c.value)).collect();
    let replicas = match topic.replication_factor {
        0 | 1 => String::new(),
        replicas => format!("with {replicas} replicas "),
    };
    format!("{} partitions {replicas}{}", topic.partitions.len(), set.join(" ")).trim_end().to_owned()
}

fn records(topic: &TopicDescription) -> i64 {
    topic.partitions.iter().map(|p| p.high_watermark - p.log_start_offset).sum()
}

fn size(topic: &TopicDescription) -> u64 {
    topic.partitions.iter().map(|p| p.size_bytes).sum()
}

async fn list(client: &Client, deleted: bool, format: Format) -> Result<()> {
    let topics = client.admin().describe_topics(&[], deleted).await?;
    if format == Format::Json {
        let replicas = Replicas::of(client, &[]).await?;
        return output::json(&topics.iter().map(|topic| document(topic, &replicas)).collect::<Vec<_>>());
    }
    if topics.is_empty() {
        eprintln!("no topics: make one with `taffrail topic create NAME`");
        return Ok(());
    }
    let row = |t: &TopicDescription| {
        let state = t.purge_at_ms.map_or_else(String::new, |at| match at {
            i64::MAX => "deleted, data stays".to_owned(),
            at => format!("deleted, goes {}", output::moment(at)),
        });
        let partitions = t.partitions.len().to_string();
        [t.name.clone(), partitions, records(t).to_string(), output::bytes(size(t)), t.topic_id.clone(), state]
    };
    output::table(["NAME", "PARTITIONS", "RECORDS", "SIZE", "ID", ""], topics.iter().map(row))
}

async fn describe(client: &Client, names: &[String], all: bool, format: Format) -> Result<()> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let topics = client.admin().describe_topics(&names, false).await?;
    let replicas = Replicas::of(client, &names).await?;
    if format == Format::Json {
        return output::json(&topics.iter().map(|topic| document(topic, &replicas)).collect::<Vec<_>>());
    }
    for topic in &topics {
        println!(
            "topic {} (id {}), {} records, {}\n",
            topic.name,
            topic.topic_id,
            records(topic),
            output::bytes(size(topic))
        );
        partitions(topic, &replicas)?;
        println!();
        let config = topic.config.iter().filter(|c| all || !c.is_default).map(|c| {
            let default = if c.is_default { "default" } else { "" };
            [c.key.clone(), c.value.clone(), default.to_owned(), c.documentation.clone()]
        });
        output::table(["CONFIGURATION", "VALUE", "", ""], config)?;
        if !all {
            println!("(the rest is at its default: --all shows it)");
        }
    }
    Ok(())
}

/// The table of a topic's partitions, and what somebody should see of it.
fn partitions(topic: &TopicDescription, replicas: &Replicas) -> Result<()> {
    let rows = topic.partitions.iter().map(|p| {
        let [leader, epoch] = [p.leader, p.leader_epoch].map(|n| n.to_string());
        let all = numbers(replicas.all(&topic.topic_id, p.index));
        let in_sync = numbers(replicas.in_sync(&topic.topic_id, p.index));
        let [start, end] = [p.log_start_offset, p.high_watermark].map(|n| n.to_string());
        [p.index.to_string(), leader, epoch, all, in_sync, start, end, output::bytes(p.size_bytes)]
    });
    output::table(["PARTITION", "LEADER", "EPOCH", "REPLICAS", "IN-SYNC", "START", "END", "SIZE"], rows)?;
    for moving in replicas.moves(&topic.topic_id) {
        println!("({moving})");
    }
    if let Some(shortfall) = replicas.shortfall(&topic.topic_id) {
        println!("({shortfall})");
    }
    Ok(())
}

fn document(topic: &TopicDescription, replicas: &Replicas) -> Value {
    let partition = |p: &taffrail_client::PartitionDescription| {
        json!({
            "index": p.index, "leader": p.leader, "leaderEpoch": p.leader_epoch,
            "replicas": replicas.all(&topic.topic_id, p.index),
            "inSyncReplicas": replicas.in_sync(&topic.topic_id, p.index),
            "addingReplicas": replicas.adding(&topic.topic_id, p.index),
            "removingReplicas": replicas.removing(&topic.topic_id, p.index), "logStartOffset": p.log_start_offset,
            "highWatermark": p.high_watermark, "logEndOffset": p.log_end_offset, "sizeBytes": p.size_bytes,
        })
    };
    let config = topic.config.iter().map(|c| (c.key.clone(), json!({ "value": c.value, "default": c.is_default })));
    json!({
        "name": topic.name, "id": topic.topic_id, "internal": topic.internal,
        "replicationFactor": topic.replication_factor,
        "partitions": topic.partitions.iter().map(partition).collect::<Vec<_>>(),
        "config": config.collect::<serde_json::Map<_, _>>(),
        "deletedAtMs": topic.deleted_at_ms, "purgeAtMs": topic.purge_at_ms,
    })
}

async fn delete(admin: &Admin, name: &str, if_exists: bool) -> Result<()> {
    match admin.delete_topic(name).await {
        Ok(deleted) => {
            let until = match deleted.purge_at_ms {
                i64::MAX => "deleted and its data stays".to_owned(),
                at => format!("in the trash until {}", output::moment(at)),
            };
            println!("topic {name} is {until}; `taffrail topic undelete {name}` brings it back");
            Ok(())
        }
        Err(error) if if_exists && error.kind() == taffrail_client::ErrorKind::NotFound => {
            println!("there is no topic {name}");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

async fn undelete(admin: &Admin, name: Option<String>, id: Option<String>, new_name: Option<&str>) -> Result<()> {
    let topic = match (name, id) {
        (_, Some(id)) => admin.undelete_topic_by_id(&id, new_name).await?,
        (Some(name), None) => admin.undelete_topic(&name, new_name).await?,
        (None, None) => bail!("give a name or --id"),
    };
    println!("topic {} is back: {} partitions, {} records", topic.name, topic.partitions.len(), records(&topic));
    Ok(())
}

async fn apply(admin: &Admin, files: &[PathBuf], dry_run: bool) -> Result<()> {
    let mut documents = vec![];
    let mut faults = 0;
    for file in files {
        let name = file.display().to_string();
        let text = if name == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
        match manifest::parse(&text.with_context(|| format!("read {name}"))?, &name) {
            Ok(found) => documents.extend(found),
            Err(found) => {
                faults += found.len();
                for fault in &found {
                    eprintln!("{fault}");
                }
            }
        }
    }
    if faults > 0 {
        bail!("{faults} faults in the manifests; nothing was changed");
    }
    for document in documents {
        apply_one(admin, &document.topic, dry_run).await?;
    }
    Ok(())
}

async fn apply_one(admin: &Admin, topic: &taffrail_crds::Topic, dry_run: bool) -> Result<()> {
    let name = &topic.topic_name();
    let replicas = topic.spec.replication_factor.unwrap_or(0);
    let wanted = topic.spec.config.entries(topic.spec.replication_factor.unwrap_or(1));
    let wanted = wanted.iter().filter(|entry| !entry.is_default);
    let present = match admin.describe_topics(&[name], false).await {
        Ok(found) => found.into_iter().next(),
        Err(error) if error.kind() == taffrail_client::ErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    let Some(present) = present else {
        let new = NewTopic::new(name).partitions(topic.spec.partitions).replication_factor(replicas);
        let new = wanted.fold(new, |new, entry| new.config(entry.key.clone(), entry.value.clone()));
        let made = admin.create_topic(new, dry_run).await?;
        println!("topic {name} {}: {}", done("created", dry_run), summary(&made));
        return Ok(());
    };
    let mut change = TopicChange::new().partitions(topic.spec.partitions).replication_factor(replicas);
    let mut stay = vec![];
    for entry in wanted {
        stay.push(entry.key.clone());
        change = change.set(entry.key.clone(), entry.value.clone());
    }
    for entry in present.config.iter().filter(|c| !c.is_default && !stay.contains(&c.key)) {
        change = change.unset(entry.key.clone());
    }
    let changed = admin.alter_topic(name, change, dry_run).await?;
    let facts = |t: &TopicDescription| (t.partitions.len(), t.replication_factor, t.config.clone());
    let same = facts(&changed) == facts(&present);
    let what = if same { "unchanged".to_owned() } else { done("changed", dry_run) };
    println!("topic {name} {what}: {}", summary(&changed));
    Ok(())
}
