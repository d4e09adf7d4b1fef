//! Which broker is restarted next. Pure, and led by what is there: a restart that was begun is not remembered, a newer
//! template simply makes other pods out of date.
//!
//! A broker that serves is restarted when all others serve and its partitions can do without it ([`held_by`]): so no restart
//! takes a partition below its min ISR, and none adds to what another has left behind.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use taffrail_crds::PartitionSlice;

use super::labels;
use crate::replicas::held_by;

/// Label that the StatefulSet's controller puts on pods: the template they are made of.
const REVISION: &str = "controller-revision-hash";

/// A broker that waits for its restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Number of the broker.
    pub broker: i32,
    /// Why.
    pub reason: String,
}

/// What to do now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Brokers that wait for their restart, by number.
    pub pending: Vec<Pending>,
    /// The one whose pod is to be deleted now.
    pub restart: Option<i32>,
}

/// What matters of a broker's pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerPod {
    /// Number of the broker.
    pub broker: i32,
    /// The template it is made of.
    pub revision: String,
    /// It serves.
    pub ready: bool,
    /// It is being deleted.
    pub leaving: bool,
    /// What it was started with.
    pub started: Started,
}

/// What a pod was started with, of what is shown as the reason for a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Started {
    /// The brokers' version.
    pub version: String,
    /// Hash of the configuration.
    pub config: String,
    /// Image.
    pub image: String,
}

impl BrokerPod {
    /// Of a pod, unless it is none of a broker.
    pub fn of(pod: &Pod) -> Option<Self> {
        let broker = pod.name_any().rsplit_once('-')?.1.parse().ok()?;
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        let ready = conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"));
        let image = pod.spec.as_ref().and_then(|spec| spec.containers.first()?.image.clone());
        Some(Self {
            broker,
            revision: pod.labels().get(REVISION).cloned().unwrap_or_default(),
            ready,
            leaving: pod.metadata.deletion_timestamp.is_some(),
            started: Started::of(pod.annotations(), image),
        })
    }

    /// Why it has to be restarted, and what it waits for besides its turn.
    fn pending(&self, new: &Started, slices: &[PartitionSlice]) -> Pending {
        let why = self.started.reason(new);
        let held = held_by(self.broker, slices).filter(|_| self.ready);
        let reason = held.map_or_else(|| why.clone(), |held| format!("{why}; it waits, as {held}"));
        Pending { broker: self.broker, reason }
    }
}

impl Started {
    fn of(annotations: &BTreeMap<String, String>, image: Option<String>) -> Self {
        let find = |name: &str| annotations.get(name).cloned().unwrap_or_default();
        Self { version: find(labels::VERSION), config: find(labels::CONFIG_HASH), image: image.unwrap_or_default() }
    }

    /// With what pods of this StatefulSet are started now.
    pub fn by(set: &StatefulSet) -> Self {
        let template = set.spec.as_ref().map(|spec| &spec.template);
        let annotations = template.and_then(|template| template.metadata.as_ref()?.annotations.clone());
        let image = template.and_then(|template| template.spec.as_ref()?.containers.first()?.image.clone());
        Self::of(&annotations.unwrap_or_default(), image)
    }

    /// Why a pod that was started with `self` has to be started with `new`.
    fn reason(&self, new: &Self) -> String {
        if self.version != new.version {
            format!("version {} takes the place of {}", new.version, self.version)
        } else if self.image != new.image {
            format!("image {} takes the place of {}", new.image, self.image)
        } else if self.config != new.config {
            "its configuration has changed".to_owned()
        } else {
            "its pod's template has changed".to_owned()
        }
    }
}

/// The template that pods are to be made of; None while the StatefulSet's controller has not seen the newest.
pub fn newest_revision(set: &StatefulSet) -> Option<&str> {
    let status = set.status.as_ref()?;
    let seen = status.observed_generation >= set.metadata.generation;
    status.update_revision.as_deref().filter(|revision| seen && !revision.is_empty())
}

/// The template that pods are to be made of.
#[derive(Clone, Copy, Debug)]
pub struct Template<'a> {
    /// Its name.
    pub revision: &'a str,
    /// With what pods of it are started.
    pub started: &'a Started,
}

/// How many brokers there are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Now.
    pub now: i32,
    /// Once those are gone that are to go.
    pub stay: i32,
}

/// One broker at a time, one that does not serve anyway first, and a serving one only while all others serve and its
/// partitions, of which the slices tell, can do without it.
///
/// So many brokers there shall be for now, and so many stay. What those are good for that are to go, the slices tell: nobody waits
/// for them to serve. Pods of a higher number are about to go without more ado.
pub fn next_step(pods: &[BrokerPod], count: Count, new: Template<'_>, slices: &[PartitionSlice]) -> Plan {
    let mut present: Vec<_> = pods.iter().filter(|pod| pod.broker < count.now).collect();
    present.sort_by_key(|pod| pod.broker);
    let staying: Vec<_> = present.iter().copied().filter(|pod| pod.broker < count.stay).collect();
    let outdated = || present.iter().copied().filter(|pod| pod.revision != new.revision && !pod.leaving);
    let is_free = |pod: &&BrokerPod| held_by(pod.broker, slices).is_none();
    let pending = outdated().map(|pod| pod.pending(new.started, slices)).collect();
    let complete = i32::try_from(staying.len()).is_ok_and(|there| there >= count.stay);
    let calm = present.iter().all(|pod| !pod.leaving);
    let restart = match outdated().find(|pod| !pod.ready) {
        // It serves nobody: whatever made it so, the new template may heal it.
        Some(pod) if calm => Some(pod.broker),
        None if calm && complete && staying.iter().all(|pod| pod.ready) => {
            outdated().find(is_free).map(|pod| pod.broker)
        }
        _ => None,
    };
    Plan { pending, restart }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// `0ro`: broker 0, ready, of the old template. `u`: not ready; `n`: of the new template; `x`: being deleted.
    fn pods(text: &str) -> Vec<BrokerPod> {
        let pod = |word: &str| BrokerPod {
            broker: word[..1].parse().unwrap(),
            revision: if word.contains('n') { "new" } else { "old" }.to_owned(),
            ready: word.contains('r'),
            leaving: word.contains('x'),
            started: Started::default(),
        };
        text.split_whitespace().map(pod).collect()
    }

    fn step(pods: &[BrokerPod], revision: &str, slices: &[PartitionSlice]) -> Plan {
        let count = Count { now: 3, stay: 3 };
        next_step(pods, count, Template { revision, started: &Started::default() }, slices)
    }

    #[test]
    fn nobody_waits_for_a_broker_that_is_to_go() {
        let template = Template { revision: "new", started: &Started::default() };
        for (text, slices, expected) in [
            ("0ro 1ro 2un", vec![], Some(0)),
            ("0ro 1ro", vec![], Some(0)),
            ("0rn 1rn 2uo", vec![], Some(2)),
            ("0rn 1rn 2ro", vec![], Some(2)),
            // But for what a partition has on it.
            ("0ro 1ro 2un", vec![slice(&[0, 1])], None),
            ("0ro 1ro 2rnx", vec![], None),
        ] {
            let plan = next_step(&pods(text), Count { now: 3, stay: 2 }, template, &slices);
            assert_eq!(plan.restart, expected, "{text}");
        }
    }

    /// A partition on brokers 0, 1 and 2, of which some are in sync.
    fn slice(in_sync: &[i32]) -> PartitionSlice {
        let isr: Vec<_> = in_sync.iter().map(|broker| json!({"broker": broker, "incarnation": 1})).collect();
        let partition = json!({
            "index": 0, "replicas": [0, 1, 2], "leader": in_sync[0], "leaderEpoch": 1, "partitionEpoch": 1, "isr": isr,
            "minInSyncReplicas": 2, "replicationFactor": 3,
        });
        let spec = json!({
            "clusterName": "main", "topicId": "3f2a8c1e-0000-4000-8000-00000000abcd", "topicName": "t", "firstIndex": 0,
            "controllerEpoch": 1, "operationId": 1, "partitions": [partition],
        });
        PartitionSlice::new("x", serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn a_broker_that_serves_waits_until_its_partitions_can_do_without_it() {
        for (text, in_sync, expected) in [
            ("0rn 1ro 2ro", &[0, 1, 2][..], Some(1)),
            // Broker 0 has come back and not caught up.
            ("0rn 1ro 2ro", &[1, 2], None),
            // The one that is behind may go first.
            ("0rn 1ro 2ro", &[0, 1], Some(2)),
            // One that does not serve is restarted in any case: the new template may be what heals it.
            ("0rn 1uo 2ro", &[1, 2], Some(1)),
        ] {
            assert_eq!(step(&pods(text), "new", &[slice(in_sync)]).restart, expected, "{text} {in_sync:?}");
        }
        let plan = step(&pods("0rn 1ro 2uo"), "new", &[slice(&[1, 2])]);
        let reasons: Vec<_> = plan.pending.iter().map(|pending| pending.reason.as_str()).collect();
        let why = "its pod's template has changed";
        assert_eq!(reasons, [&format!("{why}; it waits, as partition 0 of t has 2 of 3 replicas in sync"), why]);
    }

    #[test]
    fn one_broker_at_a_time_the_unready_first_and_none_while_another_is_not_ready() {
        for (text, expected, pending) in [
            ("0rn 1rn 2rn", None, 0),
            ("0ro 1ro 2ro", Some(0), 3),
            ("0rn 1ro 2ro", Some(1), 2),
            ("2ro 1ro 0rn", Some(1), 2),
            ("0un 1ro 2ro", None, 2),
            ("0ro 1uo 2ro", Some(1), 3),
            ("0un 1uo 2ro", Some(1), 2),
            ("0rox 1ro 2ro", None, 2),
            ("0rox 1uo 2ro", None, 2),
            ("1ro 2ro", None, 2),
            ("1uo 2ro", Some(1), 2),
            ("0ro 1ro 2ro 3uo", Some(0), 3),
            ("", None, 0),
        ] {
            let plan = step(&pods(text), "new", &[]);
            assert_eq!((plan.restart, plan.pending.len()), (expected, pending), "{text}");
        }
    }

    #[test]
    fn a_newer_template_supersedes_the_one_that_is_rolled_out() {
        // Broker 0 has the template that was rolled out when a newer one came, and does not start with it.
        let mut pods = pods("0un 1ro 2ro");
        assert_eq!(step(&pods, "new", &[]).restart, None);
        assert_eq!(step(&pods, "newer", &[]).restart, Some(0));
        pods[0].ready = true;
        assert_eq!(step(&pods, "newer", &[]).restart, Some(0));
    }

    #[test]
    fn the_reason_names_what_has_changed() {
        let started = |version: &str, image: &str, config: &str| Started {
            version: version.to_owned(),
            image: image.to_owned(),
            config: config.to_owned(),
        };
        let old = started("1", "a:1", "x");
        for (new, expected) in [
            (started("2", "a:2", "y"), "version 2 takes the place of 1"),
            (started("1", "b:1", "x"), "image b:1 takes the place of a:1"),
            (started("1", "a:1", "y"), "its configuration has changed"),
            (started("1", "a:1", "x"), "its pod's template has changed"),
        ] {
            assert_eq!(old.reason(&new), expected);
        }
    }
}
