"""What the tasks that speak to the hub share: names, and its client's exceptions in our words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

from .errors import ExportError

REPO = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)


def check_repo(repo: str) -> None:
    """Raise ValueError for what can't be a repository's id."""
    if not REPO.fullmatch(repo) or ".." in repo or "--" in repo:
        raise ValueError(f"repo is not of the form `owner/name`: {repo!r}")


def check_names(names: Iterable[str], field: str = "files") -> None:
    """Raise ValueError for a file name that is not a plain relative path."""
    for name in names:
        path = PurePosixPath(name)
        unsafe = path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name
        if unsafe or str(path) != name or name == ".":
            raise ValueError(f"{field} has a name that is not a plain relative path: {name!r}")


@contextmanager
def explained(repo: str, revision: str, name: str = "", doing: str = "read") -> Iterator[None]:
    """Turn the library's exceptions into ExportErrors with codes that start with "hub-"."""
    import requests
    from huggingface_hub import constants, errors

    endpoint = constants.ENDPOINT
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
        raise unreachable(endpoint, error) from error
    except errors.EntryNotFoundError as error:
        raise ExportError(
            "hub-file-not-found",
            f"{repo} has no file {name} at {revision!r}",
            "another kind of checkpoint, or a revision from before the file was added",
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise ExportError("hub-offline", f"{what}: HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE") from error
    except (requests.ConnectionError, requests.Timeout) as error:
        raise unreachable(endpoint, error) from error
    except (errors.HfHubHTTPError, requests.RequestException) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        answer = f"answered {status}" if status else f"failed: {type(error).__name__}"
        hint = f"set HF_TOKEN to a token that may {doing} it" if status in (401, 403) else "try again later"
        raise ExportError("hub-http", f"{endpoint} {answer} for {what}", hint) from error
    except OSError as error:
        verb = "stored" if doing == "read" else "sent"
        raise ExportError("hub-http", f"{what} could not be {verb} whole: {error}", "try again") from error


def unreachable(endpoint: str, error: Exception) -> ExportError:
    return ExportError(
        "hub-unreachable",
        f"{endpoint} cannot be reached: {type(error.__cause__ or error).__name__}",
        "check the network and HF_ENDPOINT, or give a local directory with --model",
    )
