"""Settings as the reference shows them."""

from __future__ import annotations

from pydantic_settings import BaseSettings

from twinlog.service.settings import meaning


def described(kind: type[BaseSettings]) -> list[tuple[str, str, str]]:
    """The name, default (or "required") and meaning of each setting."""
    return [
        (
            name.upper(),
            "required" if field.is_required() else str(field.default),
            field.description or meaning(kind, name),
        )
        for name, field in kind.model_fields.items()
    ]
