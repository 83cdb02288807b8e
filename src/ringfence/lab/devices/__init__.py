"""Simulated fence devices, which real fence agents speak to: a rack of BMCs and PDUs beside a lab.

Each is a process of its own at a port of its own and speaks the device's own protocol.  It decides nothing:
what it is asked it asks the power switch (`lab.power`), which owns what is true and what is said of it.
`kinds` names them, `rack` starts them, and lets them fall silent with their power; `bench` has one without
a lab around it, for tests."""
