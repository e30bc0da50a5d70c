"""What is read in every step, inside it: a closed set of named device values."""

from trimtab.monitor.probes.layers import ActivationScale, GradientNorms, WeightNorms
from trimtab.monitor.probes.noise_scale import GradientNoiseScale

__all__ = ["ActivationScale", "GradientNoiseScale", "GradientNorms", "WeightNorms"]
