"""Ids, lives, modes, evidence kinds, the cluster's configuration as a value, the error tree."""
