"""`python -m soprano_export REQUEST.json`: run one task and report it on stdout as JSON lines."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import traceback
from typing import Any

from .errors import ExportError
from .protocol import Channel, ChannelClosed, Job, environment
from .request import load, parse, refuse
from .tasks import TASKS

DONE, FAILED, INTERRUPTED = 0, 2, 130


def perform(path: str, send: Any) -> None:
    """Run the task that the request at `path` asks for, reporting to `send(event, **fields)`."""
    send("environment", **environment())
    name, output, body = load(path)
    if name not in TASKS:
        refuse(f"unknown task `{name}`", f"one of: {', '.join(TASKS)}")
    task = importlib.import_module(TASKS[name])
    request = parse(task.Request, body)
    send("result", **task.run(request, Job(output, send)))


def main(arguments: list[str]) -> int:
    """Exit code: 0 done, 2 failed (the last event is `error`), 130 interrupted."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    channel = Channel.take_stdout()
    # A shell's background job inherits SIGINT ignored; a child must end on it all the same.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    try:
        if len(arguments) != 1:
            refuse("exactly one argument is expected: the path of a request")
        try:
            perform(arguments[0], channel.send)
            return DONE
        except ExportError:
            raise
        except Exception as error:
            traceback.print_exc()
            raise ExportError(
                "internal", f"{type(error).__name__}: {error}", "the traceback is in the log"
            ) from error
    except ExportError as error:
        with contextlib.suppress(ChannelClosed):
            channel.send("error", code=error.code, message=error.message, hint=error.hint)
        return FAILED
    except ChannelClosed:
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
