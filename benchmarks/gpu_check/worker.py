"""One group of steps in a process of its own, which the supervisor starts.

Arguments: the group's name and function, the pipe's number, the seconds that it has, the settings as JSON. A line of
JSON goes to the pipe before each step and after it.
"""

import json
import os
import sys
import time
from importlib import import_module
from typing import Any, TextIO

from benchmarks.gpu_check.bench import Bench
from benchmarks.gpu_check.deadline import Deadline
from benchmarks.gpu_check.outcome import Outcome, StepSkippedError
from benchmarks.gpu_check.settings import Settings


def main(arguments: list[str]) -> None:
    """Do the group's steps."""
    name, function, pipe, seconds, settings = arguments
    with os.fdopen(int(pipe), "w", buffering=1) as lines:
        do_group(name, function, float(seconds), settings_from_json(settings), lines)


def settings_from_json(text: str) -> Settings:
    """The settings that the supervisor wrote."""
    content: dict[str, Any] = json.loads(text)
    return Settings(**{**content, "batch_sizes": tuple(content["batch_sizes"])})


def do_group(name: str, function: str, seconds: float, settings: Settings, lines: TextIO) -> None:
    """Do a group's steps; what breaks between them ends the group with a line that says so."""

    def write(kind: str, content: object) -> None:
        lines.write(json.dumps({kind: content}) + "\n")

    bench = Bench(
        Deadline(seconds),
        say=lambda outcome: write("outcome", outcome.as_json()),
        announce=lambda subject, step: write("begun", [subject, step]),
    )
    began = time.monotonic()

    def end(status: Any, reason: str) -> None:
        write("outcome", Outcome(name, "all steps", status, time.monotonic() - began, reason).as_json())

    try:
        module, _, found = function.partition(":")
        getattr(import_module(module), found)(bench, settings)
    except StepSkippedError as reason:
        end("skipped", str(reason))
    except ModuleNotFoundError as error:
        end("skipped", f"{error.name} is not installed")
    except Exception as error:  # noqa: BLE001  whatever breaks is told, and the other groups go on
        end("failed", f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
