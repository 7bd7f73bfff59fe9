"""Train soprano-mini, a small voice in upstream's own checkpoint format, from nothing.

    .venv/bin/python python/training/train_mini.py [--output fixtures/soprano-mini] [--steps N]

Needs `espeak-ng`, which speaks the sentences (Debian: apt-get install espeak-ng). Runs on the CPU. State
is kept in `build/soprano-mini/`: an interrupted training goes on where its last save was.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import corpus
import numpy as np
import sentences
import torch
from scipy.io import wavfile
from score import stoi
from soprano_export.families.soprano import synthetic, tokenizer, upstream
from soprano_export.families.soprano.upstream import Architecture
from soprano_export.families.soprano.voice import Voice
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]
SEED = 20
AUDIO_TOKENS = 256
MERGES = 96
LM = {
    "hidden_size": 192,
    "intermediate_size": 640,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
DECODER = Architecture(192, 208, 624, 4, 1, 3, 2048)
BATCH = 4
RATE = 1e-3
WARMUP = 100
RESOLUTIONS = (256, 512, 1024, 2048)
HIDDEN_NOISE = 0.03
"""Relative noise on the hidden states while training: the decoder should bear a quantized language model."""
SAVE_EVERY = 100


class Trainer:
    """Both models, trained together: cross-entropy on the tokens, spectra on the decoded audio."""

    def __init__(self, state: Path, steps: int) -> None:
        from transformers import Qwen3Config, Qwen3ForCausalLM

        torch.manual_seed(SEED)
        self.state, self.steps, self.step, self.seconds = state, steps, 0, 0.0
        self.utterances = corpus.build(sentences.VOICES, AUDIO_TOKENS, SEED)
        self.tokenizer = tokenizer.build([each.text for each in self.utterances], AUDIO_TOKENS, MERGES)
        stop = self.tokenizer.eos_token_id
        config = Qwen3Config(vocab_size=len(self.tokenizer), bos_token_id=stop, eos_token_id=stop, **LM)
        self.model = Qwen3ForCausalLM(config)
        self.decoder = upstream.build(DECODER).to_empty(device="cpu")
        self.decoder.load_state_dict(synthetic.weights(DECODER, SEED))
        self.parameters = [*self.model.parameters(), *self.decoder.parameters()]
        matrices = [each for each in self.parameters if each.ndim > 1]
        vectors = [each for each in self.parameters if each.ndim < 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": 0.02}, {"params": vectors, "weight_decay": 0.0}],
            lr=RATE,
            betas=(0.9, 0.98),
        )
        self.windows = {size: torch.hann_window(size) for size in RESOLUTIONS}
        self.targets = [self.spectra(each.audio) for each in self.utterances]
        first = len(tokenizer.CONTROL)
        self.prompts = [
            self.tokenizer(f"[STOP][TEXT]{each.text}[START]")["input_ids"] for each in self.utterances
        ]
        self.tokens = [[first + each for each in utterance.classes] for utterance in self.utterances]
        self.shuffler = torch.Generator().manual_seed(SEED)
        self.queue: list[int] = []
        if state.exists():
            self.resume()

    def spectra(self, audio: torch.Tensor) -> dict[int, torch.Tensor]:
        return {
            size: torch.stft(audio, size, size // 4, window=window, return_complex=True)
            for size, window in self.windows.items()
        }

    def batch(self) -> list[int]:
        """The next sentences: every one once before any comes again, the order shuffled."""
        if len(self.queue) < BATCH:
            self.queue += torch.randperm(len(self.utterances), generator=self.shuffler).tolist()
        chosen, self.queue = self.queue[:BATCH], self.queue[BATCH:]
        return chosen

    def losses(self, chosen: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy per token, and spectral loss averaged over the sentences."""
        stop = self.tokenizer.eos_token_id
        rows = [self.prompts[each] + self.tokens[each] for each in chosen]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [stop] * (longest - len(row)) for row in rows])
        hidden = self.model.model(ids).last_hidden_state
        entropy, spectral, count = torch.zeros(()), torch.zeros(()), 0
        for place, each in enumerate(chosen):
            start, length = len(self.prompts[each]) - 1, len(self.tokens[each])
            predicting = hidden[place, start : start + length + 1]
            wanted = torch.tensor([*self.tokens[each], stop])
            logits = self.model.lm_head(predicting)
            entropy = entropy + torch.nn.functional.cross_entropy(logits, wanted, reduction="sum")
            count += length + 1
            # One by one: padding would change the last frames.
            kept = predicting[:-1].T[None]
            kept = kept + HIDDEN_NOISE * kept.detach().square().mean().sqrt() * torch.randn_like(kept)
            spectral = spectral + self.distance(self.decoder(kept)[0], self.targets[each])
        return entropy / count, spectral / len(chosen)

    def distance(self, audio: torch.Tensor, target: dict[int, torch.Tensor]) -> torch.Tensor:
        """Spectral convergence, log-magnitude L1 and complex L1 (relative), mean over the resolutions."""
        total = torch.zeros(())
        for size, made in self.spectra(audio).items():
            wanted = target[size]
            magnitude, true = made.abs().clamp(min=1e-5), wanted.abs().clamp(min=1e-5)
            total = total + (true - magnitude).norm() / true.norm()
            floor = 1e-3 * math.sqrt(size)
            total = total + (torch.log(true + floor) - torch.log(magnitude + floor)).abs().mean()
            total = total + torch.view_as_real(made - wanted).abs().mean() / true.mean()
        return total / len(RESOLUTIONS)

    def rate(self) -> float:
        if self.step < WARMUP:
            return RATE * (self.step + 1) / WARMUP
        return RATE * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * self.step / self.steps)))

    def train(self) -> None:
        bar = tqdm(total=self.steps, initial=self.step, unit="step", disable=None, mininterval=1)
        while self.step < self.steps:
            began = time.monotonic()
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate()
            self.model.train(), self.decoder.train()
            entropy, spectral = self.losses(self.batch())
            self.optimizer.zero_grad()
            (entropy + spectral).backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
            self.step += 1
            self.seconds += time.monotonic() - began
            bar.update()
            bar.set_postfix(tokens=f"{entropy.item():.4f}", spectra=f"{spectral.item():.3f}")
            if self.step % SAVE_EVERY == 0 or self.step == self.steps:
                self.save()
                tqdm.write(
                    f"step {self.step}: cross-entropy {entropy.item():.4f}, spectral {spectral.item():.3f}, "
                    f"{self.seconds:.0f} s",
                    file=sys.stderr,
                )
        bar.close()

    def save(self) -> None:
        self.state.parent.mkdir(parents=True, exist_ok=True)
        partial = self.state.with_suffix(".partial")
        torch.save(
            {
                "model": self.model.state_dict(),
                "decoder": self.decoder.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "random": torch.get_rng_state(),
                "shuffler": self.shuffler.get_state(),
                "queue": self.queue,
                "step": self.step,
                "seconds": self.seconds,
            },
            partial,
        )
        os.replace(partial, self.state)

    def resume(self) -> None:
        saved = torch.load(self.state, weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.decoder.load_state_dict(saved["decoder"])
        self.optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["random"])
        self.shuffler.set_state(saved["shuffler"])
        self.queue, self.step, self.seconds = saved["queue"], saved["step"], saved["seconds"]

    def write(self, output: Path) -> None:
        """The checkpoint in upstream's layout: language model in bf16, decoder in f32, as upstream's."""
        output.mkdir(parents=True, exist_ok=True)
        model = copy.deepcopy(self.model).to(torch.bfloat16)
        model.save_pretrained(output)
        self.tokenizer.save_pretrained(output)
        (output / "model.safetensors").chmod(0o644)
        state = {name: each.detach().clone() for name, each in self.decoder.state_dict().items()}
        (output / "decoder.pth").write_bytes(synthetic.serialize(state))

    def evaluate(self, directory: Path) -> dict:
        """Speak every sentence with the written checkpoint: its scores.

        Those that the checkpoint's test repeats leave their source audio and tokens in `recorded/`.
        """
        voice = Voice.load(directory)
        scores, records = [], []
        (directory / "recorded").mkdir(exist_ok=True)
        source = iter((name, text) for name, texts in sentences.VOICES.items() for text in texts)
        for place, (utterance, tokens) in enumerate(zip(self.utterances, self.tokens, strict=True)):
            spoken = voice.speak(utterance.text)
            name, sentence = next(source)
            score = {
                "voice": name,
                "sentence": sentence,
                "seconds": round(len(utterance.audio) / upstream.SAMPLE_RATE, 3),
                "same_tokens": spoken.stopped and spoken.tokens == tokens,
                "stoi": round(stoi(utterance.audio.numpy(), spoken.audio.numpy()), 4),
            }
            scores.append(score)
            if place in sentences.RECORDED:
                name = f"{place:02}.wav"
                samples = (utterance.audio * 32768).round().clamp(-32768, 32767).short().numpy()
                wavfile.write(directory / "recorded" / name, upstream.SAMPLE_RATE, samples)
                records.append(
                    {"text": utterance.text, "tokens": spoken.tokens, "stoi": score["stoi"], "source": name}
                )
        held_out = []
        for sentence in sentences.HELD_OUT:
            spoken = voice.speak(upstream.clean(sentence))
            held_out.append(
                {
                    "sentence": sentence,
                    "stopped": spoken.stopped,
                    "tokens": len(spoken.tokens),
                    "finite": bool(spoken.audio.isfinite().all()),
                    "rms": round(float(spoken.audio.square().mean().sqrt()), 4),
                }
            )
        text = json.dumps(records).replace("}, {", "},\n {")
        (directory / "recorded" / "records.json").write_text(text + "\n")
        return {
            "steps": self.step,
            "training_seconds": round(self.seconds),
            "threads": torch.get_num_threads(),
            "sentences": len(scores),
            "audio_seconds": round(sum(each["seconds"] for each in scores), 1),
            "same_tokens": sum(each["same_tokens"] for each in scores),
            "stoi_mean": round(float(np.mean([each["stoi"] for each in scores])), 4),
            "stoi_lowest": min(each["stoi"] for each in scores),
            "trained": scores,
            "held_out": held_out,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output", type=Path, default=ROOT / "fixtures" / "soprano-mini")
    parser.add_argument("--steps", type=int, default=7000)
    parser.add_argument("--state", type=Path, default=ROOT / "build" / "soprano-mini" / "state.pt")
    parser.add_argument("--evaluate", action="store_true", help="score the checkpoint that is there")
    arguments = parser.parse_args()
    trainer = Trainer(arguments.state, arguments.steps)
    if not arguments.evaluate:
        trainer.train()
        trainer.write(arguments.output)
    scores = trainer.evaluate(arguments.output)
    if arguments.evaluate:
        before = json.loads((arguments.output / "scores.json").read_text())
        scores = {**scores, **{key: before[key] for key in ("steps", "training_seconds", "threads")}}
    (arguments.output / "scores.json").write_text(json.dumps(scores, indent=1) + "\n")
    print(json.dumps({key: value for key, value in scores.items() if not isinstance(value, list)}))


if __name__ == "__main__":
    main()
