"""The libraries to compare, and a virtual environment for each.

An environment holds the library and what it pins; torch, NumPy and all else come from
the environment that makes it, through a .pth file, so each takes a few megabytes.
"""

import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Peer:
    """What pip installs, the first being the library itself, and how."""

    requirements: tuple[str, ...] = ()
    with_dependencies: bool = True

    @property
    def version(self):
        return self.requirements[0].split("==")[1] if self.requirements else ""


# Without their dependencies where these would bring notebooks, or contradict what pip
# finds; then with those that are really imported.
PEERS = {
    "skal": Peer(),
    "scikit-activeml": Peer(("scikit-activeml==1.0.1",)),
    "small-text": Peer(("small-text==1.4.1",)),
    "baal": Peer(
        ("baal==2.1.0", "structlog<23", "torchmetrics>=1.7.3", "lightning-utilities"),
        with_dependencies=False,
    ),
    "modAL": Peer(("modAL-python==0.4.2.1", "setuptools<81")),
    "batchbald_redux": Peer(
        ("batchbald_redux==2.0.5", "toma==1.1.0"), with_dependencies=False
    ),
    "public code": Peer(),
}


class InstallError(Exception):
    """A library could not be installed; says why in one line."""


def python_of(name, folder, peers=PEERS):
    """The interpreter that has a library: makes its environment where there is none."""
    peer = peers[name]
    if not peer.requirements:
        return sys.executable
    home = Path(folder) / f"{name}-{peer.version}"
    python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    done = home / "installed"
    if not done.exists():
        venv.create(home, clear=True, symlinks=sys.platform != "win32")
        _share_packages(python)
        _install(peer, python)
        done.touch()
    return str(python)


def _share_packages(python):
    """Let an environment import what this one has, after its own."""
    ours = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    run = subprocess.run([python, "-c", code], capture_output=True, text=True)
    lines = [f"import site; site.addsitedir({path!r})" for path in sorted(ours)]
    Path(run.stdout.strip(), "shared.pth").write_text("\n".join(lines) + "\n")


def _install(peer, python):
    command = [sys.executable, "-m", "pip", "--python", python, "install", "-q"]
    if not peer.with_dependencies:
        command.append("--no-deps")
    run = subprocess.run(
        [*command, *peer.requirements], capture_output=True, text=True, check=False
    )
    if run.returncode:
        raise InstallError(reason(run.stderr))


def reason(text):
    """The line of what was printed to stderr that says what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    line = (errors or lines or ["no message"])[-1].removeprefix("ERROR: ")
    return line if len(line) <= 120 else f"{line[:117]}..."
