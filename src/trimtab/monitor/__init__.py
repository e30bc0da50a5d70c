"""What looks at a run and changes nothing: probes on the device, sinks for what they and the loop tell."""
