use uuid::Uuid;

use super::*;

fn spots(topic: u128, replicas: &[&[i32]]) -> Vec<Spot> {
    let spot = |(place, replicas): (usize, &&[i32])| Spot {
        id: ((Uuid::from_u128(topic), 0), place),
        replicas: replicas.to_vec(),
        movable: true,
    };
    replicas.iter().enumerate().map(spot).collect()
}

fn evened(topics: &mut [Vec<Spot>]) -> usize {
    let mut all = Load::default();
    topics.iter().flatten().for_each(|spot| all.add(&spot.replicas));
    even(topics, all).len()
}

fn led(spots: &[Spot], broker: i32) -> usize {
    load_of(spots).leaders(broker)
}

#[test]
fn all_lead_as_many_of_a_topic_and_no_more_changes_than_must() {
    let mut topics = [spots(1, &[[0, 1, 2].as_slice(); 9])];
    assert_eq!(evened(&mut topics), 6);
    assert_eq!([0, 1, 2].map(|broker| led(&topics[0], broker)), [3, 3, 3]);
    assert_eq!(evened(&mut topics), 0);
    let mut brokers = topics[0][0].replicas.clone();
    brokers.sort_unstable();
    assert_eq!(brokers, [0, 1, 2]);
}

#[test]
fn all_lead_as_many_of_all_topics() {
    let mut topics: Vec<_> = (0..4).map(|topic| spots(topic, &[&[0, 1]])).collect();
    assert_eq!(evened(&mut topics), 2);
    let leads = |broker| topics.iter().map(|spots| led(spots, broker)).sum::<usize>();
    assert_eq!((leads(0), leads(1)), (2, 2));
}

#[test]
fn those_that_are_not_whole_stay_as_they_are() {
    let mut topics = [spots(1, &[&[0, 1], &[0, 1]])];
    for spot in &mut topics[0] {
        spot.movable = false;
    }
    assert_eq!(evened(&mut topics), 0);
}
