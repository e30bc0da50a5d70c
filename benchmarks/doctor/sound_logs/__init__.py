"""Sound logs of other trainers, drawn from curves and noise by numpy alone: what a doctor must not warn about.

    PYTHONPATH=benchmarks/doctor python -m sound_logs [--seeds 5] [--only KIND …] [--keep FOLDER]

One module for each theme, with its kinds as functions of a random generator in `KINDS`; `judge.py` writes and judges.
"""
