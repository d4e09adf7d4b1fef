//! Brokers and command lines as processes. Each is ended, by its id, when its handle goes out of scope.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long a broker may take to become ready, or to stop.
const PATIENCE: Duration = Duration::from_mins(2);

/// Ports that are given out. The system takes none of them for a connection, or for a listener that names none (those
/// begin at 32768): a broker that is started again finds its own.
const PORTS: Range<u16> = 12_000..30_000;

/// A program of this workspace, beside the running one (`target/release` or its `deps`).
pub fn program(name: &str) -> Result<PathBuf> {
    let me = std::env::current_exe()?;
    let dirs = me.ancestors().skip(1).take(2);
    let found = dirs.map(|dir| dir.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("{name} is not built: run `make build`"))
}

/// The first of so many ports in a row that nobody listens on now. No other call of this process gets any of them.
fn free_ports(count: u16) -> Result<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Processes begin at different places.
    let begin = std::process::id().wrapping_mul(101);
    for _ in 0..1000 {
        let at = begin.wrapping_add(NEXT.fetch_add(count.into(), Ordering::Relaxed));
        let first = PORTS.start + u16::try_from(at % u32::from(PORTS.end - PORTS.start))?;
        let mut wanted = first..first + count;
        if wanted.end <= PORTS.end && wanted.all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()) {
            return Ok(first);
        }
    }
    bail!("no {count} free ports in {PORTS:?}")
}

/// An address on loopback that nobody listens on now, and that no other call of this process gives.
pub fn free_address() -> Result<SocketAddr> {
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, free_ports(1)?)))
}

/// How to start a broker.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    /// The subcommand: standalone, cluster or dev.
    pub mode: String,
    /// Where its data is.
    pub data_dir: PathBuf,
    /// Client listener.
    pub listen: SocketAddr,
    /// `/metrics` and its like.
    pub admin: SocketAddr,
    /// More arguments.
    pub args: Vec<String>,
    /// More environment.
    pub env: Vec<(String, String)>,
    /// A command in front, which runs the broker in its place (`exec`).
    pub under: Vec<String>,
    /// Where its log goes.
    pub log: PathBuf,
}

impl BrokerOptions {
    /// A broker in `dir` (data in `dir/data`, log in `dir/broker.log`) on free addresses.
    pub fn new(dir: &Path) -> Result<Self> {
        Ok(Self {
            mode: "standalone".to_owned(),
            data_dir: dir.join("data"),
            listen: free_address()?,
            admin: free_address()?,
            args: vec![],
            env: vec![],
            under: vec![],
            log: dir.join("broker.log"),
        })
    }

    /// A cluster of so many brokers in one process, with its data in `dir/data`. Listeners and metrics are those of broker 0.
    pub fn dev(dir: &Path, brokers: u16) -> Result<Self> {
        // Those of broker 0: between brokers, for clients, for metrics. The others' are higher by ten each.
        let first = free_ports(10 * brokers)?;
        let [internal, listen, admin] = [0, 1, 2].map(|server| SocketAddr::from((Ipv4Addr::LOCALHOST, first + server)));
        let options = Self { mode: "dev".to_owned(), listen, admin, ..Self::new(dir)? };
        Ok(options.args(["--brokers", &brokers.to_string(), "--internal-listen", &internal.to_string()]))
    }

    /// With more arguments.
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// With an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Below another command, such as `unshare`.
    pub fn under<S: Into<String>>(mut self, command: impl IntoIterator<Item = S>) -> Self {
        self.under.extend(command.into_iter().map(Into::into));
        self
    }

    /// Starts it and does not wait for anything.
    pub fn spawn(&self) -> Result<Broker> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let broker = program("taffrail-broker")?;
        let mut command = match self.under.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(broker);
                command
            }
            None => Command::new(broker),
        };
        let child = command
            .arg(&self.mode)
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(["--listen", &format!("grpc://{}", self.listen), "--admin-listen", &self.admin.to_string()])
            .args(&self.args)
            .envs(self.env.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start taffrail-broker")?;
        Ok(Broker { process: Process(child), options: self.clone() })
    }

    /// Starts it and waits until it is ready.
    pub fn start(&self) -> Result<Broker> {
        let mut broker = self.spawn()?;
        broker.wait_ready()?;
        Ok(broker)
    }
}

/// A broker that runs.
#[derive(Debug)]
pub struct Broker {
    process: Process,
    options: BrokerOptions,
}

impl Broker {
    /// Waits until `/readyz` says yes.
    pub fn wait_ready(&mut self) -> Result<()> {
        let begin = Instant::now();
        while http_get(self.options.admin, "/readyz").ok().is_none_or(|(status, _)| status != 200) {
            if let Some(status) = self.process.0.try_wait()? {
                bail!("the broker ended with {status}; its log {}:\n{}", self.options.log.display(), self.log_tail());
            }
            if begin.elapsed() > PATIENCE {
                bail!("the broker is not ready after {PATIENCE:?}; its log:\n{}", self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.process.0.try_wait()?)
    }

    /// Status and text of `/readyz`, once they are as wanted.
    pub fn wait_readiness(&mut self, wanted: &dyn Fn(u16, &str) -> bool) -> Result<(u16, String)> {
        let begin = Instant::now();
        loop {
            let found = http_get(self.options.admin, "/readyz");
            if let Ok((status, text)) = &found
                && wanted(*status, text)
            {
                return found;
            }
            if begin.elapsed() > PATIENCE || self.ended()?.is_some() {
                bail!("/readyz says {found:?}; the log:\n{}", self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Where clients connect.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.options.listen)
    }

    /// Address of its admin listener.
    pub fn admin(&self) -> SocketAddr {
        self.options.admin
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Ends it as a crash does (SIGKILL) and gives back how to start it again.
    pub fn kill(mut self) -> Result<BrokerOptions> {
        self.process.end(Signal::KILL)?;
        Ok(self.options.clone())
    }

    /// Stops it as an orderly shutdown does (SIGTERM).
    pub fn stop(mut self) -> Result<(ExitStatus, BrokerOptions)> {
        let status = self.process.end(Signal::TERM)?;
        Ok((status, self.options.clone()))
    }

    /// Waits until it ends by itself.
    pub fn wait(mut self) -> Result<(ExitStatus, BrokerOptions)> {
        let status = self.process.wait(PATIENCE)?;
        Ok((status, self.options.clone()))
    }

    /// Last lines of its log.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.options.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// A sample of its metrics, by the name and labels as they are printed.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let (_, body) = http_get(self.options.admin, "/metrics")?;
        let line = body.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        let value = line.and_then(|line| line.rsplit(' ').next()).with_context(|| format!("no metric {name}"))?;
        Ok(value.parse()?)
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }
}

/// The `taffrail` command line with its broker set.
pub fn taffrail(endpoint: &str) -> Result<Command> {
    let mut command = Command::new(program("taffrail")?);
    command.env("TAFFRAIL_BROKER", endpoint);
    Ok(command)
}

/// A process that is killed when it goes out of scope.
#[derive(Debug)]
pub struct Process(pub Child);

impl Process {
    /// Sends a signal and waits for the end.
    pub fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        self.signal(signal)?;
        self.wait(PATIENCE)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.0.id() as i32).context("process id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits for the end.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            if begin.elapsed() > patience {
                bail!("process {} did not end within {patience:?}", self.0.id());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Status and body of a plain HTTP GET.
pub fn http_get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no HTTP status")?;
    let body = answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned());
    Ok((status, body))
}
