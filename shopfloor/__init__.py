"""The toolkit of the handbook: services, stages, measuring, claims, and the book."""

import sys

__version__ = "0.1.0"

# nbformat imports jsonschema, which offers to check IRIs by a grammar that takes half a second to compile, in every
# process that touches a notebook. No notebook has an IRI to check; without the module jsonschema leaves that out.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # Python's way to say that it is not there
