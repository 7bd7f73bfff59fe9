//! What a model is fed with while it is timed: made from its inputs' names and shapes alone, so that
//! every format of a model gets the same.

use super::Point;
use crate::runtime::{Session, Tensors};
use crate::tensor::Tensor;
use crate::validate::language_model::{IDS, MASK, PAST, POSITIONS};
use crate::validate::{Error, Part, Port, Signature};

/// The inputs of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Feed {
    /// Tokens and a cache.
    Lm {
        /// Each cache input, with its heads and their size.
        cache: Vec<(String, usize, usize)>,
        /// Whether the model keeps its cache itself.
        stateful: bool,
    },
    /// Hidden states.
    Decoder {
        /// The input's name.
        name: String,
        /// Its channels.
        channels: usize,
    },
}

impl Feed {
    /// Reads what a half takes off the names and dimensions of its inputs.
    ///
    /// # Errors
    /// [`Error::Interface`] where an input is not one of that half's, or leaves open what must be known.
    pub fn of(part: Part, signature: &Signature) -> Result<Self, Error> {
        let fixed = |dims: &[String], at: usize| dims.get(at)?.parse::<usize>().ok().filter(|&n| n > 0);
        let refuse =
            |name: &str, why: &'static str| Err(Error::Interface { name: name.to_owned(), why });
        let inputs = &signature.inputs;
        if part == Part::Decoder {
            return match inputs.as_slice() {
                [] => refuse("hidden_states", "is not there"),
                [only] => match (fixed(&only.dims, 1), only.dims.len()) {
                    (Some(channels), 3) => Ok(Feed::Decoder { name: only.name.clone(), channels }),
                    _ => refuse(&only.name, "must be [batch, channels, T] with channels fixed"),
                },
                [_, other, ..] => refuse(&other.name, "is none of a decoder's"),
            };
        }
        let mut cache = Vec::new();
        for Port { name, dims, .. } in inputs {
            match (name.starts_with(PAST), fixed(dims, 1), fixed(dims, 3)) {
                (true, Some(heads), Some(size)) => cache.push((name.clone(), heads, size)),
                (true, _, _) => {
                    return refuse(
                        name,
                        "must be [batch, heads, past, size] with heads and size fixed",
                    );
                }
                (false, _, _) if [IDS, MASK, POSITIONS].contains(&name.as_str()) => {}
                _ => return refuse(name, "is none of a language model's"),
            }
        }
        match cache.is_empty() && !signature.stateful {
            true => refuse(&format!("{PAST}0.key"), "is not there: the model has no cache"),
            false => Ok(Feed::Lm { cache, stateful: signature.stateful }),
        }
    }

    /// Seconds of one call at a point; a model that keeps its cache itself fills it first, untimed.
    ///
    /// # Errors
    /// [`Error::Runtime`] where the model can't be run.
    pub fn seconds(
        &self,
        point: Point,
        session: &dyn Session,
        inputs: &Tensors,
    ) -> Result<f64, Error> {
        let mut conversation = session.begin(&[])?;
        if let (Feed::Lm { cache, stateful: true }, Point::Step { past: past @ 1.., batch }) =
            (self, point)
        {
            conversation.run(&tokens(cache, batch, 0, past))?;
        }
        Ok(conversation.seconds(inputs)?)
    }

    /// The inputs of one call.
    ///
    /// # Errors
    /// [`Error::NothingToMeasure`] where the point is the other half's.
    pub fn inputs(&self, point: Point) -> Result<Tensors, Error> {
        match (self, point) {
            (Feed::Lm { cache, .. }, Point::Step { past, batch }) => Ok(tokens(cache, batch, past, 1)),
            (Feed::Lm { cache, .. }, Point::Prefill { tokens: prompt }) => {
                Ok(tokens(cache, 1, 0, prompt))
            }
            (Feed::Decoder { name, channels }, Point::Decode { tokens, batch }) => {
                let values = varied(batch * channels * tokens);
                let states = Tensor::from_f32(&[batch, *channels, tokens], &values);
                Ok(Tensors::from([(name.clone(), states)]))
            }
            _ => Err(Error::NothingToMeasure("a call of the other half can't be timed")),
        }
    }
}

fn tokens(cache: &[(String, usize, usize)], batch: usize, past: usize, length: usize) -> Tensors {
    let total = past + length;
    let positions: Vec<i64> = (0..batch).flat_map(|_| past as i64..total as i64).collect();
    let mut inputs = Tensors::from([
        (IDS.to_owned(), Tensor::from_i64(&[batch, length], &vec![1; batch * length])),
        (MASK.to_owned(), Tensor::from_i64(&[batch, total], &vec![1; batch * total])),
        (POSITIONS.to_owned(), Tensor::from_i64(&[batch, length], &positions)),
    ]);
    inputs.extend(cache.iter().map(|(name, heads, size)| {
        let values = varied(batch * heads * past * size);
        (name.clone(), Tensor::from_f32(&[batch, *heads, past, *size], &values))
    }));
    inputs
}

/// Values between -1 and 1, the same each time: all zero would be quantized to nothing.
fn varied(count: usize) -> Vec<f32> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(part: Part, inputs: &[(&str, &str)]) -> Result<Feed, Error> {
        let port = |(name, dims): &(&str, &str)| Port {
            name: (*name).to_owned(),
            dtype: "f32".to_owned(),
            dims: dims.split(' ').map(str::to_owned).collect(),
        };
        let inputs = inputs.iter().map(port).collect();
        Feed::of(part, &Signature { inputs, outputs: Vec::new(), stateful: false })
    }

    #[test]
    fn a_language_model_is_fed_behind_its_cache() {
        let inputs = [
            (IDS, "batch s"),
            (MASK, "batch t"),
            ("past_key_values.0.key", "batch 2 past 8"),
            ("past_key_values.0.value", "batch 2 past 8"),
        ];
        let feed = of(Part::Lm, &inputs).unwrap();
        let step = feed.inputs(Point::Step { past: 5, batch: 3 }).unwrap();
        assert_eq!(step["past_key_values.0.value"].shape(), [3, 2, 5, 8]);
        assert_eq!(step[MASK].shape(), [3, 6]);
        assert_eq!(step[POSITIONS].to_i64().unwrap(), [5, 5, 5]);
        let prompt = feed.inputs(Point::Prefill { tokens: 4 }).unwrap();
        assert_eq!(prompt[POSITIONS].to_i64().unwrap(), [0, 1, 2, 3]);
        assert_eq!(prompt["past_key_values.0.key"].shape(), [1, 2, 0, 8]);
        assert!(feed.inputs(Point::Decode { tokens: 8, batch: 1 }).is_err());
    }

    #[test]
    fn a_decoder_is_fed_with_values_that_vary() {
        let feed = of(Part::Decoder, &[("hidden_states", "batch 6 T")]).unwrap();
        let inputs = feed.inputs(Point::Decode { tokens: 8, batch: 2 }).unwrap();
        let values = inputs["hidden_states"].to_f32().unwrap();
        assert_eq!(values.len(), 96);
        assert!(values.iter().all(|v| v.abs() <= 1.0) && values.iter().any(|v| *v < -0.5));
    }

    #[test]
    fn inputs_that_are_not_known_are_refused() {
        type Case<'a> = (Part, &'a [(&'a str, &'a str)], &'a str);
        let cases: [Case<'_>; 6] = [
            (Part::Lm, &[("pixels", "1 3")], "is none of a language model's"),
            (Part::Lm, &[(IDS, "b s")], "the model has no cache"),
            (Part::Lm, &[("past_key_values.0.key", "b h p 8")], "heads and size fixed"),
            (Part::Decoder, &[], "is not there"),
            (Part::Decoder, &[("x", "b c t")], "channels fixed"),
            (Part::Decoder, &[("x", "b 6 t"), ("y", "b 6 t")], "is none of a decoder's"),
        ];
        for (part, inputs, why) in cases {
            let error = of(part, inputs).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
