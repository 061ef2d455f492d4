"""Modules for other libraries. Import each by its name."""
