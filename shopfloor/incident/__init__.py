"""The incident drill: a solved shop under load with one hidden fault, and what can be seen of it from outside."""
