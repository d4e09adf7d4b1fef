//! Conditions: what holds of an object, in the form that `kubectl wait` and GitOps tools read.

use std::time::SystemTime;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Type of the condition that says whether the object is as its spec says and serves.
pub const READY: &str = "Ready";

/// Type of the condition that says whether somebody is at work on the object.
pub const RECONCILING: &str = "Reconciling";

/// Type of the condition that says whether work on the object cannot go on by itself.
pub const STALLED: &str = "Stalled";

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Nobody can tell now.
    Unknown,
}

/// One fact about an object, as last seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Name of the fact, in CamelCase. There is one condition of each type.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 316))]
    pub type_: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Generation of the object that was looked at. Lower than `metadata.generation`: out of date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// When the status last changed (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: String,
    /// Why, in one CamelCase word for programs.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
    /// Why, in a sentence for people.
    #[schemars(length(max = 32768))]
    pub message: String,
}

impl Condition {
    /// A condition that is yet to be set: [`set_condition`] gives it its time.
    pub fn new(type_: &str, status: ConditionStatus, reason: &str, message: impl Into<String>) -> Self {
        Self {
            type_: type_.to_owned(),
            status,
            observed_generation: None,
            last_transition_time: String::new(),
            reason: reason.to_owned(),
            message: message.into(),
        }
    }
}

/// Puts `condition` in the place of the one of its type, or at the end.
///
/// `lastTransitionTime` becomes `now` (to the second) when the status changes and stays as it was otherwise. True: the
/// conditions differ from what they were, so that they have to be written.
pub fn set_condition(conditions: &mut Vec<Condition>, mut condition: Condition, now: SystemTime) -> bool {
    let Some(present) = conditions.iter_mut().find(|present| present.type_ == condition.type_) else {
        condition.last_transition_time = timestamp(now);
        conditions.push(condition);
        return true;
    };
    condition.last_transition_time = if present.status == condition.status {
        std::mem::take(&mut present.last_transition_time)
    } else {
        timestamp(now)
    };
    let before = std::mem::replace(present, condition);
    // The time was moved out of `before`, and it only changes together with the status.
    (before.status, &before.reason, &before.message, before.observed_generation)
        != (present.status, &present.reason, &present.message, present.observed_generation)
}

fn timestamp(now: SystemTime) -> String {
    humantime::format_rfc3339_seconds(now).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn ready(status: ConditionStatus, reason: &str) -> Condition {
        Condition::new("Ready", status, reason, "because")
    }

    #[test]
    fn transition_time_changes_with_the_status_only() {
        let mut conditions = Vec::new();
        assert!(set_condition(&mut conditions, ready(ConditionStatus::False, "Creating"), at(0)));
        assert_eq!(conditions[0].last_transition_time, "1970-01-01T00:00:00Z");

        assert!(!set_condition(&mut conditions, ready(ConditionStatus::False, "Creating"), at(5)), "nothing changed");
        assert_eq!(conditions[0].last_transition_time, "1970-01-01T00:00:00Z");

        assert!(set_condition(&mut conditions, ready(ConditionStatus::False, "NoSpace"), at(6)), "other reason");
        assert_eq!(conditions[0].last_transition_time, "1970-01-01T00:00:00Z");
        assert_eq!(conditions[0].reason, "NoSpace");

        assert!(set_condition(&mut conditions, ready(ConditionStatus::True, "NoSpace"), at(7)), "other status");
        assert_eq!(conditions[0].last_transition_time, "1970-01-01T00:00:07Z");
        assert_eq!(conditions.len(), 1);
    }

    #[test]
    fn conditions_of_other_types_are_left_alone() {
        let mut conditions = Vec::new();
        set_condition(&mut conditions, ready(ConditionStatus::True, "Created"), at(1));
        let before = conditions[0].clone();
        set_condition(&mut conditions, Condition::new("Stalled", ConditionStatus::False, "Moving", ""), at(2));
        assert_eq!(conditions[0], before);
        assert_eq!(conditions[1].type_, "Stalled");
    }
}
