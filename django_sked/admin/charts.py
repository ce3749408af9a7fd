"""Bar charts as shapes for an SVG that the server renders: no script draws, and colours come from the style sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

#: The units of the drawing; the page scales it.
WIDTH, HEIGHT = 480, 80
#: What a bar leaves free of its slot.
GAP = 0.2


@dataclass(frozen=True, slots=True)
class Slot:
    """What happened, or will happen, in one span of time: parts of one bar, from the bottom up, and what it means."""

    parts: Sequence[tuple[str, int]]
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    #: Stands for the drawing where nobody can see it.
    label: str
    #: Elements of SVG. A template would take longer for them than the database for what is in them.
    bars: SafeString
    width: int = WIDTH
    height: int = HEIGHT


def chart(label: str, slots: Sequence[Slot]) -> Chart:
    """A bar for each slot, as high as its share of the highest; one with anything in it can always be seen."""
    highest = max((sum(count for _, count in slot.parts) for slot in slots), default=0) or 1
    step = WIDTH / max(1, len(slots))
    bars: list[str] = []
    for number, slot in enumerate(slots):
        bottom = float(HEIGHT)
        for kind, count in slot.parts:
            if not count:
                continue
            height = max(1.0, HEIGHT * count / highest)
            bottom = max(0.0, bottom - height)
            x = _number(number * step + step * GAP / 2)
            width = _number(step * (1 - GAP))
            bars.append(
                f'<rect class="sked-{kind}" x="{x}" y="{_number(bottom)}" width="{width}" height="{_number(height)}">'
                f"<title>{escape(slot.text)}</title></rect>"
            )
    return Chart(label, mark_safe("".join(bars)))


def _number(value: float) -> str:
    """As SVG wants it, whatever the language of the page."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
