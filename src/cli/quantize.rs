use super::arguments::{Granularity, Quantize, QuantizedForm};
use super::terminal::{bytes, row, table};
use super::{Outcome, json, save, say, tell_sizes};
use crate::ir::Model;
use crate::quantize::{self, Options};
use crate::recipe::{self, Form, Terms};

/// An option that says how activations of another form are held.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("--form {form} knows no {option}: the kernel holds activations as it does")]
#[diagnostic(code(cli::quantize), help("leave out {option}, or write --form dynamic"))]
struct OtherForm {
    form: &'static str,
    option: &'static str,
}

pub(super) fn quantize(options: &Quantize) -> Outcome {
    let form = match options.form {
        QuantizedForm::Dynamic => Form::Dynamic,
        QuantizedForm::Blocks8 => Form::Blocks8,
        QuantizedForm::Blocks4 => Form::Blocks4,
    };
    let form_name = match form {
        Form::Blocks8 => Some("blocks-8"),
        Form::Blocks4 => Some("blocks-4"),
        Form::Dynamic | Form::Static => None,
    };
    let set = [
        ("--two-terms", options.two_terms),
        ("--two-terms-at", !options.two_terms_at.is_empty()),
        ("--granularity", options.granularity == Granularity::Tensor),
        ("--reduce-range", options.reduce_range),
    ];
    if let (Some(form), Some((option, _))) = (form_name, set.iter().find(|(_, set)| *set)) {
        return Err(Box::new(OtherForm { form, option }));
    }
    let plan = Options {
        form,
        terms: if options.two_terms { Terms::Two } else { Terms::One },
        granularity: match options.granularity {
            Granularity::Row => recipe::Granularity::Row,
            Granularity::Tensor => recipe::Granularity::Tensor,
        },
        two_terms: options.two_terms_at.clone(),
        keep_fp32: options.keep_fp32.clone(),
        reduce_range: options.reduce_range,
        ..Options::default()
    };
    let mut model = Model::open_checked(&options.model)?;
    let report = quantize::quantize(&mut model, &plan)?;
    let saved = save(&model, &options.output, &options.written)?;
    let mut rows = vec![row!["", "count"]];
    rows.push(row!["products", report.products.len()]);
    rows.push(row!["tables", report.tables.len()]);
    let others: usize = report.others.iter().map(|other| other.count).sum();
    rows.push(row!["kept in fp32", report.kept.len() + others]);
    tell!("{}", table(&rows));
    for (node, why) in &report.kept {
        tellln!("{node:?} stays fp32: {why}");
    }
    report.others.iter().for_each(|other| tellln!("{other}"));
    for (weight, more) in &report.twice {
        tellln!(
            "warning: the weight {weight:?} is there in 8 bits and, for a node that was named to stay, in fp32: {} more",
            bytes(*more)
        );
    }
    for (pattern, why) in &report.idle {
        tellln!("warning: {pattern:?} changes nothing: {why}");
    }
    tell_sizes(report.nodes, report.weight_bytes, &saved);
    if options.written.json {
        return say(&json(&report));
    }
    say(&format!("{}\n", options.output.display()))
}
