"""Modules for other libraries. Each is imported only by its name."""
