"""Run the tests of a small project, in this process."""

from __future__ import annotations

import pytest


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return project.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:xdist", *arguments)
