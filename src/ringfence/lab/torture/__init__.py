"""`ringfence lab torture`: real processes under a seed's faults, and what they saw held against the promise.

`plan` says what breaks and when, `hands` breaks it; `locker` and `vm` are the clients, each with a `history`;
`check`, `volumes` and `recover` judge; `run` puts it together, `report` tells."""
