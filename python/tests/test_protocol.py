"""The process from outside: what it writes where, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import DECODER, PYTHON, only, run_process, run_task
from soprano_export import request
from soprano_export.__main__ import perform
from soprano_export.errors import ExportError
from soprano_export.protocol import Channel, ChannelClosed, environment

RECORD = {"task": "record", **DECODER}
TINY = {"preset": "tiny", **only("decoder")}
SPEAKING = """
import os, sys
from soprano_export import __main__, protocol
from soprano_export.tasks import environment as task

def run(request, job):
    print("from python")
    os.write(1, b"from C\\n")
    os.system("echo from a child")
    {body}
    return {{"modules": {{}}}}

task.run = run
sys.exit(__main__.main(sys.argv[1:]))
"""


def ask(directory: Path, **fields) -> str:
    path = directory / "request.json"
    path.write_text(
        json.dumps(
            {"protocol": 2, "task": "environment", "family": "soprano", "output": str(directory), **fields}
        )
    )
    return str(path)


def speak(directory: Path, body: str, **options) -> subprocess.Popen:
    command = [sys.executable, "-c", SPEAKING.format(body=body), ask(directory)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=PYTHON, text=True, **pipes, **options)


def test_stdout_carries_events_only(tmp_path):
    process = speak(tmp_path, "pass")
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0
    assert [json.loads(line)["event"] for line in stdout.splitlines()] == ["environment", "result"]
    assert {"from python", "from C", "from a child"} <= set(stderr.splitlines())


def test_unexpected_exception_is_internal(tmp_path):
    process = speak(tmp_path, "raise ZeroDivisionError('seven')")
    stdout, stderr = process.communicate(timeout=60)
    last = json.loads(stdout.splitlines()[-1])
    assert process.returncode == 2
    assert (last["event"], last["code"]) == ("error", "internal")
    assert last["message"] == "ZeroDivisionError: seven"
    assert "Traceback" in stderr and "Traceback" not in stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interruption_is_quiet(tmp_path, number):
    process = speak(tmp_path, "job.progress('wait', 0, 1); import time; time.sleep(60)")
    while '"wait"' not in process.stdout.readline():
        pass
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stdout == "" and "Traceback" not in stderr


def test_closed_stdout_ends_the_process(tmp_path):
    process = speak(tmp_path, "[job.progress('talk', i, 9) for i in iter(int, 1)]")
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 2
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()


def test_environment_names_versions_without_imports():
    found = environment()
    assert found["python"].startswith("3.")
    assert {"torch", "onnx", "soprano-tts", "transformers"} <= set(found["packages"])
    code = "import sys, soprano_export.__main__; sys.exit('torch' in sys.modules or 'onnx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PYTHON).returncode == 0


def test_environment_task_imports_everything(tmp_path):
    ran = run_task(tmp_path / "out", "environment", family="soprano")
    assert set(ran.result["modules"].values()) == {None}
    assert "soprano.vocos.decoder" in ran.result["modules"]


def test_channel_refuses_what_json_cannot_say():
    read, write = os.pipe()
    channel = Channel(write)
    with pytest.raises(ValueError):
        channel.send("result", peak=float("nan"))
    channel.send("progress", step="ünïcode\ud800\n", done=0, total=1)
    assert os.read(read, 999).count(b"\n") == 1
    os.close(read)
    with pytest.raises(ChannelClosed):
        channel.send("progress")
    os.close(write)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"protocol": 1}, "speaks protocol 1"),
        ({"protocol": True}, "speaks protocol True"),
        ({"task": "sing"}, "unknown task `sing`"),
        ({"task": ["synthesize"]}, "`task` is not a string"),
        ({"output": "relative"}, "existing directory"),
        ({"output": "/nowhere/at/all"}, "existing directory"),
        ({"colour": 1}, "unknown field `colour`"),
        ({"task": "synthesize", "family": "soprano"}, "no field `preset`"),
        ({"task": "synthesize", **TINY, "preset": "huge"}, "`preset` is 'huge'"),
        ({"task": "synthesize", **TINY, "seed": True}, "`seed` is not of type int"),
        ({"task": "synthesize", **TINY, "seed": -1}, "seed is not in"),
        ({**RECORD, "checkpoint": "/nowhere"}, "`checkpoint` is not a directory"),
        ({**RECORD, "checkpoint": "/", "references": []}, "`references` is not an object"),
        (
            {**RECORD, "checkpoint": "/", "references": {"lengths": [0]}},
            "references.lengths",
        ),
        ({**RECORD, "checkpoint": "/", "references": {"lengths": ["2"]}}, "lengths[0]"),
        (
            {**RECORD, "checkpoint": "/", "references": {"batches": []}},
            "references.batches",
        ),
        ({"task": "download", "repo": "../etc", "files": []}, "repo is not of the form"),
        ({"task": "download", "repo": "a/b", "files": ["../x"]}, "plain relative path"),
        ({"task": "download", "repo": "a/b", "files": ["/x"]}, "plain relative path"),
        ({"task": "download", "repo": "a/b", "files": "x"}, "`files` is not a list"),
    ],
)
def test_refused_requests(tmp_path, fields, says):
    output = tmp_path / "out"
    output.mkdir()
    body = {"protocol": 2, "task": "environment", "output": str(output), **fields}
    path = tmp_path / "request.json"
    path.write_text(json.dumps(body))
    with pytest.raises(ExportError) as refused:
        perform(str(path), lambda event, **rest: None)
    assert refused.value.code == "request"
    assert says in refused.value.message
    assert list(output.iterdir()) == []


def test_hint_names_the_close_field(tmp_path):
    path = ask(tmp_path, task="synthesize", sead=1, **TINY)
    code, events, _ = run_process(path)
    assert code == 2
    assert [event["event"] for event in events] == ["environment", "error"]
    assert events[-1]["hint"] == "did you mean `seed`?"


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "\udc80"])
def test_request_that_is_not_an_object(tmp_path, text):
    path = tmp_path / "request.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ExportError) as refused:
        request.load(str(path))
    assert refused.value.code == "request"


def test_missing_request_and_missing_argument(tmp_path):
    code, events, _ = run_process(str(tmp_path / "absent.json"))
    assert (code, events[-1]["code"]) == (2, "request")
    code, events, _ = run_process()
    assert (code, events[-1]["code"]) == (2, "request")
