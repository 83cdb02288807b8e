"""The device-mapper plane: an active LV as a block device of this host's kernel.

`mapper` says what is asked of device-mapper, `control` asks the kernel for it by ioctl.  `device` opens and
closes one LV.  `guard` is a thread of the block service that looks at the authority pages and suspends,
resumes or cuts tables (`judge` decides, `stock` does it for those that LVM2 made); `counters` tells what went
through one that was suspended late.

What the kernel promises nobody here can: the check of the deadline and the write are not one step.  A table
stands open until it is suspended, so that a host which was frozen writes again before its guard runs.  That
is detected and reported, where the NBD plane prevents it but for one write a connection."""
