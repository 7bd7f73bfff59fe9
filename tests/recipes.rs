//! Recipes from outside: the hostile folder with its expected messages, and random ones.
//!
//! `UPDATE_EXPECT=1 cargo test --release --test recipes` writes the `.err` files again.

use std::path::Path;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};
use proptest::prelude::*;
use soprano_export::family::recipes;
use soprano_export::names::{Exporter, Oracle, Precision, Role, Word as _};
use soprano_export::recipe::{
    self, Causal, CausalFp32, CausalGate, CausalReferences, CausalTolerance, Error, Form, Fp32Speech,
    Gate, Granularity, Graph, Graphs, Int8, Int8Speech, OpenVinoTarget, Recipe, Signal, SignalFp32,
    SignalReferences, SignalTolerance, Speech, Targets, Terms, Via,
};

fn rendered(error: &Error) -> String {
    let mut text = String::new();
    GraphicalReportHandler::new_themed(GraphicalTheme::none())
        .with_width(100)
        .with_links(false)
        .render_report(&mut text, error)
        .expect("a string takes every write");
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n") + "\n"
}

#[test]
fn hostile_recipes_are_refused_with_their_messages() {
    let folder = Path::new("tests/hostile/recipes");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "yaml"));
    paths.sort();
    assert!(paths.len() > 30, "the folder is there");
    let mut wrong = Vec::new();
    for path in paths {
        let error = recipes().read(&path).expect_err(&path.display().to_string());
        let first = error.to_string();
        assert!(first.starts_with(&format!("{}:", path.display())), "names the place: {first}");
        let (code, help) = (error.code().map(|c| c.to_string()), error.help().map(|h| h.to_string()));
        assert!(code.is_some_and(|code| code.starts_with("recipe::")), "{first}");
        let met = rendered(&error);
        assert!(help.is_some() || first.contains("expected"), "a hint: {met}");
        let expected = path.with_extension("err");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&expected, &met).unwrap();
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != met {
            wrong.push(format!("{}\n{met}", expected.display()));
        }
    }
    assert!(wrong.is_empty(), "differ from their .err files:\n{}", wrong.join("\n"));
}

#[test]
fn a_file_too_large_is_not_read_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.yaml");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(1 << 32).unwrap();
    assert!(matches!(recipes().read(&path), Err(Error::TooLarge { .. })));
    assert!(matches!(recipes().read(folder.path()), Err(Error::Io { .. })), "a folder");
    let text = " ".repeat(recipe::MOST_BYTES + 1);
    assert!(matches!(recipes().parse(&text, "t.yaml"), Err(Error::TooLarge { .. })));
}

prop_compose! {
    fn references()(
        lengths in prop::collection::btree_set(2u32..=4096, 1..16),
        batches in prop::collection::btree_set(1u32..=64, 1..16),
        extreme: bool,
        seed: u64,
        sentences in prop::collection::vec("[A-Z][a-z ,']{0,40}[.?!]", 0..4),
    ) -> SignalReferences {
        let shuffled = |set: std::collections::BTreeSet<u32>| set.into_iter().rev().collect();
        SignalReferences { lengths: shuffled(lengths), batches: shuffled(batches), extreme, seed, sentences }
    }
}

prop_compose! {
    fn tolerance()(
        max_abs_of_peak in prop_oneof![f64::MIN_POSITIVE..=1e-4, Just(5e-324), Just(1e-4), Just(1e-7)],
        snr_db in prop_oneof![40.0..=200.0, Just(40.0), Just(90.0)],
        log_spectral_distance_db in prop_oneof![f64::MIN_POSITIVE..=1.0, Just(1.0)],
    ) -> SignalTolerance {
        SignalTolerance { fp32: SignalFp32 { max_abs_of_peak, snr_db, log_spectral_distance_db } }
    }
}

prop_compose! {
    fn decoder()(
        opset in 13u32..=20,
        file in "[a-z0-9][a-z0-9._-]{0,40}[a-z0-9_-]",
        passes in prop::option::of(prop::collection::btree_set("[a-z0-9]{1,9}(-[a-z0-9]{1,9}){0,3}", 0..4)),
        time_limit_seconds in 1u64..=604_800,
        references in references(),
        tolerance in tolerance(),
        int8 in prop::option::of(int8()),
        targets in targets(Role::Signal),
    ) -> Signal {
        let passes = passes.map(|names| names.into_iter().collect());
        Signal { opset, file, passes, time_limit_seconds, references, tolerance, int8, targets, ..Signal::default() }
    }
}

prop_compose! {
    fn int8()(
        two: bool,
        granularity in prop::sample::select(&[Granularity::Row, Granularity::Tensor][..]),
        form in prop::sample::select(&[Form::Dynamic, Form::Static, Form::Blocks8, Form::Blocks4][..]),
        smoothing in prop::option::of(0.0..=1.0),
        reduce_range: bool,
        two_terms in prop::collection::vec("[/a-zA-Z0-9_.]{1,20}\\*?", 0..4),
        keep_fp32 in prop::collection::vec("[/a-zA-Z0-9_.]{1,20}\\*?", 0..4),
        snr_db in prop_oneof![12.0..=200.0, Just(12.0)],
    ) -> Int8 {
        let activations = if two { Terms::Two } else { Terms::One };
        if form.is_blocks() {
            // Their kernel says how activations are.
            return Int8 { form, smoothing, keep_fp32, snr_db, ..Int8::default() };
        }
        Int8 { form, smoothing, activations, granularity, reduce_range, two_terms, keep_fp32, snr_db }
    }
}

prop_compose! {
    fn targets(role: Role)(
        some: bool,
        precisions in prop::collection::btree_set(prop::sample::select(Precision::ALL), 1..=3),
        torch: bool,
        stateful: bool,
        calibrated: bool,
        shapes in prop::collection::btree_map(
            "[a-z_.0-9]{1,20}",
            prop::collection::vec("[1-9][0-9]{0,3}|\\?|[0-9]\\.\\.[1-9][0-9]", 1..5),
            0..3,
        ),
        keep_fp32 in prop::collection::vec("[/a-zA-Z0-9_.]{1,20}", 0..4),
        fp16_snr_db in 12.0..=200.0,
        int8_snr_db in 12.0..=200.0,
    ) -> Targets {
        let via = if torch { Via::Torch } else { Via::Onnx };
        let stateful = stateful && role == Role::Causal && !torch;
        let calibrated = calibrated && role == Role::Signal && precisions.contains(&Precision::Int8);
        let precisions = precisions.into_iter().rev().collect();
        let target = OpenVinoTarget {
            precisions,
            via,
            stateful,
            calibrated,
            shapes,
            keep_fp32,
            fp16_snr_db,
            int8_snr_db,
        };
        Targets { openvino: some.then_some(target) }
    }
}

prop_compose! {
    fn lm()(
        opset in 13u32..=20,
        exporter in prop::option::of(prop::sample::select(Exporter::ALL)),
        file in "[a-z0-9][a-z0-9._-]{0,40}[a-z0-9_-]",
        hidden_states in prop::collection::btree_set(0u32..=40, 0..4),
        last_logits: bool,
        time_limit_seconds in 1u64..=604_800,
        prefills in prop::collection::btree_set(1u32..=1024, 1..16),
        batch in 2u32..=64,
        steps in 8u32..=512,
        seed: u64,
        sentences in prop::collection::vec("[A-Z][a-z ,']{0,40}[.?!]", 0..4),
        max_abs in prop_oneof![f64::MIN_POSITIVE..=1e-3, Just(1e-3)],
        snr_db in 60.0..=200.0,
        top_1_agreement in 0.99..=1.0,
        error_growth in prop_oneof![f64::MIN_POSITIVE..=4.0, Just(4.0)],
        int8 in prop::option::of(int8()),
        passes in prop::option::of(prop::collection::btree_set("[a-z0-9]{1,9}(-[a-z0-9]{1,9}){0,3}", 0..4)),
        step_ms in prop::option::of(0.001..=1e6),
        targets in targets(Role::Causal),
    ) -> Causal {
        let prefills = prefills.into_iter().rev().collect();
        let references = CausalReferences { prefills, batch, steps, seed, sentences };
        let fp32 = CausalFp32 { max_abs, snr_db, top_1_agreement, error_growth };
        let tolerance = CausalTolerance { fp32 };
        let gate = step_ms.map(|ms| CausalGate { step_ms: Some(ms), ..CausalGate::default() });
        let hidden_states = hidden_states.into_iter().rev().collect();
        let passes = passes.map(|names| names.into_iter().collect());
        Causal {
            opset, exporter, file, hidden_states, last_logits, passes, time_limit_seconds, references, tolerance,
            int8, targets, gate, ..Causal::default()
        }
    }
}

prop_compose! {
    fn speech()(
        sentences in prop::collection::vec(prop_oneof!["[A-Z][a-z ,']{0,40}[.?!]", "[^\\p{Cc}]{0,60}[a-z]"], 1..20),
        repetition_penalty in prop_oneof![1.0..=10.0, Just(1.0), Just(1.2)],
        snr_db in prop_oneof![40.0..=200.0, Just(60.0)],
        stoi in prop_oneof![0.75..=1.0, Just(1.0)],
        mel_cepstral_distortion_db in prop_oneof![f64::MIN_POSITIVE..=6.0, Just(6.0)],
        pesq in prop::option::of(2.0..=4.5),
    ) -> Speech {
        let (fp32, int8) = (Fp32Speech { snr_db }, Int8Speech { stoi, mel_cepstral_distortion_db, pesq });
        Speech { sentences, repetition_penalty, fp32, int8 }
    }
}

/// Texts that YAML reads as something else unless they are quoted.
const TRAPS: [&str; 16] = [
    "1e-5", "0x1f", "017", "null", "~", "true", "no", "1_000", "1:30", "- x", "a: b", "a #b", "*a",
    "&a", "!tag", "'\"",
];

prop_compose! {
    fn valid()(
        name in prop_oneof!["[a-z0-9][a-z0-9._-]{0,61}[a-z0-9_-]", "[0-9]{1,3}(\\.[0-9]{1,3})?", "[0-9]e[0-9]"],
        source in prop_oneof![prop::sample::select(&TRAPS[..]).prop_map(str::to_owned), "[^\\p{Cc}]{0,40}[a-z]"],
        license in "[A-Za-z0-9][A-Za-z0-9.+-]{0,20}",
        references in prop::option::of(prop::sample::select(Oracle::ALL)),
        base_model in prop::option::of("[A-Za-z0-9][A-Za-z0-9._-]{0,20}/[A-Za-z0-9][A-Za-z0-9._-]{0,20}"),
        parts in prop_oneof![
            decoder().prop_map(|decoder| (Some(decoder), None, None)),
            lm().prop_map(|lm| (None, Some(lm), None)),
            (decoder(), lm(), prop::option::of(speech()))
                .prop_map(|(decoder, lm, speech)| (Some(decoder), Some(lm), speech)),
        ],
    ) -> Recipe {
        let (decoder, lm, speech) = parts;
        let gate = speech.as_ref().map(|_| Gate { realtime_factor: Some(2.5) });
        let decoder = decoder.map(|graph| ("decoder".to_owned(), Graph::Signal(Box::new(graph))));
        let lm = lm.map(|graph| ("lm".to_owned(), Graph::Causal(Box::new(graph))));
        let graphs = Graphs(decoder.into_iter().chain(lm).collect());
        Recipe {
            name,
            family: "soprano".into(),
            source,
            license,
            base_model,
            references,
            graphs,
            speech,
            gate,
        }
    }
}

/// A built-in recipe after some cuts and insertions.
fn mutated() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(
            &[
                "\n",
                "  ",
                "\t",
                ": ",
                "- ",
                "[",
                "]",
                "{",
                "}",
                "&a ",
                "*a",
                "!!str ",
                "!x ",
                "'",
                "\"",
                "|\n",
                ">",
                "---\n",
                "...\n",
                "? ",
                "<<: ",
                "%YAML 1.2\n",
                "#",
                "\u{feff}",
                "\0",
                "é",
                "\u{2028}",
                "\u{85}",
                "\r",
                ".nan",
                "-1",
                "1e999",
                "18446744073709551616",
                "null",
                "name: a\n",
            ][..]
        )
        .prop_map(str::to_owned),
        "\\PC{0,8}",
    ];
    let edit = (any::<prop::sample::Index>(), 0usize..12, piece);
    (prop::sample::select(recipes().builtin), prop::collection::vec(edit, 1..8)).prop_map(
        |((_, text), edits)| {
            let mut text: Vec<char> = text.chars().collect();
            for (at, cut, piece) in edits {
                let from = at.index(text.len() + 1);
                let to = (from + cut).min(text.len());
                text.splice(from..to, piece.chars());
            }
            text.into_iter().collect()
        },
    )
}

/// Whatever a text is, its error is shown with a place inside the text.
fn parse_is_total(text: &str) -> Result<(), TestCaseError> {
    match recipes().parse(text, "t.yaml") {
        Ok(recipe) => {
            prop_assert_eq!(recipes().parse(&recipe.to_yaml(), "again.yaml").unwrap(), recipe)
        }
        Err(error) => {
            prop_assert!(!rendered(&error).is_empty());
            if let Error::Text(misfit) = &error {
                prop_assert!(misfit.line <= text.split('\n').count(), "{}", misfit);
                prop_assert!(
                    misfit.column >= 1 && misfit.column <= text.chars().count() + 1,
                    "{}",
                    misfit
                );
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn a_recipe_written_in_full_reads_back(recipe in valid()) {
        let text = recipe.to_yaml();
        let again = recipes().parse(&text, "t.yaml").map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
        prop_assert_eq!(&again, &recipe);
        prop_assert_eq!(again.to_yaml(), text);
    }

    #[test]
    fn any_text_is_a_recipe_or_an_error(text in "(\\PC|[\\n\\t:{}\\[\\]&*!|>'\"%#-]){0,200}") {
        parse_is_total(&text)?;
    }

    #[test]
    fn a_damaged_recipe_is_a_recipe_or_an_error(text in mutated()) {
        parse_is_total(&text)?;
    }
}
