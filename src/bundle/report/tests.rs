use super::*;

fn case(name: &str, snr_db: f64, passed: bool) -> CaseRow {
    CaseRow {
        name: name.into(),
        kind: "random".into(),
        batch: 1,
        length: 33,
        peak: 0.81,
        max_abs_of_peak: 10f64.powf(-snr_db / 20.0),
        snr_db,
        log_spectral_distance_db: Some(0.02),
        passed,
        ill_conditioned: None,
    }
}

fn section(cases: Vec<CaseRow>) -> ArtifactSection {
    ArtifactSection {
        file: "onnx/soprano_decoder_fp32.onnx".into(),
        bytes: 118_400_123,
        sha256: Digest::of(b"model"),
        weights: None,
        precision: "fp32".into(),
        runtime: "tract 0.23.9".into(),
        nodes: (1412, 391),
        weight_bytes: (119_000_000, 118_000_000),
        passes: vec![("lift-constants".into(), 96), ("replace-istft".into(), 1)],
        thresholds: vec![
            ("snr_db".into(), "≥ 60 dB".into()),
            ("max_abs_of_peak".into(), "≤ 1e-3".into()),
            ("samples".into(), "= 2048·(T − 1)".into()),
        ],
        passed: cases.iter().all(|case| case.passed),
        cases,
    }
}

fn page() -> Page {
    let pairs = |list: &[(&str, &str)]| {
        list.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    let int8 = ArtifactSection {
        file: "onnx/soprano_decoder_int8.onnx".into(),
        bytes: 31_000_000,
        precision: "int8".into(),
        ..section(vec![case("t-33", 31.5, true), case("t-2", 29.25, true)])
    };
    Page {
        name: "soprano-1.1".into(),
        checkpoint: "synthetic:soprano-1.1".into(),
        checkpoint_digest: Digest::of(b"checkpoint"),
        architecture: pairs(&[("hidden size", "512"), ("decoder layers", "8")]),
        environment: pairs(&[("torch", "2.9.0"), ("onnx", "1.19.1")]),
        artifacts: vec![
            section(vec![
                case("t-33", 121.0, true),
                case("t-2", 98.4, true),
                CaseRow { batch: 4, ..case("t-1", f64::INFINITY, true) },
            ]),
            int8,
        ],
        listening: None,
        float64: false,
    }
}

/// A gliding harmonic tone in syllables, and the same with a little noise that follows it.
fn listening(samples: usize) -> Listening {
    let (mut phase, mut seed) = (0.0f64, 1u32);
    let reference: Vec<f32> = (0..samples)
        .map(|i| {
            let t = i as f64 / 32_000.0;
            phase += (180.0 + 60.0 * (2.1 * t).sin()) * std::f64::consts::TAU / 32_000.0;
            let envelope = (4.7 * t).sin().max(0.0).powf(0.6) * (0.6 + 0.4 * (0.9 * t).cos());
            let tone: f64 =
                (1..40).map(|h| (f64::from(h) * phase).sin() / f64::from(h * h).powf(0.7)).sum();
            (0.3 * envelope * tone) as f32
        })
        .collect();
    let artifact = reference
        .iter()
        .map(|r| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            r + (r.abs() + 0.01) * ((f64::from(seed) / f64::from(u32::MAX) - 0.5) * 2e-4) as f32
        })
        .collect();
    Listening { title: "“A short sentence.”".into(), sample_rate: 32_000, reference, artifact }
}

fn card() -> Card {
    Card {
        name: "soprano-1.1".into(),
        base_model: Some("someone/soprano-1.1".into()),
        license: "apache-2.0".into(),
        tags: vec!["onnx".into(), "no".into()],
        checkpoint: "synthetic:soprano-1.1".into(),
        checkpoint_digest: Digest::of(b"checkpoint"),
        files: vec![(
            "onnx/soprano_decoder_fp32.onnx".into(),
            FileEntry { bytes: 118_400_123, sha256: Digest::of(b"model") },
        )],
        signal: Some(CardSignal {
            file: "onnx/soprano_decoder_fp32.onnx".into(),
            input: "hidden_states".into(),
            channels_last: false,
            channels: 512,
            output: "audio".into(),
            lead: 1,
            per_frame: 2048,
            sample_rate: 32_000,
        }),
        artifacts: page().artifacts,
        float64: false,
    }
}

#[test]
fn the_page_has_everything_in_it_and_asks_for_nothing_else() {
    let page = Page { listening: Some(listening(320_000)), ..page() };
    let html = html(&page);
    assert_eq!(html, super::html(&page.clone()), "equal data, equal bytes");
    for text in [
        "<strong>PASSED</strong> 2 artifact checks, 5 cases, every one within its limits",
        "≥ 60 dB",
        "≤ 1e-3",
        "samples = 2048·(T − 1)",
        "98.40 dB",
        "1,412 → 391",
        "118.4 MB (118,400,123 bytes)",
        "times as large",
        "synthetic:soprano-1.1",
        "2.9.0",
        ">kHz<",
        ">seconds<",
        "prefers-color-scheme: dark",
    ] {
        assert!(html.contains(text), "{text}");
    }
    assert_eq!(html.matches("data:audio/wav;base64,UklGR").count(), 2);
    assert_eq!(html.matches("data:image/bmp;base64,Qk").count(), 6, "three, each with its bar");
    assert_eq!(html.matches("class=\"wave\"").count(), 3);
    assert!(!html.contains("FAILED</"));
    for outside in ["<script", "http://", "https://", "url(", "<link", "@import", "NaN"] {
        assert!(!html.contains(outside), "{outside}");
    }
    assert!(html.len() < 2_000_000, "{} bytes for ten seconds", html.len());
    if let Some(path) = std::env::var_os("REPORT_PAGE") {
        fs_err::write(std::path::PathBuf::from(path), html).unwrap();
    }
}

#[test]
fn the_worst_case_stands_first_and_is_marked() {
    let section = section(vec![
        case("fine", 100.0, true),
        case("exact", f64::INFINITY, true),
        case("poor", 61.0, true),
        case("out", 80.0, false),
        case("broken", f64::NAN, true),
    ]);
    let order: Vec<&str> = section.worst_first().iter().map(|case| case.name.as_str()).collect();
    assert_eq!(order, ["broken", "out", "poor", "fine", "exact"]);
    assert!(section.least_snr_db().unwrap().is_nan());
    assert!(section.greatest_difference().unwrap().is_nan());
    let html = html(&Page { artifacts: vec![section], ..page() });
    assert!(html.contains("broken<span class=\"worst\">worst</span>"));
    assert_eq!(html.matches("class=\"worst\"").count(), 1);
}

#[test]
fn a_failure_is_said_in_words_wherever_it_is() {
    let failed = |page: &Page| {
        let html = html(page);
        assert!(html.contains("<title>FAILED"), "{}", page.sentence());
        assert!(html.contains("<strong>FAILED</strong>"));
        html
    };
    let mut one = page();
    one.artifacts[1].cases[0].passed = false;
    assert!(one.artifacts[1].passed, "contradicted by its own case");
    assert!(failed(&one).contains("1 of 5 cases failed; not accepted: onnx/soprano_decoder_int8.onnx"));

    let none = Page { artifacts: vec![], ..page() };
    assert!(failed(&none).contains("no artifact was checked"));
    let empty = Page { artifacts: vec![section(vec![])], ..page() };
    assert!(failed(&empty).contains("no case was run"));
    let refused = ArtifactSection { passed: false, ..section(vec![case("a", 90.0, true)]) };
    failed(&Page { artifacts: vec![refused], ..page() });
}

#[test]
fn what_is_no_number_is_a_word() {
    let row = CaseRow {
        peak: f64::NEG_INFINITY,
        max_abs_of_peak: f64::NAN,
        log_spectral_distance_db: None,
        ..case("a", f64::INFINITY, true)
    };
    let html = html(&Page { artifacts: vec![section(vec![row])], ..page() });
    for text in [">minus infinite<", ">not a number<", ">infinite<", ">no sound<", "FAILED"] {
        assert!(html.contains(text), "{text}");
    }
}

#[test]
fn names_are_text_and_never_markup() {
    let hostile = "\"><script>alert(1)</script>&|`\n# x";
    let mut page = page();
    (page.name, page.checkpoint) = (hostile.into(), hostile.into());
    page.artifacts[0].file = hostile.into();
    page.artifacts[0].cases[0].name = hostile.into();
    page.artifacts[0].thresholds[0].1 = hostile.into();
    page.environment[0].0 = hostile.into();
    page.listening = Some(Listening { title: hostile.into(), ..listening(100) });
    let html = html(&page);
    assert!(!html.contains("<script") && html.contains("&#60;script&#62;"));

    let mut card = card();
    (card.name, card.checkpoint) = (hostile.into(), hostile.into());
    (card.base_model, card.license) = (Some(hostile.into()), hostile.into());
    card.artifacts = page.artifacts;
    card.files[0].0 = hostile.into();
    let markdown = model_card(&card);
    let (front, body) = markdown[4..].split_once("\n---\n").unwrap();
    let front: serde_yaml::Value = serde_yaml::from_str(front).unwrap();
    assert_eq!(front["base_model"].as_str(), Some(hostile));
    assert!(!body.contains("<script") && !body.contains("\n# x"), "{body}");
    assert!(body.contains("\\|\\`"), "{body}");
}

#[test]
fn a_recording_that_is_broken_is_shown_as_broken() {
    let show = |reference: Vec<f32>, artifact: Vec<f32>| {
        let listening = Some(Listening { title: "x".into(), sample_rate: 32_000, reference, artifact });
        html(&Page { listening, artifacts: vec![], ..page() })
    };
    let bad = show(vec![0.1; 5000], [vec![0.1; 4999], vec![f32::NAN]].concat());
    assert!(bad.contains("No player: sample 4999 is NaN"));
    assert!(bad.contains("0 samples of the reference and 1 of the artifact are not numbers"));
    assert!(bad.contains("SNR not a number") && bad.contains("class=\"bad\""));
    let unequal = show(vec![0.1; 5000], vec![0.1; 10]);
    assert!(unequal.contains("the reference has 5,000 samples and the artifact 10"));
    assert_eq!(unequal.matches("class=\"wave\"").count(), 2);
    let equal = show(vec![0.0; 300], vec![0.0; 300]);
    assert!(equal.contains("zero wherever it is a number") && equal.contains("SNR infinite"));
    for (reference, artifact) in
        [(vec![], vec![]), (vec![f32::MAX], vec![f32::MIN]), (vec![1e-45], vec![0.0])]
    {
        assert!(!show(reference, artifact).contains("inf,"));
    }
}

#[test]
fn the_card_says_what_the_hub_and_a_reader_need() {
    let markdown = model_card(&card());
    assert_eq!(markdown, model_card(&card()));
    let (front, body) = markdown[4..].split_once("\n---\n").unwrap();
    assert!(markdown.starts_with("---\nbase_model: \"someone/soprano-1.1\"\nlibrary_name: onnx\n"));
    let front: serde_yaml::Value = serde_yaml::from_str(front).unwrap();
    assert_eq!(front["pipeline_tag"].as_str(), Some("text-to-speech"));
    assert!(markdown.contains("- \"no\"\n"), "YAML 1.1 reads a bare no as false");
    assert_eq!(front["license"].as_str(), Some("apache-2.0"));
    for line in [
        "# soprano-1.1",
        "| input | `hidden_states` | f32 | `[batch, 512, T]` |",
        "| output | `audio` | f32 | `[batch, 2048·(T − 1)]` |",
        "session = onnxruntime.InferenceSession(\"onnx/soprano_decoder_fp32.onnx\")",
        "(audio,) = session.run([\"audio\"], {\"hidden_states\": states})",
        "soprano-export verify DIR",
        "soprano-export validate DIR",
    ] {
        assert!(body.lines().any(|l| l == line), "{line}\n{body}");
    }
    assert!(body.contains("32,000 Hz") && body.contains("`T = 1` gives zero samples"));
    assert!(body.contains("| fp32 | tract 0.23.9 | 3 | 1.20e-5 | 98.40 dB | PASSED |"), "{body}");
    let hash = Digest::of(b"model");
    assert!(body.contains(&format!("| `onnx/soprano_decoder_fp32.onnx` | 118.4 MB | `{hash}` |\n")));
    if let Some(path) = std::env::var_os("REPORT_CARD") {
        fs_err::write(std::path::PathBuf::from(path), markdown).unwrap();
    }
}

#[test]
fn a_card_without_a_signal_graph_or_a_hub_id_leaves_them_out() {
    let markdown = model_card(&Card { base_model: None, signal: None, artifacts: vec![], ..card() });
    assert!(markdown.starts_with("---\nlibrary_name: onnx\n"));
    assert!(!markdown.contains("Inputs and outputs") && !markdown.contains("python"));
    assert!(markdown.contains("No artifact was checked."));
}

#[test]
fn a_case_that_can_not_judge_is_told_and_left_out_of_the_worst() {
    let mut page = page();
    let thrown =
        CaseRow { ill_conditioned: Some("5.90e1, -26.3 dB".into()), ..case("zeros", -26.0, true) };
    page.artifacts = vec![section(vec![case("b1", 110.0, true), thrown])];
    assert_eq!(page.artifacts[0].least_snr_db(), Some(110.0));
    assert!(page.artifacts[0].greatest_difference().unwrap() < 1e-5);
    assert_eq!(page.artifacts[0].worst_first()[0].name, "b1");
    let text = html(&page);
    assert_eq!(text.matches(">ILL-CONDITIONED<").count(), 1);
    assert!(
        text.contains("2 cases, of which 1 ill-conditioned; the others within their limits"),
        "{text}"
    );
    assert!(text.contains("2 cases, every one that can judge within its limits"), "{text}");
    page.artifacts[0].cases[1].passed = false;
    let text = html(&page);
    assert!(!text.contains(">ILL-CONDITIONED<") && text.contains("1 of 2 cases failed"), "{text}");
}

#[test]
fn every_table_scrolls_in_a_box_of_its_own() {
    let templates =
        [include_str!("../report.html"), include_str!("../bench.html"), include_str!("../speech.html")];
    for template in templates {
        let boxed = template.matches("<div class=\"scroll\"><table").count();
        assert_eq!(boxed, template.matches("<table").count(), "{template}");
        assert_eq!(boxed, template.matches("</table></div>").count(), "{template}");
    }
}
