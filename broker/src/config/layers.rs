//! Flag over environment over file over default, with where each value came from.
//!
//! The settings are read off [`Config`]'s own definition; nothing here names one. Values stay text until the layers are
//! one on the other; then each is parsed on its own, so that one fault does not hide the next.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches as _};
use marked_yaml::Node;

use super::{Alone, ClusterConfig, Config, DevConfig, Fault, Mode, Source};

/// A setting as it is in force, in text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Name: of the flag without dashes, and of the key in a file.
    pub name: String,
    /// None: it is not set and has no default.
    pub values: Vec<String>,
    /// Where they came from.
    pub source: Source,
}

/// A configuration, and how it came about.
#[derive(Clone, Debug)]
pub struct Effective {
    /// The values.
    pub config: Config,
    /// Each setting, in the order of the help text.
    pub settings: Vec<Setting>,
}

impl Effective {
    /// As a configuration file, with the source of each value behind it.
    pub fn to_yaml(&self) -> String {
        let line = |s: &Setting| {
            let value = match s.values.as_slice() {
                [] => return format!("# {}: not set\n", s.name),
                [one] => quoted(one),
                many => format!("[{}]", many.iter().map(|v| quoted(v)).collect::<Vec<_>>().join(", ")),
            };
            format!("{:<50} # {}\n", format!("{}: {value}", s.name), s.source)
        };
        self.settings.iter().map(line).collect()
    }
}

/// A YAML scalar that reads back as this text: JSON's quotes are YAML's.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/') && text.chars().all(plain) {
        text.to_owned()
    } else {
        serde_json::Value::from(text).to_string()
    }
}

/// The options as clap shall read them here: any text or none, so that faults are found later and all together. For the
/// help text as well, which shows the environment variables.
pub fn as_text(command: Command) -> Command {
    let text = clap::builder::ValueParser::string;
    command.mut_args(|arg| if is_switch(&arg) { arg } else { arg.value_parser(text()).required(false) })
}

fn is_switch(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version)
}

fn definition(mode: Mode) -> Command {
    mode.augment(Command::new("taffrail-broker").disable_help_flag(true))
}

fn variable(name: &str) -> String {
    format!("TAFFRAIL_{}", name.to_uppercase().replace('-', "_"))
}

/// Puts the layers together, of the settings of `mode`. `flags` are matches of a command that went through [`as_text`], `environment` looks a
/// variable up (an empty one counts as not set), `file` is the configuration file if one is named.
pub fn resolve(
    mode: Mode,
    flags: &ArgMatches,
    environment: impl Fn(&str) -> Option<String>,
    file: Option<&Path>,
) -> Result<Effective, Vec<Fault>> {
    let definition = definition(mode);
    let (from_file, mut faults) = file.map_or_else(Default::default, |file| read(file, mode, &definition));
    let settings: Vec<Setting> =
        definition.get_arguments().map(|arg| layered(arg, flags, &environment, &from_file)).collect();
    let each = definition.clone().mut_args(|arg| arg.required(false));
    faults.extend(settings.iter().filter_map(|setting| fault_of(setting, &each)));
    let required = definition.get_arguments().zip(&settings).filter(|(arg, _)| arg.is_required_set());
    let missing = required.filter(|(_, setting)| setting.values.is_empty()).map(|(_, setting)| &setting.name);
    faults.extend(missing.map(|name| Fault::Missing { name: name.clone(), variable: variable(name) }));
    if !faults.is_empty() {
        return Err(faults);
    }
    let config = config(mode, &settings, &definition).expect("each value was parsed before");
    let source = |name: &str| settings.iter().find(|s| s.name == name).map_or(Source::Default, |s| s.source.clone());
    let conflicts = config.conflicts(source);
    if conflicts.is_empty() { Ok(Effective { config, settings }) } else { Err(conflicts) }
}

fn layered(arg: &Arg, flags: &ArgMatches, environment: &impl Fn(&str) -> Option<String>, file: &[Setting]) -> Setting {
    let name = arg.get_long().expect("every setting has a long name").to_owned();
    let id = arg.get_id().as_str();
    if flags.value_source(id) == Some(ValueSource::CommandLine) {
        let values = flags.get_many::<String>(id).into_iter().flatten().cloned().collect();
        return Setting { source: Source::Flag(format!("--{name}")), values, name };
    }
    let variable = variable(&name);
    if let Some(value) = environment(&variable).filter(|value| !value.is_empty()) {
        let several = matches!(arg.get_action(), ArgAction::Append);
        let values = if several { value.split(',').map(|v| v.trim().to_owned()).collect() } else { vec![value] };
        return Setting { name, values, source: Source::Environment(variable) };
    }
    if let Some(setting) = file.iter().find(|s| s.name == name) {
        return setting.clone();
    }
    let default = arg.get_default_values().iter().map(|v| v.to_string_lossy().into_owned()).collect();
    Setting { name, values: default, source: Source::Default }
}

fn config(mode: Mode, settings: &[Setting], definition: &Command) -> Result<Config, clap::Error> {
    let matches = parse(settings, definition)?;
    let config = Config::from_arg_matches(&matches)?;
    Ok(match mode {
        Mode::Standalone => Config { manifest: Alone::from_arg_matches(&matches)?.manifest, ..config },
        Mode::Cluster => Config { cluster: Some(ClusterConfig::from_arg_matches(&matches)?), ..config },
        Mode::Dev => {
            let manifest = Alone::from_arg_matches(&matches)?.manifest;
            Config { manifest, dev: Some(DevConfig::from_arg_matches(&matches)?), ..config }
        }
    })
}

fn parse(settings: &[Setting], definition: &Command) -> Result<ArgMatches, clap::Error> {
    let flag = |s: &Setting| s.values.iter().map(|v| format!("--{}={v}", s.name)).collect::<Vec<_>>();
    let arguments = settings.iter().flat_map(flag);
    definition.clone().no_binary_name(true).try_get_matches_from(arguments)
}

/// Flags of other modes that were given.
pub fn of_other_mode(mode: Mode, flags: &ArgMatches) -> Vec<Fault> {
    let given =
        |id: &str| flags.try_contains_id(id).is_ok() && flags.value_source(id) == Some(ValueSource::CommandLine);
    let all = Mode::ALL.into_iter().flat_map(|mode| definition(mode).get_arguments().cloned().collect::<Vec<_>>());
    let all = all.filter(|arg| given(arg.get_id().as_str()));
    let names: BTreeSet<String> = all.filter_map(|arg| arg.get_long().map(str::to_owned)).collect();
    let foreign = names.into_iter().filter(|name| !has(mode, name));
    foreign.filter_map(|name| Some(Fault::OtherMode { mode: owner(&name)?, name })).collect()
}

fn has(mode: Mode, name: &str) -> bool {
    definition(mode).get_arguments().any(|arg| arg.get_long() == Some(name))
}

/// The first mode that has a setting.
fn owner(name: &str) -> Option<Mode> {
    Mode::ALL.into_iter().find(|mode| has(*mode, name))
}

fn fault_of(setting: &Setting, definition: &Command) -> Option<Fault> {
    let error = parse(std::slice::from_ref(setting), definition).err()?;
    Some(Fault::Value {
        name: setting.name.clone(),
        value: setting.values.join(", "),
        origin: setting.source.clone(),
        message: explain(&error),
    })
}

/// What clap has against a value, without its remarks on how to ask for help.
fn explain(error: &clap::Error) -> String {
    if let (ErrorKind::InvalidValue, Some(ContextValue::Strings(allowed))) =
        (error.kind(), error.get(ContextKind::ValidValue))
    {
        return format!("must be one of {}", allowed.join(", "));
    }
    match (error.kind(), error.source()) {
        (_, Some(source)) => source.to_string(),
        (ErrorKind::ArgumentConflict, None) => "only one value is possible".to_owned(),
        (_, None) => "a value is missing".to_owned(),
    }
}

/// The settings of a file, and all that is wrong with its form.
fn read(file: &Path, mode: Mode, definition: &Command) -> (Vec<Setting>, Vec<Fault>) {
    let fault = |line, message| (Vec::new(), vec![Fault::File { file: file.to_owned(), line, message }]);
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => return fault(None, format!("cannot be read: {error}")),
    };
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Default::default();
    }
    let options = marked_yaml::LoaderOptions::default().error_on_duplicate_keys(true);
    match marked_yaml::parse_yaml_with_options(0, &text, options) {
        Ok(Node::Mapping(mapping)) => entries(file, mode, &mapping, definition),
        Ok(_) => fault(None, "must be a mapping of settings, such as \"data-dir: /var/lib/taffrail\"".to_owned()),
        Err(error) => fault(None, error.to_string()),
    }
}

fn entries(
    file: &Path,
    mode: Mode,
    mapping: &marked_yaml::types::MarkedMappingNode,
    definition: &Command,
) -> (Vec<Setting>, Vec<Fault>) {
    let (mut settings, mut faults) = (Vec::new(), Vec::new());
    let names: Vec<&str> = definition.get_arguments().filter_map(Arg::get_long).collect();
    for (key, value) in mapping.iter() {
        let line = key.span().start().map_or(1, marked_yaml::Marker::line);
        let name = key.as_str();
        if !names.contains(&name) {
            faults.push(unknown(file, mode, line, name, &names));
        } else if let Some(values) = scalars(value) {
            settings.push(Setting { name: name.to_owned(), values, source: Source::File(file.to_owned(), line) });
        } else {
            let message = format!("{name} must be a value or a list of values");
            faults.push(Fault::File { file: file.to_owned(), line: Some(line), message });
        }
    }
    (settings, faults)
}

/// A scalar, or a list of at least one.
fn scalars(node: &Node) -> Option<Vec<String>> {
    let scalar = |node: &Node| node.as_scalar().map(|s| s.as_str().to_owned());
    match node {
        Node::Scalar(one) => Some(vec![one.as_str().to_owned()]),
        Node::Sequence(many) if !many.is_empty() => many.iter().map(scalar).collect(),
        _ => None,
    }
}

fn unknown(file: &Path, mode: Mode, line: usize, key: &str, names: &[&str]) -> Fault {
    let same = |name: &&&str| name.replace('-', "") == key.to_lowercase().replace(['-', '_'], "");
    let hint = match (names.iter().find(same), owner(key)) {
        (Some(name), _) => format!(": did you mean \"{name}\"?"),
        (None, Some(other)) => {
            format!(" of \"taffrail-broker {}\": it is one of \"{}\"", mode.name(), other.name())
        }
        (None, None) => format!("; there are {}", names.join(", ")),
    };
    Fault::UnknownKey { file: PathBuf::from(file), line, key: key.to_owned(), hint }
}
