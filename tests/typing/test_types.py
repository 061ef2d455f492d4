"""mypy and pyright agree with cases.py: types of what users write, and errors of what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.support.postgres import CHECKOUT

CASES = Path(__file__).with_name("cases.py")


def run(*command: str) -> tuple[int, str]:
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_mypy() -> None:
    status, said = run(sys.executable, "-m", "mypy", "--strict", str(CASES))
    assert status == 0, said


def test_pyright(tmp_path: Path) -> None:
    (tmp_path / "pyrightconfig.json").write_text(
        json.dumps(
            {
                "include": [str(CASES)],
                "typeCheckingMode": "standard",
                "enableTypeIgnoreComments": False,  # those are mypy's
                "reportUnnecessaryTypeIgnoreComment": "error",
                "reportMissingTypeArgument": "error",
            }
        )
    )
    command = (sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable)
    status, said = run(*command, "--project", str(tmp_path))
    assert status == 0, said
