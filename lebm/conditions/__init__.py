"""Conditions on latents, their algebra, and sampling under conditions, without Lightning."""

from lebm.conditions.algebra import (
    At,
    Both,
    Condition,
    Either,
    Given,
    LogFactor,
    Near,
    Not,
    Observed,
    Power,
    as_condition,
)
from lebm.conditions.classes import ClassCondition, parsed
from lebm.conditions.drawing import ConditionalDraws, draw_given

__all__ = [
    "At",
    "Both",
    "ClassCondition",
    "Condition",
    "ConditionalDraws",
    "Either",
    "Given",
    "LogFactor",
    "Near",
    "Not",
    "Observed",
    "Power",
    "as_condition",
    "draw_given",
    "parsed",
]
