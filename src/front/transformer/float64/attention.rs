//! Grouped-query attention (Ainslie et al. 2023, GQA, section 2.2).

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, s};
use rayon::prelude::*;

use super::super::Config;
use crate::front::float64::{Rows, softmax};

/// The queries of one sequence, and all that they may look at.
pub(super) struct Heads<'a> {
    /// [tokens, heads · size].
    pub(super) queries: ArrayView2<'a, f64>,
    /// [positions, kv_heads · size]: those of the cache, then those of the tokens.
    pub(super) keys: ArrayView2<'a, f64>,
    /// As the keys.
    pub(super) values: ArrayView2<'a, f64>,
    /// Of each position whether it is seen at all.
    pub(super) seen: &'a [bool],
}

/// softmax(q·kᵀ / √d)·v of each head (Vaswani et al. 2017, Attention Is All You Need, eq. 1), [tokens, heads · size] a
/// sequence. A query sees positions up to its own that are not padding. One that sees none, being padding itself, sees
/// all of them alike: what `transformers` computes, whose mask adds the least float to every score.
pub(super) fn attend(sequences: &[Heads<'_>], config: &Config) -> Vec<Rows> {
    let jobs: Vec<(&Heads<'_>, usize)> =
        sequences.iter().flat_map(|heads| (0..config.heads).map(move |head| (heads, head))).collect();
    let few = if sequences.iter().all(|heads| heads.queries.nrows() == 1) { usize::MAX } else { 1 };
    let one = |&(heads, head): &(&Heads<'_>, usize)| one(heads, head, config);
    let seen: Vec<Rows> = jobs.par_iter().with_min_len(few).map(one).collect();
    seen.chunks(config.heads.max(1))
        .map(|heads| {
            let views: Vec<ArrayView2<'_, f64>> = heads.iter().map(|head| head.view()).collect();
            ndarray::concatenate(ndarray::Axis(1), &views).expect("as many rows each")
        })
        .collect()
}

/// One head.
fn one(heads: &Heads<'_>, head: usize, config: &Config) -> Rows {
    let size = config.head_dim;
    let shared = head / (config.heads / config.kv_heads);
    let (from, kv) = (head * size, shared * size);
    let queries = heads.queries.slice(s![.., from..from + size]);
    let keys = heads.keys.slice(s![.., kv..kv + size]);
    let values = heads.values.slice(s![.., kv..kv + size]);
    let (tokens, positions) = (queries.nrows(), keys.nrows());
    let past = positions - tokens;
    let mut scores = Rows::zeros((tokens, positions));
    general_mat_mul(1.0 / (size as f64).sqrt(), &queries, &keys.t(), 0.0, &mut scores);
    for (at, mut row) in scores.rows_mut().into_iter().enumerate() {
        let is_seen = |position: usize| position <= past + at && heads.seen[position];
        let sees_any = (0..positions).any(is_seen);
        for (position, score) in row.iter_mut().enumerate() {
            match (sees_any, is_seen(position)) {
                (false, _) => *score = 0.0,
                (true, false) => *score = f64::NEG_INFINITY,
                (true, true) => {}
            }
        }
        softmax(row.as_slice_mut().expect("rows stand one after another"));
    }
    let mut seen = Rows::zeros((tokens, size));
    general_mat_mul(1.0, &scores, &values, 0.0, &mut seen);
    seen
}
