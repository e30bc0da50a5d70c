"""One optimizer per file, over the storage contract."""
