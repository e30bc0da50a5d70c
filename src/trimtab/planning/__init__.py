"""What a run will cost before it runs: work and memory are counted, and held against what a device can do."""

from trimtab.planning.counts import (
    Measured,
    ModelCounts,
    Product,
    Stream,
    attention_flops,
    count_model,
    mean_keys,
    outputs_in,
    product_flops,
    vocabulary_of,
)
from trimtab.planning.devices import DEVICES, Device, find_device, has_nvidia_driver
from trimtab.planning.predict import Prediction, predict, that_fits
from trimtab.planning.settings import COMPILE_PAYS_AFTER_SECONDS, one_shape

__all__ = [
    "COMPILE_PAYS_AFTER_SECONDS",
    "DEVICES",
    "Device",
    "Measured",
    "ModelCounts",
    "Prediction",
    "Product",
    "Stream",
    "attention_flops",
    "count_model",
    "find_device",
    "has_nvidia_driver",
    "mean_keys",
    "one_shape",
    "outputs_in",
    "predict",
    "product_flops",
    "that_fits",
    "vocabulary_of",
]
