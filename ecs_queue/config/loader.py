"""Reads the layers, checks every value, and builds the `Config`, or raises one error that names all problems."""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from ecs_queue.broker_url import holds_no_records, is_sqs_url
from ecs_queue.config.config_key import ConfigKey
from ecs_queue.config.layers import SUFFIXES
from ecs_queue.config.main_keys import MAIN_KEYS, MAIN_SECTION, SECRET_KEYS
from ecs_queue.config.model import DEFAULT_QUEUE, Config, EffectiveValue
from ecs_queue.config.profile import Profile
from ecs_queue.config.profile_keys import PROFILE_KEYS, PROFILE_SECTION
from ecs_queue.config.redact import redact_config_value
from ecs_queue.config.sources import RawConfig, RawValue, RawValues, read_sources
from ecs_queue.errors import ConfigError
from ecs_queue.protocol.settings import ABSENCE_UNPROVABLE_AFTER, LIST_ONLY_AFTER
from ecs_queue.server_url import is_server_url, parse_server_url
from ecs_queue.server_url.iam import find_iam_target

DEFAULT_ORIGIN = "default"
#: Shares of the parts of a launch in a lease that is shorter than the default one; together 80 %.
_LEASE_SHARES = {"call_budget_seconds": 0.15, "connect_timeout_seconds": 0.15, "read_timeout_seconds": 0.5}
#: Workers search for a lost task only between these two ages of its launch, while AWS still lists it: the proof that
#: there is none must be possible within that time (docs/protocol.md).
_MAX_ABSENCE_PROOF_SECONDS = ABSENCE_UNPROVABLE_AFTER - LIST_ONLY_AFTER
_MAX_SQS_VISIBILITY_SECONDS = 43200
_EXCLUSIVE_KEYS = ("launch_type", "capacity_provider_strategy")


def load_config(
    path: str | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Config:
    """Return the configuration: defaults < ini file < AIRFLOW__SECTION__KEY < overrides.

    Args:
        path: the ini file; None means the one that ECS_QUEUE_CONFIG names, if any.
        environ: environment variables; None means os.environ.
        overrides: keys of [ecs_queue] as text, from command-line options. An empty value is ignored.

    Raises:
        ConfigError: names each wrong key, what was expected, what was found (no secrets) and where it came from.
    """
    return build_config(read_sources(path, os.environ if environ is None else environ, overrides or {}))


def build_config(sources: RawConfig) -> Config:
    """Return the configuration of merged layers.

    Raises:
        ConfigError: as from `load_config`.
    """
    return _ConfigBuilder(sources).build()


class _ConfigBuilder:
    def __init__(self, sources: RawConfig) -> None:
        self._sources = sources
        self._problems = list(sources.problems)
        self._effective_values: list[EffectiveValue] = []

    def build(self) -> Config:
        sources = self._sources
        self._reject_unknown_keys(MAIN_SECTION, sources.main, MAIN_KEYS)
        main: dict[str, Any] = dict.fromkeys(MAIN_KEYS) | self._parse(MAIN_SECTION, sources.main, MAIN_KEYS)
        self._derive_defaults(main)
        self._check_combinations(main)
        self._add_effective_values(MAIN_SECTION, MAIN_KEYS, sources.main, main)
        base, named = self._build_profiles(main)
        if self._problems:
            raise ConfigError("\n".join(dict.fromkeys(self._problems)))
        return Config(
            **main,
            base_profile=base,
            named_profiles=named,
            effective_values=tuple(self._effective_values),
            secret_files=tuple(dict.fromkeys(sources.secret_files)),
        )

    def _build_profiles(self, main: Mapping[str, Any]) -> tuple[Profile, dict[str, Profile]]:
        sources = self._sources
        self._reject_unknown_keys(PROFILE_SECTION, sources.base, PROFILE_KEYS)
        inherited = self._parse(PROFILE_SECTION, sources.base, PROFILE_KEYS)
        if inherited.get("allowed_overrides") is None:
            inherited["allowed_overrides"] = main["allowed_overrides"]
        base = self._make_profile(PROFILE_SECTION, DEFAULT_QUEUE, inherited, sources.base)
        self._add_effective_values(PROFILE_SECTION, PROFILE_KEYS, sources.base, None)
        named = {}
        for normal, own in sorted(sources.profiles.items()):
            queue = sources.queue_names[normal]
            section = f"{PROFILE_SECTION}.{queue}"
            self._reject_unknown_keys(section, own, PROFILE_KEYS)
            keys = {name: key for name, key in PROFILE_KEYS.items() if name in own}
            parsed = _inherited_by(inherited, own) | self._parse(section, own, keys)
            named[normal] = self._make_profile(section, normal, parsed, {**sources.base, **own})
            self._add_effective_values(section, keys, own, None)
        return base, named

    def _parse(self, section: str, values: RawValues, keys: Mapping[str, ConfigKey]) -> dict[str, Any]:
        """The values of a section's keys. A wrong value becomes a problem and has no entry."""
        parsed = {}
        for name, key in keys.items():
            value = values.get(name)
            text = (key.default or "") if value is None else value.text
            try:
                parsed[name] = key.parse(text) if text else None
            except ConfigError as error:
                self._add_problem(section, name, str(error), value)
        return parsed

    def _reject_unknown_keys(self, section: str, values: RawValues, keys: Mapping[str, ConfigKey]) -> None:
        for name, value in values.items():
            if name in keys:
                continue
            near = get_close_matches(name, keys, n=1)
            bases = [name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)]
            message = f"expected one of {', '.join(keys)}; found {name!r}, which is unknown"
            if near:
                message = f"expected a known key, found {name!r}; did you mean {near[0]!r}?"
            if any(base in keys for base in bases):
                secrets = ", ".join(sorted(SECRET_KEYS))
                message = (
                    f"expected the value itself, found {name!r}: only {secrets} may be in a command, a file or a secret"
                )
            self._add_problem(section, name, message, value)

    def _add_problem(self, section: str, key: str, message: str, *values: RawValue | None) -> None:
        origins = ", ".join(dict.fromkeys(value.origin if value else DEFAULT_ORIGIN for value in values))
        self._problems.append(f"[{section}] {key}: {message} (from {origins})")

    def _derive_defaults(self, main: dict[str, Any]) -> None:
        """Set the defaults that depend on other keys."""
        given = self._sources.main
        broker = main["broker_url"]
        if main["ledger_url"] is None and "ledger_url" not in _given_keys(given) and not holds_no_records(broker or ""):
            main["ledger_url"] = broker
            main["ledger_iam"] = main["ledger_iam"] or main["broker_iam"]
        lease = main["lease_seconds"]
        is_short = lease is not None and lease < float(MAIN_KEYS["lease_seconds"].default or 0)
        for name, share in _LEASE_SHARES.items():
            if is_short and name not in _given_keys(given):
                main[name] = lease * share
        base, cap = main["retry_base_seconds"], main["retry_cap_seconds"]
        if base and cap and base > cap:
            if "retry_cap_seconds" not in _given_keys(given):
                main["retry_cap_seconds"] = base
            elif "retry_base_seconds" not in _given_keys(given):
                main["retry_base_seconds"] = cap

    def _check_combinations(self, main: dict[str, Any]) -> None:
        """Check the rules between keys. A key that is wrong by itself is skipped."""
        given = self._sources.main
        self._check_iam(main)
        lease, settle = main["lease_seconds"], main["settle_seconds"]
        parts = [main[name] for name in _LEASE_SHARES]
        if lease and None not in parts and sum(parts) >= lease:
            found = " + ".join(f"{part:g}" for part in parts)
            names = (*_LEASE_SHARES, "lease_seconds")
            self._add_problem(
                MAIN_SECTION,
                " + ".join(_LEASE_SHARES),
                f"expected less than lease_seconds ({lease:g}), found {found} = {sum(parts):g}; "
                "a longer call could outlive its claim",
                *(given[name] for name in names if name in given),
            )
        if lease and settle is not None and lease + settle > _MAX_ABSENCE_PROOF_SECONDS:
            self._add_problem(
                MAIN_SECTION,
                "lease_seconds + settle_seconds",
                f"expected at most {_MAX_ABSENCE_PROOF_SECONDS:g}, found {lease + settle:g}; AWS forgets "
                "a stopped task after an hour, so a later ListTasks proves nothing",
                *(given[name] for name in ("lease_seconds", "settle_seconds") if name in given),
            )
        self._check_stores(main)
        base, cap = main["retry_base_seconds"], main["retry_cap_seconds"]
        if base and cap and base > cap:
            message = f"expected at least retry_base_seconds ({base:g}), found {cap:g}"
            self._add_problem(MAIN_SECTION, "retry_cap_seconds", message, given.get("retry_cap_seconds"))

    def _check_iam(self, main: Mapping[str, Any]) -> None:
        for server in ("broker", "ledger"):
            key, login, url = f"{server}_iam", main[f"{server}_iam"], main[f"{server}_url"]
            values = [self._sources.main[name] for name in (key, f"{server}_url") if name in self._sources.main]
            if login is None or url is None or not values:  # without values of its own the ledger has the broker's
                continue
            try:
                if not is_server_url(url):
                    raise ConfigError(f"only a Redis or Valkey has such a log-in, and {server}_url is none")
                find_iam_target(login, parse_server_url(url))
            except ConfigError as error:
                self._add_problem(MAIN_SECTION, key, str(error), *values)

    def _check_stores(self, main: dict[str, Any]) -> None:
        """Check what a broker that is no Redis needs beside it."""
        given = self._sources.main
        broker, ledger, visibility = main["broker_url"], main["ledger_url"], main["visibility_timeout"]
        if not broker or not holds_no_records(broker):
            return
        if "ledger_url" not in _given_keys(given) or (ledger and ledger.startswith("memory:")):
            self._add_problem(
                MAIN_SECTION,
                "ledger_url",
                f"expected the URL of a Redis or Valkey such as redis://HOST:6379/0, found {ledger or 'none'}; "
                f"{broker.partition(':')[0]}:// carries messages and holds no records",
                given.get("ledger_url"),
            )
        shortest, longest = main["lease_seconds"], _MAX_SQS_VISIBILITY_SECONDS
        if is_sqs_url(broker) and visibility and shortest and not shortest <= visibility <= longest:
            self._add_problem(
                MAIN_SECTION,
                "visibility_timeout",
                f"expected from lease_seconds ({shortest:g}) to {longest} with SQS, found {visibility:g}; a message "
                "must not come again while its request is launched",
                *(given[name] for name in ("visibility_timeout", "lease_seconds") if name in given),
            )

    def _make_profile(self, section: str, queue: str, parsed: dict[str, Any], values: RawValues) -> Profile:
        """The profile; after a problem, an empty one."""
        given = {name: value for name, value in parsed.items() if value is not None or PROFILE_KEYS[name].may_be_none}
        if "capacity_provider_strategy" in given:
            given["capacity_provider_strategy"] = tuple(given["capacity_provider_strategy"])
        try:
            return Profile(queue, **given)
        except ConfigError as error:
            message = str(error)
            key = message.partition(":")[0]
            origins = dict.fromkeys(value.origin for name, value in values.items() if name in key)
            problem = f"{message} (from {', '.join(origins)})"
            # A problem that a profile inherits has been reported for its own section.
            if not any(known.endswith(f"] {problem}") for known in self._problems):
                self._problems.append(f"[{section}] {problem}")
            return Profile(queue)

    def _add_effective_values(
        self, section: str, keys: Mapping[str, ConfigKey], given: RawValues, effective: Mapping[str, Any] | None
    ) -> None:
        """Add the values of one section as text: as given, otherwise the default or the derived value."""
        for name, key in keys.items():
            value = given.get(name)
            shown, origin = (key.default or "", DEFAULT_ORIGIN) if value is None else (value.text, value.origin)
            now = None if effective is None else effective[name]
            if now is not None and (not shown or (origin == DEFAULT_ORIGIN and key.parse(shown) != now)):
                shown = f"{now:g}" if isinstance(now, float) else str(now)
                origin = f"{DEFAULT_ORIGIN} (derived)"
            self._effective_values.append(EffectiveValue(section, name, redact_config_value(name, shown), origin))


def _given_keys(values: RawValues) -> set[str]:
    """The keys with a value that is not empty."""
    return {name for name, value in values.items() if value.text}


def _inherited_by(inherited: Mapping[str, Any], own: RawValues) -> dict[str, Any]:
    """The values that a profile inherits. A profile that sets one of two exclusive keys does not inherit the other."""
    chosen = _given_keys(own).intersection(_EXCLUSIVE_KEYS)
    return {name: value for name, value in inherited.items() if not (chosen and name in _EXCLUSIVE_KEYS)}
