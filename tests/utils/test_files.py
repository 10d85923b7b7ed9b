"""Files are whole or absent."""

import os
import subprocess
import sys

import pytest

from skal.utils.files import IMAGES, append_line, atomic_write, find_images


@pytest.mark.parametrize(("mode", "content"), [("wb", b"\x00new"), ("w", "né\n")])
@pytest.mark.parametrize("exists", [False, True])
def test_the_file_appears_whole(mode, content, exists, tmp_path):
    path = tmp_path / "result.json"
    if exists:
        path.write_text("old")
    with atomic_write(path, mode) as file:
        file.write(content)
        file.flush()
        assert path.exists() == exists  # nothing to be seen before the end
    found = path.read_bytes() if mode == "wb" else path.read_text(encoding="utf-8")
    assert found == content
    assert os.listdir(tmp_path) == ["result.json"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("exists", [False, True])
def test_an_error_leaves_what_was_there(error, exists, tmp_path):
    path = tmp_path / "result.json"
    if exists:
        path.write_text("old")
    with pytest.raises(error), atomic_write(path, "w") as file:
        file.write("half of it")
        raise error
    assert os.listdir(tmp_path) == (["result.json"] if exists else [])
    assert not exists or path.read_text() == "old"


@pytest.mark.parametrize("step", ["os.fsync", "os.replace"])
def test_a_failing_disk_leaves_what_was_there(step, tmp_path, monkeypatch):
    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(step, fail)
    path = tmp_path / "result.json"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"), atomic_write(path, "w") as file:
        file.write("new")
    assert os.listdir(tmp_path) == ["result.json"]
    assert path.read_text() == "old"


def test_a_crash_leaves_what_was_there(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    code = (
        "import os, sys\n"
        "from skal.utils.files import atomic_write\n"
        "with atomic_write(sys.argv[1], 'w') as file:\n"
        "    file.write('half')\n"
        "    file.flush()\n"
        "    os._exit(9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == 9
    assert path.read_text() == "old"
    with atomic_write(path, "w") as file:  # what the crash left is in nobody's way
        file.write("new")
    assert path.read_text() == "new"


def test_the_folder_must_exist(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "no" / "file"):
        pass


def test_append_line(tmp_path):
    path = tmp_path / "rounds.jsonl"
    append_line(path, "é1")
    append_line(path, "2")
    assert path.read_text(encoding="utf-8") == "é1\n2\n"


def test_hidden_and_other_files_are_no_images(tmp_path):
    names = ["B.JPEG", "a.png", "more/c.jpg", "more/b/d.webp"]
    left_out = [".skal/x.png", ".x.png", "__MACOSX/a.png", "notes.txt", "e.png/notes"]
    for name in names + left_out:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert find_images(tmp_path) == ["B.JPEG", "a.png", "more/b/d.webp", "more/c.jpg"]


def test_images_are_what_torchvision_takes_for_them():
    from torchvision.datasets.folder import IMG_EXTENSIONS

    assert IMAGES == IMG_EXTENSIONS
