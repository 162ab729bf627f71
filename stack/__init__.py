"""Runs the whole shop on one machine: embedded servers, supervised services, the demo."""
