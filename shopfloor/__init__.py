"""The toolkit of the handbook: services, stages, measuring, claims, and the book."""

__version__ = "0.1.0"
