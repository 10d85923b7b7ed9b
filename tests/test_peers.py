"""The comparison with other libraries: environments, limits, judges and tables."""

import importlib
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

PEERS = Path(__file__).parents[1] / "benchmarks" / "peers"
PLACE = "a processor, one thread"


@pytest.fixture
def load(monkeypatch):
    """Import a module of the command, which is no package."""
    monkeypatch.syspath_prepend(PEERS.parent)
    monkeypatch.syspath_prepend(PEERS)
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if PEERS.parent in Path(file).parents:
            del sys.modules[name]


@pytest.fixture
def command(load):
    spec = importlib.util.spec_from_file_location("peers_main", PEERS / "__main__.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder with the one package that pip finds."""
    wheel = tmp_path / "fakepeer-1.0-py3-none-any.whl"
    meta = "fakepeer-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("fakepeer.py", "import numpy\nanswer = 42\n")
        head = "Metadata-Version: 2.1\nName: fakepeer\nVersion: 1.0\n"
        file.writestr(f"{meta}/METADATA", head)
        file.writestr(f"{meta}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        file.writestr(f"{meta}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")


def test_an_environment_has_the_library_and_shares_the_others(load, index, tmp_path):
    environments = load("environments")
    peers = {"fake": environments.Peer(("fakepeer==1.0",)), "skal": environments.Peer()}
    python = environments.python_of("fake", tmp_path / "envs", peers)
    code = "import fakepeer, numpy, skal; print(fakepeer.answer, numpy.__file__)"
    run = subprocess.run([python, "-c", code], capture_output=True, text=True)
    assert run.stdout.split() == ["42", np.__file__], run.stderr
    made = Path(python).parents[1] / "installed"
    before = made.stat().st_mtime_ns
    assert environments.python_of("fake", tmp_path / "envs", peers) == python
    assert made.stat().st_mtime_ns == before
    assert environments.python_of("skal", tmp_path / "envs", peers) == sys.executable


def test_a_library_that_pip_does_not_find_is_named_with_the_reason(
    load, command, index, tmp_path, monkeypatch
):
    environments = load("environments")
    gone = environments.Peer(("gonepeer==3.1",))
    monkeypatch.setitem(environments.PEERS, "baal", gone)
    measured = command.measure("baal", "margin", 50, 5, None, tmp_path)
    assert measured == {
        "note": "not installed: No matching distribution found for gonepeer==3.1"
    }


def test_skal_is_measured_before_and_after_the_others(command, monkeypatch):
    measured = iter([1.0, 9.0, 2.0])

    def measure(*args):
        asked.append(args[0])
        return {"seconds": next(measured), "memory": 2e6, "picks": [1, 2, 1]}

    asked, rows = [], {}
    monkeypatch.setattr(command, "measure", measure)
    command.compare("Falcun", 50, 3, ["skal", "baal"], None, None, rows)
    assert asked == ["skal", "baal", "skal"]
    ours, theirs = rows.values()
    assert (ours["seconds"], theirs["seconds"]) == ("1.5", "9")
    assert ours["duplicates"] == 1 and ours["megabytes"] == "2"


ENDLESS = "while True: pass"
LARGE = "import time; x = b'1' * 300_000_000; time.sleep(60)"
BROKEN = "print('once'); raise TypeError('no argument like this')"
FINE = "import sys; open(sys.argv[1], 'w').write('{\"seconds\": 1.5}')"


# A processor may take long to start Python or to fill memory: one tight limit a case.
@pytest.mark.parametrize(
    "code, limits, found",
    [
        (ENDLESS, {"seconds": 0.3}, {"note": "over 0.3 s"}),
        (LARGE, {"seconds": 60, "gigabytes": 0.2}, {"note": "over 0.2 GB"}),
        (BROKEN, {"seconds": 60}, {"note": "TypeError: no argument like this"}),
        (FINE, {"seconds": 60}, {"seconds": 1.5}),
    ],
)
def test_what_takes_too_much_or_breaks_says_so(load, code, limits, found):
    limits = load("limits").Limits(**limits)
    assert limits.run([sys.executable, "-S", "-c", code]) == found


def test_larger_cases_are_left_out_after_one_over_a_limit(command):
    rows = {
        ("BADGE", 2_000, 100, "baal"): {"note": "over 60 s"},
        ("BADGE", 2_000, 100, "modAL"): {"note": "TypeError: broken"},
    }
    for case, note in [
        (("BADGE", 10_000, 100, "baal"), "over 60 s"),
        (("BADGE", 2_000, 1_000, "baal"), "over 60 s"),
        (("BADGE", 2_000, 100, "baal"), ""),
        (("BADGE", 10_000, 10, "baal"), ""),
        (("k-center", 10_000, 100, "baal"), ""),
        (("BADGE", 10_000, 100, "modAL"), ""),
    ]:
        assert command.took_too_much(rows, *case) == note, case


def test_a_case_is_measured_judged_and_written(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "JOBS", {"k-center": [(60, 5)]})
    readme = tmp_path / "README.md"
    options = ["--libraries", "public code", "--only", "k-center"]
    command.main([*options, "--out", str(tmp_path), "--readme", str(readme)])
    assert "needs --profile full" in capsys.readouterr().out and not readme.exists()
    head, columns, row = (tmp_path / "peers.csv").read_text().splitlines()
    assert "one thread" in head and columns.startswith("job,n,k,library")
    assert row.startswith("k-center,60,5,public code,")
    assert row.endswith(",0,5 of 5 exact,")
    assert "5 of 5 exact" in (tmp_path / "peers.md").read_text()


def made_rows(tables):
    def row(job, n, k, library, **more):
        return dict.fromkeys(tables.COLUMNS, "") | {
            "job": job, "n": n, "k": k, "library": library, **more
        }  # fmt: skip

    rows = [
        row(*case, library, seconds=seconds, megabytes="3.4", duplicates=twice)
        for case in tables.SHOWN
        for library, seconds, twice in [("skal", "0.5", 0), ("other", "12.34", 2)]
    ]
    rows[-1] = row(*tables.SHOWN[-1], "other", version="1.0", note="over 6 GB")
    return {tables.key(row): row for row in rows}


def test_tables(load, tmp_path):
    tables, libraries = load("tables"), {"skal": "0.1", "other": "1.0"}
    rows, readme = made_rows(tables), tmp_path / "README.md"
    readme.write_text("before\n<!-- peers -->\nold\n<!-- end of peers -->\nafter\n")
    assert tables.write_short(readme, rows, libraries, PLACE)
    lines = readme.read_text().splitlines()
    assert lines[:2] == ["before", "<!-- peers -->"] and PLACE in lines[3]
    assert lines[5] == "|  | skal 0.1 | other 1.0 |"
    badge = "| BADGE, 1,000 of 50,000 | 0.5 s, 3 MB | 12 s, 3 MB, 2 twice |"
    assert lines[7] == badge
    assert lines[13:] == [
        "| import | 0.5 s, 3 MB | over 6 GB |",
        "<!-- end of peers -->",
        "after",
    ]
    tables.write_page(tmp_path / "peers.md", rows, libraries, PLACE)
    page = (tmp_path / "peers.md").read_text()
    assert "| 1,000 of 50,000 | other | 12 | 3 | 25 | 2 |  |" in page
    assert "|  | other 1.0 | over 6 GB |  |  |  |  |" in page


def test_the_readme_keeps_its_table_where_a_case_is_not_measured(load, tmp_path):
    tables = load("tables")
    rows = made_rows(tables)
    del rows[("loop", 0, 0, "skal")], rows[("loop", 0, 0, "other")]
    assert not tables.write_short(tmp_path / "none", rows, {"skal": ""}, PLACE)


def test_a_file_without_markers_is_an_error_that_leaves_it(load, tmp_path):
    file = tmp_path / "README.md"
    file.write_text("<!-- peers -->\n")
    with pytest.raises(ValueError, match="must have the lines <!-- peers -->"):
        load("tables").replace_between(file, "table\n")
    assert file.read_text() == "<!-- peers -->\n"


def test_rows_stay_only_where_machine_and_version_are_the_same(load, tmp_path):
    tables, file = load("tables"), tmp_path / "peers.csv"
    rows = made_rows(tables)
    tables.write(file, rows, PLACE)
    versions = {"skal": "", "other": "2.0"}
    ours = {key for key in rows if key[3] == "skal"}
    other = {key for key in rows if key[3] == "other" and not rows[key]["version"]}
    assert set(tables.read(file, PLACE, {"skal": "", "other": ""})) == ours | other
    assert set(tables.read(file, PLACE, versions)) == ours
    assert tables.read(file, "another machine", versions) == {}
    assert tables.read(tmp_path / "none.csv", PLACE, versions) == {}


def test_exact_answers_are_those_of_brute_force(load):
    judge, cells = load("judge"), load("cells")
    pool = cells.Pool(50)
    rows = pool.rows.astype(np.float64)
    centers = list(pool.labeled.astype(np.float64))
    for pick in judge.exact_k_center(50, 4):
        nearest = [min(((row - c) ** 2).sum() for c in centers) for row in rows]
        assert nearest[pick] == pytest.approx(max(nearest))
        centers.append(rows[pick])
    picks = judge.exact_herding(50, 3)
    gains = [judge.coverage(50, [*picks[:2], other]) for other in range(50)]
    assert gains[picks[2]] == pytest.approx(max(gains))
    proba = pool.proba.astype(np.float64)
    proba[np.arange(50), proba.argmax(1)] -= 1
    gradients = (proba[:, :, None] * rows[:, None]).reshape(50, -1)
    nearest = [min(((g - gradients[p]) ** 2).sum() for p in (3, 7)) for g in gradients]
    assert judge.potential(50, np.array([3, 7])) == pytest.approx(sum(nearest))


def test_joint_information_of_one_row_is_its_mutual_information(load):
    judge = load("judge")
    draws = load("cells").samples(40)[5].astype(np.float64)
    mean = draws.mean(0)
    conditional = -(draws * np.log(draws)).sum(1).mean()
    expected = -(mean * np.log(mean)).sum() - conditional
    found = float(judge.batch_bald(40, 1, np.array([5])).removesuffix(" nats"))
    assert found == pytest.approx(expected, abs=0.02)


def test_every_library_is_measured_and_every_case_is_shown(load, command):
    environments, cells, tables = load("environments"), load("cells"), load("tables")
    assert {library for library, _ in cells.CELLS} == set(environments.PEERS)
    assert {job for _, job in cells.CELLS} | {"import"} == set(command.JOBS)
    assert all((n, k) in command.JOBS[job] for job, n, k in tables.SHOWN)
    assert len(environments.reason("ERROR: " + "x" * 500)) == 120
