"""Limits on a mixture, solved exactly."""
