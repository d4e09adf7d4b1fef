//! A command for a partition that has no leader and waits for a person: which replica leads, whatever it lacks.
//!
//! It is an annotation, [`RECOVER_ANNOTATION`], on the Topic, so that it survives lost calls and everybody sees who decided what.
//! Each command names the leader epoch in which the partition stands: it holds for that alone, and one that was carried out, or
//! that stays in a repository, can never decide about a later loss.

use std::fmt;
use std::str::FromStr;

/// Annotation of a Topic: [`Recovery`] commands, separated by commas. Internal topics have no Topic: theirs stand on the Cluster,
/// in an annotation of this name, '.' and the topic's.
pub const RECOVER_ANNOTATION: &str = "taffrail.dev/recover";

/// Most commands that are read from one annotation.
pub const MAX_RECOVERIES: usize = 1_000;

/// One command, written `PARTITION=BROKER@EPOCH`, such as `3=1@17`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Index of the partition.
    pub partition: i32,
    /// The broker whose replica leads.
    pub broker: i32,
    /// The leader epoch in which the partition has no leader.
    pub leader_epoch: i32,
}

/// The text is no list of commands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a list of commands: write PARTITION=BROKER@EPOCH, such as 3=1@17 for \"partition 3 is led by broker 1 if it has no \
     leader in leader epoch 17\", several of them with commas"
)]
pub struct RecoveryFault;

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}@{}", self.partition, self.broker, self.leader_epoch)
    }
}

impl FromStr for Recovery {
    type Err = RecoveryFault;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (partition, rest) = text.split_once('=').ok_or(RecoveryFault)?;
        let (broker, leader_epoch) = rest.split_once('@').ok_or(RecoveryFault)?;
        Ok(Self { partition: number(partition)?, broker: number(broker)?, leader_epoch: number(leader_epoch)? })
    }
}

/// Digits only: no sign, and nothing beyond `i32`.
fn number(text: &str) -> Result<i32, RecoveryFault> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or(RecoveryFault)
}

/// What an annotation commands, all or nothing.
pub fn parse(text: &str) -> Result<Vec<Recovery>, RecoveryFault> {
    let commands: Vec<_> = text.split(',').map(str::trim).take(MAX_RECOVERIES + 1).collect();
    if commands.len() > MAX_RECOVERIES {
        return Err(RecoveryFault);
    }
    commands.into_iter().filter(|command| !command.is_empty()).map(Recovery::from_str).collect()
}

/// The annotation with one more command, which takes the place of those for the same partition. What cannot be read goes.
pub fn with(annotation: Option<&str>, command: Recovery) -> String {
    let mut commands = annotation.and_then(|text| parse(text).ok()).unwrap_or_default();
    commands.retain(|known| known.partition != command.partition);
    commands.truncate(MAX_RECOVERIES - 1);
    commands.push(command);
    commands.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(partition: i32, broker: i32, leader_epoch: i32) -> Recovery {
        Recovery { partition, broker, leader_epoch }
    }

    #[test]
    fn commands_are_read_as_they_are_written() {
        assert_eq!(parse("3=1@17"), Ok(vec![command(3, 1, 17)]));
        assert_eq!(parse(" 3=1@17, 0=2@0 ,"), Ok(vec![command(3, 1, 17), command(0, 2, 0)]));
        assert_eq!(parse(""), Ok(vec![]));
        assert_eq!(command(3, 1, 17).to_string().parse(), Ok(command(3, 1, 17)));
    }

    #[test]
    fn what_is_no_command_commands_nothing() {
        for text in
            ["3=1", "3@17", "3=1@", "=1@17", "-3=1@17", "+3=1@17", "3=1@17;4=1@2", "3=1@2147483648", "3=1@17,x", "*"]
        {
            assert_eq!(parse(text), Err(RecoveryFault), "{text:?}");
        }
        assert_eq!(parse(&"0=0@0,".repeat(MAX_RECOVERIES + 1)), Err(RecoveryFault));
    }

    #[test]
    fn a_newer_command_for_a_partition_takes_the_place_of_the_older() {
        assert_eq!(with(None, command(3, 1, 17)), "3=1@17");
        assert_eq!(with(Some("3=1@17,4=0@2"), command(3, 2, 19)), "4=0@2,3=2@19");
        assert_eq!(with(Some("nonsense"), command(3, 2, 19)), "3=2@19");
        let full: Vec<_> = (0..1_000).map(|partition| command(partition, 0, 0).to_string()).collect();
        assert!(parse(&with(Some(&full.join(",")), command(5_000, 0, 0))).is_ok(), "it can be read again");
    }
}
