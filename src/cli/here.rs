//! Where things are: the options that every verb shares, and what they lead to.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::Failure;
use super::arguments::{Shared, path};
use crate::export::{self, Python};
use crate::family;
use crate::pipeline::Cache;
use crate::runtime::{self, ALL, Engine, Options, Places, Runtime, Takes, Traits};

/// The shared libraries that were named, by their runtime.
#[derive(Clone, Debug, Default)]
pub(super) struct Libraries(BTreeMap<&'static str, PathBuf>);

impl Args for Libraries {
    fn augment_args(command: Command) -> Command {
        let own = |library: &'static runtime::Library| {
            let help =
                format!("{} [default: that of the Python environment, or the system's]", library.about);
            let arg = Arg::new(library.option).long(library.option).env(library.variable).global(true);
            arg.value_name("FILE").hide_env_values(true).value_parser(path()).help(help)
        };
        let any = Arg::new("library").long("library").global(true).action(ArgAction::Append);
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

/// Where a call finds its cache, its Python and its runtimes.
pub(super) struct Here {
    shared: Shared,
    cache: Cache,
    places: OnceCell<Places>,
}

/// Runtimes that were looked for.
pub(super) struct Found {
    pub runtimes: Vec<Box<dyn Runtime>>,
    /// Why others are not here.
    pub missing: Vec<runtime::Error>,
    asked: Vec<Asked>,
}

impl Here {
    /// Paths are made whole, for a child may run in another folder; one that is empty counts as not given.
    pub fn new(mut shared: Shared) -> Self {
        let mut own = [&mut shared.cache_dir, &mut shared.python];
        own.iter_mut().for_each(|path| drop(path.take_if(|path| path.as_os_str().is_empty())));
        for path in own.into_iter().flatten().chain(shared.libraries.0.values_mut()) {
            *path = std::path::absolute(&*path).unwrap_or_else(|_| std::mem::take(path));
        }
        let cache = Cache::at(&shared.cache_dir.clone().unwrap_or_else(Cache::default_root));
        Self { shared, cache, places: OnceCell::new() }
    }

    /// Finished stages and Python environments.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The interpreter that was named.
    pub fn named_python(&self) -> Option<&Path> {
        self.shared.python.as_deref()
    }

    /// The interpreter with the exporters' packages.
    pub fn python(&self) -> Result<Python, export::Error> {
        Python::find(self.named_python(), family::ALL[0].environment, self.cache.root())
    }

    fn places(&self) -> &Places {
        self.places.get_or_init(|| Places {
            named: self
                .shared
                .libraries
                .0
                .iter()
                .map(|(n, path)| ((*n).to_owned(), path.clone()))
                .collect(),
            folders: self.python().map(|python| python.site_packages()).unwrap_or_default(),
        })
    }

    /// One runtime, which must be here.
    pub fn runtime(&self, engine: &dyn Engine, options: Options) -> Result<Box<dyn Runtime>, Failure> {
        Ok(engine.find(self.places(), options)?)
    }

    /// The runtimes that were asked for, all where none was. One that was asked for by name must be here, and
    /// so must every library that was named.
    pub fn runtimes(&self, asked: &[Asked], options: Options) -> Result<Found, Failure> {
        let (mut runtimes, mut missing) = (Vec::new(), Vec::new());
        let all = asked.is_empty() || asked.contains(&Asked::All);
        for &engine in ALL {
            let by_name = asked.contains(&Asked::One(engine));
            let required = by_name || self.places().named.contains_key(engine.name());
            if !all && !required {
                continue;
            }
            match engine.find(self.places(), options) {
                Ok(runtime) if all || by_name => runtimes.push(runtime),
                Ok(_) => {}
                Err(error) if required => return Err(error.into()),
                Err(error) => missing.push(error),
            }
        }
        Ok(Found { runtimes, missing, asked: asked.to_vec() })
    }

    /// The same options as words for another call of this program.
    pub fn words(&self) -> Vec<OsString> {
        let own = [("cache-dir", &self.shared.cache_dir), ("python", &self.shared.python)];
        let own = own.into_iter().filter_map(|(option, path)| Some((option, path.as_ref()?)));
        let libraries = self.shared.libraries.0.iter();
        let libraries =
            libraries.filter_map(|(n, path)| Some((runtime::named(n)?.library()?.option, path)));
        own.chain(libraries)
            .flat_map(|(option, path)| [format!("--{option}").into(), path.clone().into_os_string()])
            .collect()
    }
}

impl Found {
    /// Why a runtime isn't to run a file: it can't, or takes it slowly and was not asked for by name.
    pub fn declines(&self, runtime: &dyn Runtime, file: &Traits) -> Option<String> {
        match runtime.takes(file) {
            Takes::Not(why) => Some(why.to_owned()),
            Takes::Slowly(why) if !self.asked.contains(&Asked::One(runtime.engine())) => {
                Some(format!("{why}; --runtime {} asks for it", runtime.name()))
            }
            Takes::Slowly(_) | Takes::Well => None,
        }
    }

    /// The first runtime that comes from a library and fits, for those are the fastest; else the first.
    pub fn fastest(&self, fits: impl Fn(&dyn Runtime) -> bool) -> Option<&dyn Runtime> {
        let mut here = self.runtimes.iter().map(AsRef::as_ref);
        let fast = here.clone().find(|runtime| runtime.library().is_some() && fits(*runtime));
        fast.or_else(|| here.next())
    }
}
