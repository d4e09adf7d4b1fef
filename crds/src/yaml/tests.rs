use super::*;
use serde_json::json;

fn documents(text: &str) -> Vec<Value> {
    let (documents, faults) = read(text);
    assert_eq!(faults, vec![], "{text}");
    documents.iter().map(Node::to_json).collect()
}

/// The first fault of a text.
fn fault(text: &str) -> YamlFault {
    read(text).1.into_iter().next().unwrap()
}

#[test]
fn plain_words_mean_what_kubectl_takes_them_for() {
    for (word, value) in [
        ("~", Value::Null),
        ("yes", json!(true)),
        ("off", json!(false)),
        ("7", json!(7)),
        ("-7", json!(-7)),
        ("+7", json!(7)),
        ("010", json!(8)),
        ("0x10", json!(16)),
        ("0b11", json!(3)),
        ("1_000", json!(1000)),
        ("1.0", json!(1)),
        ("1e3", json!(1000)),
        ("1.5", json!(1.5)),
        ("-9223372036854775808", json!(i64::MIN)),
        ("18446744073709551615", json!(u64::MAX)),
        ("7d", json!("7d")),
        ("10Gi", json!("10Gi")),
        ("0x", json!("0x")),
        ("-", json!([null])),
        ("--1", json!("--1")),
        ("1.2.3", json!("1.2.3")),
        (".inf", json!(".inf")),
        ("1e999", json!("1e999")),
        ("2026-01-01", json!("2026-01-01")),
        ("'7'", json!("7")),
        ("\"yes\"", json!("yes")),
    ] {
        assert_eq!(documents(word), vec![value], "{word}");
    }
}

#[test]
fn every_value_has_its_line_and_column() {
    let (documents, faults) = read("# comment\na: 1\nb:\n  - x\n  - c: [2,\n      3]\n---\nd: |\n  text\n");
    assert_eq!(faults, vec![]);
    let at = |document: usize, path: &str| {
        let mark = documents[document].find(&FieldPath::from_dotted(path));
        (mark.line, mark.column)
    };
    assert_eq!(at(0, ""), (2, 1));
    assert_eq!(at(0, "a"), (2, 1));
    assert_eq!(at(0, "b[0]"), (4, 5));
    assert_eq!(at(0, "b[1].c"), (5, 5));
    assert_eq!(at(0, "b[1].c[1]"), (6, 7));
    assert_eq!(at(1, "d"), (8, 1));
    assert_eq!(at(0, "b[1].gone.further"), (5, 5), "the last thing that is there");
    assert_eq!(documents[1].to_json(), json!({"d": "text\n"}));
}

#[test]
fn a_byte_order_mark_and_windows_lines_are_read() {
    assert_eq!(documents("\u{feff}a: 1\r\nb: 2\r\n"), vec![json!({"a": 1, "b": 2})]);
}

#[test]
fn faults_of_a_part_leave_the_rest_readable() {
    let (documents, faults) = read("a: 1\na: 2\nb: !!str 3\n? [x]\n: 4\nc: 5\n");
    assert_eq!(documents[0].to_json(), json!({"a": 1, "b": 3, "c": 5}));
    let lines: Vec<_> = faults.iter().map(|fault| fault.at.line).collect();
    assert_eq!(lines, vec![2, 3, 4], "{faults:?}");
}

#[test]
fn a_fault_of_syntax_keeps_the_documents_before_it() {
    let (documents, faults) = read("a: 1\n---\nb: [1, 2\n");
    assert_eq!(documents.len(), 1);
    assert_eq!(faults.len(), 1);
    assert!(faults[0].message.starts_with("this is not YAML"), "{faults:?}");
}

#[test]
fn hostile_texts_are_refused_in_bounds() {
    assert!(fault(&"a".repeat(MAX_BYTES + 1)).message.contains("too many"));
    assert!(fault(&"[".repeat(MAX_DEPTH + 1)).message.contains("too deep"));
    let deep = (0..=MAX_DEPTH).map(|level| format!("{}a:", " ".repeat(level))).collect::<Vec<_>>().join("\n");
    assert!(fault(&deep).message.contains("too deep"));
    assert!(fault(&"- x\n".repeat(MAX_NODES + 1)).message.contains("too many values"));
    let bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n";
    assert!(fault(bomb).message.contains("aliases"));
    let (_, faults) = read(&format!("[{}]", "!t x,".repeat(1000)));
    assert_eq!(faults.len(), crate::admission::MAX_FAULTS, "no more faults than a reader reads");
}
