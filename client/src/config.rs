//! What a client must be told: where brokers are, who it is, and how long it may wait.

use std::path::PathBuf;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint, Uri};

use crate::error::{Error, ErrorKind, Result};

/// The port of a broker's gRPC listener where none is given.
pub const DEFAULT_PORT: u16 = 9094;

/// Settings of a [`Client`](crate::Client). `ClientConfig::new("broker:9094")` and defaults do for most.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Brokers to begin with, each `host`, `host:port` or `http://host:port`; the others are learnt from them.
    pub endpoints: Vec<String>,
    /// Shown in the broker's logs and metrics; at most 255 bytes. Default `taffrail-client`.
    pub client_id: String,
    /// File with a bearer token, such as a projected service account token. Read again every minute, since those rotate.
    pub token_file: Option<PathBuf>,
    /// How long one attempt to connect may take. Default 2 s: a broker that has moved does not answer where it was, and its
    /// name is looked up anew for each attempt.
    pub connect_timeout: Duration,
    /// How long a call may take, its retries included. Default 30 s. Producers have a delivery timeout of their own.
    pub request_timeout: Duration,
    /// Makes a channel that connects when it is used: simulations have a network of their own.
    #[doc(hidden)]
    pub dial: fn(Endpoint) -> Channel,
}

impl ClientConfig {
    /// Defaults, and these endpoints: one, or several separated by commas.
    pub fn new(endpoints: &str) -> Self {
        Self {
            endpoints: endpoints.split(',').map(|e| e.trim().to_owned()).filter(|e| !e.is_empty()).collect(),
            client_id: "taffrail-client".to_owned(),
            token_file: None,
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(30),
            dial: |endpoint| endpoint.connect_lazy(),
        }
    }

    /// Sets [`client_id`](Self::client_id).
    pub fn client_id(mut self, id: impl Into<String>) -> Self {
        self.client_id = id.into();
        self
    }

    /// Sets [`token_file`](Self::token_file).
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.token_file = Some(path.into());
        self
    }

    /// Sets [`connect_timeout`](Self::connect_timeout).
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets [`request_timeout`](Self::request_timeout).
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// The endpoints in one form, `host:port`; tells the first fault of the settings.
    pub(crate) fn validate(&self) -> Result<Vec<String>> {
        if self.client_id.len() > 255 {
            let message = format!("client_id has {} bytes: shorten it to 255", self.client_id.len());
            return Err(Error::local(ErrorKind::InvalidArgument, message));
        }
        if self.endpoints.is_empty() {
            return Err(Error::local(
                ErrorKind::InvalidArgument,
                "no endpoint given: name a broker, such as localhost:9094",
            ));
        }
        self.endpoints.iter().map(|e| authority(e)).collect()
    }
}

impl From<&str> for ClientConfig {
    fn from(endpoints: &str) -> Self {
        Self::new(endpoints)
    }
}

impl From<String> for ClientConfig {
    fn from(endpoints: String) -> Self {
        Self::new(&endpoints)
    }
}

/// `host:port` of an endpoint.
fn authority(endpoint: &str) -> Result<String> {
    let fault = |why: &str| {
        let message = format!("endpoint {endpoint:?} {why}: write host, host:port or http://host:port");
        Error::local(ErrorKind::InvalidArgument, message)
    };
    let with_scheme = if endpoint.contains("://") { endpoint.to_owned() } else { format!("http://{endpoint}") };
    let uri: Uri = with_scheme.parse().map_err(|_| fault("is no address"))?;
    match uri.scheme_str() {
        Some("http" | "grpc") => {}
        Some("https") => return Err(fault("asks for TLS, which this version does not speak")),
        _ => return Err(fault("has an unknown scheme")),
    }
    if uri.path() != "/" && !uri.path().is_empty() {
        return Err(fault("has a path"));
    }
    let host = uri.host().filter(|h| !h.is_empty()).ok_or_else(|| fault("has no host"))?;
    Ok(format!("{host}:{}", uri.port_u16().unwrap_or(DEFAULT_PORT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_brought_into_one_form() {
        let config = ClientConfig::new("a, b:1,http://c:2 ,[::1]:3,grpc://d");
        assert_eq!(config.validate().unwrap(), ["a:9094", "b:1", "c:2", "[::1]:3", "d:9094"]);
    }

    #[test]
    fn what_is_no_endpoint_is_refused_with_advice() {
        for bad in ["", "https://a:1", "ftp://a", "http://a/path", "a b", "http://:80"] {
            let error = ClientConfig::new(bad).validate().expect_err(bad);
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{bad}");
            assert!(error.to_string().contains(':'), "{error}");
        }
    }
}
