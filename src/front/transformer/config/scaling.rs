//! What `rope_scaling` says.

use serde_json::Value;

use super::{Fields, LARGEST_SCALAR, Rotation, shown};
use crate::source::Refused;

impl Fields<'_> {
    /// How `rope_scaling` scales the rotary embedding of a model of so many positions.
    pub(super) fn rotation(&self, positions: u64) -> Result<Rotation, Refused> {
        let scaling = match self.fields.get("rope_scaling") {
            None | Some(Value::Null) => return Ok(Rotation::Default),
            Some(Value::Object(scaling)) => scaling,
            Some(other) => {
                let what = format!("`rope_scaling` is {}, expected an object", shown(other));
                return Err(self.refuse(what, "a causal language model is expected"));
            }
        };
        let given = |name: &str| match scaling.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_f64().filter(|value| value.is_finite()) {
                Some(value) => Ok(Some(value)),
                None => Err(self.refuse(
                    format!("`rope_scaling.{name}` is {}, expected a number", shown(value)),
                    "fetch it again",
                )),
            },
        };
        let above = |name: &str| match given(name)? {
            Some(value) if value > 0.0 && value < LARGEST_SCALAR => Ok(value),
            _ => Err(self.refuse(
                format!("`rope_scaling` has no `{name}` above 0: its frequencies are not finite"),
                "fetch it again",
            )),
        };
        let (new, old) = (scaling.get("rope_type"), scaling.get("type"));
        let Some(kind) = new.or(old) else {
            return Err(self.refuse(
                "`rope_scaling` has no `rope_type`: nothing says how it scales",
                "a causal language model is expected",
            ));
        };
        if let (Some(new), Some(old)) = (new, old)
            && new != old
        {
            let what = format!(
                "`rope_scaling.rope_type` is {}, and `rope_scaling.type` is {}",
                shown(new),
                shown(old)
            );
            return Err(self.refuse(what, "the two name one kind"));
        }
        match kind.as_str() {
            Some("default") => Ok(Rotation::Default),
            Some("linear") => Ok(Rotation::Linear { factor: above("factor")? }),
            Some("llama3") => Ok(Rotation::Llama3 {
                factor: above("factor")?,
                low_freq_factor: above("low_freq_factor")?,
                high_freq_factor: above("high_freq_factor")?,
                original_max_position_embeddings: above("original_max_position_embeddings")?,
            }),
            Some("yarn") => {
                // Zero counts as not given, as it does in `transformers`.
                let or = |name: &str, usual: f64| {
                    Ok::<_, Refused>(given(name)?.filter(|value| *value != 0.0).unwrap_or(usual))
                };
                let scales = (or("mscale", 0.0)?, or("mscale_all_dim", 0.0)?);
                Ok(Rotation::Yarn {
                    factor: above("factor")?,
                    attention_factor: given("attention_factor")?,
                    mscale: (scales.0 != 0.0 && scales.1 != 0.0).then_some(scales),
                    beta_fast: or("beta_fast", 32.0)?,
                    beta_slow: or("beta_slow", 1.0)?,
                    original_max_position_embeddings: or(
                        "original_max_position_embeddings",
                        positions as f64,
                    )?,
                    truncate: scaling.get("truncate").is_none_or(|whole| whole != &Value::Bool(false)),
                })
            }
            Some(known @ ("dynamic" | "longrope")) => Err(Refused::new(
                "lm-unsupported",
                format!(
                    "{}: rope_scaling of the kind {known:?} is not supported: its frequencies change with the \
                     length of a run, and a cache keeps keys that were rotated before",
                    self.path.display()
                ),
                "supported are default, linear, llama3, yarn",
            )),
            _ => Err(Refused::new(
                "lm-unsupported",
                format!(
                    "{}: `rope_scaling.{}` is {}, which `transformers` does not know",
                    self.path.display(),
                    if new.is_some() { "rope_type" } else { "type" },
                    shown(kind)
                ),
                "supported are default, linear, llama3, yarn",
            )),
        }
    }
}
