//! Operator sets: whose operators, and of which version.

use super::proto::{ModelProto, OperatorSetIdProto};

/// Whether this is the domain of ONNX's own operators, which has two spellings.
pub(super) fn is_own_domain(domain: &str) -> bool {
    matches!(domain, "" | "ai.onnx")
}

/// The version of an operator set that a model imports.
pub(super) fn opset_of(model: &ModelProto, domain: &str) -> Option<i64> {
    let same = |set: &&OperatorSetIdProto| {
        set.domain() == domain || is_own_domain(set.domain()) && is_own_domain(domain)
    };
    model.opset_import.iter().find(same).map(|set| set.version())
}
