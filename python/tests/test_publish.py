"""The publish task against a small server on the loopback interface that takes uploads as the hub does."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import threading
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

import pytest
from conftest import run_process

REPO = "someone/voice"
FILES = {
    "manifest.json": b'{"format": 1}\n',
    "SHA256SUMS": b"x\n",
    "README.md": b"---\nlicense: apache-2.0\n---\n# a card\n",
    "onnx/model.onnx": bytes(range(256)) * 40,
}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Hub(http.server.BaseHTTPRequestHandler):
    """Repositories with commits and tags; files that end in .onnx go to large file storage."""

    protocol_version = "HTTP/1.1"
    url = ""
    mode = "sound"

    def log_message(self, *arguments):
        pass

    def answer(self, status: int, body: object = b"", **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        hub = type(self)
        hub.asked += (f"{self.command} {path}",)
        if self.headers.get("Authorization") != "Bearer hf_right":
            self.answer(401, {"error": "no"}, X_Error_Code="RepoNotFound")
        elif path.endswith("/refs"):
            tags = [
                {"name": name, "ref": f"refs/tags/{name}", "targetCommit": oid}
                for name, oid in hub.tags.items()
            ]
            self.answer(200, {"branches": [], "converts": [], "tags": tags})
        elif "/revision/" in path:
            commit = self.commit(path.rpartition("/")[2])
            siblings = [{"rfilename": name} for name in hub.commits[commit]]
            self.answer(200, {"id": REPO, "modelId": REPO, "sha": commit, "siblings": siblings, "tags": []})
        elif "/resolve/" in path:
            revision, _, name = path.partition("/resolve/")[2].partition("/")
            files = hub.commits[self.commit(revision)]
            if name not in files:
                self.answer(404, {"error": "no"}, X_Error_Code="EntryNotFound")
            else:
                headers = {"X_Repo_Commit": self.commit(revision), "ETag": f'"{git_oid(files[name])}"'}
                self.answer(200, files[name], **headers)
        else:
            self.answer(404, {"error": path})

    do_HEAD = do_GET

    def commit(self, revision: str) -> str:
        return type(self).head if revision == "main" else revision

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_PUT(self):
        hub = type(self)
        hub.asked += (f"PUT {self.path}",)
        data = self.body()
        if self.mode == "breaks":
            self.close_connection = True
            self.connection.close()
            return
        hub.storage[sha256(data)] = data
        self.answer(200)

    def do_POST(self):
        path = unquote(urlsplit(self.path).path)
        hub, data = type(self), self.body()
        hub.asked += (f"POST {path}",)
        if self.headers.get("Authorization") != "Bearer hf_right":
            self.answer(401, {"error": "no"})
        elif path == "/api/repos/create":
            hub.created = json.loads(data)
            self.answer(409 if hub.exists else 200, {"url": f"{self.url}/{REPO}"})
        elif path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in path:
            current = hub.commits[hub.head]
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".onnx") else "regular",
                    "shouldIgnore": self.mode == "ignores" and file["path"].endswith("SHA256SUMS"),
                    "oid": git_oid(current[file["path"]]) if file["path"] in current else None,
                }
                for file in json.loads(data)["files"]
            ]
            self.answer(200, {"files": files})
        elif path.endswith("/objects/batch"):
            objects = []
            for entry in json.loads(data)["objects"]:
                if entry["oid"] not in hub.storage:
                    entry["actions"] = {"upload": {"href": f"{self.url}/storage/{entry['oid']}"}}
                objects.append(entry)
            self.answer(200, {"transfer": "basic", "objects": objects})
        elif "/commit/" in path:
            self.take_commit([json.loads(line) for line in data.splitlines()])
        elif "/tag/" in path:
            self.take_tag(json.loads(data)["tag"], path.rpartition("/")[2])
        else:
            self.answer(404, {"error": path})

    def take_commit(self, lines: list) -> None:
        hub = type(self)
        files = dict(hub.commits[hub.head])
        for line in lines:
            value = line["value"]
            if line["key"] == "header" and value.get("parentCommit", hub.head) != hub.head:
                self.answer(412, {"error": "A commit has happened since"})
                return
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = hub.storage[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        hub.head = hashlib.sha1(json.dumps(sorted(files)).encode() + b"".join(files.values())).hexdigest()
        hub.commits[hub.head] = files
        if self.mode == "dies-after-commit":
            hub.mode = "sound"
            self.connection.close()
            self.close_connection = True
            return
        self.answer(200, {"commitOid": hub.head, "commitUrl": f"{self.url}/{REPO}/commit/{hub.head}"})

    def take_tag(self, tag: str, commit: str) -> None:
        hub = type(self)
        if self.mode == "overtaken":
            hub.commits["f" * 40] = {"manifest.json": b"another"}
            hub.tags[tag] = "f" * 40
        if tag in hub.tags:
            self.answer(409, {"error": "Tag reference exists already"})
            return
        hub.tags[tag] = commit
        self.answer(200)


@pytest.fixture
def hub():
    class Fresh(Hub):
        asked: tuple[str, ...] = ()
        exists = False
        created: ClassVar[dict] = {}
        head = "0" * 40
        commits: ClassVar[dict] = {"0" * 40: {".gitattributes": b"*.onnx\n", "stale.bin": b"old"}}
        tags: ClassVar[dict] = {}
        storage: ClassVar[dict] = {}

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Fresh)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Fresh.url = f"http://127.0.0.1:{server.server_port}"
    yield Fresh
    server.shutdown()
    server.server_close()


@pytest.fixture
def publish(tmp_path: Path, hub):
    """Ask for a publication: (exit code, events)."""
    count = 0

    def ask(contents=FILES, tag="v1", lies=None, **environment):
        nonlocal count
        count += 1
        folder, output = tmp_path / f"bundle{count}", tmp_path / f"out{count}"
        output.mkdir()
        for name, data in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        files = [
            {"name": name, "sha256": sha256(data), "bytes": len(data), **(lies or {}).get(name, {})}
            for name, data in contents.items()
        ]
        papers = ["manifest.json", "manifest.json.minisig"]
        fields = {"repo": REPO, "folder": str(folder), "files": files, "papers": papers, "tag": tag}
        request = tmp_path / f"request{count}.json"
        request.write_text(json.dumps({"protocol": 2, "task": "publish", "output": str(output), **fields}))
        settings = {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_ETAG_TIMEOUT": "2",
            "HF_TOKEN": "hf_right",
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "*",
            "no_proxy": "*",
        }
        code, events, _ = run_process(str(request), **{**settings, **environment})
        assert "hf_right" not in json.dumps(events)
        assert list(output.iterdir()) == []
        return code, events

    return ask


def test_a_version_is_one_commit_that_holds_exactly_the_bundle(publish, hub):
    code, events = publish()
    assert code == 0, events
    result = events[-1]
    assert result == {
        "event": "result",
        "repo": REPO,
        "tag": "v1",
        "commit": hub.tags["v1"],
        "unchanged": False,
    }
    assert hub.commits[result["commit"]] == {".gitattributes": b"*.onnx\n", **FILES}
    assert hub.created["private"] is True
    progress = [event for event in events if event["event"] == "progress"]
    assert progress[-1]["done"] == progress[-1]["total"] == sum(map(len, FILES.values()))


def test_the_same_once_more_changes_nothing_and_another_is_refused(publish, hub):
    publish()
    before = (hub.head, dict(hub.tags))
    hub.exists = True
    code, events = publish()
    assert (code, events[-1]["unchanged"]) == (0, True)
    other = {**FILES, "manifest.json": b'{"format": 1, "name": "other"}\n'}
    code, events = publish(other)
    assert (code, events[-1]["code"]) == (2, "hub-version-exists")
    signed = {**FILES, "manifest.json.minisig": b"signed"}
    assert publish(signed)[1][-1]["code"] == "hub-version-exists"
    assert (hub.head, hub.tags) == before
    assert publish(other, tag="v2")[0] == 0
    assert set(hub.tags) == {"v1", "v2"}


def test_what_the_storage_has_is_not_sent_again(publish, hub):
    hub.mode = "dies-after-commit"
    code, events = publish()
    assert (code, hub.tags) == (2, {})
    assert events[-1]["code"] in ("hub-unreachable", "hub-http")
    sent = sum(line.startswith("PUT ") for line in hub.asked)
    assert sent == 1
    assert publish()[0] == 0
    assert sum(line.startswith("PUT ") for line in hub.asked) == sent
    assert hub.commits[hub.tags["v1"]].keys() == {".gitattributes", *FILES}


@pytest.mark.parametrize(
    ("mode", "code", "says"),
    [
        ("overtaken", "hub-version-exists", "--version"),
        ("ignores", "hub-refused", ".gitignore"),
    ],
)
def test_what_goes_wrong_on_the_way(publish, hub, mode, code, says):
    hub.mode = mode
    status, events = publish()
    assert (status, events[-1]["code"]) == (2, code), events[-1]
    assert says in events[-1]["hint"]


def test_without_a_token(publish, hub):
    status, events = publish(HF_TOKEN="hf_wrong")
    assert (status, events[-1]["code"]) == (2, "hub-http")
    assert "HF_TOKEN" in events[-1]["hint"]
    assert hub.tags == {} and hub.storage == {}


def test_nobody_there(publish):
    status, events = publish(HF_ENDPOINT="http://127.0.0.1:9")
    assert (status, events[-1]["code"]) == (2, "hub-unreachable")
    status, events = publish(HF_HUB_OFFLINE="1")
    assert (status, events[-1]["code"]) == (2, "hub-offline")


@pytest.mark.parametrize(
    ("lie", "code"),
    [
        ({"sha256": "0" * 64}, "bundle"),
        ({"bytes": 7}, "bundle"),
        ({"name": "nowhere"}, "bundle"),
        ({"name": "../secret"}, "request"),
        ({"name": "/etc/passwd"}, "request"),
    ],
)
def test_a_bundle_that_is_not_what_was_verified(publish, hub, lie, code):
    status, events = publish(lies={"README.md": lie})
    assert (status, events[-1]["code"]) == (2, code)
    assert hub.tags == {} and hub.head == "0" * 40
