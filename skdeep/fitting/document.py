"""Sections of docstrings that several classes share, written once."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from textwrap import dedent, indent


def document(**sections: str) -> Callable[[type], type]:
    """Decorate a class: replace ``{name}`` lines in its docstring by the section of that name."""

    def decorate(cls: type) -> type:
        if cls.__doc__ is None:  # python -OO
            return cls
        doc = inspect.cleandoc(cls.__doc__)
        doc = re.sub(r"^\{(\w+)\}$", lambda field: dedent(sections[field[1]]).strip(), doc, flags=re.MULTILINE)
        cls.__doc__ = indent(doc, "    ").lstrip()
        return cls

    return decorate
