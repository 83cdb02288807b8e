"""Volume groups as values: the model over the metadata tree, checks, plans, report rows.  Pure.

A plan takes a VG and returns the VG as it should be; what a plan does not know, it carries along."""
