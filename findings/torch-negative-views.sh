#!/usr/bin/env bash
# A tensor in a PyTorch checkpoint may be the negative of the bytes that its record holds.
#
# A saved view names its storage, offset, shape and strides, and it is natural to read a checkpoint by those four. The
# imaginary part of a conjugate is a view too, lazily negated: `torch.save` writes the storage as it lies (of the complex
# numbers, not conjugated) and a dictionary {'neg': True} as a last argument, after the hooks, that nearly no file has.
# A reader that passes over it gives every such value the wrong sign. A spectrum's phase can be one.
#
# Seen with torch 2.15.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.15.0 numpy
cd "$folder"
env/bin/python - <<'PYTHON'
import pickletools
import zipfile

import numpy as np
import torch

print("torch", torch.__version__)
view = torch.tensor([1 + 2j, 3 - 4j]).conj().imag
torch.save({"view": view}, "state.pt")
with zipfile.ZipFile("state.pt") as archive:
    names = {name.split("/", 1)[1]: name for name in archive.namelist()}
    stored = np.frombuffer(archive.read(names["data/0"]), np.float32)
    words = [word for _, word, _ in pickletools.genops(archive.read(names["data.pkl"]))]
by_strides = stored[view.storage_offset() :: view.stride(0)].tolist()
loaded = torch.load("state.pt", weights_only=True)["view"].tolist()
print("values", view.tolist(), "; by offset and stride", by_strides, "; loaded", loaded)
assert view.tolist() == loaded == [-2.0, 4.0]
assert by_strides == [2.0, -4.0]
assert "neg" in words
plain = torch.tensor([1.0, 2.0])
torch.save({"plain": plain}, "plain.pt")
with zipfile.ZipFile("plain.pt") as archive:
    (pickle,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
    assert "neg" not in [word for _, word, _ in pickletools.genops(archive.read(pickle))]
PYTHON
