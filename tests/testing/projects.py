"""Run the tests of a small project, in this process."""

from __future__ import annotations

import pytest

#: pytest-django forbids Django's connections in this process, which other tests use.
OPTIONS = ("-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:django")


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return project.runpytest_inprocess(*OPTIONS, *arguments)
