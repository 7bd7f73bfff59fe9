"""Checkpoints that were drawn without PyTorch, against upstream's classes and the package's own draw.

Without arguments: the presets of each family, as JSON. Otherwise each argument is FAMILY:PRESET:FOLDER, and
a line is printed for each that is as it should be.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from safetensors import safe_open
from soprano_export import families, language_model
from soprano_export.families.soprano import checkpoint, synthetic


def header(path: Path) -> list[tuple[str, tuple[int, ...], str]]:
    """Names, shapes and types, in the order of the file."""
    with safe_open(path, "pt") as file:
        assert file.metadata() in (None, {"format": "pt"})
        slices = {name: file.get_slice(name) for name in file.offset_keys()}
    return [(name, tuple(each.get_shape()), each.get_dtype()) for name, each in slices.items()]


def check_language_model(ours: Path, theirs: Path, stop: str | None) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    one, other = (AutoConfig.from_pretrained(folder).to_dict() for folder in (ours, theirs))
    differ = {name for name in one | other if one.get(name) != other.get(name)} - {"_name_or_path"}
    assert not differ, differ
    assert header(ours / "model.safetensors") == header(theirs / "model.safetensors")
    _, loading = AutoModelForCausalLM.from_pretrained(ours, output_loading_info=True)
    assert not any(loading.values()), loading
    model = language_model.load(ours, stop)
    with torch.inference_mode():
        logits = model(torch.tensor([[3, 40, 41, 42]])).logits
    assert torch.isfinite(logits).all() and 0.01 < float(logits.std()) < 30
    for path in sorted(theirs.glob("*.json")):
        if path.name != "config.json":
            assert (ours / path.name).read_bytes() == path.read_bytes(), path.name
    if stop:
        one, other = (AutoTokenizer.from_pretrained(folder) for folder in (ours, theirs))
        for text in (f"{stop}[TEXT]{synthetic.TEXT}[START]", "42 boats, 'quick' é", " \n "):
            assert one(text).input_ids == other(text).input_ids


def check_decoder(ours: Path, preset: str) -> None:
    module, architecture = checkpoint.load(ours)
    assert architecture == synthetic.PRESETS[preset]
    path = ours / "decoder.pth"
    state = torch.load(path, weights_only=True)
    mapped = torch.load(path, weights_only=True, mmap=True)
    assert all(torch.equal(tensor, mapped[name]) for name, tensor in state.items())
    # What `torch.save` itself writes of these tensors.
    with tempfile.NamedTemporaryFile() as file:
        torch.save(type(state)((name, tensor.clone()) for name, tensor in state.items()), file)
        file.flush()
        with zipfile.ZipFile(file.name) as saved, zipfile.ZipFile(path) as drawn:
            (pickle,) = (name for name in saved.namelist() if name.endswith("/data.pkl"))
            assert drawn.read("archive/data.pkl") == saved.read(pickle)
            assert drawn.testzip() is None
    window = torch.hann_window(architecture.n_fft)
    assert float((state["head.istft.window"] - window).abs().max()) < 1e-6
    with torch.inference_mode():
        hidden = torch.randn(1, architecture.input_channels, 20, generator=torch.manual_seed(0))
        audio = module(hidden)
    assert torch.isfinite(audio).all() and 0.05 < float(audio.abs().max()) < 50


def check(family: str, preset: str, ours: Path) -> None:
    graphs = ["lm", "decoder"] if family == "soprano" else ["lm"]
    with tempfile.TemporaryDirectory() as folder:
        theirs = Path(folder)
        for path, data in families.load(family).synthesize(preset, 0, graphs)[1].values():
            (theirs / path).write_bytes(data)
        made = {path.name for path in ours.iterdir()} - {"stage.json"}
        assert {path.name for path in theirs.iterdir()} == made
        if (theirs / "config.json").exists():
            check_language_model(ours, theirs, "[STOP]" if family == "soprano" else None)
        else:
            assert header(ours / "head.safetensors") == header(theirs / "head.safetensors")
    if family == "soprano":
        check_decoder(ours, preset)


if __name__ == "__main__":
    if not sys.argv[1:]:
        print(json.dumps({name: families.load(name).presets for name in ("soprano", "plain")}))
    warnings.simplefilter("error")
    for argument in sys.argv[1:]:
        family, preset, folder = argument.split(":", 2)
        check(family, preset, Path(folder))
        print(family, preset)
