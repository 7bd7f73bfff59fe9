use super::{Pass, Skip, matched, only, require};
use crate::front::inverse_stft::{Grow, InverseStft, LARGEST_N_FFT};
use crate::ir::{Graph, NodeBuilder, NodeId, NodeProto, PLACEHOLDER_DOMAIN, Patch, TensorProto, node};

/// The pass's name, by which the products of an inverse DFT are known.
pub const NAME: &str = "replace-istft";

/// The [inverse short-time Fourier transform](crate::front::inverse_stft) in standard operators.
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
        let transform = read(graph, istft)?;
        let (re, im) = (matched(istft.input_at(0))?, matched(istft.input_at(1))?);
        let audio = matched(istft.output_at(0))?;
        only(istft, ATTRIBUTES)?;
        let scope = if istft.name().is_empty() { audio } else { istft.name() };
        let mut to = Growing { graph, patch: Patch::at(id).remove(id) };
        let [re, im] = [("re", re), ("im", im)].map(|(what, part)| {
            let frames = to.fresh(&format!("{scope}/{what}"));
            to.node(node("Transpose", [part], &frames).ints("perm", [0, 2, 1]));
            frames
        });
        transform.write(&mut to, scope, [&re, &im], audio, istft.name());
        Ok(to.patch)
    }
}

const ATTRIBUTES: &[&str] =
    &["n_fft", "hop_length", "win_length", "center", "onesided", "normalized", "zero_dc_nyquist"];

/// The transform of a placeholder.
fn read(graph: &Graph<'_>, node: &NodeProto) -> Result<InverseStft, Skip> {
    // Of what is negative, nothing: refused as zero is.
    let count = |name: &str| usize::try_from(node.attr_i(name, 0)).unwrap_or_default();
    let [n_fft, hop, length] = ["n_fft", "hop_length", "win_length"].map(count);
    InverseStft::fits(n_fft, hop, length).map_err(Skip::Refused)?;
    if node.attr_i("center", 1) != 1 {
        return Err(Skip::Refused("center = 0: only centred frames can be inverted"));
    }
    if node.attr_i("onesided", 1) != 1 {
        return Err(Skip::Refused("onesided = 0: the spectrum must be that of a real signal"));
    }
    let refused = Skip::Refused("the window is not a constant of floats");
    let window = match node.input_at(2) {
        None => vec![1.0; length],
        Some(name) => graph.constant_f32(name).ok_or(refused)?.1,
    };
    if window.len() != length {
        return Err(Skip::Refused("the window is not of length win_length"));
    }
    let [normalized, zero_edges] =
        ["normalized", "zero_dc_nyquist"].map(|name| node.attr_i(name, 0) != 0);
    InverseStft::new(n_fft, hop, &window, normalized, zero_edges).map_err(Skip::Refused)
}

/// A patch that grows.
struct Growing<'a, 'm> {
    graph: &'a Graph<'m>,
    patch: Patch,
}

impl Grow for Growing<'_, '_> {
    fn fresh(&mut self, base: &str) -> String {
        self.patch.fresh(self.graph, base)
    }

    fn constant(&mut self, base: &str, tensor: TensorProto) -> String {
        let name = self.fresh(base);
        self.patch.initializer(TensorProto { name: Some(name.clone()), ..tensor });
        name
    }

    fn node(&mut self, node: NodeBuilder) {
        self.patch.insert(node);
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use proptest::prelude::*;
    use rustfft::{FftPlanner, num_complex::Complex};

    use super::super::testing::*;
    use super::*;
    use crate::ir::initializer_f32;

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
