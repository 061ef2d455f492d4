"""Random faults under load, a recorded history, and checkers that find broken promises."""
