"""Stock LVM2's commands, served as by lvmlockd with the DLM: what each request means and is told.

`server` takes requests and knows their connections; `locks` has what they ask of locks, by `rules`; `spaces`
starts and stops lockspaces; `info` is what lvmlockctl shows."""
