"""EdgeRollouts at the check without an API server: every rule, in the words of the API server."""

import pytest

from dram_operator.api.offline import breaches, check, subjects, with_defaults
from dram_operator.api.rollout_rules import ROLLOUT_RULES
from dram_operator.api.rule import Rule
from tests.operator.api.rollouts import ACCEPTED_ROLLOUTS, REFUSED_ROLLOUTS, AcceptedRollout, RefusedRollout


def _reaches_the_rules(case: RefusedRollout) -> bool:
    """Whether the schema lets the rules speak: behind a wrong type or a missing field they mean nothing."""
    return not any(words in case.want_message for words in ("of type", "Required value"))


FILLED_ACCEPTED = [with_defaults(case.rollout.manifest()) for case in ACCEPTED_ROLLOUTS]
FILLED_REFUSED = [with_defaults(case.rollout.manifest()) for case in REFUSED_ROLLOUTS if _reaches_the_rules(case)]


def test_every_case_has_a_name_of_its_own() -> None:
    names = [case.name for case in ACCEPTED_ROLLOUTS] + [case.name for case in REFUSED_ROLLOUTS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("case", ACCEPTED_ROLLOUTS, ids=lambda case: case.name)
def test_accepts(case: AcceptedRollout) -> None:
    assert check(case.rollout.manifest(), local=False) == []


@pytest.mark.parametrize("case", REFUSED_ROLLOUTS, ids=lambda case: case.name)
def test_refuses_at_the_field_with_the_remedy(case: RefusedRollout) -> None:
    problems = check(case.rollout.manifest(), local=False)
    assert [problem.field for problem in problems] == [case.want_field]
    assert case.want_message in problems[0].message


@pytest.mark.parametrize("rule", ROLLOUT_RULES, ids=lambda rule: f"{rule.path} {rule.message[:60]}")
def test_every_rule_has_a_case_that_keeps_it_and_one_that_breaks_it(rule: Rule) -> None:
    assert any(list(breaches(rule, filled, None)) for filled in FILLED_REFUSED)
    assert any(list(subjects(rule, filled, None)) for filled in FILLED_ACCEPTED)
