"""A whole voice: seconds of speech made in one second, one sentence at a time and 16, beside PyTorch eager.

Each way says as many tokens of as many sentences. Ours are whole processes, of which the time from the text
to the last sample counts, as in PyTorch; rounds take turns.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from decoder_onnxruntime import table
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python"))
from soprano_export.families.soprano import checkpoint

TEXT = "The quick brown fox jumps over the lazy dog, and then it goes home to sleep for the rest of the day."
SECONDS_A_TOKEN = 2048 / 32000


def ours(tool: Path, bundle: Path, count: int, tokens: int, threads: int, *more: str) -> dict:
    """Figures of one run of the tool."""
    with tempfile.TemporaryDirectory() as scratch:
        lines = Path(scratch) / "lines.txt"
        lines.write_text(f"{TEXT}\n" * count)
        target = ["-o", f"{scratch}/out", "--max-tokens", str(tokens), "--threads", str(threads), "--json"]
        said = [TEXT] if count == 1 else ["--batch", str(lines), "--at-once", str(count)]
        command = [str(tool.resolve()), "synth", str(bundle), *said, *target, *more]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


class Eager:
    """Upstream's calls: `generate` with hidden states, then the decoder, sentence by sentence."""

    def __init__(self, directory: Path) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(directory)
        self.decoder, _ = checkpoint.load(directory)

    @torch.inference_mode()
    def realtime(self, count: int, tokens: int) -> float:
        """Seconds of speech a second."""
        began = time.perf_counter()
        prompts = [f"[STOP][TEXT]{TEXT.lower()}[START]"] * count
        given = self.tokenizer(prompts, return_tensors="pt", padding=True)
        said = self.model.generate(
            input_ids=given["input_ids"],
            attention_mask=given["attention_mask"],
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=True,
            temperature=0.001,
            top_p=0.95,
            repetition_penalty=1.2,
            pad_token_id=self.tokenizer.pad_token_id,
            return_dict_in_generate=True,
            output_hidden_states=True,
        )
        rows = torch.stack([layers[-1][:, -1] for layers in said.hidden_states], 2)
        for sentence in rows:
            self.decoder(sentence[None])
        return count * (rows.shape[2] - 1) * SECONDS_A_TOKEN / (time.perf_counter() - began)


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tool", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=120)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    eager = Eager(given.checkpoint)
    ways = {
        "int8, onnxruntime": ["--runtime", "onnxruntime", "--scheme", "int8"],
        "int8, openvino": ["--runtime", "openvino", "--scheme", "int8"],
        "fp32, onnxruntime": ["--runtime", "onnxruntime", "--scheme", "fp32"],
    }
    found: dict[tuple[str, int], list[dict]] = {}
    beside: dict[int, list[float]] = {1: [], 16: []}
    for _ in range(given.rounds):
        for count in beside:
            for name, more in ways.items():
                run = ours(given.tool, given.bundle, count, given.tokens, given.threads, *more)
                found.setdefault((name, count), []).append(run)
            beside[count].append(eager.realtime(count, given.tokens))
        for name in list(ways)[:2]:
            run = ours(given.tool, given.bundle, 1, given.tokens, given.threads, "--stream", *ways[name])
            found.setdefault((f"{name}, streamed", 1), []).append(run)
    rows = []
    for (name, count), runs in found.items():
        best = max(runs, key=lambda run: run["realtime_factor"])
        first = min(run["first_audio_ms"] for run in runs)
        memory = max(run["peak_memory_bytes"] for run in runs) / 1e6
        factor = best["realtime_factor"]
        than = f"{factor / max(beside[count]):.1f}x"
        rows.append([name, str(count), f"{factor:.1f}x", than, f"{first:.0f}", f"{memory:.0f}"])
    for count, factors in beside.items():
        rows.append(["PyTorch eager", str(count), f"{max(factors):.1f}x", "1.0x", "", ""])
    print(f"{given.tokens} tokens a sentence, {given.threads} threads, best of {given.rounds}\n")
    head = ["voice", "at a time", "realtime", "than PyTorch eager", "first audio, ms", "peak memory, MB"]
    print(table(head, rows))


if __name__ == "__main__":
    main()
