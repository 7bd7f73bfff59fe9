use super::*;
use crate::front::float64::testing::{Recorded, of_peak, on_any_threads, root, rows};

/// As Soprano's decoder is.
const VOCOS: Vocos = Vocos {
    file: "decoder.pth",
    upscale: 4,
    hops: 4,
    magnitude_limit: 100.0,
    sample_rate: 32000,
    version: |_| "",
};

fn dimensions(weights: &Weights) -> Dimensions {
    let shape = |name: &str| weights.get(name).unwrap().shape().to_vec();
    let embed = shape("decoder.embed.weight");
    let gamma = |at: &usize| weights.get(&format!("decoder.convnext.{at}.gamma")).is_some();
    Dimensions {
        input_channels: embed[1],
        dim: embed[0],
        intermediate_dim: shape("decoder.convnext.0.pwconv1.weight")[0],
        layers: (0..).take_while(gamma).count(),
        input_kernel: embed[2],
        dw_kernel: shape("decoder.convnext.0.dwconv.weight")[2],
        n_fft: shape("head.out.weight")[0] - 2,
    }
}

fn of(weights: &Weights) -> InDouble {
    InDouble::new(&VOCOS, &dimensions(weights), weights).unwrap()
}

fn mini() -> InDouble {
    of(&Weights::of_state_dict(&root().join("fixtures/soprano-mini/decoder.pth")).unwrap())
}

fn frames(recorded: &Recorded, run: &str) -> Vec<Frames> {
    let (shape, values) =
        (recorded.shape(&format!("{run}/frames")), recorded.floats(&format!("{run}/frames")));
    let one = |values: &[f32]| Frames {
        length: shape[2],
        values: values.iter().map(|&x| f64::from(x)).collect(),
    };
    values.chunks(shape[1] * shape[2]).map(one).collect()
}

fn run(model: &InDouble, frames: &[Frames], numbers: Numbers) -> Vec<SignalAnswer> {
    model.run(frames, numbers, &mut || Ok(())).unwrap()
}

fn samples(answers: &[SignalAnswer]) -> Vec<f64> {
    answers.iter().flat_map(|answer| answer.samples.iter().copied()).collect()
}

/// What frames are driven towards.
type Goal = dyn Fn(&InDouble, &[f64]) -> f64;

#[test]
fn small_decoders_are_what_upstream_computes() {
    for name in ["vocos", "vocos-wide"] {
        let recorded = Recorded::read(name);
        let model = of(&recorded.weights());
        for case in ["one", "batch", "long"] {
            let answers = run(&model, &frames(&recorded, case), Numbers::Exact);
            let off = of_peak(&recorded.floats(&format!("{case}/audio")), samples(&answers));
            println!("{name} {case}: {off:.1e} of the peak, {:?}", answers[0].facts);
            assert!(off < 5e-6, "{name} {case}");
            // Of the wide one a good part is clipped.
            let clipped = answers[0].facts.iter().find(|(name, _)| *name == "clipped_share").unwrap().1;
            assert_eq!(clipped > 0.1, name == "vocos-wide", "{clipped}");
        }
    }
}

#[test]
fn a_trained_decoder_is_what_upstream_computes() {
    let (recorded, model) = (Recorded::read("soprano-mini"), mini());
    for case in ["b1_t5", "b3_t3", "extreme_clip", "extreme_phase"] {
        let answers = run(&model, &frames(&recorded, case), Numbers::Exact);
        let off = of_peak(&recorded.floats(&format!("{case}/audio")), samples(&answers));
        println!("{case}: {off:.1e} of the peak, {:?}", answers[0].facts);
        assert!(off < 1e-5, "{case}");
    }
}

#[test]
fn driven_frames_reach_the_limits_as_gradients_in_pytorch_do() {
    let (recorded, model) = (Recorded::read("soprano-mini"), mini());
    let facts: serde_json::Value = serde_json::from_str(&recorded.file.metadata["facts"]).unwrap();
    let start = frames(&recorded, "b1_t5");
    let fact = |frames: &[Frames], name: &str| {
        let facts = run(&model, frames, Numbers::Exact).remove(0).facts;
        facts.into_iter().find(|(other, _)| *other == name).unwrap().1
    };
    let mut ticks = 0;
    let driven = model
        .driven(&start, &mut || {
            ticks += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!(ticks, model.driven_ticks());
    assert_eq!(
        driven.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        ["extreme_clip", "extreme_phase"]
    );
    for ((name, frames), what) in driven.iter().zip(["clipped_share", "max_phase"]) {
        let (before, theirs) = (fact(&start, what), facts[name][what].as_f64().unwrap());
        let ours = fact(frames, what);
        println!("{name}: {what} from {before:.4} to {ours:.4}, PyTorch's {theirs:.4}");
        assert!(ours > 0.9 * theirs && ours > 2.0 * before, "{name}: {ours}, PyTorch's {theirs}");
    }
}

#[test]
fn the_gradient_is_that_of_differences() {
    let louder = |model: &InDouble, polar: &[f64]| -> f64 {
        let most = model.limit.ln() + 1.0;
        polar[..polar.len() / 2].iter().map(|m| m.min(most).exp()).sum()
    };
    let further = |_: &InDouble, polar: &[f64]| {
        polar[polar.len() / 2..].iter().fold(0.0_f64, |most, x| most.max(x.abs()))
    };
    let goals: [&Goal; 2] = [&louder, &further];
    for name in ["vocos", "vocos-wide"] {
        let model = of(&Recorded::read(name).weights());
        let point = rows(1, model.channels(), 4);
        for (goal, value) in goals.iter().enumerate() {
            let gradient = model.slope(&point, goal);
            let at = |channel: usize, by: f64| {
                let mut moved = point.clone();
                moved[(0, channel)] += by;
                value(&model, &model.lasting_polar(&moved))
            };
            for channel in 0..model.channels() {
                let want = (at(channel, 1e-6) - at(channel, -1e-6)) / 2e-6;
                let got = gradient[(0, channel)];
                assert!(
                    (got - want).abs() < 1e-5 * want.abs().max(1.0),
                    "{name} {goal} {channel}: {got} {want}"
                );
            }
        }
    }
}

#[test]
fn a_sequence_depends_on_no_other_and_on_no_thread() {
    let recorded = Recorded::read("vocos");
    let model = of(&recorded.weights());
    let given =
        [frames(&recorded, "batch"), frames(&recorded, "one"), frames(&recorded, "long")].concat();
    for numbers in [Numbers::Exact, Numbers::Moved { seed: 0 }] {
        let together = on_any_threads(|| {
            run(&model, &given, numbers).into_iter().map(|answer| answer.samples).collect::<Vec<_>>()
        });
        for (frames, samples) in given.iter().zip(together) {
            assert_eq!(samples.len(), model.per_frame() * (frames.length - 1));
            assert!(run(&model, std::slice::from_ref(frames), numbers)[0].samples == samples);
        }
    }
    let driven = on_any_threads(|| model.driven(&given[..2], &mut || Ok(())).unwrap());
    assert!(model.driven(&given[..1], &mut || Ok(())).unwrap()[0].1[0] == driven[0].1[0]);
    assert!(run(&model, &[], Numbers::Exact).is_empty());
}

#[test]
fn a_last_bit_of_the_weights_moves_it_about_as_far_as_float32_does() {
    let (recorded, model) = (Recorded::read("soprano-mini"), mini());
    let given = frames(&recorded, "b1_t5");
    let [exact, moved] =
        [Numbers::Exact, Numbers::Moved { seed: 0 }].map(|n| samples(&run(&model, &given, n)));
    let exact: Vec<f32> = exact.into_iter().map(|x| x as f32).collect();
    let by = of_peak(&exact, moved);
    assert!((1e-7..5e-6).contains(&by), "{by:e}");
}

#[test]
fn what_it_cannot_take_is_refused() {
    let weights = Recorded::read("vocos").weights();
    let (model, plain) = (of(&weights), dimensions(&weights));
    let fed = |length: usize, count: usize| {
        let frames = [Frames { length, values: vec![0.5; count] }];
        let driven = model.driven(&frames, &mut || Ok(())).map(|_| ());
        let run = model.run(&frames, Numbers::Exact, &mut || Ok(())).map(|_| ());
        assert_eq!(driven.is_ok(), run.is_ok());
        run
    };
    assert!(fed(2, 40).is_ok());
    for (length, count) in [(1, 20), (0, 0), (2, 39), (usize::MAX, 40)] {
        let Err(Error::Refused(refused)) = fed(length, count) else { panic!("{length} {count}") };
        assert_eq!(refused.code, "checkpoint-shape");
    }
    let stopped =
        model.run(&[Frames { length: 2, values: vec![0.5; 40] }], Numbers::Exact, &mut || {
            Err(Error::Interrupted)
        });
    assert!(matches!(stopped, Err(Error::Interrupted)));
    let refused = |change: &dyn Fn(&mut Dimensions)| {
        let mut dimensions = plain;
        change(&mut dimensions);
        InDouble::new(&VOCOS, &dimensions, &weights).map(|_| ()).map_err(|refused| refused.message)
    };
    assert!(refused(&|_| {}).is_ok());
    for (change, why) in [
        (&(|d: &mut Dimensions| d.n_fft = 0) as &dyn Fn(&mut Dimensions), "hops"),
        (&|d| d.n_fft = 66, "hops"),
        (&|d| d.n_fft = usize::MAX - 3, "`head.out.weight` is"),
        (&|d| d.dw_kernel = 2, "even kernel"),
        (&|d| d.input_kernel = 3, "`decoder.embed.weight` is [24, 20, 1], expected [24, 20, 3]"),
        (&|d| d.layers = 3, "`decoder.convnext.2.dwconv.weight` is missing"),
    ] {
        let message = refused(change).unwrap_err();
        assert!(message.contains(why), "{message}");
    }
}
