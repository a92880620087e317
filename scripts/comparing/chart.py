"""A chart of ratios: a line for each row, a dot for each peer, on a logarithmic scale, as SVG for light and dark pages."""

import html
import math

from comparing.report import is_own, measured
from comparing.systems import LAYERFS

ROW_HEIGHT, LABELS_WIDTH, PLOT_WIDTH, MARGIN = 22, 370, 480, 24
TOP = 64
RADIUS = 5
# Colours that the colour-blind tell apart, on white as on black.
COLOURS = ["#e69f00", "#56b4e9", "#0072b2", "#009e73", "#d55e00", "#cc79a7", "#8c8c00", "#999999"]
STYLE = """
text { font: 12px sans-serif; fill: #24292f; }
.grid { stroke: #d0d7de; }
.one { stroke: #24292f; stroke-width: 1.5; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .grid { stroke: #3d444d; }
  .one { stroke: #e6edf3; }
}
"""


class Scale:
    """Where a ratio is, between powers of ten that hold all of them."""

    def __init__(self, ratios):
        self.low = math.floor(math.log10(min(ratios)))
        self.high = max(math.ceil(math.log10(max(ratios))), self.low + 1)

    def at(self, ratio):
        share = (math.log10(ratio) - self.low) / (self.high - self.low)
        return LABELS_WIDTH + share * PLOT_WIDTH

    def marks(self):
        powers = range(self.low, self.high + 1)
        marks = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
        return [mark for mark in marks if mark <= 10.0**self.high]


def text(x, y, said, anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(said)}</text>'


def legend(colours):
    step = (LABELS_WIDTH + PLOT_WIDTH) / max(len(colours), 1)
    parts = [text(MARGIN, 18, "speed of layerfs / speed of the other: right of 1 layerfs is faster")]
    for number, (peer, colour) in enumerate(colours.items()):
        x = MARGIN + number * step
        parts.append(f'<circle cx="{x + RADIUS:.1f}" cy="36" r="{RADIUS}" fill="{colour}"/>')
        parts.append(text(x + 3 * RADIUS, 40, peer))
    return parts


def grid(scale, bottom):
    parts = []
    for mark in scale.marks():
        x, name = scale.at(mark), "one" if mark == 1 else "grid"
        parts.append(f'<line class="{name}" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom}"/>')
        parts.append(text(x, bottom + 16, f"{mark:g}", "middle"))
    return parts


def dots(rows, scale, colours):
    parts = []
    for number, (row, ratios) in enumerate(rows):
        y = TOP + (number + 0.5) * ROW_HEIGHT
        parts.append(text(LABELS_WIDTH - 10, y + 4, row.title, "end"))
        for peer, ratio in ratios.items():
            told = html.escape(f"{row.title}: {ratio:.2f} x {peer}")
            dot = f'<circle cx="{scale.at(ratio):.1f}" cy="{y:.1f}" r="{RADIUS}" fill="{colours[peer]}">'
            parts.append(f"{dot}<title>{told}</title></circle>")
    return parts


def chart(sections, titles):
    """All rows that have something to reach of a peer; none when none was measured."""
    peers = [title for title in titles if not is_own(title)]
    rows = []
    for row in (row for section in sections for row in measured(section, LAYERFS) if row.ratios):
        ratios = {peer: row.ratio(LAYERFS, peer) for peer in peers if row.ratio(LAYERFS, peer)}
        if ratios:
            rows.append((row, ratios))
    if not rows:
        return None
    seen = [peer for peer in peers if any(peer in ratios for _, ratios in rows)]
    colours = dict(zip(seen, COLOURS))
    scale = Scale([ratio for _, ratios in rows for ratio in ratios.values()] + [1])
    bottom = TOP + len(rows) * ROW_HEIGHT
    width, height = LABELS_WIDTH + PLOT_WIDTH + 2 * MARGIN, bottom + 30
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">']
    parts += [f"<style>{STYLE}</style>", *legend(colours), *grid(scale, bottom), *dots(rows, scale, colours), "</svg>"]
    return "\n".join(parts) + "\n"
