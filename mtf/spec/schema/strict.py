"""Base classes of all sections: ``Strict`` knows all its keys, ``Open`` keeps further ones."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, JsonValue


class Strict(BaseModel):
    """Refuses unknown keys and converts nothing: a wrong type is an error."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        defer_build=True,
    )


class Open(Strict):
    """Keeps further keys, which go unchanged to the model, the optimizer and so on."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue]

    @property
    def further(self) -> dict[str, JsonValue]:
        """Return the keys that the section itself does not define."""
        return self.__pydantic_extra__
