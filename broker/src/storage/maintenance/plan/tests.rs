use proptest::prelude::*;

use super::*;

const FULL: u64 = 64;
const LIMITS: Limits = Limits { epoch_bytes: FULL, pieces: 10_000, crowded: false };
const REWRITTEN: u32 = 1 << 31;

fn epoch(bytes: u64, live: u64) -> EpochView {
    EpochView { bytes, live, pieces: 1, dead: live == 0 }
}

/// Epochs with a file each on level 6, and the open one.
fn view(epochs: &[(u32, EpochView)], open: u32) -> View {
    let files = epochs.iter().map(|&(number, _)| file(6, number, number)).collect();
    View { epochs: epochs.iter().copied().collect(), files, open }
}

fn file(level: i32, first: u32, last: u32) -> FileView {
    FileView { level, first, last }
}

#[test]
fn dead_neighbours_are_dropped_in_one_run() {
    let (dead, living) = (epoch(64, 0), epoch(64, 60));
    let view = view(&[(1, dead), (2, dead), (5, dead), (6, living), (7, dead), (REWRITTEN, dead)], 9);
    assert_eq!(drops(&view), [1..=5, 7..=7, REWRITTEN..=REWRITTEN]);
}

#[test]
fn what_shares_a_file_with_the_living_or_lies_on_level_0_waits() {
    let (dead, living) = (epoch(64, 0), epoch(64, 60));
    let mut view = view(&[(1, dead), (2, dead), (3, dead), (4, living), (5, dead), (6, dead)], 7);
    // 2 with 3, 3 with 4, 6 with the open one.
    view.files.extend([file(6, 2, 3), file(6, 3, 4), file(1, 6, 7), file(0, 5, 5)]);
    assert_eq!(drops(&view), [1..=1]);
    view.files.retain(|file| (file.first, file.last) != (3, 4) && file.level != 0);
    assert_eq!(drops(&view), [1..=3, 5..=5]);
}

#[test]
fn half_empty_epochs_are_gathered_until_they_fill_one() {
    let epochs = [(1, epoch(64, 32)), (2, epoch(64, 33)), (3, epoch(64, 30)), (4, epoch(64, 4)), (5, epoch(64, 60))];
    let view = view(&epochs, 9);
    assert_eq!(rewrites(&view, &LIMITS), [vec![3, 4], vec![1]]);
    let crowded = Limits { crowded: true, ..LIMITS };
    assert_eq!(rewrites(&view, &crowded).concat().len(), 4, "all but the one that is nearly full");
}

#[test]
fn sources_are_closed_under_shared_files() {
    let epochs = [(1, epoch(64, 10)), (2, epoch(64, 64)), (3, epoch(64, 0)), (4, epoch(64, 64)), (5, epoch(64, 10))];
    let mut view = view(&epochs, 6);
    view.files.extend([file(6, 1, 2), file(6, 2, 3)]);
    assert_eq!(rewrites(&view, &LIMITS), [vec![5], vec![1, 2]]);
    view.files.push(file(6, 5, 6));
    assert_eq!(rewrites(&view, &LIMITS), [vec![1, 2]], "5 shares a file with the open epoch");
    view.files.push(file(0, 2, 2));
    assert!(rewrites(&view, &LIMITS).is_empty());
}

#[test]
fn small_epochs_are_merged_when_there_are_many() {
    let epochs: Vec<_> = (1..=16).map(|number| (number, epoch(5, 5))).collect();
    assert!(rewrites(&view(&epochs[..15], 99), &LIMITS).is_empty());
    assert_eq!(rewrites(&view(&epochs, 99), &LIMITS), [(1..=12).collect::<Vec<_>>()]);
}

#[test]
fn neighbours_of_one_size_are_merged_when_the_index_is_too_large() {
    let full = EpochView { pieces: 1_000, ..epoch(64, 64) };
    let mut epochs: Vec<_> = (1..=10).map(|number| (number, full)).collect();
    epochs.push((REWRITTEN, EpochView { pieces: 1_000, ..epoch(512, 512) }));
    assert_eq!(rewrites(&view(&epochs, 99), &LIMITS), [(1..=8).collect::<Vec<_>>()]);
    assert!(rewrites(&view(&epochs[1..], 99), &LIMITS).is_empty());
}

/// Epochs numbered from 1 with random lives, files over one to three neighbours, on any level.
fn any_view() -> impl Strategy<Value = View> {
    let one = (0u64..=64, 0u64..=64, 0u64..100, any::<bool>(), 1u32..4, 0i32..3);
    prop::collection::vec(one, 1..60).prop_map(|all| {
        let open = all.len() as u32 + 1;
        let mut view = View { open, ..View::default() };
        for (number, (bytes, live, pieces, gone, wide, level)) in (1u32..).zip(all) {
            let live = if gone { 0 } else { live.min(bytes) };
            view.epochs.insert(number, EpochView { bytes, live, pieces, dead: live == 0 });
            view.files.push(file(level, number, (number + wide - 1).min(open)));
        }
        view
    })
}

fn live(view: &View, numbers: &[u32]) -> u64 {
    numbers.iter().map(|number| view.epochs[number].live).sum()
}

/// All epochs that a file may hold.
fn within(view: &View, file: &FileView) -> Vec<u32> {
    view.numbers().filter(|number| (file.first..=file.last).contains(number)).collect()
}

fn touches(view: &View, file: &FileView, numbers: &[u32]) -> bool {
    within(view, file).iter().any(|number| numbers.contains(number))
}

/// Does what the plans say, as the executor would.
fn round(view: &mut View, limits: &Limits, rewritten: &mut u32) -> bool {
    let groups = rewrites(view, limits);
    for group in &groups {
        let live = live(view, group);
        for number in group {
            view.epochs.get_mut(number).unwrap().dead = true;
        }
        view.epochs.insert(*rewritten, EpochView { bytes: live, live, pieces: 1, dead: false });
        view.files.push(file(1, *rewritten, *rewritten));
        *rewritten += 1;
    }
    for run in drops(view) {
        view.epochs.retain(|number, _| !run.contains(number));
        view.files.retain(|file| !run.contains(&file.first));
    }
    view.files.iter_mut().for_each(|file| file.level = 6);
    !groups.is_empty()
}

proptest! {
    #[test]
    fn a_drop_takes_whole_files_and_nothing_that_lives(view in any_view()) {
        for run in drops(&view) {
            let numbers: Vec<u32> = view.numbers().filter(|number| run.contains(number)).collect();
            prop_assert!(numbers.iter().all(|number| *number != view.open && view.epochs[number].dead));
            for file in view.files.iter().filter(|file| touches(&view, file, &numbers)) {
                prop_assert!(file.level > 0 && run.contains(&file.first) && run.contains(&file.last));
            }
        }
    }

    #[test]
    fn a_rewrite_takes_living_epochs_with_all_that_share_their_files(view in any_view(), crowded in any::<bool>()) {
        let groups = rewrites(&view, &Limits { crowded, ..LIMITS });
        let all = groups.concat();
        prop_assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        for group in &groups {
            prop_assert!(live(&view, group) > 0 && group.iter().all(|number| !view.epochs[number].dead));
            for file in view.files.iter().filter(|file| touches(&view, file, group)) {
                let allowed = |number: &u32| group.contains(number) || view.epochs.get(number).is_some_and(|e| e.dead);
                prop_assert!(file.level > 0 && within(&view, file).iter().all(allowed));
            }
        }
    }

    #[test]
    fn rounds_end_with_at_most_twice_what_lives(mut view in any_view(), pieces in 0u64..3000) {
        let (limits, mut next, mut rounds) = (Limits { pieces, ..LIMITS }, REWRITTEN, 0);
        // What shares a file with the open epoch waits until that is sealed.
        view.files.iter_mut().for_each(|file| file.last = file.last.min(view.open - 1));
        while round(&mut view, &limits, &mut next) || rounds < 2 {
            rounds += 1;
            prop_assert!(rounds < 100, "it never ends");
        }
        for unit in view.units() {
            prop_assert!(unit.live * 2 > unit.bytes, "{:?}", unit);
        }
    }
}
