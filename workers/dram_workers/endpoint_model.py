"""A teacher behind an endpoint, as stages name it. Import-light, as `stages` is."""

from dram_workers.model import Model


class EndpointModel(Model):
    """A model behind an OpenAI-compatible endpoint. It has no digest, so address and name stand for it."""

    url: str
    """Base URL, e.g. `https://api.example.com/v1`."""
    model: str
