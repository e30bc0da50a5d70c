"""What is read of a model: in every step, inside it, or every so many steps, from a pass of its own."""

from trimtab.monitor.probes.build import build_examiner, build_probes
from trimtab.monitor.probes.capture import Capture, add_capture, read_captures
from trimtab.monitor.probes.cosine import GradientCosine
from trimtab.monitor.probes.examiner import Examiner
from trimtab.monitor.probes.layers import ActivationScale, ClippedNorms, GradientNorms, WeightNorms
from trimtab.monitor.probes.noise_scale import GradientNoiseScale

__all__ = [
    "ActivationScale",
    "Capture",
    "ClippedNorms",
    "Examiner",
    "GradientCosine",
    "GradientNoiseScale",
    "GradientNorms",
    "WeightNorms",
    "add_capture",
    "build_examiner",
    "build_probes",
    "read_captures",
]
