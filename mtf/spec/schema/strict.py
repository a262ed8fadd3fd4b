"""Base classes of all sections: ``Strict`` knows all its keys, ``Open`` keeps further ones.

``Constructed`` is a section whose keys go to what its ``type`` names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError, model_serializer

from mtf.errors import CONFIGURATION, ConfigurationError, Problem
from mtf.spec.schema.error_messages import explain

if TYPE_CHECKING:
    from pydantic import SerializerFunctionWrapHandler
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)


class _WordedErrors(ModelMetaclass):
    """Lets a section that a program makes say its mistakes in mtf's words.

    ``model_validate``, with which mtf reads files, goes another way and is not slowed down.
    """

    if not TYPE_CHECKING:  # the plug-in of mypy knows the arguments of each section

        def __call__(self, *args: Any, **values: Any) -> Any:
            try:
                return super().__call__(*args, **values)
            except ValidationError as e:
                details = e.errors(include_url=False)
            messages = [explain(detail, self, (self.__name__,)) for detail in details]
            raise ConfigurationError([Problem(CONFIGURATION, 1, 1, text) for text in messages])


class Strict(BaseModel, metaclass=_WordedErrors):
    """Refuses unknown keys and converts nothing: a wrong type is an error."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        defer_build=True,
    )

    @classmethod
    def defaults(cls) -> Self:
        """Return the section with nothing set: defaults need no validation, which takes 1 ms."""
        return cast("Self", cls.model_construct())


class Open(Strict):
    """Keeps further keys, which go unchanged to the model, the optimizer and so on."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue]

    @property
    def further(self) -> dict[str, JsonValue]:
        """Return the keys that the section itself does not define."""
        return self.__pydantic_extra__


class Constructed(Open):
    """Names a class or function to call. Some keys have defaults for types known by name only.

    Another type, such as a class of the user's, has defaults of its own: it gets such a key only
    if the spec sets it, and the resolved configuration does not list it otherwise.
    """

    defaulted: ClassVar[frozenset[str]]
    """Keys that have defaults for known types only."""

    type: str

    @property
    def is_known_type(self) -> bool:
        """Return True if the defaults of the section are those of its type."""
        raise NotImplementedError

    @property
    def left_out(self) -> frozenset[str]:
        """Return the keys that are not set and whose defaults are not those of the type."""
        return frozenset() if self.is_known_type else self.defaulted - self.model_fields_set

    @model_serializer(mode="wrap")
    def _without_left_out(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain: dict[str, Any] = handler(self)
        for key in self.left_out:
            plain.pop(key, None)
        return plain
