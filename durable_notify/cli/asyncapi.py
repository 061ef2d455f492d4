"""``asyncapi``: describe a module's topics to other teams and programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from ..asyncapi import document
from .common import common
from .handler import Module

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["asyncapi"]


@click.command("asyncapi")
@common
@click.argument("module", type=Module())
def asyncapi(module: ModuleType) -> None:
    """Print an AsyncAPI 3 document of the topics that a Python module defines, as JSON.

    It has a channel for each Topic at the top level of the module and of its submodules that it
    imports, with the JSON Schema of its payloads. It asks no database.
    """
    click.echo(json.dumps(document(module), indent=2, ensure_ascii=False))
