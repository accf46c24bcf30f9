"""Quality against cost as a picture: one small plot per target, all in one SVG.

Across goes the cost in proxy runs (logarithmic; what costs no run stands at the left edge), down
the loss minus uniform's, so that lower is better. Differences above 0.1 stand at the upper edge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from research.quality import statistics
from research.quality.table import Entry

COLUMNS = 5
WIDTH, HEIGHT = 200, 170
"""Of a plot with its title, in pixels."""
LEFT, RIGHT, TOP, BOTTOM = 42, 8, 24, 26
"""Around a plot's field."""
DEAREST = 100.0
"""Proxy runs at the right edge."""
FREE = 0.5
"""Where the logarithmic part begins; what costs less stands at the left edge."""
WORST = 0.1
"""Nats above uniform at the upper edge."""
COLOURS = {
    "fastmix": "#d9480f",
    "token pairs": "#f59f00",
    "ngram": "#2b8a3e",
    "RegMix": "#1c7ed6",
    "best of the swarm": "#7048e8",
    "other methods": "#868e96",
}
NAMES = {"token_pairs": "token pairs", "swarmbest48": "best of the swarm"}
LEFT_OUT = ("uniform", "fastmix_scores")


@dataclass(frozen=True)
class Point:
    group: str
    """Of `COLOURS`."""
    method: str
    cost: float
    gap: float
    """Nats per token minus uniform."""
    error: float
    """Standard error; 0 if unknown."""


def points(found: Mapping[str, Entry]) -> list[Point]:
    """Of one target's methods, those that were judged with a seed of uniform."""
    made = []
    for method, entry in found.items():
        gap = statistics.paired(entry.losses, found["uniform"].losses)
        if gap is None or method in LEFT_OUT or method.startswith("single"):
            continue
        group = "RegMix" if method.startswith("regmix") else NAMES.get(method, method)
        if group not in COLOURS:
            group = "other methods"
        made.append(Point(group, method, entry.cost, gap.mean, gap.error or 0.0))
    return made


def chart(targets: Mapping[str, Sequence[Point]]) -> str:
    """An SVG of all targets; the key is a plot's title."""
    rows = math.ceil(len(targets) / COLUMNS)
    width, height = COLUMNS * WIDTH, rows * HEIGHT + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="10">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for number, (title, found) in enumerate(targets.items()):
        across, down = number % COLUMNS * WIDTH, number // COLUMNS * HEIGHT
        parts += [f'<g transform="translate({across},{down})">', *_plot(title, found), "</g>"]
    for number, (name, colour) in enumerate(COLOURS.items()):
        x, y = LEFT + number * 150, height - 10
        parts.append(f'<circle cx="{x}" cy="{y}" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{x + 8}" y="{y + 3}">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _plot(title: str, found: Sequence[Point]) -> list[str]:
    lowest = min(point.gap - point.error for point in found)
    lowest = min(lowest * 1.05, -0.05)
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT

    def x(cost: float) -> float:
        share = math.log(max(cost, FREE) / FREE) / math.log(DEAREST / FREE)
        return LEFT + share * (right - LEFT)

    def y(gap: float) -> float:
        return TOP + (WORST - min(gap, WORST)) / (WORST - lowest) * (bottom - TOP)

    parts = [
        f'<text x="{LEFT}" y="14" font-weight="bold">{escape(title)}</text>',
        f'<rect x="{LEFT}" y="{TOP}" width="{right - LEFT}" height="{bottom - TOP}" '
        'fill="none" stroke="#ced4da"/>',
        f'<line x1="{LEFT}" x2="{right}" y1="{y(0):.1f}" y2="{y(0):.1f}" stroke="#adb5bd" '
        'stroke-dasharray="3 2"/>',
        f'<text x="{LEFT - 4}" y="{y(0) + 3:.1f}" text-anchor="end">uniform</text>',
        f'<text x="{LEFT - 4}" y="{bottom}" text-anchor="end">{lowest:.2f}</text>',
    ]
    for cost, text in ((0.0, "0"), (1.0, "1"), (10.0, "10"), (DEAREST, "100 runs")):
        anchor = "end" if cost == DEAREST else "middle"
        parts.append(
            f'<text x="{x(cost):.1f}" y="{bottom + 12}" text-anchor="{anchor}">{text}</text>'
        )
    line = sorted((p.cost, p.gap) for p in found if p.group == "RegMix")
    if len(line) > 1:
        path = " ".join(f"{x(cost):.1f},{y(gap):.1f}" for cost, gap in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS["RegMix"]}"/>')
    # Ours last, on top of the others.
    for point in sorted(found, key=lambda p: list(COLOURS).index(p.group), reverse=True):
        across, colour = f"{x(point.cost):.1f}", COLOURS[point.group]
        parts.append(
            f'<line x1="{across}" x2="{across}" y1="{y(point.gap - point.error):.1f}" '
            f'y2="{y(point.gap + point.error):.1f}" stroke="{colour}"/>'
        )
        parts.append(
            f'<circle cx="{across}" cy="{y(point.gap):.1f}" r="3.5" fill="{colour}">'
            f"<title>{escape(point.method)}: {point.gap:+.3f} ± {point.error:.3f}, "
            f"{point.cost:.2f} runs</title></circle>"
        )
    return parts
