//! What a word on the command line is read as.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::names::Word;
use crate::runtime::{self, ALL, Engine};

/// A path that may be empty: an environment variable without a value counts as unset.
pub(super) fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// A word of a closed set.
pub(super) fn word<T: Word + Send + Sync>() -> impl TypedValueParser<Value = T> {
    let values = T::ALL.iter().map(|word| PossibleValue::new(word.name()).help(word.about()));
    PossibleValuesParser::new(values).map(|name| T::named(&name).expect("a possible value"))
}

/// What help lists the options under that every verb takes.
pub(super) const EVERY_VERBS: &str = "Options of every command";

/// The shared libraries that were named, by their runtime.
#[derive(Clone, Debug, Default)]
pub(super) struct Libraries(pub BTreeMap<&'static str, PathBuf>);

impl Args for Libraries {
    fn augment_args(command: Command) -> Command {
        let own = |library: &'static runtime::Library| {
            let help =
                format!("{} [default: that of the Python environment, or the system's]", library.about);
            let arg = Arg::new(library.option)
                .long(library.option)
                .env(library.variable)
                .global(true)
                .help_heading(EVERY_VERBS);
            arg.value_name("FILE").hide_env_values(true).value_parser(path()).help(help)
        };
        let any = Arg::new("library")
            .long("library")
            .global(true)
            .help_heading(EVERY_VERBS)
            .action(ArgAction::Append);
        let any = any.value_name("NAME=FILE").value_parser(library());
        let any =
            any.help("The shared library of a runtime, by the runtime's name; may be given again");
        ALL.iter().filter_map(|engine| engine.library()).map(own).fold(command, Command::arg).arg(any)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Libraries {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let own = ALL.iter().filter_map(|engine| {
            Some((engine.name(), matches.get_one::<PathBuf>(engine.library()?.option)?.clone()))
        });
        let any = matches.get_many::<(&'static str, PathBuf)>("library").into_iter().flatten().cloned();
        // An environment variable without a value counts as unset.
        Ok(Self(own.chain(any).filter(|(_, path)| !path.as_os_str().is_empty()).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// `NAME=FILE`, of a runtime that is in a shared library.
fn library() -> impl TypedValueParser<Value = (&'static str, PathBuf)> {
    OsStringValueParser::new().try_map(|text| {
        let known = || ALL.iter().filter(|engine| engine.library().is_some());
        let mut parts = text.as_bytes().splitn(2, |byte| *byte == b'=');
        let parsed = parts.next().zip(parts.next()).and_then(|(name, file)| {
            let engine = known().find(|engine| engine.name().as_bytes() == name)?;
            (!file.is_empty()).then(|| (engine.name(), OsString::from_vec(file.to_vec()).into()))
        });
        let names = || known().map(|engine| engine.name()).collect::<Vec<_>>().join(", ");
        parsed.ok_or_else(|| format!("it is NAME=FILE, where NAME is one of: {}", names()))
    })
}

/// A runtime that was asked for, or all that are found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Asked {
    All,
    One(&'static dyn Engine),
}

/// The name of a runtime.
pub(super) fn engine() -> impl TypedValueParser<Value = &'static dyn Engine> {
    let values = ALL.iter().map(|engine| PossibleValue::new(engine.name()).help(engine.about()));
    PossibleValuesParser::new(values)
        .map(|name| runtime::named(&name).expect("a possible value is a runtime's name"))
}

/// The name of a runtime, or `all`.
pub(super) fn asked() -> impl TypedValueParser<Value = Asked> {
    let values = ALL.iter().map(|engine| PossibleValue::new(engine.name()).help(engine.about()));
    let all = PossibleValue::new("all").help("All that are found");
    PossibleValuesParser::new(values.chain([all]))
        .map(|name| runtime::named(&name).map_or(Asked::All, Asked::One))
}
