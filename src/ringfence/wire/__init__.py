"""Every message and entry as a versioned value.  Pure: bytes in, values out, and back.

`entries` are what the cluster state applies; `ring` is how they travel between nodes; `client`,
`block` and `hub` are the local sockets' languages.  PROTOCOL is announced by every node."""

PROTOCOL = 1
