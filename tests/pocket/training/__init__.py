"""What the trained miniature is taught: families of dialogues, each with combinations that training never sees.

Invariant: nothing here but `torch_*.py` files needs torch, so the behaviour suite can ask the same held-out questions.
"""

from __future__ import annotations

from tests.pocket.training.case import Call, Case, Reply
from tests.pocket.training.families import FAMILIES, held_out_cases, training_case

__all__ = ["FAMILIES", "Call", "Case", "Reply", "held_out_cases", "training_case"]
