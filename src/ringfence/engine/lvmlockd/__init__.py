"""Stock LVM2's commands, served as by lvmlockd with the DLM: what each request means and is told.

`server` takes requests and knows their connections (`sessions`); `locks` has what they ask of locks, by
`rules`; `versions` what becomes of a VG's new version; `replies` what is answered and logged; `spaces`
starts and stops lockspaces; `ahead` asks for what a command is about to want; `info`, `recent` and `killing`
are lvmlockctl's."""
