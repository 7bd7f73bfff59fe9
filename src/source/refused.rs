/// Why a checkpoint is not taken: a code, which the Python exporters have too, and a sentence that names the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the checkpoint is refused ({code}): {message}")]
pub struct Refused {
    /// `checkpoint-missing`, `-format`, `-unsafe`, `-dtype`, `-shape`, `-nan`, `-config`, `-architecture`,
    /// `-window`, `-tokenizer`, or `lm-unsupported`.
    pub code: &'static str,
    /// What is wrong, and where.
    pub message: String,
    /// What helps; may be empty.
    pub hint: String,
}

impl Refused {
    /// A refusal.
    pub fn new(code: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: hint.into() }
    }
}

impl miette::Diagnostic for Refused {
    fn code<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        Some(Box::new(format!("source::{}", self.code)))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        (!self.hint.is_empty()).then(|| Box::new(&self.hint) as Box<dyn std::fmt::Display>)
    }
}
