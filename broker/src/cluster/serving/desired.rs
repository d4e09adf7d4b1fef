//! What a broker is to do with each partition: a pure function of the cluster's objects.

use std::collections::BTreeMap;
use std::sync::Arc;

use taffrail_crds::{PartitionState, TopicConfig};
use uuid::Uuid;

use crate::cluster::Session;
use crate::cluster::image::{Image, is_deleting};

/// A topic as this broker is to serve it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Desired {
    /// Its name for clients.
    pub name: Arc<str>,
    /// How records are kept.
    pub config: TopicConfig,
    /// Its partitions, by index.
    pub partitions: Vec<Place>,
}

/// A partition's state and what this broker is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// As the controller decided.
    pub state: PartitionState,
    /// What this broker does.
    pub role: Role,
}

/// What a broker does for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Leads it.
    Lead,
    /// Has a replica that follows the leader, to which it sends what concerns the partition.
    Follow {
        /// The leader.
        leader: i32,
    },
    /// Sends what concerns it to its leader.
    Forward {
        /// The leader.
        leader: i32,
    },
    /// Nobody leads it, for this reason.
    Offline(String),
}

/// All topics by id, also those whose slices are not there.
pub(super) fn desired(image: &Image, me: Session) -> BTreeMap<Uuid, Desired> {
    let of_users = image.accepted().filter(|(_, topic)| !is_deleting(topic));
    let of_users = of_users.map(|(id, topic)| (id, topic.topic_name(), topic.spec.config.clone()));
    let state = image.state.iter().flat_map(|state| &state.spec.internal_topics);
    let internal = state.map(|topic| (topic.topic_id.0, topic.name.clone(), internal_config()));
    let desired = |(id, name, config): (Uuid, String, _)| {
        (id, Desired { name: name.into(), config, partitions: places(image, id, me) })
    };
    of_users.chain(internal).map(desired).collect()
}

/// Checkpoints bound internal topics: nothing else may take their records away.
fn internal_config() -> TopicConfig {
    let mut config = TopicConfig::default();
    for (key, value) in crate::coordinator::groups::topic().config {
        if let Err(error) = config.set(&key, &value) {
            tracing::error!(key, %error, "a setting of an internal topic is not one");
        }
    }
    config
}

/// The partitions that are there, from the first on without gap.
fn places(image: &Image, topic: Uuid, me: Session) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    for slice in image.slices_of(topic) {
        if slice.spec.first_index as usize != places.len() || slice.spec.tombstone.is_some() {
            break;
        }
        places.extend(slice.spec.partitions.iter().map(|state| Place { role: role(state, me), state: state.clone() }));
    }
    places
}

pub(super) fn role(state: &PartitionState, me: Session) -> Role {
    match state.leader {
        Some(leader) if leader != me.broker && state.replicas.contains(&me.broker) => Role::Follow { leader },
        Some(leader) if leader != me.broker => Role::Forward { leader },
        Some(_) => {
            let session =
                state.isr.iter().find(|replica| replica.broker == me.broker).map(|replica| replica.incarnation);
            if session == Some(me.incarnation) {
                Role::Lead
            } else {
                Role::Offline("its broker has started again and waits for the controller to elect it".to_owned())
            }
        }
        None => Role::Offline(state.fault.clone().unwrap_or_else(|| "it has no leader".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use taffrail_crds::slice::{Replica, UncleanRecovery};

    use super::*;

    fn state(leader: Option<i32>, incarnation: i64) -> PartitionState {
        PartitionState {
            index: 0,
            replicas: vec![1],
            adding: vec![],
            removing: vec![],
            leader,
            leader_epoch: 0,
            partition_epoch: 0,
            isr: leader.map(|broker| Replica { broker, incarnation }).into_iter().collect(),
            elr: vec![],
            last_known_elr: vec![],
            fault: Some("broker 1 does not answer".to_owned()),
            recovering: false,
            unclean_leader_epoch: None,
            seen_epoch: None,
            min_in_sync_replicas: 1,
            replication_factor: 1,
            unclean_recovery: UncleanRecovery::Balanced,
        }
    }

    #[test]
    fn m7_a_broker_leads_only_in_the_session_that_was_elected() {
        let me = Session { broker: 1, incarnation: 5 };
        assert_eq!(role(&state(Some(1), 5), me), Role::Lead);
        assert!(matches!(role(&state(Some(1), 4), me), Role::Offline(_)));
        assert!(matches!(role(&state(Some(1), 6), me), Role::Offline(_)));
        assert_eq!(role(&state(Some(2), 5), me), Role::Follow { leader: 2 });
        assert_eq!(role(&state(None, 5), me), Role::Offline("broker 1 does not answer".to_owned()));
    }

    #[test]
    fn a_broker_with_a_replica_follows_the_leader_in_whatever_session() {
        let state = PartitionState { replicas: vec![2, 1], ..state(Some(2), 5) };
        assert_eq!(role(&state, Session { broker: 1, incarnation: 5 }), Role::Follow { leader: 2 });
        assert_eq!(role(&state, Session { broker: 1, incarnation: 9 }), Role::Follow { leader: 2 });
        assert_eq!(role(&state, Session { broker: 3, incarnation: 5 }), Role::Forward { leader: 2 });
    }
}
