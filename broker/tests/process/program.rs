//! The program under test: starts it, reads its log, asks it by HTTP, and leaves nothing running.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Far beyond what anything takes, also on a machine that compiles beside it.
const PATIENCE: Duration = Duration::from_mins(1);

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taffrail-broker"));
    for (variable, _) in std::env::vars_os() {
        if variable.as_encoded_bytes().starts_with(b"TAFFRAIL_") {
            command.env_remove(variable);
        }
    }
    command
}

/// What a command that ends by itself said.
pub(crate) struct Output {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

pub(crate) fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let output = program().args(arguments).envs(environment.iter().copied()).output().expect("the program runs");
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// A broker on free ports; killed when dropped.
pub(crate) struct Broker {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    /// How many of the lines [`wait_for`](Self::wait_for) has gone past.
    read: usize,
}

impl Broker {
    pub(crate) fn start(data: &Path, more: &[&str]) -> Self {
        Self::start_with(data, more, &[])
    }

    pub(crate) fn start_with(data: &Path, more: &[&str], environment: &[(&str, &str)]) -> Self {
        let free = ["--listen", "grpc://127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-format", "json"];
        let mut child = program()
            .args(["standalone", "--data-dir", data.to_str().expect("UTF-8")])
            .args(free)
            .args(more)
            .envs(environment.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok()));
        Self { child, lines, seen: Vec::new(), read: 0 }
    }

    /// The next line of the log whose message is `message`.
    pub(crate) fn wait_for(&mut self, message: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            while self.read < self.seen.len() {
                self.read += 1;
                let line: Value = serde_json::from_str(&self.seen[self.read - 1]).unwrap_or(Value::Null);
                if line["message"] == message {
                    return line;
                }
            }
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("no line {message:?} in\n{}", self.seen.join("\n"))
                }
            }
        }
    }

    /// Waits until a line of the log contains this.
    pub(crate) fn wait_for_part(&mut self, part: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.seen.iter().any(|line| line.contains(part)) {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("{part:?} is not in\n{}", self.seen.join("\n"))
                }
            }
        }
    }

    /// The log so far, for people; all of it once the program has ended.
    pub(crate) fn log(&mut self) -> String {
        let has_ended = self.child.try_wait().is_ok_and(|status| status.is_some());
        let patience = if has_ended { PATIENCE } else { Duration::from_millis(50) };
        while let Ok(line) = self.lines.recv_timeout(patience) {
            self.seen.push(line);
        }
        self.seen.join("\n")
    }

    fn address(&mut self, message: &str) -> SocketAddr {
        let of = |line: &String| {
            let line: Value = serde_json::from_str(line).ok()?;
            let address = line["address"].as_str().filter(|_| line["message"] == message)?;
            address.trim_start_matches("grpc://").parse().ok()
        };
        let found = self.seen.iter().find_map(of);
        found.unwrap_or_else(|| {
            let line = self.wait_for(message).to_string();
            of(&line).expect("the line has an address")
        })
    }

    /// Where clients are served.
    pub(crate) fn listener(&mut self) -> SocketAddr {
        self.address("listening")
    }

    fn ask(&mut self, method: &str, path: &str, body: &str) -> (u16, String) {
        let address = self.address("serving /livez, /readyz, /metrics and /log-level");
        let mut stream = TcpStream::connect(address).expect("admin HTTP is up");
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all((head + body).as_bytes()).expect("it takes requests");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        (head[9..12].parse().expect("a status"), body.to_owned())
    }

    /// Status and body.
    pub(crate) fn get(&mut self, path: &str) -> (u16, String) {
        self.ask("GET", path, "")
    }

    /// Status and body.
    pub(crate) fn put(&mut self, path: &str, body: &str) -> (u16, String) {
        self.ask("PUT", path, body)
    }

    /// The value of a metric without labels.
    pub(crate) fn metric(&mut self, name: &str) -> Option<f64> {
        let text = self.get("/metrics").1;
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a pid is not 0");
        kill_process(pid, signal).expect("it is a child and not waited for");
    }

    /// Waits for its end; −1 if a signal ended it.
    pub(crate) fn exit_code(&mut self) -> i32 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is a child") {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
