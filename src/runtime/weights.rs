//! What an OpenVINO graph says before it is loaded: whether the weights next to it can be its own, and whether it
//! keeps a state.

use std::path::Path;

use super::Error;
use crate::files;

const NAME: &str = "openvino";

/// Refuses a `.bin` that is not exactly as long as the constants of its graph say: one that is cut off, or
/// that of another graph, whose bytes would be taken for weights. Returns whether the graph keeps a state.
pub(super) fn check(graph: &Path, weights: &Path) -> Result<bool, Error> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    };
    let text = files::read(graph).map_err(io(graph))?;
    files::plain(weights).map_err(io(weights))?;
    let length = std::fs::metadata(weights).map_err(io(weights))?.len();
    let refuse = |path: &Path, why: String| Error::Load {
        runtime: NAME,
        why: format!("{}: {why}", path.display()),
    };
    let text = String::from_utf8(text).map_err(|_| refuse(graph, "it is not UTF-8".into()))?;
    let (needed, stateful) = extent(&text).map_err(|why| refuse(graph, why))?;
    let which = match length.cmp(&needed) {
        std::cmp::Ordering::Equal => return Ok(stateful),
        std::cmp::Ordering::Less => "it is cut off, or belongs to another graph",
        std::cmp::Ordering::Greater => "it belongs to another graph",
    };
    let why =
        format!("{length} bytes, where the constants of {} take {needed}: {which}", graph.display());
    Err(refuse(weights, why))
}

/// Where the furthest constant of a graph ends, in bytes, and whether it reads a variable that lasts from one
/// call to the next.
fn extent(text: &str) -> Result<(u64, bool), String> {
    let document = roxmltree::Document::parse(text).map_err(|e| format!("it is not XML: {e}"))?;
    if document.root_element().tag_name().name() != "net" {
        return Err("it is not an OpenVINO graph".to_owned());
    }
    let constants = document.descendants().filter(|node| {
        let of = node.parent_element();
        node.has_tag_name("data") && of.is_some_and(|layer| layer.attribute("type") == Some("Const"))
    });
    let mut furthest = 0;
    for data in constants {
        let layer = data.parent_element().and_then(|layer| layer.attribute("name")).unwrap_or("?");
        let number = |name| data.attribute(name).and_then(|value| value.parse::<u64>().ok());
        let end = number("offset").zip(number("size")).and_then(|(at, size)| at.checked_add(size));
        furthest = end
            .ok_or_else(|| format!("constant {layer:?} has no valid offset and size"))?
            .max(furthest);
    }
    let reads = |node: roxmltree::Node<'_, '_>| {
        node.has_tag_name("layer") && node.attribute("type") == Some("ReadValue")
    };
    Ok((furthest, document.descendants().any(reads)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(constants: &[(&str, &str)]) -> String {
        let layer = |(offset, size): &(&str, &str)| {
            format!(r#"<layer name="w" type="Const"><data offset="{offset}" size="{size}"/></layer>"#)
        };
        let other = r#"<layer name="s" type="Slice"><data offset="9" size="99"/></layer>"#;
        let all: String = constants.iter().map(layer).collect();
        format!("<?xml version=\"1.0\"?><net><layers>{other}{all}</layers></net>")
    }

    #[test]
    fn the_furthest_end_counts() {
        assert_eq!(extent(&net(&[("16", "8"), ("0", "16"), ("4", "4")])), Ok((24, false)));
        assert_eq!(extent(&net(&[])), Ok((0, false)));
        let reading = net(&[]).replace("type=\"Slice\"", "type=\"ReadValue\"");
        assert_eq!(extent(&reading), Ok((0, true)));
    }

    #[test]
    fn what_lies_is_refused() {
        for (offset, size) in [("18446744073709551615", "1"), ("-1", "4"), ("", "4"), ("0", "4.5")] {
            assert!(extent(&net(&[(offset, size)])).unwrap_err().contains("\"w\" has no valid offset"));
        }
        assert!(extent("").unwrap_err().starts_with("it is not XML"));
        assert!(extent("<net><layers>").unwrap_err().starts_with("it is not XML"));
        assert!(extent("<svg/>").unwrap_err().contains("not an OpenVINO graph"));
        let bomb = r#"<!DOCTYPE net [<!ENTITY a "b">]><net>&a;</net>"#;
        assert!(extent(bomb).unwrap_err().starts_with("it is not XML"));
    }

    #[test]
    fn a_length_that_does_not_fit_names_both_files() {
        let folder = tempfile::tempdir().unwrap();
        let [graph, weights] = ["m.xml", "m.bin"].map(|name| folder.path().join(name));
        std::fs::write(&graph, net(&[("0", "16")])).unwrap();
        assert!(matches!(check(&graph, &weights), Err(Error::Io { path, .. }) if path == weights));
        for (length, words) in [(15, "cut off"), (17, "another graph")] {
            std::fs::write(&weights, vec![0; length]).unwrap();
            let error = check(&graph, &weights).unwrap_err().to_string();
            let names = error.contains("m.bin: ") && error.contains("m.xml take 16");
            assert!(names && error.contains(words), "{error}");
        }
        std::fs::write(&weights, [0; 16]).unwrap();
        check(&graph, &weights).unwrap();
    }
}
