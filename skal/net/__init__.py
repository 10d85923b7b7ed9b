"""The seam to the user's estimator and network; nothing else knows skorch's insides."""
