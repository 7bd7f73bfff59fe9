//! Where a file that is out of tolerance is kept.

use std::path::{Path, PathBuf};

use super::{Build, Error};
use crate::validate::{Artifact, Verdict};

/// A rejection. The artifact and its verdict are kept next to where the bundle would be, or else in the cache.
pub(super) fn reject(build: &Build<'_>, verdict: Verdict, artifact: &Artifact) -> Error {
    let kept = keep(build, &verdict, artifact).unwrap_or_else(|_| artifact.path.clone());
    Error::Rejected { verdict: Box::new(verdict), kept }
}

fn keep(build: &Build<'_>, verdict: &Verdict, artifact: &Artifact) -> std::io::Result<PathBuf> {
    let home = build.output.as_deref().and_then(Path::parent).map(Path::to_owned).unwrap_or_default();
    let kept = home.join("rejected").join(format!("{}-{}", verdict.graph, verdict.sha256.short()));
    std::fs::create_dir_all(&kept)?;
    let graph = build.recipe.graph(&verdict.graph);
    let stem = graph.map_or_else(|| verdict.graph.clone(), |graph| graph.file_of(verdict.precision));
    let files = std::iter::once(&artifact.path).chain(artifact.weights.iter().map(|w| &w.path));
    for file in files {
        let kind = file.extension().unwrap_or_default().to_string_lossy();
        std::fs::copy(file, kept.join(format!("{stem}.{kind}")))?;
    }
    let text = serde_json::to_string_pretty(verdict).expect("plain data");
    std::fs::write(kept.join("verdict.json"), text)?;
    Ok(kept)
}
