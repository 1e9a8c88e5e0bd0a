"""The check without an API server: every rule, and the words of the API server."""

import pytest

from dram_operator.api.offline import Manifest, breaches, check, subjects, with_defaults
from dram_operator.api.rule import Rule
from dram_operator.api.rules import RULES
from tests.operator.api.cases import ACCEPTED, REFUSED, Accepted, Refused


def _filled(case: Accepted | Refused) -> tuple[Manifest, Manifest | None]:
    return with_defaults(case.job.manifest()), with_defaults(case.old.manifest()) if case.old else None


FILLED_ACCEPTED = [_filled(case) for case in ACCEPTED]
FILLED_REFUSED = [_filled(case) for case in REFUSED]


def test_every_case_has_a_name_of_its_own() -> None:
    names = [case.name for case in ACCEPTED] + [case.name for case in REFUSED]
    assert len(names) == len(set(names))


def _check(case: Accepted | Refused, *, local: bool = False) -> list[str]:
    old = case.old.manifest() if case.old else None
    return [str(problem) for problem in check(case.job.manifest(), local=local, old=old)]


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.name)
def test_accepts(case: Accepted) -> None:
    assert _check(case) == []


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_refuses_at_the_field_with_the_remedy(case: Refused) -> None:
    old = case.old.manifest() if case.old else None
    problems = check(case.job.manifest(), local=False, old=old)
    assert [problem.field for problem in problems] == [case.want_field]
    assert case.want_message in problems[0].message


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_a_local_run_is_free_of_what_only_a_cluster_needs(case: Refused) -> None:
    assert (_check(case, local=True) == []) is case.locally_fine


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.path} {rule.message[:60]}")
def test_every_rule_has_a_case_that_keeps_it_and_one_that_breaks_it(rule: Rule) -> None:
    assert any(list(breaches(rule, *filled)) for filled in FILLED_REFUSED)
    assert any(list(subjects(rule, *filled)) for filled in FILLED_ACCEPTED)
