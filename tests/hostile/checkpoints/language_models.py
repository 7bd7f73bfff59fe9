"""Language models' folders: safetensors files and their index."""

from __future__ import annotations

import json
import struct

import torch
from pickles import DTYPE, FORMAT, SHAPE, case
from safetensors.torch import save
from zips import LFS

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
MISSING = "checkpoint-missing"
STATE = {
    "a": torch.arange(6.0).reshape(2, 3),
    "b": torch.arange(4.0).bfloat16(),
    "c": torch.ones(2).half(),
}
WHOLE = save(STATE)
(LENGTH,) = struct.unpack("<Q", WHOLE[:8])
HEADER, DATA = json.loads(WHOLE[8 : 8 + LENGTH]), WHOLE[8 + LENGTH :]


def pack(header, data: bytes = DATA) -> bytes:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(content)) + content + data


def one(content: bytes) -> dict[str, bytes]:
    return {WEIGHTS: content}


def cases() -> dict[str, dict]:
    return {f"lm-{name}": case for name, case in {**offsets(), **damaged(), **types(), **sharded()}.items()}


def offsets() -> dict[str, dict]:
    start, end = HEADER["b"]["data_offsets"]
    lies = {
        "longer": [start, end + 2],
        "overlap": [start - 2, end],
        "another": [0, end - start],
        "beyond": [len(DATA), len(DATA) + end - start],
        "far": [start, 10**15],
        "swapped": [end, start],
        "negative": [-2, end],
        "overflow": [2**64, end],
        "fraction": [start, end + 0.5],
        "one": [start],
    }
    told = {kind: {**HEADER, "b": {**HEADER["b"], "data_offsets": lie}} for kind, lie in lies.items()}
    return {f"offsets-{kind}": case(one(pack(header)), FORMAT) for kind, header in told.items()}


def tensor(shape: list[int], kind: str = "F32", start: int = 0, end: int = 4) -> dict:
    return {"dtype": kind, "shape": shape, "data_offsets": [start, end]}


def damaged() -> dict[str, dict]:
    entry = json.dumps(tensor([1])).encode()
    gap = {"a": tensor([1]), "b": tensor([1], start=8, end=12)}
    files = {
        "empty": b"",
        "four-bytes": WHOLE[:4],
        "half-a-header": WHOLE[: LENGTH // 2],
        "cut": WHOLE[:-2],
        "and-more": WHOLE + b"12",
        "header-of-everything": struct.pack("<Q", len(WHOLE)) + WHOLE[8:],
        "header-of-2-to-the-64": struct.pack("<Q", 2**64 - 1) + WHOLE[8:],
        "header-of-101-megabytes": struct.pack("<Q", 101_000_000) + WHOLE[8:],
        "header-not-json": pack(b"not JSON"),
        "header-a-list": pack([], b""),
        "header-not-utf-8": pack(b'{"\xff": 1}', b""),
        "header-nested": pack(b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}", b""),
        "gap": pack(gap, b"\0" * 12),
        "shape-overflows": pack({"a": tensor([2**40, 2**40])}, b"1234"),
        "shape-negative": pack({"a": tensor([-1])}, b"1234"),
        "shape-of-another-length": pack({"a": tensor([2])}, b"1234"),
        "type-unknown": pack({"a": tensor([1], kind="X9")}, b"1234"),
        "metadata-of-numbers": pack({"__metadata__": {"a": 1}, "a": tensor([1])}, b"1234"),
        "pointer-of-lfs": LFS,
        "pickle": b"\x80\x02}q\x00.",
    }
    return {
        **{kind: case(one(content), FORMAT) for kind, content in files.items()},
        "name-twice": case(
            one(pack(b'{"a":' + entry + b',"a":' + entry + b"}", b"1234")),
            FORMAT,
            "twice",
            python=None,
        ),
        "folder-in-place-of-a-file": case({f"{WEIGHTS}/keep": b"\n"}, MISSING),
        "nothing": case({"readme.txt": b"no weights\n"}, MISSING, "does not exist"),
        "read": case(one(WHOLE), None),
        "read-of-no-tensors": case(one(pack({}, b"")), None),
        "read-of-no-elements": case(one(pack({"a": tensor([0, 2**40], end=0)}, b"")), None),
        "read-misaligned": case(
            one(
                pack(
                    {"a": tensor([1], "F16", 0, 2), "b": tensor([1], "F32", 2, 6)},
                    b"\0" * 6,
                )
            ),
            None,
        ),
        "read-and-not-its-index": case({WEIGHTS: WHOLE, INDEX: b"{"}, None),
    }


def types() -> dict[str, dict]:
    ones = torch.ones(8)
    kinds = (
        "int8",
        "uint8",
        "int16",
        "int32",
        "int64",
        "bool",
        "float64",
        "float8_e4m3fn",
        "float8_e5m2",
        "complex64",
    )
    values = {"nan": float("nan"), "inf": float("inf"), "minus-inf": float("-inf")}
    return {
        **{
            f"type-{kind}": case(
                one(save({"a": ones.to(getattr(torch, kind))})),
                DTYPE,
                f"`a` is {kind};",
            )
            for kind in kinds
        },
        **{
            f"{word}-{kind}": case(
                one(save({"a": torch.tensor([[1, 2, 3], [value, 4, 5]]).to(getattr(torch, kind))})),
                "checkpoint-nan",
                "`a` has 1 of 6 values",
            )
            for word, value in values.items()
            for kind in ("float32", "float16", "bfloat16")
        },
    }


def shards(table: dict | None = None, **files: bytes | None) -> dict[str, bytes]:
    """A folder of two shards; `first`, `second` and `index` are what is in their places, if anything."""
    table = {"a": FIRST, "c": FIRST, "b": SECOND} if table is None else table
    whole = {
        "first": save({"a": STATE["a"], "c": STATE["c"]}),
        "second": save({"b": STATE["b"]}),
        "index": json.dumps({"metadata": {"total_size": 1}, "weight_map": table}).encode(),
        **files,
    }
    places = {"first": FIRST, "second": SECOND, "index": INDEX}
    return {places[part]: content for part, content in whole.items() if content is not None}


def sharded() -> dict[str, dict]:
    names = {
        "above": f"../{FIRST}",
        "absolute": f"/tmp/{FIRST}",
        "through-a-folder": f"sub/../{FIRST}",
        "two-dots": "..",
        "one-dot": ".",
        "no-name": "",
        "hidden": f".{FIRST}",
        "nul": f"a\0{FIRST}",
        "half-a-character": f"\ud800{FIRST}",
        "another-kind": "decoder.pth",
        "number": 3,
        "null": None,
        "list": [FIRST],
        "line-after": f"{FIRST}\n",
    }
    contents = {
        "list": b"[]",
        "object": b"{}",
        "map-a-list": b'{"weight_map": []}',
        "map-empty": b'{"weight_map": {}}',
    }
    contents |= {"cut": b"{", "not-utf-8": b"\xff", "empty": b"", "nested": b"[" * 9000}
    place = "is not the name of a safetensors file next to it"
    both = {"a": FIRST, "b": SECOND}
    return {
        **{
            f"index-{kind}": case(
                shards({"a": FIRST, "c": FIRST, "b": shard}),
                FORMAT,
                "" if kind == "half-a-character" else place,
            )
            for kind, shard in names.items()
        },
        **{f"index-of-{kind}": case(shards(index=content), FORMAT) for kind, content in contents.items()},
        "index-folder-in-its-place": case({**shards(index=None), f"{INDEX}/keep": b"\n"}, FORMAT),
        "shard-missing": case(shards(second=None), MISSING, f"{SECOND} does not exist"),
        "shard-empty": case(shards(second=b""), FORMAT),
        "shard-pointer-of-lfs": case(shards(second=LFS), FORMAT, "Git LFS pointer"),
        "index-lists-more": case(shards({**both, "c": FIRST, "d": FIRST}), SHAPE, "`d` is missing, although"),
        "index-lists-less": case(shards(both), SHAPE, "`c` is there, although"),
        "index-lists-another-shard": case(shards({**both, "c": SECOND}), SHAPE, "`c` is there, although"),
        "tensor-in-two-shards": case(
            shards(second=save({"a": STATE["a"], "b": STATE["b"]})),
            SHAPE,
            "`a` is there, although",
        ),
        "shards-read": case(shards(), None),
    }
