"""Zip archives that no torch.save writes."""

from __future__ import annotations

import struct
import zlib

from pickles import FORMAT, case
from pieces import FLOATS, Record, archive, changed, file, records, state

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


def cases() -> dict[str, dict]:
    every = {**no_zip(), **cut(), **headers(), **contents(), **wide()}
    return {f"{name}.pth": case for name, case in every.items()}


def no_zip() -> dict[str, dict]:
    tar = b"sys_info".ljust(257, b"\0") + b"ustar\x0000".ljust(255, b"\0") + b"\0" * 1024
    return {
        "zip-empty-file": case(b"", FORMAT, "is empty"),
        "zip-plain-text": case(b"plain text", FORMAT),
        "zip-pointer-of-lfs": case(LFS, FORMAT, "Git LFS pointer"),
        "zip-tar": case(tar, FORMAT, "tar archive"),
        "zip-folder-in-place-of-a-file": case({"keep": b"\n"}, "checkpoint-missing"),
    }


def cut() -> dict[str, dict]:
    whole = file(state())
    return {
        "zip-half": case(whole[: len(whole) // 2], FORMAT, "cut short"),
        "zip-100-bytes": case(whole[:100], FORMAT, "cut short"),
        "zip-four-bytes": case(whole[:4], FORMAT, "cut short"),
        "zip-without-its-last-byte": case(whole[:-1], FORMAT, "cut short"),
        "zip-and-more": case(whole + b"more", FORMAT, "4 bytes follow", python=None),
        "zip-after-more": case(b"more" + whole, FORMAT),
        "zip-after-another-start": case(b"PK\3\4" + b"\0" * 96 + whole, FORMAT, "begins after"),
        "zip-of-nothing": case(archive([]), FORMAT),
    }


def headers() -> dict[str, dict]:
    packed = zlib.compress(FLOATS)[2:-4]
    pressed = {"method": 8, "size": len(FLOATS), "crc": zlib.crc32(FLOATS)}
    overlap = {"at": 0, "name": b"archive/data.pkl"}
    twice = [*records(), Record("archive/data/0", b"\0" * 24)]
    pickles = [*records(), Record("archive/data.pkl", state())]
    another = {"name": b"archive/data/1"}
    differ = "contradict each other"
    return {
        "zip-compressed": case(
            archive(changed("data/0", data=packed, local=pressed, central=pressed)),
            FORMAT,
            "is compressed",
            python=None,
        ),
        "zip-encrypted": case(
            archive(changed("data/0", local={"flags": 1}, central={"flags": 1})),
            FORMAT,
            "encrypted",
        ),
        "zip-storage-twice": case(archive(twice), FORMAT, "twice", python=None),
        "zip-pickle-twice": case(archive(pickles), FORMAT, "twice", python=None),
        "zip-two-names": case(archive(changed("data/0", local=another)), FORMAT, differ, python=None),
        "zip-two-sizes": case(
            archive(changed("data/0", local={"size": 12, "packed": 12})),
            FORMAT,
            differ,
            python=None,
        ),
        "zip-two-methods": case(archive(changed("data/0", local={"method": 8})), FORMAT, differ, python=None),
        "zip-sizes-differ": case(
            archive(changed("data/0", local={"packed": 20}, central={"packed": 20})),
            FORMAT,
            "two sizes",
        ),
        "zip-overlap": case(
            archive(
                changed(
                    "data/0",
                    central={"size": 60, "packed": 60},
                    local={"size": 60, "packed": 60},
                )
            ),
            FORMAT,
            "overlap",
        ),
        "zip-same-place": case(
            archive(
                [
                    *records(),
                    Record(
                        "archive/data/1",
                        b"",
                        central={**overlap, "name": b"archive/data/1"},
                    ),
                ]
            ),
            FORMAT,
            python=None,
        ),
        "zip-past-the-end": case(
            archive(changed("data/0", central={"size": 2**30, "packed": 2**30})),
            FORMAT,
            "not where",
        ),
        "zip-at-no-header": case(archive(changed("data/0", central={"at": 7})), FORMAT, "not where"),
        "zip-name-not-utf-8": case(
            archive(
                [
                    *records(),
                    Record(
                        "archive/x",
                        b"",
                        local={"name": b"archive/\xff"},
                        central={"name": b"archive/\xff"},
                    ),
                ]
            ),
            FORMAT,
            "not UTF-8",
        ),
        "zip-too-many": case(archive(records(), end={"count": 3}), FORMAT, "more records"),
        "zip-too-few": case(archive(records(), end={"count": 5}), FORMAT, "says that it has 5"),
        "zip-without-its-version": case(archive(changed("version", hidden=True)), FORMAT, "`version`"),
        "zip-read-with-a-hidden-record": case(
            archive([*records(), Record("archive/x", b"x", hidden=True)]), None
        ),
        "zip-directory-elsewhere": case(archive(records(), end={"at": 5}), FORMAT),
        "zip-directory-cut": case(archive(records(), end={"size": 20, "at": 2**31}), FORMAT),
    }


def contents() -> dict[str, dict]:
    foreign = [Record("readme.txt", b"not a model")]
    script = [*records(), Record("archive/constants.pkl", b"\x80\x02).")]
    two = [*records(), Record("__MACOSX/data.pkl", b"")]
    bare = [Record(record.name.removeprefix("archive/"), record.data) for record in records()]
    return {
        "zip-foreign": case(archive(foreign), FORMAT, "data.pkl"),
        "zip-without-its-pickle": case(archive(records()[1:]), FORMAT, "data.pkl"),
        "zip-without-a-folder": case(archive(bare), FORMAT),
        "zip-two-folders": case(archive(two), FORMAT, "two folders"),
        "zip-torchscript": case(archive(script), FORMAT, "TorchScript"),
        "zip-big-endian": case(
            archive(changed("byteorder", data=b"big")),
            FORMAT,
            "big-endian",
            python=None,
        ),
        "zip-some-endian": case(
            archive(changed("byteorder", data=b"middle")),
            FORMAT,
            "neither little nor big",
        ),
        "zip-read-of-another-name": case(archive(records(folder="weights")), None),
        "zip-read-without-byteorder": case(archive([r for r in records() if r.name[-5:] != "order"]), None),
        "zip-read-with-a-comment": case(archive(records(), end={"comment": b"ours"}), None),
        "zip-read-with-a-wrong-crc": case(
            archive(changed("data/0", local={"crc": 1}, central={"crc": 1})), None
        ),
    }


def wide() -> dict[str, dict]:
    """Of more than 4 GiB, or said to be."""
    size = len(FLOATS)
    unsaid = {"size": 2**32 - 1, "packed": 2**32 - 1}
    said = struct.pack("<HHQQ", 1, 16, size, size)
    far = struct.pack("<HHQQ", 1, 16, 2**63, 2**63)
    at = struct.pack("<HHQ", 1, 8, 2**63)
    ends = {"count": 0xFFFF, "size": 2**32 - 1, "at": 2**32 - 1}
    return {
        "zip64-read": case(
            archive(changed("data/0", extra=said, central=unsaid), end=ends, zip64={}),
            None,
        ),
        "zip64-read-beside": case(archive(records(), zip64={}), None),
        "zip64-size-far": case(archive(changed("data/0", extra=far, central=unsaid)), FORMAT, "not where"),
        "zip64-size-unsaid": case(archive(changed("data/0", central=unsaid)), FORMAT),
        "zip64-size-cut": case(archive(changed("data/0", extra=said[:10], central=unsaid)), FORMAT),
        "zip64-place-far": case(
            archive(changed("data/0", extra=at, central={"at": 2**32 - 1})),
            FORMAT,
            "not where",
        ),
        "zip64-count-far": case(archive(records(), end=ends, zip64={"count": 2**63}), FORMAT),
        "zip64-count-differs": case(archive(records(), zip64={"count": 3}), FORMAT),
        "zip64-directory-far": case(archive(records(), end=ends, zip64={"at": 2**63}), FORMAT),
        "zip64-end-far": case(archive(records(), end=ends, zip64={"place": 2**63}), FORMAT),
        "zip64-end-missing": case(archive(records(), end=ends), FORMAT),
    }
