"""Small models of transformers with random weights, by the names of their architectures."""

from __future__ import annotations

from typing import Any

_SHAPE: dict[str, Any] = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}

TINY: dict[str, dict[str, Any]] = {
    "gpt2": {"model_type": "gpt2", "n_layer": 2, "n_embd": 32, "n_head": 2, "n_positions": 64},
    "llama": {"model_type": "llama", **_SHAPE, "tie_word_embeddings": False},
    "gemma2": {"model_type": "gemma2", **_SHAPE, "num_key_value_heads": 1, "head_dim": 16},
    "starcoder2": {"model_type": "starcoder2", **_SHAPE, "num_key_value_heads": 2},
    "bert": {"model_type": "bert", **_SHAPE},
    "roberta": {"model_type": "roberta", **_SHAPE, "max_position_embeddings": 66},
    "distilbert": {
        "model_type": "distilbert",
        "n_layers": 2,
        "dim": 32,
        "n_heads": 2,
        "hidden_dim": 64,
        "max_position_embeddings": 64,
    },
    "t5": {"model_type": "t5", "num_layers": 2, "d_model": 32, "num_heads": 2, "d_ff": 64, "d_kv": 16},
    "bart": {
        "model_type": "bart",
        "encoder_layers": 1,
        "decoder_layers": 1,
        "d_model": 32,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": 64,
    },
}
