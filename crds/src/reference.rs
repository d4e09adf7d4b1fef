//! The reference of all kinds as a page of Markdown, made from their schemas: what `kubectl explain` says, on one page.

use std::fmt::Write as _;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

use crate::Kind;
use crate::cpu::Cpu;
use crate::duration::{Duration, Retention};
use crate::id::Id;
use crate::size::Size;

const HEAD: &str = "\
# Reference of the objects

Group `taffrail.dev`, version `v1alpha1`. Users write `Cluster` and `Topic`; the others are the brokers' own, to be looked at
and not to be edited. `kubectl explain topic.spec.config` shows the same in a terminal.

A name with `[]` is an entry of a list, one with `{}` a value of a map. A **bold** field must be set. A *size* is a number of
bytes, or one with k, M, G, T, P (powers of 1000) or Ki, Mi, Gi, Ti, Pi (of 1024), such as 10Gi; a *duration* is such as 90m,
7d or 1h30m, with w, d, h, m, s and ms; a *cpu* is such as 2, 1.5 or 500m. Below each table stand the rules that the API server
checks beyond types and bounds, in the words in which it refuses.

This page is made from the types: `make crds`.
";

/// The page.
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    for kind in Kind::ALL {
        section(&mut page, &kind.definition());
    }
    page
}

/// One kind. Writing to a text cannot fail.
fn section(page: &mut String, definition: &CustomResourceDefinition) {
    let names = &definition.spec.names;
    let version = &definition.spec.versions[0];
    let Some(schema) = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref()) else { return };
    let listed =
        |words: &Option<Vec<String>>| words.iter().flatten().map(|word| code(word)).collect::<Vec<_>>().join(", ");
    let _ = write!(page, "\n## {}\n\n{}\n\n", names.kind, schema.description.as_deref().unwrap_or_default());
    let _ = writeln!(
        page,
        "`kubectl get {}.taffrail.dev`, short {}, in the category {}.\n",
        names.plural,
        listed(&names.short_names),
        listed(&names.categories)
    );
    let mut rules = vec![];
    let mut rows = String::new();
    own_rules("metadata", schema, &mut rules);
    for part in ["spec", "status"] {
        if let Some(schema) = schema.properties.as_ref().and_then(|parts| parts.get(part)) {
            own_rules(part, schema, &mut rules);
            fields(part, schema, &mut rows, &mut rules);
        }
    }
    page.push_str("| field | type | default | bounds | meaning |\n|---|---|---|---|---|\n");
    page.push_str(&rows);
    page.push('\n');
    for (path, message) in rules {
        let _ = writeln!(page, "- `{path}`: {}", escape(&message));
    }
}

/// A row for each field of an object, depth first.
fn fields(path: &str, schema: &JSONSchemaProps, rows: &mut String, rules: &mut Vec<(String, String)>) {
    let required = schema.required.as_deref().unwrap_or_default();
    for (name, field) in schema.properties.iter().flatten() {
        let path = format!("{path}.{name}");
        let (meaning, default) = meaning_and_default(field);
        let shown =
            if required.contains(name) && field.default.is_none() { format!("**`{path}`**") } else { code(&path) };
        let _ = writeln!(
            rows,
            "| {shown} | {} | {} | {} | {} |",
            type_of(field),
            escape(&default),
            escape(&bounds(field).join("; ")),
            escape(&meaning)
        );
        own_rules(&path, field, rules);
        let (path, inner) = inner(&path, field);
        if let Some(inner) = inner {
            own_rules(&path, inner, rules);
        }
        fields(&path, inner.unwrap_or(field), rows, rules);
    }
}

/// The schema of a list's entries or a map's values, and how they are called.
fn inner<'a>(path: &str, field: &'a JSONSchemaProps) -> (String, Option<&'a JSONSchemaProps>) {
    match (&field.items, &field.additional_properties) {
        (Some(JSONSchemaPropsOrArray::Schema(items)), _) => (format!("{path}[]"), Some(items)),
        (_, Some(JSONSchemaPropsOrBool::Schema(values))) => (format!("{path}{{}}"), Some(values)),
        _ => (path.to_owned(), None),
    }
}

/// What the rules at one place say, each once.
fn own_rules(path: &str, schema: &JSONSchemaProps, rules: &mut Vec<(String, String)>) {
    for rule in schema.x_kubernetes_validations.iter().flatten() {
        let said = (path.to_owned(), rule.message.clone().unwrap_or_default());
        if !rules.contains(&said) {
            rules.push(said);
        }
    }
}

/// Texts of one form have a name in place of their pattern.
const FORMS: [(&str, &str); 5] = [
    (Size::PATTERN, "size"),
    (Duration::PATTERN, "duration"),
    (Retention::PATTERN, "duration or `forever`"),
    (Cpu::PATTERN, "cpu"),
    (Id::PATTERN, "UUID"),
];

fn form(field: &JSONSchemaProps) -> Option<&'static str> {
    let pattern = field.pattern.as_deref()?;
    FORMS.into_iter().find_map(|(form, name)| (form == pattern).then_some(name))
}

fn type_of(field: &JSONSchemaProps) -> String {
    let inner = |field: Option<&JSONSchemaProps>| field.map_or_else(|| "any".to_owned(), type_of);
    if let Some(form) = form(field) {
        return form.to_owned();
    }
    if field.x_kubernetes_int_or_string == Some(true) {
        return "integer or string".to_owned();
    }
    match field.type_.as_deref() {
        Some("array") => format!("list of {}", inner(self::inner("", field).1)),
        Some("object") if field.additional_properties.is_some() => {
            format!("map to {}", inner(self::inner("", field).1))
        }
        Some(type_) => type_.to_owned(),
        None => "any".to_owned(),
    }
}

/// The documentation, without its last sentence if that is the default; and the default, otherwise the schema's own.
fn meaning_and_default(field: &JSONSchemaProps) -> (String, String) {
    let text = field.description.as_deref().unwrap_or_default();
    if let Some((meaning, default)) = text.rsplit_once("Default: ") {
        return (meaning.trim_end().to_owned(), default.trim_end_matches('.').to_owned());
    }
    let default = field.default.as_ref().map(|default| &default.0);
    let default = default.filter(|value| !is_empty(value));
    let default = default.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    (text.to_owned(), default.unwrap_or_default())
}

/// Objects that hold nothing but such objects say nothing.
fn is_empty(value: &serde_json::Value) -> bool {
    value.as_object().is_some_and(|fields| fields.values().all(is_empty))
}

fn bounds(field: &JSONSchemaProps) -> Vec<String> {
    let mut bounds = vec![];
    if form(field).is_some() {
        return bounds;
    }
    let mut between = |what: &str, least: Option<String>, most: Option<String>| match (least, most) {
        (Some(least), Some(most)) if least == most => bounds.push(format!("{what}{least}")),
        (Some(least), Some(most)) => bounds.push(format!("{what}{least} to {most}")),
        (Some(least), None) => bounds.push(format!("{what}{least} or more")),
        (None, Some(most)) => bounds.push(format!("{what}at most {most}")),
        (None, None) => {}
    };
    let whole = |number: i64| number.to_string();
    between("", field.minimum.map(|least| least.to_string()), field.maximum.map(|most| most.to_string()));
    between("characters: ", field.min_length.map(whole), field.max_length.map(whole));
    between("entries: ", field.min_items.map(whole), field.max_items.map(whole));
    between("entries: ", field.min_properties.map(whole), field.max_properties.map(whole));
    let words = field.enum_.iter().flatten().map(|word| code(word.0.as_str().unwrap_or_default())).collect::<Vec<_>>();
    if !words.is_empty() {
        bounds.push(words.join(", "));
    }
    if let Some(keys) = &field.x_kubernetes_list_map_keys {
        bounds.push(format!("one of each {}", keys.join(", ")));
    }
    if let Some(pattern) = &field.pattern {
        bounds.push(format!("matches {}", code(pattern)));
    }
    bounds
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

/// A cell of a table ends at a bar, and so does its row at a line's end.
fn escape(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn field(value: serde_json::Value) -> JSONSchemaProps {
        serde_json::from_value(value).expect("a schema")
    }

    fn row(value: &serde_json::Value) -> String {
        let mut rows = String::new();
        let object = json!({"type": "object", "required": ["a"], "properties": {"a": value}});
        fields("spec", &field(object), &mut rows, &mut vec![]);
        rows
    }

    #[test]
    fn a_row_says_all_that_the_schema_says() {
        let number = json!({"type": "integer", "minimum": 1, "maximum": 7, "description": "How many | or few. Default: as the cluster says."});
        assert_eq!(row(&number), "| **`spec.a`** | integer | as the cluster says | 1 to 7 | How many \\| or few. |\n");
        let word = json!({"type": "string", "enum": ["x", "y"], "default": "x", "description": "A word."});
        assert_eq!(row(&word), "| `spec.a` | string | x | `x`, `y` | A word. |\n");
        let size = json!({"x-kubernetes-int-or-string": true, "pattern": "^(a|b)$", "description": "A size."});
        assert_eq!(row(&size), "| **`spec.a`** | integer or string |  | matches `^(a\\|b)$` | A size. |\n");
    }

    #[test]
    fn entries_and_values_have_rows_of_their_own_and_rules_are_told_once() {
        let entry = json!({"type": "object", "properties": {"b": {"type": "string", "description": "B."}},
            "x-kubernetes-validations": [{"rule": "1", "message": "no"}, {"rule": "2", "message": "no"}]});
        let list = json!({"type": "array", "maxItems": 3, "items": entry, "description": "All.", "x-kubernetes-list-map-keys": ["b"]});
        let map = json!({"type": "object", "additionalProperties": entry, "description": "All."});
        assert!(
            row(&list).contains(
                "| list of object |  | entries: at most 3; one of each b | All. |\n| `spec.a[].b` | string |"
            )
        );
        assert!(row(&map).contains("| map to object |  |  | All. |\n| `spec.a{}.b` | string |"));
        let mut rules = vec![];
        let object = field(json!({"properties": {"a": list}}));
        fields("spec", &object, &mut String::new(), &mut rules);
        assert_eq!(rules, [("spec.a[]".to_owned(), "no".to_owned())]);
    }
}
