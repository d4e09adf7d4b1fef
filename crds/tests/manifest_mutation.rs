//! Mutated manifests: whatever the bytes, reading ends soon, in topics or in faults that point into the file.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use taffrail_crds::admission::MAX_FAULTS;
use taffrail_crds::manifest;

const ROUNDS: u64 = 100_000;
const BUDGET: Duration = Duration::from_secs(8);

/// Pieces of YAML that change what follows them.
const PIECES: [&str; 40] = [
    "\n",
    "  ",
    "\t",
    ":",
    ": ",
    "- ",
    "? ",
    "---\n",
    "...\n",
    "[",
    "]",
    "{",
    "}",
    ",",
    "&a ",
    "*a",
    "!t ",
    "!!str ",
    "|",
    ">",
    "|+2\n",
    "\"",
    "'",
    "#",
    "%YAML 1.2\n",
    "%TAG ! x\n",
    "\\x41",
    "\\",
    "~",
    "0",
    "-1",
    "1e9",
    "yes",
    "\u{feff}",
    "é",
    "\u{0}",
    "\u{85}",
    "\u{2028}",
    "<<: ",
    "spec",
];

fn mutate(text: &mut String, random: &mut StdRng) {
    let place = |text: &str, random: &mut StdRng| {
        let mut place = random.random_range(0..=text.len());
        while !text.is_char_boundary(place) {
            place -= 1;
        }
        place
    };
    let (a, b) = (place(text, random), place(text, random));
    let (from, to) = (a.min(b), a.max(b).min(a.min(b) + 40));
    let to = (to..=text.len()).find(|place| text.is_char_boundary(*place)).unwrap_or(text.len());
    match random.random_range(0..4) {
        0 => text.insert_str(a, PIECES[random.random_range(0..PIECES.len())]),
        1 => text.replace_range(from..to, ""),
        2 => {
            let part = text[from..to].to_owned();
            let place = place(text, random);
            text.insert_str(place, &part);
        }
        _ => text.replace_range(from..to, PIECES[random.random_range(0..PIECES.len())]),
    }
}

#[test]
fn mutated_manifests_are_read_or_refused_in_time() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let seeds: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let start = Instant::now();
    let (mut read, mut refused) = (0u32, 0u32);
    for seed in 0..ROUNDS {
        if start.elapsed() > BUDGET {
            break;
        }
        let mut random = StdRng::seed_from_u64(seed);
        let mut text = seeds[random.random_range(0..seeds.len())].clone();
        for _ in 0..random.random_range(1..12) {
            mutate(&mut text, &mut random);
        }
        let one = Instant::now();
        let lines = text.lines().count() + 2;
        match manifest::parse(&text, "mutated") {
            Ok(_) => read += 1,
            Err(faults) => {
                refused += 1;
                assert!((1..=MAX_FAULTS).contains(&faults.len()), "seed {seed}");
                assert!(
                    faults.iter().all(|fault| (1..=lines).contains(&fault.line)),
                    "seed {seed}: {faults:?}\n{text}"
                );
            }
        }
        assert!(one.elapsed() < Duration::from_secs(5), "seed {seed} takes too long");
    }
    assert!(read > 10 && refused > 100, "{read} read, {refused} refused: the mutations reach both");
}
