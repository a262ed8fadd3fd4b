"""The two kinds of sections: those that know all their keys, and those that keep further ones."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, JsonValue


class Strict(BaseModel):
    """Refuses unknown keys and converts nothing: a wrong type is a mistake to be told."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        defer_build=True,
    )


class Open(Strict):
    """Keeps further keys, which go to the model, the optimizer and so on as they are."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue]

    @property
    def further(self) -> dict[str, JsonValue]:
        """Return the keys that the section does not know itself."""
        return self.__pydantic_extra__
