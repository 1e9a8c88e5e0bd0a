"""Release: a pod in the tenant's namespace carries an artifact from the tenant's bucket into the release repository."""
