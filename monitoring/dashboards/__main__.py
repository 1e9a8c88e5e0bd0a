"""`python -m monitoring.dashboards FOLDER`."""

from monitoring.dashboards import main

main()
