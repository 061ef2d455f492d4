"""Build the sdist and the wheel, and see that they can be reproduced.

python3 tasks.py build [FOLDER]   into dist, or another folder

The first build is of this checkout. The second one is of what the first sdist contains, in another
folder: both must be equal, byte for byte. Times in them are that of the last commit.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = "import sys, hatchling.build as b; b.build_sdist(sys.argv[1]); b.build_wheel(sys.argv[1])"


def committed_at() -> str:
    """Return the time of the last commit, as SOURCE_DATE_EPOCH has it."""
    if epoch := os.environ.get("SOURCE_DATE_EPOCH"):
        return epoch
    command = ("git", "log", "-1", "--format=%ct")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def build_once(source: Path, target: Path, epoch: str) -> dict[str, Path]:
    """Build in a folder; return the files by name."""
    target.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"SOURCE_DATE_EPOCH": epoch}
    command = [sys.executable, "-c", BUILD, str(target)]
    subprocess.run(command, cwd=source, env=environment, check=True)
    return {path.name: path for path in sorted(target.iterdir())}


def build(folder: Path) -> list[Path]:
    """Build twice, compare, and put the files into a folder, which is emptied."""
    epoch = committed_at()
    with tempfile.TemporaryDirectory() as temporary:
        first = build_once(ROOT, Path(temporary) / "first", epoch)
        (sdist,) = (path for name, path in first.items() if name.endswith(".tar.gz"))
        with tarfile.open(sdist) as archive:
            archive.extractall(Path(temporary) / "elsewhere", filter="data")
        (source,) = (Path(temporary) / "elsewhere").iterdir()
        second = build_once(source, Path(temporary) / "second", epoch)
        if first.keys() != second.keys():
            sys.exit(f"one build made {list(first)}, the other one {list(second)}")
        differing = [
            name for name in first if first[name].read_bytes() != second[name].read_bytes()
        ]
        if differing:
            sys.exit(f"not reproduced: {', '.join(differing)}")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return [Path(shutil.copy(path, folder)) for path in first.values()]


def main(arguments: list[str]) -> None:
    """Build, and name the files."""
    for path in build(Path(arguments[0] if arguments else ROOT / "dist")):
        print(f"{path.name}  {path.stat().st_size} bytes, reproduced")


if __name__ == "__main__":
    main(sys.argv[1:])
