use super::*;
use crate::coordinator::group::TopicView;

fn world(names: &[&str]) -> TopicsView {
    let view = |(at, name): (usize, &&str)| {
        (Arc::from(*name), TopicView { id: Uuid::from_u128(at as u128), partitions: at as i32 })
    };
    TopicsView { topics: names.iter().enumerate().map(view).collect() }
}

fn matched(pattern: &str, names: &[&str]) -> Vec<usize> {
    let (world, patterns) = (world(names), Patterns::default());
    let subscription = Subscription { topics: BTreeSet::new(), pattern: Some(pattern.to_owned()) };
    let topics = Resolver::new(&world, &patterns).topics(&subscription);
    topics.iter().map(|id| id.as_u128() as usize).collect()
}

#[test]
fn pattern_matches_whole_names() {
    let names = ["a", "ab", "ba", "a\nb", "A"];
    for (pattern, expected) in [
        ("a", &[0][..]),
        ("a.*", &[0, 1]),
        ("a|ab", &[0, 1]),
        ("^a$", &[0]),
        ("(?i)a", &[0, 4]),
        ("(?s).*", &[0, 1, 2, 3, 4]),
        ("", &[]),
    ] {
        assert_eq!(matched(pattern, &names), expected, "{pattern:?}");
    }
}

#[test]
fn names_and_pattern_add_up() {
    let (world, patterns) = (world(&["a", "b", "c"]), Patterns::default());
    let topics = ["a".to_owned(), "missing".to_owned()].into();
    let subscription = Subscription { topics, pattern: Some("[ab]".to_owned()) };
    let mut resolver = Resolver::new(&world, &patterns);
    assert_eq!(resolver.topics(&subscription).len(), 2);
    assert_eq!(resolver.known_topics(), BTreeMap::from([(Uuid::from_u128(0), 0), (Uuid::from_u128(1), 1)]));
}

#[test]
fn patterns_that_are_none_or_too_large_are_refused_and_match_nothing() {
    let too_long = "a".repeat(PATTERN_LIMIT + 1);
    for pattern in ["(", "a)|(b", r"(\w{100}){100}", "(?=a)", r"(a)\1", &too_long, "(?x)a # comment"] {
        assert!(compile(pattern).is_err(), "{pattern:?}");
        assert_eq!(matched(pattern, &["a", "b"]), [0; 0], "{pattern:?}");
    }
}

#[test]
fn hostile_pattern_takes_no_time() {
    let name = "a".repeat(249);
    assert_eq!(matched("(a+)+b", &[&name]), [0; 0]);
    assert_eq!(matched("(a|a)*", &[&name]), [0]);
}

#[test]
fn more_patterns_than_are_kept_still_match() {
    let (world, patterns) = (world(&["t7"]), Patterns::default());
    for at in 0..3 * KEPT_PATTERNS {
        let subscription = Subscription { topics: BTreeSet::new(), pattern: Some(format!("t{at}")) };
        assert_eq!(Resolver::new(&world, &patterns).topics(&subscription).len(), usize::from(at == 7));
        assert!(patterns.0.lock().len() <= KEPT_PATTERNS);
    }
}
