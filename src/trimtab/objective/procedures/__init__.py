"""How micro-batches become gradients."""

from trimtab.objective.procedures.gradient_cache import cached_gradients, joined

__all__ = ["cached_gradients", "joined"]
