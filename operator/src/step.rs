//! The steps of a reconcile. They name what failed in errors and metrics, and where tests kill the operator.

/// A step of a reconcile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Step {
    /// Reading what the object refers to.
    Fetch = 1,
    /// The brokers' ServiceAccount, Roles and RoleBindings.
    Access,
    /// Their ConfigMap.
    Config,
    /// Their Services.
    Services,
    /// Their PodDisruptionBudget.
    DisruptionBudget,
    /// Their NetworkPolicy.
    NetworkPolicy,
    /// Raising the size of their volumes.
    Volumes,
    /// Their StatefulSet.
    StatefulSet,
    /// Their ServiceMonitor.
    ServiceMonitor,
    /// Taking away what is no longer wanted.
    Orphans,
    /// Telling their pods which zone they run in.
    Zones,
    /// Restarting one of them.
    Restart,
    /// The Cluster's status.
    ClusterStatus,
    /// The finalizer of a Topic.
    Finalizer,
    /// The Topic's status.
    TopicStatus,
}

impl Step {
    /// Each of them, in the order in which they are done.
    pub const ALL: [Self; 15] = [
        Self::Fetch,
        Self::Access,
        Self::Config,
        Self::Services,
        Self::DisruptionBudget,
        Self::NetworkPolicy,
        Self::Volumes,
        Self::StatefulSet,
        Self::ServiceMonitor,
        Self::Orphans,
        Self::Zones,
        Self::Restart,
        Self::ClusterStatus,
        Self::Finalizer,
        Self::TopicStatus,
    ];

    /// Its name in metrics, logs and [`crate::crash::VARIABLE`].
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Access => "access",
            Self::Config => "config",
            Self::Services => "services",
            Self::DisruptionBudget => "disruption-budget",
            Self::NetworkPolicy => "network-policy",
            Self::Volumes => "volumes",
            Self::StatefulSet => "stateful-set",
            Self::ServiceMonitor => "service-monitor",
            Self::Orphans => "orphans",
            Self::Zones => "zones",
            Self::Restart => "restart",
            Self::ClusterStatus => "cluster-status",
            Self::Finalizer => "finalizer",
            Self::TopicStatus => "topic-status",
        }
    }

    /// The step of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.name() == name)
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
