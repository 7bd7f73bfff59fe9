//! Integer products as float32 products that are exact.
//!
//! tract multiplies 8-bit integers one at a time, some hundred times slower than it multiplies floats. A product of
//! `a` in `0..=255` (less a zero point of that range) and a weight `w` is a whole number, and float32 adds whole numbers
//! without rounding as long as no partial sum exceeds 2^24, whatever the order. So the rows of the weight are taken in
//! runs of which `255 * sum |w|` is at most 2^24 in every column; the sums of the runs are added as int32. The answer is
//! the integer product's own, bit for bit.

use std::ops::Range;

use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::array::Slice;
use tract_onnx::tract_core::ops::cast::{cast, wire_cast};
use tract_onnx::tract_core::ops::change_axes::wire_with_rank_broadcast;
use tract_onnx::tract_core::ops::math::{add, sub};
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::ops::matmul::{MatMulInference, compute_shapes};

/// Whole numbers up to this one are exact in float32, and so are their sums below it.
const EXACT: u64 = 1 << 24;
/// The largest distance of an 8-bit activation from its zero point.
const FARTHEST: u64 = 255;
/// As many products of two 8-bit numbers, each at most 255 from its zero point, stay exact.
const TERMS: usize = (EXACT / (FARTHEST * FARTHEST)) as usize;

/// What `MatMulInteger` becomes in tract: its operator of ONNX's opset 10.
pub(super) fn mat_mul_integer(
    _: &tract_onnx::model::ParsingContext,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let mut given = tract_onnx::model::optional_inputs(node).skip(2);
    let (left_zero, right_zero) = (given.next().flatten(), given.next().flatten());
    Ok((expand(Product { left_zero, right_zero }), vec![]))
}

/// An integer product with the places of its zero points among the inputs.
#[derive(Debug, Clone, Hash, PartialEq, Eq)]
struct Product {
    left_zero: Option<usize>,
    right_zero: Option<usize>,
}

impl Expansion for Product {
    fn name(&self) -> StaticName {
        "MatMulInteger".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        let zeros = [self.left_zero, self.right_zero];
        check_input_arity(inputs, 2 + zeros.iter().flatten().count())?;
        check_output_arity(outputs, 1)?;
        solver.equals(&outputs[0].datum_type, i32::datum_type())?;
        for (side, zero) in zeros.into_iter().enumerate() {
            if let Some(zero) = zero {
                solver.equals(&inputs[zero].datum_type, &inputs[side].datum_type)?;
            }
        }
        solver.given_2(&inputs[0].shape, &inputs[1].shape, move |solver, left, right| {
            let (.., shape) = compute_shapes(left, right, false, false, false)?;
            solver.equals(&outputs[0].shape, shape)
        })
    }

    fn wire(
        &self,
        prefix: &str,
        target: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let wire = Wire { prefix, target };
        wire.product(inputs, self.left_zero.map(|at| inputs[at]), self.right_zero.map(|at| inputs[at]))
    }
}

/// Writes the nodes of one product.
struct Wire<'a> {
    prefix: &'a str,
    target: &'a mut TypedModel,
}

impl Wire<'_> {
    fn product(
        mut self,
        inputs: &[OutletId],
        left_zero: Option<OutletId>,
        right_zero: Option<OutletId>,
    ) -> TractResult<TVec<OutletId>> {
        let left = self.centred("left", inputs[0], left_zero, true)?;
        let right = self.centred("right", inputs[1], right_zero, false)?;
        let Ok(depth) = self.rows_of(right)?.to_usize() else {
            // Nothing is known of how many terms there are: the slow way is right for any number.
            return self.in_i32(left, right);
        };
        let runs = match self.target.outlet_fact(right)?.konst.clone() {
            Some(weight) => runs(&weight)?,
            None => (0..depth).step_by(TERMS).map(|at| at..(at + TERMS).min(depth)).collect(),
        };
        let mut sum: Option<OutletId> = None;
        for (at, run) in runs.iter().enumerate() {
            let whole = *run == (0..depth);
            let sides = match whole {
                true => [left, right],
                false => [
                    self.part(&format!("left.{at}"), (left, true), run)?,
                    self.part(&format!("right.{at}"), (right, false), run)?,
                ],
            };
            let prefix = format!("{}.{at}", self.prefix);
            let product = MatMulInference::default().wire(&prefix, self.target, &sides)?[0];
            let product = self.node(&format!("{at}.i32"), cast(i32::datum_type()), &[product])?;
            sum = Some(match sum {
                None => product,
                Some(before) => self.node(&format!("{at}.sum"), add(), &[before, product])?,
            });
        }
        match sum {
            Some(sum) => Ok(tvec!(sum)),
            None => self.in_i32(left, right),
        }
    }

    fn node(
        &mut self,
        name: &str,
        op: impl Into<Box<dyn TypedOp>>,
        inputs: &[OutletId],
    ) -> TractResult<OutletId> {
        Ok(self.target.wire_node(format!("{}.{name}", self.prefix), op, inputs)?[0])
    }

    /// A side in float32, less its zero point: one number, one for each row of the left or column of the right
    /// side, or a tensor that broadcasts.
    fn centred(
        &mut self,
        name: &str,
        side: OutletId,
        zero: Option<OutletId>,
        of_rows: bool,
    ) -> TractResult<OutletId> {
        let float = f32::datum_type();
        let prefix = format!("{}.{name}", self.prefix);
        let constant = self.constant(side)?;
        let side = match constant.clone() {
            Some(constant) => self.target.add_const(format!("{prefix}.f32"), constant)?,
            None => self.node(&format!("{name}.f32"), cast(float), &[side])?,
        };
        let Some(zero) = zero else { return Ok(side) };
        let fact = self.target.outlet_fact(zero)?.clone();
        let stands = of_rows && fact.rank() == 1 && !fact.shape.volume().is_one();
        if let (Some(constant), Some(zero)) = (constant, self.constant(zero)?) {
            let mut zero = zero.into_tensor();
            if stands {
                zero.insert_axis(1)?;
            }
            let (side, zero) =
                (constant.to_plain_array_view::<f32>()?, zero.to_plain_array_view::<f32>()?);
            let centred = Tensor::from(&side - &zero).into_arc_tensor();
            return self.target.add_const(format!("{prefix}.centred"), centred);
        }
        let mut zero = wire_cast(&prefix, self.target, &[zero], float)?[0];
        if stands {
            zero = self.node(&format!("{name}.rows"), AxisOp::Add(1), &[zero])?;
        }
        let centred =
            wire_with_rank_broadcast(format!("{prefix}.centred"), self.target, sub(), &[side, zero])?;
        Ok(centred[0])
    }

    /// A constant's value in float32.
    fn constant(&self, outlet: OutletId) -> TractResult<Option<Arc<Tensor>>> {
        let Some(constant) = &self.target.outlet_fact(outlet)?.konst else { return Ok(None) };
        Ok(Some(constant.cast_to_dt(f32::datum_type())?.into_owned().into_arc_tensor()))
    }

    /// How many terms each sum has.
    fn rows_of(&self, right: OutletId) -> TractResult<TDim> {
        let fact = self.target.outlet_fact(right)?;
        Ok(fact.shape[fact.rank().saturating_sub(2)].clone())
    }

    /// The columns of the left side, or rows of the right one, in a range.
    fn part(
        &mut self,
        name: &str,
        (side, is_left): (OutletId, bool),
        range: &Range<usize>,
    ) -> TractResult<OutletId> {
        let fact = self.target.outlet_fact(side)?.clone();
        let axis = fact.rank().saturating_sub(if is_left { 1 } else { 2 });
        if let Some(constant) = fact.konst {
            let part = constant.slice(axis, range.start, range.end)?.into_arc_tensor();
            return self.target.add_const(format!("{}.{name}", self.prefix), part);
        }
        self.node(name, Slice::new(axis, range.start, range.end), &[side])
    }

    fn in_i32(mut self, left: OutletId, right: OutletId) -> TractResult<TVec<OutletId>> {
        let whole = i32::datum_type();
        let left = self.node("left.i32", cast(whole), &[left])?;
        let right = self.node("right.i32", cast(whole), &[right])?;
        MatMulInference::default().wire(
            &format!("{}.product", self.prefix),
            self.target,
            &[left, right],
        )
    }
}

/// The longest runs of rows whose sums stay exact in every column of a weight, `[..., rows, columns]` of whole numbers
/// that are at most 255 apart from zero: one row is always exact.
fn runs(weight: &Tensor) -> TractResult<Vec<Range<usize>>> {
    let rank = weight.rank();
    let (rows, columns) = match rank {
        1 => (weight.len(), 1),
        _ => (weight.shape()[rank - 2], weight.shape()[rank - 1]),
    };
    let values = weight.view();
    let values = values.as_slice::<f32>()?;
    let matrix = rows * columns;
    let matrices = values.len().checked_div(matrix).unwrap_or(0);
    let row_of = |row: usize| {
        let parts = (0..matrices).flat_map(move |at| &values[at * matrix + row * columns..][..columns]);
        parts.map(|value| FARTHEST * value.abs() as u64)
    };
    // What a run comes to by then, in each column.
    let mut sums = vec![0_u64; matrices * columns];
    let (mut runs, mut start) = (Vec::new(), 0);
    for row in 0..rows {
        let largest = sums.iter_mut().zip(row_of(row)).fold(0, |largest, (sum, here)| {
            *sum += here;
            largest.max(*sum)
        });
        if largest > EXACT {
            runs.push(start..row);
            start = row;
            sums.iter_mut().zip(row_of(row)).for_each(|(sum, here)| *sum = here);
        }
    }
    if rows > start {
        runs.push(start..rows);
    }
    Ok(runs)
}
