use proptest::prelude::*;

use super::*;
use crate::clock::ManualClock;

const HOUR: i64 = 60 * 60 * 1000;

fn millis(ms: i64) -> Duration {
    Duration::from_millis(ms as u64)
}

/// A clock that stands at wall time `wall`, `since_boot` milliseconds into a boot.
fn clock(boot_id: &str, wall: i64, since_boot: i64) -> ManualClock {
    let clock = ManualClock::new(wall - since_boot, boot_id);
    clock.advance(millis(since_boot));
    clock
}

#[test]
fn q2_a_wall_clock_stepped_30_days_forth_and_back_changes_nothing() {
    let clock = clock("a", 1_000_000, 500);
    let log = LogTime::resume(None, &clock);
    clock.step_wall(30 * 24 * HOUR);
    assert_eq!(log.at(clock.since_boot()), 1_000_000);
    clock.advance(millis(50));
    clock.step_wall(-60 * 24 * HOUR);
    assert_eq!(log.at(clock.since_boot()), 1_000_050);
}

#[test]
fn q2_a_restart_on_the_same_boot_counts_boot_time_and_not_the_wall() {
    let clock = clock("a", 1_000_000, 500);
    let mark = LogTime::resume(None, &clock).mark(&clock);
    clock.step_wall(30 * 24 * HOUR);
    clock.advance(millis(5 * HOUR));
    assert_eq!(LogTime::resume(Some(&mark), &clock).at(clock.since_boot()), 1_000_000 + 5 * HOUR);
}

#[test]
fn q2_another_boot_counts_at_most_an_hour_and_never_back() {
    let before = clock("a", 1_000_000, 500);
    let mark = LogTime::resume(None, &before).mark(&before);
    for (later, counted) in [(0, 0), (HOUR / 2, HOUR / 2), (HOUR, HOUR), (30 * 24 * HOUR, HOUR), (-HOUR, 0)] {
        let after = clock("b", 1_000_000 + later, 7);
        let log = LogTime::resume(Some(&mark), &after);
        assert_eq!(log.at(after.since_boot()), 1_000_000 + counted, "{later} ms later by the wall");
    }
}

#[test]
fn what_is_kept_is_read_back_and_nothing_else() {
    let clock = clock("0b6f0c1e", 1_000_000, 500);
    let mark = LogTime::resume(None, &clock).mark(&clock);
    let bytes = mark.encode();
    assert_eq!(Mark::decode(&bytes), Some(mark));
    for cut in 0..25 {
        assert_eq!(Mark::decode(&bytes[..cut]), None, "{cut} bytes");
    }
    assert_eq!(Mark::decode(&[&[2], &bytes[1..]].concat()), None, "another version");
}

/// What can happen to the clocks of a machine.
#[derive(Clone, Debug)]
enum Event {
    Pass(i64),
    StepWall(i64),
    Restart,
    Reboot { off: i64 },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        (0..10 * HOUR).prop_map(Event::Pass),
        (-1000 * HOUR..1000 * HOUR).prop_map(Event::StepWall),
        Just(Event::Restart),
        (0..100 * HOUR).prop_map(|off| Event::Reboot { off }),
    ];
    prop::collection::vec(event, 0..30)
}

proptest! {
    #[test]
    fn q2_log_time_never_goes_back_and_counts_no_more_than_passed_plus_an_hour_a_boot(events in events()) {
        let (mut wall, mut passed, mut boots) = (1_000 * HOUR, 0, 0);
        let mut machine = clock("0", wall, 0);
        let mut log = LogTime::resume(None, &machine);
        let (start, mut last) = (log.at(machine.since_boot()), 0);
        for event in events {
            match event {
                Event::Pass(ms) => {
                    machine.advance(millis(ms));
                    passed += ms;
                }
                Event::StepWall(ms) => machine.step_wall(ms),
                Event::Restart => log = LogTime::resume(Some(&log.mark(&machine)), &machine),
                Event::Reboot { off } => {
                    let mark = log.mark(&machine);
                    boots += 1;
                    wall = machine.wall_millis() + off;
                    machine = clock(&boots.to_string(), wall, 0);
                    log = LogTime::resume(Some(&mark), &machine);
                }
            }
            let now = log.at(machine.since_boot()) - start;
            prop_assert!(now >= last, "went back from {last} to {now}");
            prop_assert!(now >= passed && now <= passed + boots * HOUR, "{now} after {passed} and {boots} boots");
            last = now;
        }
    }
}
