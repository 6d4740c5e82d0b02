"""Standing when others fall."""
