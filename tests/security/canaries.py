"""Texts that stand for secrets, and requests that have them where a payload may be, rightly or wrongly."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

#: In each secret text, and a secret number; no text of the package contains one of them.
CANARY = "c4n4ry"
NUMBER = 70_214_365
#: What a user may write in place of a variable or a word: each contains the canary.
SECRETS = (
    f"DB_PASSWORD={CANARY}",
    CANARY,
    f"{CANARY}, type: <class 'str'>, valid types: x",
    f"it's \"{CANARY}\" at 'x' failed to satisfy",
    f"two\nlines {CANARY}",
    f'{{"password": "{CANARY}"}}',
    f"https://user:{CANARY}@host/",
    f"ü{CANARY}\ud800",
)
_PAYLOAD_KEYS = ("environment", "Environment", "command", "environmentFiles", "environment_files")

secrets = st.sampled_from(SECRETS)
#: A value of a wrong type, or a right one, with a secret in it.
values: st.SearchStrategy[Any] = st.one_of(
    secrets,
    st.lists(secrets, min_size=1, max_size=2),
    secrets.map(lambda text: {"name": "DB_PASSWORD", "value": text}),
    secrets.map(lambda text: [{"name": "DB_PASSWORD", "value": text}]),
    secrets.map(lambda text: [{"name": "DB_PASSWORD", "value": [text]}]),
    st.just([{"name": "PIN", "value": NUMBER}]),
    st.just([NUMBER]),
    secrets.map(lambda text: [{"DB_PASSWORD": text}]),
    secrets.filter(lambda text: text != CANARY).map(lambda text: [{text: "x"}]),  # a key is shown if it is a plain name
    secrets.map(lambda text: {"DB_PASSWORD": text}),
    secrets.map(lambda text: [[text]]),
    secrets.map(lambda text: [{"type": text, "value": text}]),
)
_overrides = st.dictionaries(st.sampled_from(_PAYLOAD_KEYS), values, min_size=1, max_size=2)


def _wrap(containers: Any) -> dict[str, Any]:
    return {"overrides": {"containerOverrides": containers}}


#: An executor_config whose payload members, or what stands in their place, hold secrets.
executor_configs: st.SearchStrategy[Any] = st.one_of(
    _overrides,
    _overrides.map(lambda override: _wrap([{"name": "side", **override}])),
    _overrides.map(lambda override: _wrap([override])),
    values.map(_wrap),
    values.map(lambda value: {"overrides": value}),
    values.map(lambda value: {"networkConfiguration": value, "environment": value}),
)
commands: st.SearchStrategy[Any] = st.one_of(values, st.just(["true"]))


def leaks(text: str) -> bool:
    """Whether a text shows a secret."""
    return CANARY in text or str(NUMBER) in text
