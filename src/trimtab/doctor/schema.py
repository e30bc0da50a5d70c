"""The JSON Schemas of a diagnosis and of what `trimtab doctor --json` prints: the contract for programs that read them.

Within one number of `schema` nothing is renamed or taken away; what is added is optional, or a new code.
"""

from __future__ import annotations

from typing import Any, Final, get_args

from trimtab.doctor.codes import CODES
from trimtab.doctor.finding import SCHEMA, SEVERITIES, Target

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


def _with(schema: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {**schema, "properties": {**schema["properties"], **optional}}


def _array(items: Any, **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **more}


DIAGNOSIS_SCHEMA: Final[dict[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "A diagnosis by trimtab",
    **_with(
        _object(
            schema={"const": SCHEMA},
            run=_TEXT,
            verdict={"enum": ["healthy", "attention", "failed"]},
            findings=_array(
                _with(
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
                                target={"enum": list(get_args(Target))},
                                config={"type": "object"},
                            )
                        ),
                    ),
                    guess={"const": True},
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
        unit={"enum": ["step", "epoch"]},
        beaten_by=_TEXT,
    ),
}

_COUNT: Final = {"type": "integer", "minimum": 0}
_TEXTS: Final = _array(_TEXT)
_LOG: Final = _object(
    format=_TEXT, source=_TEXT, names={"type": "object", "additionalProperties": _TEXT}, unused=_TEXTS, notes=_TEXTS
)
_FIX: Final = _object(
    changes=_array(_object(key=_TEXT, was={}, now={}, code=_CODE, remedy=_TEXT)),
    advice=_array(_object(code=_CODE, remedy=_TEXT, passed_over={"type": ["string", "null"]})),
)
_CHECK: Final = _object(
    name=_TEXT,
    verdict={"enum": ["passed", "failed", "unclear", "left out"]},
    text=_TEXT,
    code=_TEXT,
    observed={"type": "object"},
    seconds=_NUMBER,
)
_OUTCOME: Final = _object(
    side={"enum": ["original", "fixed"]},
    seed=_COUNT,
    run=_TEXT,
    status=_TEXT,
    step=_COUNT,
    loss=_NUMBER,
    found=_TEXTS,
)
_PROOF: Final = _object(
    schema={"const": 1},
    verdict={"enum": ["held", "helped", "failed", "unclear"]},
    text=_TEXT,
    codes=_TEXTS,
    overrides=_TEXTS,
    steps=_COUNT,
    of_steps=_COUNT,
    shown=_COUNT,
    left=_COUNT,
    difference=_NUMBER,
    interval={"oneOf": [_array(_NUMBER, minItems=2, maxItems=2), {"type": "null"}]},
    outcomes=_array(_OUTCOME),
    obstacles=_TEXTS,
)
_ANSWER: Final = _with(
    DIAGNOSIS_SCHEMA,
    log=_LOG,
    fix=_FIX,
    examination=_array(_CHECK),
    proof={"oneOf": [_PROOF, {"type": "null"}]},
)
_HEAD: Final = ("$schema", "title")

DOCTOR_SCHEMA: Final[dict[str, Any]] = {
    "$schema": DIAGNOSIS_SCHEMA["$schema"],
    "title": "What `trimtab doctor --json` prints: a diagnosis with what else was asked for; of several paths a list",
    "$defs": {"answer": {key: value for key, value in _ANSWER.items() if key not in _HEAD}},
    "oneOf": [{"$ref": "#/$defs/answer"}, _array({"$ref": "#/$defs/answer"})],
}
