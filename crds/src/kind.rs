//! The kinds of objects.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{Broker, Cluster, ClusterState, GROUP, PartitionSlice, Topic, VERSION};

/// A kind of object. Users write the first two; the brokers keep the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// [`Cluster`]
    Cluster,
    /// [`Topic`]
    Topic,
    /// [`PartitionSlice`]
    PartitionSlice,
    /// [`ClusterState`]
    ClusterState,
    /// [`Broker`]
    Broker,
}

impl Kind {
    /// All kinds, in the order in which their definitions are written and applied.
    pub const ALL: [Self; 5] = [Self::Cluster, Self::Topic, Self::PartitionSlice, Self::ClusterState, Self::Broker];

    /// The word in manifests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cluster => "Cluster",
            Self::Topic => "Topic",
            Self::PartitionSlice => "PartitionSlice",
            Self::ClusterState => "ClusterState",
            Self::Broker => "Broker",
        }
    }

    /// The kind that a word of manifests says.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// An object of this kind, as it is sent to an API server. `labels` and `spec` are objects.
    pub fn object(self, name: &str, labels: &Value, spec: &impl Serialize) -> Value {
        json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": self.name(),
            "metadata": { "name": name, "labels": labels },
            "spec": spec,
        })
    }

    /// Its definition: names, schema, rules.
    ///
    /// No field is nullable in it: an API server then drops a field that is null, so that it means the same as none,
    /// whatever the field's type. (A nullable field of a few words would be refused when it is null.) Documentation flows:
    /// kubectl wraps it to the terminal's width.
    pub fn definition(self) -> CustomResourceDefinition {
        let mut definition = match self {
            Self::Cluster => Cluster::crd(),
            Self::Topic => Topic::crd(),
            Self::PartitionSlice => PartitionSlice::crd(),
            Self::ClusterState => ClusterState::crd(),
            Self::Broker => Broker::crd(),
        };
        let versions = definition.spec.versions.iter_mut();
        let schemas = versions.filter_map(|version| version.schema.as_mut()?.open_api_v3_schema.as_mut());
        schemas.for_each(tidy);
        definition
    }
}

fn tidy(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if let Some(text) = &mut schema.description {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    schema.properties.iter_mut().flat_map(|fields| fields.values_mut()).for_each(tidy);
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => tidy(items),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(tidy),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        tidy(values);
    }
}
