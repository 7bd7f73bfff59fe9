//! Bounds of what a recipe may say.

use std::ops::RangeInclusive;

/// Below 13 there is no per-channel quantization, and above 20 not every runtime follows.
pub(super) const OPSET: RangeInclusive<u32> = 13..=20;
/// The inverse STFT needs two frames.
pub(super) const LENGTH: RangeInclusive<u32> = 2..=4096;
pub(super) const BATCH: RangeInclusive<u32> = 1..=64;
pub(super) const TIME_LIMIT: RangeInclusive<u64> = 1..=7 * 24 * 3600;
pub(super) const LOOSEST_MAX_ABS: f64 = 1e-4;
pub(super) const LOOSEST_LSD_DB: f64 = 1.0;
/// No float32 result reaches the upper end.
pub(super) const SNR_DB: RangeInclusive<f64> = 40.0..=200.0;
/// In tokens; beyond it a reference would be larger than the model.
pub(super) const PREFILL: RangeInclusive<u32> = 1..=1024;
pub(super) const PADDED_BATCH: RangeInclusive<u32> = 2..=64;
/// Fewer would not show an error that grows.
pub(super) const STEPS: RangeInclusive<u32> = 8..=512;
pub(super) const LOOSEST_HIDDEN_ERROR: f64 = 1e-3;
pub(super) const LEAST_HIDDEN_SNR_DB: f64 = 60.0;
/// Below it an int8 file is noise, not a coarser version.
pub(super) const LEAST_INT8_SNR_DB: f64 = 12.0;
pub(super) const LEAST_AGREEMENT: f64 = 0.99;
pub(super) const MOST_GROWTH: f64 = 4.0;
pub(super) const MOST_LAYERS: u32 = 1023;
/// From less than a telephone's to four times a studio's.
pub(crate) const SAMPLE_RATE: RangeInclusive<u32> = 1000..=768_000;
/// Keys and values a recipe may hold, aliases written out; the longest sensible one has about 200.
pub(super) const MOST_VALUES: u32 = 4096;
