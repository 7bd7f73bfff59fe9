//! Where things are: the options that every verb shares, and what they lead to.

use std::cell::OnceCell;
use std::ffi::OsString;
use std::path::Path;

use super::Failure;
use super::arguments::Shared;
use super::parsers::Asked;
use crate::export::{self, Python};
use crate::family;
use crate::pipeline::Cache;
use crate::runtime::{self, ALL, Engine, Options, Places, Runtime, Takes, Traits};

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
    /// Makes paths absolute, for a child may run in another folder; an empty one counts as not given.
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

    /// Whether the library of a runtime was named.
    pub fn is_named(&self, runtime: &str) -> bool {
        self.shared.libraries.0.contains_key(runtime)
    }

    /// The interpreter with the exporters' packages.
    pub fn python(&self) -> Result<Python, export::Error> {
        Python::find(self.named_python(), family::ALL[0].environment, self.cache.root())
    }

    fn places(&self) -> &Places {
        let libraries = self.shared.libraries.0.iter();
        self.places.get_or_init(|| Places {
            named: libraries.map(|(name, path)| ((*name).to_owned(), path.clone())).collect(),
            folders: self.python().map(|python| python.site_packages()).unwrap_or_default(),
        })
    }

    /// One runtime, which must be here.
    pub fn runtime(&self, engine: &dyn Engine, options: Options) -> Result<Box<dyn Runtime>, Failure> {
        Ok(engine.find(self.places(), options)?)
    }

    /// The runtimes asked for, or all. One that is asked for by name, or whose library is named, must be there.
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
        let libraries = self
            .shared
            .libraries
            .0
            .iter()
            .filter_map(|(name, path)| Some((runtime::named(name)?.library()?.option, path)));
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
