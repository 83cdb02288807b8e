"""An agent whose device is Pacemaker: asks its fencer for the "off", and looks at its devices for itself.

Pacemaker's success is a claim like any other, and a wider one: a person's `stonith_admin --confirm` ends a
request that waits with success while the agent still runs, and a fencing by watchdog is an assumption.  So
the "off" counts only if the fencer's history shows it done, and by a device; and the second look does not go
through Pacemaker, which has no word for it, but to each device that Pacemaker would use, by its own agent."""
