"""Sections of docstrings that several classes share, written once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from textwrap import dedent, indent


def document(**sections: str) -> Callable[[type], type]:
    """Decorate a class: replace ``{name}`` lines in its docstring by the given sections."""

    def decorate(cls: type) -> type:
        if cls.__doc__ is None:  # python -OO
            return cls
        doc = inspect.cleandoc(cls.__doc__)
        for name, text in sections.items():
            if (field := "{" + name + "}") not in doc:
                raise ValueError(f"{cls.__name__} has no {field} in its docstring.")
            doc = doc.replace(field, dedent(text).strip())
        cls.__doc__ = indent(doc, "    ").lstrip()
        return cls

    return decorate
