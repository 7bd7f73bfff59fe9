//! The inverse short-time Fourier transform in standard operators.
//!
//! With N = n_fft, H = hop, F = N/2 + 1 bins and T frames, `torch.istft(center=True)` is
//!
//! ```text
//! x_t[n] = w[n]/N Σ_k c_k (Re_t[k] cos 2πkn/N − Im_t[k] sin 2πkn/N),   c_k = 1 at DC and Nyquist, else 2
//! y[m]   = Σ_t x_t[m − tH] / Σ_t w²[m − tH],                           N/2 ≤ m < N/2 + H(T − 1)
//! ```
//!
//! Cosines are even and sines odd about n = N/2: with C and S the two sums over n = 0…N/2 alone,
//! x[n] = C[n] − S[n] and x[N−n] = C[n] + S[n]. Two products of F × F thus do the work of two of
//! F × N, at half the weights (T. Parsons, *Voice and Speech Processing*, on real transforms; any
//! text on the DFT of real signals). The window is folded into the bases.

use std::f64::consts::TAU;

use crate::ir::{NodeBuilder, TensorProto, initializer_f32, initializer_i64, node};

/// What no vocoder comes near; beyond it the bases take gigabytes, and the sum thousands of nodes.
pub(crate) const LARGEST_N_FFT: usize = 8192;
const MOST_OVERLAP: usize = 256;
const TO_THE_END: i64 = i64::MAX;
/// torch.istft refuses an envelope below this.
const LEAST_ENVELOPE: f64 = 1e-11;

/// A graph that takes nodes and constants.
pub(crate) trait Grow {
    /// A name that no value has: `base`, or that with a number.
    fn fresh(&mut self, base: &str) -> String;

    /// Adds a constant, and gives its name: `base`, that with a number, or that of an equal one.
    fn constant(&mut self, base: &str, tensor: TensorProto) -> String;

    /// Adds a node.
    fn node(&mut self, node: NodeBuilder);
}

/// A transform that standard operators can express.
#[derive(Clone, Debug)]
pub(crate) struct InverseStft {
    n_fft: usize,
    hop: usize,
    /// The window, centred in `n_fft`.
    window: Vec<f64>,
    zero_edges: bool,
    scale: f64,
}

impl InverseStft {
    /// A centred transform; `zero_edges` takes the first and the last bin as zero, `normalized` scales by √N, not N.
    ///
    /// # Errors
    /// A sentence, where sizes are none of a transform, or where the windows leave a gap.
    pub(crate) fn new(
        n_fft: usize,
        hop: usize,
        window: &[f32],
        normalized: bool,
        zero_edges: bool,
    ) -> Result<Self, &'static str> {
        Self::fits(n_fft, hop, window.len())?;
        // torch.istft centres a short window: (n_fft - win_length) / 2 zeros on the left.
        let mut centred = vec![0.0; n_fft];
        let left = (n_fft - window.len()) / 2;
        for (to, from) in centred[left..].iter_mut().zip(window) {
            *to = f64::from(*from);
        }
        let scale = if normalized { (n_fft as f64).sqrt() } else { 1.0 } / n_fft as f64;
        let transform = Self { n_fft, hop, window: centred, zero_edges, scale };
        match hop > n_fft || transform.has_gap() {
            true => Err("the windows leave a gap: their envelope has a zero"),
            false => Ok(transform),
        }
    }

    /// Whether sizes are those of a transform that is written: samples of a frame, between frames, and of the window.
    ///
    /// # Errors
    /// A sentence, where they aren't.
    pub(crate) fn fits(n_fft: usize, hop: usize, length: usize) -> Result<(), &'static str> {
        match () {
            () if n_fft == 0 || hop == 0 || length == 0 => {
                Err("n_fft, hop_length or win_length is not positive")
            }
            () if n_fft > LARGEST_N_FFT || n_fft.div_ceil(hop) > MOST_OVERLAP => {
                Err("n_fft is above 8192, or above 256 times hop_length")
            }
            () if length > n_fft => Err("the window is longer than n_fft"),
            () => Ok(()),
        }
    }

    /// Writes the transform of `[re, im]`, f32 [B, T, F], into `audio`, f32 [B, H (T − 1)]; values and constants are
    /// called after `scope`, the last node `name`.
    pub(crate) fn write(
        &self,
        graph: &mut impl Grow,
        scope: &str,
        [re, im]: [&str; 2],
        audio: &str,
        name: &str,
    ) {
        let mut to = Emitter { graph, scope, transform: self };
        let present = to.frames_present(re);
        let shape = to.ints("shape_of_samples", &[0, -1]);
        // Not `Flatten`: tract's shape rule for it multiplies open dimensions, which it can't.
        let last = if self.is_symmetric() {
            let rows = to.symmetric([re, im], &present);
            node("Reshape", [rows, shape], audio)
        } else {
            let rows = to.whole([re, im], &present);
            let flat = to.emit("untrimmed", "Reshape", &[&rows, &shape], |n| n);
            let [starts, ends, axes] = to.trim();
            node("Slice", [flat, starts, ends, axes], audio)
        };
        to.graph.node(last.named(name));
    }

    /// Hops that a frame covers.
    fn overlap(&self) -> usize {
        self.n_fft.div_ceil(self.hop)
    }

    fn bins(&self) -> usize {
        self.n_fft / 2 + 1
    }

    /// torch.istft's own test: an envelope below 1e-11 inside the signal. Two frames are the worst
    /// case: more of them only add.
    fn has_gap(&self) -> bool {
        let at = |n: usize| self.window.get(n).map_or(0.0, |w| w * w);
        let start = self.n_fft / 2;
        (start..start + self.hop)
            .any(|m| at(m) + m.checked_sub(self.hop).map_or(0.0, at) < LEAST_ENVELOPE)
    }

    /// Whether the half-size form applies: w[n] = w[N−n] (to float's last bit), and the middle of a
    /// frame falls on a hop's border.
    fn is_symmetric(&self) -> bool {
        let n = self.n_fft;
        let even = (1..n).all(|i| (self.window[i] - self.window[n - i]).abs() < 1e-6);
        n.is_multiple_of(2 * self.hop) && even
    }

    /// What each bin counts in the sum, with the scale of the transform.
    fn parts(&self) -> Vec<f32> {
        let part = |k: usize| match () {
            () if (k == 0 || 2 * k == self.n_fft) && self.zero_edges => 0.0,
            () if k == 0 || 2 * k == self.n_fft => self.scale,
            () => 2.0 * self.scale,
        };
        (0..self.bins()).map(|k| part(k) as f32).collect()
    }

    /// One turn of a wave, in as many steps as the transform has samples.
    fn turn(&self, wave: impl Fn(f64) -> f64) -> Vec<f32> {
        (0..self.n_fft).map(|i| wave(TAU * i as f64 / self.n_fft as f64) as f32).collect()
    }

    /// Squared window, one row a hop: [overlap, hop].
    fn squared_window(&self) -> Vec<f32> {
        let at = |i: usize| self.window.get(i).map_or(0.0, |w| (w * w) as f32);
        (0..self.overlap() * self.hop).map(at).collect()
    }
}

/// Writes the nodes, naming values under a scope of their own.
struct Emitter<'a, G> {
    graph: &'a mut G,
    scope: &'a str,
    transform: &'a InverseStft,
}

impl<G: Grow> Emitter<'_, G> {
    fn emit(
        &mut self,
        what: &str,
        op: &str,
        inputs: &[&str],
        with: impl FnOnce(NodeBuilder) -> NodeBuilder,
    ) -> String {
        let output = self.graph.fresh(&format!("{}/{what}", self.scope));
        self.graph.node(with(node(op, inputs.iter().copied(), &output)));
        output
    }

    fn floats(&mut self, what: &str, dims: &[usize], values: &[f32]) -> String {
        self.graph.constant(&format!("{}/{what}", self.scope), initializer_f32("", dims, values))
    }

    fn ints(&mut self, what: &str, values: &[i64]) -> String {
        self.counts(what, &[values.len()], values)
    }

    fn counts(&mut self, what: &str, dims: &[usize], values: &[i64]) -> String {
        self.graph.constant(&format!("{}/{what}", self.scope), initializer_i64("", dims, values))
    }

    /// x[…, from..to, …] along the given axes.
    fn slice(&mut self, what: &str, x: &str, ranges: &[(i64, i64, i64)]) -> String {
        let column = |f: fn(&(i64, i64, i64)) -> i64| ranges.iter().map(f).collect::<Vec<_>>();
        let starts = self.ints("starts", &column(|r| r.1));
        let ends = self.ints("ends", &column(|r| r.2));
        let axes = self.ints("axes", &column(|r| r.0));
        self.emit(what, "Slice", &[x, &starts, &ends, &axes], |n| n)
    }

    /// Rows of zeros before and after, along axis 1 of three.
    fn pad_rows(&mut self, what: &str, x: &str, before: usize, after: usize) -> String {
        if before + after == 0 {
            return x.to_owned();
        }
        let pads = self.ints("pads", &[0, before as i64, 0, 0, after as i64, 0]);
        self.emit(what, "Pad", &[x, &pads], |n| n)
    }

    /// The products of the frames with the bases, even and odd about the middle. The bases, [bins, columns], are
    /// built in the graph from one turn of each wave: 8 MB that a runtime makes when it loads the model, and that
    /// the file does not have. With part c_k and window w:
    ///
    /// ```text
    /// basis[k, n] = wave(2π (k n mod N) / N) · c_k w[n]
    /// ```
    ///
    /// k·n mod N keeps the angle exact: a product of large floats would not.
    fn products(&mut self, columns: usize, [re, im]: [&str; 2]) -> [String; 2] {
        let transform = self.transform;
        let bins = transform.bins();
        let count = |n: usize| (0..n as i64).collect::<Vec<_>>();
        let rows = self.counts("bins", &[bins, 1], &count(bins));
        let samples = self.counts("samples", &[1, columns], &count(columns));
        let turn = self.counts("turn", &[], &[transform.n_fft as i64]);
        let parts = self.floats("parts", &[bins, 1], &transform.parts());
        let window: Vec<f32> =
            (0..columns).map(|i| transform.window.get(i).copied().unwrap_or(0.0) as f32).collect();
        let window = self.floats("window", &[1, columns], &window);
        let angles = self.emit("angles", "Mul", &[&rows, &samples], |n| n);
        let angles = self.emit("angles_in_turn", "Mod", &[&angles, &turn], |n| n);
        let weights = self.emit("weights", "Mul", &[&parts, &window], |n| n);
        let mut basis = |what: &str, wave: fn(f64) -> f64| {
            let table = transform.turn(wave);
            let table = self.floats(&format!("{what}_turn"), &[table.len()], &table);
            let waves = self.emit(what, "Gather", &[&table, &angles], |n| n.int("axis", 0));
            self.emit(&format!("{what}_basis"), "Mul", &[&waves, &weights], |n| n)
        };
        let (cosines, sines) = (basis("cosine", f64::cos), basis("sine", f64::sin));
        [("even", re, cosines), ("odd", im, sines)]
            .map(|(what, frames, basis)| self.emit(what, "MatMul", &[frames, &basis], |n| n))
    }

    /// Half-size form. With R = N/H hops a frame, output row i gets hop r of frame i + R/2 − r:
    ///
    /// ```text
    /// forward[i]  = Σ_r first_r[i + R/2 − r],       first  = C − S, hop r = samples rH … rH + H − 1
    /// backward[i] = Σ_r second_r[i − R/2 + 1 + r],  second = C + S, hop r = samples rH + 1 … rH + H
    /// ```
    ///
    /// for r < R/2, each summed as Horner's rule sums a polynomial, by moving the sum so far one row
    /// (down here, up there). The second halves run backwards: they are added first, turned round once.
    fn symmetric(&mut self, frames: [&str; 2], present: &str) -> String {
        let (half, hop) = (self.transform.n_fft / 2, self.transform.hop as i64);
        let columns = half + 1;
        let [even, odd] = self.products(columns, frames);
        let first = self.emit("first_half", "Sub", &[&even, &odd], |n| n);
        let second = self.emit("second_half", "Add", &[&even, &odd], |n| n);

        let hops = half as i64 / hop;
        let (mut forward, mut backward) = (String::new(), String::new());
        for r in 0..hops {
            let columns = (2, r * hop, (r + 1) * hop);
            let part = self.slice("first_hop", &first, &[columns]);
            forward = self.accumulate(part, &forward, (1, TO_THE_END), (0, 1));
            let columns = (2, r * hop + 1, (r + 1) * hop + 1);
            let part = self.slice("second_hop", &second, &[columns]);
            backward = self.accumulate(part, &backward, (0, -1), (1, 0));
        }
        let forward = self.slice("forward", &forward, &[(1, 1, TO_THE_END)]);
        let backward = self.backward(&backward);
        let rows = self.emit("overlap_add", "Add", &[&forward, &backward], |n| n);
        let present = self.slice("frames_present_kept", present, &[(1, hops, -hops)]);
        let envelope = self.envelope(&present);
        self.emit("rows", "Div", &[&rows, &envelope], |n| n)
    }

    /// Adds the sum so far, moved by one row (`keep` these of its rows, then `pad`), to the next hop.
    /// No slice is ever longer than its rows, not even of a single frame.
    fn accumulate(&mut self, hop: String, sum: &str, keep: (i64, i64), pad: (usize, usize)) -> String {
        if sum.is_empty() {
            return hop;
        }
        let rows = self.slice("moved", sum, &[(1, keep.0, keep.1)]);
        let moved = self.pad_rows("moved_padded", &rows, pad.0, pad.1);
        self.emit("hops", "Add", &[&hop, &moved], |n| n)
    }

    /// All rows but the last, with their samples in reverse.
    fn backward(&mut self, x: &str) -> String {
        let (starts, ends) = (self.ints("starts", &[0, -1]), self.ints("ends", &[-1, i64::MIN + 1]));
        let (axes, steps) = (self.ints("axes", &[1, 2]), self.ints("steps", &[1, -1]));
        self.emit("backward", "Slice", &[x, &starts, &ends, &axes, &steps], |n| n)
    }

    /// Whole bases, for any window and any hop: frames padded to R hops, R shifted adds, then the
    /// N/2 samples that centring added are cut off both ends.
    fn whole(&mut self, frames: [&str; 2], present: &str) -> String {
        let (overlap, hop) = (self.transform.overlap(), self.transform.hop);
        let [even, odd] = self.products(overlap * hop, frames);
        let frames = self.emit("frames", "Sub", &[&even, &odd], |n| n);
        let hop = hop as i64;
        let parts: Vec<String> = (0..overlap)
            .map(|r| {
                let range = (2, r as i64 * hop, (r as i64 + 1) * hop);
                let part = self.slice("hop", &frames, &[range]);
                self.pad_rows("hop_padded", &part, r, overlap - 1 - r)
            })
            .collect();
        let sum = parts.into_iter().reduce(|a, b| self.emit("overlap_add", "Add", &[&a, &b], |n| n));
        let sum = sum.expect("a frame covers at least one hop");
        let envelope = self.envelope(present);
        // What is cut off below may have an envelope of zero; what is kept has not.
        let least = self.floats("least", &[], &[LEAST_ENVELOPE as f32]);
        let envelope = self.emit("envelope_kept", "Max", &[&envelope, &least], |n| n);
        self.emit("rows", "Div", &[&sum, &envelope], |n| n)
    }

    /// Bounds of the samples that aren't centring's: starts, ends, axes.
    fn trim(&mut self) -> [String; 3] {
        let left = (self.transform.n_fft / 2) as i64;
        let right = (self.transform.overlap() * self.transform.hop) as i64 - left;
        [self.ints("starts", &[left]), self.ints("ends", &[-right]), self.ints("axes", &[1])]
    }

    /// Which of the R frames around each hop exist, [1, T + R − 1, R] of ones and zeros: a column of
    /// ones, shifted.
    fn frames_present(&mut self, frames: &str) -> String {
        let overlap = self.transform.overlap();
        let shape = self.emit("shape", "Shape", &[frames], |n| n);
        let count = self.slice("frame_count", &shape, &[(0, 1, 2)]);
        let one = self.ints("one", &[1]);
        let dims = self.emit("ones_shape", "Concat", &[&one, &count, &one], |n| n.int("axis", 0));
        let unit = self.floats("unit", &[1, 1, 1], &[1.0]);
        let ones = self.emit("ones", "Expand", &[&unit, &dims], |n| n);
        let present: Vec<String> =
            (0..overlap).map(|r| self.pad_rows("present", &ones, r, overlap - 1 - r)).collect();
        let present: Vec<&str> = present.iter().map(String::as_str).collect();
        self.emit("frames_present", "Concat", &present, |n| n.int("axis", 2))
    }

    /// Σ_t w²[m − tH], a row a hop: the frames that exist times their squared windows. Exact at both
    /// ends for every T.
    fn envelope(&mut self, present: &str) -> String {
        let dims = [self.transform.overlap(), self.transform.hop];
        let squared = self.floats("squared_window", &dims, &self.transform.squared_window());
        self.emit("envelope", "MatMul", &[present, &squared], |n| n)
    }
}
