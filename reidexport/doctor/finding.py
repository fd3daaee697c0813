"""What every check of the doctor returns."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing found out.

    Attributes:
        level: "ok", "note" (something could be better) or "problem" (something does not work).
        topic: what it is about, in a word or two.
        text: what was found.
        advice: the command or change that helps, or "".
    """

    level: Level
    topic: str
    text: str
    advice: str = ""
