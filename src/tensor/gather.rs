//! Strided elements in row-major order, at the speed of memory: rows where they lie in rows, tiles where they don't, and
//! on every core.

use rayon::prelude::*;

/// Elements that one core takes at a time.
pub(super) const PART: usize = 1 << 16;
/// Sides of a tile of what is turned: along the axis whose elements lie together, and along the last one. A cache line
/// that was read is used up before the next tile, and 16 lines of any stride fit into every first-level cache.
const TILE: (usize, usize) = (64, 16);

/// Axes of a view: sizes and strides in elements, outermost first. None has size 1; neighbours that can be walked as one
/// are one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Axes(Vec<(usize, usize)>);

impl Axes {
    /// Those of a view in the order in which its elements are wanted: sizes and strides, outermost first.
    pub fn new(view: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let mut axes: Vec<(usize, usize)> = Vec::new();
        for (size, stride) in view.into_iter().filter(|&(size, _)| size != 1) {
            match axes.last_mut() {
                _ if size == 0 => return Self(vec![(0, 1)]),
                Some(outer) if stride.checked_mul(size) == Some(outer.1) => {
                    *outer = (outer.0.saturating_mul(size), stride);
                }
                _ => axes.push((size, stride)),
            }
        }
        Self(axes)
    }

    /// Those of the same elements in the order in which they lie.
    pub fn as_they_lie(mut view: Vec<(usize, usize)>) -> Self {
        view.sort_by_key(|&(_, stride)| std::cmp::Reverse(stride));
        Self::new(view)
    }

    /// How many elements lie one after another, where all do.
    pub fn run(&self) -> Option<usize> {
        match self.0.as_slice() {
            [] => Some(1),
            &[(size, 1)] => Some(size),
            _ => None,
        }
    }

    /// How many elements there are.
    pub fn count(&self) -> usize {
        self.0.iter().map(|&(size, _)| size).product()
    }

    /// Calls `row` with each innermost run of elements, wherever it starts: its elements, and the stride between them.
    /// No axis has stride 0.
    pub fn rows<E>(&self, elements: &[E], row: &mut impl FnMut(&[E], usize)) {
        walk(&self.0, elements, row);
    }
}

fn walk<E>(axes: &[(usize, usize)], elements: &[E], row: &mut impl FnMut(&[E], usize)) {
    match *axes {
        [] => row(&elements[..1], 1),
        [(size, stride)] => row(&elements[..size.saturating_sub(1) * stride + size.min(1)], stride),
        [(size, stride), ref inner @ ..] => {
            (0..size).for_each(|at| walk(inner, &elements[at * stride..], row));
        }
    }
}

/// Every element, row-major, each as `read` has it.
pub(super) fn gather<E: Sync, T: Clone + Default + Send>(
    axes: &Axes,
    elements: &[E],
    read: impl Fn(&E) -> T + Sync,
) -> Vec<T> {
    let mut values = vec![T::default(); axes.count()];
    if values.is_empty() {
        return values;
    }
    if values.len() <= PART {
        fill(&axes.0, elements, &mut values, &read);
        return values;
    }
    if let Some(run) = axes.run() {
        let parts = values.par_chunks_mut(PART).zip(elements[..run].par_chunks(PART));
        parts.for_each(|(values, elements)| spread(elements, 1, values, &read));
        return values;
    }
    let &[(size, stride), ref inner @ ..] = axes.0.as_slice() else { return values };
    let each = values.len() / size;
    // Whole tiles, and about as many elements as a core takes at a time.
    let together = (PART / each).max(1).next_multiple_of(TILE.0).min(size);
    values.par_chunks_mut(together * each).enumerate().for_each(|(part, values)| {
        let mut axes = vec![(values.len() / each, stride)];
        axes.extend(inner);
        fill(&axes, &elements[part * together * stride..], values, &read);
    });
    values
}

/// One core's part: walks all axes but two, and turns those in tiles.
fn fill<E, T>(axes: &[(usize, usize)], elements: &[E], values: &mut [T], read: &impl Fn(&E) -> T) {
    match *axes {
        [] => values.iter_mut().zip(elements).for_each(|(value, element)| *value = read(element)),
        [(_, stride)] => spread(elements, stride, values, read),
        [(_, outer), (columns, stride)] if outer < stride => {
            tiles(elements, outer, stride, values, columns, read);
        }
        [(size, stride), ref inner @ ..] => {
            let each = values.len() / size.max(1);
            for (at, values) in values.chunks_mut(each.max(1)).enumerate() {
                fill(inner, &elements[at * stride..], values, read);
            }
        }
    }
}

/// Elements that lie apart.
fn spread<E, T>(elements: &[E], stride: usize, values: &mut [T], read: &impl Fn(&E) -> T) {
    match stride {
        0 => values.iter_mut().for_each(|value| *value = read(&elements[0])),
        1 => values.iter_mut().zip(elements).for_each(|(value, element)| *value = read(element)),
        stride => {
            let elements = elements.iter().step_by(stride);
            values.iter_mut().zip(elements).for_each(|(value, element)| *value = read(element));
        }
    }
}

/// Rows whose elements lie farther apart than the rows themselves: read a tile at a time.
fn tiles<E, T>(
    elements: &[E],
    outer: usize,
    stride: usize,
    values: &mut [T],
    columns: usize,
    read: &impl Fn(&E) -> T,
) {
    let rows = values.len() / columns;
    for top in (0..rows).step_by(TILE.0) {
        for left in (0..columns).step_by(TILE.1) {
            let right = (left + TILE.1).min(columns);
            for row in top..(top + TILE.0).min(rows) {
                let elements = &elements[row * outer + left * stride..];
                spread(
                    elements,
                    stride,
                    &mut values[row * columns + left..row * columns + right],
                    read,
                );
            }
        }
    }
}
