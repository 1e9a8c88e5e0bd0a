"""Dashboards, alerts and their references."""
