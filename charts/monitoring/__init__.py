"""What the project gives to those who watch it: dashboards, and the reference of metrics and alerts. Made when it is built; no pod needs it."""
