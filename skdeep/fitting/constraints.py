"""What values parameters may have, each class saying no more than what differs from the classes it derives from."""

from __future__ import annotations

from typing import Any, ClassVar

from skdeep.compat.sklearn import HasMethods


class Constrained:
    """A class whose ``_parameter_constraints`` are its own, and for all other parameters the next base's."""

    _parameter_constraints: ClassVar[dict] = {}
    _own_constraints: ClassVar[dict] = {}
    #: Parameters of its bases that a class does not have.
    _dropped: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        cls._own_constraints = vars(cls).get("_parameter_constraints", {})
        together: dict[str, list] = {}
        for base in reversed(cls.__mro__):
            known = vars(base)
            together |= known.get("_own_constraints", known.get("_parameter_constraints", {}))
        cls._parameter_constraints = {name: value for name, value in together.items() if name not in cls._dropped}


class ObjectOf(HasMethods):
    """The constraint of a parameter that it is an object of a class; the class, which has its method too, is none."""

    def __init__(self, form: type, method: str, example: str) -> None:
        super().__init__(method)
        self.form, self.example = form, example

    def is_satisfied_by(self, val: Any) -> bool:
        return isinstance(val, self.form)

    def __str__(self) -> str:
        return f"an object such as {self.example}"
