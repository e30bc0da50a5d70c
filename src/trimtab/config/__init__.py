"""What a run should be: frozen models, where their values came from, presets, and the tables of choices."""

from trimtab.config.adjustable import ADJUSTABLE, Adjustable
from trimtab.config.base import Budget, Custom, Section, Span, UnknownLengthError, steps_asked, steps_of
from trimtab.config.control import CheckpointConfig, NoStopping, PatienceStopping, StoppingConfig
from trimtab.config.data import (
    BpeTokenizer,
    ByteTokenizer,
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
    InitializationConfig,
    LayerNorm,
    ModelConfig,
    RmsNorm,
)
from trimtab.config.monitor import LoggingConfig
from trimtab.config.objective import CrossEntropyConfig, ObjectiveConfig
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
    ExponentialSchedule,
    ExpRangeSchedule,
    InverseSquareRootSchedule,
    LinearSchedule,
    OneCycleSchedule,
    PolynomialSchedule,
    ScheduleConfig,
    StepSchedule,
    TriangularSchedule,
    WarmRestartsSchedule,
    WsdSchedule,
    rise_of,
)
from trimtab.config.task import CausalLanguageModeling, TaskConfig
from trimtab.config.training import AutoPrecision, Bf16, Fp16, Fp32, PrecisionConfig, TrainingConfig

__all__ = [
    "ADJUSTABLE",
    "AdamWConfig",
    "Adjustable",
    "AutoPrecision",
    "Bf16",
    "BpeTokenizer",
    "Budget",
    "ByteTokenizer",
    "CausalLanguageModeling",
    "CheckpointConfig",
    "Config",
    "ConstantSchedule",
    "CosineSchedule",
    "CrossEntropyConfig",
    "Custom",
    "CustomModel",
    "CustomOptimizer",
    "DataConfig",
    "DecoderConfig",
    "DropoutConfig",
    "EmbeddedSource",
    "EvaluationConfig",
    "ExpRangeSchedule",
    "ExponentialSchedule",
    "FileTokenizer",
    "Fp16",
    "Fp32",
    "GradientsConfig",
    "InitializationConfig",
    "InverseSquareRootSchedule",
    "JsonLinesSource",
    "LayerNorm",
    "LinearSchedule",
    "Loaded",
    "LoggingConfig",
    "ModelConfig",
    "NoClip",
    "NoStopping",
    "NormClip",
    "ObjectiveConfig",
    "OneCycleSchedule",
    "OptimizerConfig",
    "ParquetSource",
    "PatienceStopping",
    "PolynomialSchedule",
    "PrecisionConfig",
    "RmsNorm",
    "SamplesConfig",
    "ScheduleConfig",
    "Section",
    "SourceConfig",
    "Span",
    "StepSchedule",
    "StoppingConfig",
    "TaskConfig",
    "TextSource",
    "TokenizerConfig",
    "TrainingConfig",
    "TriangularSchedule",
    "UnknownLengthError",
    "WarmRestartsSchedule",
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
    "rise_of",
    "steps_asked",
    "steps_of",
]
