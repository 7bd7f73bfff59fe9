use super::arguments::CacheVerb;
use super::here::Here;
use super::terminal::{bytes, row, table};
use super::{Answer, Outcome, say};

pub(super) fn cache(verb: &CacheVerb, here: &Here) -> Outcome {
    let cache = here.cache();
    match verb {
        CacheVerb::Dir => say(&format!("{}\n", cache.root().display())),
        CacheVerb::Size => {
            let sizes = cache.sizes();
            let total = sizes.iter().map(|(_, n)| n).sum();
            let mut rows = vec![row!["stage", "size"]];
            rows.extend(sizes.iter().map(|(name, n)| row![name, bytes(*n)]));
            rows.push(row!["total", bytes(total)]);
            say(&table(&rows))
        }
        CacheVerb::Prune => {
            let (count, freed) = cache.prune()?;
            tellln!("{count} stages removed, {} freed", bytes(freed));
            Ok(Answer::Yes)
        }
    }
}
