//! `taffrail cluster`: shows the brokers, and rebuilds internal objects of a cluster on Kubernetes from what its brokers saw last.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use taffrail_client::{Client, ClientConfig, SeenObject};
use taffrail_crds::{CLUSTER_LABEL, ClusterStateSpec, Kind, PartitionSliceSpec, last_seen};
use taffrail_proto::v1::{BrokerEndpoint, GetMetadataResponse};
use uuid::Uuid;

use crate::output::{self, Format};
use crate::replicas::Replicas;

/// How long each broker may take for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Shows the brokers: where each is reached, what it holds, and whether it is about to go.
    Describe {
        /// How to print.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Prints the ClusterState and all PartitionSlices as the brokers saw them last, to bring back those that are gone.
    Recover(Recover),
}

#[derive(Debug, Args)]
#[command(after_help = "\
A PartitionSlice or the ClusterState that somebody deleted takes no data away: the brokers keep it, serve no partition whose \
slice is gone, and make nothing anew in its place. Each broker remembers these objects as it saw them last. This asks all \
brokers, takes the newest of each partition, and prints YAML. It changes nothing.

`kubectl create` makes what is missing. What is there it leaves alone, says so (AlreadyExists), and ends with 1: that is as \
it should be. Do not use `kubectl apply` or `replace`.

A broker that does not answer may know something newer. Bring it back first, or, if its volume is lost, name it with \
--allow-missing. Do not restart brokers while the ClusterState is gone: they wait for it and do not answer.

Examples:
  taffrail cluster recover > lost.yaml                    look at it first
  taffrail cluster recover | kubectl create -n shop -f -
  taffrail cluster recover --allow-missing 2 | kubectl create -n shop -f -")]
pub(crate) struct Recover {
    /// Go on without this broker if it does not answer; may be given several times.
    #[arg(long, value_name = "BROKER")]
    allow_missing: Vec<i32>,
}

/// What one broker told.
#[derive(Clone, Debug, Default, PartialEq)]
struct Memory {
    cluster: String,
    state: Option<ClusterStateSpec>,
    slices: Vec<PartitionSliceSpec>,
}

impl ClusterCommand {
    pub(crate) async fn run(self, client: &Client, config: &ClientConfig) -> Result<()> {
        match self {
            Self::Describe { output } => describe(client, output).await,
            Self::Recover(recover) => recover.run(client, config).await,
        }
    }
}

/// Internal topics are not counted: they are not told of unless named.
async fn describe(client: &Client, format: Format) -> Result<()> {
    let metadata = client.metadata(&[]).await?;
    let (mut brokers, id, moving) = (metadata.brokers.clone(), metadata.cluster_id.clone(), moving(&metadata));
    brokers.sort_by_key(|broker| broker.id);
    let replicas = Replicas::known(metadata);
    if format == Format::Json {
        let broker = |broker: &BrokerEndpoint| {
            let (replicas, leaders) = replicas.load(broker.id);
            json!({
                "id": broker.id, "endpoint": broker.endpoint, "replicas": replicas, "leaders": leaders,
                "draining": broker.draining,
            })
        };
        let brokers: Vec<_> = brokers.iter().map(broker).collect();
        return output::json(&json!({ "id": id, "movingPartitions": moving, "brokers": brokers }));
    }
    println!("cluster {id}, {} brokers, {moving} partitions move\n", brokers.len());
    let row = |broker: &BrokerEndpoint| {
        let (replicas, leaders) = replicas.load(broker.id);
        let state = if broker.draining { "draining" } else { "" };
        [broker.id.to_string(), broker.endpoint.clone(), replicas.to_string(), leaders.to_string(), state.to_owned()]
    };
    output::table(["BROKER", "ENDPOINT", "REPLICAS", "LEADERS", ""], brokers.iter().map(row))
}

fn moving(metadata: &GetMetadataResponse) -> usize {
    let partitions = metadata.topics.iter().flat_map(|topic| &topic.partitions);
    partitions.filter(|partition| !partition.adding.is_empty() || !partition.removing.is_empty()).count()
}

impl Recover {
    async fn run(self, client: &Client, config: &ClientConfig) -> Result<()> {
        let mut brokers = client.metadata(&[]).await?.brokers;
        brokers.sort_by_key(|broker| broker.id);
        let asked = brokers.iter().map(|broker| ask(config, broker.id, &broker.endpoint));
        let mut memories = Vec::new();
        for (broker, answer) in brokers.iter().zip(futures::future::join_all(asked).await) {
            match answer {
                Ok(memory) => memories.push(memory),
                Err(error) if self.allow_missing.contains(&broker.id) => {
                    eprintln!("broker {} is left out: {error:#}", broker.id);
                }
                Err(error) => {
                    let id = broker.id;
                    return Err(error.context(format!(
                        "broker {id} did not tell what it saw last: bring it back, or, if its volume is lost, add \
                         --allow-missing {id}"
                    )));
                }
            }
        }
        let (answered, all) = (memories.len(), brokers.len());
        let objects = objects(memories)?;
        for object in &objects {
            print!("---\n{}", serde_yaml::to_string(object)?);
        }
        eprintln!("{} objects as {answered} of {all} brokers saw them last", objects.len());
        Ok(())
    }
}

/// Asks one broker for all that it remembers.
async fn ask(config: &ClientConfig, broker: i32, endpoint: &str) -> Result<Memory> {
    // A client of this broker alone: another one's answer would not do.
    let config = ClientConfig { endpoints: vec![endpoint.to_owned()], request_timeout: PATIENCE, ..config.clone() };
    let admin = Client::connect(config)?.admin();
    let (mut memory, mut after) = (Memory::default(), String::new());
    loop {
        let answer = admin.last_seen(&after).await?;
        if answer.broker != broker {
            bail!("{endpoint} is broker {}: run this where each broker is reached by its own address", answer.broker);
        }
        memory.cluster = answer.cluster;
        for object in answer.objects {
            memory.take(&object)?;
        }
        if answer.next.is_empty() {
            return Ok(memory);
        }
        after = answer.next;
    }
}

impl Memory {
    fn take(&mut self, object: &SeenObject) -> Result<()> {
        let what = "the broker's version differs from this program's: use the same";
        match object.kind.as_str() {
            "ClusterState" => self.state = Some(serde_json::from_str(&object.spec).context(what)?),
            "PartitionSlice" => self.slices.push(serde_json::from_str(&object.spec).context(what)?),
            kind => bail!("a {kind} is unknown here; {what}"),
        }
        Ok(())
    }
}

/// The objects as they were last, from what each broker saw.
fn objects(memories: Vec<Memory>) -> Result<Vec<Value>> {
    let cluster = memories.first().map(|memory| memory.cluster.clone()).ok_or_else(|| anyhow!("no broker answered"))?;
    if let Some(other) = memories.iter().find(|memory| memory.cluster != cluster) {
        bail!("the brokers are of two Clusters, {cluster} and {}", other.cluster);
    }
    let (mut state, mut slices) = (None, BTreeMap::<(Uuid, i32), PartitionSliceSpec>::new());
    for memory in memories {
        state = match (state, memory.state) {
            (Some(one), Some(other)) => Some(last_seen::state(one, other).context("the ClusterStates do not fit")?),
            (one, other) => one.or(other),
        };
        for slice in memory.slices {
            let id = (slice.topic_id.0, slice.first_index);
            let newest = match slices.remove(&id) {
                Some(known) => last_seen::slice(known, slice),
                None => slice,
            };
            slices.insert(id, newest);
        }
    }
    let state =
        state.ok_or_else(|| anyhow!("no broker has seen the ClusterState yet: there is nothing to bring back"))?;
    let state = Kind::ClusterState.object(&cluster, &json!({ CLUSTER_LABEL: cluster }), &last_seen::with_room(state));
    let slice = |slice: PartitionSliceSpec| {
        let slice = last_seen::brought_back(slice);
        Kind::PartitionSlice.object(&slice.object_name(), &slice.labels(), &slice)
    };
    Ok(std::iter::once(state).chain(slices.into_values().map(slice)).collect())
}

#[cfg(test)]
mod tests {
    use taffrail_crds::TOPIC_ID_LABEL;
    use taffrail_crds::admission::admit_kind;

    use super::*;

    const TOPIC: &str = "3f2a8c1e-0000-4000-8000-00000000abcd";

    fn memory(cluster_id: &str, epoch: i32, slices: &[(i32, i32)]) -> Memory {
        let state = json!({
            "clusterId": cluster_id, "controllerEpoch": epoch, "featureLevel": 1, "topics": { TOPIC: "flights" },
            "nextIds": { "producer": 5, "incarnation": 0, "operation": 0 },
        });
        let slice = |(first, epoch): &(i32, i32)| {
            let partition = json!({
                "index": first, "replicas": [0], "leader": 0, "leaderEpoch": epoch, "partitionEpoch": epoch,
                "isr": [{ "broker": 0, "incarnation": 1 }], "minInSyncReplicas": 1, "replicationFactor": 1,
            });
            let slice = json!({
                "clusterName": "main", "topicId": TOPIC, "topicName": "flights", "firstIndex": first,
                "controllerEpoch": epoch, "operationId": epoch, "partitions": [partition],
            });
            SeenObject { kind: "PartitionSlice".to_owned(), spec: slice.to_string() }
        };
        let mut memory = Memory { cluster: "main".to_owned(), ..Memory::default() };
        memory.take(&SeenObject { kind: "ClusterState".to_owned(), spec: state.to_string() }).unwrap();
        slices.iter().map(slice).for_each(|object| memory.take(&object).unwrap());
        memory
    }

    #[test]
    fn the_newest_of_each_object_is_printed_as_an_api_server_takes_it() {
        let id = "0b0a3c5e-93c2-4b39-8d7a-3a1a7a2f4c01";
        let found = objects(vec![memory(id, 3, &[(0, 4), (64, 1)]), memory(id, 4, &[(0, 2), (64, 6)])]).unwrap();
        let shown: Vec<_> = found
            .iter()
            .map(|object| {
                let spec = &object["spec"];
                (object["metadata"]["name"].as_str().unwrap(), spec["controllerEpoch"].as_i64().unwrap())
            })
            .collect();
        let names = [format!("{TOPIC}-0"), format!("{TOPIC}-64")];
        assert_eq!(shown, [("main", 4), (names[0].as_str(), 4), (names[1].as_str(), 6)]);
        assert_eq!(found[0]["spec"]["nextIds"]["producer"], (1 << 20) + 5);
        assert_eq!(found[1]["metadata"]["labels"], json!({ CLUSTER_LABEL: "main", TOPIC_ID_LABEL: TOPIC }));
        for object in &found {
            let read: Value = serde_yaml::from_str(&serde_yaml::to_string(object).unwrap()).unwrap();
            let kind = Kind::from_name(read["kind"].as_str().unwrap()).unwrap();
            assert_eq!(admit_kind(kind, &read, None), [], "{read}");
        }
    }

    #[test]
    fn memories_of_two_clusters_are_not_put_together() {
        let (one, other) = ("0b0a3c5e-93c2-4b39-8d7a-3a1a7a2f4c01", "11111111-2222-4333-8444-555555555555");
        let error = objects(vec![memory(one, 3, &[]), memory(other, 3, &[])]).unwrap_err();
        assert!(format!("{error:#}").contains("two clusters"), "{error:#}");
        assert!(objects(vec![Memory { cluster: "main".to_owned(), ..Memory::default() }]).is_err(), "no state");
        assert!(objects(Vec::new()).is_err());
    }
}
