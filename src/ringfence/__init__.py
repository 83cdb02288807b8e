"""ringfence: clustered LVM for today.  See docs/ARCHITECTURE.md for the picture and the promise."""

__version__ = "0.1.0"
