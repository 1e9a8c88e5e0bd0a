"""`python -m charts.monitoring.dashboards FOLDER`."""

from charts.monitoring.dashboards import main

main()
