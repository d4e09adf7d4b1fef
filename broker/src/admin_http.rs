//! The HTTP server for probes and people: `/livez`, `/readyz`, `/metrics`, `/log-level`. It repeats what
//! [`Readiness`], [`Metrics`] and [`LogLevel`] say and decides nothing.
//!
//! It asks for no token, so it shows no records and changes nothing but the log level, and that only for callers on this
//! machine. `/livez` depends on nothing: a broker that is not ready, or whose storage failed, must not be restarted by a
//! probe in the middle of what it is doing.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::Level;
use crate::metrics::{CONTENT_TYPE, Metrics};
use crate::readiness::Readiness;
use crate::telemetry::LogLevel;

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
     /readyz     200: it serves; 503: it does not, with the reasons\n\
     /metrics    OpenMetrics\n\
     /log-level  GET: the log level; PUT with the body info, debug, ...: changes it\n"
}

async fn readyz(State(subjects): State<Subjects>) -> Response {
    let reasons = subjects.readiness.reasons();
    if reasons.is_empty() {
        return "ready\n".into_response();
    }
    let body = reasons.iter().fold(String::new(), |body, reason| body + "not ready: " + &reason.to_string() + "\n");
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}

async fn metrics(State(subjects): State<Subjects>) -> Response {
    // It reads the disk's state and writes megabytes where there are many partitions: not on a thread that serves clients.
    match tokio::task::spawn_blocking(move || subjects.metrics.encode()).await {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
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
    use std::time::Instant;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::readiness::Phase;
    use crate::telemetry;

    struct Server {
        address: SocketAddr,
        subjects: Subjects,
        stop: CancellationToken,
    }

    async fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let subjects = Subjects {
            readiness: Readiness::new("opening storage"),
            metrics: Metrics::new(Instant::now()),
            log_level: Arc::new(telemetry::for_test()),
        };
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        tokio::spawn(serve(listener, subjects.clone(), stop.clone()));
        Server { address, subjects, stop }
    }

    impl Server {
        /// Status code and the rest of the answer.
        async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
            let mut stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
            let length = body.len();
            let request = format!(
                "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            (answer[9..12].parse().unwrap(), answer)
        }
    }

    #[tokio::test]
    async fn readyz_tells_why_not_while_livez_holds() {
        let server = start().await;
        let (status, body) = server.ask("GET", "/readyz", "").await;
        assert!(status == 503 && body.contains("not ready: starting: opening storage"), "{body}");
        assert_eq!(server.ask("GET", "/livez", "").await.0, 200);
        server.subjects.readiness.set(Phase::Serving);
        assert_eq!(server.ask("GET", "/readyz", "").await.0, 200);
        server.subjects.readiness.set(Phase::Draining);
        assert_eq!(server.ask("GET", "/readyz", "").await.0, 503);
        server.stop.cancel();
    }

    #[tokio::test]
    async fn metrics_are_openmetrics() {
        let server = start().await;
        let (status, text) = server.ask("GET", "/metrics", "").await;
        assert_eq!(status, 200);
        assert!(text.contains("content-type: application/openmetrics-text"), "{text}");
        assert!(text.contains("process_resident_memory_bytes "), "{text}");
    }

    #[tokio::test]
    async fn the_log_level_is_shown_changed_and_checked() {
        let server = start().await;
        assert!(server.ask("GET", "/log-level", "").await.1.ends_with("off\n"));
        let (status, body) = server.ask("PUT", "/log-level", "info,taffrail_broker::storage=debug").await;
        assert!(status == 200 && body.ends_with("info,taffrail_broker::storage=debug\n"), "{body}");
        let (status, body) = server.ask("PUT", "/log-level", "loud").await;
        assert!(status == 400 && body.contains("write error, warn, info"), "{body}");
        assert_eq!(server.ask("PUT", "/log-level", &"x".repeat(MAX_LEVEL + 1)).await.0, 413);
        assert!(server.ask("GET", "/log-level", "").await.1.ends_with("storage=debug\n"));
    }

    #[tokio::test]
    async fn what_is_not_there_is_refused() {
        let server = start().await;
        assert_eq!(server.ask("GET", "/nothing", "").await.0, 404);
        assert_eq!(server.ask("POST", "/log-level", "info").await.0, 405);
        assert_eq!(server.ask("GET", "/", "").await.0, 200);
    }
}
