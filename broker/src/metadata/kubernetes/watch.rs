//! Watching: list, then follow; list again whenever the API lost the thread. It never ends, and never leaves out that an
//! object is gone: what a new list lacks is told as deleted. When the API went back in time, all is listed and told anew: the
//! watch would wait until the API has come as far again.

use std::collections::BTreeMap;
use std::mem::take;

use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use kube::api::{Api, DynamicObject};
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::watch::Receiver;

use super::{Event, Kind, Object, document, errors};
use crate::metrics::MetadataMetrics;

/// Seconds after which a watch is begun again where it was: a connection that died silently is noticed by then.
const RENEWED_AFTER: u32 = 60;

/// All objects that the selectors (of labels, of fields) choose.
pub(super) fn watch(
    kind: Kind,
    api: Api<DynamicObject>,
    (label_selector, field_selector): (Option<String>, Option<String>),
    metrics: MetadataMetrics,
    rewinds: Receiver<u64>,
) -> BoxStream<'static, Event> {
    let config = watcher::Config { label_selector, field_selector, timeout: Some(RENEWED_AFTER), ..Default::default() };
    let watching = Watching { told: begin(&api, &config), api, config, rewinds };
    let told = stream::unfold(watching, |mut watching| async move { Some((watching.next().await, watching)) });
    let following = move |known: &mut Known, told: Option<Watched>| {
        let events = match told {
            None => {
                known.rewind();
                Vec::new()
            }
            Some(Ok(event)) => known.take_in(event),
            Some(Err(error)) => {
                metrics.watch_broken();
                tracing::warn!(kind = kind.as_str(), error = errors::chain(&error), "a watch broke: it begins again");
                Vec::new()
            }
        };
        futures::future::ready(Some(events))
    };
    told.scan(Known::new(kind), following).flat_map(stream::iter).boxed()
}

/// Errors come after a pause that grows to 30 s, with jitter.
fn begin(api: &Api<DynamicObject>, config: &watcher::Config) -> BoxStream<'static, Watched> {
    watcher(api.clone(), config.clone()).default_backoff().boxed()
}

type Watched = watcher::Result<watcher::Event<DynamicObject>>;

/// A watch that begins anew when the API goes back in time.
struct Watching {
    api: Api<DynamicObject>,
    config: watcher::Config,
    told: BoxStream<'static, Watched>,
    rewinds: Receiver<u64>,
}

impl Watching {
    /// What it tells next; `None`: it has begun anew.
    async fn next(&mut self) -> Option<Watched> {
        tokio::select! {
            biased;
            Ok(()) = self.rewinds.changed() => {
                self.told = begin(&self.api, &self.config);
                None
            }
            Some(told) = self.told.next() => Some(told),
            // A watch never ends.
            else => std::future::pending().await,
        }
    }
}

/// What the reader has been told.
struct Known {
    kind: Kind,
    objects: BTreeMap<String, Object>,
    /// Those of before the list that is under way.
    before: BTreeMap<String, Object>,
    listed: bool,
}

impl Known {
    fn new(kind: Kind) -> Self {
        Self { kind, objects: BTreeMap::new(), before: BTreeMap::new(), listed: false }
    }

    fn take_in(&mut self, event: watcher::Event<DynamicObject>) -> Vec<Event> {
        match event {
            watcher::Event::Init => {
                // A list may break off and begin anew: what it had told stands.
                self.before.append(&mut self.objects);
                Vec::new()
            }
            watcher::Event::InitApply(object) | watcher::Event::Apply(object) => {
                self.decode(object).map_or_else(Vec::new, |object| self.apply(object))
            }
            watcher::Event::InitDone => {
                let mut events: Vec<_> = take(&mut self.before).into_values().map(Event::Deleted).collect();
                if !self.listed {
                    self.listed = true;
                    events.push(Event::Listed);
                }
                events
            }
            watcher::Event::Delete(object) => {
                let Some(object) = self.decode(object) else { return Vec::new() };
                self.objects.remove(&object.name).map(|_| Event::Deleted(object)).into_iter().collect()
            }
        }
    }

    /// Versions from before say nothing any more: all is told anew, also under a version that was given out twice.
    fn rewind(&mut self) {
        for object in self.objects.values_mut().chain(self.before.values_mut()) {
            object.resource_version.clear();
        }
    }

    fn apply(&mut self, object: Object) -> Vec<Event> {
        let old = self.before.remove(&object.name).or_else(|| self.objects.remove(&object.name));
        self.objects.insert(object.name.clone(), object.clone());
        match old {
            Some(old) if old.uid != object.uid => vec![Event::Deleted(old), Event::Applied(object)],
            Some(old) if old.resource_version == object.resource_version => Vec::new(),
            _ => vec![Event::Applied(object)],
        }
    }

    fn decode(&self, object: DynamicObject) -> Option<Object> {
        let decoded = document::decode(self.kind, object);
        decoded.inspect_err(|error| tracing::error!(%error, "the Kubernetes API tells what is no object")).ok()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};

    use super::*;

    fn object(name: &str, uid: u128, version: u32) -> DynamicObject {
        let uid = uuid::Uuid::from_u128(uid).to_string();
        let metadata = json!({"name": name, "uid": uid, "resourceVersion": version.to_string()});
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    /// As text: `+` and `-` with name and version, `.` for the end of the list.
    fn told(events: impl IntoIterator<Item = watcher::Event<DynamicObject>>) -> String {
        let mut known = Known::new(Kind::Topic);
        let shown = |event: Event| match event {
            Event::Applied(object) => format!("+{}{}", object.name, object.resource_version),
            Event::Deleted(object) => format!("-{}{}", object.name, object.resource_version),
            Event::Listed => ".".to_owned(),
        };
        events.into_iter().flat_map(|event| known.take_in(event)).map(shown).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_vanished_while_nobody_looked_is_told_as_deleted() {
        let first = [Init, InitApply(object("a", 1, 1)), InitApply(object("b", 2, 2)), InitDone];
        let again = [Init, InitApply(object("b", 2, 5)), InitApply(object("c", 3, 6)), InitDone];
        assert_eq!(told(first.into_iter().chain(again)), "+a1 +b2 . +b5 +c6 -a1");
    }

    #[test]
    fn a_list_that_is_the_same_tells_nothing() {
        let list = || [Init, InitApply(object("a", 1, 1)), InitDone];
        assert_eq!(told(list().into_iter().chain(list())), "+a1 .");
    }

    #[test]
    fn m5_after_a_rewind_all_is_told_anew_and_what_was_made_since_as_deleted() {
        let list = |version| [Init, InitApply(object("a", 1, version)), InitApply(object("b", 2, 2))];
        let mut known = Known::new(Kind::Topic);
        let now = list(7).into_iter().chain([InitApply(object("c", 3, 3)), InitDone]);
        assert_eq!(now.flat_map(|event| known.take_in(event)).count(), 4);
        known.rewind();
        let told: Vec<_> = list(1).into_iter().chain([InitDone]).flat_map(|event| known.take_in(event)).collect();
        let told: Vec<_> = told
            .iter()
            .map(|event| match event {
                Event::Applied(object) => format!("+{}{}", object.name, object.resource_version),
                Event::Deleted(object) => format!("-{}", object.name),
                Event::Listed => ".".to_owned(),
            })
            .collect();
        assert_eq!(told, ["+a1", "+b2", "-c"]);
    }

    #[test]
    fn a_list_that_broke_off_is_taken_up_again() {
        let broken = [Init, InitApply(object("a", 1, 1)), InitApply(object("b", 2, 2))];
        let whole = [Init, InitApply(object("b", 2, 2)), InitApply(object("c", 3, 3)), InitDone];
        assert_eq!(told(broken.into_iter().chain(whole)), "+a1 +b2 +c3 -a1 .");
    }

    #[test]
    fn an_object_made_again_is_first_told_as_gone() {
        let list = [Init, InitApply(object("a", 1, 1)), InitDone];
        let later = [Init, InitApply(object("a", 9, 3)), InitDone, Apply(object("a", 9, 4)), Delete(object("a", 9, 5))];
        assert_eq!(told(list.into_iter().chain(later)), "+a1 . -a1 +a3 +a4 -a5");
    }
}
