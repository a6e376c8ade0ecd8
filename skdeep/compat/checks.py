"""The error of import where something private to another library is gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version


class MissingPrivateName(ImportError):
    """The error of a check of this folder."""


def _message(library: str, known: str, what: str) -> str:
    return (
        f"skdeep relies on something private to {library}: {what}. {library} {version(library)} does not have it; this "
        f"release of skdeep is known to work with {library} {known}: install that, or a newer skdeep."
    )


@contextmanager
def private_names(library: str, known: str) -> Iterator[None]:
    """Have an import, or a look at an attribute, that fails say what is gone, and which `known` versions have it."""
    try:
        yield
    except MissingPrivateName:
        raise
    except (ImportError, AttributeError) as error:
        raise MissingPrivateName(_message(library, known, str(error))) from error


def demand(holds: bool, what: str, library: str, known: str) -> None:
    """Raise an error of import where something that is relied on is not so."""
    if not holds:
        raise MissingPrivateName(_message(library, known, what))
