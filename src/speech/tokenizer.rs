use std::path::Path;

use super::Error;

/// A checkpoint's own tokenizer.
///
/// Its file names the pad id 0 for the pad token `[STOP]`, whose id is 3; `encode_batch` would pad with
/// `[UNK]`. Nothing is padded here: the language model pads, with [`Tokenizer::stop`].
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    stop: i64,
}

const STOP: &str = "[STOP]";
/// What stands around a text in its prompt.
const AROUND: [&str; 3] = [STOP, "[TEXT]", "[START]"];

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where the file is not a tokenizer, or lacks one of `[STOP]`, `[TEXT]`, `[START]`.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let refuse = |why: String| Error::Tokenizer { path: path.to_owned(), why };
        let bytes = crate::files::read_small(path).map_err(|e| refuse(e.to_string()))?;
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(|e| refuse(e.to_string()))?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| refuse(e.to_string()))?;
        let id = |token: &str| inner.token_to_id(token);
        if let Some(missing) = AROUND.iter().find(|token| id(token).is_none()) {
            return Err(refuse(format!("it has no token {missing}: it is another model's")));
        }
        let stop = id(STOP).map_or(0, i64::from);
        let tokenizer = Self { inner, stop };
        let tokens = tokenizer.encode(&super::text::prompt("a"))?;
        let around = AROUND.map(|token| tokenizer.inner.token_to_id(token).map_or(-1, i64::from));
        let whole =
            tokens.len() >= 4 && tokens[..2] == around[..2] && tokens.last() == Some(&around[2]);
        if !whole {
            return Err(refuse(format!("it makes {tokens:?} of a prompt: it is another model's")));
        }
        Ok(tokenizer)
    }

    /// The token that ends a prompt's answer, and that stands where nothing is said.
    pub fn stop(&self) -> i64 {
        self.stop
    }

    /// A prompt's tokens.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] in the tokenizer's own words.
    pub fn encode(&self, prompt: &str) -> Result<Vec<i64>, Error> {
        let encoded = self.inner.encode(prompt, true).map_err(|error| Error::Tokenizer {
            path: "tokenizer.json".into(),
            why: error.to_string(),
        })?;
        Ok(encoded.get_ids().iter().map(|&id| i64::from(id)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINI: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/soprano-mini/tokenizer.json");

    #[test]
    fn a_prompt_keeps_its_marks() {
        let tokenizer = Tokenizer::read(Path::new(MINI)).unwrap();
        let ids = tokenizer.encode("[STOP][TEXT]hello there.[START]").unwrap();
        assert_eq!((ids[..2].to_vec(), ids.last(), tokenizer.stop()), (vec![3, 1], Some(&2), 3));
        assert!(ids[2..ids.len() - 1].iter().all(|&id| id > 3), "{ids:?}");
        // The characters of a word that was never merged are tokens of their own.
        assert!(tokenizer.encode("[STOP][TEXT]xq[START]").unwrap().len() == 5);
    }

    #[test]
    fn the_public_tokenizer_gives_the_known_prompt() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/tokenizer.json");
        if !file.is_file() {
            return eprintln!(
                "SKIPPED the_public_tokenizer_gives_the_known_prompt: {file:?} is not there"
            );
        }
        let ids = Tokenizer::read(&file).unwrap().encode("[STOP][TEXT]hello world.[START]").unwrap();
        assert_eq!(ids, [3, 1, 8077, 8070, 8045, 8004, 8053, 8076, 8139, 8015, 2]);
    }

    #[test]
    fn another_models_tokenizer_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        let why = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Tokenizer::read(&path).err().unwrap().to_string()
        };
        assert!(why("not json").contains("tokenizer.json"));
        let none = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
            "pre_tokenizer":null,"post_processor":null,"decoder":null,
            "model":{"type":"BPE","dropout":null,"unk_token":"a","continuing_subword_prefix":null,
            "end_of_word_suffix":null,"fuse_unk":false,"vocab":{"a":0},"merges":[]}}"#;
        assert!(why(none).contains("it has no token [STOP]"), "{}", why(none));
        // Its vocabulary has the marks, but they are not tokens in a text.
        let spelled = none.replace(
            r#"{"a":0}"#,
            r#"{"a":0,"[STOP]":1,"[TEXT]":2,"[START]":3,"[":4,"]":5,"S":6,"T":7,"O":8,"P":9,"E":10,"X":11,"R":12,"A":13}"#,
        );
        assert!(why(&spelled).contains("of a prompt"), "{}", why(&spelled));
    }
}
