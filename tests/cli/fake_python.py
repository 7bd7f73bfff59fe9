#!/usr/bin/env python3
"""Stands in for the interpreter: does what the environment variable FAKE says, well or badly."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

mode = os.environ["FAKE"]
request = json.loads(Path(sys.argv[-1]).read_text())
output, task = request["output"], request["task"]


def say(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


def announce(name, path, **lies):
    with open(os.path.join(output, path), "rb") as file:
        data = file.read()
    true = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    say("artifact", name=name, path=path, **{**true, **lies})


def put(path, data=b"x"):
    with open(os.path.join(output, path), "wb") as file:
        file.write(data)


def mark(word):
    """Tell the test which process has come how far."""
    if folder := os.environ.get("FAKE_MARKS"):
        with open(os.path.join(folder, ".new"), "w") as file:
            file.write(str(os.getpid()))
        os.rename(os.path.join(folder, ".new"), os.path.join(folder, word))


def stage(folder):
    with open(os.path.join(folder, "stage.json")) as file:
        return json.load(file)["result"]


def replay():
    mark(task)
    if task == "synthesize":
        say("environment", python="3.11.0", packages={})
        time.sleep(float(os.environ.get("FAKE_DELAY", "0")))
        folder = os.environ["FAKE_CHECKPOINT"]
        shutil.copy(os.path.join(folder, "decoder.pth"), output)
        announce("checkpoint", "decoder.pth")
        say("result", **stage(folder))
        return
    exports = task == "export"
    folder = os.environ["FAKE_EXPORT" if exports else "FAKE_RECORD"]
    result = stage(os.environ["FAKE_EXPORT"])
    packages = result.pop("environment")
    say("environment", python=packages.pop("python"), packages=packages)
    names = {"model": "model.onnx", "probes": "probes.safetensors"}
    names = names if exports else {"references": "references.safetensors"}
    for done, (name, path) in enumerate(names.items()):
        say("progress", step="replay", done=done, total=len(names))
        shutil.copy(os.path.join(folder, path), output)
        time.sleep(float(os.environ.get("FAKE_DELAY", "0")) / len(names))
        announce(name, path)
    say("result", **(result | result.pop("framing") if exports else {}))


def hub():
    """A hub of one repository: a folder for each tag."""
    home = Path(os.environ["FAKE_HUB"])
    if task == "publish":
        place = home / request["tag"]
        if place.exists():
            same = all(
                (place / paper).is_file() == (Path(request["folder"]) / paper).is_file()
                and (place / paper).read_bytes() == (Path(request["folder"]) / paper).read_bytes()
                for paper in request["papers"][:1]
            )
            if same:
                say("result", repo=request["repo"], tag=request["tag"], commit="c", unchanged=True)
                return
            say("error", code="hub-version-exists", message="it is there", hint="another --version")
            sys.exit(2)
        for file in request["files"]:
            to = place / file["name"]
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path(request["folder"]) / file["name"], to)
        say("result", repo=request["repo"], tag=request["tag"], commit="c", unchanged=False)
        return
    revision = request["revision"]
    skipped = []
    for name in request["files"] + request["optional"]:
        origin = home / revision / name
        if not origin.is_file() and name in request["optional"]:
            skipped.append(name)
            continue
        if not origin.is_file():
            say("error", code="hub-file-not-found", message=f"no file {name}", hint="look again")
            sys.exit(2)
        (Path(output) / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(origin, Path(output) / name)
        announce(name, name)
    say("result", repo=request["repo"], commit=revision, skipped=skipped)


def grandchild(**streams):
    sleeper = subprocess.Popen(["sleep", "600"], **streams)
    with open(os.path.join(os.environ["FAKE_MARKS"], "grandchild"), "w") as file:
        file.write(str(sleeper.pid))


quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
say_environment = mode not in ("exit", "rubbish", "flood", "silent", "replay")
if say_environment:
    say("environment", python="3.11.0", packages={})

if mode == "replay":
    replay()
elif mode == "hub":
    hub()
elif mode == "exit":
    sys.exit(3)
elif mode == "rubbish":
    print("Loading model... 100%", flush=True)
elif mode == "binary":
    sys.stdout.buffer.write(b"\xff\xfe\x00\x1b[31m\n")
elif mode == "unknown-event":
    say("applause", loud=True)
elif mode == "flood":
    block = b"x" * (1 << 20)
    for _ in range(64):
        sys.stdout.buffer.write(block)
elif mode == "hang":
    say("progress", step="brooding", done=1, total=9)
    print("still at it", file=sys.stderr, flush=True)
    time.sleep(600)
elif mode == "hang-after-result":
    say("result")
    os.close(1)
    time.sleep(600)
elif mode == "slow":
    for done in range(8):
        say("progress", step="slow but alive", done=done, total=8)
        time.sleep(0.25)
    say("error", code="slow", message="it took its time and was not cut off", hint="be patient")
    sys.exit(2)
elif mode == "wrong-digest":
    put("model.onnx")
    announce("model", "model.onnx", sha256="0" * 64)
    say("result")
elif mode == "no-digest":
    put("model.onnx")
    announce("model", "model.onnx", sha256="abc")
elif mode == "wrong-length":
    put("model.onnx")
    announce("model", "model.onnx", bytes=2)
    say("result")
elif mode == "twice":
    put("model.onnx")
    announce("model", "model.onnx")
    announce("model", "model.onnx")
elif mode == "outside":
    put("../outside.onnx")
    announce("model", "../outside.onnx")
    say("result")
elif mode == "absolute":
    put("model.onnx")
    announce("model", os.path.join(output, "model.onnx"))
    say("result")
elif mode == "symlink":
    os.symlink("/etc/passwd", os.path.join(output, "model.onnx"))
    announce("model", "model.onnx")
    say("result")
elif mode == "folder":
    os.mkdir(os.path.join(output, "model.onnx"))
    say("artifact", name="model", path="model.onnx", sha256="0" * 64, bytes=4096)
    say("result")
elif mode == "fifo":
    os.mkfifo(os.path.join(output, "model.onnx"))
    say("artifact", name="model", path="model.onnx", sha256="0" * 64, bytes=0)
    say("result")
elif mode == "missing":
    say("artifact", name="model", path="model.onnx", sha256="0" * 64, bytes=1)
    say("result")
elif mode == "nothing":
    say("result")
elif mode == "half":
    put("model.onnx")
    announce("model", "model.onnx")
    say("result")
elif mode == "other-names":
    for name in ("model", "references", "probes"):
        put(name)
        announce(name, name)
    say("result")
elif mode == "no-model":
    for name, path in (
        ("model", "model.onnx"),
        ("references", "references.safetensors"),
        ("probes", "probes.safetensors"),
    ):
        put(path, b"\x08\x08 this is not a model")
        announce(name, path)
    say("result", architecture={}, sample_rate=32000)
elif mode == "no-result":
    say("progress", step="done", done=1, total=1)
elif mode == "result-but-fails":
    say("result")
    sys.exit(2)
elif mode == "after-result":
    say("result")
    say("progress", step="more", done=1, total=1)
elif mode == "error":
    say(
        "error",
        code="checkpoint-shape",
        message="decoder.pth: tensor `head.out.bias` is missing",
        hint="fetch it again",
    )
    sys.exit(2)
elif mode == "error-without-hint":
    say("error", code="internal", message="KeyError: 'x'", hint="")
    sys.exit(2)
elif mode == "signal":
    print("about to fall", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)
elif mode == "stderr":
    for line in range(1000):
        print(f"line {line}", file=sys.stderr)
    print("\x1b[31mRuntimeError: the last word\x1b[0m", file=sys.stderr)
    sys.exit(1)
elif mode == "grandchild-quiet":
    grandchild(**quiet)
    say("error", code="x", message="its own child lives on", hint="")
    sys.exit(2)
elif mode == "grandchild-after-success":
    grandchild(**quiet)
    say("result")
elif mode == "grandchild-holds-pipe":
    grandchild()
    sys.exit(1)
elif mode == "grandchild-hang":
    grandchild()
    time.sleep(600)
else:
    sys.exit(f"no mode {mode!r}")
