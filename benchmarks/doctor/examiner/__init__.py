"""Short real runs as strangers train and log them, with planted faults: nobody tunes rules on them."""
