# ruff: noqa: E501
"""Short real training runs with planted faults, as other people write and log them: torch, numpy and nothing of ours."""
