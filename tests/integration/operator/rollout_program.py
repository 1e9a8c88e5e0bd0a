"""The operator as its pod runs it, over artifacts that are signed already; settings come from the environment."""

import asyncio

from dram_operator.adapters.kubernetes import Kubernetes
from dram_operator.app import watch
from dram_operator.runtime.operator import Operator
from dram_operator.settings import Settings
from tests.integration.operator.rollouts import signed_artifacts


async def run() -> None:
    """Run until killed."""
    settings = Settings.load()
    api = await Kubernetes.connect(settings.kubeconfig)
    await Operator(settings, api, watch, make_artifacts=signed_artifacts).run(asyncio.Event())


asyncio.run(run())
