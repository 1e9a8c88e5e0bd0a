"""What becomes of variants that fail, and of those that only warn."""

import pytest

from dram_operator.api.status import StageState
from dram_workers.results import Measure
from tests.builders import a_job
from tests.operator.core.world import GOOD_SCORES, TWO, World, a_world, crashed


class TestVariants:
    BAD = (Measure(name="goldenPassRate", value=0.5, low=0.4, high=0.6), Measure(name="klDivergence", value=0.001))
    UNSURE = (Measure(name="goldenPassRate", value=0.9, low=0.7, high=0.95), Measure(name="klDivergence", value=0.001))

    def world(self, bad: tuple[Measure, ...], *, required: bool = True) -> World:
        job = a_job().exporting(*TWO, required=required)
        world = a_world(job.with_gates(quality={"minGoldenPassRate": 0.8}))
        world.measures = lambda attempt: bad if attempt.stage == "evaluate-gguf-q4-k-m" else GOOD_SCORES
        return world

    def test_a_failed_gate_fails_the_job_and_releases_only_the_other_variant(self) -> None:
        world = self.world(self.BAD)
        world.run()
        assert world.condition("Succeeded") == ("False", "GateFailed")
        assert "gguf-q4-k-m: quality.minGoldenPassRate" in world.status.conditions[0].message
        assert world.condition("GatesPassed")[0] == "False"
        assert [variant.uri is not None for variant in world.status.variants] == [True, False]
        assert world.condition("Published")[0] == "True", "the evidence is kept"
        assert world.status.gate == "quality.minGoldenPassRate"

    def test_a_limit_inside_the_interval_is_inconclusive(self) -> None:
        world = self.world(self.UNSURE)
        world.run()
        assert world.condition("Succeeded") == ("False", "GateInconclusive")
        assert world.condition("GatesPassed") == ("False", "GateInconclusive")

    def test_an_optional_variant_may_fail_its_gate(self) -> None:
        world = self.world(self.BAD, required=False)
        world.run()
        assert world.condition("Succeeded") == ("True", "Completed")
        assert "1 of 2" in world.status.conditions[0].message

    def test_when_all_optional_variants_fail_the_job_fails(self) -> None:
        world = self.world(self.BAD, required=False)
        world.measures = lambda _: self.BAD
        world.run()
        assert world.condition("Succeeded") == ("False", "GateFailed")

    @pytest.mark.parametrize("required", [True, False])
    def test_an_export_that_fails_takes_its_variant_with_it_and_nothing_else(self, required: bool) -> None:
        world = self.world(GOOD_SCORES)
        exports = [export.model_copy(update={"required": required}) for export in world.job.spec.exports]
        world.having(exports=(exports[0].model_copy(update={"required": True}), exports[1]))
        world.run_to("export-gguf-q4-k-m")
        world.fail("export-gguf-q4-k-m", crashed(64, reason="ConversionUnproven", message="token 7 differs"))
        world.run()
        assert world.stage("bench-gguf-q4-k-m").state is StageState.SKIPPED
        assert world.stage("publish").state is StageState.SUCCEEDED
        want = ("False", "ConversionUnproven") if required else ("True", "Completed")
        assert world.condition("Succeeded") == want
        assert [variant.gate for variant in world.status.variants] == ["Pass", "Fail"]

    def test_no_variant_left_without_any_gate_row_says_so(self) -> None:
        world = a_world(a_job().exporting("Q8_0", required=False))
        world.run_to("export-gguf-q8-0")
        world.fail("export-gguf-q8-0", crashed(64, reason="ConversionUnproven", message="x"))
        world.run()
        assert world.condition("Succeeded") == ("False", "GateFailed")
        assert "no variant reached its gates" in world.status.conditions[0].message

    def test_a_bench_that_fails_leaves_its_gates_unverified(self) -> None:
        world = a_world(a_job().with_gates(performance={"p95LatencyMs": 100}))
        world.run_to("bench-gguf-q8-0")
        world.fail("bench-gguf-q8-0", crashed(64, reason="RuntimeRefused", message="x"))
        world.run()
        assert {row.gate: row.verdict for row in world.status.gates}["performance.p95LatencyMs"] == "Unverified"
        assert world.condition("Succeeded") == ("False", "RuntimeRefused")

    def test_below_a_billion_parameters_the_default_divergence_limit_warns(self) -> None:
        world = a_world()
        world.measures = lambda _: (Measure(name="klDivergence", value=0.1, low=0.09, high=0.11),)
        world.run()
        assert world.condition("GatesPassed") == ("True", "GatesWarned")
        assert world.status.gate == "Warn"
