"""A tokenizer in upstream's layout, its merges learned from given texts."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

CONTROL = ("[UNK]", "[TEXT]", "[START]", "[STOP]")
CHARACTERS = " !\"$%&'*+,-./0123456789<>?_abcdefghijklmnopqrstuvwxyz"


def build(texts: list[str], audio_tokens: int, merges: int, longest: int = 1024) -> Any:
    """A `PreTrainedTokenizerFast` for `longest` positions, with ids in upstream's order: control tokens,
    `[0]`..., characters, then BPE merges inside words, as many as `texts` give and at most `merges`.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = [*CONTROL, *(f"[{each}]" for each in range(audio_tokens))]
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(Regex(r"\s+"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Split(Regex(r"\s+|\w+|[^\w\s]+"), behavior="isolated"),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=len(special) + len(CHARACTERS) + merges,
        special_tokens=special,
        initial_alphabet=list(CHARACTERS),
        limit_alphabet=len(CHARACTERS),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        bos_token="[STOP]",
        eos_token="[STOP]",
        pad_token="[STOP]",
        padding_side="left",
        model_max_length=longest,
        clean_up_tokenization_spaces=False,
    )


def files(tokenizer: Any) -> dict[str, bytes]:
    """The files of a tokenizer: tokenizer.json, tokenizer_config.json, special_tokens_map.json."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
