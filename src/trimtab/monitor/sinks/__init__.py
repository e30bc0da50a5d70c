"""Where events go for people and other programs to see; torch-free."""

from trimtab.monitor.sinks.console import Console

__all__ = ["Console"]
