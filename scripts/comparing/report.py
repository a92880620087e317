"""Markdown tables of what was measured: ratios first, then all figures with their spread."""

import os

from comparing.figures import shown
from comparing.systems import LAYERFS


def bold_unless(good, text):
    return text if good else f"**{text}**"


def ratio_cell(row, title, peer):
    """How layerfs stands to a peer: bold where it is slower, or misses what it should reach."""
    ratio = row.ratio(title, peer)
    if ratio is None:
        return ""
    target = row.ratios.get(peer)
    cell = bold_unless(ratio >= (1 if target is None else target), f"{ratio:.2f}")
    return cell if target is None else f"{cell} (>= {target:g})"


def own_cell(row, title):
    value = row.median(title)
    if value is None:
        return ""
    bounds = [(bound.text, row.keeps(bound, title)) for bound in row.bounds]
    # What a bound depends on may not have been measured.
    told = [bold_unless(kept, text) for text, kept in bounds if kept is not None]
    figure = f"{shown(value)} {row.unit}"
    return f"{figure} ({', '.join(told)})" if told else figure


def figure_cell(row, title):
    value = row.median(title)
    if value is None:
        return ""
    least, most = row.spread(title)
    return shown(value) if least == most else f"{shown(value)} ({shown(least)} .. {shown(most)})"


def tail_cell(row, title):
    value = row.median(title)
    if value is None:
        return ""
    return shown(value) if len(row.values[title]) == 1 else f"{shown(value)} (p99 {shown(row.tail(title))})"


def table(lines):
    lines = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def ratios_of(rows, title, peers):
    lines = [["", title, *(f"x {peer}" for peer in peers)]]
    for row in rows:
        lines.append([row.title, own_cell(row, title), *(ratio_cell(row, title, peer) for peer in peers)])
    return table(lines)


def figures_of(rows, titles, cell):
    lines = [["", *titles]]
    for row in rows:
        lines.append([f"{row.title} ({row.unit})", *(cell(row, title) for title in titles)])
    return table(lines)


def is_own(title):
    return title == LAYERFS or title.startswith(f"{LAYERFS} ")


def measured(section, title=None):
    """The rows of a section for which there are figures, of one system if it is named."""
    rows = [row for case in section.cases for row in case.rows if row.values]
    return [row for row in rows if title is None or row.median(title) is not None]


def peers_of(section, titles):
    return [title for title in titles if not is_own(title) and measured(section, title)]


def missing_of(sections):
    """Why cells are empty, each reason once."""
    reasons = {}
    for section in sections:
        for row in (row for case in section.cases for row in case.rows):
            for title, reason in row.missing.items():
                reasons.setdefault((title, reason), []).append(row.title)
    lines = []
    for (title, reason), rows in reasons.items():
        where = f"{rows[0]}, and {len(rows) - 1} more" if len(rows) > 1 else rows[0]
        lines.append(f"- no {title} in: {where}: {reason}")
    return lines


def report(sections, titles, facts, cell=figure_cell):
    own = [title for title in titles if is_own(title)]
    parts = ["\n".join([*facts, *missing_of(sections)])]
    shown_sections = [section for section in sections if measured(section)]
    for section in shown_sections:
        parts.append(f"## {section.title}")
        peers = peers_of(section, titles)
        parts += [ratios_of(measured(section, title), title, peers) for title in own if measured(section, title)]
    parts.append("## All figures")
    for section in shown_sections:
        present = [title for title in titles if measured(section, title)]
        parts.append(figures_of(measured(section), present, cell))
    return "\n\n".join(parts) + "\n"


def write_page(path, title, script, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"# {title}\n\nWritten by `scripts/{script}`.\n\n{text}")


def write_part(path, title, script, text):
    """A page that several scripts write: each has its part between marks, and leaves the rest as it is."""
    begin, end = f"<!-- {script} -->\n", f"<!-- end of {script} -->\n"
    part = f"{begin}Written by `scripts/{script}`.\n\n{text.strip()}\n{end}"
    page = f"# {title}\n"
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            page = file.read()
    before, mark, rest = page.partition(begin)
    if mark:
        _, mark, after = rest.partition(end)
        if not mark:
            raise ValueError(f"{path}: nothing ends {begin.strip()}: put {end.strip()} there, or remove both")
        page = before + part + after
    else:
        page = f"{page.rstrip()}\n\n{part}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(page)
