"""Checks of a lab: the learner's file runs in one process, what judges it in another."""
