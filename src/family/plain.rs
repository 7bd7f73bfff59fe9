//! Any causal language model in `transformers`' layout, and any module that turns frames into samples.

mod seeded;

use super::Family;
use super::soprano::{COMPANIONS, LANGUAGE_MODEL};
use crate::front::transformer::Transformer;
use crate::recipe::Shape;

/// Models that no other family knows.
pub const FAMILY: Family = Family {
    shape: Shape { family: "plain", graphs: &[] },
    environment: "soprano",
    companions: COMPANIONS,
    causal_weights: LANGUAGE_MODEL,
    voice: &[],
    fronts: &[],
    text: None,
    causal_front: Some(&Transformer { stop: None }),
    speaker: None,
    usual_sound: None,
    built_in: &[],
    synthesize: Some(seeded::synthesize),
    recipes: &[],
    tags: &[],
};
