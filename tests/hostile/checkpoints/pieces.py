"""Pickles and zip archives by hand: what torch.save would write, and what it never does."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

PROTO = b"\x80\x02"
STOP = b"."
FLOATS = struct.pack("<6f", *range(6))


def text(value: str | bytes) -> bytes:
    data = value if isinstance(value, bytes) else value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def name(module: str, what: str) -> bytes:
    """The instruction that asks for `module.what`."""
    return b"c" + module.encode() + b"\n" + what.encode() + b"\n"


def numbers(values) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(key="0", count=6, kind="FloatStorage", device="cpu", module="torch") -> bytes:
    parts = text("storage"), name(module, kind), text(key), text(device), number(count)
    return b"(" + b"".join(parts) + b"tQ"


ORDERED = name("collections", "OrderedDict") + b")R"
V2 = name("torch._utils", "_rebuild_tensor_v2")


def tensor(of: bytes | None = None, shape=(2, 3), strides=(3, 1), offset=0, more: bytes = b"") -> bytes:
    of = storage() if of is None else of
    return (
        V2 + b"(" + of + number(offset) + numbers(shape) + numbers(strides) + b"\x89" + ORDERED + more + b"tR"
    )


def dict_of(*items: tuple[bytes, bytes]) -> bytes:
    return b"}(" + b"".join(key + value for key, value in items) + b"u"


def state(value: bytes | None = None) -> bytes:
    """A state dict of one tensor, `weight`."""
    return PROTO + dict_of((text("weight"), tensor() if value is None else value)) + STOP


@dataclass
class Record:
    """A record of a zip archive; `local` and `central` are set over what its two headers would say."""

    name: str
    data: bytes
    local: dict = field(default_factory=dict)
    central: dict = field(default_factory=dict)
    extra: bytes = b""
    """In the directory; PyTorch writes some for records of 4 GiB and more."""
    hidden: bool = False
    """Not in the directory."""


def header(record: Record, changes: dict) -> dict:
    size = len(record.data)
    said = {
        "flags": 0,
        "method": 0,
        "crc": zlib.crc32(record.data),
        "packed": size,
        "size": size,
    }
    return {**said, "name": record.name.encode(), "at": 0, **changes}


def archive(
    records: list[Record],
    end: dict | None = None,
    zip64: dict | None = None,
    tail: bytes = b"",
) -> bytes:
    """A zip archive; `end` and `zip64` are set over what the records after its directory would say."""
    whole, directory, listed = b"", b"", 0
    for record in records:
        said = header(record, record.local)
        at = len(whole)
        fields = (
            said["flags"],
            said["method"],
            0,
            0,
            said["crc"],
            said["packed"],
            said["size"],
        )
        whole += struct.pack("<IHHHHHIIIHH", 0x04034B50, 20, *fields, len(said["name"]), 0) + said["name"]
        whole += record.data
        if record.hidden:
            continue
        said = header(record, {"at": at, **record.central})
        fields = (
            said["flags"],
            said["method"],
            0,
            0,
            said["crc"],
            said["packed"],
            said["size"],
        )
        lengths = len(said["name"]), len(record.extra)
        directory += struct.pack("<IHHHHHHIIIHH", 0x02014B50, 20, 20, *fields, *lengths)
        directory += struct.pack("<HHHII", 0, 0, 0, 0, said["at"]) + said["name"] + record.extra
        listed += 1
    said = {
        "count": listed,
        "size": len(directory),
        "at": len(whole),
        "comment": b"",
        **(end or {}),
    }
    start = len(whole)
    whole += directory
    if zip64 is not None:
        wide = {
            "count": listed,
            "size": len(directory),
            "at": start,
            "place": len(whole),
            **zip64,
        }
        whole += struct.pack(
            "<IQHHIIQQQQ",
            0x06064B50,
            44,
            45,
            45,
            0,
            0,
            *([wide["count"]] * 2),
            wide["size"],
            wide["at"],
        )
        whole += struct.pack("<IIQI", 0x07064B50, 0, wide["place"], 1)
    counts = (
        said["count"],
        said["count"],
        said["size"],
        said["at"],
        len(said["comment"]),
    )
    return whole + struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, *counts) + said["comment"] + tail


def records(pickle: bytes | None = None, data: bytes = FLOATS, folder: str = "archive") -> list[Record]:
    """What a whole file has."""
    pickle = state() if pickle is None else pickle
    parts = {
        "data.pkl": pickle,
        "byteorder": b"little",
        "data/0": data,
        "version": b"3\n",
    }
    return [Record(f"{folder}/{part}", content) for part, content in parts.items()]


def file(pickle: bytes) -> bytes:
    """A whole file around a pickle."""
    return archive(records(pickle))


def changed(part: str, **changes) -> list[Record]:
    """A whole file's records, one of which is other than it should be."""
    whole = records()
    for record in whole:
        if record.name.endswith(part):
            for key, value in changes.items():
                setattr(record, key, value)
    return whole
