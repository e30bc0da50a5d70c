"""What is read in every step, inside it: a closed set of named device values."""

from trimtab.monitor.probes.layers import ActivationScale, GradientNorms, WeightNorms

__all__ = ["ActivationScale", "GradientNorms", "WeightNorms"]
