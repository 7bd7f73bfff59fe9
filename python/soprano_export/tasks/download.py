"""Task `download`: files of a hub repository at one commit, through `huggingface_hub`.

The library's own settings are honoured: HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, HF_HOME, and
HF_HUB_ETAG_TIMEOUT, the seconds without an answer after which the hub counts as unreachable.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import ExportError
from ..hub import check_names, check_repo, explained
from ..protocol import Job


@dataclass(frozen=True)
class Request:
    repo: str
    files: list[str]
    revision: str | None = None
    optional: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_repo(self.repo)
        if self.revision == "":
            raise ValueError("revision is empty")
        check_names((*self.files, *self.optional))


def run(request: Request, job: Job) -> dict[str, Any]:
    """Writes each file under its own name; the artifact has the same name.

    Optional files that the repository lacks are skipped. Result: {"repo", "commit": 40 hex digits,
    "skipped": the optional files that were not there}.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import constants, errors

    revision = request.revision or constants.DEFAULT_REVISION
    offline = constants.HF_HUB_OFFLINE
    with explained(request.repo, revision):
        commit = _cached_commit(request, revision) if offline else _commit(request.repo, revision)
    names = [*request.files, *(name for name in request.optional if name not in request.files)]
    skipped = []
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=job.output) as scratch:
        for done, name in enumerate(names):
            job.progress("download", done, len(names))
            try:
                with explained(request.repo, revision, name):
                    fetched = _fetch(request.repo, name, commit, Path(scratch), offline)
            except ExportError as error:
                absent = isinstance(error.__cause__, errors.EntryNotFoundError)
                if name in request.files or not absent:
                    raise
                skipped.append(name)
                continue
            job.adopt(name, name, fetched)
        job.progress("download", len(names), len(names))
    return {"repo": request.repo, "commit": commit, "skipped": skipped}


def _commit(repo: str, revision: str) -> str:
    from huggingface_hub import HfApi, constants

    return HfApi().model_info(repo, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT).sha


def _cached_commit(request: Request, revision: str) -> str:
    """The commit that the hub's cache on this machine knows the revision by."""
    from huggingface_hub import hf_hub_download

    name = next(iter((*request.files, *request.optional)), "config.json")
    snapshot = Path(hf_hub_download(request.repo, name, revision=revision, local_files_only=True))
    return snapshot.parents[len(PurePosixPath(name).parts) - 1].name


def _fetch(repo: str, name: str, commit: str, scratch: Path, offline: bool) -> Path:
    """A private copy of one file, in `scratch`."""
    from huggingface_hub import hf_hub_download

    if not offline:
        return Path(hf_hub_download(repo, name, revision=commit, local_dir=scratch))
    copy = scratch / name
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(hf_hub_download(repo, name, revision=commit, local_files_only=True), copy)
    return copy
