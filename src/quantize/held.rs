//! The ways to hold a weight in 8 bits, and which weights are the same ones.

use super::scopes::{Constant, Step};
use crate::recipe::{Form, Terms};

/// Rows that share a scale. ONNX Runtime and tract take 16, 32 and 64 alike.
pub(super) const BLOCK: usize = 32;
/// Columns of a table that share a scale: 3 % of the table's bytes, and 2 dB at its rows.
pub(super) const GROUP: usize = 32;

/// How a weight is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Held {
    Columns,
    /// In 7 bits.
    Narrow,
    Rows,
    Groups,
    Blocks8,
    Blocks4,
}

impl Held {
    /// How a product's weight is held.
    pub(super) fn of(form: Form, terms: Terms, reduce_range: bool) -> Self {
        match form {
            Form::Dynamic if reduce_range && terms == Terms::One => Held::Narrow,
            Form::Static if reduce_range => Held::Narrow,
            Form::Dynamic | Form::Static => Held::Columns,
            Form::Blocks8 => Held::Blocks8,
            Form::Blocks4 => Held::Blocks4,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Held::Columns => "columns",
            Held::Narrow => "narrow",
            Held::Rows => "rows",
            Held::Groups => "groups",
            Held::Blocks8 => "blocks_8",
            Held::Blocks4 => "blocks_4",
        }
    }

    pub(super) fn is_blocks(self) -> bool {
        matches!(self, Held::Blocks8 | Held::Blocks4)
    }

    /// Bytes of a matrix's values, and of its scales.
    pub(super) fn bytes(self, [rows, columns]: [usize; 2]) -> [usize; 2] {
        let blocks = columns * rows.div_ceil(BLOCK);
        match self {
            Held::Columns | Held::Narrow => [rows * columns, 4 * columns],
            Held::Rows => [rows * columns, 4 * rows],
            Held::Groups if columns % GROUP == 0 => [rows * columns, 4 * rows * (columns / GROUP)],
            Held::Groups => [rows * columns, 4 * rows],
            Held::Blocks8 => [blocks * BLOCK, 4 * blocks],
            Held::Blocks4 => [blocks * BLOCK / 2, 4 * blocks],
        }
    }
}

/// The values of a weight in 8 bits: all that read the same data in the same way share them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    /// The graph of the value that holds the data.
    pub(super) scope: usize,
    root: String,
    /// What is done to the data first.
    steps: Vec<Step>,
    pub(super) held: Held,
}

impl Key {
    pub(super) fn of(weight: &Constant<'_>, held: Held) -> Self {
        let (scope, root) = weight.root;
        Self { scope, root: root.to_owned(), steps: weight.steps(), held }
    }
}
