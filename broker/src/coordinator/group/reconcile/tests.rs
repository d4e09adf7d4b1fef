use std::collections::BTreeMap;

use uuid::Uuid;

use super::*;

fn partition(number: i32) -> TopicPartition {
    TopicPartition { topic: Uuid::from_u128(2), partition: number }
}

fn set(numbers: &[i32]) -> BTreeSet<TopicPartition> {
    numbers.iter().copied().map(partition).collect()
}

fn since(entries: &[(i32, i32)]) -> BTreeMap<TopicPartition, i32> {
    entries.iter().map(|&(number, epoch)| (partition(number), epoch)).collect()
}

/// Assigned and revoking with their epochs, at epoch 5.
fn standing(assigned: &[(i32, i32)], revoking: &[(i32, i32)]) -> Current {
    Current { epoch: 5, joined: 1, assigned: since(assigned), revoking: since(revoking), away: false }
}

struct Row {
    what: &'static str,
    before: Current,
    target: &'static [i32],
    owned: Option<&'static [i32]>,
    free: &'static [i32],
    /// Epoch and standing.
    after: Option<(i32, Current)>,
}

fn rows() -> Vec<Row> {
    let settled = || standing(&[(0, 2)], &[]);
    vec![
        Row { what: "nothing to do", before: settled(), target: &[0], owned: None, free: &[], after: None },
        Row {
            what: "what it says is known",
            before: settled(),
            target: &[0],
            owned: Some(&[0, 7]),
            free: &[],
            after: None,
        },
        Row {
            what: "takes what is free, with a new epoch",
            before: settled(),
            target: &[0, 1, 2],
            owned: None,
            free: &[1],
            after: Some((6, standing(&[(0, 2), (1, 6)], &[]))),
        },
        Row {
            what: "is to let go, with a new epoch, and keeps that of the partition",
            before: settled(),
            target: &[],
            owned: None,
            free: &[],
            after: Some((6, standing(&[], &[(0, 2)]))),
        },
        Row {
            what: "holds on",
            before: standing(&[], &[(0, 2)]),
            target: &[],
            owned: Some(&[0]),
            free: &[],
            after: None,
        },
        Row {
            what: "lets go of a part; what it is told has not changed, nor has its epoch",
            before: standing(&[], &[(0, 2), (1, 2)]),
            target: &[],
            owned: Some(&[1]),
            free: &[],
            after: Some((5, standing(&[], &[(1, 2)]))),
        },
        Row {
            what: "gets back what it is letting go of only when it has let go",
            before: standing(&[], &[(0, 2)]),
            target: &[0],
            owned: Some(&[0]),
            free: &[],
            after: None,
        },
        Row {
            what: "and then with a new epoch",
            before: standing(&[], &[(0, 2)]),
            target: &[0],
            owned: Some(&[]),
            free: &[],
            after: Some((6, standing(&[(0, 6)], &[]))),
        },
        Row {
            what: "takes one and lets go of another",
            before: settled(),
            target: &[1],
            owned: None,
            free: &[1],
            after: Some((6, standing(&[(1, 6)], &[(0, 2)]))),
        },
    ]
}

#[test]
fn steps() {
    for Row { what, before, target, owned, free, after } in rows() {
        let (target, owned, free) = (set(target), owned.map(set), set(free));
        let step = Step { current: &before, target: &target, group_epoch: 3, owned: owned.as_ref() };
        let after = after.map(|(epoch, after)| Current { epoch, ..after });
        assert_eq!(next(&step, |partition| free.contains(partition)), after, "{what}");
    }
}

#[test]
fn epoch_rises_to_the_groups() {
    let before = standing(&[], &[]);
    let target = set(&[0]);
    let step = Step { current: &before, target: &target, group_epoch: 9, owned: None };
    assert_eq!(next(&step, |_| true).unwrap().epoch, 9);
}
