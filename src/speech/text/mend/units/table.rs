//! Symbols of units, and what their neighbours say of them: tables in files beside this one.

use std::sync::LazyLock;

use super::super::{lines, rows};

/// Symbol, one, many.
pub(super) static UNITS: LazyLock<Vec<(&str, &str, &str)>> =
    LazyLock::new(|| rows(include_str!("units.txt")).map(<_>::from).collect());

macro_rules! words {
    ($file:literal) => {
        LazyLock::new(|| lines(include_str!($file)).flat_map(str::split_whitespace).collect())
    };
}

/// Symbols that are no words, with or without a number.
pub(super) static ALONE: LazyLock<Vec<&str>> = words!("alone.txt");
/// Things before which a measure is an adjective.
pub(super) static AFTER_MEASURE: LazyLock<Vec<&str>> = words!("after_measure.txt");
/// What is counted in millions, not measured in metres.
pub(super) static COUNTED: LazyLock<Vec<&str>> = words!("counted.txt");
