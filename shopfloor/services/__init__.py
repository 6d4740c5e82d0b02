"""The backing services: real servers, each a child process that ends with its owner."""
