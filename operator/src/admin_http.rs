//! The HTTP server for probes and people: `/livez`, `/readyz`, `/metrics`, `/log-level`. It decides nothing.
//!
//! It asks for no token, so it changes nothing but the log level, and that only for callers on this machine.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::{CONTENT_TYPE, Metrics};
use crate::readiness::Readiness;
use crate::telemetry::{Level, LogLevel};

/// Longest log level that is taken, in bytes.
const MAX_LEVEL: usize = 4096;

/// What the server tells of.
#[derive(Clone, Debug)]
pub struct Subjects {
    /// For `/readyz`.
    pub readiness: Arc<Readiness>,
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
    /// For `/log-level`.
    pub log_level: Arc<LogLevel>,
}

/// Serves until `stop`. Requests under way are finished.
pub async fn serve(listener: TcpListener, subjects: Subjects, stop: CancellationToken) -> std::io::Result<()> {
    let service = router(subjects).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(stop.cancelled_owned()).await
}

fn router(subjects: Subjects) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/log-level", get(log_level).put(set_log_level))
        .layer(DefaultBodyLimit::max(MAX_LEVEL))
        .with_state(subjects)
}

async fn index() -> &'static str {
    "/livez      200: the process is alive\n\
     /readyz     200: it acts or stands by; 503: it does not, with the reason\n\
     /metrics    OpenMetrics\n\
     /log-level  GET: the log level; PUT with the body info, debug, ...: changes it\n"
}

async fn readyz(State(subjects): State<Subjects>) -> Response {
    match subjects.readiness.reason() {
        None => "ready\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")).into_response(),
    }
}

async fn metrics(State(subjects): State<Subjects>) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], subjects.metrics.encode()).into_response()
}

async fn log_level(State(subjects): State<Subjects>) -> String {
    format!("{}\n", subjects.log_level.get())
}

async fn set_log_level(
    State(subjects): State<Subjects>,
    ConnectInfo(caller): ConnectInfo<SocketAddr>,
    body: String,
) -> Response {
    if !caller.ip().to_canonical().is_loopback() {
        return (StatusCode::FORBIDDEN, "the log level can be changed from this machine only\n").into_response();
    }
    match body.parse::<Level>() {
        Ok(level) => {
            subjects.log_level.set(level);
            log_level(State(subjects)).await.into_response()
        }
        Err(form) => (StatusCode::BAD_REQUEST, format!("{form}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::readiness::Phase;
    use crate::telemetry;

    /// Status code and the rest of the answer.
    async fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        (answer[9..12].parse().unwrap(), answer)
    }

    #[tokio::test]
    async fn it_tells_readiness_metrics_and_the_log_level() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let readiness = Readiness::new();
        let log_level = Arc::new(telemetry::for_test());
        let subjects = Subjects { readiness: readiness.clone(), metrics: Metrics::new(), log_level };
        tokio::spawn(serve(listener, subjects, CancellationToken::new()));

        assert_eq!(ask(address, "GET", "/livez", "").await.0, 200);
        readiness.set(Phase::Waiting("for topics.taffrail.dev".to_owned()));
        let (status, body) = ask(address, "GET", "/readyz", "").await;
        assert!(status == 503 && body.contains("for topics.taffrail.dev"), "{body}");
        readiness.set(Phase::Standby);
        assert_eq!(ask(address, "GET", "/readyz", "").await.0, 200);
        let (_, text) = ask(address, "GET", "/metrics", "").await;
        assert!(text.contains("taffrail_operator_acting 0"), "{text}");
        assert_eq!(ask(address, "PUT", "/log-level", "loud").await.0, 400);
        assert!(ask(address, "PUT", "/log-level", "debug").await.1.ends_with("debug\n"));
        assert_eq!(ask(address, "PUT", "/log-level", &"x".repeat(MAX_LEVEL + 1)).await.0, 413);
    }
}
