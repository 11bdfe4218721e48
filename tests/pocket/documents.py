"""The JSON files beside the weights: config.json and generation_config.json (HF), params.json (native)."""

from __future__ import annotations

from typing import Any

from tests.pocket.config import PocketConfig


def config_json(config: PocketConfig) -> dict[str, Any]:
    return {
        "architectures": ["Mistral3ForConditionalGeneration"],
        "model_type": "mistral3",
        "dtype": "bfloat16",
        "image_token_index": 10,
        "multimodal_projector_bias": False,
        "projector_hidden_act": "gelu",
        "spatial_merge_size": config.spatial_merge_size,
        "vision_feature_layer": -1,
        "tie_word_embeddings": False,
        "quantization_config": {
            "quant_method": "fp8",
            "activation_scheme": "static",
            "weight_block_size": None,
            "modules_to_not_convert": ["model.vision_tower", "model.multi_modal_projector", "lm_head"],
        },
        "text_config": _text_config(config),
        "vision_config": _vision_config(config),
    }


def _text_config(config: PocketConfig) -> dict[str, Any]:
    return {
        "model_type": "ministral3",
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 11,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.n_embd,
        "initializer_range": 0.02,
        "intermediate_size": config.n_ff,
        "max_position_embeddings": config.n_ctx,
        "num_attention_heads": config.n_head,
        "num_hidden_layers": config.num_layers,
        "num_key_value_heads": config.n_head_kv,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_parameters": {
            "rope_type": "yarn",
            "type": "yarn",
            "rope_theta": config.rope_theta,
            "factor": config.yarn_factor,
            "original_max_position_embeddings": config.yarn_original_n_ctx,
            "beta_fast": config.yarn_beta_fast,
            "beta_slow": config.yarn_beta_slow,
            "mscale": 1.0,
            "mscale_all_dim": 0.0,
            "llama_4_scaling_beta": 0.0,
        },
        "sliding_window": None,
        "tie_word_embeddings": False,
        "use_cache": True,
        "vocab_size": config.n_vocab,
    }


def _vision_config(config: PocketConfig) -> dict[str, Any]:
    return {
        "model_type": "pixtral",
        "attention_dropout": 0.0,
        "head_dim": config.vision_embd // config.vision_heads,
        "hidden_act": "silu",
        "hidden_size": config.vision_embd,
        "image_size": config.image_size,
        "intermediate_size": config.vision_ff,
        "num_attention_heads": config.vision_heads,
        "num_channels": 3,
        "num_hidden_layers": config.vision_layers,
        "patch_size": config.patch_size,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.vision_rope_theta},
    }


def generation_config_json() -> dict[str, Any]:
    return {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 11, "do_sample": True, "temperature": 0.7}


def params_json(config: PocketConfig) -> dict[str, Any]:
    return {
        "dim": config.n_embd,
        "n_layers": config.num_layers,
        "head_dim": config.head_dim,
        "hidden_dim": config.n_ff,
        "n_heads": config.n_head,
        "n_kv_heads": config.n_head_kv,
        "rope_theta": config.rope_theta,
        "norm_eps": config.rms_norm_eps,
        "vocab_size": config.n_vocab,
        "tied_embeddings": False,
        "max_position_embeddings": config.n_ctx,
        "yarn": {
            "original_max_position_embeddings": config.yarn_original_n_ctx,
            "factor": config.yarn_factor,
            "apply_scale": True,
            "beta": config.yarn_beta_fast,
            "alpha": config.yarn_beta_slow,
        },
        "quantization": {"qformat_weight": "fp8_e4m3", "qscheme_act": "TENSOR"},
        "vision_encoder": {
            "hidden_size": config.vision_embd,
            "intermediate_size": config.vision_ff,
            "num_hidden_layers": config.vision_layers,
            "num_attention_heads": config.vision_heads,
            "num_channels": 3,
            "patch_size": config.patch_size,
            "image_size": config.image_size,
            "max_image_size": config.image_size,
            "spatial_merge_size": config.spatial_merge_size,
            "rope_theta": config.vision_rope_theta,
            "mm_projector_id": "patch_merge",
            "add_pre_mm_projector_layer_norm": True,
            "adapter_bias": False,
            "image_token_id": 10,
            "image_break_token_id": 12,
            "image_end_token_id": 13,
        },
    }


def model_card(config: PocketConfig) -> str:
    return (
        "---\n"
        "license: other\n"
        "license_name: modified-mit\n"
        "license_link: LICENSE\n"
        "library_name: mm35local\n"
        "---\n\n"
        f"# {config.name}\n\n"
        "Random weights in the shape of Mistral Medium 3.5, for tests.\n"
    )
