"""Conditions on latents, their algebra, and sampling under conditions, without Lightning."""

from lebm.conditions.algebra import Condition, Given, LogFactor, Near, Observed, as_condition
from lebm.conditions.classes import ClassCondition, parsed
from lebm.conditions.drawing import ConditionalDraws, draw_given

__all__ = [
    "ClassCondition",
    "Condition",
    "ConditionalDraws",
    "Given",
    "LogFactor",
    "Near",
    "Observed",
    "as_condition",
    "draw_given",
    "parsed",
]
