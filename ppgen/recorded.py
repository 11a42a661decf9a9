"""Objects that remember their constructor's arguments, so that a run can say how to remake them."""

import inspect
from typing import Any, Self


class Recorded:
    """A mixin: `arguments` holds the constructor's arguments by name, defaults included."""

    arguments: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        try:
            bound = inspect.signature(cls.__init__).bind(self, *args, **kwargs)
        except TypeError:
            return self  # a copy, which brings its attributes; or a call that __init__ will refuse
        bound.apply_defaults()
        given = dict(list(bound.arguments.items())[1:])
        # Past nn.Module's attribute handling, which is not ready before __init__.
        self.__dict__["arguments"] = given | given.pop("kwargs", {})
        return self


def describe(thing: Any) -> dict[str, Any]:
    """``{"class_path": ..., "init_args": ...}`` of an object, as the commands read it.

    `init_args` is None where the arguments are unknown or cannot be written down in YAML: then
    whoever loads it has to build the object.
    """
    cls = type(thing)
    arguments = getattr(thing, "arguments", None)
    if arguments is not None:
        try:
            arguments = {key: plain(value) for key, value in arguments.items() if key != "program"}
        except TypeError:
            arguments = None
    return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": arguments}


def plain(value: Any) -> Any:
    """A value as YAML and JSON know it.

    Raises:
        TypeError: the value has no such form.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    raise TypeError(f"{type(value).__name__} cannot be written to a configuration")
