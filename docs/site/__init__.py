"""The documentation as a site. `python -m docs.site FOLDER` builds it; a broken link fails."""
