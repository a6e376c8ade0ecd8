"""From what users pass to a validated training problem: arrays, labels, weights, splits."""
