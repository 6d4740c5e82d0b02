"""What commands do: `declared` declares the learner's, which import the other modules when they run."""
