"""Pickles that ask for code, that lie or never end; and those of what is not a dense tensor of floats."""

from __future__ import annotations

import io
import os
import pickle
import re
import struct
from collections import Counter, OrderedDict

import torch
from pieces import (
    ORDERED,
    PROTO,
    STOP,
    V2,
    dict_of,
    file,
    name,
    numbers,
    state,
    storage,
    tensor,
    text,
)

FORMAT, UNSAFE, DTYPE, SHAPE = (f"checkpoint-{kind}" for kind in ("format", "unsafe", "dtype", "shape"))
RUN = text("touch ran") + b"\x85R"
"""A call with one argument."""


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def saved(content, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def legacy(content) -> bytes:
    """As before 1.6. Storages are called by their places in memory there: all are 0 here."""
    whole = saved(content, _use_new_zipfile_serialization=False)
    return re.sub(rb"X.\0\0\0\d{9,}", text("0"), whole, flags=re.DOTALL)


def case(content, code: str | None, says: str = "", **more) -> dict:
    return {"content": content, "code": code, "says": says, **more}


def beside(value: bytes) -> bytes:
    """A file with a whole tensor, and something else before it."""
    return file(PROTO + dict_of((text("note"), value), (text("weight"), tensor())) + STOP)


def cases() -> dict[str, dict]:
    return {
        f"{name}.pth": case
        for name, case in {
            **asking(),
            **lying(),
            **endless(),
            **other(),
            **read(),
        }.items()
    }


def asking() -> dict[str, dict]:
    """For code."""
    hostile = {"decoder.embed.weight": Hostile()}
    plain = pickle.dumps(hostile, protocol=2)
    made = "it asks to run "
    return {
        "runs-code": case(saved(hostile), UNSAFE, made + "posix.mkdir,"),
        "runs-code-legacy": case(legacy(hostile), UNSAFE, made + "posix.mkdir,"),
        "runs-code-legacy-after-a-tensor": case(
            legacy({"weight": torch.zeros(2), **hostile}),
            UNSAFE,
            made + "posix.mkdir,",
        ),
        "runs-code-plain-pickle": case(plain, UNSAFE, made + "posix.mkdir,"),
        "whole-module": case(
            saved(torch.nn.Identity()),
            UNSAFE,
            made + "torch.nn.modules.linear.Identity,",
        ),
        "asks-eval": case(beside(name("builtins", "eval") + RUN), UNSAFE, made + "eval,"),
        "asks-eval-of-python-2": case(beside(name("__builtin__", "eval") + RUN), UNSAFE, made + "eval,"),
        "asks-system": case(beside(name("os", "system") + RUN), UNSAFE, made + "os.system,"),
        "asks-getattr": case(beside(name("builtins", "getattr")), UNSAFE, made + "getattr,"),
        "asks-numpy": case(
            beside(name("numpy.core.multiarray", "_reconstruct")),
            UNSAFE,
            "numpy.core.multiarray._reconstruct,",
        ),
        "asks-torch-load": case(
            beside(name("torch.serialization", "load")),
            UNSAFE,
            "torch.serialization.load,",
        ),
        "asks-torch-hub": case(beside(name("torch", "hub")), UNSAFE, "torch.hub,"),
        "asks-dotted": case(beside(name("torch", "nn.Module")), UNSAFE, "torch.nn.Module,"),
        "asks-a-storage-of-no-type": case(beside(name("torch", "EvilStorage")), UNSAFE, "torch.EvilStorage,"),
        "asks-escape-sequence": case(beside(name("os", "\x1b[2Jsystem")), UNSAFE),
        "calls-text": case(beside(text("os.system") + RUN), UNSAFE),
        "calls-a-tensor": case(beside(tensor() + RUN), UNSAFE),
        "calls-a-dict": case(beside(b"}" + RUN), UNSAFE),
        "rebuilds-by-text": case(
            beside(name("torch._tensor", "_rebuild_from_type_v2") + b"(" + text("eval") + b"N)Nt" + b"R"),
            UNSAFE,
            python=FORMAT,
        ),
        "stack-global": case(
            beside(b"\x8c\x08builtins\x8c\x04eval\x93" + RUN),
            UNSAFE,
            made + "eval,",
            python=FORMAT,
        ),
        "instance": case(
            beside(b"(" + text("touch ran") + b"ios\nsystem\n"),
            UNSAFE,
            "os.system,",
            python=FORMAT,
        ),
        "object": case(
            beside(b"(" + name("builtins", "set") + text("a") + b"o"),
            UNSAFE,
            python=FORMAT,
        ),
        "new-object": case(beside(name("os", "system") + b")\x81"), UNSAFE, "os.system,"),
        "new-object-of-text": case(beside(text("os") + b")\x81"), UNSAFE),
        "new-object-with-keywords": case(beside(name("builtins", "set") + b")}\x92"), UNSAFE, python=FORMAT),
        "extension-1": case(beside(b"\x82\x01"), UNSAFE, "extensions", python=FORMAT),
        "extension-2": case(beside(b"\x83\x01\x01"), UNSAFE, "extensions", python=FORMAT),
        "extension-4": case(beside(b"\x84\x01\x01\x01\x01"), UNSAFE, "extensions", python=FORMAT),
    }


def lying() -> dict[str, dict]:
    """Of tensors and storages."""
    one = {"shape": (6,), "strides": (1,)}
    past = "past the end of its storage"
    twice = dict_of((text("weight"), tensor()), (text("weight"), tensor()))
    other = storage(kind="HalfStorage", count=12)
    return {
        "offset-past-the-end": case(file(state(tensor(offset=1))), FORMAT, past),
        "offset-far": case(file(state(tensor(offset=2**62))), FORMAT, past),
        "offset-negative": case(file(state(tensor(offset=-1))), FORMAT),
        "shape-past-the-end": case(file(state(tensor(shape=(3, 3)))), FORMAT, past),
        "shape-overflows": case(file(state(tensor(shape=(2**62, 2**62)))), FORMAT, past),
        "shape-negative": case(file(state(tensor(shape=(-2, 3)))), FORMAT),
        "shape-of-text": case(
            file(state(V2 + b"(" + storage() + b"K\0" + text("ab") + text("ab") + b"\x89" + ORDERED + b"tR")),
            FORMAT,
        ),
        "shape-of-one-number": case(
            file(state(V2 + b"(" + storage() + b"K\0" + b"K\6K\1" + b"\x89" + ORDERED + b"tR")),
            FORMAT,
        ),
        "shape-of-fractions": case(
            file(
                state(
                    V2
                    + b"("
                    + storage()
                    + b"K\0G"
                    + struct.pack(">d", 6)
                    + b"\x85K\1\x85\x89"
                    + ORDERED
                    + b"tR"
                )
            ),
            FORMAT,
        ),
        "shape-of-300-axes": case(
            file(state(tensor(shape=(1,) * 300, strides=(1,) * 300))),
            FORMAT,
            "a few",
            python=None,
        ),
        "strides-negative": case(file(state(tensor(strides=(-3, 1)))), FORMAT),
        "strides-too-few": case(file(state(tensor(strides=(1,)))), FORMAT, "has strides"),
        "strides-past-the-end": case(file(state(tensor(strides=(3, 2)))), FORMAT, past),
        "strides-overflow": case(file(state(tensor(strides=(2**62, 2**62)))), FORMAT, past),
        "expanded": case(saved({"weight": torch.ones(1).expand(32)}), SHAPE, "over 4 bytes"),
        "expanded-far": case(
            file(state(tensor(shape=(2**40, 2**20), strides=(0, 0)))),
            SHAPE,
            "over 24 bytes",
        ),
        "storage-longer-than-its-record": case(
            file(state(tensor(storage(count=7), **one))),
            FORMAT,
            "is said to have 28 bytes and has 24",
        ),
        "storage-shorter-than-its-record": case(
            file(state(tensor(storage(count=3), shape=(3,), strides=(1,)))),
            FORMAT,
            "is said to have 12 bytes and has 24",
        ),
        "storage-far-longer": case(file(state(tensor(storage(count=2**61), **one))), FORMAT),
        "storage-overflows": case(file(state(tensor(storage(count=2**63 - 1), **one))), FORMAT),
        "storage-of-a-long-number": case(file(state(tensor(storage(count=2**64), **one))), FORMAT),
        "storage-of-2000-bits": case(file(state(tensor(storage(count=2**2000), **one))), FORMAT),
        "storage-negative": case(file(state(tensor(storage(count=-6), **one))), FORMAT),
        "storage-missing": case(file(state(tensor(storage("1"), **one))), FORMAT, "is not there"),
        "storage-outside": case(file(state(tensor(storage("../data.pkl"), **one))), FORMAT, "is not there"),
        "storage-of-two-types": case(
            file(PROTO + dict_of((text("a"), tensor()), (text("b"), tensor(other))) + STOP),
            FORMAT,
            "two things",
            python=None,
        ),
        "storage-of-two-sizes": case(
            file(
                PROTO
                + dict_of(
                    (text("a"), tensor()),
                    (text("b"), tensor(storage(count=3), shape=(3,), strides=(1,))),
                )
                + STOP
            ),
            FORMAT,
            "two things",
            python=None,
        ),
        "storage-of-no-type": case(file(state(tensor(storage(kind="float32")))), FORMAT),
        "storage-of-a-tensor": case(file(state(tensor(tensor()))), FORMAT),
        "storage-by-text": case(file(state(tensor(text("storage") + b"Q"))), FORMAT),
        "storage-by-line": case(file(state(tensor(b"Pstorage\n"))), FORMAT),
        "storage-of-four-parts": case(
            file(
                state(
                    tensor(
                        b"("
                        + text("storage")
                        + name("torch", "FloatStorage")
                        + text("0")
                        + text("cpu")
                        + b"tQ"
                    )
                )
            ),
            FORMAT,
        ),
        "persistent-module": case(
            file(
                state(
                    tensor(
                        b"("
                        + text("module")
                        + name("torch", "FloatStorage")
                        + text("0")
                        + text("cpu")
                        + b"K\6tQ"
                    )
                )
            ),
            FORMAT,
        ),
        "tensor-of-three-arguments": case(file(state(V2 + b"(" + storage() + b"K\0K\0tR")), FORMAT),
        "tensor-of-no-tuple": case(file(state(V2 + storage() + b"R")), FORMAT),
        "tensor-twice": case(file(PROTO + twice + STOP), FORMAT, "twice", python=None),
        "parameter-of-text": case(
            file(
                state(name("torch._utils", "_rebuild_parameter") + text("a") + b"\x88" + ORDERED + b"\x87R")
            ),
            FORMAT,
        ),
        "negated": case(
            saved({"weight": torch.ones(2, dtype=torch.complex64).conj().imag}),
            FORMAT,
            "negated",
            python=None,
        ),
        "name-of-half-a-character": case(
            file(PROTO + dict_of((text(b"\xed\xa0\x80"), tensor())) + STOP),
            FORMAT,
            python=None,
        ),
        "name-not-text": case(saved({1: torch.zeros(2)}), FORMAT),
        "name-of-bytes": case(file(PROTO + dict_of((b"U\1a", tensor())) + STOP), FORMAT, python=None),
    }


def endless() -> dict[str, dict]:
    """Damaged, or built to take long."""
    short = "takes more than it has"
    cut = "ends in the middle"
    return {
        "empty-pickle": case(file(b""), FORMAT, cut),
        "no-stop": case(file(state()[:-1]), FORMAT, cut),
        "only-stop": case(file(STOP), FORMAT, short),
        "cut-in-a-name": case(file(PROTO + b"ctorch\nFloat"), FORMAT, cut, python=UNSAFE),
        "cut-in-a-text": case(file(PROTO + b"X\xff\xff\xff\xffabc."), FORMAT, cut),
        "cut-in-a-number": case(file(PROTO + b"}(J\1\2"), FORMAT, cut),
        "text-of-2-to-the-63": case(file(b"\x80\4\x8d" + b"\xff" * 7 + b"\x7f."), FORMAT, cut),
        "bytes-of-2-to-the-64": case(file(b"\x80\4\x8e" + b"\xff" * 8 + b"."), FORMAT, cut),
        "frame-cut": case(file(b"\x80\4\x95\xff\xff"), FORMAT, cut),
        "long-of-4-gigabytes": case(file(PROTO + b"\x8b\xff\xff\xff\x7f."), FORMAT),
        "memo-missing": case(file(PROTO + b"h\7."), FORMAT, "before it is there"),
        "memo-of-nothing": case(file(PROTO + b"q\0."), FORMAT, short),
        "memo-far": case(
            file(PROTO + dict_of((text("a"), b"Nr\xff\xff\xff\xff")) + STOP),
            FORMAT,
            "is a NoneType",
        ),
        "marks-only": case(file(PROTO + b"(" * 15000 + STOP), FORMAT, short),
        "below-a-mark": case(file(PROTO + b"N(R."), FORMAT, short),
        "no-mark": case(file(PROTO + b"}Nu."), FORMAT, short),
        "lists-in-lists": case(file(PROTO + b"]" * 7000 + b"a" * 6999 + STOP), FORMAT, "holds a list"),
        "tuples-in-tuples": case(file(PROTO + b")" + b"\x85" * 15000 + STOP), FORMAT, "holds a tuple"),
        "doubled-again-and-again": case(
            file(PROTO + b")" + b"q\0h\0\x86" * 2000 + STOP), FORMAT, "holds a tuple"
        ),
        "itself": case(
            file(PROTO + dict_of() + b"q\0(" + text("a") + b"h\0u."),
            FORMAT,
            "is a dict",
        ),
        "key-without-value": case(file(PROTO + b"}(" + text("a") + b"u."), FORMAT),
        "item-of-a-list": case(file(PROTO + b"]" + text("a") + b"Ns."), FORMAT),
        "append-to-a-dict": case(file(PROTO + b"}Na."), FORMAT),
        "attributes-of-a-tuple": case(file(PROTO + b")}b."), UNSAFE),
        "attributes-of-a-tensor": case(beside(tensor() + b")b"), UNSAFE, python=None),
        "instruction-pop": case(file(PROTO + b"N0}."), FORMAT),
        "instruction-unknown": case(file(PROTO + b"\xf0."), FORMAT, "0xf0"),
        "instruction-of-protocol-0": case(file(b"(dp0\n."), FORMAT),
    }


def other() -> dict[str, dict]:
    """Whole files of something else."""
    ones = torch.ones(4)
    kinds = (
        "int8", "int16", "int32", "int64", "uint8", "uint16", "bool", "complex64", "complex128", "float64",
        "float8_e4m3fn", "float8_e5m2",
    )  # fmt: skip
    spread = torch.eye(2)
    quantized = torch.quantize_per_tensor(ones, 0.1, 0, torch.quint8)
    return {
        "a-tensor": case(saved(ones), FORMAT, "holds a Tensor"),
        "a-list": case(saved([ones]), FORMAT, "holds a list"),
        "a-number": case(saved({"a": 1}), FORMAT, "'a' is a int"),
        "nothing": case(saved(None), FORMAT),
        "dict-in-a-dict": case(saved({"model": {"weight": ones}}), FORMAT, "is a dict"),
        "state-dict-of-a-number": case(saved({"state_dict": 1}), FORMAT),
        "storage-alone": case(saved({"weight": ones.untyped_storage()}), FORMAT),
        "legacy": case(legacy({"weight": ones}), FORMAT, "legacy format", python=None),
        "plain-pickle": case(PROTO + b"}q\0.", FORMAT, "without a zip archive"),
        **{
            f"type-{kind}": case(
                saved({"weight": ones.to(getattr(torch, kind))}),
                DTYPE,
                f"`weight` is {kind};",
            )
            for kind in kinds
        },
        "sparse": case(saved({"weight": spread.to_sparse()}), DTYPE, "float32, sparse"),
        "sparse-rows": case(saved({"weight": spread.to_sparse_csr()}), DTYPE, "float32, sparse"),
        "quantized": case(saved({"weight": quantized}), DTYPE, "quint8"),
        "meta": case(saved({"weight": ones.to("meta")}), DTYPE, "float32, meta"),
        "nan": case(
            saved({"weight": torch.tensor([1, float("nan"), float("-inf")])}),
            "checkpoint-nan",
            "`weight` has 2 of 3 values",
        ),
        "nan-half": case(
            saved({"weight": torch.tensor([1, float("inf")]).half()}),
            "checkpoint-nan",
            "`weight` has 1 of 2 values",
        ),
        "nan-bfloat16": case(
            saved({"weight": torch.tensor([[1, float("nan")], [2, 3]]).bfloat16().t()}),
            "checkpoint-nan",
            "`weight` has 1 of 4 values",
        ),
    }


def read() -> dict[str, dict]:
    """Unlike the usual, and read."""
    ones = torch.ones(4)
    cuda = storage(device="cuda:0", module="torch.cuda")
    others = {
        "counter": Counter("aab"), "set": {1}, "bytes": b"ab", "complex": 1j, "size": torch.Size([1]),
        "array": bytearray(b"ab"), "type": torch.float64, "layout": torch.sparse_coo, "double": ones.double(),
        "device": torch.device("cuda:1"),
    }  # fmt: skip
    v3 = name("torch._utils", "_rebuild_tensor_v3")
    untyped = storage(kind="UntypedStorage", module="torch.storage", count=24)
    version_3 = v3 + b"(" + untyped + b"K\0" + numbers((2, 3)) + numbers((3, 1)) + b"\x89" + ORDERED
    version_1 = (
        name("torch._utils", "_rebuild_tensor")
        + b"("
        + storage()
        + b"K\0"
        + numbers((6,))
        + numbers((1,))
        + b"tR"
    )
    return {
        "read-empty": case(saved({}), None),
        "read-with-others": case(saved({**others, "state_dict": {"weight": ones}}), None),
        "read-from-cuda": case(file(state(tensor(cuda))), None),
        "read-of-version-1": case(file(state(version_1)), None),
        "read-of-version-3": case(file(state(version_3 + name("torch", "float32") + b"tR")), None),
        "read-of-no-elements": case(file(state(tensor(shape=(2**40, 0, 2**40), strides=(0, 1, 1)))), None),
        "read-of-a-subclass-of-dict": case(saved(OrderedDict(weight=ones)), None),
        "read-protocol-4": case(saved({"weight": ones}, pickle_protocol=4), None, python=FORMAT),
        "read-number-of-protocol-1": case(
            file(state(tensor(storage(count=6).replace(b"K\6", b"I6\n")))),
            None,
            python=FORMAT,
        ),
        "read-long-of-protocol-1": case(
            file(state(tensor(storage(count=6).replace(b"K\6", b"L6L\n")))),
            None,
            python=FORMAT,
        ),
        "read-metadata-false": case(file(state(tensor(more=dict_of((text("neg"), b"\x89"))))), None),
    }
