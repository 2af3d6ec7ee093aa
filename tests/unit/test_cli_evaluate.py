"""`freshet evaluate` offline: from files and a space to figures, and what it refuses."""

import asyncio
import json

import pytest

from streams.represented_catalogue import RepresentedCatalogue, represent_catalogue
from streams.settings import Settings
from tests.cli_runner import run_freshet
from tests.evaluated import evaluation_files
from tests.fakes.answers import factor_text
from tests.fakes.encoding import HashEncoder
from tests.reki_builders import reki_adaptor
from tests.space_builders import json_lines, pca_space, raw_space, save
from workers.evaluation.interaction_files import read_interactions
from workers.grouping.group_files import save_groups
from workers.grouping.groups import Group, Groups
from workers.knowledge.shared_prompt import phrase_within

SPACE = "pca-1"


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Everything encoded beforehand: the command finds its texts in the cache."""
    monkeypatch.setenv("FRESHET_ENCODE__SPACES_DIR", str(tmp_path / "spaces"))
    monkeypatch.setenv("FRESHET_ENCODE__CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("FRESHET_GROUPS__DIR", str(tmp_path / "groups"))
    monkeypatch.setenv("FRESHET_KNOWLEDGE__FACTORS", '["mood"]')
    save(tmp_path / "spaces", raw_space(), pca_space(SPACE))
    made = evaluation_files(tmp_path, factors=("mood",))
    encoded(made["catalog"], made["knowledge"])
    return made


def encoded(catalog, knowledge) -> RepresentedCatalogue:
    return asyncio.run(
        represent_catalogue(
            Settings.load(),
            catalog=catalog,
            knowledge=knowledge,
            load_encoder=lambda _: HashEncoder(),
        )
    )


@pytest.fixture
def measure(capsys, files):
    """A function that runs `evaluate cold-start --json` and returns what it printed."""

    def run(*more, test="test", train="train", space=SPACE):
        asked = ("--test", str(files[test])) if test else ()
        ran = run_freshet(
            capsys,
            *("evaluate", "cold-start", "--json", "--space", space, *asked),
            *("--catalog", str(files["catalog"]), "--knowledge", str(files["knowledge"])),
            *("--train", str(files[train]), "--k", "5", *more),
        )
        assert ran.code == 0, ran.err
        return json.loads(ran.out)

    return run


def test_it_prints_the_figures_and_what_they_cost(measure):
    told = measure()

    assert (told["n_items"], told["n_users"]) == (12, 24)
    assert 0 < told["recall@5"] <= 1
    assert 0 < told["ndcg@5"] <= 1
    low, high = told["intervals_95"]["recall@5"]
    assert low <= told["recall@5"] <= high
    assert told["items_by_frequency"]["new"]["n"] == 24 * 4
    assert told["item_vectors_per_second"] > 0
    assert told["bytes_per_item"] == 52 + 2 * 6
    assert told["items_without_vector"] == 0
    assert told["through_pipeline"] is False


def test_a_space_may_be_named_by_its_directory(measure, tmp_path):
    by_name, by_directory = measure(), measure(space=str(tmp_path / "spaces" / SPACE))

    assert by_directory["recall@5"] == by_name["recall@5"]
    assert by_directory["space"] == SPACE


def test_knowledge_can_be_withheld_and_mixed_up(measure):
    own, content = measure(), measure("--stage", "content")
    shuffled, again = measure("--shuffle-knowledge", "3"), measure("--shuffle-knowledge", "3")

    same = ("n_items", "n_users")
    assert [own[name] for name in same] == [content[name] for name in same]
    assert len({one["ndcg@5"] for one in (own, content, shuffled)}) == 3
    assert shuffled["ndcg@5"] == again["ndcg@5"]
    assert shuffled["shuffled"] is True


def test_collective_knowledge_comes_from_the_nearest_group(measure, files, tmp_path):
    made = encoded(files["catalog"], files["knowledge"])
    content = made.parts[:, :2].reshape(len(made.keys), -1)
    centroids = content[:2] / (content[:2] ** 2).sum(axis=1, keepdims=True) ** 0.5
    groups = Groups(
        "cut-1",
        made.keys[0].kind,
        made.raw.encoder_id,
        ("title", "content"),
        made.raw.part_dim,
        content.mean(axis=0) * 0,
        centroids,
        (Group("g1", 20, ()), Group("g2", 20, ())),
    )
    save_groups(tmp_path / "groups", groups)
    told = json_lines(
        tmp_path / "told.jsonl",
        # Texts of the catalogue, so that they are in the cache.
        [
            {"group_id": group, "knowledge": {"mood": factor_text("mood", item)}}
            for group, item in (("g1", "e3"), ("g2", "e4"))
        ],
    )

    shared = measure("--stage", "collective", "--groups", "cut-1", "--group-knowledge", str(told))
    content_only = measure("--stage", "content")

    assert shared["stage"] == "collective"
    assert shared["percentile"] != content_only["percentile"]


def test_what_a_shared_call_says_is_the_beginning_of_each_items_own(
    measure, files, tmp_path, monkeypatch
):
    monkeypatch.setenv("FRESHET_KNOWLEDGE__MAX_FACTOR_CHARS", "30")
    told = [json.loads(line) for line in files["knowledge"].read_text().splitlines()]
    for line in told:
        line["knowledge"] = {"mood": phrase_within(line["knowledge"]["mood"], 30)}
    # So that these texts are in the cache, too.
    encoded(files["catalog"], json_lines(tmp_path / "brief.jsonl", told))

    stages = [measure("--stage", stage) for stage in ("content", "shared", "individual")]

    assert stages[1]["stage"] == "shared"
    assert len({one["percentile"] for one in stages}) == 3


def test_a_date_or_a_share_of_the_items_parts_one_file(measure):
    by_date = measure("--test", "1970-01-02", test=None, train="ratings")
    held_out = measure("--hold-out", "0.3", "--seed", "2", test=None, train="ratings")
    other = measure("--hold-out", "0.3", "--seed", "3", test=None, train="ratings")

    assert by_date["n_items"] == 12
    assert held_out["n_items"] == round(38 * 0.3)
    assert held_out["ndcg@5"] != other["ndcg@5"]


def test_all_items_compete_on_demand(measure):
    told = measure("--candidates", "all", "--history", "lane")

    assert told["n_items"] == 38
    assert told["candidates"] == "all"


def test_without_json_it_prints_a_table(capsys, files):
    ran = run_freshet(
        capsys,
        *("evaluate", "cold-start", "--space", SPACE, "--k", "5"),
        *("--catalog", str(files["catalog"]), "--knowledge", str(files["knowledge"])),
        *("--train", str(files["train"]), "--test", str(files["test"])),
    )

    assert ran.code == 0
    assert "recall@5" in ran.out
    assert "12 candidates, 24 users" in ran.out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), "needed: either --test or --hold-out"),
        (("--test", "yesterday"), "'yesterday' is no date, and no file"),
        (("--test", "1970-01-02", "--groups", "cut-1"), "goes with --group-knowledge"),
        (("--test", "1970-01-02", "--stage", "collective"), "needs --groups"),
        (("--test", "1970-01-02", "--k", "13"), "12 candidates for the first 13"),
        (("--test", "1970-01-02", "--through-pipeline", "--stage", "content"), "decide about"),
        (("--test", "1970-01-02", "--through-pipeline", "--stage", "shared"), "decide about"),
        (("--test", "1970-01-02", "--through-pipeline", "--shuffle-knowledge", "1"), "mixed up"),
    ],
)
def test_what_cannot_be_measured_is_refused(capsys, files, more, message):
    ran = run_freshet(
        capsys,
        *("evaluate", "cold-start", "--space", SPACE, "--train", str(files["ratings"])),
        *("--catalog", str(files["catalog"]), "--knowledge", str(files["knowledge"]), *more),
    )

    assert ran.code == 2
    assert message in ran.err


def test_a_space_of_other_parts_is_refused(capsys, files, monkeypatch, tmp_path):
    save(tmp_path / "others", pca_space("pca-2"))
    monkeypatch.setenv("FRESHET_KNOWLEDGE__FACTORS", '["theme"]')
    monkeypatch.setattr(
        "streams.represented_catalogue._EncoderOnDemand.encoder_id", HashEncoder.encoder_id
    )
    monkeypatch.setattr("streams.represented_catalogue._EncoderOnDemand.dim", HashEncoder.dim)
    monkeypatch.setattr(
        "streams.represented_catalogue._EncoderOnDemand.encode",
        lambda self, texts: HashEncoder().encode(texts),
    )

    ran = run_freshet(
        capsys,
        *("evaluate", "cold-start", "--space", str(tmp_path / "others" / "pca-2")),
        *("--catalog", str(files["catalog"]), "--knowledge", str(files["knowledge"])),
        *("--train", str(files["train"]), "--test", str(files["test"])),
    )

    assert ran.code == 2
    assert "made from hash-encoder and title, content, mood" in ran.err


def test_features_for_rankers_are_not_searched_with(capsys, files, tmp_path):
    save(tmp_path / "others", reki_adaptor())

    ran = run_freshet(
        capsys,
        *("evaluate", "cold-start", "--space", str(tmp_path / "others" / "reki")),
        *("--catalog", str(files["catalog"]), "--knowledge", str(files["knowledge"])),
        *("--train", str(files["train"]), "--test", str(files["test"])),
    )

    assert ran.code == 2
    assert "freshet evaluate reki" in ran.err


def test_a_split_on_disk_is_the_split_that_is_measured(capsys, files, measure, tmp_path):
    out = tmp_path / "held-out"
    ran = run_freshet(
        capsys,
        *("evaluate", "split", "--hold-out", "0.3", "--seed", "2", "--out", str(out), "--json"),
        *("--catalog", str(files["catalog"]), "--knowledge", str(files["knowledge"])),
        *("--train", str(files["ratings"])),
    )
    files["train"] = out / "interactions_train.csv.gz"
    files["test"] = out / "interactions_test.csv.gz"

    from_files = measure()
    at_once = measure("--hold-out", "0.3", "--seed", "2", test=None, train="ratings")

    assert ran.code == 0
    whole = read_interactions(files["ratings"])
    assert sum(json.loads(ran.out).values()) == len(whole)
    assert (out / "knowledge.jsonl").read_bytes() == files["knowledge"].read_bytes()
    assert from_files["ndcg@5"] == at_once["ndcg@5"]


def test_staleness_costs_what_it_costs(capsys, files):
    ran = run_freshet(
        capsys,
        *("evaluate", "staleness", "--space", SPACE, "--from", "1970-01-02", "--json"),
        *("--catalog", str(files["catalog"]), "--knowledge", str(files["knowledge"])),
        *("--train", str(files["ratings"])),
    )

    told = json.loads(ran.out)
    regimes = {(one["items"], one["users"]): one for one in told["regimes"]}
    assert ran.code == 0
    assert len(regimes) == 13
    live, never = regimes["live", "live"], regimes["never", "never"]
    assert live["new"]["n"] == never["new"]["n"] > 0
    assert live["new"]["hr@20"] > 0 == never["new"]["hr@20"]
    assert never["new"]["missed"] == 1.0


def test_staleness_needs_times(capsys, files):
    ran = run_freshet(
        capsys,
        *("evaluate", "staleness", "--space", SPACE, "--from", "1970-01-02"),
        *("--catalog", str(files["catalog"]), "--knowledge", str(files["knowledge"])),
        *("--train", str(files["train"])),
    )

    assert ran.code == 2
    assert "needs interactions with times" in ran.err
