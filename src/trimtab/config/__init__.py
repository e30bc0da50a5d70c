"""What a run should be: frozen models, where their values came from, presets, and the tables of choices."""

from trimtab.config.adjustable import ADJUSTABLE, Adjustable
from trimtab.config.base import Custom, Section, Span, steps_of
from trimtab.config.control import CheckpointConfig, NoStopping, PatienceStopping, StoppingConfig
from trimtab.config.data import (
    BpeTokenizer,
    ByteTokenizer,
    CsvSource,
    DataConfig,
    EmbeddedSource,
    FileTokenizer,
    JsonLinesSource,
    ParquetSource,
    SourceConfig,
    TextSource,
    TokenizerConfig,
)
from trimtab.config.dump import dump_config
from trimtab.config.effect import effective
from trimtab.config.evaluation import EvaluationConfig, SamplesConfig
from trimtab.config.explain import config_schema, explain
from trimtab.config.keys import difference, flatten
from trimtab.config.load import Loaded, load_config, load_with_origin
from trimtab.config.model import (
    CustomModel,
    DecoderConfig,
    DropoutConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    InitializationConfig,
    LayerNorm,
    ModelConfig,
    RmsNorm,
    TransformerShape,
)
from trimtab.config.monitor import LoggingConfig
from trimtab.config.objective import (
    BinaryCrossEntropyConfig,
    CrossEntropyConfig,
    FocalConfig,
    HuberConfig,
    ObjectiveConfig,
    QuantileConfig,
)
from trimtab.config.optimizer import (
    AdamWConfig,
    CustomOptimizer,
    GradientsConfig,
    NoClip,
    NormClip,
    OptimizerConfig,
)
from trimtab.config.presets import list_presets
from trimtab.config.run import Config
from trimtab.config.schedule import (
    ConstantSchedule,
    CosineSchedule,
    LinearSchedule,
    ScheduleConfig,
    WsdSchedule,
)
from trimtab.config.task import (
    CausalLanguageModeling,
    Classification,
    MaskedLanguageModeling,
    Regression,
    RowTask,
    SequenceToSequence,
    TaskConfig,
    TokenClassification,
)
from trimtab.config.training import AutoPrecision, Bf16, Fp16, Fp32, PrecisionConfig, TrainingConfig

__all__ = [
    "ADJUSTABLE",
    "AdamWConfig",
    "Adjustable",
    "AutoPrecision",
    "Bf16",
    "BinaryCrossEntropyConfig",
    "BpeTokenizer",
    "ByteTokenizer",
    "CausalLanguageModeling",
    "CheckpointConfig",
    "Classification",
    "Config",
    "ConstantSchedule",
    "CosineSchedule",
    "CrossEntropyConfig",
    "CsvSource",
    "Custom",
    "CustomModel",
    "CustomOptimizer",
    "DataConfig",
    "DecoderConfig",
    "DropoutConfig",
    "EmbeddedSource",
    "EncoderConfig",
    "EncoderDecoderConfig",
    "EvaluationConfig",
    "FileTokenizer",
    "FocalConfig",
    "Fp16",
    "Fp32",
    "GradientsConfig",
    "HuberConfig",
    "InitializationConfig",
    "JsonLinesSource",
    "LayerNorm",
    "LinearSchedule",
    "Loaded",
    "LoggingConfig",
    "MaskedLanguageModeling",
    "ModelConfig",
    "NoClip",
    "NoStopping",
    "NormClip",
    "ObjectiveConfig",
    "OptimizerConfig",
    "ParquetSource",
    "PatienceStopping",
    "PrecisionConfig",
    "QuantileConfig",
    "Regression",
    "RmsNorm",
    "RowTask",
    "SamplesConfig",
    "ScheduleConfig",
    "Section",
    "SequenceToSequence",
    "SourceConfig",
    "Span",
    "StoppingConfig",
    "TaskConfig",
    "TextSource",
    "TokenClassification",
    "TokenizerConfig",
    "TrainingConfig",
    "TransformerShape",
    "WsdSchedule",
    "config_schema",
    "difference",
    "dump_config",
    "effective",
    "explain",
    "flatten",
    "list_presets",
    "load_config",
    "load_with_origin",
    "steps_of",
]
