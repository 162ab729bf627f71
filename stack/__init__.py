"""Runs the whole system on one machine: embedded servers, the supervisor of the services, the demo."""
