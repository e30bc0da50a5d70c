"""Why it happened: rules that read a configuration before a run, and a run's record during and after it."""
