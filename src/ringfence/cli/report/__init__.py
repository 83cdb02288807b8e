"""Reports as LVM2 makes them: fields, what is selected, in which order, how it is printed.

Everything here is handed columns of raw values and returns text; `cli.verbs.reports` asks the daemon."""
