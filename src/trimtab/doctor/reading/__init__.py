"""What several rules read off a record: levels, noise and trends of its curves, evaluations, the planned rate."""
