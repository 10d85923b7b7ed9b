"""What was measured: as CSV, as a long page, and as the short table of the README."""

import csv
import re
from pathlib import Path

COLUMNS = "job n k library version seconds megabytes duplicates agreement note".split()
# The lines of the README's table.
SHOWN = [
    ("BADGE", 50_000, 1_000),
    ("k-center", 50_000, 1_000),
    ("MaxHerding", 10_000, 100),
    ("BatchBALD", 2_000, 10),
    ("margin", 50_000, 100),
    ("loop", 0, 0),
    ("import", 0, 0),
]
TITLES = {"loop": "a loop on digits", "import": "import"}
MARKERS = "<!-- peers -->", "<!-- end of peers -->"
ABOVE = (
    'Choices alone, processor seconds and memory beyond the input ("2 twice": rows '
    "picked twice), by `python benchmarks/peers\n--profile full` "
    "([more](benchmarks/peers/peers.md)), {place}.\n"
)
PAGE = """# skal beside other libraries

Written by `python benchmarks/peers --profile full`. {place}.

Choices among made embeddings, float32, n x 512, as after a ReLU, with ten classes and
100 labels; fits and passes of a network are not counted. Seconds are the processor's
where there is one thread; MB is what a call needs at its peak beyond what was there
before. "public code" is the loop of the paper's authors, written anew.

* BADGE: the potential of the picks, which is the sum of squared distances of gradients
  to the nearest pick, by that of a k-means++ in double precision; one draw each.
* k-center, margin, MaxHerding: how many picks are those of the plain algorithm in
  double precision; the coverage of MaxHerding, which is to be large.
* BatchBALD: what the labels of the picks tell about the model, estimated apart; 20
  draws of the model, 10,000 configurations.
* A loop on digits: margin, the same small network fitted anew six times, 20 labels and
  five times 20 more; the accuracy is of one seed.
"""


def key(row):
    return row["job"], int(row["n"]), int(row["k"]), row["library"]


def read(path, place, versions):
    """Rows by key, of a file that was written on this machine, of these versions."""
    if not Path(path).exists():
        return {}
    with open(path, newline="", encoding="utf-8") as file:
        first = file.readline().removeprefix("# ").strip()
        rows = [] if first != place else list(csv.DictReader(file))
    return {key(row): row for row in rows if versions[row["library"]] == row["version"]}


def write(path, rows, place):
    with open(path, "w", newline="", encoding="utf-8") as file:
        file.write(f"# {place}\n")
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows.values())


def digits(number):
    """Two significant digits; whole numbers from ten on."""
    return f"{number:,.0f}" if number >= 9.95 else f"{number:.2g}"


def title(job, n, k):
    return f"{TITLES.get(job, job)}, {k:,} of {n:,}" if n else TITLES.get(job, job)


def cost(row):
    """Seconds, megabytes and duplicates, or why there are none, in a few words."""
    if row["note"]:
        return row["note"]
    text = f"{digits(float(row['seconds']))} s, {float(row['megabytes']):,.0f} MB"
    twice = int(row.get("duplicates") or 0)
    return f"{text}, {twice} twice" if twice else text


def markdown(heads, lines):
    lines = [heads, ["---"] * len(heads), *lines]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def write_short(path, rows, libraries, place):
    """Write the README's table; returns whether all of its cases were measured."""
    if not all(any(each[:3] == case for each in rows) for case in SHOWN):
        return False
    lines = []
    for case in SHOWN:
        its = [rows.get((*case, name)) for name in libraries]
        lines.append([title(*case), *(cost(row) if row else "" for row in its)])
    heads = ["", *(f"{name} {its}".strip() for name, its in libraries.items())]
    replace_between(path, f"{ABOVE.format(place=place)}\n{markdown(heads, lines)}")
    return True


def write_page(path, rows, libraries, place):
    """Write all that was measured, job by job."""
    text = PAGE.format(place=place)
    for job in dict.fromkeys(row["job"] for row in rows.values()):
        lines = [
            long_line(row, rows.get((*key(row)[:3], "skal")))
            for row in rows.values()
            if row["job"] == job
        ]
        heads = ["picks", "library", "s", "MB", "times skal", "duplicates", "agreement"]
        text += f"\n## {TITLES.get(job, job)}\n\n{markdown(heads, lines)}"
    Path(path).write_text(text, encoding="utf-8")


def long_line(row, ours):
    _, n, k, library = key(row)
    line = [f"{k:,} of {n:,}" if n else "", f"{library} {row['version']}".strip()]
    if row["note"]:
        return [*line, row["note"], "", "", "", ""]
    seconds, ratio = float(row["seconds"]), ""
    if ours and not ours["note"]:
        ratio = digits(seconds / float(ours["seconds"]))
    memory = f"{float(row['megabytes']):,.0f}"
    found = str(row.get("duplicates", "")), row.get("agreement", "")
    return [*line, digits(seconds), memory, ratio, *found]


def replace_between(path, text):
    """Put a text between the markers of a file; an error where they are not there."""
    path, (begin, end) = Path(path), MARKERS
    pattern = f"(?<={re.escape(begin)}\n).*?(?={re.escape(end)})"
    before = path.read_text(encoding="utf-8")
    after, n_found = re.subn(pattern, lambda _: text, before, flags=re.S)
    if n_found != 1:
        raise ValueError(f"{path} must have the lines {begin} and {end} once.")
    path.write_text(after, encoding="utf-8")
