"""The rules of the business, and the way in and out of them."""
