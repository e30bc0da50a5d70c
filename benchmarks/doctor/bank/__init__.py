"""The doctor's bank: real short runs with planted faults and sound ones, and how the doctor fares on them."""
