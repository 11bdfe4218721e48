"""What the server serves: the facts about the one loaded model that requests and clients need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mm35local.chat.messages import Effort
from mm35local.types import ImageGrid, SamplingParams


@dataclass(frozen=True, slots=True)
class ServedModel:
    id: str
    """Its name on the wire."""
    metadata: Mapping[str, object]
    """The GGUF's, from which the chat dialect is made."""
    size_bytes: int
    n_ctx_train: int
    sampling: Mapping[Effort, SamplingParams]
    """The model's own defaults; a request overrides them field by field."""
    license: str | None = None
    reason: str | None = None
    """Why this model was chosen, in one line, where nobody named one."""

    image_grid: ImageGrid | None = None
    """What the vision tower takes; None: the model sees no images."""
    thinking_field: str = "reasoning_content"
    """Where a chat completion carries what was thought; some clients look for `reasoning`."""
    keeps_own_sampling: bool = False
    """At high effort, take the model's own temperature and top_p whatever a client sends: some always send 0, which
    cuts thinking short."""

    def sampling_for(self, effort: Effort) -> SamplingParams:
        return self.sampling.get(effort) or self.sampling.get(Effort.NONE) or SamplingParams()
