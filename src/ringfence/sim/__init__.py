"""The simulator: a whole cluster with its faults as one function of one integer."""
