//! `taffrail consume --group`: reads as a member of a group, and commits what was printed.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use taffrail_client::{
    Client, CommitMode, ErrorKind, GroupConsumer, GroupOffset, RebalanceListener, ResetPolicy, RevokeCommit,
    TopicPartition,
};

use super::print::Printer;
use super::{Commit, Consume, interrupted};

/// What was printed and is not committed: the next offset of each partition.
type Printed = BTreeMap<(String, i32), GroupOffset>;

impl Consume {
    pub(super) async fn run_member(&self, client: &Client, group: &str, printer: &mut Printer) -> Result<()> {
        if self.limit.is_some() && self.member.commit == Commit::AtMostOnce {
            bail!("--limit would lose what is committed beyond it: leave out --commit at-most-once");
        }
        let names: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        client.admin().describe_topics(&names, false).await?;
        let mut consumer = tokio::select! {
            consumer = self.join(client, group) => consumer?,
            () = interrupted() => return Ok(()),
        };
        let mut printed = Printed::new();
        let result = tokio::select! {
            result = self.print_records(&mut consumer, printer, &mut printed) => result,
            () = interrupted() => Ok(()),
        };
        printer.flush()?;
        let committed = commit(&mut consumer, &mut printed).await;
        let closed = consumer.close().await;
        result?;
        committed?;
        Ok(closed?)
    }

    async fn join(&self, client: &Client, group: &str) -> taffrail_client::Result<GroupConsumer> {
        let mode = match self.member.commit {
            Commit::AtLeastOnce => CommitMode::AtLeastOnce,
            Commit::AtMostOnce => CommitMode::AtMostOnce,
        };
        let builder = client.group_consumer(group).topics(self.topics.clone()).commits(mode).follow(self.follow);
        let builder = builder.reset(self.reset.map_or(ResetPolicy::Earliest, Into::into));
        let builder = builder.session_timeout(self.member.session_timeout);
        let builder = match &self.member.instance_id {
            Some(id) => builder.instance_id(id),
            None => builder,
        };
        let builder = match &self.zone {
            Some(zone) => builder.zone(zone),
            None => builder,
        };
        let builder = if self.member.verbose { builder.listener(Teller) } else { builder };
        builder.start().await
    }

    async fn print_records(
        &self,
        consumer: &mut GroupConsumer,
        printer: &mut Printer,
        printed: &mut Printed,
    ) -> Result<()> {
        let mut left = self.limit.unwrap_or(u64::MAX);
        while left > 0 {
            let Some(records) = consumer.next().await? else { return Ok(()) };
            for record in records {
                let record = record?;
                printer.print(&record)?;
                let offset = GroupOffset {
                    topic: record.topic.to_string(),
                    partition: record.partition,
                    offset: record.offset + 1,
                    leader_epoch: Some(record.leader_epoch),
                    metadata: String::new(),
                };
                printed.insert((offset.topic.clone(), offset.partition), offset);
                left -= 1;
                if left == 0 {
                    break;
                }
            }
            printer.flush()?;
            if self.member.commit == Commit::AtLeastOnce {
                commit(consumer, printed).await?;
            } else {
                printed.clear();
            }
        }
        Ok(())
    }
}

/// Commits what was printed. A member that was removed goes on: others have its partitions and print them again.
async fn commit(consumer: &mut GroupConsumer, printed: &mut Printed) -> Result<()> {
    let offsets: Vec<_> = printed.values().cloned().collect();
    match consumer.commit_offsets(offsets).await {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::MemberFenced => {
            eprintln!("not committed, and will be seen again: {error}");
        }
        Err(error) => return Err(error.into()),
    }
    printed.clear();
    Ok(())
}

/// Tells on standard error which partitions come and go.
struct Teller;

impl RebalanceListener for Teller {
    fn assigned(&mut self, partitions: &[TopicPartition]) {
        eprintln!("assigned {}", names(partitions));
    }

    fn revoked(&mut self, partitions: &[TopicPartition], _: &mut RevokeCommit) {
        eprintln!("revoked {}", names(partitions));
    }

    fn lost(&mut self, partitions: &[TopicPartition]) {
        eprintln!("lost {}", names(partitions));
    }
}

fn names(partitions: &[TopicPartition]) -> String {
    let names: BTreeSet<_> = partitions.iter().collect();
    names.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
