//! A tokenizer in upstream's layout, of any size.

use std::io;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::files;
use crate::source::seeded::write_json;

const CONTROL: [&str; 4] = ["[UNK]", "[TEXT]", "[START]", "[STOP]"];
const CHARACTERS: &str = " !\"$%&'*+,-./0123456789<>?_abcdefghijklmnopqrstuvwxyz";
/// Upstream's, of its vocabulary of 8192; a smaller one has a third of what is left for merges.
const AUDIO_TOKENS: usize = 8000;
/// What byte-pair encoding learns, in its order, from the text that the Python package's synthetic tokenizers have.
const MERGES: &str = include_str!("merges.txt");

/// Writes `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json` of a tokenizer with that many tokens:
/// control tokens, `[0]`…, characters, merges. They depend on nothing else.
///
/// # Errors
/// Where a file can't be written.
pub fn write(vocabulary: usize, positions: usize, folder: &Path) -> io::Result<()> {
    let free = vocabulary.saturating_sub(CONTROL.len() + CHARACTERS.len());
    let merges: Vec<(&str, &str)> =
        MERGES.lines().take(free / 3).filter_map(|line| line.split_once(' ')).collect();
    let audio = AUDIO_TOKENS.min(free - merges.len());
    let special: Vec<String> = CONTROL
        .iter()
        .map(|&name| name.to_owned())
        .chain((0..audio).map(|at| format!("[{at}]")))
        .collect();
    // As the tokenizer writes itself: without a line's end.
    let text = serde_json::to_vec_pretty(&tokenizer(&special, &merges))?;
    files::write(&folder.join("tokenizer.json"), &text)?;
    write_json(&folder.join("tokenizer_config.json"), &config(&special, positions))?;
    let named = json!({
        "bos_token": "[STOP]", "eos_token": "[STOP]", "pad_token": "[STOP]", "unk_token": "[UNK]"
    });
    write_json(&folder.join("special_tokens_map.json"), &named)
}

fn tokenizer(special: &[String], merges: &[(&str, &str)]) -> Value {
    let added = special.iter().enumerate().map(|(id, content)| {
        json!({
            "id": id,
            "content": content,
            "single_word": false,
            "lstrip": false,
            "rstrip": false,
            "normalized": false,
            "special": true,
        })
    });
    let characters = CHARACTERS.chars().map(String::from);
    let merged = merges.iter().map(|(left, right)| format!("{left}{right}"));
    let tokens = special.iter().cloned().chain(characters).chain(merged);
    let vocabulary: Map<String, Value> =
        tokens.enumerate().map(|(id, token)| (token, json!(id))).collect();
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                { "type": "Lowercase" },
                { "type": "Replace", "pattern": { "Regex": "\\s+" }, "content": " " },
            ],
        },
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                { "type": "Digits", "individual_digits": true },
                {
                    "type": "Split",
                    "pattern": { "Regex": "\\s+|\\w+|[^\\w\\s]+" },
                    "behavior": "Isolated",
                    "invert": false,
                },
            ],
        },
        "post_processor": null,
        "decoder": null,
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": "[UNK]",
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": false,
            "vocab": vocabulary,
            "merges": merges,
        },
    })
}

fn config(special: &[String], positions: usize) -> Value {
    let added: Map<String, Value> = special
        .iter()
        .enumerate()
        .map(|(id, content)| {
            let token = json!({
                "content": content,
                "lstrip": false,
                "normalized": false,
                "rstrip": false,
                "single_word": false,
                "special": true,
            });
            (id.to_string(), token)
        })
        .collect();
    json!({
        "added_tokens_decoder": added,
        "bos_token": "[STOP]",
        "clean_up_tokenization_spaces": false,
        "eos_token": "[STOP]",
        "extra_special_tokens": {},
        "model_max_length": positions,
        "pad_token": "[STOP]",
        "padding_side": "left",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "[UNK]",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tokenizer_fills_its_vocabulary_in_upstreams_order() {
        for (vocabulary, audio, merges, reader) in [
            (8192, 8000, 135, &["read", "er"][..]),
            (160, 69, 34, &["r", "ead", "er"]),
            (150, 62, 31, &["r", "ea", "d", "er"]),
        ] {
            let folder = tempfile::tempdir().unwrap();
            write(vocabulary, 256, folder.path()).unwrap();
            let path = folder.path().join("tokenizer.json");
            let tokenizer = tokenizers::Tokenizer::from_file(path).unwrap();
            assert_eq!(tokenizer.get_vocab_size(true), vocabulary);
            let id = |token: &str| tokenizer.token_to_id(token).unwrap() as usize;
            assert_eq!((id("[UNK]"), id("[STOP]"), id("[0]")), (0, 3, 4));
            assert_eq!(id(&format!("[{}]", audio - 1)), 3 + audio);
            assert_eq!((id(" "), id("z"), id("th")), (4 + audio, 4 + audio + 52, 4 + audio + 53));
            assert_eq!(vocabulary, 4 + audio + CHARACTERS.len() + merges);
            let tokens = |text: &str| tokenizer.encode(text, false).unwrap().get_tokens().to_vec();
            let (begin, end) = (["[STOP]", "[TEXT]", "the", " "], [".", " ", "1", "2", "[START]"]);
            let spoken = tokens("[STOP][TEXT]The\n reader.  12[START]");
            assert_eq!(spoken, [&begin[..], reader, &end].concat());
            assert_eq!(tokens("é#"), ["[UNK]", "[UNK]"]);
        }
    }
}
