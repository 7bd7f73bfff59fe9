"""Writes every hostile checkpoint and codes.json: `make.py [FOLDER]`, beside this file where none is named.

The same bytes each time. A case is a `.pth` file, or a folder in place of one, or a language model's folder.
`code` is the one that both readers refuse it with, or null where it is read; `python` is that of PyTorch
where it is another.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import language_models
import pickles
import zips

HERE = Path(__file__).parent


def cases() -> dict[str, dict]:
    return {**pickles.cases(), **zips.cases(), **language_models.cases()}


def main(folder: Path) -> None:
    codes = {}
    for path in [*folder.glob("*.pth"), *folder.glob("lm-*")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, case in sorted(cases().items()):
        path = folder / name
        content = case.pop("content")
        for part, data in content.items() if isinstance(content, dict) else [("", content)]:
            place = path / part if part else path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        codes[name] = case
    (folder / "codes.json").write_text(json.dumps(codes, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
