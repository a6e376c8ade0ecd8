"""Sections of docstrings that several classes or methods share, written once."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from textwrap import dedent, indent
from typing import TypeVar

Documented = TypeVar("Documented", bound=Callable)


def document(**sections: str) -> Callable[[Documented], Documented]:
    """Decorate a class or a method: replace ``{name}`` lines in its docstring by the section of that name."""

    def decorate(one: Documented) -> Documented:
        if one.__doc__ is None:  # python -OO
            return one
        doc = inspect.cleandoc(one.__doc__)
        doc = re.sub(r"^\{(\w+)\}$", lambda field: dedent(sections[field[1]]).strip(), doc, flags=re.MULTILINE)
        one.__doc__ = indent(doc, "    ").lstrip()
        return one

    return decorate
