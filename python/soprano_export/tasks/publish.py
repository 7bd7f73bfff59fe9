"""Task `publish`: a bundle into a hub repository, through `huggingface_hub`.

One commit on `main` holds exactly the bundle, and a tag names it. A tag that exists is never moved. What the
hub's storage has already is not sent again, so that a publication that was cut off resumes.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ExportError
from ..hub import check_names, check_repo, explained
from ..protocol import Job

BRANCH = "main"
# Files of a repository that are the hub's own.
KEPT = (".gitattributes",)


@dataclass(frozen=True)
class BundleFile:
    name: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Request:
    repo: str
    folder: str
    files: list[BundleFile]
    papers: list[str]
    tag: str

    def __post_init__(self) -> None:
        check_repo(self.repo)
        check_names(file.name for file in self.files)
        if not self.files or not self.papers:
            raise ValueError("files or papers is empty")
        if not self.tag:
            raise ValueError("tag is empty")


def run(request: Request, job: Job) -> dict[str, Any]:
    """Result: {"repo", "tag", "commit", "unchanged": whether the tag held this very bundle before}."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    for file in request.files:
        _check(Path(request.folder), file)
    api = HfApi()
    total = sum(file.bytes for file in request.files)
    with explained(request.repo, BRANCH, doing="write"):
        api.create_repo(request.repo, private=True, exist_ok=True)
        standing = _tagged(api, request)
    if standing:
        if _holds(request, standing, job):
            return {"repo": request.repo, "tag": request.tag, "commit": standing, "unchanged": True}
        raise _exists(request)

    with explained(request.repo, BRANCH, doing="write"):
        before = api.model_info(request.repo, revision=BRANCH)
        done, additions = 0, []
        for file in request.files:
            job.progress("upload", done, total)
            addition = CommitOperationAdd(file.name, str(Path(request.folder) / file.name))
            if addition.upload_info.sha256.hex() != file.sha256:
                raise _changed(file)
            try:
                api.preupload_lfs_files(request.repo, [addition], revision=BRANCH, free_memory=False)
            except ValueError as error:
                raise ExportError("hub-http", f"{request.repo}: {file.name}: {error}", "try again") from error
            additions.append(addition)
            done += file.bytes
        job.progress("upload", total, total)
        names = {file.name for file in request.files}
        stale = {sibling.rfilename for sibling in before.siblings or ()} - names - set(KEPT)
        try:
            commit = api.create_commit(
                request.repo,
                [*additions, *(CommitOperationDelete(name) for name in sorted(stale))],
                commit_message=f"Bundle {request.tag}",
                revision=BRANCH,
                parent_commit=before.sha,
            ).oid
        except ValueError as error:
            raise ExportError("hub-refused", f"{request.repo}: {error}", "is README.md sound?") from error
        there = {
            sibling.rfilename for sibling in api.model_info(request.repo, revision=commit).siblings or ()
        }
        if missing := sorted(names - there):
            raise ExportError(
                "hub-refused",
                f"{request.repo} did not take {', '.join(missing)}",
                "does a .gitignore of the repository exclude them?",
            )
        try:
            api.create_tag(request.repo, tag=request.tag, revision=commit)
        except Exception as error:
            if getattr(getattr(error, "response", None), "status_code", None) != 409:
                raise
            # Another publisher was faster.
            standing = _tagged(api, request)
            if not standing or not _holds(request, standing, job):
                raise _exists(request) from error
            commit = standing
    return {"repo": request.repo, "tag": request.tag, "commit": commit, "unchanged": False}


def _tagged(api: Any, request: Request) -> str | None:
    """The commit that the tag names, where it is there."""
    tags = api.list_repo_refs(request.repo).tags
    return next((tag.target_commit for tag in tags if tag.name == request.tag), None)


def _holds(request: Request, commit: str, job: Job) -> bool:
    """Whether a commit's papers are this bundle's: all of them, and no others."""
    from huggingface_hub import errors, hf_hub_download

    ours = {file.name: file.sha256 for file in request.files}
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=job.output) as scratch:
        for name in request.papers:
            try:
                with explained(request.repo, commit, name):
                    path = hf_hub_download(request.repo, name, revision=commit, local_dir=scratch)
            except ExportError as error:
                if not isinstance(error.__cause__, errors.EntryNotFoundError):
                    raise
                if name in ours:
                    return False
                continue
            if hashlib.sha256(Path(path).read_bytes()).hexdigest() != ours.get(name):
                return False
    return True


def _check(folder: Path, file: BundleFile) -> None:
    try:
        size = (folder / file.name).stat().st_size
    except OSError as error:
        raise ExportError("bundle", f"{folder / file.name}: {error.strerror}") from error
    if size != file.bytes:
        raise _changed(file)


def _changed(file: BundleFile) -> ExportError:
    return ExportError("bundle", f"{file.name} was changed while it was being published", "publish again")


def _exists(request: Request) -> ExportError:
    return ExportError(
        "hub-version-exists",
        f"{request.repo} has a tag {request.tag!r} already, and it holds another bundle",
        "a version is never overwritten: publish under another with --version VERSION",
    )
