"""Runs under faults, judged afterwards from what was written down while they ran."""
