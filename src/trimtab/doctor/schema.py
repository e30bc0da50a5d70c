"""The JSON Schema of a diagnosis: the contract for programs that read diagnosis.json or `trimtab doctor --json`."""

from __future__ import annotations

from typing import Any, Final

from trimtab.doctor.codes import CODES
from trimtab.doctor.finding import SCHEMA, SEVERITIES

_TEXT: Final = {"type": "string"}
_NUMBER: Final = {"oneOf": [{"type": "number"}, {"type": "null"}, {"enum": ["nan", "inf", "-inf"]}]}
_CODE: Final = {"enum": list(CODES)}


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _array(items: Any, **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **more}


DIAGNOSIS_SCHEMA: Final[dict[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "A diagnosis by trimtab",
    **_object(
        schema={"const": SCHEMA},
        run=_TEXT,
        verdict={"enum": ["healthy", "attention", "failed"]},
        findings=_array(
            _object(
                code=_CODE,
                severity={"enum": list(SEVERITIES)},
                confidence={"type": "number", "minimum": 0, "maximum": 1},
                onset_step={"type": "integer", "minimum": 0},
                cause=_TEXT,
                evidence=_array(
                    _object(
                        metric=_TEXT,
                        steps=_array({"type": "integer", "minimum": 0}, minItems=2, maxItems=2),
                        observed=_NUMBER,
                        expected=_NUMBER,
                        text=_TEXT,
                    )
                ),
                consequences=_array(_CODE),
                remedies=_array(
                    _object(
                        summary=_TEXT,
                        target={"enum": ["trimtab", "huggingface", "lightning", "text"]},
                        config={"type": "object"},
                    )
                ),
            )
        ),
        withheld=_array(_object(code=_CODE, needs=_array(_TEXT))),
        summary=_TEXT,
        order=_array(
            _object(
                metric=_TEXT,
                steps=_array({"type": "integer", "minimum": 0}, minItems=2, maxItems=2),
                direction={"enum": ["up", "down", "not finite"]},
            )
        ),
    ),
}
