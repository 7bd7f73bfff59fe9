use std::f64::consts::TAU;

use super::{Pass, Skip, matched, only, require};
use crate::ir::{
    Graph, NodeBuilder, NodeId, NodeProto, PLACEHOLDER_DOMAIN, Patch, initializer_f32, initializer_i64,
    node,
};

/// The pass's name, by which the products of an inverse DFT are known.
pub const NAME: &str = "replace-istft";

/// The inverse short-time Fourier transform in standard operators.
///
/// With N = n_fft, H = hop, F = N/2 + 1 bins and T frames, `torch.istft(center=True)` is
///
/// ```text
/// x_t[n] = w[n]/N Σ_k c_k (Re_t[k] cos 2πkn/N − Im_t[k] sin 2πkn/N),   c_k = 1 at DC and Nyquist, else 2
/// y[m]   = Σ_t x_t[m − tH] / Σ_t w²[m − tH],                           N/2 ≤ m < N/2 + H(T − 1)
/// ```
///
/// Cosines are even and sines odd about n = N/2: with C and S the two sums over n = 0…N/2 alone,
/// x[n] = C[n] − S[n] and x[N−n] = C[n] + S[n]. Two products of F × F thus do the work of two of
/// F × N, at half the weights (T. Parsons, *Voice and Speech Processing*, on real transforms; any
/// text on the DFT of real signals). The window is folded into the bases.
pub(super) struct ReplaceIstft;

impl Pass for ReplaceIstft {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rules(&self) -> &'static str {
        "soprano_export.ISTFT<n_fft, hop_length, win_length, center = 1, onesided = 1>(re, im [B, F, T], window)\n\
         \u{20} =>  audio [B, hop (T - 1)], every T from 2 up (T = 1 gives no samples):\n\
         \u{20}     C = re' cos, S = im' sin  (window folded in), C - S and C + S overlap-added by\n\
         \u{20}     slice, pad and add, divided by the envelope of the squared window\n\
         half-size bases where the window is symmetric and n_fft is a multiple of 2 hop; whole bases elsewhere\n\
         zero_dc_nyquist = 1 zeroes both bins, normalized = 1 scales by sqrt(n_fft)\n\
         not: before opset 11, n_fft > 8192 or > 256 hop_length, center = 0, onesided = 0, a window longer than n_fft, a window that isn't constant, an\n\
         envelope with a zero"
    }

    /// `Mod` is there from 10, `Pad` takes its lengths as an input from 11.
    fn opset(&self) -> i64 {
        11
    }

    /// One turn of each wave, the window and its square: at most 16 floats to a sample of a frame.
    fn growth(&self) -> u64 {
        16 * 4 * LARGEST_N_FFT as u64
    }

    fn visit(&self, graph: &Graph<'_>, id: NodeId) -> Result<Patch, Skip> {
        let istft = graph.node(id);
        require(istft.domain() == PLACEHOLDER_DOMAIN && istft.op_type() == "ISTFT")?;
        let transform = Transform::read(graph, istft)?;
        let (re, im) = (matched(istft.input_at(0))?, matched(istft.input_at(1))?);
        let audio = matched(istft.output_at(0))?;
        only(istft, ATTRIBUTES)?;
        let scope = if istft.name().is_empty() { audio } else { istft.name() }.to_owned();
        let mut to = Emitter { graph, patch: Patch::at(id).remove(id), scope };
        let frames = to.emit("re", "Transpose", &[re], |n| n.ints("perm", [0, 2, 1]));
        let imaginary = to.emit("im", "Transpose", &[im], |n| n.ints("perm", [0, 2, 1]));
        let present = to.frames_present(&transform, &frames);
        let shape = to.ints("shape_of_samples", &[0, -1]);
        // Not `Flatten`: tract's shape rule for it multiplies open dimensions, which it can't.
        if transform.is_symmetric() {
            let rows = to.symmetric(&transform, &frames, &imaginary, &present);
            to.patch.insert(node("Reshape", [rows, shape], audio).named(istft.name()));
        } else {
            let rows = to.whole(&transform, &frames, &imaginary, &present);
            let flat = to.emit("untrimmed", "Reshape", &[&rows, &shape], |n| n);
            let ends = to.trim(&transform);
            let [starts, ends, axes] = ends.each_ref().map(String::as_str);
            to.patch.insert(node("Slice", [&flat, starts, ends, axes], audio).named(istft.name()));
        }
        Ok(to.patch)
    }
}

const ATTRIBUTES: &[&str] =
    &["n_fft", "hop_length", "win_length", "center", "onesided", "normalized", "zero_dc_nyquist"];

/// A transform that standard operators can express.
struct Transform {
    n_fft: usize,
    hop: usize,
    /// The window, centred in `n_fft`.
    window: Vec<f64>,
    zero_edges: bool,
    scale: f64,
}

/// What no vocoder comes near; beyond it the bases take gigabytes, and the sum thousands of nodes.
const LARGEST_N_FFT: usize = 8192;
const MOST_OVERLAP: usize = 256;

impl Transform {
    fn read(graph: &Graph<'_>, node: &NodeProto) -> Result<Self, Skip> {
        let positive = |name: &str| {
            let value = usize::try_from(node.attr_i(name, 0)).ok().filter(|&n| n > 0);
            value.ok_or(Skip::Refused("n_fft, hop_length or win_length is not positive"))
        };
        let n_fft = positive("n_fft")?;
        let (hop, length) = (positive("hop_length")?, positive("win_length")?);
        if n_fft > LARGEST_N_FFT || n_fft.div_ceil(hop) > MOST_OVERLAP {
            return Err(Skip::Refused("n_fft is above 8192, or above 256 times hop_length"));
        }
        if node.attr_i("center", 1) != 1 {
            return Err(Skip::Refused("center = 0: only centred frames can be inverted"));
        }
        if node.attr_i("onesided", 1) != 1 {
            return Err(Skip::Refused("onesided = 0: the spectrum must be that of a real signal"));
        }
        if length > n_fft {
            return Err(Skip::Refused("the window is longer than n_fft"));
        }
        let refused = Skip::Refused("the window is not a constant of floats");
        let values = match node.input_at(2) {
            None => vec![1.0; length],
            Some(name) => graph.constant_f32(name).ok_or(refused)?.1,
        };
        if values.len() != length {
            return Err(Skip::Refused("the window is not of length win_length"));
        }
        // torch.istft centres a short window: (n_fft - win_length) / 2 zeros on the left.
        let mut window = vec![0.0; n_fft];
        let left = (n_fft - length) / 2;
        for (to, from) in window[left..].iter_mut().zip(&values) {
            *to = f64::from(*from);
        }
        let normalized = node.attr_i("normalized", 0) != 0;
        let transform = Self {
            n_fft,
            hop,
            window,
            zero_edges: node.attr_i("zero_dc_nyquist", 0) != 0,
            scale: if normalized { (n_fft as f64).sqrt() } else { 1.0 } / n_fft as f64,
        };
        if hop > n_fft || transform.has_gap() {
            return Err(Skip::Refused("the windows leave a gap: their envelope has a zero"));
        }
        Ok(transform)
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

/// Builds the patch, naming values under the placeholder's own name.
struct Emitter<'a, 'm> {
    graph: &'a Graph<'m>,
    patch: Patch,
    scope: String,
}

const TO_THE_END: i64 = i64::MAX;
/// torch.istft refuses an envelope below this.
const LEAST_ENVELOPE: f64 = 1e-11;

impl Emitter<'_, '_> {
    fn emit(
        &mut self,
        what: &str,
        op: &str,
        inputs: &[&str],
        with: impl FnOnce(NodeBuilder) -> NodeBuilder,
    ) -> String {
        let output = self.name(what);
        self.patch.insert(with(node(op, inputs.iter().copied(), &output)));
        output
    }

    fn name(&mut self, what: &str) -> String {
        self.patch.fresh(self.graph, &format!("{}/{what}", self.scope))
    }

    fn floats(&mut self, what: &str, dims: &[usize], values: &[f32]) -> String {
        let name = self.name(what);
        self.patch.initializer(initializer_f32(&name, dims, values));
        name
    }

    fn ints(&mut self, what: &str, values: &[i64]) -> String {
        self.counts(what, &[values.len()], values)
    }

    fn counts(&mut self, what: &str, dims: &[usize], values: &[i64]) -> String {
        let name = self.name(what);
        self.patch.initializer(initializer_i64(&name, dims, values));
        name
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
    fn products(&mut self, transform: &Transform, columns: usize, [re, im]: [&str; 2]) -> [String; 2] {
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
    fn symmetric(&mut self, transform: &Transform, re: &str, im: &str, present: &str) -> String {
        let (half, hop) = (transform.n_fft / 2, transform.hop as i64);
        let columns = half + 1;
        let [even, odd] = self.products(transform, columns, [re, im]);
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
        let envelope = self.envelope(transform, &present);
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
    fn whole(&mut self, transform: &Transform, re: &str, im: &str, present: &str) -> String {
        let columns = transform.overlap() * transform.hop;
        let [even, odd] = self.products(transform, columns, [re, im]);
        let frames = self.emit("frames", "Sub", &[&even, &odd], |n| n);
        let (hop, overlap) = (transform.hop as i64, transform.overlap());
        let parts: Vec<String> = (0..overlap)
            .map(|r| {
                let range = (2, r as i64 * hop, (r as i64 + 1) * hop);
                let part = self.slice("hop", &frames, &[range]);
                self.pad_rows("hop_padded", &part, r, overlap - 1 - r)
            })
            .collect();
        let sum = parts.into_iter().reduce(|a, b| self.emit("overlap_add", "Add", &[&a, &b], |n| n));
        let sum = sum.expect("a frame covers at least one hop");
        let envelope = self.envelope(transform, present);
        // What is cut off below may have an envelope of zero; what is kept has not.
        let least = self.floats("least", &[], &[LEAST_ENVELOPE as f32]);
        let envelope = self.emit("envelope_kept", "Max", &[&envelope, &least], |n| n);
        self.emit("rows", "Div", &[&sum, &envelope], |n| n)
    }

    /// Bounds of the samples that aren't centring's: starts, ends, axes.
    fn trim(&mut self, transform: &Transform) -> [String; 3] {
        let left = (transform.n_fft / 2) as i64;
        let right = (transform.overlap() * transform.hop) as i64 - left;
        [self.ints("starts", &[left]), self.ints("ends", &[-right]), self.ints("axes", &[1])]
    }

    /// Which of the R frames around each hop exist, [1, T + R − 1, R] of ones and zeros: a column of
    /// ones, shifted.
    fn frames_present(&mut self, transform: &Transform, frames: &str) -> String {
        let overlap = transform.overlap();
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
    fn envelope(&mut self, transform: &Transform, present: &str) -> String {
        let dims = [transform.overlap(), transform.hop];
        let squared = self.floats("squared_window", &dims, &transform.squared_window());
        self.emit("envelope", "MatMul", &[present, &squared], |n| n)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustfft::{FftPlanner, num_complex::Complex};

    use super::super::testing::*;
    use super::*;
    use crate::ir::NodeBuilder;

    #[derive(Clone, Debug)]
    struct Case {
        n_fft: usize,
        hop: usize,
        window: Vec<f32>,
        zero_edges: bool,
        normalized: bool,
    }

    fn hann(n: usize) -> Vec<f32> {
        (0..n).map(|i| (0.5 - 0.5 * (TAU * i as f64 / n as f64).cos()) as f32).collect()
    }

    fn placeholder(case: &Case) -> NodeBuilder {
        node("ISTFT", ["re", "im", "w"], "audio")
            .domain(PLACEHOLDER_DOMAIN)
            .named("istft")
            .int("n_fft", case.n_fft as i64)
            .int("hop_length", case.hop as i64)
            .int("win_length", case.window.len() as i64)
            .int("center", 1)
            .int("onesided", 1)
            .int("normalized", i64::from(case.normalized))
            .int("zero_dc_nyquist", i64::from(case.zero_edges))
    }

    fn model(case: &Case, node: NodeBuilder) -> Model {
        let bins = (case.n_fft / 2 + 1).to_string();
        TestGraph::new()
            .input("re", &["b", &bins, "t"])
            .input("im", &["b", &bins, "t"])
            .initializer(initializer_f32("w", &[case.window.len()], &case.window))
            .node(node)
            .output("audio", &["b", "n"])
            .model()
    }

    /// The definition, in double precision, through an FFT.
    fn expected(case: &Case, re: &[f32], im: &[f32], frames: usize) -> Vec<f64> {
        let (n, hop, bins) = (case.n_fft, case.hop, case.n_fft / 2 + 1);
        let left = (n - case.window.len()) / 2;
        let window = |i: usize| {
            i.checked_sub(left).and_then(|i| case.window.get(i)).map_or(0.0, |&w| f64::from(w))
        };
        let inverse = FftPlanner::<f64>::new().plan_fft_inverse(n);
        let length = n + hop * (frames - 1);
        let (mut sum, mut envelope) = (vec![0.0; length], vec![0.0; length]);
        for t in 0..frames {
            let bin = |k: usize| {
                let at = k * frames + t;
                let edge = k == 0 || 2 * k == n;
                let real = if edge && case.zero_edges { 0.0 } else { f64::from(re[at]) };
                Complex::new(real, if edge { 0.0 } else { f64::from(im[at]) })
            };
            let mut frame: Vec<Complex<f64>> =
                (0..n).map(|k| if k < bins { bin(k) } else { bin(n - k).conj() }).collect();
            inverse.process(&mut frame);
            let scale = if case.normalized { (n as f64).sqrt() } else { 1.0 } / n as f64;
            for (i, value) in frame.iter().enumerate() {
                sum[t * hop + i] += value.re * scale * window(i);
                envelope[t * hop + i] += window(i) * window(i);
            }
        }
        let kept = n / 2..n / 2 + hop * (frames - 1);
        kept.map(|m| sum[m] / envelope[m]).collect()
    }

    /// Largest error over the largest value.
    fn error(case: &Case, frames: usize, batch: usize) -> f64 {
        let bins = case.n_fft / 2 + 1;
        let wave = |seed: f32| -> Vec<f32> {
            (0..batch * bins * frames)
                .map(|i| ((i as f32 + 1.0) * seed).sin() * (i as f32 * 0.013).cos())
                .collect()
        };
        let (re, im) = (wave(1.7), wave(2.3));
        let mut rewritten = model(case, placeholder(case));
        assert_eq!(apply(&mut rewritten, "replace-istft"), 1);
        let shape = [batch, bins, frames];
        let audio = run(&rewritten, &[("re", &shape, &re), ("im", &shape, &im)]).remove(0);
        assert_eq!(audio.shape(), [batch, case.hop * (frames - 1)]);
        let size = bins * frames;
        let want: Vec<f64> = (0..batch)
            .flat_map(|b| expected(case, &re[b * size..][..size], &im[b * size..][..size], frames))
            .collect();
        let peak = want.iter().fold(1e-9f64, |m, v| m.max(v.abs()));
        let got = audio.to_f32().unwrap();
        want.iter().zip(got).map(|(w, g)| (w - f64::from(g)).abs() / peak).fold(0.0, f64::max)
    }

    fn sopranos() -> Case {
        Case { n_fft: 2048, hop: 512, window: hann(2048), zero_edges: true, normalized: false }
    }

    #[test]
    fn sopranos_transform_at_every_short_length() {
        for frames in [2, 3, 4, 5, 9, 16] {
            let error = error(&sopranos(), frames, 2);
            assert!(error < 2e-6, "{frames} frames: {error:e}");
        }
    }

    #[test]
    fn one_frame_is_no_samples() {
        let case = Case { n_fft: 16, hop: 4, window: hann(16), zero_edges: false, normalized: false };
        let mut rewritten = model(&case, placeholder(&case));
        apply(&mut rewritten, "replace-istft");
        let audio = run(&rewritten, &[("re", &[2, 9, 1], &[1.0; 18]), ("im", &[2, 9, 1], &[1.0; 18])]);
        assert_eq!(audio[0].shape(), [2, 0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

        /// Other sizes, odd ones, hops that don't divide, short and lopsided windows, every length.
        #[test]
        fn any_transform_equals_its_definition(
            n_fft in 4usize..40, hop in 1usize..20, cut in 0usize..6, lopsided: bool,
            zero_edges: bool, normalized: bool, frames in 2usize..9, batch in 1usize..3,
        ) {
            let length = n_fft.saturating_sub(cut).max(2);
            let mut window: Vec<f32> = hann(length).iter().map(|w| w + 0.1).collect();
            if lopsided {
                window.iter_mut().enumerate().for_each(|(i, w)| *w += 0.02 * i as f32);
            }
            let case = Case { n_fft, hop, window, zero_edges, normalized };
            // Where even two frames leave a gap, torch.istft refuses, and so do we.
            let covered = |m: usize| {
                let left = (n_fft - length) / 2;
                (left..left + length).contains(&m) || m >= hop && (left..left + length).contains(&(m - hop))
            };
            prop_assume!(hop <= n_fft && (n_fft / 2..n_fft / 2 + hop).all(covered));
            let error = error(&case, frames, batch);
            prop_assert!(error < 5e-6, "{error:e}");
        }
    }

    #[test]
    fn what_it_cannot_express_is_refused_by_name() {
        let case = Case { n_fft: 16, hop: 4, window: hann(16), zero_edges: false, normalized: false };
        let refused = |node: NodeBuilder| refusals(&mut model(&case, node), "replace-istft");
        let bare = |changes: &[(&str, i64)]| {
            let start = node("ISTFT", ["re", "im", "w"], "audio").domain(PLACEHOLDER_DOMAIN);
            let defaults =
                [("n_fft", 16), ("hop_length", 4), ("win_length", 16), ("center", 1), ("onesided", 1)];
            defaults.iter().fold(start, |n, (name, value)| {
                let changed = changes.iter().find(|(c, _)| c == name).map_or(*value, |c| c.1);
                n.int(name, changed)
            })
        };
        assert_eq!(
            refused(bare(&[("center", 0)])),
            ["center = 0: only centred frames can be inverted"]
        );
        assert_eq!(
            refused(bare(&[("onesided", 0)])),
            ["onesided = 0: the spectrum must be that of a real signal"]
        );
        assert_eq!(refused(bare(&[("win_length", 32)])), ["the window is longer than n_fft"]);
        assert_eq!(
            refused(bare(&[("hop_length", 16)])),
            ["the windows leave a gap: their envelope has a zero"]
        );
        assert_eq!(
            refused(bare(&[("n_fft", -1)])),
            ["n_fft, hop_length or win_length is not positive"]
        );
    }

    #[test]
    fn the_bases_are_not_stored() {
        let mut rewritten = model(&sopranos(), placeholder(&sopranos()));
        apply(&mut rewritten, "replace-istft");
        apply(&mut rewritten, "constant-folding");
        assert!(rewritten.weight_bytes() < 80_000, "{}", rewritten.weight_bytes());
    }

    #[test]
    fn it_needs_an_opset_with_its_operators() {
        let case = Case { n_fft: 16, hop: 4, window: hann(16), zero_edges: false, normalized: false };
        let at = |opset: i64| {
            let mut proto = model(&case, placeholder(&case).named("")).proto().clone();
            proto.opset_import[0].version = Some(opset);
            Model::from_proto(proto, "test.onnx").unwrap()
        };
        assert_eq!(refusals(&mut at(10), "replace-istft"), ["it needs opset 11, and the model has 10"]);
        let feed: Feed<'_> = &[("re", &[1, 9, 3], &[0.5; 27]), ("im", &[1, 9, 3], &[0.25; 27])];
        let audio = |opset: i64| {
            let mut model = at(opset);
            assert_eq!(apply(&mut model, "replace-istft"), 1);
            assert!(names_are_unique(&model));
            run(&model, feed)
        };
        let expected = audio(17);
        for opset in [11, 12, 13, 18, 23] {
            assert_eq!(audio(opset), expected, "opset {opset}");
        }
    }

    #[test]
    fn the_largest_transform_is_within_what_the_pass_may_add() {
        let case = Case {
            n_fft: 8192,
            hop: 4100,
            window: vec![1.0; 8192],
            zero_edges: false,
            normalized: false,
        };
        let mut rewritten = model(&case, placeholder(&case));
        assert_eq!(apply(&mut rewritten, "replace-istft"), 1);
        let case = Case { hop: 32, ..case };
        let mut rewritten = model(&case, placeholder(&case));
        assert_eq!(apply(&mut rewritten, "replace-istft"), 1);
    }
}
