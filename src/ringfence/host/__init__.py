"""This host: its clock, who it is, its authority pages, small files kept whole, sd_notify."""
