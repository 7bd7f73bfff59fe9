"""Task `speak`: what upstream's own code says to sentences."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import families
from ..protocol import Job
from ..request import refuse

MOST_SENTENCES, MOST_CHARACTERS = 64, 1000


@dataclass(frozen=True)
class Request:
    family: str
    checkpoint: str
    sentences: list[str]
    repetition_penalty: float = 1.2

    def __post_init__(self) -> None:
        if not 1 <= len(self.sentences) <= MOST_SENTENCES:
            raise ValueError(f"sentences must be 1 to {MOST_SENTENCES}")
        for place, sentence in enumerate(self.sentences):
            if not 1 <= len(sentence) <= MOST_CHARACTERS:
                raise ValueError(f"sentences[{place}] must have 1 to {MOST_CHARACTERS} characters")
        if not 1.0 <= self.repetition_penalty <= 10.0:
            raise ValueError("repetition_penalty is not in 1..10")


def run(request: Request, job: Job) -> dict[str, Any]:
    """Writes artifact `speech` (speech.safetensors), in the family's form; so is the result."""
    directory = Path(request.checkpoint)
    if not directory.is_dir():
        refuse(f"`checkpoint` is not a directory: {request.checkpoint!r}")
    family = families.load(request.family)
    return family.speak(directory, request.sentences, request.repetition_penalty, job)
