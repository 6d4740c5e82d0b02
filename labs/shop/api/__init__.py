"""What callers see: resources, lists, errors."""
