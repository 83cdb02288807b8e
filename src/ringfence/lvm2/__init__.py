"""LVM2's on-disk format: bytes in, frozen values out, and back.  No I/O.

`label` is the PV's label and header, `area` a metadata area with its two-slot ring, `text` the
metadata's grammar, `names` the rules for names, tags and uuids.  docs/formats/lvm2.md tells the
whole, and what is true after a crash at each step."""
