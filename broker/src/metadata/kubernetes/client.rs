//! The connection to the Kubernetes API.

use std::path::Path;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};

use super::errors::chain;

const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// Longer than a watch lasts: a connection that is silent for so long is dead.
const READ_PATIENCE: Duration = Duration::from_secs(75);

/// Why there is no connection to the Kubernetes API.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file that says where it is.
    #[error("cannot use the kubeconfig {file}: {cause}")]
    File {
        /// The file.
        file: String,
        /// What is wrong with it.
        cause: String,
    },
    /// Nothing says where it is.
    #[error("cannot find the Kubernetes API: {0}; run this in a pod, or give --kubeconfig FILE")]
    Nowhere(String),
    /// Certificates or keys are wrong.
    #[error("cannot set up the connection to the Kubernetes API: {0}")]
    Unusable(String),
}

/// By a kubeconfig file, otherwise as the pod's service account, otherwise as $KUBECONFIG says. Nothing is asked of the API
/// yet.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<kube::Client, ClientError> {
    let mut config = match kubeconfig {
        Some(path) => from_file(path).await?,
        None => match kube::Config::incluster() {
            Ok(config) => config,
            Err(_) => kube::Config::infer().await.map_err(|error| ClientError::Nowhere(chain(&error)))?,
        },
    };
    config.connect_timeout = Some(CONNECT_PATIENCE);
    config.read_timeout = Some(READ_PATIENCE);
    config.reset_reader_on_write = true;
    // A change that is sent twice without anybody's knowledge conflicts with itself.
    config.default_retry = false;
    kube::Client::try_from(config).map_err(|error| ClientError::Unusable(chain(&error)))
}

async fn from_file(path: &Path) -> Result<kube::Config, ClientError> {
    let unusable = |cause: String| ClientError::File { file: path.display().to_string(), cause };
    let file = Kubeconfig::read_from(path).map_err(|error| unusable(chain(&error)))?;
    let options = KubeConfigOptions::default();
    kube::Config::from_custom_kubeconfig(file, &options).await.map_err(|error| unusable(chain(&error)))
}
