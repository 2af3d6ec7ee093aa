"""The lanes as plain Faust apps: `faust -A streams.apps:items worker --without-web`.

An attribute is built when it is asked for: `items`, `knowledge`, `knowledge_backlog`, `encode`,
`behaviour`.
`freshet lane NAME` is the better way: it waits for its dependencies and serves the lane's pages.
"""

import faust

from streams.settings import Settings

LANES = {"items", "knowledge", "knowledge_backlog", "encode", "behaviour"}

_built: dict[str, faust.App] = {}


def __getattr__(name: str) -> faust.App:
    if name not in LANES:
        raise AttributeError(f"streams.apps has no lane {name}")
    if name not in _built:
        from streams.assembly import assemble
        from streams.health import Health, HealthServer
        from streams.metrics import LaneMetrics
        from streams.vitals import Vitals

        settings = Settings.load()
        lane = name.replace("_", "-")
        health, metrics = Health(lane, Vitals()), LaneMetrics(lane)
        health.starting.clear()
        server = HealthServer(
            health, metrics.exposition, host=settings.web.host, port=settings.web.port
        )
        server.start()
        _built[name] = assemble(lane, settings, health, metrics)
    return _built[name]
