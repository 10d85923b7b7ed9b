import csv

import numpy as np
import pytest
from PIL import Image

from skal.cli.cli import main


@pytest.fixture
def photos(tmp_path, monkeypatch):
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(12):
        values = rng.integers(0, 100, (8, 8), dtype=np.uint8) + 150 * (number % 2)
        Image.fromarray(values.astype(np.uint8)).save(folder / f"{number}.png")
    monkeypatch.chdir(folder)
    return folder


def fill_in(path, *labels):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    for place, row in enumerate(rows):
        number = int(row["item"].removesuffix(".png"))
        row["label"] = labels[place] if labels else ["cat", "dog"][number % 2]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_the_whole_path(photos, capsys):
    assert main("label init . --classes cat dog --batch-size 4".split()) == 0
    said = capsys.readouterr()
    assert "project: .skal, 12 items\nlabel them: skal label serve ." in said.out
    assert said.err == ""
    for _ in range(2):
        assert main(["label", "next"]) == 0
        fill_in("batch.csv")
        assert main(["label", "add", "batch.csv"]) == 0
        assert "4 answers recorded" in capsys.readouterr().out
    assert main(["label", "status", str(photos)]) == 0  # as with --project
    assert "8 of 12 items labelled" in capsys.readouterr().out
    assert main(["label", "predict", "p.csv"]) == 0
    with open("p.csv", newline="") as file:
        found = {row["item"]: row["label"] for row in csv.DictReader(file)}
    assert found == {f"{i}.png": ["cat", "dog"][i % 2] for i in range(12)}
    assert main(["label", "undo"]) == 0
    assert "taken back" in capsys.readouterr().out
    assert main(["label", "export", "../out", "--project", "."]) == 0
    assert "7 labelled items" in capsys.readouterr().out


def test_next_gives_the_same_batch_until_it_is_answered(photos, capsys):
    main("label init . --classes cat dog --project ../p".split())
    for name in ("a.csv", "b.csv"):
        main(["label", "next", "--batch-size=3", "--out", name, "--project", "../p"])
    first = (photos / "a.csv").read_text()
    assert first == (photos / "b.csv").read_text()
    assert first.startswith("item,label,") and first.count("\n") == 4
    fill_in("a.csv", "cat", "?", "")
    assert main(["label", "add", "a.csv", "--project", "../p"]) == 0
    assert "2 answers recorded, 0 known already, 1 left" in capsys.readouterr().out
    main("label next --project ../p --out c.csv --sheet ../s.png".split())
    (left,) = (photos / "c.csv").read_text().splitlines()[1:]
    assert left == first.splitlines()[3]
    assert (photos.parent / "s.png").exists()


@pytest.mark.parametrize(
    "command, message",
    [
        ("label next", "has no project; make one with skal label init"),
        ("label init . --classes cat", "--classes must name two different"),
        ("label init nothing --classes a b", "there is no nothing"),
        ("label init . --classes a b --batch-size x", "--batch-size must be a whole"),
        ("label init . --classes a,b", "with blanks between them"),
        ("label init . --classes a b --strategy magin", "did you mean 'margin'"),
        ("label init . --classes a b --strategy bald", "bald with --model linear: MCD"),
        ("label init . --classes a b --backbone resnet18", "--backbone must be torchv"),
        (
            "label init . --classes a b --backbone timm:local-dir:no",
            "timm:local-dir:no",
        ),
    ],
)
def test_wrong_requests(photos, capsys, command, message):
    assert main(command.split()) == 2
    assert message in capsys.readouterr().err
    assert not (photos / ".skal/project.toml").exists()


def test_wrong_requests_of_a_project(photos, capsys):
    main("label init . --classes cat dog".split())
    main(["label", "next"])
    fill_in("batch.csv", *["cat"] * 11, "cow")
    for command, message in [
        ("add batch.csv", "batch.csv, line 13: no class 'cow'"),
        ("next", "batch.csv is there already"),
        ("next --batch-size 0", "--batch-size must be a whole number"),
        ("next --format x --out x", "--format cannot be 'x'"),
        ("predict p.csv", "there is no model yet"),
        ("predict p.xls", "must end in .csv"),
        ("predict no/p.csv", "there is no folder 'no'; make it first"),
        ("next --out no/b.csv", "there is no folder 'no'; make it first"),
        ("undo", "there is no answer to take back"),
        ("add nothing.csv", "nothing.csv cannot be read"),
        ("init . --classes a b", "has a project already"),
    ]:
        capsys.readouterr()
        assert main(["label", *command.split()]) == 2
        assert message in capsys.readouterr().err
    assert main(["label", "status"]) == 0
    assert "0 of 12 items labelled" in capsys.readouterr().out


def test_a_table_of_sentences_is_told(tmp_path, capsys):
    path = tmp_path / "a.csv"
    path.write_text(
        "id,text\n" + "".join(f"{i},a fine film no {i}\n" for i in range(9))
    )
    assert main(["label", "init", str(path), "--classes", "a", "b"]) == 0
    assert "anew with --text-column text" in capsys.readouterr().err
    wrong = ["--project", str(tmp_path / "p"), "--text-column", "txt"]
    assert main(["label", "init", str(path), "--classes", "a", "b", *wrong]) == 2
    assert "--text-column cannot be 'txt'; did you mean" in capsys.readouterr().err


def test_what_happened_to_the_items_is_told(photos, capsys):
    main("label init . --classes cat dog".split())
    (photos / "0.png").rename("zero.png")
    (photos / "1.png").unlink()
    (photos / "x.png").write_text("no image")
    capsys.readouterr()
    main(["label", "status"])
    said = capsys.readouterr()
    assert "1 moved: 0.png -> zero.png" in said.err
    assert "1 deleted: 1.png" in said.err
    assert "1 passed over: x.png: cannot identify" in said.err
    assert "cannot be read: x.png" in said.out
    main(["label", "status"])
    assert capsys.readouterr().err == ""
