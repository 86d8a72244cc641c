"""Judges: what turns a response into a label."""
