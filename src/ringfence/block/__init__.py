"""How an active LV reaches its user.

`ringfence block` (`service`) is one process a host, older than any daemon: it starts a worker process
per open LV, reaps it, and keeps its incidents.  A worker serves its LV as an NBD export on a Unix
socket and asks the authority pages before and after each write.  `control` is the daemon's way to
the service."""
