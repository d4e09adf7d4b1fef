//! What is registered, decided from what is there.

use serde::{Deserialize, Serialize};
use taffrail_crds::BrokerSpec;
use uuid::Uuid;

use super::RegistrationError;
use crate::storage::Identity;

/// What the volume remembers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The cluster that it belongs to.
    pub cluster: Uuid,
    /// The broker that it belongs to.
    pub broker: i32,
    /// The last incarnation that was taken.
    pub incarnation: i64,
    /// The last incarnation that is known to have been registered; 0: none.
    pub registered: i64,
}

/// What to do with the object.
#[derive(Clone, Debug)]
pub enum Decision {
    /// It is as it should be.
    Keep,
    /// Put this in its place, or make it.
    Write(Box<BrokerSpec>),
    /// Another process has the number: this one must not go on.
    Refuse(RegistrationError),
}

/// Refuses the volume of another cluster or broker.
pub fn check_volume(kept: Option<&Kept>, cluster: Uuid, broker: i32) -> Result<(), RegistrationError> {
    match kept {
        Some(kept) if kept.cluster != cluster => {
            Err(RegistrationError::OtherCluster { kept: kept.cluster, found: cluster })
        }
        Some(kept) if kept.broker != broker => Err(RegistrationError::OtherBroker { kept: kept.broker, own: broker }),
        _ => Ok(()),
    }
}

/// The incarnation of a start, and the earliest one since which nothing was lost.
///
/// It continues the session that was registered last, and what that one continued, if that ran on this volume and the volume proves that nothing was lost
/// since. A registration that is later than what the volume remembers proves the contrary: the volume is an older copy. One
/// that is earlier was restored, and nobody knows what was between.
pub fn session(kept: &Kept, found: Option<&BrokerSpec>, identity: &Identity) -> (i64, Option<i64>) {
    let incarnation = found.map_or(0, |found| found.incarnation).max(kept.incarnation) + 1;
    let previous = match found {
        None => Some(kept.registered).filter(|registered| *registered > 0),
        Some(found) => {
            let same = found.storage_id.0 == identity.storage;
            let known = (kept.registered..=kept.incarnation).contains(&found.incarnation);
            (same && known).then(|| found.continues.unwrap_or(found.incarnation))
        }
    };
    (incarnation, previous.filter(|_| identity.complete))
}

/// What becomes of the object `found` of a process that is registered as `own`. `own.fenced` is not looked at.
pub fn register(name: &str, own: &BrokerSpec, found: Option<&BrokerSpec>) -> Decision {
    let Some(found) = found else { return Decision::Write(Box::new(own.clone())) };
    let other = found.storage_id != own.storage_id || found.boot_id != own.boot_id;
    if found.incarnation > own.incarnation || found.incarnation == own.incarnation && other {
        let (found, own) = (found.incarnation, own.incarnation);
        return Decision::Refuse(RegistrationError::Replaced { name: name.to_owned(), found, own });
    }
    let wanted = BrokerSpec { fenced: found.fenced, ..own.clone() };
    if *found == wanted { Decision::Keep } else { Decision::Write(Box::new(wanted)) }
}
