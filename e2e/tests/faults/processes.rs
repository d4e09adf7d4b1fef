//! Processes that die and sleep: 1, 2, 5, 6, 24.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use taffrail_client::{Acks, Position};
use taffrail_e2e::faults::all;
use taffrail_e2e::faults::ground::{BROKERS, Ground, IMAGES, PARTITIONS, Setting};
use taffrail_e2e::faults::trial::{Fault, Trial};
use taffrail_e2e::history::{History, Violation};
use taffrail_e2e::kubernetes::lab::{self, PATIENCE, Pod, until};
use taffrail_e2e::process::Process;
use taffrail_e2e::writers::{Load, Writers, read_all, starts};
use tokio::time::sleep;

use super::{FAILOVER, HEAL, secs};

/// Kills a broker, and again when the kubelet has started it: so it stays away for longer than its session, and comes back
/// some ten seconds later.
pub(super) async fn kill_for_long(pod: &Pod<'_>) -> Result<()> {
    let first = pod.pids()?;
    pod.kill()?;
    let again = async || Ok(pod.pids()?.iter().all(|pid| !first.contains(pid)).then_some(()));
    until("the kubelet starts it again", PATIENCE, again).await?;
    pod.kill()
}

/// A broker dies and stays away for a while: acknowledgements go on within `limit`, and it rejoins.
async fn dies(ground: Ground<'_>, trial: &mut Trial, broker: i32, limit: Duration) -> Result<()> {
    let before = ground.elections().await?;
    kill_for_long(&ground.pod(broker)).await?;
    let begin = Instant::now();
    ground.goes_on(secs(60)).await?;
    trial.within("every partition acknowledges after", begin.elapsed(), limit);
    trial.within("all replicas in sync after", begin.elapsed() + ground.heals(HEAL).await?, HEAL);
    trial.saw(format!("{} elections of {PARTITIONS} partitions", ground.elections().await? - before));
    ground.goes_on(FAILOVER).await?;
    ground.finish(trial, limit).await.map(drop)
}

const LEADER: Fault = Fault {
    number: "1a",
    fault: "a broker that leads dies",
    injected: "SIGKILL of its container's processes, and again as soon as they are started",
    promised: "safe; its partitions acknowledge again ≤ 10 s; it is in sync again ≤ 60 s",
};

#[test]
fn f1_l3_a_leader_dies() -> Result<()> {
    lab::test(IMAGES, async |lab| {
        Trial::run(&LEADER, async |trial| {
            let ground = Ground::start(lab, "leader", &Setting::default()).await?;
            let (broker, _) = ground.leader().await?;
            dies(ground, trial, broker, FAILOVER).await
        })
        .await
    })
}

const CONTROLLER: Fault = Fault {
    number: "1b",
    fault: "the broker that is controller dies",
    injected: "as 1a",
    promised: "safe; its partitions acknowledge again ≤ 12 s: another broker takes the Lease first; it is in sync again ≤ 60 s",
};

#[test]
fn f1_the_controller_dies() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        Trial::run(&CONTROLLER, async |trial| {
            let ground = Ground::start(lab, "controller", &Setting::default()).await?;
            let broker = ground.controller().await?;
            dies(ground, trial, broker, secs(12)).await
        })
        .await
    })
}

const TUNED: Fault = Fault {
    number: "1c",
    fault: "the broker that is controller dies, where deaths are noticed sooner",
    injected: "as 1a, with failover: {sessionTimeout: 2s, leaseDuration: 2s, renewDeadline: 1500ms, retryPeriod: 500ms}",
    promised: "safe; its partitions acknowledge again ≤ 5 s",
};

#[test]
fn f1_the_controller_dies_where_deaths_are_noticed_sooner() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        Trial::run(&TUNED, async |trial| {
            let spec =
                "  failover: {sessionTimeout: 2s, leaseDuration: 2s, renewDeadline: 1500ms, retryPeriod: 500ms}\n";
            let setting = Setting { spec: spec.to_owned(), ..Setting::default() };
            let ground = Ground::start(lab, "tuned", &setting).await?;
            let broker = ground.controller().await?;
            dies(ground, trial, broker, secs(5)).await
        })
        .await
    })
}

const EVERY: Fault = Fault {
    number: "2",
    fault: "all brokers die at once",
    injected: "SIGKILL of all containers' processes; the kernel stays up",
    promised: "safe with durability os; nobody leads without proof; every partition acknowledges again ≤ 60 s",
};

#[test]
fn f2_d2_all_brokers_die_at_once() -> Result<()> {
    lab::test(IMAGES, async |lab| {
        Trial::run(&EVERY, async |trial| {
            let ground = Ground::start(lab, "every", &Setting::default()).await?;
            let begin = Instant::now();
            for broker in 0..BROKERS {
                ground.pod(broker).kill()?;
            }
            ground.goes_on(secs(120)).await?;
            trial.within("every partition acknowledges after", begin.elapsed(), HEAL);
            let unproven = ground.states().await?.iter().filter(|state| state.recovering).count();
            trial.must(unproven == 0, format!("{unproven} partitions are led without proof"));
            ground.heals(HEAL).await?;
            ground.finish(trial, HEAL).await.map(drop)
        })
        .await
    })
}

const SLEEPING_LEADER: Fault = Fault {
    number: "5",
    fault: "a leader sleeps beyond its session and wakes",
    injected: "cgroup freezer, 12 s",
    promised: "safe; its partitions acknowledge again ≤ 10 s from others; awake it acknowledges nothing of its own; with acks=leader, what it \
               acknowledged around the pause may be lost, and nothing else",
};

/// Around the pause: what a leader had acknowledged with acks=leader when it fell asleep may not have reached the others.
const BEFORE_SLEEP: Duration = Duration::from_secs(2);

#[test]
fn f5_e6_a_leader_sleeps_and_wakes() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        Trial::run(&SLEEPING_LEADER, async |trial| {
            let ground = Ground::start(lab, "sleep", &Setting::default()).await?;
            ground.add_topic("clicks", PARTITIONS, "")?;
            let load = Load::to("clicks").padding(100).acks(Acks::Leader).pause(Duration::from_millis(5));
            let clicks = Writers::start(ground.client(), &load.apart(PARTITIONS as u64), 0)?;
            clicks.wait_for(200).await?;

            let (sleeper, _) = ground.leader().await?;
            let asleep = Instant::now();
            let from = asleep.checked_sub(BEFORE_SLEEP).unwrap_or(asleep);
            let frozen = ground.pod(sleeper).freeze()?;
            ground.goes_on(secs(60)).await?;
            trial.within("every partition acknowledges after", asleep.elapsed(), FAILOVER);
            let led = ground.leaders().await?;
            trial.must(!led.contains(&Some(sleeper)), format!("the sleeper still leads: {led:?}"));
            sleep(secs(12).saturating_sub(asleep.elapsed())).await;
            frozen.end()?;
            let awake = Instant::now();
            trial.within("all replicas in sync after", ground.heals(HEAL).await?, HEAL);
            ground.goes_on(FAILOVER).await?;
            let clicks = clicks.stop().await?;
            judge_leader_acks(&ground, trial, &clicks, from..awake + secs(10)).await?;
            ground.finish(trial, FAILOVER).await.map(drop)
        })
        .await
    })
}

/// What was acknowledged with acks=leader is there, but for what was acknowledged in that time.
async fn judge_leader_acks(
    ground: &Ground<'_>,
    trial: &mut Trial,
    history: &History,
    time: std::ops::Range<Instant>,
) -> Result<()> {
    let seen = read_all(ground.client(), "clicks").await?;
    let violations = history.check(&seen, &starts(ground.client(), "clicks").await?);
    let may_be_lost = |violation: &Violation| match violation {
        Violation::Lost { id, .. } => history.times(*id).is_some_and(|(_, told)| time.contains(&told)),
        _ => false,
    };
    let (lost, wrong): (Vec<_>, Vec<_>) = violations.into_iter().partition(may_be_lost);
    trial.saw(format!("acks=leader: {} of {} acknowledged records lost", lost.len(), history.acked()));
    ensure!(wrong.is_empty(), "acks=leader: {} violations, such as {:?}", wrong.len(), wrong.first());
    Ok(())
}

const SLEEPING_CONTROLLER: Fault = Fault {
    number: "6",
    fault: "the controller sleeps beyond its Lease and wakes",
    injected: "cgroup freezer, 15 s",
    promised: "safe; another is controller; every partition acknowledges ≤ 12 s; awake, the first does no harm: no two leaders of one epoch",
};

#[test]
fn f6_the_controller_sleeps_and_wakes() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        Trial::run(&SLEEPING_CONTROLLER, async |trial| {
            let ground = Ground::start(lab, "lease", &Setting::default()).await?;
            let sleeper = ground.controller().await?;
            let begin = Instant::now();
            let frozen = ground.pod(sleeper).freeze()?;
            ground.goes_on(secs(60)).await?;
            trial.within("every partition acknowledges after", begin.elapsed(), secs(12));
            let second = ground.controller().await?;
            trial.must(second != sleeper, "nobody else has become controller");
            sleep(secs(15).saturating_sub(begin.elapsed())).await;
            let (before, watch) = (ground.elections().await?, watch_leaders(&ground));
            frozen.end()?;
            let watched = tokio::select! {
                watched = watch => watched.map(|()| Duration::ZERO),
                healed = ground.heals(HEAL) => healed,
            };
            trial.within("all replicas in sync after", watched?, HEAL);
            let elections = ground.elections().await? - before;
            // It may be given back what it is preferred for, once each.
            trial.must(elections <= PARTITIONS, format!("{elections} elections after it woke"));
            ground.finish(trial, secs(12)).await.map(drop)
        })
        .await
    })
}

/// Fails as soon as one epoch of a partition is seen with two leaders. Ends in no other way.
async fn watch_leaders(ground: &Ground<'_>) -> Result<()> {
    let mut known: BTreeMap<(i32, i32), i32> = BTreeMap::new();
    loop {
        for state in ground.states().await.unwrap_or_default() {
            let Some(leader) = state.leader else { continue };
            let first = *known.entry((state.index, state.leader_epoch)).or_insert(leader);
            ensure!(first == leader, "{first} and {leader} both lead {} in {}", state.index, state.leader_epoch);
        }
        sleep(Duration::from_millis(100)).await;
    }
}

const OUT_OF_MEMORY: Fault = Fault {
    number: "24",
    fault: "the kernel kills a broker for want of memory",
    injected: "another process in the container's memory cgroup takes all of its limit (512 MiB); the broker is what the kernel had rather kill",
    promised: "as 1a: safe; its partitions acknowledge again ≤ 10 s; Kubernetes says OOMKilled",
};

#[test]
fn f24_a_broker_is_killed_for_want_of_memory() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        Trial::run(&OUT_OF_MEMORY, async |trial| {
            let spec = "  pod: {resources: {requests: {memory: 256Mi}, limits: {memory: 512Mi}}}\n".to_owned();
            let ground = Ground::start(lab, "memory", &Setting { spec, ..Setting::default() }).await?;
            let (broker, _) = ground.leader().await?;
            let (pod, begin) = (ground.pod(broker), Instant::now());
            let _hog = hog(&pod)?;
            until("the kernel kills it", PATIENCE, async || Ok((pod.restarts()? > 0).then_some(()))).await?;
            ground.goes_on(secs(60)).await?;
            trial.within("every partition acknowledges after", begin.elapsed(), secs(15));
            let reason = pod.get(".status.containerStatuses[0].lastState.terminated.reason")?;
            trial.must(reason == "OOMKilled", format!("Kubernetes says {reason:?}"));
            trial.within("all replicas in sync after", begin.elapsed() + ground.heals(HEAL).await?, HEAL);
            ground.finish(trial, FAILOVER).await.map(drop)
        })
        .await
    })
}

/// A process in the memory cgroup of a pod's container that takes memory until the kernel kills the container's own.
fn hog(pod: &Pod<'_>) -> Result<Process> {
    const TAKE: &str = "import sys, time\nsys.stdin.readline()\ntaken = []\nwhile len(taken) < 600:\n    taken.append(b'x' * (1 << 20))\n    time.sleep(0.005)\ntime.sleep(60)";
    for pid in pod.pids()? {
        std::fs::write(format!("/proc/{}/oom_score_adj", pid.as_raw_nonzero()), "1000")?;
    }
    let groups = pod.cgroups("memory")?;
    let mut child = Command::new("python3").args(["-c", TAKE]).stdin(Stdio::piped()).spawn()?;
    std::fs::write(format!("{}/cgroup.procs", groups[0]), child.id().to_string())?;
    // Its first line lets it begin.
    std::io::Write::write_all(&mut child.stdin.take().context("standard input")?, b"\n")?;
    Ok(Process(child))
}

const ALONE: Fault = Fault {
    number: "1d",
    fault: "two of three brokers sleep, and die",
    injected: "cgroup freezer, 11 s, then SIGKILL, both at once",
    promised: "nothing is acknowledged by one broker alone, what was stays readable; safe; all goes on ≤ 60 s after they are back",
};

#[test]
fn f1_l1_two_of_three_brokers_die() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        Trial::run(&ALONE, async |trial| {
            let mut ground = Ground::start(lab, "alone", &Setting::default()).await?;
            let (left, _) = ground.leader().await?;
            let killed: Vec<_> = Ground::others(left);
            let frozen: Vec<_> = killed.iter().map(|broker| ground.pod(*broker).freeze()).collect::<Result<_>>()?;
            let begin = Instant::now();
            until("what was acknowledged is readable", FAILOVER, async || {
                let mut reader = ground.client().consumer().topic("flights").from(Position::Earliest).build().await?;
                let first = reader.next().await.context("the reader ended")??;
                Ok((first.offset == 0).then_some(()))
            })
            .await?;
            sleep(secs(10)).await;
            ground.must_be_silent(begin, Instant::now());
            for broker in &killed {
                ground.pod(*broker).kill()?;
            }
            drop(frozen);
            trial.saw(format!("one broker alone for {:.0} s", begin.elapsed().as_secs_f64()));
            let back = Instant::now();
            ground.goes_on(secs(120)).await?;
            trial.within("every partition acknowledges after", back.elapsed(), HEAL);
            ground.heals(HEAL).await?;
            ground.finish(trial, secs(60)).await.map(drop)
        })
        .await
    })
}
