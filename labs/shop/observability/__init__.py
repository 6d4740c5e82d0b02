"""What can be told of the shop from outside, while it runs."""
