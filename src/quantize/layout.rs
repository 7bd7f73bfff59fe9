//! How weights are stored in 8 bits, and which weights are the same ones.

use super::scopes::{Constant, Step};
use crate::recipe::{Form, Terms};

/// Rows that share a scale. ONNX Runtime and tract take 16, 32 and 64 alike.
pub(super) const BLOCK: usize = 32;
/// Columns of a table that share a scale: 3 % of the table's bytes, and 2 dB at its rows.
pub(super) const GROUP: usize = 32;

/// How a weight is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Layout {
    Columns,
    /// In 7 bits.
    Narrow,
    Rows,
    Groups,
    Blocks8,
    Blocks4,
}

impl Layout {
    /// How a product's weight is stored.
    pub(super) fn of(form: Form, terms: Terms, reduce_range: bool) -> Self {
        match form {
            Form::Dynamic if reduce_range && terms == Terms::One => Layout::Narrow,
            Form::Static if reduce_range => Layout::Narrow,
            Form::Dynamic | Form::Static => Layout::Columns,
            Form::Blocks8 => Layout::Blocks8,
            Form::Blocks4 => Layout::Blocks4,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Layout::Columns => "columns",
            Layout::Narrow => "narrow",
            Layout::Rows => "rows",
            Layout::Groups => "groups",
            Layout::Blocks8 => "blocks_8",
            Layout::Blocks4 => "blocks_4",
        }
    }

    pub(super) fn is_blocks(self) -> bool {
        matches!(self, Layout::Blocks8 | Layout::Blocks4)
    }

    /// Bytes of a matrix's values, and of its scales.
    pub(super) fn bytes(self, [rows, columns]: [usize; 2]) -> [usize; 2] {
        let blocks = columns * rows.div_ceil(BLOCK);
        match self {
            Layout::Columns | Layout::Narrow => [rows * columns, 4 * columns],
            Layout::Groups if columns % GROUP == 0 => [rows * columns, 4 * rows * (columns / GROUP)],
            Layout::Rows | Layout::Groups => [rows * columns, 4 * rows],
            Layout::Blocks8 => [blocks * BLOCK, 4 * blocks],
            Layout::Blocks4 => [blocks * BLOCK / 2, 4 * blocks],
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
    pub(super) layout: Layout,
}

impl Key {
    pub(super) fn of(weight: &Constant<'_>, layout: Layout) -> Self {
        let (scope, root) = weight.root;
        Self { scope, root: root.to_owned(), steps: weight.steps(), layout }
    }
}
