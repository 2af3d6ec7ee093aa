"""Groups from the first build to their requests, on a real Kafka and Redis."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest
from redis.asyncio import Redis

from schemas.entities import EntityKey, EntityKind
from schemas.errors import ConfigurationError
from schemas.fingerprints import knowledge_fingerprint
from schemas.knowledge import Document, Factors, KnowledgeRequest, Provenance, RequestKind
from schemas.topics import Topic
from streams.compacted import read_compacted
from streams.control import read_control
from streams.control_mirror import restore_registry
from streams.emitter import KafkaEmitter
from streams.engine.outcomes import Outcome, Settled
from streams.group_set import GroupSet
from streams.groups_admin import build
from streams.lanes.encode import EncodeLane, EntityUpdate
from streams.settings import GroupsSettings, Settings
from streams.space_set import SpaceSet
from streams.spaces_admin import create, fit
from streams.topic_admin import apply
from tests.cli_runner import Ran, run_freshet
from tests.fakes.clock import FakeClock
from tests.fakes.encoding import HashEncoder
from tests.fakes.inline_executor import InlineExecutor
from tests.group_builders import cut
from tests.space_builders import PARTS, deployment_settings, fields_of, films, json_lines
from workers.encoding.representation import Representer
from workers.grouping.group_files import load_groups, save_groups
from workers.grouping.make_groups import Cut
from workers.knowledge.load_domain import load_domain
from workers.knowledge.select_prompt import prompt_id_of
from workers.live.connection import connect
from workers.live.entity_store import EntityStore
from workers.live.keys import Keys
from workers.live.space_registry import SpaceRegistry
from workers.live.view_marker import ViewMarker

COUNT = 60
FIVE = Cut("kmeans", groups=5, cap=1)


@dataclass(slots=True)
class World:
    """A deployment with a space of items, whose encode lane is called by hand."""

    settings: Settings
    redis: Redis
    registry: SpaceRegistry
    store: EntityStore
    emitter: KafkaEmitter

    async def build(self, name: str, catalog, *, how: Cut = FIVE, old=None, encoder=None):
        return await build(
            self.settings,
            name,
            catalog=catalog,
            cut=how,
            old=old,
            load_encoder=encoder or (lambda _threads: HashEncoder()),
        )

    async def write(self, documents: dict[EntityKey, Document]) -> None:
        spaces = SpaceSet(self.registry, self.settings.encode.spaces_dir, lane="encode")
        await spaces.refresh()
        lane = EncodeLane(
            store=self.store,
            representer=Representer(HashEncoder(), PARTS),
            spaces=spaces,
            emitter=self.emitter,
            clock=FakeClock(),
            executor=InlineExecutor(),
        )
        results = await lane.handle([EntityUpdate(key, one, 1) for key, one in documents.items()])
        assert all(
            isinstance(result, Settled) and result.outcome is Outcome.WRITTEN for result in results
        )

    async def groups(self) -> GroupSet:
        groups = GroupSet(self.registry, self.settings.groups.dir)
        await groups.refresh()
        return groups

    async def requests(self) -> dict[str, KnowledgeRequest]:
        """The last request about each entity on the backlog."""
        return {
            record.key.decode(): KnowledgeRequest.decode(record.value)
            async for record in read_compacted(self.settings.kafka, Topic.KNOWLEDGE_BACKLOG)
            if record.key is not None and record.value is not None
        }


@pytest.fixture
async def world(kafka, redis_server, topic_prefix, tmp_path, monkeypatch) -> AsyncIterator[World]:
    settings = deployment_settings(
        kafka.bootstrap_servers, redis_server.url, topic_prefix, tmp_path / "spaces"
    ).model_copy(update={"groups": GroupsSettings(dir=tmp_path / "groups")})
    for name, value in {
        "KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KAFKA__TOPIC_PREFIX": topic_prefix,
        "KAFKA__PARTITIONS": str(settings.kafka.partitions),
        "REDIS__URL": redis_server.url,
        "REDIS__KEY_PREFIX": topic_prefix,
        "ENCODE__SPACES_DIR": str(settings.encode.spaces_dir),
        "GROUPS__DIR": str(settings.groups.dir),
        "KNOWLEDGE__FACTORS": '["mood"]',
    }.items():
        monkeypatch.setenv(f"FRESHET_{name}", value)
    apply(settings.kafka)
    keys = Keys(topic_prefix)
    emitter = KafkaEmitter(settings.kafka)
    async with connect(redis_server.url) as redis:
        await ViewMarker(redis, keys).stamp()
        try:
            yield World(
                settings, redis, SpaceRegistry(redis, keys), EntityStore(redis, keys), emitter
            )
        finally:
            await emitter.aclose()


@pytest.fixture
def catalog(tmp_path):
    rows = [{"item_id": key.id, **fields_of(one)} for key, one in films(COUNT).items()]
    return json_lines(tmp_path / "catalog.jsonl", rows)


@pytest.fixture
async def spaced(world, catalog) -> World:
    await fit(
        world.settings,
        name="pca",
        catalog=catalog,
        knowledge=None,
        dim=4,
        load_encoder=lambda _threads: HashEncoder(),
    )
    await create(world.settings, "pca")
    return world


@pytest.fixture
def freshet(capsys):
    """A function that runs a command beside the test's event loop."""

    async def run(*words: str) -> Ran:
        return await asyncio.to_thread(run_freshet, capsys, *words)

    return run


def no_encoder(_threads: int) -> HashEncoder:
    raise AssertionError("the encoder was loaded")


async def test_groups_are_built_put_to_use_followed_and_asked_about(spaced, catalog, freshet):
    built = await spaced.build("films", catalog)
    assert (built.groups, built.members, built.kept_ids, built.depth) == (5, COUNT, 0, None)
    before = await freshet("groups", "request")
    assert (before.code, "none are in use" in before.err) == (2, True)

    activated = await freshet("groups", "activate", "films")
    listed = json.loads((await freshet("groups", "list", "--json")).out)
    dry = json.loads((await freshet("groups", "request", "--dry-run", "--json")).out)
    assert await spaced.requests() == {}
    asked = await freshet("groups", "request")

    assert activated.out == "films is in use; next: freshet groups request\n"
    (cut_listed,) = listed["cuts"]
    assert (cut_listed["name"], cut_listed["groups"], cut_listed["members"]) == ("films", 5, COUNT)
    assert (cut_listed["is_active"], cut_listed["on_disk"]) == (True, True)
    assert (dry["requested"], dry["current"]) == (5, 0)
    assert asked.out == "5 groups of films requested, 0 need nothing\n"
    groups = (await spaced.groups()).current()
    assert groups is not None
    requests = await spaced.requests()
    assert sorted(requests) == sorted(f"group:{group.id}" for group in groups.groups)
    first = requests["group:films-0"]
    assert first.kind is RequestKind.REFRESH
    assert first.fields == {"members": list(groups.groups[0].exemplars)}
    record = (await read_control(spaced.settings.kafka)).groups[EntityKind.ITEM]
    assert await spaced.registry.groups() == {EntityKind.ITEM: record}


async def test_only_groups_whose_text_is_not_the_current_one_are_asked_about(
    spaced, catalog, freshet
):
    await spaced.build("films", catalog)
    await freshet("groups", "activate", "films")
    await freshet("groups", "request")
    requests = await spaced.requests()
    settings = spaced.settings.knowledge
    domain = load_domain(
        settings.domain,
        factors=settings.factors,
        max_factor_chars=settings.max_factor_chars,
        max_tokens=settings.max_tokens,
    )
    prompt_id = prompt_id_of(domain, EntityKind.GROUP)

    def text(group: str, model: str) -> dict[EntityKey, Document]:
        request = requests[group]
        fingerprint = knowledge_fingerprint(request.content_fingerprint, prompt_id, model)
        provenance = Provenance(model, prompt_id, fingerprint)
        factors = Factors(request.version, 1, {"mood": "tense"}, provenance, 1)
        return {request.entity: Document(individual=factors)}

    await spaced.write(text("group:films-0", settings.model) | text("group:films-1", "another"))
    some = json.loads((await freshet("groups", "request", "--json")).out)
    again = await spaced.requests()
    every = json.loads((await freshet("groups", "request", "--all", "--json")).out)

    assert (some["requested"], some["current"]) == (4, 1)
    assert again["group:films-0"] == requests["group:films-0"]
    assert again["group:films-1"].version > requests["group:films-1"].version
    # Under the version it has, or the lane would only stamp the same text anew.
    assert every["requested"] == 5
    rewritten = (await spaced.requests())["group:films-0"]
    assert rewritten.version == requests["group:films-0"].version
    assert rewritten.requested_at_ms > requests["group:films-0"].requested_at_ms
    explained = await freshet("explain", "group:films-0")
    assert "tense" in explained.out


async def test_a_recut_from_the_topics_keeps_ids_and_is_followed(spaced, catalog, freshet):
    await spaced.build("films", catalog)
    await freshet("groups", "activate", "films")
    groups = await spaced.groups()
    await spaced.write(films(COUNT))

    recut = await spaced.build("films-2", "topic", old="films", encoder=no_encoder)
    await freshet("groups", "activate", "films-2")
    await groups.refresh()

    assert recut.kept_ids == 5
    current = groups.current()
    assert current is not None
    assert current.name == "films-2"
    assert {group.id for group in current.groups} == {f"films-{n}" for n in range(5)}
    shown = await freshet("groups", "show", "films-2")
    assert len(shown.out.splitlines()) == 5
    one = await freshet("groups", "show", "films-2", "films-3")
    assert one.out.startswith("films-3 (")
    assert "Film " in one.out
    missing = await freshet("groups", "show", "films-2", "films-9")
    assert (missing.code, "none has the id films-9" in missing.err) == (2, True)


async def test_an_emptied_redis_gets_the_groups_in_use_back(spaced, catalog, freshet):
    await spaced.build("films", catalog)
    await freshet("groups", "activate", "films")
    stored = await spaced.registry.groups()
    await spaced.redis.delete(Keys(spaced.settings.redis.key_prefix).groups())
    control = await read_control(spaced.settings.kafka)

    await restore_registry(control, spaced.registry)

    assert await spaced.registry.groups() == stored != {}
    newer = stored[EntityKind.ITEM].model_copy(update={"changed_at_ms": 2**60})
    await spaced.registry.put_groups(newer)
    await restore_registry(control, spaced.registry)
    assert await spaced.registry.groups() == {EntityKind.ITEM: newer}, "not put back"


async def test_groups_of_another_encoder_are_not_put_to_use(spaced, freshet):
    save_groups(spaced.settings.groups.dir, replace(cut("alien"), encoder_id="another"))

    ran = await freshet("groups", "activate", "alien")

    assert ran.code == 2
    assert "made from parts of another" in ran.err
    assert (await read_control(spaced.settings.kafka)).groups == {}


async def test_a_name_is_built_once(spaced, catalog):
    await spaced.build("films", catalog)

    with pytest.raises(ConfigurationError, match="is there already"):
        await spaced.build("films", catalog)
    with pytest.raises(ConfigurationError, match="cannot read"):
        await spaced.build("films-2", catalog, old="nosuch")


async def test_a_tree_is_built_and_measured(spaced, catalog):
    built = await spaced.build("trees", catalog, how=Cut("tree", groups=1, cap=10))

    groups = load_groups(spaced.settings.groups.dir, "trees")
    assert built.depth is not None
    assert built.depth.leaves == COUNT
    assert built.largest <= 10
    assert sum(group.size for group in groups.groups) == COUNT
    assert built.degenerate == (built.depth.mean > 4 * built.depth.ideal)


async def test_the_build_command_says_what_it_made_and_refuses_what_makes_no_sense(spaced, freshet):
    await spaced.write(films(COUNT))

    built = await freshet("groups", "build", "films", "--catalog", "topic", "--groups", "4")
    wrong = [
        await freshet("groups", "build", "x", "--catalog", "topic", *words)
        for words in (
            ("--method", "magic"),
            ("--cap", "3"),
            ("--method", "tree", "--groups", "3"),
            ("--from", "nosuch"),
        )
    ]
    nothing = await freshet("groups", "build", "x", "--catalog", "no-such-file")

    assert built.code == 0
    assert built.out.startswith(f"4 groups of {COUNT} items are in ")
    assert built.out.endswith("next: freshet groups activate films\n")
    assert [ran.code for ran in (*wrong, nothing)] == [2] * 5
