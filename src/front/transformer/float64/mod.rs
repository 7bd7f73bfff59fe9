//! The language model in double precision.

mod attention;
mod rotary;
#[cfg(test)]
mod tests;

use ndarray::{ArrayView2, Axis, s};

use super::Config;
use crate::front::float64::{
    CausalAnswer, CausalInDouble, Error, Linear, Next, Numbers, Parameter, Parameters, Rows, Sequence,
    Stepping, Tick, Wanted, add, argmax, by_rows, rms_norm, silu,
};
use crate::source::{Refused, Weights};
use attention::{Heads, attend};
use rotary::{Angles, Rotary};

/// Rows whose logits are computed together.
const PANEL: usize = 256;

/// Qwen3, Qwen2, Llama or Mistral, computed in f64 from a checkpoint's own weights.
///
/// ```text
/// x = E[tokens]
/// x = x + attention(norm(x))     each layer
/// x = x + mlp(norm(x))
/// logits = norm(x)·Hᵀ
/// ```
///
/// with the norm of Zhang and Sennrich 2019, the attention of Ainslie et al. 2023 over heads that are turned as Su et
/// al. 2021 have it, and the gated MLP (silu(x·Gᵀ) ∘ x·Uᵀ)·Dᵀ of Shazeer 2020, GLU Variants Improve Transformer,
/// eq. 6. Qwen3 norms queries and keys head by head before they are turned.
///
/// Angles alone are float32, for `transformers` defines them so whatever else it computes in: a frequency is one float,
/// and an angle its product with the position, rounded.
#[derive(Clone, Debug)]
pub struct InDouble {
    config: Config,
    rotary: Rotary,
    embedding: Parameter,
    layers: Vec<Layer>,
    norm: Parameter,
    head: Linear,
}

#[derive(Clone, Debug)]
struct Layer {
    before: Parameter,
    queries: Linear,
    keys: Linear,
    values: Linear,
    /// Of queries and keys.
    head_norms: Option<[Parameter; 2]>,
    out: Linear,
    between: Parameter,
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// What a call gives to a sequence.
struct Call<'a> {
    ids: &'a [i64],
    positions: Vec<i64>,
    /// Of each position, the cached ones first, whether it is seen.
    seen: Vec<bool>,
}

/// Keys and values [positions, kv_heads · size] of each layer.
#[derive(Clone, Debug, Default)]
struct Cache(Vec<[Vec<f64>; 2]>);

impl InDouble {
    /// The model of a config, with a checkpoint's weights.
    ///
    /// # Errors
    /// [`Refused`] with the code `checkpoint-shape`, `-dtype` or `-config`.
    pub fn new(config: &Config, weights: &Weights) -> Result<Self, Refused> {
        let c = config;
        let wide = |heads: usize| heads.saturating_mul(c.head_dim);
        if c.kv_heads == 0
            || !c.heads.is_multiple_of(c.kv_heads)
            || c.heads == 0
            || c.head_dim == 0
            || !c.head_dim.is_multiple_of(2)
        {
            let why = format!(
                "{} heads of {} channels, which share {} of keys and values",
                c.heads, c.head_dim, c.kv_heads
            );
            return Err(Refused::new(
                "checkpoint-config",
                why,
                "heads are of an even number of channels, and shared evenly",
            ));
        }
        let of = Parameters(weights);
        let layer = |at: usize| {
            let vector =
                |name: &str, size| of.get(&format!("model.layers.{at}.{name}.weight"), &[size]);
            let product = |name: &str, shape, bias| {
                Linear::new(of, &format!("model.layers.{at}.{name}"), shape, bias)
            };
            let (hidden, inner) = (c.hidden_size, c.intermediate_size);
            let (heads, kv) = (wide(c.heads), wide(c.kv_heads));
            let head_norm = |name| vector(name, c.head_dim);
            Ok(Layer {
                before: vector("input_layernorm", hidden)?,
                queries: product("self_attn.q_proj", [heads, hidden], c.qkv_bias)?,
                keys: product("self_attn.k_proj", [kv, hidden], c.qkv_bias)?,
                values: product("self_attn.v_proj", [kv, hidden], c.qkv_bias)?,
                head_norms: match c.qk_norm {
                    true => Some([head_norm("self_attn.q_norm")?, head_norm("self_attn.k_norm")?]),
                    false => None,
                },
                out: product("self_attn.o_proj", [hidden, heads], c.out_bias)?,
                between: vector("post_attention_layernorm", hidden)?,
                gate: product("mlp.gate_proj", [inner, hidden], c.mlp_bias)?,
                up: product("mlp.up_proj", [inner, hidden], c.mlp_bias)?,
                down: product("mlp.down_proj", [hidden, inner], c.mlp_bias)?,
            })
        };
        let table = [c.vocab_size, c.hidden_size];
        let head = if c.tied { "model.embed_tokens" } else { "lm_head" };
        Ok(Self {
            rotary: Rotary::new(config),
            embedding: of.get("model.embed_tokens.weight", &table)?,
            layers: (0..c.layers).map(layer).collect::<Result<_, Refused>>()?,
            norm: of.get("model.norm.weight", &[c.hidden_size])?,
            head: Linear::new(of, head, table, false)?,
            config: config.clone(),
        })
    }

    /// The rows of the embedding, one a token.
    fn embed(&self, calls: &[Call<'_>], numbers: Numbers) -> Result<Rows, Error> {
        let channels = self.config.hidden_size;
        let ids: Vec<i64> = calls.iter().flat_map(|call| call.ids.iter().copied()).collect();
        let mut x = Rows::zeros((ids.len(), channels));
        for (&id, mut row) in ids.iter().zip(x.rows_mut()) {
            let at = usize::try_from(id).ok().filter(|&at| at < self.config.vocab_size).ok_or_else(
                || {
                    let why =
                        format!("token {id} is not one of a vocabulary of {}", self.config.vocab_size);
                    Refused::new("checkpoint-tokenizer", why, "the tokenizer is another model's")
                },
            )?;
            let row = row.as_slice_mut().expect("rows stand one after another");
            self.embedding.widen(at * channels..(at + 1) * channels, numbers, row);
        }
        Ok(x)
    }

    /// What leaves the last layer, [all tokens, channels], and what enters those that are wanted.
    fn states(
        &self,
        calls: &[Call<'_>],
        mut caches: Option<&mut [Cache]>,
        wanted: &[u32],
        numbers: Numbers,
        tick: Tick<'_>,
    ) -> Result<(Rows, Vec<Rows>), Error> {
        let positions = calls.iter().flat_map(|call| call.positions.iter());
        let angles: Vec<Angles> = positions.map(|&position| self.rotary.at(position)).collect();
        let mut x = self.embed(calls, numbers)?;
        let mut kept = vec![Rows::default((0, 0)); wanted.len()];
        for (at, layer) in self.layers.iter().enumerate() {
            for (kept, _) in kept.iter_mut().zip(wanted).filter(|(_, wanted)| **wanted as usize == at) {
                kept.clone_from(&x);
            }
            let caches = caches
                .as_deref_mut()
                .map(|caches| caches.iter_mut().map(|cache| cache.layer(at)).collect::<Vec<_>>());
            let y = self.attention(layer, &x, calls, caches, &angles, numbers);
            add(&mut x, &y);
            let y = self.mlp(layer, &x, numbers);
            add(&mut x, &y);
            tick()?;
        }
        Ok((x, kept))
    }

    fn norm(&self, x: &Rows, weight: &Parameter, numbers: Numbers) -> Rows {
        let (mut y, weight) = (x.clone(), weight.values(numbers));
        by_rows(&mut y, |_, row| rms_norm(row, &weight, self.config.rms_norm_eps));
        y
    }

    fn attention(
        &self,
        layer: &Layer,
        x: &Rows,
        calls: &[Call<'_>],
        caches: Option<Vec<&mut [Vec<f64>; 2]>>,
        angles: &[Angles],
        numbers: Numbers,
    ) -> Rows {
        let size = self.config.head_dim;
        let x = self.norm(x, &layer.before, numbers);
        let [mut queries, mut keys, values] = [&layer.queries, &layer.keys, &layer.values]
            .map(|product| product.apply(x.view(), numbers));
        let norms =
            layer.head_norms.as_ref().map(|norms| norms.each_ref().map(|norm| norm.values(numbers)));
        for (heads, which) in [(&mut queries, 0), (&mut keys, 1)] {
            by_rows(heads, |at, row| {
                for head in row.chunks_mut(size) {
                    if let Some(norms) = &norms {
                        rms_norm(head, &norms[which], self.config.rms_norm_eps);
                    }
                    angles[at].turn(head);
                }
            });
        }
        let ends = calls.iter().scan(0, |end, call| {
            *end += call.ids.len();
            Some(*end)
        });
        let ranges: Vec<_> = ends.zip(calls).map(|(end, call)| end - call.ids.len()..end).collect();
        // With what is cached, where there is a cache.
        let caches = caches.unwrap_or_default().into_iter().zip(&ranges).map(|(cache, range)| {
            for (cached, new) in cache.iter_mut().zip([&keys, &values]) {
                cached.extend(new.slice(s![range.clone(), ..]).iter());
            }
            &*cache
        });
        let caches: Vec<&[Vec<f64>; 2]> = caches.collect();
        let sequences = calls.iter().zip(&ranges).enumerate().map(|(at, (call, range))| {
            let cache = caches.get(at);
            Heads {
                queries: queries.slice(s![range.clone(), ..]),
                keys: within(&keys, range, cache.map(|cache| &cache[0])),
                values: within(&values, range, cache.map(|cache| &cache[1])),
                seen: &call.seen,
            }
        });
        let seen = attend(&sequences.collect::<Vec<_>>(), &self.config);
        let views: Vec<_> = seen.iter().map(|rows| rows.view()).collect();
        let seen = ndarray::concatenate(Axis(0), &views).expect("as many channels each");
        layer.out.apply(seen.view(), numbers)
    }

    /// (silu(x·Gᵀ) ∘ x·Uᵀ)·Dᵀ.
    fn mlp(&self, layer: &Layer, x: &Rows, numbers: Numbers) -> Rows {
        let x = self.norm(x, &layer.between, numbers);
        let mut gate = layer.gate.apply(x.view(), numbers);
        let up = layer.up.apply(x.view(), numbers);
        let up = up.as_slice().expect("rows stand one after another");
        by_rows(&mut gate, |at, row| {
            let up = &up[at * row.len()..][..row.len()];
            row.iter_mut().zip(up).for_each(|(gate, up)| *gate = silu(*gate) * up);
        });
        layer.down.apply(gate.view(), numbers)
    }
}

/// What a sequence may look at: what its cache holds, or without one its own rows.
fn within<'a>(
    new: &'a Rows,
    range: &std::ops::Range<usize>,
    cache: Option<&'a Vec<f64>>,
) -> ArrayView2<'a, f64> {
    match cache {
        None => new.slice(s![range.clone(), ..]),
        Some(cache) => {
            let channels = new.ncols();
            ArrayView2::from_shape((cache.len() / channels, channels), cache).expect("whole rows")
        }
    }
}

impl Cache {
    /// Of one layer.
    fn layer(&mut self, at: usize) -> &mut [Vec<f64>; 2] {
        if self.0.len() <= at {
            self.0.resize_with(at + 1, Default::default);
        }
        &mut self.0[at]
    }

    /// How many positions it holds.
    fn positions(&self, channels: usize) -> usize {
        self.0.first().map_or(0, |[keys, _]| keys.len() / channels)
    }
}

impl CausalInDouble for InDouble {
    fn vocabulary(&self) -> usize {
        self.config.vocab_size
    }

    fn channels(&self) -> usize {
        self.config.hidden_size
    }

    fn positions(&self) -> usize {
        self.config.max_position_embeddings
    }

    fn layers(&self) -> usize {
        self.config.layers
    }

    fn run(
        &self,
        sequences: &[Sequence],
        wanted: Wanted<'_>,
        numbers: Numbers,
        tick: Tick<'_>,
    ) -> Result<Vec<CausalAnswer>, Error> {
        if sequences.is_empty() {
            return Ok(Vec::new());
        }
        let calls: Vec<Call<'_>> = sequences
            .iter()
            .map(|s| Call { ids: &s.ids, positions: s.positions.clone(), seen: s.seen.clone() })
            .collect();
        let (x, kept) = self.states(&calls, None, wanted.layers, numbers, tick)?;
        let hidden = self.norm(&x, &self.norm, numbers);
        let (mut likeliest, mut panels) = (Vec::with_capacity(hidden.nrows()), Vec::new());
        for rows in hidden.axis_chunks_iter(Axis(0), PANEL) {
            let logits = self.head.apply(rows, numbers);
            likeliest.extend(logits.rows().into_iter().map(|row| argmax(row.iter().copied()) as i64));
            panels.extend(wanted.logits.then_some(logits));
        }
        tick()?;
        let mut from = 0;
        let answers = sequences.iter().map(|sequence| {
            let range = from..from + sequence.ids.len();
            from = range.end;
            let of = |rows: &Rows| rows.slice(s![range.clone(), ..]).to_owned();
            let row = |at: usize| panels[at / PANEL].row(at % PANEL);
            CausalAnswer {
                hidden: of(&hidden),
                logits: wanted.logits.then(|| {
                    let rows: Vec<_> = range.clone().map(row).collect();
                    match rows.is_empty() {
                        true => Rows::zeros((0, self.config.vocab_size)),
                        false => ndarray::stack(Axis(0), &rows).expect("as many logits each"),
                    }
                }),
                likeliest: likeliest[range.clone()].to_vec(),
                layers: kept.iter().map(of).collect(),
            }
        });
        Ok(answers.collect())
    }

    fn begin(&self, sequences: usize) -> Box<dyn Stepping + '_> {
        Box::new(Stepped { model: self, caches: vec![Cache::default(); sequences] })
    }
}

/// Sequences and what each has in its cache.
struct Stepped<'a> {
    model: &'a InDouble,
    caches: Vec<Cache>,
}

impl Stepping for Stepped<'_> {
    fn feed(&mut self, tokens: &[(usize, &[i64])]) -> Result<Vec<Next>, Error> {
        let model = self.model;
        let channels = model.config.kv_heads * model.config.head_dim;
        let mut caches: Vec<Cache> =
            tokens.iter().map(|&(at, _)| std::mem::take(&mut self.caches[at])).collect();
        let calls = tokens.iter().zip(&caches).map(|(&(_, ids), cache)| {
            let past = cache.positions(channels);
            let positions = (past as i64..).take(ids.len()).collect();
            Call { ids, positions, seen: vec![true; past + ids.len()] }
        });
        let calls: Vec<Call<'_>> = calls.collect();
        let (x, _) = model.states(&calls, Some(&mut caches), &[], Numbers::Exact, &mut || Ok(()))?;
        for (&(at, _), cache) in tokens.iter().zip(caches) {
            self.caches[at] = cache;
        }
        let ends = calls.iter().scan(0, |end, call| {
            *end += call.ids.len();
            Some(*end)
        });
        let last: Vec<usize> = ends.map(|end| end.saturating_sub(1)).collect();
        let hidden = model.norm(&x.select(Axis(0), &last), &model.norm, Numbers::Exact);
        let logits = model.head.apply(hidden.view(), Numbers::Exact);
        let rows = hidden.rows().into_iter().zip(logits.rows());
        Ok(rows
            .map(|(hidden, logits)| Next { hidden: hidden.to_vec(), logits: logits.to_vec() })
            .collect())
    }
}
