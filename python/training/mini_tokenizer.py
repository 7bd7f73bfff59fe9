"""A tokenizer of upstream's pipeline with a vocabulary learned from the training sentences."""

from __future__ import annotations

from transformers import PreTrainedTokenizerFast

CONTROL = ("[UNK]", "[TEXT]", "[START]", "[STOP]")
CHARACTERS = " !\"$%&'*+,-./0123456789<>?_abcdefghijklmnopqrstuvwxyz"


def build(texts: list[str], audio_tokens: int, merges: int) -> PreTrainedTokenizerFast:
    """Ids in upstream's order: control tokens, `[0]`..., characters, then BPE merges inside words."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

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
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )
