//! A tensor as a checkpoint holds it: a strided view of mapped bytes, widened when it is asked for.

use bytes::Bytes;
use rayon::prelude::*;

use super::gather::{Axes, PART, gather};
use super::{DType, Error};

/// Numbers where they lie, usually in a mapped file: nothing is read or copied until values are asked for.
#[derive(Clone, Debug)]
pub struct Stored {
    dtype: DType,
    shape: Vec<usize>,
    /// Elements from one place to the next along each axis.
    strides: Vec<usize>,
    /// From the first element on.
    bytes: Bytes,
}

impl Stored {
    /// A view of `bytes` whose first element is the tensor's first; `strides` in elements, one an axis.
    ///
    /// # Errors
    /// [`Error::Length`] where an element would lie past the end.
    pub fn new(
        dtype: DType,
        shape: Vec<usize>,
        strides: Vec<usize>,
        bytes: Bytes,
    ) -> Result<Self, Error> {
        // The place after the last element; none of an empty tensor.
        let past = match shape.contains(&0) {
            true => 0,
            false => shape.iter().zip(&strides).fold(1_u128, |past, (&size, &stride)| {
                past.saturating_add((size as u128 - 1).saturating_mul(stride as u128))
            }),
        };
        let needs = past.saturating_mul(dtype.size() as u128);
        if needs > bytes.len() as u128 || shape.len() != strides.len() || count(&shape).is_none() {
            return Err(Error::Length { shape, dtype, needs, has: bytes.len() });
        }
        Ok(Self { dtype, shape, strides, bytes })
    }

    /// Elements one after another, the last axis innermost.
    ///
    /// # Errors
    /// As [`Stored::new`].
    pub fn row_major(dtype: DType, shape: Vec<usize>, bytes: Bytes) -> Result<Self, Error> {
        let strides = row_major(&shape);
        Self::new(dtype, shape, strides, bytes)
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Dimensions, outermost first; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// How many elements it has.
    pub fn len(&self) -> usize {
        count(&self.shape).unwrap_or_default()
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The mapped bytes, where they are the row-major ones.
    pub fn bytes(&self) -> Option<Bytes> {
        let is_plain = self.shape.iter().zip(row_major(&self.shape)).zip(&self.strides);
        let is_plain =
            is_plain.into_iter().all(|((&size, plain), &stride)| size <= 1 || plain == stride);
        is_plain.then(|| self.bytes.slice(..self.len() * self.dtype.size()))
    }

    /// The same values with the axes in another order; nothing moves.
    ///
    /// # Panics
    /// Where `order` is not one of all axes: a fault of the caller, never of a file.
    pub fn transposed(&self, order: &[usize]) -> Self {
        assert_eq!(order.len(), self.shape.len(), "an order of every axis");
        Self {
            dtype: self.dtype,
            shape: order.iter().map(|&axis| self.shape[axis]).collect(),
            strides: order.iter().map(|&axis| self.strides[axis]).collect(),
            bytes: self.bytes.clone(),
        }
    }

    /// Widened to f32, row-major.
    ///
    /// # Errors
    /// [`Error::Type`] where it isn't f32, f16 or bf16.
    pub fn to_f32(&self) -> Result<Vec<f32>, Error> {
        self.widened(|value| value)
    }

    /// Widened to little-endian f32, row-major: a part of the mapped bytes where they are that already.
    ///
    /// # Errors
    /// As [`Stored::to_f32`].
    pub fn to_f32_bytes(&self) -> Result<Bytes, Error> {
        match self.bytes() {
            Some(bytes) if self.dtype == DType::F32 => Ok(bytes),
            _ => Ok(self.widened(f32::to_le_bytes)?.into_flattened().into()),
        }
    }

    /// Widened to f64, row-major.
    ///
    /// # Errors
    /// As [`Stored::to_f32`].
    pub fn to_f64(&self) -> Result<Vec<f64>, Error> {
        self.widened(f64::from)
    }

    /// How many elements are NaN or infinite.
    ///
    /// # Errors
    /// As [`Stored::to_f32`].
    pub fn count_not_finite(&self) -> Result<usize, Error> {
        match self.dtype {
            DType::F32 => Ok(self.count(not_finite_32)),
            DType::F16 => Ok(self.count(|elements| not_finite_16(elements, 0x7c00))),
            DType::BF16 => Ok(self.count(|elements| not_finite_16(elements, 0x7f80))),
            is => Err(Error::Type { is, needed: DType::F32 }),
        }
    }

    /// Every element in row-major order, widened to f32 and then as `wide` has it.
    fn widened<T: Clone + Default + Send>(
        &self,
        wide: impl Fn(f32) -> T + Sync,
    ) -> Result<Vec<T>, Error> {
        let view = self.shape.iter().copied().zip(self.strides.iter().copied());
        let axes = Axes::new(view);
        match self.dtype {
            DType::F32 => {
                Ok(gather(&axes, self.bytes.as_chunks().0, |&of| wide(f32::from_le_bytes(of))))
            }
            DType::F16 => Ok(gather(&axes, self.bytes.as_chunks().0, |&of| wide(of_half(of)))),
            DType::BF16 => Ok(gather(&axes, self.bytes.as_chunks().0, |&of| wide(of_bfloat(of)))),
            is => Err(Error::Type { is, needed: DType::F32 }),
        }
    }

    /// The sum of what `tally` says of runs of elements, in whichever order they lie.
    fn count<const N: usize>(&self, tally: impl Fn(&[[u8; N]]) -> usize + Send + Sync) -> usize {
        let elements: &[[u8; N]] = self.bytes.as_chunks().0;
        if self.is_empty() {
            return 0;
        }
        // Along axes of stride 0 each element is there again.
        let axes = self.shape.iter().copied().zip(self.strides.iter().copied());
        let (again, apart): (Vec<_>, Vec<_>) = axes.partition(|&(_, stride)| stride == 0);
        let again: usize = again.into_iter().map(|(size, _)| size).product();
        let axes = Axes::as_they_lie(apart);
        if let Some(run) = axes.run().filter(|&run| run > PART) {
            return again * elements[..run].par_chunks(PART).map(tally).sum::<usize>();
        }
        let mut count = 0;
        axes.rows(elements, &mut |row, stride| {
            count += match stride {
                1 => tally(row),
                _ => row.iter().step_by(stride).map(|one| tally(std::slice::from_ref(one))).sum(),
            }
        });
        again * count
    }
}

/// An IEEE 754 binary16: its exponent is rebased by multiplying with 2¹¹², which is exact.
fn of_half(bytes: [u8; 2]) -> f32 {
    let bits = u32::from(u16::from_le_bytes(bytes));
    let (sign, size) = ((bits & 0x8000) << 16, (bits & 0x7fff) << 13);
    let finite = (f32::from_bits(size) * f32::from_bits((127 + 112) << 23)).to_bits();
    f32::from_bits(sign | if bits & 0x7c00 == 0x7c00 { size | 0x7f80_0000 } else { finite })
}

/// The upper half of a binary32.
fn of_bfloat(bytes: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
}

/// Elements whose exponent is all ones, at the places that `mask` has.
fn not_finite_16(elements: &[[u8; 2]], mask: u16) -> usize {
    // Counted in 16 bits, which wide registers have many of.
    let of = |part: &[[u8; 2]]| {
        let is = |&bytes: &[u8; 2]| u16::from(u16::from_le_bytes(bytes) & mask == mask);
        part.iter().fold(0_u16, |count, element| count.wrapping_add(is(element)))
    };
    elements.chunks(1 << 12).map(|part| usize::from(of(part))).sum()
}

fn not_finite_32(elements: &[[u8; 4]]) -> usize {
    let is = |&bytes: &[u8; 4]| u32::from(u32::from_le_bytes(bytes) & 0x7f80_0000 == 0x7f80_0000);
    let of =
        |part: &[[u8; 4]]| part.iter().fold(0_u32, |count, element| count.wrapping_add(is(element)));
    elements.chunks(1 << 12).map(|part| of(part) as usize).sum()
}

/// How many elements a shape has, where they can be counted.
fn count(shape: &[usize]) -> Option<usize> {
    match shape.contains(&0) {
        true => Some(0),
        false => shape.iter().try_fold(1_usize, |count, &size| count.checked_mul(size)),
    }
}

/// The strides of elements one after another, the last axis innermost.
pub(crate) fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1_usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis]);
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    fn halves() -> Stored {
        let values: Vec<u8> =
            (0..6).flat_map(|i| bf16::from_f32(i as f32 / 2.0).to_le_bytes()).collect();
        Stored::row_major(DType::BF16, vec![2, 3], values.into()).unwrap()
    }

    #[test]
    fn values_are_widened_in_row_major_order() {
        assert_eq!(halves().to_f32().unwrap(), [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]);
        let turned = halves().transposed(&[1, 0]);
        assert_eq!(turned.shape(), [3, 2]);
        assert_eq!(turned.to_f64().unwrap(), [0.0, 1.5, 0.5, 2.0, 1.0, 2.5]);
        assert!(turned.bytes().is_none() && halves().bytes().is_some());
    }

    #[test]
    fn a_view_past_the_end_is_refused() {
        let bytes = || Bytes::from(vec![0; 24]);
        let view = |shape: &[usize], strides: &[usize]| {
            Stored::new(DType::F32, shape.to_vec(), strides.to_vec(), bytes())
        };
        // A row that is read again and again is a row of six.
        assert_eq!(view(&[9, 6], &[0, 1]).unwrap().len(), 54);
        assert!(view(&[2, 3], &[3, 1]).is_ok() && view(&[0, 9], &[9, 9]).is_ok());
        for (shape, strides) in
            [(&[7][..], &[1][..]), (&[2, 2], &[5, 1]), (&[2], &[usize::MAX]), (&[2, 3], &[3])]
        {
            assert!(matches!(view(shape, strides), Err(Error::Length { .. })), "{shape:?}");
        }
        assert!(halves().to_f32().is_ok());
        let whole = Stored::row_major(DType::I64, vec![3], bytes()).unwrap();
        assert!(matches!(whole.to_f32(), Err(Error::Type { is: DType::I64, .. })));
    }

    /// Every element by its place, one after another.
    fn plainly(stored: &Stored) -> Vec<f32> {
        let size = stored.dtype.size();
        let read = |at: usize| match stored.bytes.get(at * size..(at + 1) * size) {
            Some(&[a, b]) if stored.dtype == DType::F16 => f16::from_le_bytes([a, b]).to_f32(),
            Some(&[a, b]) => bf16::from_le_bytes([a, b]).to_f32(),
            Some(&[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
            other => panic!("{other:?}"),
        };
        let mut places = vec![0];
        for (&size, &stride) in stored.shape.iter().zip(&stored.strides) {
            places = places.iter().flat_map(|at| (0..size).map(move |i| at + i * stride)).collect();
        }
        places.into_iter().map(read).collect()
    }

    /// That every way of reading has the values of the plain one, bit by bit.
    fn agrees(stored: &Stored) {
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let expected = plainly(stored);
        let what = format!("{:?} {:?} by {:?}", stored.dtype, stored.shape, stored.strides);
        // A signalling NaN may be quiet after any arithmetic, and is none here.
        let values = stored.to_f32().unwrap();
        assert_eq!(bits(&values), bits(&expected), "{what}");
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(stored.to_f32_bytes().unwrap(), bytes, "{what}");
        let wide = stored.to_f64().unwrap();
        assert!(
            wide.iter().zip(&expected).all(|(w, e)| w.to_bits() == f64::from(*e).to_bits()),
            "{what}"
        );
        let infinite = expected.iter().filter(|value| !value.is_finite()).count();
        assert_eq!(stored.count_not_finite().unwrap(), infinite, "{what}");
    }

    /// Bytes that are any numbers but signalling NaNs, with some infinities.
    fn noise(dtype: DType, count: usize) -> Bytes {
        let mut bytes = Vec::with_capacity(count * dtype.size());
        for i in 0..count as u32 {
            let value = match i % 97 {
                13 => f32::INFINITY,
                29 => f32::NAN,
                _ => f32::from_bits(i.wrapping_mul(2_654_435_761) & 0xbfff_ffff),
            };
            match dtype {
                DType::F16 => bytes.extend(f16::from_f32(value).to_le_bytes()),
                DType::BF16 => bytes.extend(bf16::from_f32(value).to_le_bytes()),
                _ => bytes.extend(value.to_le_bytes()),
            }
        }
        bytes.into()
    }

    const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]
        #[test]
        fn any_view_is_read_as_element_by_element(
            axes in proptest::collection::vec((0_usize..8, 0_usize..40), 0..5),
            dtype in 0_usize..3,
            misaligned in 0_usize..2,
        ) {
            let (shape, strides): (Vec<_>, Vec<_>) = axes.into_iter().unzip();
            let bytes = noise(FLOATS[dtype], 8 * 40 * 5);
            let bytes = match misaligned {
                0 => bytes,
                _ => Bytes::from([&[7][..], &bytes].concat()).slice(1..),
            };
            agrees(&Stored::new(FLOATS[dtype], shape, strides, bytes).unwrap());
        }
    }

    #[test]
    fn what_is_large_enough_for_every_core_is_read_alike() {
        for dtype in FLOATS {
            for shape in
                [vec![300, 401], vec![401, 300], vec![61, 40, 70], vec![3, 70_001], vec![70_001, 3]]
            {
                let count: usize = shape.iter().product();
                let stored = Stored::row_major(dtype, shape.clone(), noise(dtype, count)).unwrap();
                agrees(&stored);
                let turned: Vec<usize> = (0..shape.len()).rev().collect();
                agrees(&stored.transposed(&turned));
                if shape.len() == 3 {
                    for order in [[1, 0, 2], [0, 2, 1], [1, 2, 0], [2, 0, 1]] {
                        agrees(&stored.transposed(&order));
                    }
                }
            }
            // Every third column, and one row many times.
            let bytes = noise(dtype, 300 * 402);
            agrees(&Stored::new(dtype, vec![300, 134], vec![402, 3], bytes.clone()).unwrap());
            agrees(&Stored::new(dtype, vec![300, 402], vec![0, 1], bytes.clone()).unwrap());
            agrees(&Stored::new(dtype, vec![402, 300], vec![1, 0], bytes).unwrap());
        }
    }

    #[test]
    fn every_half_is_widened_exactly() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (of_half(bits.to_le_bytes()), f16::from_bits(bits).to_f32());
            assert!(
                ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()),
                "{bits:#x}"
            );
            let (ours, theirs) = (of_bfloat(bits.to_le_bytes()), bf16::from_bits(bits).to_f32());
            assert!(
                ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()),
                "{bits:#x}"
            );
        }
    }

    #[test]
    fn shapes_that_overflow_are_refused_or_empty() {
        let far = 1 << 40;
        let view = |shape: &[usize]| {
            Stored::new(DType::F32, shape.to_vec(), vec![0; shape.len()], Bytes::from_static(&[0; 4]))
        };
        assert!(matches!(view(&[far, far]), Err(Error::Length { .. })));
        assert_eq!(view(&[3, 2]).unwrap().to_f32().unwrap(), [0.0; 6]);
        let empty = view(&[far, far, 0]).unwrap();
        assert!(
            empty.is_empty()
                && empty.to_f32().unwrap().is_empty()
                && empty.count_not_finite().unwrap() == 0
        );
        assert_eq!(empty.bytes().unwrap().len(), 0);
    }

    #[test]
    fn bytes_of_f32_are_not_copied_and_others_are() {
        let bytes = noise(DType::F32, 6);
        let stored = Stored::row_major(DType::F32, vec![2, 3], bytes.clone()).unwrap();
        assert_eq!(stored.to_f32_bytes().unwrap().as_ptr(), bytes.as_ptr());
        assert_ne!(stored.transposed(&[1, 0]).to_f32_bytes().unwrap().as_ptr(), bytes.as_ptr());
        let integers = Stored::row_major(DType::I32, vec![6], bytes).unwrap();
        for error in [integers.to_f32_bytes().unwrap_err(), integers.count_not_finite().unwrap_err()] {
            assert!(matches!(error, Error::Type { is: DType::I32, .. }), "{error}");
        }
    }
}
