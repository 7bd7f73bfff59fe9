"""Task `download`: files of a hub repository at one commit, through `huggingface_hub`.

The library's own settings are honoured: HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, HF_HOME, and
HF_HUB_ETAG_TIMEOUT, the seconds without an answer after which the hub counts as unreachable.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import ExportError
from ..protocol import Job

REPO = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)


@dataclass(frozen=True)
class Request:
    repo: str
    files: list[str]
    revision: str | None = None
    optional: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not REPO.fullmatch(self.repo) or ".." in self.repo or "--" in self.repo:
            raise ValueError(f"repo is not of the form `owner/name`: {self.repo!r}")
        if self.revision == "":
            raise ValueError("revision is empty")
        for name in (*self.files, *self.optional):
            path = PurePosixPath(name)
            unsafe = path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name
            if unsafe or str(path) != name or name == ".":
                raise ValueError(f"files has a name that is not a plain relative path: {name!r}")


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
    with _explained(request, revision):
        commit = _cached_commit(request, revision) if offline else _commit(request.repo, revision)
    names = [*request.files, *(name for name in request.optional if name not in request.files)]
    skipped = []
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=job.output) as scratch:
        for done, name in enumerate(names):
            job.progress("download", done, len(names))
            try:
                with _explained(request, revision, name):
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


@contextmanager
def _explained(request: Request, revision: str, name: str = "") -> Iterator[None]:
    """Turn the library's exceptions into ExportErrors with codes that start with "hub-"."""
    import requests
    from huggingface_hub import constants, errors

    repo, endpoint = request.repo, constants.ENDPOINT
    what = f"{repo}: {name}" if name else repo
    try:
        yield
    except errors.GatedRepoError as error:
        raise ExportError(
            "hub-gated",
            f"{repo} asks for its conditions to be accepted before it can be downloaded",
            "accept them on its page, then set HF_TOKEN",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ExportError(
            "hub-repo-not-found",
            f"there is no public model repository {repo} at {endpoint}",
            "check the spelling; for a private one set HF_TOKEN",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ExportError(
            "hub-revision-not-found",
            f"{repo} has no revision {revision!r}",
            "a branch, a tag or a full commit hash is expected",
        ) from error
    except errors.LocalEntryNotFoundError as error:
        if constants.HF_HUB_OFFLINE:
            raise ExportError(
                "hub-offline",
                f"{what} at {revision!r} is not in the cache, and HF_HUB_OFFLINE is set",
                "unset HF_HUB_OFFLINE, or give a local directory with --model",
            ) from error
        raise _unreachable(endpoint, error) from error
    except errors.EntryNotFoundError as error:
        raise ExportError(
            "hub-file-not-found",
            f"{repo} has no file {name} at {revision!r}",
            "not a Soprano checkpoint, or a revision from before the file was added",
        ) from error
    except (requests.ConnectionError, requests.Timeout) as error:
        raise _unreachable(endpoint, error) from error
    except (errors.HfHubHTTPError, requests.RequestException) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        answer = f"answered {status}" if status else f"failed: {type(error).__name__}"
        hint = "set HF_TOKEN to a token that may read it" if status in (401, 403) else "try again later"
        raise ExportError("hub-http", f"{endpoint} {answer} for {what}", hint) from error
    except OSError as error:
        raise ExportError("hub-http", f"{what} could not be stored whole: {error}", "try again") from error


def _unreachable(endpoint: str, error: Exception) -> ExportError:
    return ExportError(
        "hub-unreachable",
        f"{endpoint} cannot be reached: {type(error.__cause__ or error).__name__}",
        "check the network and HF_ENDPOINT, or give a local directory with --model",
    )
