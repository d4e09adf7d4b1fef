//! What the API's errors mean. A change that was not answered may have happened (M3): only what proves the contrary, an
//! answer that says so or a connection that was never made, is anything else than unknown.

use hyper_util::client::legacy;
use kube::core::Status;

use crate::metadata::{Kind, MetadataError};

/// Why a call brought nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was not made.
    NotMade(String),
    /// The API server said no.
    Said(Box<Status>),
    /// No answer, or none that can be read.
    NoAnswer(String),
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Said(status),
            kube::Error::Service(cause) if never_connected(&*cause) => Self::NotMade(chain(&*cause)),
            kube::Error::Auth(_) | kube::Error::BuildRequest(_) | kube::Error::HttpError(_) => {
                Self::NotMade(chain(&error))
            }
            error => Self::NoAnswer(chain(&error)),
        }
    }
}

fn never_connected(cause: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    cause.downcast_ref::<legacy::Error>().is_some_and(legacy::Error::is_connect)
}

/// An error with its causes: the outer ones alone say little.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

impl Failure {
    /// No answer in time.
    pub(crate) fn late() -> Self {
        Self::NoAnswer("the Kubernetes API did not answer in time".to_owned())
    }

    fn unavailable(self) -> MetadataError {
        match self {
            Self::NotMade(what) | Self::NoAnswer(what) => MetadataError::Unavailable(what),
            Self::Said(status) => MetadataError::Unavailable(sentence(&status)),
        }
    }

    /// Of a read of one object: nothing, if it is not there. That a kind, its definition or its server is gone does not
    /// mean that its objects are (M9).
    pub(crate) fn of_get(self, name: &str) -> Result<(), MetadataError> {
        match self {
            Self::Said(status) if is_absent(&status, name) => Ok(()),
            other => Err(other.unavailable()),
        }
    }

    /// Of a list.
    pub(crate) fn of_list(self) -> MetadataError {
        self.unavailable()
    }

    /// Of a change of an object.
    pub(crate) fn of_change(self, kind: Kind, name: &str) -> MetadataError {
        let named = name.to_owned();
        let status = match self {
            Self::NotMade(what) => return MetadataError::Unavailable(what),
            Self::NoAnswer(what) => return MetadataError::Unknown(what),
            Self::Said(status) => status,
        };
        match status.code {
            404 if is_absent(&status, name) => MetadataError::NotFound { kind, name: named },
            409 if status.reason == "AlreadyExists" => MetadataError::Exists { kind, name: named },
            409 => MetadataError::Conflict { kind, name: named },
            400 | 413 | 415 | 422 => MetadataError::Refused { kind, name: named, what: sentence(&status) },
            // All other answers of this class say that nothing was done: no rights, no such kind, too many requests.
            400..500 => MetadataError::Unavailable(sentence(&status)),
            _ => MetadataError::Unknown(sentence(&status)),
        }
    }
}

/// The API server knows the kind, and says that this object is not there.
fn is_absent(status: &Status, name: &str) -> bool {
    status.code == 404 && status.details.as_ref().is_some_and(|details| details.name == name)
}

fn sentence(status: &Status) -> String {
    if status.message.is_empty() {
        format!("the Kubernetes API answered {} {}", status.code, status.reason)
    } else {
        status.message.clone()
    }
}

#[cfg(test)]
mod tests {
    use kube::core::response::StatusDetails;

    use super::*;

    fn said(code: u16, reason: &str, name: &str) -> Failure {
        let (group, kind, uid) = (String::new(), String::new(), String::new());
        let name = name.to_owned();
        let details = StatusDetails { name, group, kind, uid, causes: Vec::new(), retry_after_seconds: 0 };
        Failure::Said(Status::failure("as it says", reason).with_code(code).with_details(details).boxed())
    }

    #[test]
    fn m3_only_a_clear_no_is_known_to_have_changed_nothing() {
        use MetadataError::*;
        let is = |failure: Failure, expected: fn(&MetadataError) -> bool| {
            let told = format!("{failure:?}");
            let error = failure.of_change(Kind::Topic, "a");
            assert!(expected(&error), "{told}: {error:?}");
        };
        is(said(404, "NotFound", "a"), |e| matches!(e, NotFound { .. }));
        is(said(404, "NotFound", ""), |e| matches!(e, Unavailable(_)));
        is(said(409, "AlreadyExists", "a"), |e| matches!(e, Exists { .. }));
        is(said(409, "Conflict", "a"), |e| matches!(e, Conflict { .. }));
        is(said(422, "Invalid", "a"), |e| matches!(e, Refused { what, .. } if what == "as it says"));
        is(said(403, "Forbidden", "a"), |e| matches!(e, Unavailable(what) if what == "as it says"));
        is(said(429, "TooManyRequests", "a"), |e| matches!(e, Unavailable(_)));
        for code in [500, 502, 503, 504, 0, 200] {
            is(said(code, "InternalError", "a"), |e| matches!(e, Unknown(_)));
        }
        is(Failure::late(), |e| matches!(e, Unknown(_)));
        is(Failure::NotMade("no route".to_owned()), |e| matches!(e, Unavailable(_)));
        is(kube::Error::Service("reset".into()).into(), |e| matches!(e, Unknown(_)));
    }

    #[test]
    fn m9_an_unknown_kind_is_not_taken_for_an_absent_object() {
        assert!(said(404, "NotFound", "a").of_get("a").is_ok());
        for failure in [said(404, "NotFound", ""), said(404, "NotFound", "other"), said(403, "Forbidden", "a")] {
            assert!(matches!(failure.of_get("a"), Err(MetadataError::Unavailable(_))));
        }
        assert!(matches!(Failure::late().of_get("a"), Err(MetadataError::Unavailable(_))));
    }
}
