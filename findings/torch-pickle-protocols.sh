#!/usr/bin/env bash
# torch.save takes a pickle protocol whose files torch.load no longer reads.
#
# `torch.save(state, file, pickle_protocol=4)` writes plain tensors without a word. Since 2.6 `torch.load` reads with
# weights_only=True, whose reader knows protocol 2 and what few instructions others share with it: a file of protocol 3
# loads with a warning, one of 4 or 5 is refused, though nothing but tensors is in it. Whoever publishes a checkpoint with
# the newest protocol publishes one that people can only load by letting it run code.
#
# Seen with torch 2.15.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.15.0 numpy
cd "$folder"
env/bin/python - <<'PYTHON'
import pickle
import warnings

import torch

warnings.simplefilter("ignore")
print("torch", torch.__version__)
seen = {}
for protocol in (2, 3, 4, 5):
    torch.save({"weight": torch.ones(2)}, "state.pt", pickle_protocol=protocol)
    try:
        seen[protocol] = torch.load("state.pt")["weight"].tolist()
    except pickle.UnpicklingError as error:
        seen[protocol] = "refused: " + next(line for line in str(error).splitlines() if line.startswith("Unsupported"))
    print("protocol", protocol, seen[protocol])
assert seen[2] == seen[3] == [1.0, 1.0]
assert all(str(seen[protocol]).startswith("refused") for protocol in (4, 5))
PYTHON
