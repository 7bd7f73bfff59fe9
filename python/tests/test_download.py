"""The download task against a small server on the loopback interface that answers as the hub does."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from conftest import run_process

COMMIT = "1234567890abcdef1234567890abcdef12345678"
REPO = "ekwek/Soprano-1.1-80M"
FILES = {
    "decoder.pth": bytes(range(256)) * 300,
    "config.json": b'{"hidden_size": 512}\n',
    "sub/notes.txt": b"nested\n",
}


class Hub(http.server.BaseHTTPRequestHandler):
    """/api/models/{repo}/revision/{revision}, /{repo}/resolve/{revision}/{file}, and /stored/{file}."""

    protocol_version = "HTTP/1.1"
    mode = "sound"
    url = ""
    asked: tuple[str, ...] = ()

    def log_message(self, *arguments):
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def refuse(self, status: int, code: str) -> None:
        self.answer(status, b'{"error": "no"}', X_Error_Code=code, X_Error_Message="no")

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        type(self).asked += (f"{self.command} {path}",)
        if self.mode == "silent":
            time.sleep(5)
            self.close_connection = True
        elif self.mode == "broken":
            self.answer(500)
        elif self.mode == "private" and self.headers.get("Authorization") != "Bearer hf_right":
            self.refuse(401, "RepoNotFound")
        elif self.mode == "gated":
            self.refuse(403, "GatedRepo")
        elif path.startswith("/stored/"):
            self.store(path.removeprefix("/stored/"))
        elif path.startswith("/api/models/"):
            self.describe(*path.removeprefix("/api/models/").partition("/revision/")[::2])
        else:
            repo, _, rest = path.removeprefix("/").partition("/resolve/")
            self.resolve(repo, *rest.partition("/")[::2])

    def known(self, repo: str, revision: str) -> bool:
        if repo != REPO:
            self.refuse(404, "RepoNotFound")
        elif revision not in ("main", COMMIT):
            self.refuse(404, "RevisionNotFound")
        else:
            return True
        return False

    def describe(self, repo: str, revision: str) -> None:
        if self.known(repo, revision):
            siblings = [{"rfilename": name} for name in FILES]
            body = {"id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings, "tags": []}
            self.answer(200, json.dumps(body).encode(), Content_Type="application/json")

    def resolve(self, repo: str, revision: str, name: str) -> None:
        if not self.known(repo, revision):
            return
        if name not in FILES:
            self.refuse(404, "EntryNotFound")
            return
        etag = f'"{hashlib.sha256(FILES[name]).hexdigest()}"'
        headers = {"X_Repo_Commit": COMMIT, "ETag": etag}
        if name.endswith(".pth"):
            size = str(len(FILES[name]))
            place = f"{self.url}/stored/{name}"
            self.answer(302, X_Linked_Etag=etag, X_Linked_Size=size, Location=place, **headers)
        else:
            self.answer(200, FILES[name], **headers)

    def store(self, name: str) -> None:
        body = FILES[name]
        if self.mode == "short":
            body = body[: len(body) // 2]
        self.answer(200, body)


@pytest.fixture
def hub():
    class Fresh(Hub):
        pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Fresh)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Fresh.url = f"http://127.0.0.1:{server.server_port}"
    yield Fresh
    server.shutdown()
    server.server_close()


@pytest.fixture
def download(hub, tmp_path):
    """Ask for files; gives (exit code, last event, output directory, seconds)."""

    def ask(files=("decoder.pth",), repo=REPO, revision="main", optional=(), **environment):
        output = tmp_path / "out"
        output.mkdir(exist_ok=True)
        request = tmp_path / "request.json"
        fields = {"repo": repo, "revision": revision, "files": list(files), "optional": list(optional)}
        body = {"protocol": 2, "task": "download", "output": str(output), **fields}
        request.write_text(json.dumps(body))
        settings = {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_ETAG_TIMEOUT": "2",
            "HF_TOKEN": "",
            "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "*",
            "no_proxy": "*",
        }
        start = time.monotonic()
        code, events, _ = run_process(str(request), **{**settings, **environment})
        return code, events, output, time.monotonic() - start

    return ask


def files_in(directory: Path) -> dict[str, bytes]:
    found = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


@pytest.mark.parametrize("revision", ["main", None, COMMIT])
def test_files_arrive_at_the_resolved_commit(download, hub, revision):
    optional = ["config.json", "absent.json", "sub/notes.txt"]
    code, events, output, _ = download(revision=revision, optional=optional)
    assert code == 0
    assert events[-1] == {"event": "result", "repo": REPO, "commit": COMMIT, "skipped": ["absent.json"]}
    assert files_in(output) == FILES
    artifacts = {event["name"]: event for event in events if event["event"] == "artifact"}
    assert {name: event["path"] for name, event in artifacts.items()} == {name: name for name in FILES}
    for name, event in artifacts.items():
        assert event["sha256"] == hashlib.sha256(FILES[name]).hexdigest()
    assert all("/resolve/main/" not in line for line in hub.asked), "every file is of one commit"


@pytest.mark.parametrize(
    ("asked", "code", "says"),
    [
        ({"repo": "ekwek/Soprano-9"}, "hub-repo-not-found", "ekwek/Soprano-9"),
        ({"revision": "v7"}, "hub-revision-not-found", "'v7'"),
        ({"files": ["config.json", "model.bin"]}, "hub-file-not-found", "no file model.bin"),
    ],
)
def test_what_the_hub_does_not_have(download, asked, code, says):
    status, events, _, _ = download(**asked)
    assert (status, events[-1]["code"]) == (2, code)
    assert says in events[-1]["message"] and events[-1]["hint"]


@pytest.mark.parametrize(
    ("mode", "code", "says"),
    [
        ("private", "hub-repo-not-found", "HF_TOKEN"),
        ("gated", "hub-gated", "HF_TOKEN"),
        ("broken", "hub-http", "try again"),
        ("silent", "hub-unreachable", "HF_ENDPOINT"),
        ("short", "hub-http", "try again"),
    ],
)
def test_what_the_hub_refuses(download, hub, mode, code, says):
    hub.mode = mode
    status, events, output, seconds = download()
    assert (status, events[-1]["code"]) == (2, code)
    assert says in events[-1]["hint"]
    assert files_in(output) == {} and list(output.iterdir()) == []
    assert seconds < 30


def test_token_opens_a_private_repository(download, hub):
    hub.mode = "private"
    code, events, output, _ = download(HF_TOKEN="hf_right")
    assert code == 0 and set(files_in(output)) == {"decoder.pth"}
    assert "hf_right" not in json.dumps(events)


def test_unreachable_endpoint_fails_at_once(download):
    code, events, _, seconds = download(HF_ENDPOINT="http://127.0.0.1:9")
    assert (code, events[-1]["code"]) == (2, "hub-unreachable")
    assert "http://127.0.0.1:9" in events[-1]["message"]
    assert seconds < 10


def test_offline_asks_nobody(download, hub):
    code, events, _, _ = download(HF_HUB_OFFLINE="1")
    assert (code, events[-1]["code"]) == (2, "hub-offline")
    assert "HF_HUB_OFFLINE" in events[-1]["hint"]
    assert hub.asked == ()


def test_offline_takes_from_the_cache(download, hub, tmp_path):
    cache = tmp_path / "home" / "hub" / f"models--{REPO.replace('/', '--')}"
    snapshot = cache / "snapshots" / COMMIT
    for name in ("config.json", "sub/notes.txt"):
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).write_bytes(FILES[name])
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(COMMIT)
    code, events, output, _ = download(files=["sub/notes.txt", "config.json"], HF_HUB_OFFLINE="1")
    assert code == 0 and events[-1]["commit"] == COMMIT
    assert set(files_in(output)) == {"config.json", "sub/notes.txt"}
    assert hub.asked == () and (snapshot / "config.json").exists()
