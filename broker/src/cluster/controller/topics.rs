//! What the accepted Topics ask of the controller.

use std::collections::BTreeMap;
use std::time::SystemTime;

use kube::ResourceExt;
use taffrail_crds::Topic;
use taffrail_crds::recover::{RECOVER_ANNOTATION, Recovery, parse};
use taffrail_crds::slice::Tombstone;
use uuid::Uuid;

use super::slices::Wanted;
use crate::clock::millis_of;
use crate::cluster::image::{Image, deletes_data, is_deleting};
use crate::controller::Trash;

/// The accepted topics, and those whose data is to go. Of a Topic that is deleted and keeps its data nothing is wanted.
pub fn wanted(image: &Image) -> Vec<Wanted> {
    let topics = image.accepted().filter(|(_, topic)| !is_deleting(topic) || deletes_data(topic));
    topics.map(|(id, topic)| of(id, topic, image)).collect()
}

fn of(id: Uuid, topic: &Topic, image: &Image) -> Wanted {
    let status = topic.status.as_ref();
    let there = image.slices_of(id).map(|slice| slice.spec.partitions.len() as i32).sum();
    // A change that is not accepted yet, or refused, is not carried out.
    let is_current = status.and_then(|status| status.accepted_generation) == topic.metadata.generation;
    let cluster = image.cluster.as_ref().map(|stored| &stored.spec.spec);
    Wanted {
        id,
        name: topic.topic_name(),
        partitions: if is_current { topic.spec.partitions.max(there) } else { there },
        made: status.and_then(|status| status.partitions).unwrap_or(0),
        replication_factor: cluster.map_or(1, |cluster| cluster.replicas_of(&topic.spec)),
        min_in_sync_replicas: cluster.map_or(1, |cluster| cluster.min_in_sync_replicas_of(&topic.spec)),
        // Without the Cluster nobody knows what it says of topics that leave it to it (M9).
        current: is_current && cluster.is_some(),
        tombstone: deletes_data(topic).then(|| tombstone(topic)),
    }
}

/// What people command for partitions that wait for them: on Topics, and for internal topics on the Cluster. What cannot be read
/// commands nothing.
pub fn recoveries(image: &Image) -> BTreeMap<(Uuid, i32), Recovery> {
    let of_topics = image.accepted().filter_map(|(id, topic)| Some((id, topic.annotations().get(RECOVER_ANNOTATION)?)));
    let cluster = image.cluster.as_ref().map(|stored| stored.spec.annotations());
    let internal = image.state.iter().flat_map(|state| &state.spec.internal_topics);
    let of_internal = internal
        .filter_map(|topic| Some((topic.topic_id.0, cluster?.get(&format!("{RECOVER_ANNOTATION}.{}", topic.name))?)));
    let commands = |(id, text): (Uuid, &String)| {
        parse(text).unwrap_or_default().into_iter().map(move |command| ((id, command.partition), command))
    };
    of_topics.chain(of_internal).flat_map(commands).collect()
}

/// The times of a tombstone, in milliseconds since 1970; `None`: they cannot be read.
pub fn tombstone_of(tombstone: &Tombstone) -> Option<Trash> {
    let millis = |text: &str| humantime::parse_rfc3339_weak(text).ok().map(millis_of);
    Some(Trash { deleted_at: millis(&tombstone.deleted_at)?, purge_at: millis(&tombstone.purge_at)? })
}

fn tombstone(topic: &Topic) -> Tombstone {
    let deleted_at = topic.metadata.deletion_timestamp.as_ref().map_or(SystemTime::UNIX_EPOCH, |time| time.0.into());
    let purge_at = deleted_at + topic.spec.config.trash_retention().as_std();
    let text = |time| humantime::format_rfc3339_seconds(time).to_string();
    Tombstone { deleted_at: text(deleted_at), purge_at: text(purge_at) }
}
