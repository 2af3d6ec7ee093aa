"""RawSchema makes the events of upstream's schema of raw bytes, and asks the app for nothing."""

from types import SimpleNamespace
from typing import Any

import faust
import pytest

from streams.faust_runtime.raw_schema import RawSchema


@pytest.mark.parametrize("value", [b'{"title": "Heat"}', b"", None])
@pytest.mark.parametrize("key", [b"item:42", None])
async def test_key_and_value_pass_as_they_are(key: bytes | None, value: bytes | None) -> None:
    message: Any = SimpleNamespace(key=key, value=value, headers=(("ce_type", b"x"),))
    app: Any = object()
    upstream: faust.Schema[Any, Any] = faust.Schema(
        key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
    )

    event = await RawSchema().compile(app)(message, propagate=True)

    expected = await upstream.compile(faust.App("upstream"))(message, propagate=True)
    assert event.key == expected.key == key
    assert event.value == expected.value == value
    assert event.message is expected.message is message
    assert event.app is app
    assert not event.acked
