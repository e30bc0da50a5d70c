"""Models: transformers and small networks, their parts, initialization and size, and foreign modules made to fit."""

from trimtab.model.attention import Attention, CrossAttention, packs_attention
from trimtab.model.batch_norm import BatchNorm
from trimtab.model.block import Block
from trimtab.model.convolutional import ConvolutionalNetwork
from trimtab.model.dropout import Dropout, LayerDropout, count_dropout_sites, set_dropout_factor
from trimtab.model.embeddings import Cutout, EmbeddingNoise, EmbeddingTransforms, Mixup, embedding_of
from trimtab.model.encoder import Encoder
from trimtab.model.encoder_decoder import EncoderDecoder
from trimtab.model.factory import build_model
from trimtab.model.feed_forward import FeedForward, fuses_activation
from trimtab.model.flex import hidden_by, refuses_flex, set_flex
from trimtab.model.foreign import ForeignModel, as_output
from trimtab.model.freeze import Stages, freeze
from trimtab.model.hugging_face import HuggingFaceModel
from trimtab.model.initialize import init_weights
from trimtab.model.kinds import Network, Outside, Transformer, Translator, translates
from trimtab.model.mode import buffers_kept, evaluating, uncompiled
from trimtab.model.perceptron import MultilayerPerceptron
from trimtab.model.size import ParameterCounts, flops_per_token, parameter_counts
from trimtab.model.transformer import Decoder
from trimtab.model.wrap import is_hugging_face, wrap_model

__all__ = [
    "Attention",
    "BatchNorm",
    "Block",
    "ConvolutionalNetwork",
    "CrossAttention",
    "Cutout",
    "Decoder",
    "Dropout",
    "EmbeddingNoise",
    "EmbeddingTransforms",
    "Encoder",
    "EncoderDecoder",
    "FeedForward",
    "ForeignModel",
    "HuggingFaceModel",
    "LayerDropout",
    "Mixup",
    "MultilayerPerceptron",
    "Network",
    "Outside",
    "ParameterCounts",
    "Stages",
    "Transformer",
    "Translator",
    "as_output",
    "buffers_kept",
    "build_model",
    "count_dropout_sites",
    "embedding_of",
    "evaluating",
    "flops_per_token",
    "freeze",
    "fuses_activation",
    "hidden_by",
    "init_weights",
    "is_hugging_face",
    "packs_attention",
    "parameter_counts",
    "refuses_flex",
    "set_dropout_factor",
    "set_flex",
    "translates",
    "uncompiled",
    "wrap_model",
]
