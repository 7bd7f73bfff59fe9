//! Integer products in tract against sums of whole numbers.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use super::Tract;
use crate::ir::proto::tensor_proto::DataType;
use crate::ir::{Model, TestGraph, initializer_f32, initializer_raw, node};
use crate::runtime::{Runtime as _, Tensors};
use crate::tensor::Tensor;

/// One product: `[batch, rows, depth]` by `[depth, columns]`, or by `[batch, depth, columns]`.
#[derive(Clone, Copy, Debug)]
struct Case {
    batch: usize,
    rows: usize,
    depth: usize,
    columns: usize,
    stacked: bool,
    constant: bool,
    left_zero: Zero,
    right_zero: Zero,
    /// The smallest and largest weight.
    weights: (i32, i32),
}

/// A zero point: none, one, or one for each row or column.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Zero {
    None,
    One,
    Each,
}

const CASE: Case = Case {
    batch: 2,
    rows: 3,
    depth: 40,
    columns: 5,
    stacked: false,
    constant: true,
    left_zero: Zero::One,
    right_zero: Zero::None,
    weights: (-128, 127),
};

struct Numbers(ChaCha8Rng);

impl Numbers {
    /// Numbers of a range, its ends more often than the rest.
    fn draw(&mut self, count: usize, (least, most): (i32, i32)) -> Vec<i32> {
        let one = |_| match self.0.next_u32() % 4 {
            0 => least,
            1 => most,
            _ => least + (self.0.next_u32() % (most - least + 1) as u32) as i32,
        };
        (0..count).map(one).collect()
    }
}

fn floats(numbers: &[i32]) -> Vec<f32> {
    numbers.iter().map(|&n| n as f32).collect()
}

/// A side that stands in the file.
fn stored(
    graph: TestGraph,
    name: &str,
    shape: &[usize],
    numbers: &[i32],
    dtype: DataType,
) -> TestGraph {
    let bytes: Vec<u8> = numbers.iter().map(|&n| n as u8).collect();
    graph.initializer(initializer_raw(name, dtype, shape, bytes.into()))
}

/// A side that is given as floats and made integer.
fn given(graph: TestGraph, name: &str, dims: &[&str], dtype: DataType) -> TestGraph {
    let given = format!("{name}_given");
    graph.input(&given, dims).node(node("Cast", [&given], name).int("to", dtype as i64))
}

impl Case {
    fn run(self) -> (Vec<f32>, Vec<f32>) {
        let Case { batch, rows, depth, columns, stacked, .. } = self;
        let mut numbers = Numbers(ChaCha8Rng::seed_from_u64(depth as u64));
        let left = numbers.draw(batch * rows * depth, (0, 255));
        let right = numbers.draw(if stacked { batch } else { 1 } * depth * columns, self.weights);
        let zeros = |numbers: &mut Numbers, zero: Zero, each: usize, range| match zero {
            Zero::None => vec![],
            Zero::One => numbers.draw(1, range),
            Zero::Each => numbers.draw(each, range),
        };
        let left_zeros = zeros(&mut numbers, self.left_zero, rows, (0, 255));
        let right_zeros = zeros(&mut numbers, self.right_zero, columns, (-128, 127));
        let left_shape = [batch, rows, depth];
        let right_shape = if stacked { vec![batch, depth, columns] } else { vec![depth, columns] };
        let shape_of = |zero: Zero, each| if zero == Zero::Each { vec![each] } else { vec![] };

        let (unsigned, signed) = (DataType::Uint8, DataType::Int8);
        // A size is known beforehand where another input has it as a number.
        let size =
            |open: bool, name: &str, size: usize| if open { name.to_owned() } else { size.to_string() };
        let terms = size(stacked && !self.constant, "terms", depth);
        let open_rows = size(self.left_zero != Zero::Each, "rows", rows);
        let (batches, outputs) = (batch.to_string(), columns.to_string());
        let mut graph = given(TestGraph::new(), "left", &[&batches, &open_rows, &terms], unsigned);
        graph = match self.constant {
            true => stored(graph, "right", &right_shape, &right, signed),
            false if stacked => given(graph, "right", &[&batches, &terms, &outputs], signed),
            false => given(graph, "right", &[&terms, &outputs], signed),
        };
        let mut inputs = vec!["left", "right"];
        if self.left_zero != Zero::None || self.right_zero != Zero::None {
            inputs.push("left_zero");
            let zeros = if left_zeros.is_empty() { vec![0] } else { left_zeros.clone() };
            graph = stored(graph, "left_zero", &shape_of(self.left_zero, rows), &zeros, unsigned);
        }
        if self.right_zero != Zero::None {
            inputs.push("right_zero");
            let shape = shape_of(self.right_zero, columns);
            graph = stored(graph, "right_zero", &shape, &right_zeros, signed);
        }
        let model = graph
            .node(node("MatMulInteger", inputs, "product"))
            .node(node("Cast", ["product"], "y").int("to", DataType::Float as i64))
            .output("y", &["b", "m", "n"])
            .model();
        let mut feed: Tensors =
            [("left_given".into(), Tensor::from_f32(&left_shape, &floats(&left)))].into();
        if !self.constant {
            feed.insert("right_given".into(), Tensor::from_f32(&right_shape, &floats(&right)));
        }
        let got = answer(&model, &feed);

        let zero = |zeros: &[i32], at: usize| match zeros {
            [] => 0,
            [one] => *one,
            each => each[at],
        };
        let mut want = Vec::new();
        for b in 0..batch {
            for row in 0..rows {
                for column in 0..columns {
                    let term = |k: usize| {
                        let weight =
                            right[(if stacked { b * depth } else { 0 } + k) * columns + column];
                        let x = left[(b * rows + row) * depth + k];
                        (x - zero(&left_zeros, row)) * (weight - zero(&right_zeros, column))
                    };
                    want.push((0..depth).map(term).sum::<i32>());
                }
            }
        }
        // Seen as the caller does, in float32, which rounds past 2^24.
        (floats(&want), got)
    }
}

fn answer(model: &Model, feed: &Tensors) -> Vec<f32> {
    let session = Tract.load_bytes(&model.to_bytes()).unwrap();
    session.run(feed).unwrap()["y"].to_f32().unwrap()
}

#[test]
fn integer_products_are_exact() {
    let zeros = [Zero::None, Zero::One, Zero::Each];
    let mut cases = vec![CASE];
    // Around the number of terms that float32 can add, with weights that all are as large as can be.
    for depth in [1, 258, 259, 516, 517, 3000] {
        cases.extend([(-128, 127), (127, 128), (-1, 1)].map(|weights| Case { depth, weights, ..CASE }));
        cases.push(Case { depth, constant: false, ..CASE });
    }
    for (left_zero, right_zero) in zeros.iter().flat_map(|&l| zeros.map(|r| (l, r))) {
        for (constant, stacked) in [(false, false), (false, true), (true, false), (true, true)] {
            cases.push(Case { depth: 700, left_zero, right_zero, constant, stacked, ..CASE });
        }
    }
    cases.push(Case { rows: 1, batch: 1, depth: 600, ..CASE });
    cases.push(Case { rows: 1, batch: 1, columns: 1, left_zero: Zero::Each, ..CASE });
    for case in cases {
        // The range of int8 ends at 127.
        let case = if case.weights == (127, 128) { Case { weights: (126, 127), ..case } } else { case };
        let (want, got) = case.run();
        assert!(want == got, "{case:?}");
    }
}

/// The sums above are ones that a float32 product of all terms would get wrong.
#[test]
fn one_float_product_of_many_terms_is_not_exact() {
    let depth = 3000;
    let numbers: Vec<f32> = (0..depth).map(|at| 255.0 - (at % 2) as f32).collect();
    let model = TestGraph::new()
        .input("x", &["n", "k"])
        .initializer(initializer_f32("w", &[depth, 1], &vec![127.0; depth]))
        .node(node("MatMul", ["x", "w"], "y"))
        .output("y", &["n", "m"])
        .model();
    let feed: Tensors = [("x".to_owned(), Tensor::from_f32(&[1, depth], &numbers))].into();
    let exact: i64 = numbers.iter().map(|&x| x as i64 * 127).sum();
    assert_ne!(exact as f32 as i64, exact, "more than float32 can hold");
    assert_ne!(i64::from(answer(&model, &feed)[0] as i32), exact);
}
