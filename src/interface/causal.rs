use super::{Error, Port, Signature, fixed, varied};
use crate::names;
use crate::tensor::{Tensor, Tensors};

/// A causal graph's inputs and outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Causal {
    names: names::Causal,
    /// Those of ids, mask and positions that the graph takes.
    takes: Vec<String>,
    cache: Vec<Cached>,
    last_logits: bool,
    channels: Option<usize>,
    stateful: bool,
}

/// One tensor of a cache: an output, and the input that takes it in the next call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cached {
    /// The input, f32 [batch, heads, past, size].
    pub past: String,
    /// The output, f32 [batch, heads, past + sequence, size].
    pub present: String,
    /// Heads.
    pub heads: usize,
    /// Values of a head.
    pub size: usize,
}

impl Causal {
    /// Reads the cache off a graph's inputs.
    ///
    /// # Errors
    /// [`Error::Causal`] where an input is none of a causal graph's, or leaves a cache's heads or size open.
    pub fn bind(names: &names::Causal, signature: &Signature) -> Result<Self, Error> {
        let refuse = |name: &str, why| Err(Error::Causal { name: name.to_owned(), why });
        let plain = [&names.ids, &names.mask, &names.positions];
        let prefix = format!("{}.", names.past);
        let (mut cache, mut takes) = (Vec::new(), Vec::new());
        for Port { name, dims, .. } in &signature.inputs {
            let Some(place) = name.strip_prefix(&prefix) else {
                if !plain.contains(&name) {
                    return refuse(name, "is none of a causal graph's inputs");
                }
                takes.push(name.clone());
                continue;
            };
            let (Some(heads), Some(size), 4) = (fixed(dims, 1), fixed(dims, 3), dims.len()) else {
                return refuse(name, "must be [batch, heads, past, size] with heads and size fixed");
            };
            let present = format!("{}.{place}", names.present);
            cache.push(Cached { past: name.clone(), present, heads, size });
        }
        if cache.is_empty() && !signature.stateful {
            return refuse(&format!("{prefix}0.key"), "is not there: the graph has no cache");
        }
        let output = |name: &str| signature.outputs.iter().find(|port| port.name == name);
        Ok(Self {
            names: names.clone(),
            takes,
            cache,
            last_logits: output(&names.logits)
                .is_some_and(|port| port.dims.get(1).is_some_and(|dim| dim == "1")),
            channels: output(&names.hidden).and_then(|port| fixed(&port.dims, 2)),
            stateful: signature.stateful,
        })
    }

    /// The names of its inputs and outputs.
    pub fn names(&self) -> &names::Causal {
        &self.names
    }

    /// Its cache, in the order of its inputs; none where the graph keeps it itself.
    pub fn cache(&self) -> &[Cached] {
        &self.cache
    }

    /// Whether the graph keeps its cache itself.
    pub fn is_stateful(&self) -> bool {
        self.stateful
    }

    /// Whether logits are those of the last position alone.
    pub fn has_last_logits(&self) -> bool {
        self.last_logits
    }

    /// Channels of its hidden states after the final norm, where it gives them.
    pub fn channels(&self) -> Option<usize> {
        self.channels
    }

    /// Each output of the cache with the input that takes it in the next call.
    pub fn carried(&self) -> Vec<(String, String)> {
        self.cache.iter().map(|cached| (cached.present.clone(), cached.past.clone())).collect()
    }

    /// The cache before the first call.
    pub fn empty_cache(&self, batch: usize) -> Tensors {
        self.cached(batch, 0)
    }

    fn cached(&self, batch: usize, past: usize) -> Tensors {
        let tensor = |Cached { past: name, heads, size, .. }: &Cached| {
            let values = varied(batch * heads * past * size);
            (name.clone(), Tensor::from_f32(&[batch, *heads, past, *size], &values))
        };
        self.cache.iter().map(tensor).collect()
    }

    /// What the graph takes of ids [batch, sequence], mask [batch, past + sequence] and positions [batch, sequence].
    pub fn tokens(&self, batch: usize, ids: &[i64], mask: &[i64], positions: &[i64]) -> Tensors {
        let sequences =
            |values: &[i64]| Tensor::from_i64(&[batch, values.len() / batch.max(1)], values);
        let given =
            [(&self.names.ids, ids), (&self.names.mask, mask), (&self.names.positions, positions)];
        let taken = given.into_iter().filter(|(name, _)| self.takes.contains(name));
        taken.map(|(name, values)| (name.clone(), sequences(values))).collect()
    }

    /// A prompt of `length` tokens of each sequence, and no cache: what a graph that keeps it itself is given.
    pub fn prompt(&self, batch: usize, length: usize) -> Tensors {
        self.feed(batch, 0, length)
    }

    /// A call of `length` tokens of each sequence after `past` cached positions, the cache with it.
    pub(super) fn feed(&self, batch: usize, past: usize, length: usize) -> Tensors {
        let total = past + length;
        let positions: Vec<i64> = (0..batch).flat_map(|_| past as i64..total as i64).collect();
        let (ids, mask) = (vec![1; batch * length], vec![1; batch * total]);
        let mut inputs = self.tokens(batch, &ids, &mask, &positions);
        inputs.extend(self.cached(batch, past));
        inputs
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Call, Interface};
    use super::*;
    use crate::names::Ports;

    fn bind(inputs: &[(&str, &str)]) -> Result<Interface, Error> {
        let ports = Ports::Causal(names::Causal::default());
        Interface::bind(&ports, &super::super::signal::signature(inputs))
    }

    #[test]
    fn a_causal_graph_is_fed_after_its_cache() {
        let inputs = [
            ("input_ids", "batch s"),
            ("attention_mask", "batch t"),
            ("position_ids", "batch s"),
            ("past_key_values.0.key", "batch 2 past 8"),
            ("past_key_values.0.value", "batch 2 past 8"),
        ];
        let interface = bind(&inputs).unwrap();
        let step = interface.feed(Call::Step { past: 5, batch: 3 }).unwrap();
        assert_eq!(step["past_key_values.0.value"].shape(), [3, 2, 5, 8]);
        assert_eq!(step["attention_mask"].shape(), [3, 6]);
        assert_eq!(step["position_ids"].to_i64().unwrap(), [5, 5, 5]);
        let prompt = interface.feed(Call::Prefill { tokens: 4 }).unwrap();
        assert_eq!(prompt["position_ids"].to_i64().unwrap(), [0, 1, 2, 3]);
        assert_eq!(prompt["past_key_values.0.key"].shape(), [1, 2, 0, 8]);
        assert!(interface.feed(Call::Frames { frames: 8, batch: 1 }).is_none());
        let without = bind(&[inputs[0], inputs[3]]).unwrap();
        let step = without.feed(Call::Step { past: 0, batch: 1 }).unwrap();
        assert_eq!(step.len(), 2, "what the graph doesn't take isn't given");
    }

    #[test]
    fn names_are_data() {
        let names = names::Causal {
            past: "cache_in".into(),
            present: "cache_out".into(),
            ..Default::default()
        };
        let signature =
            super::super::signal::signature(&[("cache_in.3.key", "b 1 p 4"), ("input_ids", "b s")]);
        let causal = Causal::bind(&names, &signature).unwrap();
        assert_eq!(causal.carried(), [("cache_out.3.key".to_owned(), "cache_in.3.key".to_owned())]);
        assert!(Causal::bind(&names::Causal::default(), &signature).is_err());
    }

    #[test]
    fn inputs_that_are_not_known_are_refused() {
        let cases: [(&[(&str, &str)], &str); 3] = [
            (&[("pixels", "1 3")], "is none of a causal graph's"),
            (&[("input_ids", "b s")], "the graph has no cache"),
            (&[("past_key_values.0.key", "b h p 8")], "heads and size fixed"),
        ];
        for (inputs, why) in cases {
            let error = bind(inputs).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
