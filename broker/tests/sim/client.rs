//! A member as an application runs it: it believes what it is told, and does what it should, or not.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use taffrail_broker::coordinator::group::{
    AssignorName, Heartbeat, Join, Membership, Request, Subscription, TopicPartition,
};

/// Whom an answer is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reply {
    pub(crate) client: usize,
    /// The client's session that asked: answers to earlier ones are not looked at, as those of a closed stream.
    pub(crate) session: u32,
    pub(crate) what: What,
    pub(crate) sent: Duration,
}

/// What was asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    Membership,
    Leave,
    Commit(TopicPartition, i64),
    Fetch(TopicPartition),
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Its process does not run until then.
    Dead(Duration),
    /// To join, or waiting for the answer.
    Out,
    In,
}

pub(crate) struct Client {
    pub(crate) group: String,
    pub(crate) member: String,
    pub(crate) instance: Option<String>,
    pub(crate) assignor: Option<AssignorName>,
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    /// Gives up a session without answers by itself.
    pub(crate) is_watchful: bool,
    pub(crate) holds_on: bool,
    pub(crate) subscription: Subscription,
    pub(crate) state: State,
    pub(crate) session: u32,
    pub(crate) epoch: i32,
    /// What it was told with this epoch.
    pub(crate) told: BTreeSet<TopicPartition>,
    /// What it believes to own: records of these are given to the application.
    pub(crate) owned: BTreeSet<TopicPartition>,
    /// What it owned last and does not any more.
    pub(crate) lost: Option<TopicPartition>,
    /// Stopped, as by SIGSTOP, until then.
    pub(crate) paused_until: Duration,
    /// When the newest request was sent that was answered.
    pub(crate) heard: Duration,
    /// Its stream broke: it has to say who it is.
    pub(crate) reconnects: bool,
}

impl Client {
    pub(crate) fn join(&self) -> Request {
        self.joining(0, BTreeSet::new())
    }

    pub(crate) fn resume(&self) -> Request {
        self.joining(self.epoch, self.owned.clone())
    }

    fn joining(&self, epoch: i32, owned: BTreeSet<TopicPartition>) -> Request {
        Request::Join(Box::new(Join {
            group: self.group.clone(),
            member: self.member.clone(),
            epoch,
            instance: self.instance.clone(),
            subscription: self.subscription.clone(),
            assignor: self.assignor,
            rack: None,
            client_id: String::new(),
            client_host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            session_timeout: self.session_timeout,
            rebalance_timeout: self.rebalance_timeout,
            owned,
        }))
    }

    pub(crate) fn heartbeat(&self, says_owned: bool, subscription: Option<Subscription>) -> Request {
        Request::Heartbeat(Heartbeat {
            group: self.group.clone(),
            member: self.member.clone(),
            epoch: self.epoch,
            owned: says_owned.then(|| self.owned.clone()),
            subscription,
        })
    }

    /// What it was told to let go of and has not yet.
    pub(crate) fn releasing(&self) -> impl Iterator<Item = &TopicPartition> {
        self.owned.difference(&self.told)
    }

    pub(crate) fn release(&mut self) {
        let lost = self.releasing().next().copied();
        if let Some(lost) = lost {
            self.lost = Some(lost);
            let told = &self.told;
            self.owned.retain(|partition| told.contains(partition));
        }
    }

    /// Owns nothing any more and joins anew.
    pub(crate) fn reset(&mut self) {
        self.lost = self.owned.first().copied().or(self.lost);
        self.owned.clear();
        self.told.clear();
        self.epoch = 0;
        self.session += 1;
        self.state = State::Out;
        self.reconnects = false;
    }

    /// What it gets by this, if it is news. `same_life`: it was not removed and made a member again by a late join of its own;
    /// if it was, what the group does not know of is lost.
    pub(crate) fn adopt(
        &mut self,
        membership: &Membership,
        sent: Duration,
        same_life: bool,
    ) -> Option<Vec<TopicPartition>> {
        self.heard = self.heard.max(sent);
        if membership.epoch == self.epoch && self.state == State::In {
            assert_eq!(membership.assigned, self.told, "{}: one epoch, two assignments", self.member);
        }
        if membership.epoch <= self.epoch {
            return None;
        }
        let known = |p: &&TopicPartition| membership.assigned.contains(p) || membership.revoking.contains(p);
        let unknown = self.owned.iter().find(|partition| !known(partition));
        assert!(!same_life || unknown.is_none(), "C6: {} owns {unknown:?}, the group does not know", self.member);
        self.owned = self.owned.iter().filter(known).copied().collect();
        let gained = membership.assigned.difference(&self.owned).copied().collect();
        self.epoch = membership.epoch;
        self.told.clone_from(&membership.assigned);
        self.owned.extend(membership.assigned.iter().copied());
        self.state = State::In;
        Some(gained)
    }
}
