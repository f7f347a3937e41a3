"""Whether and when a failed attempt is made again.

A policy is data and its answer a pure function of it: no clock, and the random *roll* is passed in.
Jitter is only ever added, so nothing runs earlier than asked (a server's ``Retry-After`` included).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import msgspec

from windlass.errors import ConfigError, NonRetryable, ResultError, Retry

__all__ = ["NO_RETRY", "RetryPolicy", "parse_retry_after"]

_LONGEST = timedelta(days=366)


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Back-off that doubles from ``initial`` to ``cap``, with up to ``jitter`` of itself added.

    >>> policy = RetryPolicy(initial=timedelta(seconds=2), cap=timedelta(minutes=1), jitter=0)
    >>> [policy.delay(n).seconds for n in (1, 2, 3, 9)]
    [2, 4, 8, 60]

    ``exceptions`` gives classes of exceptions (subclasses included, the most derived first) a policy
    of their own, or ``None`` for "do not retry". Exceptions derived from
    :class:`~windlass.errors.NonRetryable` are never retried.
    """

    initial: timedelta = timedelta(seconds=2)
    factor: float = 2.0
    cap: timedelta = timedelta(hours=1)
    jitter: float = 0.1
    exceptions: Mapping[type[BaseException], RetryPolicy | None] = {}

    def __post_init__(self) -> None:
        for name, span in (("initial", self.initial), ("cap", self.cap)):
            if not isinstance(span, timedelta):
                raise ConfigError(
                    f"A retry policy's {name} is a timedelta such as timedelta(seconds=5), "
                    f"not {span!r:.80}."
                )
        for name, number in (("factor", self.factor), ("jitter", self.jitter)):
            if not isinstance(number, int | float):
                raise ConfigError(f"A retry {name} is a number, not {number!r:.80}.")
        for kind, policy in self.exceptions.items():
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                raise ConfigError(
                    f"A retry policy's exceptions are named by their classes, not by {kind!r:.80}."
                )
            if not isinstance(policy, RetryPolicy | None):
                raise ConfigError(
                    f"What holds for {kind.__name__} is a RetryPolicy, or None for no retry, "
                    f"not {policy!r:.80}."
                )
        if self.initial < timedelta(0) or self.cap > _LONGEST:
            raise ConfigError("A retry delay lies between 0 and 366 days.")
        if self.cap < self.initial:
            raise ConfigError("A retry policy's cap cannot be shorter than its initial delay.")
        if not 1.0 <= self.factor <= 100.0:
            raise ConfigError(f"A retry factor lies between 1 and 100, not {self.factor}.")
        if not 0.0 <= self.jitter <= 10.0:
            raise ConfigError(f"A retry jitter lies between 0 and 10, not {self.jitter}.")

    def delay(self, failures: int, roll: float = 0.0) -> timedelta:
        """How long to wait after the *failures*-th failure (from 1); *roll* is random in [0, 1)."""
        # Compare exponents, not powers: factor ** 10_000 would overflow.
        seconds, cap = self.initial.total_seconds(), self.cap.total_seconds()
        for _ in range(failures - 1):
            if seconds >= cap or self.factor == 1.0 or seconds == 0.0:
                break
            seconds *= self.factor
        return timedelta(seconds=min(seconds, cap) * (1.0 + self.jitter * roll))

    def choose(self, cause: BaseException | None) -> RetryPolicy | None:
        """The policy that applies to *cause*; None when it must not be retried."""
        if isinstance(cause, NonRetryable | ResultError):
            return None
        # Of a time-out or a run in another process there is only a description: any exception.
        for ancestor in type(cause).__mro__ if cause is not None else (BaseException,):
            if ancestor in self.exceptions:
                return self.exceptions[ancestor]
        return self

    def asked(self, cause: BaseException | None, roll: float = 0.0) -> timedelta | None:
        """The delay that *cause* itself asks for, if any.

        :class:`~windlass.errors.Retry` may carry one; so may any exception with an attribute
        ``retry_after`` (seconds or timedelta), as many HTTP clients' errors have.
        """
        wish = cause.after if isinstance(cause, Retry) else getattr(cause, "retry_after", None)
        if isinstance(wish, int | float) and not isinstance(wish, bool) and 0 <= wish < 1e9:
            wish = timedelta(seconds=wish)
        if not isinstance(wish, timedelta) or wish < timedelta(0):
            return None
        return min(wish, _LONGEST) * (1.0 + self.jitter * roll)


NO_RETRY = RetryPolicy(exceptions={BaseException: None})
"""The first failure is final."""


def parse_retry_after(value: str, now: datetime) -> timedelta | None:
    """An HTTP ``Retry-After`` value (RFC 9110, 10.2.3: seconds or a date) as a delay from *now*.

    None when the value is neither. A date in the past is a delay of zero.
    """
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(timedelta(seconds=int(text[:9])), _LONGEST)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return min(max(date - now, timedelta(0)), _LONGEST)
