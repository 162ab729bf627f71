"""Grafana dashboards and Prometheus alert rules, from code."""
