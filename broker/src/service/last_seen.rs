//! What this broker remembers of the cluster's internal objects: what lost ones are rebuilt from.

use std::sync::Arc;

use parking_lot::Mutex;
use taffrail_proto::v1::{LastSeenRequest, LastSeenResponse, Reason, SeenObject};
use uuid::Uuid;

use super::MAX_RESPONSE_BYTES;
use super::status::{Refused, invalid, refusal};
use crate::cluster::serving::Kept;
use crate::metadata::Kind;

/// The memory, and whose.
#[derive(Clone)]
pub struct LastSeen {
    /// Name of the Cluster.
    pub cluster: String,
    /// The memory.
    pub kept: Arc<Mutex<Kept>>,
}

/// As many objects as fit into one answer of `broker`, from where the last one ended.
pub(super) async fn answer(
    seen: Option<&LastSeen>,
    broker: i32,
    request: LastSeenRequest,
) -> Result<LastSeenResponse, Refused> {
    let Some(LastSeen { cluster, kept }) = seen.cloned() else {
        let message =
            "this broker runs alone: its metadata is in its own data directory and cannot be lost without that";
        return Err(refusal(Reason::InvalidRequest, message).into());
    };
    let after = match request.after.as_str() {
        "" => None,
        text => Some(slice_id(text).ok_or_else(|| invalid("after", "give what the answer before said in `next`"))?),
    };
    // It may be written to disk at this moment.
    let page = tokio::task::spawn_blocking(move || page(&kept.lock(), after, MAX_RESPONSE_BYTES)).await;
    let (objects, next) = page.map_err(|error| refusal(Reason::Internal, error))?;
    let next = next.map(|(topic, first)| format!("{topic}-{first}")).unwrap_or_default();
    Ok(LastSeenResponse { broker, cluster, objects, next })
}

/// At least one slice; the state before the first. And which slice was the last, if there are more.
fn page(kept: &Kept, after: Option<(Uuid, i32)>, most: usize) -> (Vec<SeenObject>, Option<(Uuid, i32)>) {
    let object = |kind: Kind, spec: &str| SeenObject { kind: kind.as_str().to_owned(), spec: spec.to_owned() };
    let state = kept.state().filter(|_| after.is_none()).map(|spec| object(Kind::ClusterState, spec));
    let mut objects: Vec<_> = state.into_iter().collect();
    let mut bytes: usize = objects.iter().map(|object| object.spec.len()).sum();
    let mut last = None;
    for (id, spec) in kept.slices(after) {
        bytes += spec.len();
        if last.is_some() && bytes > most {
            return (objects, last);
        }
        objects.push(object(Kind::PartitionSlice, spec));
        last = Some(id);
    }
    (objects, None)
}

fn slice_id(text: &str) -> Option<(Uuid, i32)> {
    let (topic, first) = text.rsplit_once('-')?;
    Some((Uuid::try_parse(topic).ok()?, first.parse().ok().filter(|first| *first >= 0)?))
}

#[cfg(test)]
mod tests {
    use taffrail_crds::PartitionSliceSpec;

    use super::*;
    use crate::cluster::controller::slices::tests::{spread, wanted};
    use crate::storage::Storage as _;
    use crate::storage::memory::MemoryStorage;

    #[test]
    fn pages_together_are_all_there_is() {
        let mut kept = Kept::open(MemoryStorage::default().meta()).unwrap();
        let slices = spread(&wanted(500));
        kept.see(None, slices.iter()).unwrap();
        let size = kept.slices(None).next().unwrap().1.len();
        for most in [0, size * 5 / 2, usize::MAX] {
            let (mut all, mut after, mut pages) = (Vec::<PartitionSliceSpec>::new(), None, 0);
            loop {
                let (objects, next) = page(&kept, after, most);
                all.extend(objects.into_iter().map(|object| serde_json::from_str(&object.spec).unwrap()));
                pages += 1;
                after = next.map(|(topic, first)| slice_id(&format!("{topic}-{first}")).unwrap());
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(all, slices);
            let expected = if most == 0 { slices.len() } else { slices.len().div_ceil(most / size) };
            assert_eq!(pages, expected, "{most}");
        }
    }
}
