"""A second set of runs: other tasks, other models, other ways to go wrong than those of `own_examiner`, by an author
who has read of the doctor its table of codes alone.
"""
