"""Tests that Django runs: tests/integrations/test_django.py starts it."""
