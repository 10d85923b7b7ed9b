"""Compare skal with other libraries: `python benchmarks/peers [--profile fast|full]`.

Needs `pip install -e ".[bench]"`, Linux, and for the other libraries the package index:
each gets an environment of its own. Each measurement has a process of its own, with
limits; a library that is not installed, breaks or takes too much is named with the
reason. With one thread, seconds are those of the processor, so that other work on the
machine hardly counts.

After each case peers.csv is written to --out; at the end peers.md is, and the table of
the README if all of its cases are there. What was measured on this machine with these
versions stays until it is measured again: --only and --libraries measure a part.
"""

import argparse
import platform
import sys
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
import tables  # noqa: E402
from cells import CELLS  # noqa: E402
from environments import PEERS, InstallError, python_of  # noqa: E402
from imports import IMPORTS  # noqa: E402
from judge import agreement  # noqa: E402
from limits import Limits  # noqa: E402

# Rows and picks of each job; what does not choose among made rows has none.
SIZES = [(2_000, 100), (10_000, 100), (50_000, 100)]
JOBS = {
    "BADGE": [*SIZES, (50_000, 1_000)],
    "k-center": [*SIZES, (50_000, 1_000)],
    "MaxHerding": SIZES,
    "TypiClust": SIZES,
    "Falcun": [*SIZES, (50_000, 1_000)],
    "BatchBALD": [(2_000, 10), (10_000, 10)],
    "margin": [*SIZES, (50_000, 1_000)],
    "loop": [(0, 0)],
    "import": [(0, 0)],
}
SECONDS = {"fast": 60, "full": 100}  # A measurement may take so many.


def parse(arguments):
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python benchmarks/peers", description=__doc__, formatter_class=formatter
    )
    add = parser.add_argument
    add("--profile", choices=SECONDS, default="fast", help="fast: the smallest case")
    add("--only", nargs="+", choices=JOBS, default=list(JOBS), metavar="JOB")
    add("--libraries", nargs="+", choices=PEERS, default=list(PEERS), metavar="NAME")
    add("--out", type=Path, default=HERE, metavar="DIR")
    add("--readme", type=Path, default=HERE.parents[1] / "README.md", metavar="FILE")
    add("--envs", type=Path, default=Path.home() / ".cache/skal/peers", metavar="DIR")
    add("--time-limit", type=float, metavar="SECONDS", help="of each measurement")
    add("--memory-limit", type=float, default=6, metavar="GB")
    add("--threads", type=int, default=1)
    return parser.parse_args(arguments)


def machine(threads):
    """Processor, threads and the versions that all libraries share."""
    processor = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            processor = line.split(":")[1].strip()
    names = "torch", "numpy", "scikit-learn", "skorch"
    versions = (f"{name} {version(name)}" for name in names)
    counted = "one thread" if threads == 1 else f"{threads} threads"
    python = f"Python {platform.python_version()}"
    return ", ".join([processor, counted, platform.system(), python, *versions])


def libraries_for(job, among):
    having = IMPORTS if job == "import" else {name for name, its in CELLS if its == job}
    return [name for name in PEERS if name in having and name in among]


def took_too_much(rows, job, n, k, library):
    """The note of a smaller case that was over a limit, "" if none was."""
    for (its_job, its_n, its_k, its_library), row in rows.items():
        smaller = its_n <= n and its_k <= k and (its_n, its_k) != (n, k)
        alike = (its_job, its_library) == (job, library)
        if alike and smaller and row["note"].startswith("over "):
            return row["note"]
    return ""


def measure(library, job, n, k, limits, envs):
    """Seconds, memory and picks of one library, or a note why there are none."""
    try:
        python = python_of(library, envs)
    except InstallError as error:
        return {"note": f"not installed: {error}"}
    return limits.run([python, HERE / "process.py", library, job, n, k])


def twice(first, second):
    """skal before and after the others: the mean, if both are there."""
    if "seconds" not in first or "seconds" not in second:
        return first
    return first | {"seconds": (first["seconds"] + second["seconds"]) / 2}


def as_row(library, job, n, k, measured):
    row = {"job": job, "n": n, "k": k, "library": library}
    row |= {"version": versions()[library], "note": measured.get("note", "")}
    if row["note"]:
        return row
    row["seconds"] = f"{measured['seconds']:.4g}"
    row["megabytes"] = f"{measured['memory'] / 1e6:.0f}"
    picks = measured.get("picks", [])
    if picks:
        row["duplicates"] = len(picks) - len(set(picks))
        row["agreement"] = agreement(job, n, k, picks)
    if "accuracy" in measured:
        row["agreement"] = f"accuracy {measured['accuracy']:.3f}"
    return row


def versions():
    return {name: peer.version for name, peer in PEERS.items()} | {
        "skal": version("skal")
    }


def compare(job, n, k, libraries, limits, envs, rows):
    """Measure one case with all libraries, skal first and last; adds to `rows`."""
    found = {}
    for library in libraries:
        note = took_too_much(rows, job, n, k, library)
        found[library] = (
            {"note": note} if note else measure(library, job, n, k, limits, envs)
        )
    if "skal" in found and len(found) > 1:
        again = measure("skal", job, n, k, limits, envs)
        found["skal"] = twice(found["skal"], again)
    for library, measured in found.items():
        row = as_row(library, job, n, k, measured)
        rows[tables.key(row)] = row
        print(tables.title(job, n, k), library, tables.cost(row), sep="; ", flush=True)


def in_order(rows):
    cases = [(job, *case) for job, its in JOBS.items() for case in its]
    names = list(PEERS)
    places = sorted(rows, key=lambda key: (cases.index(key[:3]), names.index(key[3])))
    return {key: rows[key] for key in places}


def main(arguments=None):
    options = parse(arguments)
    place = machine(options.threads)
    seconds = options.time_limit or SECONDS[options.profile]
    limits = Limits(seconds, options.memory_limit, options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    rows = tables.read(options.out / "peers.csv", place, versions())
    for job in options.only:
        cases = JOBS[job] if options.profile == "full" else JOBS[job][:1]
        for n, k in cases:
            libraries = libraries_for(job, options.libraries)
            compare(job, n, k, libraries, limits, options.envs, rows)
            rows = in_order(rows)
            tables.write(options.out / "peers.csv", rows, place)
    names = {name for _, _, _, name in rows}
    libraries = {name: its for name, its in versions().items() if name in names}
    tables.write_page(options.out / "peers.md", rows, libraries, place)
    if tables.write_short(options.readme, rows, libraries, place):
        print(f"wrote the table of {options.readme}")
    else:
        print(f"left {options.readme} as it is: that table needs --profile full")


if __name__ == "__main__":
    main()
