//! A tensor as a checkpoint holds it: a strided view of mapped bytes, widened when it is asked for.

use bytes::Bytes;
use half::{bf16, f16};

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
        if needs > bytes.len() as u128 || shape.len() != strides.len() {
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
        self.shape.iter().product()
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
        match self.dtype {
            DType::F32 => Ok(self.gather(f32::from_le_bytes)),
            DType::F16 => Ok(self.gather(|bytes| f16::from_le_bytes(bytes).to_f32())),
            DType::BF16 => Ok(self.gather(|bytes| bf16::from_le_bytes(bytes).to_f32())),
            is => Err(Error::Type { is, needed: DType::F32 }),
        }
    }

    /// Little-endian f32, row-major: a part of the mapped bytes where they are that already.
    ///
    /// # Errors
    /// As [`Stored::to_f32`].
    pub fn to_f32_bytes(&self) -> Result<Bytes, Error> {
        if let (DType::F32, Some(bytes)) = (self.dtype, self.bytes()) {
            return Ok(bytes);
        }
        Ok(self.to_f32()?.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>().into())
    }

    /// Widened to f64, row-major.
    ///
    /// # Errors
    /// As [`Stored::to_f32`].
    pub fn to_f64(&self) -> Result<Vec<f64>, Error> {
        Ok(self.to_f32()?.into_iter().map(f64::from).collect())
    }

    /// Every element in row-major order.
    fn gather<const N: usize, T>(&self, read: impl Fn([u8; N]) -> T) -> Vec<T> {
        let count = self.len();
        if let Some(bytes) = self.bytes() {
            return bytes.as_chunks::<N>().0.iter().map(|&chunk| read(chunk)).collect();
        }
        let mut values = Vec::with_capacity(count);
        let (last, outer) = match self.shape.split_last() {
            Some((&last, outer)) => (last, outer),
            None => (1, &[][..]),
        };
        let stride = self.strides.last().copied().unwrap_or(0);
        let mut at = vec![0; outer.len()];
        while values.len() < count {
            let row: usize = at.iter().zip(&self.strides).map(|(at, stride)| at * stride).sum();
            values.extend((0..last).map(|i| {
                let from = (row + i * stride) * N;
                read(self.bytes[from..from + N].try_into().expect("as many bytes as an element has"))
            }));
            for axis in (0..outer.len()).rev() {
                at[axis] += 1;
                if at[axis] < outer[axis] {
                    break;
                }
                at[axis] = 0;
            }
        }
        values
    }
}

/// The strides of elements one after another, the last axis innermost.
fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1_usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis]);
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(matches!(halves().to_f32(), Ok(_)));
        let whole = Stored::row_major(DType::I64, vec![3], bytes()).unwrap();
        assert!(matches!(whole.to_f32(), Err(Error::Type { is: DType::I64, .. })));
    }
}
