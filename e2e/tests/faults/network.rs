//! Networks that are cut, one way or in part, and lose packets: 7, 8, 9.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use anyhow::{Context, Result};
use taffrail_e2e::faults::all;
use taffrail_e2e::faults::ground::{BROKERS, Ground, IMAGES, PARTITIONS, Setting};
use taffrail_e2e::faults::trial::{Fault, Trial};
use taffrail_e2e::kubernetes::lab;
use tokio::time::sleep;

use super::{FAILOVER, HEAL, secs};

/// How brokers reach the API server: its Service.
const API: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1));

/// How long cuts last, unless they last until they have been seen to work: two sessions and a leader's patience with a follower.
const CUT: std::time::Duration = secs(20);

/// How long a leader waits for a follower that is not at its end (10 s), and the controller's write.
const SHRINK: std::time::Duration = secs(15);

/// While a cut lasts, a set of brokers that suffices goes on within `limit`; afterwards all heals, and nobody was elected more
/// often than a session in which he was not heard allows.
async fn outlasts(
    ground: Ground<'_>,
    trial: &mut Trial,
    faults: Vec<lab::Fault<'_>>,
    limit: std::time::Duration,
) -> Result<()> {
    let (begin, before) = (Instant::now(), ground.elections().await?);
    ground.goes_on(CUT).await.context("while it is cut")?;
    trial.within("every partition acknowledges after", begin.elapsed(), limit);
    sleep(CUT.saturating_sub(begin.elapsed())).await;
    ground.goes_on(limit).await.context("at the end of the cut")?;
    let (elections, sessions) = (ground.elections().await? - before, begin.elapsed().as_secs() as i32 / 6);
    trial.saw(format!("{elections} elections of {PARTITIONS} partitions in {} s", begin.elapsed().as_secs()));
    trial.must(elections <= PARTITIONS * sessions, "leadership flaps");
    for fault in faults {
        fault.end()?;
    }
    trial.within("all replicas in sync after its end", ground.heals(HEAL).await?, HEAL);
    ground.finish(trial, limit).await.map(drop)
}

const FROM_FOLLOWERS: Fault = Fault {
    number: "7a",
    fault: "a leader is cut off from its followers",
    injected: "iptables in its pod, both directions, 20 s; API server and clients reach all; the controller is a follower",
    promised: "safe; replaced: every partition acknowledges again ≤ 10 s; in sync ≤ 60 s after the end",
};

#[test]
fn f7_a_leader_is_cut_off_from_its_followers() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        Trial::run(&FROM_FOLLOWERS, async |trial| {
            let ground = Ground::start(lab, "cut", &Setting::default()).await?;
            let ((leader, _), addresses) = (ground.leader().await?, ground.addresses()?);
            let pod = ground.pod(leader);
            let cut = |other: i32| pod.cut_from(addresses[other as usize]);
            let cuts = Ground::others(leader).into_iter().map(cut).collect::<Result<_>>()?;
            outlasts(ground, trial, cuts, FAILOVER).await
        })
        .await
    })
}

const CONTROLLER_ALONE: Fault = Fault {
    number: "7b",
    fault: "the controller is cut off from the other brokers, and goes on to write to the API server",
    injected: "as 7a, of the controller",
    promised: "safe: nothing is acknowledged by it alone; every partition acknowledges ≤ 60 s after the end",
};

#[test]
fn f7_the_controller_is_cut_off_from_the_others() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        Trial::run(&CONTROLLER_ALONE, async |trial| {
            let ground = Ground::start(lab, "lonely", &Setting::default()).await?;
            let (controller, addresses) = (ground.controller().await?, ground.addresses()?);
            let pod = ground.pod(controller);
            let cut = |other: i32| pod.cut_from(addresses[other as usize]);
            let cuts: Vec<_> = Ground::others(controller).into_iter().map(cut).collect::<Result<_>>()?;
            sleep(secs(15)).await;
            // By now the others are dead to it, so that what it leads has one replica in sync.
            let alone: Vec<i32> =
                ground.states().await?.iter().filter(|state| state.isr.len() < 2).map(|state| state.index).collect();
            let acked = |writers: &taffrail_e2e::writers::Writers| -> u64 {
                alone.iter().filter_map(|partition| writers.acks().get(partition).map(|acks| acks.count)).sum()
            };
            let before = acked(ground.writers());
            sleep(secs(8)).await;
            let more = acked(ground.writers()) - before;
            trial.saw(format!("{} of {PARTITIONS} partitions with one replica in sync", alone.len()));
            trial.must(more == 0, format!("{more} records acknowledged by the controller alone"));
            for cut in cuts {
                cut.end()?;
            }
            let end = Instant::now();
            ground.goes_on(secs(120)).await?;
            trial.within("every partition acknowledges after its end", end.elapsed(), HEAL);
            trial.within("all replicas in sync after its end", end.elapsed() + ground.heals(HEAL).await?, HEAL);
            ground.finish(trial, secs(90)).await.map(drop)
        })
        .await
    })
}

const DEAF: Fault = Fault {
    number: "8a",
    fault: "what followers send to a leader is lost, the reverse is not",
    injected: "iptables in its pod, one way, 20 s",
    promised: "safe; every partition acknowledges again ≤ 15 s; no flapping: at most one election of a partition in a session",
};

#[test]
fn f8_a_leader_does_not_hear_its_followers() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        Trial::run(&DEAF, async |trial| {
            let ground = Ground::start(lab, "deaf", &Setting::default()).await?;
            let ((leader, _), addresses) = (ground.leader().await?, ground.addresses()?);
            let pod = ground.pod(leader);
            let deaf = |other: i32| pod.deaf_to(addresses[other as usize]);
            let cuts = Ground::others(leader).into_iter().map(deaf).collect::<Result<_>>()?;
            outlasts(ground, trial, cuts, SHRINK).await
        })
        .await
    })
}

const NO_API: Fault = Fault {
    number: "8b",
    fault: "a leader does not reach the API server",
    injected: "iptables in its pod, 20 s; it is not the controller",
    promised: "safe; no partition stops: all acknowledge all the time, pauses ≤ 10 s",
};

#[test]
fn f8_a_leader_does_not_reach_the_api_server() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        Trial::run(&NO_API, async |trial| {
            let ground = Ground::start(lab, "no-api", &Setting::default()).await?;
            let (leader, _) = ground.leader().await?;
            let cuts = vec![ground.pod(leader).cut_from(API)?];
            outlasts(ground, trial, cuts, FAILOVER).await
        })
        .await
    })
}

const CONTROLLER_WITHOUT_API: Fault = Fault {
    number: "8c",
    fault: "the controller does not reach the API server",
    injected: "iptables in its pod, 20 s",
    promised: "safe; another is controller; no partition stops: pauses ≤ 10 s",
};

#[test]
fn f8_the_controller_does_not_reach_the_api_server() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        Trial::run(&CONTROLLER_WITHOUT_API, async |trial| {
            let ground = Ground::start(lab, "no-lease", &Setting::default()).await?;
            let first = ground.controller().await?;
            let cut = ground.pod(first).cut_from(API)?;
            let begin = Instant::now();
            let another = async || Ok((ground.controller().await? != first).then_some(()));
            lab::until("another is controller", CUT, another).await?;
            trial.within("another is controller after", begin.elapsed(), secs(12));
            outlasts(ground, trial, vec![cut], FAILOVER).await
        })
        .await
    })
}

const CONTROLLER_AND_BROKER: Fault = Fault {
    number: "8d",
    fault: "the controller and another broker do not reach each other",
    injected: "iptables in the controller's pod, both directions, 20 s; the third broker reaches both",
    promised: "safe; every partition acknowledges again ≤ 15 s; no flapping",
};

#[test]
fn f8_the_controller_does_not_reach_a_broker() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        Trial::run(&CONTROLLER_AND_BROKER, async |trial| {
            let ground = Ground::start(lab, "pair", &Setting::default()).await?;
            let (controller, addresses) = (ground.controller().await?, ground.addresses()?);
            let (leader, _) = ground.leader().await?;
            let cuts = vec![ground.pod(controller).cut_from(addresses[leader as usize])?];
            outlasts(ground, trial, cuts, SHRINK).await
        })
        .await
    })
}

const NOT_TRANSITIVE: Fault = Fault {
    number: "8e",
    fault: "two brokers do not reach each other, and the controller reaches both",
    injected: "iptables in one pod, both directions, 20 s",
    promised: "safe; every partition acknowledges again ≤ 15 s: a follower that does not follow leaves the in-sync replicas after 10 s; no flapping",
};

#[test]
fn f8_two_followers_of_the_controller_do_not_reach_each_other() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        Trial::run(&NOT_TRANSITIVE, async |trial| {
            let ground = Ground::start(lab, "triangle", &Setting::default()).await?;
            let (controller, addresses) = (ground.controller().await?, ground.addresses()?);
            let others = Ground::others(controller);
            let cuts = vec![ground.pod(others[0]).cut_from(addresses[others[1] as usize])?];
            outlasts(ground, trial, cuts, SHRINK).await
        })
        .await
    })
}

const UNPLUGGED: Fault = Fault {
    number: "8f",
    fault: "a node's cable is pulled",
    injected: "ip link set down of the node's end, 20 s; not node 1, by which the tests reach Services",
    promised: "safe; every partition acknowledges again ≤ 12 s; in sync ≤ 60 s after the end",
};

#[test]
fn f8_a_node_is_unplugged() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test_alone(IMAGES, async |lab| {
        Trial::run(&UNPLUGGED, async |trial| {
            let ground = Ground::start(lab, "cable", &Setting::default()).await?;
            let nodes = (0..BROKERS).map(|broker| ground.pod(broker).node()).collect::<Result<Vec<_>>>()?;
            let node = nodes.into_iter().find(|node| *node != 1).context("all brokers are on node 1")?;
            let cuts = vec![lab.node(node).unplug()?];
            outlasts(ground, trial, cuts, secs(12)).await
        })
        .await
    })
}

const LOSS: Fault = Fault {
    number: "9a",
    fault: "packets are lost",
    injected: "iptables statistic in every broker's pod: 5 % of packets, in and out, 20 s",
    promised: "safe, slower: every partition goes on to acknowledge, pauses ≤ 10 s",
};

#[test]
fn f9_packets_are_lost() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        Trial::run(&LOSS, async |trial| {
            let ground = Ground::start(lab, "loss", &Setting::default()).await?;
            let losses = (0..BROKERS).map(|broker| ground.pod(broker).lose_packets(5)).collect::<Result<_>>()?;
            outlasts(ground, trial, losses, FAILOVER).await
        })
        .await
    })
}
