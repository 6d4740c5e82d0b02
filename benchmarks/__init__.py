"""Figures of the kit itself, each measured beside its reference in one run: `make bench`."""
