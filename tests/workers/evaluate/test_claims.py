"""Numbers, codes and negation: what counts as the same claim."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dram_workers.evaluate.claims import figures, polarity, same_figures, same_polarity


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("It costs 9,90 euros or 9.90 €.", {"9.9"}),
        ("1,000 minutes, 1000 minutes", {"1000"}),
        ("five days, 5 days", {"5"}),
        ("one of our agents", set()),
        ("1. Open the app\n2. Choose Bills", set()),
        ("Press the button for 10s", {"10"}),
        ("4G and 5 GHz", {"4", "5"}),
        ("Error E502, WPA2 or wpa3", {"e502", "wpa2", "wpa3"}),
        ("Dial *100# now", {"*100#"}),
        ("from 08:30 to 17:00", {"08:30", "17:00"}),
        ("Call 0800 123 4567 or 0800-123-4567", {"08001234567"}),
        ("See https://example.org/Help, or mail help@example.org.", {"https://example.org/help", "help@example.org"}),
        ("version 1.2.3", {"1.2.3"}),
        ("at -5 degrees", {"-5"}),
        ("within 14-30 days", {"14", "30"}),
        ("a 14-day trial", {"14"}),
        ("50 %, 100%", {"50", "100"}),
    ],
)
def test_every_number_and_code_is_read_once(text: str, want: set[str]) -> None:
    assert figures(text) == want


@pytest.mark.parametrize(
    ("reference", "answer", "prompt", "want"),
    [
        ("It costs 5 euros.", "It costs 50 euros.", "", False),
        ("It costs 5 euros.", "The price is five euros.", "", True),
        ("You have 14 days.", "You have some days.", "", False),
        ("You have some days.", "You have 14 days.", "", False),
        ("Yes, it includes calls.", "Yes, the 24.99 plan includes calls.", "What is in the 24.99 plan?", True),
        ("It is 5.", "It is 50.", "Is it 5 or 50?", False),
        ("Use WPA2.", "Use WPA3.", "", False),
    ],
)
def test_figures_must_match(reference: str, answer: str, prompt: str, want: bool) -> None:
    assert same_figures(reference, answer, prompt) is want


@pytest.mark.parametrize(
    ("reference", "answer", "want"),
    [
        ("You can cancel at any time.", "You cannot cancel at any time.", False),
        ("You can cancel at any time.", "You can't cancel at any time.", False),
        ("You can cancel at any time.", "You can not cancel at any time.", False),
        ("You can cancel at any time.", "Cancelling is possible at any time.", True),
        ("You cannot cancel.", "It is not possible to cancel.", True),
        ("You cannot cancel.", "You are unable to cancel.", True),
        ("You can cancel without a fee.", "You can cancel, there is no fee.", True),
        ("You can cancel, there is no fee.", "You cannot cancel, there is no fee.", False),
        ("You can cancel, there is no fee.", "You can cancel, there is a fee.", False),
        ("The router is working.", "The router isn't working.", False),
        ("The router is working.", "The router isn’t working.", False),
        ("Call us.", "Don't hesitate to call us.", True),
        ("Sie können kündigen.", "Sie können nicht kündigen.", False),
        ("It is not only fast but cheap.", "It is fast and cheap.", True),
    ],
)
def test_negation_must_match(reference: str, answer: str, want: bool) -> None:
    assert same_polarity(reference, answer) is want
    assert same_polarity(answer, reference) is want


def test_a_negation_reaches_its_clause_only() -> None:
    read = polarity("It is not, open the app.")
    assert read.denies
    assert read.denied == frozenset()
    assert "open" in read.affirmed


@given(st.text(max_size=200))
def test_a_text_agrees_with_itself(text: str) -> None:
    assert same_figures(text, text, "")
    assert same_polarity(text, text)
