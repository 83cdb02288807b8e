"""`ringfence doctor`: what is wrong with this cluster's set-up, why it matters, the command that mends it.

`gather` looks (at this host, and through the ring at all others), `checks` judge: pure functions of one
value, `facts.ClusterFacts`.  Nothing is ever changed.  docs/DOCTOR.md lists every finding."""
