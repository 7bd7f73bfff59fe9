//! Weights in 8 bits or fewer, in whatever form.

use bytes::Bytes;

use super::blocks::Blocks;
use super::columns::Columns;
use super::layout::Layout;
use crate::ir::proto::tensor_proto::DataType;
use crate::ir::{TensorProto, initializer_f32, initializer_raw};

/// A weight in 8 bits or fewer.
pub(super) enum Weight {
    Columns(Columns),
    Blocks(Blocks),
}

impl Weight {
    /// Nothing where a value is not finite.
    pub(super) fn of(tensor: &TensorProto, layout: Layout) -> Option<Self> {
        match layout {
            Layout::Columns => Columns::per_column(tensor, false).map(Weight::Columns),
            Layout::Narrow => Columns::per_column(tensor, true).map(Weight::Columns),
            Layout::Rows => Columns::per_row(tensor, false).map(Weight::Columns),
            Layout::Groups => Columns::per_row(tensor, true).map(Weight::Columns),
            Layout::Blocks8 => Blocks::of(tensor, 8).map(Weight::Blocks),
            Layout::Blocks4 => Blocks::of(tensor, 4).map(Weight::Blocks),
        }
    }

    /// Its whole numbers, as an initializer of this name.
    pub(super) fn values(&self, name: &str) -> TensorProto {
        match self {
            Weight::Columns(columns) => {
                let bytes = Bytes::from(columns.values.clone());
                initializer_raw(name, DataType::Int8, &columns.shape, bytes)
            }
            Weight::Blocks(blocks) => blocks.values(name),
        }
    }

    /// Its scales times a factor, as an initializer of this name.
    pub(super) fn scales(&self, name: &str, factor: f32) -> TensorProto {
        match self {
            Weight::Columns(columns) => {
                let scales: Vec<f32> = columns.scales.iter().map(|scale| scale * factor).collect();
                initializer_f32(name, &columns.scale_shape, &scales)
            }
            Weight::Blocks(blocks) => blocks.scales(name, factor),
        }
    }
}
