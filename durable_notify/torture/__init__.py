"""Faults at random under load, a recorded history, and checkers that look for what went wrong."""
