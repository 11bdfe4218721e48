"""A v15 tekken.json cut from the real vocabulary that mistral-common carries; special ids as in the release."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from tests.pocket.config import NUM_SPECIAL_TOKENS, PocketConfig

SPECIAL_TOKENS = {
    0: "<unk>",
    1: "<s>",
    2: "</s>",
    3: "[INST]",
    4: "[/INST]",
    5: "[AVAILABLE_TOOLS]",
    6: "[/AVAILABLE_TOOLS]",
    7: "[TOOL_RESULTS]",
    8: "[/TOOL_RESULTS]",
    9: "[TOOL_CALLS]",
    10: "[IMG]",
    11: "<pad>",
    12: "[IMG_BREAK]",
    13: "[IMG_END]",
    14: "[PREFIX]",
    15: "[MIDDLE]",
    16: "[SUFFIX]",
    17: "[SYSTEM_PROMPT]",
    18: "[/SYSTEM_PROMPT]",
    19: "[TOOL_CONTENT]",
    32: "[ARGS]",
    33: "[CALL_ID]",
    34: "[THINK]",
    35: "[/THINK]",
    36: "[MODEL_SETTINGS]",
    37: "[/MODEL_SETTINGS]",
}


def tekken_json(config: PocketConfig) -> dict[str, Any]:
    real = json.loads(resources.files("mistral_common").joinpath("data/tekken_240911.json").read_text("utf-8"))
    return {
        "config": {
            "pattern": real["config"]["pattern"],
            "num_vocab_tokens": config.num_ranks,
            "default_vocab_size": config.n_vocab,
            "default_num_special_tokens": NUM_SPECIAL_TOKENS,
            "version": "v15",
        },
        "vocab": real["vocab"][: config.num_ranks],
        "special_tokens": [
            {"rank": rank, "token_str": SPECIAL_TOKENS.get(rank, f"<SPECIAL_{rank}>"), "is_control": True}
            for rank in range(NUM_SPECIAL_TOKENS)
        ],
        "version": 1,
        "type": "Tekken",
        "image": {
            "image_patch_size": config.patch_size,
            "max_image_size": config.image_size,
            "spatial_merge_size": config.spatial_merge_size,
        },
        "model_settings_builder": {
            "reasoning_effort": {
                "type": "enum",
                "values": ["none", "high"],
                "accepts_none": True,
                "default": "none",
            }
        },
    }
