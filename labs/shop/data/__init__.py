"""Reading and keeping data."""
